"""Sound cards: with a PyAudio that fails on command, and on a real PortAudio where there is a card.

The real card is the virtual one of ``scripts/virtual-sound-card``, which sets VIRTUAL_SOUND_CARD.
It stutters on machines under load, so tests with it assert sound, not latency.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import closing
from math import pi, sin
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.devices import errors
from actors.devices.base import Captured
from actors.devices.card.portaudio import PortAudioCapture, PortAudioPlayback
from actors.devices.errors import (
    DeviceBusyError,
    DeviceLostError,
    DeviceOpenError,
    DeviceRateError,
    NoSuchDeviceError,
    SoundLibraryError,
)
from actors.devices.playout import Playout
from actors.devices.units import to_ns
from tests.actors.devices.card.fake_pyaudio import FakePyAudio
from tests.cards import chirp, in_real_time, likeness, real_card
from tests.sweeper import unmarked

MS = 1_000_000


@pytest.fixture(autouse=True)
def _switch_interval() -> Iterator[None]:
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakePyAudio]:
    def install(**options: Any) -> FakePyAudio:
        module = FakePyAudio(**options)
        monkeypatch.setitem(sys.modules, "pyaudio", module)
        return module

    return install


def tone(samples: int, rate: int = 24_000, hz: float = 440.0) -> bytes:
    return array("h", [int(8000 * sin(2 * pi * hz * i / rate)) for i in range(samples)]).tobytes()


def started_capture(block: int = 960) -> tuple[PortAudioCapture, list[Captured]]:
    capture = PortAudioCapture("default", block)
    blocks: list[Captured] = []
    capture.start(blocks.append, lambda _: None)
    return capture, blocks


# -- choosing a device ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("default", "Built-in Microphone"),
        ("0", "Built-in Microphone"),
        ("2", "USB Headset"),
        ("headset", "USB Headset"),
        ("Built-in", "Built-in Microphone"),
    ],
)
def test_an_input_is_found_by_index_and_by_part_of_its_name(
    fake: Callable[..., FakePyAudio], wanted: str, found: str
) -> None:
    fake()

    with closing(PortAudioCapture(wanted, 960)) as capture:
        assert capture.name == found


def test_the_beginning_of_a_name_comes_before_its_middle(
    fake: Callable[..., FakePyAudio],
) -> None:
    fake()

    with closing(PortAudioPlayback("speaker")) as playback:
        assert playback.name == "Speaker of the Monitor"


def test_a_device_that_is_not_there_is_named_with_those_that_are(
    fake: Callable[..., FakePyAudio],
) -> None:
    module = fake()

    with pytest.raises(NoSuchDeviceError) as caught:
        PortAudioPlayback("bluetooth")

    assert "'bluetooth'" in str(caught.value)
    assert "2 USB Headset" in str(caught.value)
    assert "Microphone" not in str(caught.value)
    assert module.alive == 0


def test_without_sound_cards_the_alternatives_are_named(
    fake: Callable[..., FakePyAudio],
) -> None:
    fake(devices=())

    with pytest.raises(NoSuchDeviceError, match="no input device on this machine") as caught:
        PortAudioCapture("default", 960)

    assert "silence" in str(caught.value)


@pytest.mark.parametrize(
    ("code", "text", "kind", "words"),
    [
        (-9997, "Invalid sample rate", DeviceRateError, "neither 24 nor 48 nor 44.1 kHz"),
        (-9998, "Invalid channels", DeviceRateError, "another rate in the sound settings"),
        (-9985, "Device unavailable", DeviceBusyError, "in use by another program: end that"),
        (-9999, "Unanticipated host error", DeviceOpenError, "host error. Perhaps another program"),
    ],
)
def test_a_device_that_does_not_open_says_why(
    fake: Callable[..., FakePyAudio], code: int, text: str, kind: type[Exception], words: str
) -> None:
    module = fake(refuse=lambda rate, channels: True, error=(code, text))

    with pytest.raises(DeviceOpenError, match=words) as caught:
        PortAudioCapture("default", 960)

    assert type(caught.value) is kind
    assert "--list-devices" in str(caught.value)
    assert module.alive == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such rights")
def test_devices_that_this_user_may_not_use_are_reported(
    fake: Callable[..., FakePyAudio], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake(devices=())
    (tmp_path / "pcmC0D0p").touch()
    monkeypatch.setattr(errors, "_NODES", tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may do everything

    with pytest.raises(NoSuchDeviceError, match="usermod -aG audio"):
        PortAudioCapture("default", 960)


def test_what_is_heard_ends_with_the_life_of_the_device(fake: Callable[..., FakePyAudio]) -> None:
    module = fake()
    playback, playout = PortAudioPlayback("default"), Playout()
    playback.start(playout, lambda _: None)
    module.streams[0].call(None, 480)
    now = time.monotonic_ns()

    assert playback.heard_until(now) == now
    assert playback.heard_until(now + 500 * MS) < now + 50 * MS
    playback.close()


def test_a_broken_pyaudio_is_not_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "pyaudio":
                raise ImportError("libportaudio.so.2: cannot open", name="pyaudio._portaudio")

    monkeypatch.delitem(sys.modules, "pyaudio", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])

    with pytest.raises(SoundLibraryError, match=r"libportaudio\.so\.2"):
        PortAudioCapture("default", 960)


# -- what the card takes and gives ----------------------------------------------------------------


def test_24_khz_mono_is_asked_for_first(fake: Callable[..., FakePyAudio]) -> None:
    module = fake()

    with closing(PortAudioCapture("default", 960)):
        assert (module.streams[0].rate, module.streams[0].channels) == (24_000, 1)


def test_captured_frames_become_blocks(fake: Callable[..., FakePyAudio]) -> None:
    module = fake()
    capture, blocks = started_capture()
    data = tone(4800)

    for at in range(0, 4800, 480):
        module.streams[0].call(data[2 * at : 2 * at + 960], 480)
    capture.close()

    assert b"".join(block.pcm for block in blocks) == data
    assert {len(block.pcm) for block in blocks} == {1920}
    assert all(block.captured_ns - block.first_ns >= to_ns(960) for block in blocks)


def test_a_stereo_card_at_48_khz_is_converted(fake: Callable[..., FakePyAudio]) -> None:
    module = fake(refuse=lambda rate, channels: (rate, channels) != (48_000, 2))
    capture, blocks = started_capture()
    mono = array("h", tone(48_000, 48_000))
    stereo = array("h", bytes(4 * len(mono)))
    stereo[0::2] = stereo[1::2] = mono
    data = stereo.tobytes()

    for at in range(0, 48_000, 960):
        module.streams[0].call(data[4 * at : 4 * (at + 960)], 960)
    capture.close()

    heard = np.frombuffer(b"".join(block.pcm for block in blocks), "<i2").astype(float)
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    assert len(heard) >= 22_000
    assert spectrum.argmax() * 24_000 / len(heard) == pytest.approx(440, abs=2)
    assert np.sqrt((heard[1000:] ** 2).mean()) == pytest.approx(8000 / np.sqrt(2), rel=0.02)


def test_the_output_plays_and_is_then_silent(fake: Callable[..., FakePyAudio]) -> None:
    module = fake()
    playback, playout = PortAudioPlayback("default"), Playout()
    playback.start(playout, lambda _: None)
    playout.push("a", 0, tone(700), last=True)

    given = [module.streams[0].call(None, 480) for _ in range(3)]
    playback.close()

    assert b"".join(data or b"" for data, _ in given) == tone(700) + bytes(2 * 740)
    assert {go_on for _, go_on in given} == {0}


def test_an_inverted_channel_of_a_stereo_card_does_not_silence_it(
    fake: Callable[..., FakePyAudio],
) -> None:
    module = fake(refuse=lambda rate, channels: channels != 2)
    with closing(PortAudioCapture("default", 960)) as capture:
        blocks: list[Captured] = []
        capture.start(blocks.append, lambda _: None)
        left = np.frombuffer(tone(4_800), "<i2")
        stereo = np.stack([left, -left], axis=1)
        for at in range(0, len(left), 480):
            module.streams[0].call(stereo[at : at + 480].tobytes(), 480)

        heard = np.frombuffer(b"".join(block.pcm for block in blocks), "<i2")
        assert np.abs(heard).max() > 7_900
        assert "cancel each other out" in capture.trouble


def test_the_output_of_a_stereo_card_at_48_khz_is_converted(
    fake: Callable[..., FakePyAudio],
) -> None:
    module = fake(refuse=lambda rate, channels: (rate, channels) != (48_000, 2))
    playback, playout = PortAudioPlayback("default"), Playout()
    playback.start(playout, lambda _: None)
    playout.push("a", 0, tone(24_000), last=True)

    given = b"".join(module.streams[0].call(None, 960)[0] or b"" for _ in range(55))
    playback.close()

    frames = np.frombuffer(given, "<i2").reshape(-1, 2).astype(float)
    sound = frames[100:47_000, 0]
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    assert len(frames) == 55 * 960
    assert (frames[:, 0] == frames[:, 1]).all()
    assert spectrum.argmax() * 48_000 / len(sound) == pytest.approx(440, abs=2)
    assert np.sqrt((sound**2).mean()) == pytest.approx(8000 / np.sqrt(2), rel=0.02)


def test_what_is_heard_follows_the_converter_of_the_card(
    fake: Callable[..., FakePyAudio],
) -> None:
    module = fake()
    playback, playout = PortAudioPlayback("default"), Playout()
    playback.start(playout, lambda _: None)
    for _ in range(4):  # the first times are not believed
        module.streams[0].call(None, 480)
    playout.push("a", 0, tone(4800))
    before = time.monotonic_ns()
    module.streams[0].call(None, 480, ahead_s=0.1)
    after = time.monotonic_ns()
    playback.close()

    assert playout.settle(before + 99 * MS).position == ("a", 0)
    assert playout.settle(after + 121 * MS).position == ("a", 480)


# -- the watchdog ---------------------------------------------------------------------------------


def test_a_stream_that_stops_is_a_lost_device(fake: Callable[..., FakePyAudio]) -> None:
    module = fake()
    capture, _ = started_capture()
    capture.check(time.monotonic_ns())

    module.streams[0].active = False

    with pytest.raises(DeviceLostError, match="Built-in Microphone"):
        capture.check(time.monotonic_ns())
    capture.close()
    assert module.alive == 0


@pytest.mark.parametrize(("load", "limit_ms"), [(0.5, 350), (99.0, 1500)])
def test_a_stream_without_callbacks_is_a_lost_device(
    fake: Callable[..., FakePyAudio], monkeypatch: pytest.MonkeyPatch, load: float, limit_ms: int
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load), raising=False)
    module = fake()
    capture, _ = started_capture()
    for _ in range(5):
        module.streams[0].call(bytes(960), 480)
    now = time.monotonic_ns()

    for ms in range(0, limit_ms, 100):
        capture.check(now + ms * MS)

    with pytest.raises(DeviceLostError, match="nothing came"):
        capture.check(now + (limit_ms + 100) * MS)
    capture.close()


def test_a_watchdog_that_slept_itself_is_patient(fake: Callable[..., FakePyAudio]) -> None:
    module = fake()
    capture, _ = started_capture()
    for _ in range(5):
        module.streams[0].call(bytes(960), 480)

    capture.check(time.monotonic_ns() + 5_000 * MS)  # the whole process was stopped
    module.streams[0].call(bytes(960), 480)

    capture.check(time.monotonic_ns())
    capture.close()


def test_a_machine_that_has_no_time_for_us_may_have_none_for_the_device(
    fake: Callable[..., FakePyAudio],
) -> None:
    module = fake()
    capture, _ = started_capture()
    for _ in range(5):
        module.streams[0].call(bytes(960), 480)
    now = time.monotonic_ns()

    for late_ms in range(0, 3000, 300):
        capture.check(now + late_ms * MS)

    with pytest.raises(DeviceLostError, match="nothing came"):
        capture.check(now + 3_100 * MS)
    capture.close()


def test_a_callback_that_raises_is_a_fault_of_ours_and_plays_silence(
    fake: Callable[..., FakePyAudio],
) -> None:
    module = fake()
    playback = PortAudioPlayback("default")

    class Broken(Playout):
        def pull(self, samples: int, at_ns: int) -> bytes:
            raise RuntimeError("oh")

    playback.start(Broken(), lambda _: None)
    data, _ = module.streams[0].call(None, 480)

    assert data == bytes(960)
    with pytest.raises(RuntimeError, match="oh"):
        playback.check(time.monotonic_ns())
    playback.close()


def test_closing_twice_is_harmless(fake: Callable[..., FakePyAudio]) -> None:
    module = fake()
    capture, _ = started_capture()

    capture.close()
    capture.close()

    assert module.alive == 0
    assert module.streams[0].closed
    capture.check(time.monotonic_ns() + 60_000 * MS)


def test_overflows_and_underflows_are_counted(fake: Callable[..., FakePyAudio]) -> None:
    module = fake()
    capture, _ = started_capture()
    playback, playout = PortAudioPlayback("default"), Playout()
    playback.start(playout, lambda _: None)
    microphone, speaker = module.streams

    microphone.call(bytes(960), 480, status=2)
    speaker.call(None, 480, status=4)  # nothing is played, so nobody hears it
    playout.push("a", 0, tone(4800))
    speaker.call(None, 480)
    speaker.call(None, 480, status=4)
    capture.close()
    playback.close()

    assert (capture.faltered(), playback.faltered()) == (1, 1)
    assert (capture.faltered(), playback.faltered()) == (0, 0)


def test_the_block_behind_an_overflow_is_marked(fake: Callable[..., FakePyAudio]) -> None:
    module = fake()
    capture, blocks = started_capture()

    for status in (0, 0, 2, 0, 0, 0):
        module.streams[0].call(bytes(960), 480, status=status)
    capture.close()

    assert [block.lost for block in blocks] == [False, True, False]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system does it by itself")
def test_the_callback_runs_before_others_where_that_is_permitted(
    fake: Callable[..., FakePyAudio],
) -> None:
    module = fake()
    playback = PortAudioPlayback("default")
    playback.start(Playout(), lambda _: None)
    found: list[int | str] = []

    def be_portaudio() -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        except PermissionError:
            found.append("not permitted")
            return
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        module.streams[0].call(None, 288)
        found.append(os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK)

    thread = threading.Thread(target=be_portaudio)
    thread.start()
    thread.join()
    playback.close()

    if found == ["not permitted"]:
        pytest.skip("this user may not have real-time threads")
    assert found == [os.SCHED_RR]


def test_captured_blocks_are_dated_without_the_time_that_converting_takes(
    fake: Callable[..., FakePyAudio], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = fake(refuse=lambda rate, channels: rate != 48_000)
    now = 0
    monkeypatch.setattr(time, "monotonic_ns", lambda: now)
    capture, blocks = started_capture(480)
    stereo = np.zeros((8 * 960, 2), "<i2")
    stereo[5 * 960 + 480] = 30_000

    for number in range(8):
        now += 20 * MS
        data = stereo[960 * number : 960 * (number + 1)]
        data = data[:, : module.streams[0].channels].tobytes()
        module.streams[0].call(data, 960, ahead_s=0.02)
    capture.close()

    (clicked,) = [block for block in blocks if max(array("h", block.pcm)) > 5_000]
    samples = array("h", clicked.pcm)
    heard_ns = clicked.first_ns + to_ns(samples.index(max(samples)))
    assert heard_ns == pytest.approx(5 * 20 * MS + 10 * MS, abs=0.2 * MS)


# -- a real PortAudio -----------------------------------------------------------------------------


def play(playback: PortAudioPlayback, sound: bytes) -> Playout:
    playout = Playout(960)
    playback.start(playout, lambda _: None)
    playout.push("a", 0, sound, last=True)
    return playout


@pytest.mark.card
@real_card
@pytest.mark.parametrize(("output", "input_"), [("room", "mic"), ("speaker", "speaker_monitor")])
@in_real_time
def test_what_is_played_arrives_on_the_other_side(output: str, input_: str) -> None:
    pytest.importorskip("pyaudio")
    heard: list[bytes] = []
    begun, enough = threading.Event(), threading.Event()

    def deliver(block: Captured) -> None:
        heard.append(block.pcm)
        begun.set()
        if len(heard) * 960 > 30_000:
            enough.set()

    with closing(PortAudioCapture(input_, 960)) as capture:
        capture.start(deliver, lambda _: None)
        assert begun.wait(10)
        heard.clear()
        with closing(PortAudioPlayback(output)) as playback:
            playout = play(playback, chirp(0.4))
            assert enough.wait(10)
            settled = playout.settle(time.monotonic_ns())
            playback.check(time.monotonic_ns())
        capture.check(time.monotonic_ns())

    assert [item for item, _ in settled.finished] == ["a"]
    assert likeness(b"".join(heard), chirp(0.4)) > 0.8


@pytest.mark.card
@real_card
def test_a_card_is_closed_while_it_plays_and_records_without_a_crash() -> None:
    pytest.importorskip("pyaudio")
    code = (
        "import threading\n"
        "from actors.devices.playout import Playout\n"
        "from actors.devices.card.portaudio import PortAudioCapture, PortAudioPlayback\n"
        "for _ in range(5):\n"
        "    capture, playback = PortAudioCapture('mic', 480), PortAudioPlayback('speaker')\n"
        "    begun = threading.Event()\n"
        "    playback.start(Playout(), print)\n"
        "    capture.start(lambda _: begun.set(), print)\n"
        "    assert begun.wait(10)\n"
        "    capture.close(), playback.close()\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)

    assert done.returncode == 0, done.stderr


@pytest.mark.card
@real_card
def test_a_card_whose_server_is_killed_is_lost_and_comes_back() -> None:
    pytest.importorskip("pyaudio")
    card = Path(os.environ["VIRTUAL_SOUND_CARD"])
    capture, playback = PortAudioCapture("mic", 960), PortAudioPlayback("speaker")
    try:
        capture.start(lambda _: None, lambda _: None)
        playback.start(Playout(), lambda _: None)
        os.kill(int((card / "pid").read_text()), signal.SIGKILL)

        for device in (capture, playback):
            with pytest.raises(DeviceLostError):
                watch(device)
    finally:
        capture.close()
        playback.close()
        script = Path(__file__).parents[4] / "scripts" / "virtual-sound-card"
        # The server is not this test's: it outlives it, and this pytest.
        subprocess.run([script, "up"], env=unmarked(), stdout=subprocess.DEVNULL, check=True)

    delivered = threading.Event()
    with closing(PortAudioCapture("mic", 960)) as again:
        again.start(lambda _: delivered.set(), lambda _: None)
        assert delivered.wait(10)


def watch(device: PortAudioCapture | PortAudioPlayback) -> None:
    """Check a device as its actor does, for at most ten seconds."""
    for _ in range(200):
        device.check(time.monotonic_ns())
        threading.Event().wait(0.05)
