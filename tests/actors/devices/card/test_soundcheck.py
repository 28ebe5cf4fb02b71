"""The sound check: its judgement of recordings, and a check of a real card."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from actors.devices.base import Captured
from actors.devices.card.soundcheck import (
    DeviceOpened,
    DeviceRefused,
    Echo,
    EchoCancelled,
    Finding,
    MicrophoneHeard,
    Request,
    Trying,
    check,
    chirp,
    echo_in,
    heard_in,
)
from actors.devices.units import to_ns
from tests.cards import real_card

BLOCK = 480
START_NS = 5_000_000_000
MS = 1_000_000


def blocks_of(samples: np.ndarray) -> list[Captured]:
    """Return what a microphone delivers of this, each block 10 ms after its end."""
    pcm = np.clip(np.round(samples), -32768, 32767).astype("<i2").tobytes()
    found = []
    for number in range(len(pcm) // (2 * BLOCK)):
        first_ns = START_NS + to_ns(number * BLOCK)
        data = pcm[2 * BLOCK * number : 2 * BLOCK * (number + 1)]
        found.append(Captured(data, first_ns, first_ns + to_ns(BLOCK) + 10 * MS))
    return found


def noise(samples: int, rms: float) -> np.ndarray:
    return np.random.default_rng(7).normal(0, rms, samples)


def with_chirp(samples: np.ndarray, at: int, gain: float) -> np.ndarray:
    samples = samples.copy()
    samples[at : at + len(chirp())] += gain * chirp()
    return samples


# -- what is heard --------------------------------------------------------------------------------


@pytest.mark.parametrize("gain_db", [-6.0, -20.0, -40.0])
def test_an_echo_is_found_with_its_delay_and_its_level(gain_db: float) -> None:
    room = with_chirp(noise(48_000, 3), 24_000, 10 ** (gain_db / 20))
    played_ns = START_NS + 1000 * MS - 37 * MS

    echo = echo_in(blocks_of(room), pushed_ns=played_ns - 60 * MS, played_ns=played_ns)

    assert echo.heard
    assert echo.gain_db == pytest.approx(gain_db, abs=0.5)
    assert echo.shift_ms == 37
    assert echo.round_trip_ms == 37 + 60 + 20 + 10  # until the end of its first block is here


def test_an_echo_that_is_upside_down_is_one_too() -> None:
    assert echo_in(blocks_of(with_chirp(noise(48_000, 3), 9_000, -0.3)), 0, 0).heard


@pytest.mark.parametrize("rms", [0.0, 3.0, 3_000.0])
def test_noise_is_no_echo(rms: float) -> None:
    assert echo_in(blocks_of(noise(48_000, rms)), 0, 0) == Echo(heard=False)


def test_someone_who_talks_meanwhile_is_no_echo() -> None:
    t = np.arange(48_000) / 24_000
    vowel = sum(np.sin(2 * np.pi * 130 * n * t) / n for n in range(1, 20))
    assert isinstance(vowel, np.ndarray)

    assert not echo_in(blocks_of(3_000 * vowel * (np.sin(2 * np.pi * 4 * t) > 0)), 0, 0).heard


def test_levels_are_those_of_the_quiet_part_and_of_the_loudest_sample() -> None:
    room = with_chirp(noise(48_000, 32.8), 24_000, 1.0)

    heard = heard_in(blocks_of(room), quiet=50)

    assert heard.rms_dbfs == pytest.approx(-60, abs=0.5)
    assert heard.peak_dbfs == pytest.approx(-16.5, abs=0.6)
    assert (heard.zeros, heard.clipped) == (False, 0)
    assert heard.speed == pytest.approx(1.0, abs=0.001)


def test_zeros_and_clipping_are_seen() -> None:
    assert heard_in(blocks_of(np.zeros(4_800)), 10).zeros
    assert heard_in(blocks_of(np.full(4_800, -40_000.0)), 10).clipped == 4_800


def test_a_card_whose_rate_is_a_lie_is_seen() -> None:
    blocks = [
        block._replace(captured_ns=START_NS + number * 10 * MS)
        for number, block in enumerate(blocks_of(np.ones(48_000)))
    ]

    assert heard_in(blocks, 10).speed == pytest.approx(2.0, abs=0.01)


# -- without a card -------------------------------------------------------------------------------


def findings(**request: object) -> list[Finding]:
    found: list[Finding] = []
    check(msgspec.convert(request, Request), found.append)
    return found


def test_what_is_no_card_is_opened_and_not_listened_to(tmp_path: Path) -> None:
    assert findings(input="silence", output="null") == [
        Trying("output"),
        DeviceOpened("output", "null"),
        Trying("input"),
        DeviceOpened("input", "silence"),
    ]


def test_an_output_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "reply.wav"
    path.write_bytes(b"precious")

    found = findings(input="silence", output=str(path))

    assert path.read_bytes() == b"precious"
    assert Trying("output") not in found


def test_a_device_that_does_not_open_is_named_and_the_other_one_is_tried() -> None:
    found = findings(input="nobody.wav", output="null")

    assert DeviceOpened("output", "null") in found
    assert isinstance(found[-1], DeviceRefused)
    assert "nobody.wav" in found[-1].why


# -- on a card ------------------------------------------------------------------------------------

SCRIPT = Path(__file__).parents[4] / "scripts" / "virtual-sound-card"


@pytest.fixture
def open_speakers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give this process a card of its own, whose microphone hears its speaker after 60 ms."""
    monkeypatch.delenv("VIRTUAL_SOUND_CARD")
    told = subprocess.run(
        [SCRIPT, "up", "--echo", "60", "--for", str(os.getpid())],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    for line in told.splitlines():
        name, _, value = line.removeprefix("export ").partition("=")
        monkeypatch.setenv(name, value.strip("'"))
    yield
    subprocess.run([SCRIPT, "down"], check=True)


def tried(request: Request) -> list[Finding]:
    """Run the sound check as the doctor does: PortAudio does not like to see two cards."""
    done = subprocess.run(
        [sys.executable, "-m", "actors.devices.card.soundcheck", msgspec.json.encode(request)],
        cwd=SCRIPT.parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=True,
    )
    return [msgspec.json.decode(line, type=Finding) for line in done.stdout.splitlines()]


@pytest.mark.card
@real_card
def test_a_microphone_hears_the_speaker_that_it_hears(open_speakers: None) -> None:
    pytest.importorskip("pyaudio")

    *_, heard, echo, trying, cancelled = tried(Request("default", "default"))

    assert trying == Trying("cancelling")
    assert isinstance(cancelled, EchoCancelled)
    assert cancelled.state == "cancelled"
    assert cancelled.erle_db > 15
    assert cancelled.delay_ms == pytest.approx(60, abs=40)
    assert isinstance(heard, MicrophoneHeard)
    assert isinstance(echo, Echo)
    assert not heard.zeros
    assert echo.heard
    assert echo.shift_ms == pytest.approx(60, abs=25)
    assert 60 < echo.round_trip_ms < 1_000


@real_card
def test_a_microphone_that_hears_nothing_delivers_zeros() -> None:
    pytest.importorskip("pyaudio")

    *_, heard, echo = tried(Request("mic", "speaker"))

    assert isinstance(heard, MicrophoneHeard)
    assert heard.zeros
    assert echo == Echo(heard=False)
