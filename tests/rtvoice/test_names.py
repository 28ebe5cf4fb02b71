"""Another package named `supervisor`, and a program that no Python interpreter runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from messages import ConfigurationError
from rtvoice import Agent

TALK = """
from rtvoice import Agent, Session

agent = Agent(server="sandbox", audio_input="silence", audio_output="null", inactivity_timeout_s=1)
agent.run_sync()
print(agent.history.ended_because, Session.__name__)
"""
COMMAND = ["-m", "rtvoice", "--server", "sandbox", "--input", "silence", "--output", "null"]


@pytest.fixture
def theirs(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which another package has the name `supervisor`."""
    package = tmp_path / "site" / "supervisor"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('theirs was imported')\n")
    return {**os.environ, "PYTHONPATH": str(package.parent)}


def run(words: list[str], environment: dict[str, str], folder: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, *words],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_an_agent_talks_where_another_package_is_named_supervisor(
    theirs: dict[str, str], tmp_path: Path
) -> None:
    code, said = run(["-c", TALK], theirs, tmp_path)

    assert (code, said.strip()) == (0, "inactivity timeout Session")


def test_python_m_rtvoice_is_the_command_whoever_is_named_supervisor(
    theirs: dict[str, str], tmp_path: Path
) -> None:
    code, said = run([*COMMAND, "--max-seconds", "0.5"], theirs, tmp_path)

    assert code == 0, said
    assert "the time is over" in said


def test_the_doctor_says_that_another_package_is_named_supervisor(
    theirs: dict[str, str], tmp_path: Path
) -> None:
    said = run([*COMMAND, "--doctor"], theirs, tmp_path)[1]

    assert "python -m supervisor runs another package" in said
    assert re.search("(python -m rtvoice|/scripts/run) instead", said)


@pytest.mark.parametrize("executable", [None, "", "/usr/bin/uwsgi"])
def test_a_program_that_no_python_runs_is_told_what_to_set(
    executable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    agent = Agent(server="sandbox", audio_input="silence", audio_output="null")

    with pytest.raises(ConfigurationError, match="set RTVOICE_PYTHON to the Python interpreter"):
        agent.run_sync()


def test_the_python_of_the_processes_can_be_named(tmp_path: Path) -> None:
    code = f"import sys; sys.executable = None\n{TALK}"

    done = run(["-c", code], {**os.environ, "RTVOICE_PYTHON": sys.executable}, tmp_path)

    assert done == (0, "inactivity timeout Session\n")


@pytest.mark.parametrize("name", ["supervisor", "sandbox", "program", "hub", "speaker"])
def test_a_component_of_ones_own_has_a_name_of_its_own(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Agent(components={name: "mine:Mine"})
