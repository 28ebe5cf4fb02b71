"""Machines and environments that are not as usual."""

from __future__ import annotations

import os
import subprocess
import sys
from array import array
from pathlib import Path

import pytest

from messages import CapturedAudio
from supervisor import ConfigurationError, Session
from tests.bad_input.files import hears, wav
from tests.bad_input.reaching import tries_again_through
from tests.bad_input.rows import Outcome, World, row
from tests.bad_input.stage import Sitting, without_frame
from tests.test_command import environment_of

_LATE = Path(__file__).parents[1] / "late_imports"
_TALK = ("--server", "ws://127.0.0.1:1/v1", "--input", "silence", "--output", "null")


def _command(module: str, *arguments: str, **environment: str) -> Outcome:
    """Return what the command says in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=environment_of(**environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return Outcome(without_frame(done.stdout + done.stderr), done.returncode)


def _goes_on(outcome: Outcome) -> Outcome:
    assert outcome.code == 0, outcome.text
    return outcome._replace(code=None)


_STOPPED = """
import os, pathlib, signal, time
from actors.base import Actor


class Still(Actor):
    def opened(self):
        if not (flag := pathlib.Path("stopped")).exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(60)  # until it is
"""


# -- slow and busy machines -------------------------------------------------------------------


@row("A machine that takes 4 s for each import")
def slow_imports(world: World) -> Outcome:
    world.patch.setenv("PYTHONPATH", str(_LATE))
    world.patch.setenv("LATE_IMPORTS", str(world.folder / "late"))
    world.patch.setenv("RTVOICE_FORK", "0")  # what is forked has more modules from the start
    sound, outcome = hears(
        wav(world, array("h", [1000, 3000] * 4410).tobytes(), channels=2, rate=44_100)
    )

    assert 1_990 <= max(array("h", sound)) <= 2_400
    return outcome


@row("A component that has not started within `--start-timeout`")
def slow_start(world: World) -> Outcome:
    text = "import time; from actors.base import Actor\nclass Slow(Actor):\n"
    world.file("mine.py", f"{text}    def opened(self): time.sleep(60)\n")
    given = {"components": {"slow": "mine:Slow"}, "import_path": (str(world.folder),)}
    with Sitting("microphone", start_s=1.0, stop_s=0.5, **given) as sitting:
        sitting.ends_by_itself()
    return Outcome(sitting.text(), sitting.code)


@row("A component that is stopped (SIGSTOP) while it opens")
def stopped(world: World) -> Outcome:
    if not hasattr(os, "kill") or sys.platform == "win32":
        pytest.skip("NO SIGSTOP ON THIS SYSTEM")
    world.file("mine.py", _STOPPED)
    given = {"components": {"still": "mine:Still"}, "import_path": (str(world.folder),)}
    with Sitting("microphone", hang_s=0.5, **given) as sitting:
        sitting.sees("server: ")
    return Outcome(sitting.text(), None)


@row("Ctrl-C just after the end")
def late_interrupt(world: World) -> Outcome:
    world.file(
        "late.py",
        "import atexit, os, signal\nfrom rtvoice.command.cli import main\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        f"main([*{_TALK!r}, '--max-seconds', '0.3'])\n",
    )
    return _command("late")


# -- names that are not UTF-8 -----------------------------------------------------------------


@row("An input file whose name is not UTF-8")
def odd_input(world: World) -> Outcome:
    name = os.fsdecode(b"in\xff.wav")
    try:
        Path(wav(world, array("h", [500] * 2400).tobytes())).rename(name)
    except OSError:
        pytest.skip("THIS FILE SYSTEM HAS NAMES IN UTF-8 ONLY")
    sound, outcome = hears(name)

    assert sound.rstrip(b"\0") == array("h", [500] * 2400).tobytes()
    return outcome


@row("A recording whose name is not UTF-8")
def odd_recording(world: World) -> Outcome:
    name = os.fsdecode(b"talk\xff.wav")
    given = {"listens": (CapturedAudio,), "recording_path": name}
    with Sitting("microphone", "recorder", **given) as sitting:
        sitting.wait_for(lambda: len(sitting.of(CapturedAudio)) > 5)
    assert Path(name).stat().st_size > 44
    return Outcome(sitting.text(), None)


@row("A current folder and a TMPDIR whose names are not UTF-8")
def odd_folders(world: World) -> Outcome:
    folder = world.folder / os.fsdecode(b"x\xff")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("THIS FILE SYSTEM HAS NAMES IN UTF-8 ONLY")
    world.patch.chdir(folder)
    given = ("--max-seconds", "0.3", "--record", "talk.wav")
    return _goes_on(_command("supervisor", *_TALK, *given, TMPDIR=str(folder)))


# -- names that others have too ---------------------------------------------------------------


def _theirs(world: World) -> str:
    """Return a folder with another package that is named ``supervisor``."""
    package = world.folder / "site" / "supervisor"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('theirs was imported')\n")
    return str(package.parent)


@row("`python -m rtvoice` beside another package named `supervisor`")
def other_package(world: World) -> Outcome:
    path = os.pathsep.join([_theirs(world), environment_of()["PYTHONPATH"]])
    return _goes_on(_command("rtvoice", *_TALK, "--max-seconds", "0.3", PYTHONPATH=path))


@row("`--doctor` beside another package named `supervisor`")
def doctor_of_other_package(world: World) -> Outcome:
    path = os.pathsep.join([_theirs(world), environment_of()["PYTHONPATH"]])
    server = ("--server", "sandbox", "--input", "silence", "--output", "null")
    outcome = _goes_on(_command("rtvoice", "--doctor", *server, PYTHONPATH=path))
    (line,) = [line for line in outcome.text.splitlines() if "another package" in line]
    return Outcome(line, outcome.code)


@row("An agent that imports a `messages.py` of its own")
def own_messages(world: World) -> Outcome:
    world.file("messages.py", "def hello():\n    return 'mine'\n")
    agent = "import messages\nfrom rtvoice import Agent\nagent = Agent(messages.hello())\n"
    with Sitting("tools", "microphone", agent=f"{world.file('mine.py', agent)}:agent") as sitting:
        sitting.ends_by_itself()
    return Outcome(sitting.text(), sitting.code)


@row('`Session(components={"sandbox": …})`, a name of ours')
def own_name(world: World) -> Outcome:
    with pytest.raises(ConfigurationError) as caught:
        Session(components={"sandbox": "mine:Actor"})
    return Outcome(str(caught.value), 2)


# -- the environment --------------------------------------------------------------------------


@row("A program that no Python interpreter runs (embedded, uWSGI)")
def no_interpreter(world: World) -> Outcome:
    world.patch.setattr(sys, "executable", None)
    with pytest.raises(ConfigurationError) as caught:
        Session(server="sandbox", input="silence", output="null").start()
    return Outcome(str(caught.value), 2)


@row("`HTTPS_PROXY=127.0.0.1:1`, without a scheme, as curl takes it")
def proxy_without_scheme(world: World) -> Outcome:
    return tries_again_through(world, "HTTPS_PROXY", "127.0.0.1:1")


@row("`HTTPS_PROXY=ftp://127.0.0.1:1`, which is no proxy")
def wrong_proxy(world: World) -> Outcome:
    return tries_again_through(world, "HTTPS_PROXY", "ftp://127.0.0.1:1")


@row("`SSLKEYLOGFILE` that cannot be written")
def key_log(world: World) -> Outcome:
    world.patch.setenv("SSLKEYLOGFILE", "nowhere/keys")
    with Sitting("realtime", server="wss://127.0.0.1:1/v1/realtime") as sitting:
        sitting.sees("trying again")
    return Outcome(sitting.text(), None)
