"""Agents, settings and command lines that cannot work."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rtvoice.command.choice
import rtvoice.command.cli
import rtvoice.command.listing
from actors.devices.errors import SoundLibraryError, SoundSystemStuckError
from rtvoice import Agent, Budget
from supervisor import ConfigurationError, Session, SessionFailedError
from tests.bad_input.rows import Outcome, World, row
from tests.bad_input.stage import Sitting
from tests.test_command import environment_of

_QUIET = ("--server", "sandbox", "--input", "silence", "--output", "null")


def says(*arguments: str) -> Outcome:
    """Return what the command says to arguments with which it starts nothing."""
    out = io.StringIO()
    environment = dict(os.environ)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            code = rtvoice.command.cli.run(list(arguments))
        except SystemExit as end:  # argparse
            code = int(str(end.code))
        finally:
            os.environ.clear()
            os.environ.update(environment)
    return Outcome(out.getvalue(), code)


def _runs(*arguments: str) -> Outcome:
    """Return what a process of its own says."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        env=environment_of(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Outcome(done.stdout + done.stderr, done.returncode)


# -- agents -----------------------------------------------------------------------------------


def _agent(world: World, text: str, name: str = "agent") -> Outcome:
    agent = f"{world.file('mine.py', text)}:{name}"
    with Sitting("tools", "microphone", agent=agent) as sitting:  # tools is not closed first
        sitting.ends_by_itself()
    return Outcome(sitting.text(), sitting.code)


@row("An agent's file that does not exist")
def no_agent_file(world: World) -> Outcome:
    return says("nowhere.py:agent", *_QUIET)


@row("AGENT without a name in the file")
def no_agent_name(world: World) -> Outcome:
    return says("mine.py", *_QUIET)


@row("An agent's file that raises")
def agent_raises(world: World) -> Outcome:
    return _agent(world, "raise KeyError('home')")


@row("An agent's file with a syntax error")
def agent_syntax(world: World) -> Outcome:
    return _agent(world, "agent = = 5")


@row("An agent's file that imports a missing module")
def agent_imports(world: World) -> Outcome:
    return _agent(world, "import quantum_voice")


@row("An agent's file that ends the process")
def agent_exits(world: World) -> Outcome:
    return _agent(world, "import sys\nsys.exit(1)")


@row("An agent's module that does not exist")
def no_module(world: World) -> Outcome:
    with Sitting("tools", agent="nowhere:agent") as sitting:
        sitting.ends_by_itself()
    return Outcome(sitting.text(), sitting.code)


@row("No such name in the agent's file")
def no_attribute(world: World) -> Outcome:
    return _agent(world, "from rtvoice import Agent\nada = Agent()", name="bob")


@row("A name that is not an agent")
def no_agent(world: World) -> Outcome:
    return _agent(world, "agent = 'Ada'")


@row("An agent with a setting out of range")
def agent_out_of_range(world: World) -> Outcome:
    return _agent(world, "from rtvoice import Agent\nagent = Agent(speech_speed=9)")


@row("A tool with a parameter that JSON cannot represent")
def impossible_tool(world: World) -> Outcome:
    text = (
        "from rtvoice import Agent, Tools\n"
        "tools = Tools()\n"
        "@tools.action('Weigh it.')\n"
        "def weigh(thing: object) -> float: ...\n"
        "agent = Agent(tools=tools)\n"
    )
    return _agent(world, text)


# -- the command line -------------------------------------------------------------------------


@row("`--inptu x`")
def unknown_option(world: World) -> Outcome:
    return says("--inptu", "x")


@row("A model that does not reason, with `--reasoning-effort`")
def no_reasoning(world: World) -> Outcome:
    return says("--model", "gpt-realtime-1.5", "--reasoning-effort", "high", *_QUIET)


@row("A voice that does not exist")
def no_voice(world: World) -> Outcome:
    return says("--voice", "fable", *_QUIET)


@row("`--speed 9`")
def speed(world: World) -> Outcome:
    return says("--speed", "9")


@row("`--volume loud`")
def volume(world: World) -> Outcome:
    return says("--volume", "loud")


@row("`--budget 0`")
def no_budget(world: World) -> Outcome:
    return says("--budget", "0")


@row("`--budget 2USD`")
def budget_with_a_unit(world: World) -> Outcome:
    return says("--budget", "2USD")


@row("A model whose price is not known, with `--budget`")
def budget_without_a_price(world: World) -> Outcome:
    return says("--budget", "1", "--model", "my-model", *_QUIET)


@row("`--block-ms 5`")
def block(world: World) -> Outcome:
    return says("--block-ms", "5")


@row("`--echo-cancelling maybe`")
def echo(world: World) -> Outcome:
    return says("--echo-cancelling", "maybe")


@row("`--max-seconds -1`")
def seconds(world: World) -> Outcome:
    return says("--max-seconds", "-1")


@row("`--log-level LOUD`")
def log_level(world: World) -> Outcome:
    return says("--log-level", "LOUD")


@row("`RTVOICE_LOG_LEVEL=LOUD`")
def log_level_variable(world: World) -> Outcome:
    world.patch.setenv("RTVOICE_LOG_LEVEL", "LOUD")
    return says(*_QUIET)


@row("`--server https://example.com`")
def server(world: World) -> Outcome:
    return says("--server", "https://example.com")


@row("`--server ws://127.0.0.1:99999/v1`")
def server_port(world: World) -> Outcome:
    return says(*_QUIET, "--server", "ws://127.0.0.1:99999/v1")


@row("`--model gpt-live-1`")
def live_model(world: World) -> Outcome:
    return says(*_QUIET, "--model", "gpt-live-1")


@row("`--server wss://example.com/v1/live/sessions`")
def live_url(world: World) -> Outcome:
    return says(*_QUIET, "--server", "wss://example.com/v1/live/sessions")


@row("`RTVOICE_SERVER=openia`")
def server_variable(world: World) -> Outcome:
    world.patch.setenv("RTVOICE_SERVER", "openia")
    return says("--input", "silence", "--output", "null")


@row("`--server https://host/v1?api-key=…`")
def wrong_url_with_key(world: World) -> Outcome:
    return says(*_QUIET, "--server", "https://host/v1?api-key=canary")


@row("`--server openai` without a key")
def no_key(world: World) -> Outcome:
    return says(*_QUIET, "--server", "openai")


@row("`--demo --record talk.wav`")
def demo(world: World) -> Outcome:
    return says("--demo", "--record", "talk.wav")


@row("`--input talk.wav`, which does not exist")
def input_missing(world: World) -> Outcome:
    return says(*_QUIET, "--input", "talk.wav")


@row("`RTVOICE_INPUT=talk.wav`, which does not exist")
def no_input_of_the_environment(world: World) -> Outcome:
    world.patch.setenv("RTVOICE_INPUT", "talk.wav")
    return says("--output", "null", "--server", "sandbox")


@row("`--list-devices` without PyAudio")
def no_pyaudio(world: World) -> Outcome:
    world.patch.setattr(rtvoice.command.listing, "list_devices", _without_pyaudio)
    return says("--list-devices")


def _without_pyaudio(*, rates: bool) -> None:
    raise SoundLibraryError("input", "PyAudio is not installed")


@row("`--list-devices` or `--doctor`, written to a full disk")
def output_full(world: World) -> Outcome:
    if not Path("/dev/full").exists():
        pytest.skip("NO /dev/full ON THIS SYSTEM")
    said = [_writes_to("/dev/full", option) for option in ("--list-devices", "--doctor")]
    assert said[0] == said[1]
    return said[0]


def _writes_to(path: str, *arguments: str) -> Outcome:
    """Return what a command that writes to a file says of it."""
    with Path(path).open("wb") as out:
        done = subprocess.run(
            [sys.executable, "-m", "supervisor", *arguments],
            env=environment_of(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    return Outcome(done.stderr, done.returncode)


@row("`--json` without `--list-devices` or `--doctor`")
def json_of_nothing(world: World) -> Outcome:
    return says(*_QUIET, "--json")


@row("`--list-devices` while the sound server is frozen")
def sound_server_frozen(world: World) -> Outcome:
    world.patch.setattr(rtvoice.command.listing, "list_devices", _without_answer)
    return says("--list-devices")


def _without_answer(*, rates: bool) -> None:
    raise SoundSystemStuckError("input", "PortAudio did not answer in 10 s")


@row("`--output no/reply.wav`, in a folder that does not exist")
def output_folder(world: World) -> Outcome:
    return says(*_QUIET, "--output", "no/reply.wav")


@row("`--record talk.mp3`")
def record_mp3(world: World) -> Outcome:
    return says(*_QUIET, "--record", "talk.mp3")


@row("`--journal notes`, which is a folder")
def journal_folder(world: World) -> Outcome:
    (world.folder / "notes").mkdir()
    return says(*_QUIET, "--journal", "notes")


@row("`--record talk.wav --output talk.wav`")
def used_twice(world: World) -> Outcome:
    return says("--server", "sandbox", "--record", "talk.wav", "--output", "talk.wav")


@row("`--input talk.flac --events talk.flac`")
def written_over(world: World) -> Outcome:
    file = world.file("talk.flac", "")
    return says("--server", "sandbox", "--input", file, "--events", file)


@row("`--events talk.jsonl`, which another session writes")
def events_twice(world: World) -> Outcome:
    path = Path(world.file("talk.jsonl", '{"event":"turn"}\n'))
    holder = (
        "import os, pathlib, sys; from actors.files import open_alone\n"
        f"open_alone(pathlib.Path({str(path)!r}), os.O_WRONLY, 0o600)\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder],
        env=environment_of(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"

        outcome = says(*_QUIET, "--events", str(path))

        other.communicate()
    assert path.read_text(encoding="utf-8") == '{"event":"turn"}\n', "what is there stays"
    return outcome


@row("`--events talk.jsonl` on a full disk")
def events_full(world: World) -> Outcome:
    if not Path("/dev/full").exists():
        pytest.skip("NO /dev/full ON THIS SYSTEM")
    with (
        Path("/dev/full").open("wb", buffering=0) as full,
        Sitting("history", events=full) as sitting,
    ):
        sitting.sees("cannot be written any more")
        assert sitting.code is None
    assert sitting.code == 0
    return Outcome(sitting.text(), None)


@row("The transcript, written to a full disk")
def transcript_full(world: World) -> Outcome:
    if not Path("/dev/full").exists():
        pytest.skip("NO /dev/full ON THIS SYSTEM")
    quiet = ("--server", "sandbox", "--input", "silence", "--output", "null")
    outcome = _writes_to("/dev/full", *quiet, "--max-seconds", "2")
    assert outcome.code == 0
    return Outcome(outcome.text, None)


# -- .env, settings of a program, the sandbox --------------------------------------------------


def _env(world: World, content: bytes) -> Outcome:
    """Start nothing, but read the file first."""
    world.file(".env", content)
    outcome = says("nowhere.py:agent", *_QUIET)
    assert "secret" not in outcome.text
    text = outcome.text.partition("rtvoice: there is no file nowhere.py")[0]
    return Outcome(text, None)


@row("A line of `.env` that is not NAME=value")
def env_line(world: World) -> Outcome:
    return _env(world, b"# mine\nOPENAI_API_KEY: secret\nOTHER=1\n")


@row("A NUL in a value of `.env`")
def env_nul(world: World) -> Outcome:
    return _env(world, b"OPENAI_API_KEY=sec\0ret\nOTHER=1\n")


@row("A `.env` that is not text")
def env_binary(world: World) -> Outcome:
    return _env(world, b"OPENAI_API_KEY=\xff\x00\xfesecret")


@row("A `.env` in UTF-16, as some editors write it")
def env_utf_16(world: World) -> Outcome:
    outcome = _env(world, "RTVOICE_CANARY=secret\n".encode("utf-16"))
    assert rtvoice.command.choice.read_env_file(Path(".env")) == {"RTVOICE_CANARY": "secret"}
    return outcome


def _session(**settings: object) -> Outcome:
    with pytest.raises(ConfigurationError) as caught:
        Session(**settings)
    return Outcome(str(caught.value), 2)


@row("`Session(sped=1.2)`")
def unknown_setting(world: World) -> Outcome:
    return _session(sped=1.2)


@row('`Session(speed="fast")`')
def wrong_setting(world: World) -> Outcome:
    return _session(speed="fast")


def _refused(**parameters: Any) -> Outcome:
    with pytest.raises(ConfigurationError) as caught:
        Agent(**parameters)
    return Outcome(str(caught.value), 2)


@row("`Agent(budget=0)`")
def agent_without_a_budget(world: World) -> Outcome:
    return _refused(budget=0)


@row("`Agent(budget=Budget())`")
def budget_without_a_limit(world: World) -> Outcome:
    return _refused(budget=Budget())


@row("`Agent(budget=Budget(tokens=1.5))`")
def budget_of_half_a_token(world: World) -> Outcome:
    return _refused(budget=Budget(tokens=1.5))  # type: ignore[arg-type]


@row('`Agent(budget=0.50, model="my-model")`')
def agent_without_a_price(world: World) -> Outcome:
    return _refused(budget=0.50, model="my-model")


@row('`Agent(prices={"my-model": 3})`')
def price_of_no_kind(world: World) -> Outcome:
    return _refused(prices={"my-model": 3})


@row('`Session(server="ws://")`')
def no_host(world: World) -> Outcome:
    return _session(server="ws://")


@row('`Session(input="the gramophone")`, started')
def session_fails(world: World) -> Outcome:
    session = Session(server="ws://127.0.0.1:1", input="the gramophone", output="null")
    with pytest.raises(SessionFailedError) as caught:
        session.start()
    return Outcome(str(caught.value), 2)


@row("`python -m rtvoice.sandbox --port N`, which is in use")
def port_in_use(world: World) -> Outcome:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return _runs("rtvoice.sandbox", "--port", str(taken.getsockname()[1]))


@row("`python -m rtvoice.sandbox --port x`")
def port_no_number(world: World) -> Outcome:
    return _runs("rtvoice.sandbox", "--port", "x")
