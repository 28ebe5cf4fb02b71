"""Faults from outside: ``Session.inject`` and ``scripts/inject.py``."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from messages import Reconnected
from messages.hints import rtvoice
from supervisor import ConfigurationError, Session
from tests.fake_server import FakeServer
from tests.rig import QUIET, TIMEOUT_S

INJECT = Path(__file__).resolve().parent.parent / "scripts" / "inject.py"


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    """A session that all tests of the module break."""
    with (
        tempfile.TemporaryDirectory(prefix="rt-", dir="/tmp") as short,  # a socket's path is
        pytest.MonkeyPatch.context() as patch,
        FakeServer() as server,
    ):
        patch.setenv("TMPDIR", short)
        patch.setattr(tempfile, "tempdir", short)
        with Session(server=server.url, probes=True, **QUIET) as session:
            yield session


def inject(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(INJECT), *arguments],
        capture_output=True,
        text=True,
        timeout=3 * TIMEOUT_S,
        check=False,
    )


@pytest.mark.parametrize(("fault", "where"), [("raise", "same process"), ("SIGKILL", "->")])
def test_a_component_of_a_running_session_is_broken_by_name(
    session: Session, fault: str, where: str
) -> None:
    before = session.status()["speaker"]["restarts"]

    done = inject("speaker", fault)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"speaker: {fault}; open again after ")
    assert where in done.stdout
    assert session.status()["speaker"]["restarts"] == before + 1


def test_a_connection_that_is_broken_is_made_again(session: Session) -> None:
    stream = session.events(Reconnected)

    session.inject("realtime", "disconnect")

    assert next(iter(stream)).gap_ms >= 0
    stream.close()
    assert session.status()["realtime"]["restarts"] == 0


def test_it_lists_what_can_be_broken_and_how(session: Session) -> None:
    done = inject("--list")

    assert f"session of program {os.getpid()}" in done.stdout
    assert "torn-frame" in done.stdout
    assert f"process {session.status()['history']['pid']}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nobody", "raise"], "'nobody' is not a component; give one of recorder, history"),
        (["speaker", "sneeze"], "'sneeze' is not a fault; give one of raise, system-exit"),
        (["speaker"], "name a component and a fault; --list shows them"),
        (["--session", "1", "speaker", "raise"], f"start one with {rtvoice('--probes')}"),
    ],
)
def test_wrong_usage_is_explained(session: Session, arguments: list[str], told: str) -> None:
    done = inject(*arguments)

    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_session_without_probes_takes_no_faults() -> None:
    with pytest.raises(ConfigurationError, match="probes=True"):
        Session(**QUIET).inject("speaker", "raise")


@pytest.mark.parametrize(
    ("component", "fault", "told"),
    [("speaker", "sneeze", "no fault is named 'sneeze'"), ("ear", "raise", "'ear'")],
)
def test_a_fault_or_component_that_is_not_there_is_refused(
    component: str, fault: str, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        Session(probes=True, **QUIET).inject(component, fault)
