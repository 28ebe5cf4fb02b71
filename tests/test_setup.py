"""The scripts that set up and start the project, without a network: pip is a stand-in."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.rig import TIMEOUT_S

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"
VERSION = "{}.{}".format(*sys.version_info)

# What it is told to install becomes a module that prints how it was called, and -e a .pth file.
FAKE_PIP = """
import os, pathlib, re, sys, sysconfig
arguments = sys.argv[1:]
if arguments == ["--version"]:
    sys.exit()
site = pathlib.Path(sysconfig.get_path("purelib"))
with open(os.environ["PIP_RECORD"], "a") as record:
    name = pathlib.Path(arguments[-1]).stem
    print("install", name, file=record, flush=True)
    if "-r" not in arguments:
        (site / "rtvoice.pth").write_text(os.getcwd())
    else:
        for line in pathlib.Path(arguments[-1]).read_text().split("\\n"):
            module = re.match("[a-z_-]*", line)[0].replace("-", "_")
            if module == os.environ.get("PIP_FAILS_FOR"):
                print("pa.c:9:10: fatal error: portaudio.h: No such file or directory")
                sys.exit(1)
            (site / f"{module}.py").write_text(
                "import os, sys\\n"
                "if __name__ == '__main__':\\n"
                f"    print('{module}', *sys.argv[1:])\\n"
                f"    sys.exit(int(os.environ.get('{module}_exits', 0)))\\n"
            )
    print("installed", name, file=record, flush=True)
"""

# A Python whose venv module takes no time and whose ensurepip comes with a Debian package.
FAKE_PYTHON = """#!/bin/sh
case "$*" in
    *"import ensurepip, venv"*)
        if [ -e "{bin}/has-venv" ]; then echo {version} venv system /nowhere
        else echo {version} no-venv system /nowhere; fi ;;
    *"import ensurepip"*) [ -e "{bin}/has-venv" ] ;;
    *"-m pip"*) exit 1 ;;
    *"-m venv"*)
        for environment; do :; done
        "{python}" -m venv --without-pip "$environment" || exit
        mkdir "$environment"/lib/python{version}/site-packages/pip
        cp "{bin}/fake-pip" "$environment"/lib/python{version}/site-packages/pip/__main__.py ;;
    *) exec "{python}" "$@" ;;
esac
"""


@dataclass
class Project:
    """A copy of the scripts, a program to start, and commands that stand before the system's."""

    root: Path
    bin: Path
    environment: dict[str, str] = field(default_factory=dict)

    def put(self, name: str, text: str) -> None:
        program = self.bin / name
        program.write_text(text)
        program.chmod(0o755)

    def start(self, script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.root / "scripts" / script, *arguments],
            env=self.environment | environment,
            cwd=self.bin,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(
        self, script: str, *arguments: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(script, *arguments, **environment)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    @property
    def installed(self) -> list[str]:
        record = self.bin / "pip-record"
        return record.read_text().split("\n")[:-1] if record.exists() else []


def make_project(tmp_path: Path) -> Project:
    root, programs = tmp_path / "a project", tmp_path / "bin"
    programs.mkdir()
    shutil.copytree(SCRIPTS, root / "scripts")
    shutil.copy(ROOT / "pyproject.toml", root)
    (root / "rtvoice.py").write_text(
        "import json, os, sys\nprint(json.dumps([sys.argv[1:], os.getcwd()]))\n"
    )
    project = Project(root, programs)
    project.put("id", "#!/bin/sh\necho 1000\n")
    project.put("espeak-ng", "")
    project.put("chromium", "")
    project.put("apt-get", f"#!/bin/sh\necho $* >>'{programs}/apt-record'\n")
    project.put("fake-pip", FAKE_PIP)
    project.put("python3", FAKE_PYTHON.format(bin=programs, python=sys.executable, version=VERSION))
    project.put("has-venv", "")
    # No index, and none that could be reached: what asks for one fails.
    project.environment = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PIP_RECORD": str(programs / "pip-record"),
        "PIP_NO_INDEX": "1",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "VIRTUAL_SOUND_CARD": "one that is there already",
    }
    return project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path)


@pytest.fixture(scope="module")
def started(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Project, subprocess.CompletedProcess[str]]:
    """A project that has run once, and what that printed. Leave it as it is."""
    project = make_project(tmp_path_factory.mktemp("started"))
    return project, project.run("run", "a", "b c")


def steps(*names: str) -> list[str]:
    return [f"{done} {name}" for name in names for done in ("install", "installed")]


RUN = steps(
    "",
    "requirements-audio",
    "requirements-files",
    "requirements-console",
    "requirements-sandbox",
    "requirements-web",
)
TESTS = steps("requirements-dev", "requirements-referees")


@pytest.mark.parametrize("shell", ["sh", "dash", "bash"])
def test_the_scripts_are_plain_shell(shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    scripts = [*SCRIPTS.glob("*.sh"), *map(SCRIPTS.joinpath, ("run", "test", "virtual-sound-card"))]

    for script in [*scripts, ROOT / ".ci" / "run"]:
        subprocess.run([shell, "-n", script], check=True)


def test_a_first_run_sets_up_and_the_second_starts_at_once(
    started: tuple[Project, subprocess.CompletedProcess[str]],
) -> None:
    project, first = started
    began = time.monotonic()
    second = project.run("run")
    took_s = time.monotonic() - began

    assert json.loads(first.stdout) == [["a", "b c"], str(project.bin)]
    assert "setting up" in first.stderr
    assert (second.returncode, second.stderr) == (0, "")
    assert project.installed == RUN
    assert took_s < TIMEOUT_S / 5


def test_it_runs_through_symbolic_links(
    started: tuple[Project, subprocess.CompletedProcess[str]],
) -> None:
    project, _ = started
    (project.bin / "there").symlink_to(project.root / "scripts")
    (project.root / "scripts" / "link").symlink_to(project.bin / "there" / "run")

    linked = project.run("link", "x")

    assert json.loads(linked.stdout) == [["x"], str(project.bin)]


def test_an_extra_that_fails_takes_nothing_with_it_and_is_tried_again_when_asked(
    project: Project,
) -> None:
    failed = project.run("run", PIP_FAILS_FOR="pyaudio")
    after_failure = project.installed
    reminded = project.run("run")
    tried_again = project.run("run", "--setup")

    assert "PortAudio's headers (portaudio.h) are not here" in failed.stderr
    assert failed.returncode == 0
    assert failed.stdout
    without_audio = [step for step in RUN if step != "installed requirements-audio"]
    assert [step for step in after_failure if "first" not in step] == without_audio
    again = f"{project.root}/scripts/run --setup"
    assert reminded.stderr == f"rtvoice: without PyAudio ('{again}' says why and tries again)\n"
    assert reminded.stdout
    assert tried_again.returncode == 0
    assert tried_again.stdout == ""
    assert project.installed[len(after_failure) :] == RUN
    assert project.run("run").stderr == ""


@pytest.mark.parametrize(("fails", "other"), [("soxr", "audio-3"), ("pywebrtc_audio", "audio-2")])
def test_one_package_of_an_extra_that_fails_keeps_no_other_of_it_out(
    project: Project, fails: str, other: str
) -> None:
    ran = project.run("run", PIP_FAILS_FOR=fails)

    assert "installed requirements-audio-first" in project.installed
    assert f"installed requirements-{other}" in project.installed
    assert "without the rest of it" in ran.stderr
    assert "without PyAudio" not in project.run("run").stderr


def test_a_changed_dependency_is_installed_and_a_changed_setting_of_a_tool_is_not(
    project: Project,
) -> None:
    pyproject = project.root / "pyproject.toml"
    project.run("run")
    before = project.installed

    pyproject.write_text(pyproject.read_text() + "# settings\n")
    project.run("run")
    after_setting = project.installed
    pyproject.write_text(pyproject.read_text().replace('"pykka>=4.5"', '"pykka>=4.6"'))
    project.run("run")

    assert after_setting == before
    assert project.installed == [*before, *RUN]


def test_an_interrupted_set_up_is_started_anew(project: Project) -> None:
    environment = project.root / ".venv"
    environment.mkdir()
    (environment / "unfinished").touch()
    (environment / "half-written").touch()

    again = project.run("run")

    assert "starting anew" in again.stderr
    assert project.installed == RUN
    assert not (environment / "half-written").exists()
    assert not (environment / "unfinished").exists()


def test_a_folder_that_is_no_environment_is_left_alone(project: Project) -> None:
    result = project.run("run", RTVOICE_VENV=str(project.root))

    assert result.returncode == 1
    assert "is no Python environment" in result.stderr
    assert (project.root / "rtvoice.py").exists()


def test_of_two_first_runs_at_once_one_sets_up_and_both_start(project: Project) -> None:
    processes = [project.start("run"), project.start("run")]
    results = [process.communicate(timeout=60) for process in processes]

    assert [process.returncode for process in processes] == [0, 0]
    assert all(json.loads(out) for out, _ in results)
    assert project.installed == RUN


def test_without_a_python_that_will_do_it_says_what_to_install(project: Project) -> None:
    for tool in ("dirname", "env"):
        (project.bin / tool).symlink_to(str(shutil.which(tool)))
    project.put("python3", "#!/bin/sh\ncase $3 in *implementation*) exit 1 ;; esac\necho 3.9.2\n")
    project.put("python3.13", "#!/bin/sh\nexit 127\n")

    result = project.run("run", PATH=str(project.bin))

    assert result.returncode == 1
    assert "needs CPython 3.11 or newer" in result.stderr
    assert f"{project.bin}/python3 is 3.9.2" in result.stderr
    assert f"{project.bin}/python3.13 is broken" in result.stderr
    assert "apt-get install -y python3 python3-venv" in result.stderr


def test_without_ensurepip_a_user_is_told_the_command_and_root_gets_it_done(
    project: Project,
) -> None:
    package = f"python{VERSION}-venv"
    (project.bin / "has-venv").unlink()
    project.put("virtualenv", "#!/bin/sh\necho error: it is broken; exit 1\n")
    project.put(
        "apt-get",
        f"#!/bin/sh\necho $* >>'{project.bin}/apt-record'\n: >'{project.bin}/has-venv'\n",
    )

    user = project.run("run", PYTHON="python3")
    asked_as_user = (project.bin / "apt-record").exists()
    project.put("id", "#!/bin/sh\necho 0\n")
    root = project.run("run", PYTHON="python3")

    assert user.returncode == 1
    assert "with virtualenv\nrtvoice:     which failed: error: it is broken" in user.stderr
    assert f"as root: apt-get install -y {package}" in user.stderr
    assert not asked_as_user
    update, install = (project.bin / "apt-record").read_text().splitlines()
    assert root.returncode == 0
    assert update.endswith("update")
    assert package in install.split()
    assert project.installed == RUN


def test_the_checks_stop_at_the_first_that_fails(project: Project) -> None:
    passed = project.run("test", "-x")
    failed = project.run("test", mypy_exits="3")
    chosen = project.run("test", "../a project/rtvoice.py::test_it", "-k", "word")

    assert sorted(project.installed) == sorted([*RUN, *TESTS])
    assert [line for line in passed.stdout.split("\n") if line] == [
        "== ruff check",
        "ruff check",
        "== ruff format --check",
        "ruff format --check",
        "== mypy --strict",
        "mypy",
        "== pytest",
        "pytest -n 6 --dist worksteal -m not card -x",
        "== pytest, sound cards",
        "pytest -m card -x",
    ]
    assert passed.returncode == 0
    assert failed.returncode == 3
    assert "== pytest" not in failed.stdout
    chosen_test = f"{project.bin}/../a project/rtvoice.py::test_it"
    assert chosen.stdout.split("\n")[2] == f"pytest {chosen_test} -k word"
    assert "ruff" not in chosen.stdout


def test_the_long_tests_have_what_only_they_need(project: Project) -> None:
    project.run("test", "--long")
    project.run("test", "--long")

    assert sorted(project.installed[:-2]) == sorted([*RUN, *TESTS])
    assert project.installed[-2:] == steps("requirements-referees-long")


def test_public_clients_that_cannot_be_had_keep_no_test_from_running(project: Project) -> None:
    without = project.run("test", PIP_FAILS_FOR="openai")
    again = project.run("test")

    assert "NOT installed, their tests are skipped" in without.stderr
    assert without.returncode == 0
    assert "== pytest\n" in without.stdout
    assert again.stderr == ""


def card(
    *command: str, held_open: int | None = None, environment: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPTS / "virtual-sound-card", *command],
        env=environment,
        pass_fds=() if held_open is None else (held_open,),
        text=True,
        capture_output=True,
        timeout=60,
    )


def server_of(directory: Path) -> int:
    """A descriptor that becomes readable when the card's server ends."""
    return os.pidfd_open(int((directory / "pid").read_text()))


def is_over(descriptor: int) -> bool:
    """Return whether a descriptor becomes readable (process ended, pipe closed) within 10 s."""
    ready, _, _ = select.select([descriptor], [], [], 10)
    os.close(descriptor)
    return bool(ready)


needs_pulseaudio = pytest.mark.skipif(
    card("missing").stdout != "", reason="PulseAudio and ALSA's plugin for it are not installed"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory with a short name: a socket's may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="rt-") as folder:
        yield Path(folder)


@pytest.fixture
def no_card(folder: Path) -> dict[str, str]:
    """An environment without a card; a new one's directory goes into ``folder``."""
    others = {name: value for name, value in os.environ.items() if name != "VIRTUAL_SOUND_CARD"}
    return others | {"TMPDIR": str(folder)}


@needs_pulseaudio
def test_a_virtual_sound_card_comes_up_comes_back_and_leaves_nothing(
    folder: Path, no_card: dict[str, str]
) -> None:
    up = card("up", environment=no_card)
    (directory,) = folder.iterdir()
    this_card = no_card | {"VIRTUAL_SOUND_CARD": str(directory)}
    devices = card("status", environment=this_card)
    first = server_of(directory)
    signal.pidfd_send_signal(first, signal.SIGKILL)
    gone = card("status", environment=this_card)
    again = card("up", environment=this_card)
    back = card("status", environment=this_card)
    second = server_of(directory)
    down = card("down", environment=this_card)

    assert up.returncode == 0, up.stderr
    assert f"export VIRTUAL_SOUND_CARD='{directory}'\n" in up.stdout
    assert "room.monitor\tmodule-null-sink" in devices.stdout
    assert is_over(first)
    assert gone.returncode == 1
    assert again.stdout == up.stdout, again.stderr
    assert back.stdout == devices.stdout
    assert down.returncode == 0
    assert is_over(second)
    assert list(folder.iterdir()) == []


@needs_pulseaudio
def test_a_virtual_sound_card_ends_with_its_owner(folder: Path, no_card: dict[str, str]) -> None:
    owner = subprocess.Popen(["sleep", "60"])
    watched, held_open = os.pipe()
    up = card("up", "--for", str(owner.pid), held_open=held_open, environment=no_card)
    os.close(held_open)
    (directory,) = folder.iterdir()
    server = server_of(directory)

    owner.kill()
    owner.wait()

    assert up.returncode == 0, up.stderr
    assert is_over(server)
    assert is_over(watched)
    assert list(folder.iterdir()) == []
