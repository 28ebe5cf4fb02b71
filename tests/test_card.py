"""The audio that a sound card really plays, recorded by its monitor, sample by sample.

The card is the virtual one of ``scripts/virtual-sound-card``, whose time is exact.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from actors.devices.base import Captured
from actors.devices.card.portaudio import PortAudioCapture, PortAudioPlayback
from actors.devices.playout import Playout
from actors.devices.sound import convert
from actors.devices.sound.resample import Resampler, SoxrResampler
from actors.devices.units import to_ns
from messages import PlaybackEnded, PlayedPosition, SetVolume, SoundFaltered
from tests.actors.devices.sound.test_convert import chirp, levels_db
from tests.cards import in_real_time, real_card
from tests.conversation import Conversation
from tests.fake_server import FakeServer
from tests.rig import TIMEOUT_S

pytestmark = [pytest.mark.card, real_card]
pytest.importorskip("pyaudio")
Samples = NDArray[np.float64]
MS = 24
FADE = 8 * MS
LOUD = 8_000


class Monitor:
    """Records what comes out of the card's loudspeaker, and knows when each sample did."""

    def __init__(self, input_: str = "speaker_monitor") -> None:
        self._news = threading.Condition()
        self._blocks: list[Captured] = []
        self._capture = PortAudioCapture(input_, 480)

    def __enter__(self) -> Monitor:
        self._capture.start(self._take, lambda _: None)
        self.wait_for(lambda: len(self._blocks) > 5)
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.close()

    def wait_for(self, condition: Callable[[], Any]) -> None:
        """Wait until something is so; looked at with each block."""
        with self._news:
            assert self._news.wait_for(condition, TIMEOUT_S)

    def wait_silence(self, ms: int = 100) -> None:
        """Wait until it has been silent for so long after something was heard."""
        blocks = ms // 20
        self.wait_for(lambda: any(any(block.pcm) for block in self._blocks))
        self.wait_for(lambda: not any(any(block.pcm) for block in self._blocks[-blocks:]))

    def wait_ms(self, ms: int) -> None:
        """Wait until the card has played so much more."""
        there = len(self._blocks)
        self.wait_for(lambda: len(self._blocks) >= there + ms // 20)

    def forget(self) -> None:
        """Forget what was heard so far."""
        with self._news:
            del self._blocks[:-1]

    @property
    def samples(self) -> Samples:
        """What was recorded."""
        return np.frombuffer(b"".join(block.pcm for block in self._blocks), "<i2").astype(float)

    def time_of(self, sample: int) -> int:
        """Return when this sample was played, in nanoseconds."""
        block, rest = divmod(sample, 480)
        return self._blocks[block].first_ns + to_ns(rest)

    def _take(self, block: Captured) -> None:
        with self._news:
            self._blocks.append(block)
            self._news.notify_all()


def noise(seconds: float, seed: int) -> Samples:
    """Return a sound that is like itself nowhere else: noise up to 4 kHz.

    With higher tones it would be unlike itself when a resampler moves it by half a sample.
    """
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(0, 5_000, int(24_000 * seconds)))
    spectrum[len(spectrum) // 3 :] = 0
    return np.fft.irfft(spectrum).clip(-LOUD, LOUD)


def pcm(samples: Samples) -> bytes:
    return samples.astype("<i2").tobytes()


def place(heard: Samples, mark: Samples) -> int:
    """Return at which sample a mark begins, or -1."""
    size = len(heard) + len(mark)
    match = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(mark, size)), size)
    at = int(match[: len(heard) - len(mark)].argmax())
    alike = match[at] / (np.linalg.norm(heard[at : at + len(mark)]) * np.linalg.norm(mark) + 1)
    return at if alike > 0.8 else -1


def end_of(heard: Samples) -> int:
    """Return the sample behind the last that can be heard."""
    return int(np.flatnonzero(np.abs(heard) > 20)[-1]) + 1


@in_real_time
def test_what_is_truncated_is_what_the_card_has_played(server: FakeServer) -> None:
    errors_ms = []
    with (
        Monitor() as monitor,
        Conversation(server, PlayedPosition, input="silence", output="speaker") as talk,
    ):
        for number in range(7):
            item, sound = f"item{number}", noise(3.0, seed=number)
            monitor.forget()
            talk.connection.say("never heard to its end", pcm(sound), item=item, done=False)
            talk.expect(PlayedPosition, lambda m, item=item: m.item_id == item)
            monitor.wait_ms(200 + 37 * number)

            talk.connection.hear(f"user{number}", "stop")
            told = talk.connection.expect(
                "conversation.item.truncate", lambda event, item=item: event["item_id"] == item
            )
            talk.connection.finish("never heard to its end", item=item)
            monitor.wait_silence()

            end = end_of(monitor.samples) - FADE
            last = place(sound, monitor.samples[end - 100 * MS : end])
            assert last >= 0, "what was played is not what was recorded"
            errors_ms.append(told["audio_end_ms"] - (last / MS + 100 + FADE / MS))

    assert statistics.median(np.abs(errors_ms)) <= 5, errors_ms
    assert max(np.abs(errors_ms)) <= 20, errors_ms


@in_real_time
def test_the_position_is_that_of_the_card_at_every_moment() -> None:
    pytest.importorskip("pyaudio")
    sound = noise(1.1, seed=99)
    playout, playback = Playout(960), PortAudioPlayback("speaker")
    looks = []
    with Monitor() as monitor:
        playback.start(playout, lambda _: None)
        monitor.wait_ms(200)
        monitor.forget()
        playout.push("a", 0, pcm(sound), last=True)
        for _ in range(24):
            monitor.wait_ms(40)
            now = time.monotonic_ns()
            position = playout.settle(now).position
            looks.append((now, position[1] if position else 0))
        monitor.wait_silence()
        playback.close()
        errors_ms = []
        for now, played in looks:
            begin = place(monitor.samples, sound[played : played + 50 * MS])
            if 0 < played < len(sound) - 100 * MS and begin >= 0:
                errors_ms.append((now - monitor.time_of(begin)) / 1e6)

    assert len(errors_ms) > 15
    assert abs(statistics.median(errors_ms)) <= 5, errors_ms
    assert max(np.abs(errors_ms)) <= 20, errors_ms


@in_real_time
def test_a_barge_in_is_silence_within_60_ms_and_nothing_clicks(server: FakeServer) -> None:
    hz, seconds = 330, 3
    sound = LOUD * np.sin(2 * np.pi * hz * np.arange(24_000 * seconds) / 24_000)
    sound[: 5 * MS] *= np.linspace(0, 1, 5 * MS)  # or PulseAudio's resampler overshoots there
    steepest = 2 * np.pi * hz / 24_000 * LOUD
    times_ms, jumps, levels = [], [], []
    with (
        Monitor() as monitor,
        Conversation(server, PlayedPosition, input="silence", output="speaker") as talk,
    ):
        for number in range(12):
            item, faltered = f"item{number}", len(talk.of(SoundFaltered))
            monitor.forget()
            talk.connection.say("a long tone", pcm(sound), item=item, done=False)
            talk.expect(PlayedPosition, lambda m, item=item: m.item_id == item)
            for volume in (0.2, 1.0):
                monitor.wait_ms(140)
                talk.session.send(SetVolume(volume))
            monitor.wait_ms(140 + 13 * number)
            before = time.monotonic_ns()

            talk.connection.hear(f"user{number}", "stop")
            monitor.wait_silence()

            talk.connection.finish("a long tone", item=item)
            if len(talk.of(SoundFaltered)) > faltered:
                continue  # the machine was too busy to serve the card, which does click
            heard = monitor.samples
            end = end_of(heard)
            times_ms.append((monitor.time_of(end) - before) / 1e6)
            jumps.append(np.abs(np.diff(heard[: end + 480])).max())
            begin = int(np.flatnonzero(np.abs(heard) > 20)[0])
            levels.append(np.abs(heard[begin + 280 * MS : begin + 300 * MS]).max())
            if len(times_ms) == 3:
                break

    assert statistics.median(times_ms) <= 60, times_ms
    assert max(jumps) <= 1.1 * steepest, (jumps, steepest)
    assert statistics.median(levels) < 0.9 * LOUD, levels


@in_real_time
def test_the_end_of_an_answer_is_heard_before_anybody_says_that_it_is_the_end(
    server: FakeServer,
) -> None:
    sound = noise(0.03, seed=5)  # less than is waited for
    with (
        Monitor() as monitor,
        Conversation(server, input="silence", output="speaker") as talk,
    ):
        monitor.forget()
        talk.connection.say("Yes.", pcm(sound), item="short", done=False)
        monitor.wait_silence()
        heard = monitor.samples
        talk.connection.finish("Yes.", item="short")

        told = talk.expect(PlaybackEnded)

    begin = place(heard, sound)
    assert begin >= 0
    assert end_of(heard) >= begin + len(sound) - 5
    assert told.heard_ms == 30


@in_real_time
@pytest.mark.parametrize(
    ("rate", "resampler"), [(48_000, SoxrResampler), (44_100, Resampler), (24_000, None)]
)
def test_a_chirp_through_the_card_keeps_its_level_to_10_khz(
    rate: int, resampler: type[Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyaudio = pytest.importorskip("pyaudio")
    if resampler is SoxrResampler:
        pytest.importorskip("soxr")
    opened = pyaudio.PyAudio.open

    def open_only_at(self: Any, **options: Any) -> Any:
        if options["rate"] != rate:
            raise OSError(-9997, "Invalid sample rate")
        return opened(self, **options)

    monkeypatch.setattr(pyaudio.PyAudio, "open", open_only_at)
    monkeypatch.setattr(convert, "best_resampler", resampler)
    sound = chirp(0.6)
    playout, playback = Playout(960), PortAudioPlayback("room")
    with Monitor("mic") as ear:
        playback.start(playout, lambda _: None)
        ear.wait_ms(200)
        ear.forget()
        playout.push("a", 0, pcm(sound), last=True)
        ear.wait_silence()
        playback.close()

    levels = levels_db(ear.samples, sound)
    assert np.abs(levels).max() < 0.5, levels.round(2)


def test_what_sound_libraries_write_is_a_debug_record_and_not_on_the_terminal() -> None:
    pytest.importorskip("pyaudio")
    code = (
        "import logging, sys\n"
        "from supervisor import Session\n"
        "logging.basicConfig(level='DEBUG', stream=sys.stdout, format='%(name)s %(message)s')\n"
        "with Session(server='ws://127.0.0.1:1', input='mic', output='speaker',\n"
        "             log_level='DEBUG'):\n"
        "    pass\n"
    )
    noisy = {"ALSA_CONFIG_PATH": os.environ["ALSA_CONFIG_PATH"] + ":/no/such/asound.conf"}

    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **noisy},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.stderr == ""
    assert "asound.conf" in done.stdout


@in_real_time
@pytest.mark.parametrize(
    "seconds", [6, pytest.param(600, marks=[pytest.mark.long, pytest.mark.timeout(700)])]
)
def test_nothing_falters_while_a_core_is_fully_loaded(server: FakeServer, seconds: int) -> None:
    with Conversation(server, PlayedPosition, input="mic", output="speaker") as talk:
        burner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            for number in range(seconds // 3):
                item = f"item{number}"
                talk.connection.say("on and on", pcm(noise(3.0, seed=1)), item=item)
                talk.expect(PlayedPosition, lambda m, item=item: m.item_id == item and m.finished)
        finally:
            burner.kill()
            burner.wait()
        assert talk.of(SoundFaltered) == []
