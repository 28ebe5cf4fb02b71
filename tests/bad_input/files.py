"""Files and devices that cannot be used."""

from __future__ import annotations

import math
import os
import struct
import wave
from array import array
from pathlib import Path

import pytest

from messages import (
    AssistantAudio,
    CapturedAudio,
    CaptureEnded,
    ComponentRestarted,
    Inject,
    PlaybackEnded,
    PlayedAudio,
    SendImage,
    SessionEnded,
    SessionStarted,
    Turn,
)
from tests.bad_input.rows import Outcome, World, row
from tests.bad_input.stage import Sitting
from tests.fake_server import FakeServer

_HEAD = struct.Struct("<4sI4s4sIHHIIHH4sI")


def wav(
    world: World,
    data: bytes,
    *,
    kind: int = 1,
    channels: int = 1,
    rate: int = 24_000,
    bits: int = 16,
    promised: int | None = None,
) -> str:
    frame = channels * bits // 8
    size = len(data) if promised is None else promised
    head = _HEAD.pack(
        b"RIFF", size + 36, b"WAVE", b"fmt ", 16, kind, channels, rate, rate * frame, frame, bits,
        b"data", size,
    )  # fmt: skip
    return world.file("in.wav", head + data)


def _fails(part: str, **settings: object) -> Outcome:
    """Return what the user sees of a component that cannot start."""
    with Sitting(part, **settings) as sitting:
        sitting.ends_by_itself()
    return Outcome(sitting.text(), sitting.code)


def hears(name: str) -> tuple[bytes, Outcome]:
    """Return what a microphone captures of a file to its end, and what the user sees."""
    with Sitting("microphone", listens=(CapturedAudio, CaptureEnded), input=name) as sitting:
        sitting.wait_for(lambda: len(sitting.of(CaptureEnded)) == 1)
    last = sitting.of(CaptureEnded)[0].last_sample
    blocks = [block for block in sitting.of(CapturedAudio) if block.first_sample <= last]
    assert sitting.code == 0
    return b"".join(block.pcm for block in blocks), Outcome(sitting.text(), None)


# -- WAV files as input -----------------------------------------------------------------------


@row("An input device that does not exist")
def no_device(world: World) -> Outcome:
    return _fails("microphone", input="the gramophone")


@row("An output device that does not exist")
def no_output(world: World) -> Outcome:
    return _fails("speaker", output="97")


def _with_card(world: World, **options: object) -> None:
    """Give the sessions of a row a sound card that does as it is told."""
    given = ", ".join(f"{name}={value}" for name, value in options.items())
    world.file(
        "pyaudio.py",
        "import pathlib, sys\n"
        "from tests.actors.devices.card.fake_pyaudio import DEVICES, FakePyAudio\n"
        f"sys.modules['pyaudio'] = FakePyAudio({given})\n",
    )
    world.patch.setenv("PYTHONPATH", str(world.folder))


_REFUSING = "lambda rate, channels: True"


@row("A machine without sound devices, and a setting that needs one")
def no_card(world: World) -> Outcome:
    _with_card(world, devices=())
    return _fails("microphone", input="default")


@row("A machine without sound devices, and a setting that needs none")
def auto_without_card(world: World) -> Outcome:
    _with_card(world, devices=())
    with Sitting("microphone", input="auto") as sitting:
        sitting.sees("on this machine")
    return Outcome(sitting.text(), None)


@row("Sound devices that this user may not use")
def forbidden_card(world: World) -> Outcome:
    _with_card(world, devices=())
    (world.folder / "pcmC0D0p").touch()
    forbid = (  # root may do everything
        "from actors.devices import errors\n"
        "errors.os.access = lambda *_: False\n"
        "errors._NODES = pathlib.Path.cwd()\n"
    )
    with (world.folder / "pyaudio.py").open("a") as file:
        file.write(forbid)
    return _fails("microphone", input="default")


@row("A microphone that another program uses")
def busy_microphone(world: World) -> Outcome:
    _with_card(world, refuse=_REFUSING, error=(-9985, "Device unavailable"))
    return _fails("microphone", input="default")


@row("A loudspeaker that supports none of our sample rates")
def refused_rate(world: World) -> Outcome:
    _with_card(world, refuse=_REFUSING)
    return _fails("speaker", output="headset")


@row("A sound server that does not answer")
def frozen_server(world: World) -> Outcome:
    _with_card(world, refuse="lambda rate, channels: __import__('time').sleep(3600)")
    with Sitting("microphone", input="default") as sitting:
        sitting.ends_by_itself(after_s=10.0)  # which is how long an opening may take
    return Outcome(sitting.text(), sitting.code)


@row("A name that fits several devices")
def ambiguous_device(world: World) -> Outcome:
    _with_card(world, devices=(("Built-in", 1, 0), ("USB a", 1, 0), ("USB b", 1, 0)))
    with Sitting("microphone", input="usb") as sitting:
        sitting.sees("Several")
    return Outcome(sitting.text(), None)


@row("A microphone that is unplugged")
def unplugged_microphone(world: World) -> Outcome:
    there = world.folder / "plugged"
    there.touch()
    plugged = "pathlib.Path('plugged').exists()"
    devices = f"tuple(one for one in DEVICES if {plugged} or 'USB' not in one[0])"
    _with_card(world, devices=devices, unplugged=f"lambda: not {plugged}")
    with Sitting("microphone", input="headset") as sitting:
        sitting.wait_for(lambda: bool(sitting.of(SessionStarted)))
        there.unlink()
        sitting.sees("in place of")
    return Outcome(sitting.text(), None)


@row("An input file that does not exist")
def no_file(world: World) -> Outcome:
    return _fails("microphone", input="nobody.wav")


@row("An input that is not a WAV file")
def not_wav(world: World) -> Outcome:
    return _fails("microphone", input=world.file("in.wav", b"ID3\x04 and so on"))


@row("PCM without a header (`in.raw`)")
def headerless(world: World) -> Outcome:
    return _fails("microphone", input=world.file("in.raw", bytes(48_000)))


@row("A WAV file that is not PCM")
def not_pcm(world: World) -> Outcome:
    return _fails("microphone", input=wav(world, bytes(100), kind=0x161))


@row("A FLAC file")
def flac(world: World) -> Outcome:
    heard, outcome = hears(_flac(world, 0.5))

    assert abs(max(array("h", heard)) - 8000) < 80
    return outcome


@row("A FLAC file, without the package soundfile")
def flac_without_soundfile(world: World) -> Outcome:
    name = _flac(world, 0.5)
    (world.folder / "away").mkdir()
    (world.folder / "away" / "soundfile.py").write_text("raise ImportError('it is not here')")
    path = [str(world.folder / "away"), os.environ.get("PYTHONPATH", "")]
    world.patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    return _fails("microphone", input=name)


@row("A FLAC file that was cut off")
def flac_cut_off(world: World) -> Outcome:
    name = _flac(world, 4.0)
    world.file(name, Path(name).read_bytes()[: Path(name).stat().st_size // 8])
    heard, outcome = hears(name)

    assert abs(max(array("h", heard)) - 8000) < 80, "what there is, is used"
    return outcome


def _flac(world: World, seconds: float) -> str:
    soundfile = pytest.importorskip("soundfile", reason="NO SOUNDFILE: pip install soundfile")
    samples = array("h", (round(8000 * math.sin(i / 20)) for i in range(int(48_000 * seconds))))
    soundfile.write("in.flac", memoryview(samples), 48_000)
    return "in.flac"


@row("A WAV file with an impossible sample rate")
def rate(world: World) -> Outcome:
    return _fails("microphone", input=wav(world, bytes(100), rate=500_000))


@row("A WAV file of 8 bits")
def eight_bits(world: World) -> Outcome:
    heard, outcome = hears(wav(world, bytes([128 + 64]) * 2400, bits=8))

    assert array("h", heard[:4800]) == array("h", [64 * 256] * 2400)
    return outcome


@row("A WAV file of 44.1 kHz, stereo")
def other_rate(world: World) -> Outcome:
    both = array("h", [1000, 3000] * 4410).tobytes()
    heard, outcome = hears(wav(world, both, channels=2, rate=44_100))

    middle = array("h", heard[1000:3000])
    assert all(abs(sample - 2000) <= 2 for sample in middle), "the mean of both, at 24 kHz"
    assert 2300 <= sum(abs(sample) > 100 for sample in array("h", heard)) <= 2500
    return outcome


@row("A WAV file of two channels, one of them inverted")
def inverted(world: World) -> Outcome:
    both = array("h", [1000, -1000] * 4800).tobytes()
    heard, outcome = hears(wav(world, both, channels=2))

    assert array("h", [1000] * 4800).tobytes() in heard
    return outcome


@row("A WAV file with 24 bits in four bytes each")
def padded(world: World) -> Outcome:
    sound = struct.pack("<i", 0x123456) * 2400
    name = wav(world, sound, bits=24)
    whole = bytearray(Path(name).read_bytes())
    whole[28:34] = struct.pack("<IH", 4 * 24_000, 4)
    heard, outcome = hears(world.file(name, bytes(whole)))

    assert heard.rstrip(b"\0") == array("h", [0x1234] * 2400).tobytes()
    return outcome


@row("A WAV file with no samples and another chunk behind them")
def other_chunk(world: World) -> Outcome:
    return _fails("microphone", input=wav(world, b"LIST\4\0\0\0INFO", promised=0))


@row("A WAV file that was cut off")
def cut_off(world: World) -> Outcome:
    sound = array("h", [500] * 2400).tobytes()
    heard, outcome = hears(wav(world, sound, promised=4 * len(sound)))

    assert sound in heard, "what there is, is used"
    return outcome


@row("A WAV file that ends in the middle of a sample")
def half_a_sample(world: World) -> Outcome:
    sound = array("h", [500] * 2400).tobytes()
    heard, outcome = hears(wav(world, sound + b"\x01", promised=len(sound) + 2))

    assert heard.rstrip(b"\0") == sound, "the half one is no sound"
    return outcome


@row("A WAV file that was written to a pipe, with no lengths in its header")
def no_lengths(world: World) -> Outcome:
    sound = array("h", [500] * 2400).tobytes()
    heard, outcome = hears(wav(world, sound, promised=0xFFFF_FFFF - 36))

    assert heard.rstrip(b"\0") == sound
    return outcome


@row("A WAV file that was cut off in its header")
def broken_header(world: World) -> Outcome:
    wav(world, b"")
    return _fails("microphone", input=world.file("in.wav", Path("in.wav").read_bytes()[:30]))


@row("An empty input file")
def empty(world: World) -> Outcome:
    return _fails("microphone", input=world.file("in.wav", b""))


@row("A WAV file without samples")
def no_samples(world: World) -> Outcome:
    return _fails("microphone", input=wav(world, b""))


@row("A folder as input")
def folder(world: World) -> Outcome:
    (world.folder / "in.wav").mkdir()
    return _fails("microphone", input="in.wav")


@row("A pipe as input")
def pipe(world: World) -> Outcome:
    _make_pipe("in.wav")
    return _fails("microphone", input="in.wav")


def _make_pipe(name: str) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("NO PIPES WITH NAMES ON THIS SYSTEM")
    os.mkfifo(name)


@row("A name that is not a device (`file.py:name`)")
def named(world: World) -> Outcome:
    return _fails("microphone", input=f"{world.file('mine.py', 'telephone = 7')}:telephone")


@row("A device of your own whose file raises")
def named_raises(world: World) -> Outcome:
    return _fails("speaker", output=f"{world.file('mine.py', '1 / 0')}:telephone")


# -- files that are written -------------------------------------------------------------------


@row("A recording in a folder that does not exist")
def no_folder(world: World) -> Outcome:
    return _fails("recorder", recording_path="no/talk.wav")


@row("A recording in a folder that this user may not write")
def not_allowed(world: World) -> Outcome:
    place = Path("/sys")
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        place = world.folder / "locked"
        place.mkdir(mode=0o500)
    elif not place.is_dir():
        pytest.skip("ROOT MAY WRITE EVERYWHERE HERE")
    return _fails("recorder", recording_path=str(place / "talk.wav"))


@row("A folder as recording")
def folder_as_recording(world: World) -> Outcome:
    (world.folder / "talk.wav").mkdir()
    return _fails("recorder", recording_path="talk.wav")


@row("A pipe as recording")
def pipe_as_recording(world: World) -> Outcome:
    _make_pipe("talk.wav")
    return _fails("recorder", recording_path="talk.wav")


@row("A disk that is full from the start")
def full_at_first(world: World) -> Outcome:
    if not Path("/dev/full").exists():
        pytest.skip("NO /dev/full ON THIS SYSTEM")
    Path("talk.wav").symlink_to("/dev/full")
    return _fails("speaker", output="talk.wav")


def _size(name: str) -> int:
    return Path(name).stat().st_size if Path(name).exists() else 0


@row("A disk that becomes full while it records")
def full_later(world: World) -> Outcome:
    parts, listens = ("recorder", "microphone"), (CapturedAudio,)
    settings = {"probes": True, "recording_path": "talk.wav"}
    with Sitting(*parts, listens=listens, **settings) as sitting:
        sitting.wait_for(lambda: _size("talk.wav") > 50)
        sitting.supervisor.send(Inject("recorder", "disk-full"))
        sitting.sees("has a hole")
    assert sitting.code == 0
    with wave.open("talk.wav") as file:
        assert file.getnframes() > 0, "what was written before is there"
    return Outcome(sitting.text(), None)


@row("A disk that is full when an image is shown")
def full_with_an_image(world: World) -> Outcome:
    with FakeServer() as server, Sitting("realtime", probes=True, server=server.url) as sitting:
        sitting.wait_for(lambda: len(sitting.of(SessionStarted)) == 1)
        sitting.supervisor.send(Inject("realtime", "disk-full"))
        sitting.supervisor.send(SendImage(b"image", "image/png", "Look!", "image-1"))
        sitting.sees("image was not sent")
    assert sitting.code == 0
    return Outcome(sitting.text(), None)


@row("A disk that becomes full while the output is written to a file")
def full_output(world: World) -> Outcome:
    settings = {"probes": True, "output": "reply.wav"}
    sound = array("h", [500] * 24_000).tobytes()
    with Sitting("speaker", listens=(PlayedAudio, PlaybackEnded), **settings) as sitting:
        sitting.wait_for(lambda: len(sitting.of(SessionStarted)) == 1)
        send = sitting.supervisor.send
        send(AssistantAudio(sound, "a", "r", 0))
        sitting.wait_for(lambda: _size("reply.wav") > 20_000)
        send(Inject("speaker", "disk-full"))
        sitting.sees("is not written")
        send(Inject("speaker", "disk-free"))
        send(AssistantAudio(sound, "a", "r", 24_000, last=True))
        sitting.wait_for(lambda: len(sitting.of(PlaybackEnded)) == 1)
    assert sitting.code == 0
    with wave.open("reply.wav") as file:
        frames = array("h", file.readframes(file.getnframes()))
    first, *_, last = sitting.of(PlayedAudio)
    # 20 ms from before the disk was full, and 20 ms from when it was not any more: a report on a
    # busy machine may reach into what came in between.
    end = last.first_sample + len(last.pcm) // 2
    assert frames[first.first_sample :][:480].tobytes() == first.pcm[:960]
    whole = min(480, len(last.pcm) // 2)  # the last report may be a short one
    assert frames[end - whole : end].tobytes() == last.pcm[-2 * whole :]
    assert frames.count(500) < 48_000, "and what came in between is not there"
    return Outcome(sitting.text(), None)


@row("Two sessions that record into one file")
def two_recordings(world: World) -> Outcome:
    path = "talk.wav"
    parts = ("recorder", "microphone")
    with Sitting(*parts, listens=(CapturedAudio,), recording_path=path) as first:
        first.wait_for(lambda: _size(path) > 50)

        outcome = _fails("recorder", recording_path=path)

        size = _size(path)
        first.wait_for(lambda: _size(path) > size)
    assert first.of(SessionEnded)[0].files == (path,)
    return outcome


@row("A journal at an impossible path")
def no_journal(world: World) -> Outcome:
    world.file("file", "not a folder")
    return _fails("history", journal_path="file/talk.journal")


@row("A journal of another session")
def other_journal(world: World) -> Outcome:
    world.file("talk.journal", "precious\n")
    with Sitting("history", journal_path="talk.journal") as sitting:
        sitting.sees("kept as")
    assert Path("talk.journal.1").read_text(encoding="utf-8") == "precious\n"
    assert sitting.code == 0
    return Outcome(sitting.text().replace("[written: talk.journal]\n", ""), None)


@row("Two sessions that keep one journal")
def two_journals(world: World) -> Outcome:
    with Sitting("history", journal_path="talk.journal") as first:
        first.wait_for(lambda: Path("talk.journal").exists())
        return _fails("history", journal_path="talk.journal")


@row("A journal that is damaged, and history is killed")
def damaged_journal(world: World) -> Outcome:
    with FakeServer() as server:
        settings = {"server": server.url, "journal_path": "talk.journal", "probes": True}
        with Sitting("history", "realtime", "tools", listens=(Turn,), **settings) as sitting:
            server.connection().say("Before.", b"", item="item_1")
            sitting.wait_for(lambda: len(sitting.of(Turn)) == 1)
            with Path("talk.journal").open("r+b") as file:
                whole = file.read()
                file.seek(whole.index(b"\n") + 5)  # in the first line after the heading
                file.write(b"#")
            sitting.supervisor.send(Inject("history", "SIGKILL"))
            sitting.wait_for(lambda: len(sitting.of(ComponentRestarted)) == 1)
            sitting.sees("damaged")
    assert sitting.code == 0
    return Outcome(sitting.text(), None)


@row("A journal that cannot be written any more")
def journal_full(world: World) -> Outcome:
    with FakeServer() as server:
        settings = {"server": server.url, "journal_path": "talk.journal", "probes": True}
        with Sitting("history", "realtime", "tools", listens=(Turn,), **settings) as sitting:
            connection = server.connection()
            sitting.supervisor.send(Inject("history", "disk-full"))
            connection.say("And now?", b"", item="item_1")
            sitting.sees("cannot be written any more")
            sitting.wait_for(lambda: len(sitting.of(Turn)) == 1)
    assert sitting.code == 0
    return Outcome(sitting.text(), None)
