# shellcheck shell=sh
# Sets up the environment that the project runs in. For scripts/run and scripts/test, which set
# $root and read this file:
#
#   set_up run     rtvoice with what it needs, then each optional package by itself
#   set_up test    the same, and the tools of the tests
#   set_up long    after it: what only the long tests need
#
# It sets $venv. Nobody but root ever gets a system package installed, and then with apt-get; for
# everybody else the command that would do it is printed. All network traffic is pip's (and
# apt-get's), so their own settings hold: index, proxy, certificates.
#
# A set-up that is complete leaves a stamp; while the stamp fits, set_up starts no pip and needs no
# network. From the environment:
#
#   PYTHON                 the Python to use; else the first on PATH that will do
#   RTVOICE_VENV           where the environment lies; else .venv beside pyproject.toml
#   RTVOICE_SETUP=again    set up once more, and try again what could not be installed

venv=${RTVOICE_VENV:-$root/.venv}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
log=$venv/setup.log
run=./scripts/run
[ "$(pwd -P)" = "$root" ] || run=$root/scripts/run

say() { printf 'rtvoice: %s\n' "$*" >&2; }

fail() {
    for line; do say "$line"; done
    exit 1
}

# --- Is there anything to do? ---------------------------------------------------------------------

version_of() { "$1" -I -S -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# What the stamp must say: this kind of set-up, this place, this Python, these packages.
setup_key() {
    packages=$(sed '/^\[tool\.ruff\]/,$d' "$root/pyproject.toml" | cksum)
    printf '1 %s %s %s\n' "$packages" "$1" "$root"
}

is_set_up() {
    [ -f "$venv/ready-$1" ] && here=$(version_of "$venv/bin/python") || return 1
    [ -z "${PYTHON-}" ] || [ "$(version_of "$PYTHON")" = "$here" ] || return 1
    [ "$(cat "$venv/ready-$1")" = "$(setup_key "$here")" ]
}

remind() {
    [ ! -s "$venv/missing" ] ||
        say "without $(paste -s -d , "$venv/missing" | sed 's/,/, /g')" \
            "('$run --setup' says why and tries again)"
}

# --- Python ---------------------------------------------------------------------------------------

# Prints: version, whether it can make environments, the system it belongs to, its headers.
python_facts='
import sys, sysconfig
if sys.implementation.name != "cpython" or sys.version_info < (3, 11):
    sys.exit("too old")
try:
    import ensurepip, venv
except ImportError:
    venv = None
print("%d.%d" % sys.version_info[:2], "venv" if venv else "no-venv",
      "system" if sys.base_prefix == "/usr" else "own", sysconfig.get_path("include"))
'

# Sets python, python_version, python_venv, python_owner, python_include. Each candidate is run,
# since a name on PATH may be a shim for a version that is not there.
find_python() {
    python='' seen=''
    if [ -n "${PYTHON-}" ]; then set -- "$PYTHON"; else
        set -- python3 python3.13 python3.12 python3.11 python3.14 python
    fi
    for candidate; do
        path=$(command -v "$candidate") || continue
        if facts=$("$path" -I -c "$python_facts" 2>/dev/null); then
            case $facts in
                *' venv '*) python=$path python_is=$facts; break ;;
            esac
            [ -n "$python" ] || python=$path python_is=$facts
        else
            seen="$seen, $path is $("$path" -I -c 'import sys; print(sys.version.split()[0])' \
                2>/dev/null || echo 'broken')"
        fi
    done
    [ -n "$python" ] || fail \
        "needs CPython 3.11 or newer, and found none as: $*${seen:+ (${seen#, })}." \
        "Debian 12, Ubuntu 24.04 and newer, as root:  apt-get install -y python3 python3-venv" \
        "macOS:  brew install python@3.13     One that lies elsewhere:  PYTHON=/path/to/python3.13"
    read -r python_version python_venv python_owner python_include <<FACTS
$python_is
FACTS
}

# One set-up at a time. The lock is the kernel's, on a directory that is always there: it ends with
# the last process of the set-up, pip included, however that ends.
lock() {
    exec 9<"$root/scripts"
    try='
import fcntl, sys
try:
    fcntl.flock(9, fcntl.LOCK_EX | int(sys.argv[1]))
except BlockingIOError:
    sys.exit(1)
except OSError:
    pass  # A file system without locks.
'
    "$python" -I -S -c "$try" 4 9<&9 || {
        say "another set-up is at work here; waiting for it"
        "$python" -I -S -c "$try" 0 9<&9
    }
}

# --- System packages ------------------------------------------------------------------------------

is_root() { [ "$(id -u)" = 0 ]; }
has() { command -v "$1" >/dev/null 2>&1; }

logged() {
    printf '\n$ %s\n' "$*" >>"$log"
    "$@" >>"$log" 2>&1 </dev/null
}

# The Debian packages that are not here, of those that PyAudio is built with.
pyaudio_packages() {
    has gcc || echo gcc
    [ -f /usr/include/stdio.h ] || echo libc6-dev
    [ "$python_owner" = own ] || [ -f "$python_include/Python.h" ] || echo "python$python_version-dev"
    [ -f /usr/include/portaudio.h ] || echo portaudio19-dev
}

# Those that one can do without.
optional_packages() {
    "$venv/bin/python" -I -c 'import pyaudio' 2>/dev/null || pyaudio_packages
    has espeak-ng || echo espeak-ng
    [ "$wanted" = run ] || "$root/scripts/virtual-sound-card" missing
    [ "$wanted" = run ] || browser || echo chromium
}

# Is there a browser for the tests of the page? (tests/browser.py looks for the same names.)
browser() { has chromium || has chromium-browser || has google-chrome; }

# How to get packages, whose Debian names it is given.
how_to_get() {
    if has apt-get; then echo "as root: apt-get install -y $*"
    elif [ "$(uname)" = Darwin ]; then echo "brew install portaudio espeak-ng"
    else echo "install what Debian calls: $*"
    fi
}

install_system_packages() {
    set --
    [ "$python_venv" = venv ] || [ "$python_owner" = own ] || set -- "python$python_version-venv"
    # shellcheck disable=SC2046  # names of packages, one a word
    set -- "$@" $(optional_packages)
    [ $# -gt 0 ] && is_root && has apt-get || return 0

    say "  system packages: $* (a minute, depending on the network)"
    apt='env DEBIAN_FRONTEND=noninteractive apt-get -y -o DPkg::Lock::Timeout=120'
    # shellcheck disable=SC2086
    if logged $apt update; then listed=yes; else listed=no; fi
    # shellcheck disable=SC2086
    logged $apt install --no-install-recommends "$@" && return
    # One package that cannot be had must not keep the others out.
    failed="$*"
    if [ $listed = yes ]; then
        failed=''
        for package; do
            # shellcheck disable=SC2086
            logged $apt install --no-install-recommends "$package" || failed="$failed $package"
        done
    fi
    [ -z "$failed" ] || say "    NOT installed: ${failed# }" \
        "($(grep '^[EW]:' "$log" | head -n 1 | cut -c 1-160)). All of it: $log"
}

# --- The environment ------------------------------------------------------------------------------

# Removes an environment that is of no use, and nothing else that may lie there.
clear_venv() {
    [ -e "$venv" ] || return 0
    # Packages half written by a set-up that was ended would pass for installed ones.
    if [ -f "$venv/unfinished" ]; then
        say "the last set-up did not get through; starting anew"
    elif [ ! -f "$venv/pyvenv.cfg" ]; then
        fail "$venv is there and is no Python environment; RTVOICE_VENV names another place"
    elif ! here=$(version_of "$venv/bin/python"); then
        say "the Python of the environment in $venv is gone; making the environment anew"
    elif [ -n "${PYTHON-}" ] && [ "$here" != "$python_version" ]; then
        say "the environment in $venv is for Python $here; making it anew for $python_version"
    else
        return 0
    fi
    rm -rf "$venv"
}

# Makes $venv with pip in it. Debian keeps ensurepip in a package of its own, and there are three
# ways to do without.
make_venv() {
    if "$python" -I -c 'import ensurepip' 2>/dev/null; then
        making "" "$python" -I -m venv "$venv" && return
        fail "All of it: $log"
    fi
    if "$python" -I -m pip --python "$python" --version >/dev/null 2>&1; then
        making "with the system's pip" "$python" -I -m venv --without-pip "$venv" &&
            logged "$python" -I -m pip --python "$venv/bin/python" install pip && return
    fi
    if has virtualenv; then
        making "with virtualenv" virtualenv --python "$python" "$venv" && return
    fi
    if has uv; then
        making "with uv" uv venv --allow-existing --seed --python "$python" "$venv" && return
    fi
    # shellcheck disable=SC2046  # names of packages, one a word
    set -- $(optional_packages)
    fail "Python $python_version ($python) can make no environment, for it has no ensurepip." \
        "$(how_to_get "python$python_version-venv"), then run this again" \
        "(what else could be installed with it: ${*:-nothing})"
}

# making HOW COMMAND...: says so, runs it, and says when it failed.
making() {
    say "  an environment for Python $python_version in $venv${1:+ $1}"
    shift
    mark=$(($(wc -c <"$log") + 1))
    logged "$@" || { say "    which failed: $(why)"; return 1; }
}

pip() { "$venv/bin/python" -I -m pip "$@"; }

pip_install() {
    mark=$(($(wc -c <"$log") + 1))
    # -I keeps PYTHONPATH out, PIP_USER=0 somebody's setting to install into the home directory.
    (cd "$root" && PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 logged pip install "$@")
}

# The reason, in a few words, why what was logged since $mark failed.
why() {
    step=$(tail -c "+$mark" "$log")
    case $step in
        *'fatal error: portaudio.h'* | *'portaudio.h: No such file'* | *"'portaudio.h' file not"*)
            echo "PortAudio's headers (portaudio.h) are not here" ;;
        *'fatal error: Python.h'*) echo "Python's headers (Python.h) are not here" ;;
        *"No such file or directory: '"*cc"'"* | *"cc' failed: No such file"*)
            echo "there is no C compiler" ;;
        *'No space left on device'*) echo "the disk is full" ;;
        *CERTIFICATE_VERIFY_FAILED*) echo "the package index's certificate is not trusted here" ;;
        *'name resolution'* | *NewConnectionError* | *'onnection refused'* | *ProxyError* | \
            *'ReadTimeout'* | *'ConnectTimeout'*) echo "the package index cannot be reached" ;;
        *) printf '%s\n' "$step" | grep -i error | tail -n 1 | cut -c 1-160 ;;
    esac
}

# The requirements of an extra, one a line. (To ask pip for rtvoice[extra] would make it look for
# other versions of rtvoice in the index as soon as the extra cannot be had.)
requirements() {
    "$venv/bin/python" -I -c '
import sys, tomllib
with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
print("\n".join(project["optional-dependencies"][sys.argv[2]]))
' "$root/pyproject.toml" "$1"
}

# From its source pywebrtc-audio would take as long as WebRTC does: a wheel or nothing.
pip_install_extra() {
    requirements "$1" >"$venv/requirements-$1.txt"
    pip_install --only-binary pywebrtc-audio -r "$venv/requirements-$1.txt"
}

# What an extra is named for is its first requirement. One of the others that cannot be had must
# keep out neither that one nor the rest.
pip_install_first() {
    count=$(requirements "$1" | wc -l)
    [ "$count" -gt 1 ] || return
    others=$(why)
    requirements "$1" | head -n 1 >"$venv/requirements-$1-first.txt"
    pip_install -r "$venv/requirements-$1-first.txt" || return
    say "    without the rest of it, or a part of that: $others"
    nth=2
    while [ "$nth" -le "$count" ]; do
        requirements "$1" | sed -n "${nth}p" >"$venv/requirements-$1-$nth.txt"
        pip_install --only-binary pywebrtc-audio -r "$venv/requirements-$1-$nth.txt" || :
        nth=$((nth + 1))
    done
}

# optional EXTRA NAME MODULE USE: an extra that may fail. NAME is what people call the package.
optional() {
    say "  $2: $4"
    if pip_install_extra "$1" || pip_install_first "$1"; then
        if tail -c "+$mark" "$log" | grep -qi "^Ignoring $2:"; then
            say "    there is none for Python $python_version; going on without"
            return
        fi
        ! "$venv/bin/python" -I -c "import $3" 2>>"$log" || return 0
        reason="it was installed and does not load: $(tail -n 1 "$log" | cut -c 1-160)"
    else
        reason=$(why)
    fi
    echo "$2" >>"$venv/missing.new"
    say "    NOT installed, going on without: $reason. All of it: $log"
}

install_optional() {
    : >"$venv/missing.new"
    optional audio PyAudio pyaudio "the microphone and speaker of this machine (10 s to build)"
    # shellcheck disable=SC2046
    if [ -s "$venv/missing.new" ] && set -- $(pyaudio_packages) && [ $# -gt 0 ]; then
        say "    $(how_to_get "$@"), then: $run --setup"
    fi
    optional files soundfile soundfile "FLAC, Ogg and MP3 files as input (4 MB)"
    optional console textual textual "the console, on the whole screen of a terminal (10 MB)"
    optional sandbox pocketsphinx pocketsphinx "speech recognition in the sandbox (30 MB)"
    optional web uvicorn uvicorn "the page in a browser, and services (5 MB)"
    has espeak-ng || say "  no espeak-ng, which is the sandbox's voice; $(how_to_get espeak-ng)"
    mv "$venv/missing.new" "$venv/missing"
}

# referees EXTRA NAMES COST: public clients for the tests of the sandbox, which do without. In an
# environment of their own, for they would have a say in the versions of what rtvoice needs.
referees() {
    say "  $2: clients that judge the sandbox ($3)"
    judges=$venv/referees
    mark=$(($(wc -c <"$log") + 1))
    requirements "$1" >"$venv/requirements-$1.txt"
    {
        { [ -d "$judges" ] || logged "$venv/bin/python" -I -m venv --without-pip "$judges"; } &&
            PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 \
                logged pip --python "$judges" install -r "$venv/requirements-$1.txt"
    } || say "    NOT installed, their tests are skipped: $(why). All of it: $log"
}

# --- All of it ------------------------------------------------------------------------------------

set_up() {
    wanted=$1 again=${RTVOICE_SETUP-}
    unset RTVOICE_SETUP
    if [ "$again" != again ] && is_set_up "$wanted"; then
        remind
        return
    fi
    find_python
    lock
    if [ "$again" = again ] || ! is_set_up "$wanted"; then
        do_set_up
    fi
    exec 9<&-
}

do_set_up() {
    started=$(date +%s)
    trap 'say "set-up interrupted; the next run starts it anew"; exit 130' INT TERM HUP
    clear_venv
    say "setting up (the first time takes one to two minutes) ..."
    if ! mkdir -p "$venv" 2>/dev/null || ! [ -w "$venv" ]; then
        fail "cannot write to $venv; RTVOICE_VENV=/another/place puts the environment elsewhere"
    fi
    : >"$venv/unfinished"
    : >"$log"
    mark=1

    install_system_packages
    version_of "$venv/bin/python" >/dev/null || make_venv
    pip --version >/dev/null 2>&1 || logged "$venv/bin/python" -I -m ensurepip ||
        give_up "pip in $venv (remove that folder, or name another with RTVOICE_VENV)"
    key=$(setup_key "$(version_of "$venv/bin/python")")
    if [ "$wanted" = test ]; then
        # Beside everything else, with a log of its own. What outlives an interrupted set-up keeps
        # the lock, so that the next one waits for its end.
        (log=$venv/referees.log && : >"$log" &&
            referees referees "openai, openai-agents" "10 s, meanwhile") &
        judging=$!
    fi
    if [ "$again" = again ] || [ "$(cat "$venv/ready-run" 2>/dev/null)" != "$key" ]; then
        say "  rtvoice and what it needs: pykka, websockets, msgspec, numpy, structlog"
        pip_install -e . || give_up "rtvoice's packages"
        install_optional
        printf '%s\n' "$key" >"$venv/ready-run"
    fi
    if [ "$wanted" = test ]; then
        say "  the tools of the tests: ruff, mypy, pytest, hypothesis"
        pip_install_extra dev || give_up "the tools of the tests"
        wait "$judging"
        printf '%s\n' "$key" >"$venv/ready-test"
    fi
    if [ "$wanted" = long ]; then
        referees referees-long livekit-plugins-openai "30 s, 400 MB"
        printf '%s\n' "$key" >"$venv/ready-long"
    fi
    rm -f "$venv/unfinished"
    trap - INT TERM HUP
    say "ready after $(($(date +%s) - started)) s"
}

# pip undoes what it could not finish, so the environment stays good for the next try.
give_up() {
    rm -f "$venv/unfinished"
    fail "could not install $1: $(why)." "All of it: $log"
}
