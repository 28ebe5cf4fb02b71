"""JACK's database, left locked by a program that was killed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.devices.card import jack, listing
from messages import SessionStarted
from tests.bad_input.stage import Sitting

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

HOLD = "import sys, time; file = open(sys.argv[1]); print(flush=True); time.sleep(3600)"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "jack_db-1000"
    folder.mkdir()
    (folder / "__db.001").touch()
    monkeypatch.setattr(jack, "FOLDER", folder)
    return folder


@pytest.fixture
def holder(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has it open, as every client of JACK."""
    command = [sys.executable, "-c", HOLD, str(folder / "__db.001")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_what_a_process_hangs_in_is_removed(folder: Path, holder: subprocess.Popen[bytes]) -> None:
    assert jack.remove_locked_database(holder.pid)

    assert not folder.exists()


def test_one_who_came_too_late_to_remove_it_tries_again_too(
    folder: Path, holder: subprocess.Popen[bytes]
) -> None:
    jack.remove_locked_database(holder.pid)

    assert jack.remove_locked_database(holder.pid)


def test_what_a_process_does_not_have_open_is_left_alone(folder: Path) -> None:
    assert not jack.remove_locked_database()

    assert folder.exists()


def test_of_a_process_that_is_gone_nothing_is_known(folder: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()

    assert not jack.remove_locked_database(process.pid)


LOCKED = """
import pathlib, time
from actors.devices.card import jack
jack.FOLDER = pathlib.Path({folder!r})
def wait_for_the_lock():
    lock = jack.FOLDER / "__db.001"
    if lock.exists():
        with lock.open():
            time.sleep(3600)
"""


def test_a_session_starts_although_it_was_left_locked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyaudio.py").write_text(
        LOCKED.format(folder=str(folder))
        + "wait_for_the_lock()\n"
        + "import sys\n"
        + "from tests.actors.devices.card.fake_pyaudio import FakePyAudio\n"
        + "sys.modules['pyaudio'] = FakePyAudio()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with Sitting("microphone", "speaker", input="default", output="default") as sitting:
        sitting.wait_for(lambda: bool(sitting.of(SessionStarted)))

    assert not folder.exists()


def test_devices_are_listed_although_it_was_left_locked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyaudio.py").write_text(
        "import pathlib, time\n"
        f"lock = pathlib.Path({str(folder / '__db.001')!r})\n"
        "if lock.exists():\n"
        "    with lock.open():\n"
        "        time.sleep(3600)\n"
        "raise ImportError('no more of it is needed', name='pyaudio')\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = time.monotonic()

    with pytest.raises(listing.SoundLibraryError, match="not installed"):
        listing.list_devices(1.0)

    assert time.monotonic() - before >= 1.0
    assert not folder.exists()
