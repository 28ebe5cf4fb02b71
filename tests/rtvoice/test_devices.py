"""The devices of users in the documents, in whole conversations."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from messages import (
    ComponentRestarted,
    DeviceFailed,
    Interrupt,
    PlaybackEnded,
    PlayedPosition,
    SetVolume,
)
from rtvoice.audio import devices as front
from rtvoice.audio.devices import AudioInputDevice, AudioOutputDevice
from supervisor import Session, SessionFailedError
from tests.conversation import noise
from tests.fake_server import FakeServer
from tests.rig import TIMEOUT_S, until

pytestmark = pytest.mark.usefixtures("on_threads")


# -- as the documents write them --------------------------------------------------------------


class CustomMicrophone(AudioInputDevice):
    """As it is printed; ``read_audio`` is the reader's."""

    async def start(self) -> None:
        # Initialize your audio source
        pass

    async def stop(self) -> None:
        # Cleanup
        pass

    async def stream_chunks(self) -> AsyncIterator[bytes]:
        while self.is_active:
            chunk = await self.read_audio()  # Your implementation
            yield chunk

    @property
    def is_active(self) -> bool:
        return self._active


class CustomSpeaker(AudioOutputDevice):
    """As it is printed."""

    async def start(self) -> None:
        # Initialize audio output
        pass

    async def stop(self) -> None:
        # Cleanup
        pass

    async def play_chunk(self, chunk: bytes) -> None:
        # Play audio chunk
        pass

    async def clear_buffer(self) -> None:
        # Clear any queued audio
        pass


class Talk(CustomMicrophone):
    """Says what it is told to."""

    def __init__(self) -> None:
        self.words: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    async def read_audio(self) -> bytes:
        while self.words.empty():  # noqa: ASYNC110 - a thread fills it
            await asyncio.sleep(0.005)
        return self.words.get()


class Ear(CustomSpeaker):
    """Remembers what it is given."""

    def __init__(self) -> None:
        self.heard = b""
        self.calls: list[str] = []
        self.news = threading.Condition()

    async def start(self) -> None:
        self.note("start")

    async def stop(self) -> None:
        self.note("stop")

    async def play_chunk(self, chunk: bytes) -> None:
        with self.news:
            self.heard += chunk
        self.note("play_chunk")

    async def clear_buffer(self) -> None:
        self.note("clear_buffer")

    def note(self, call: str) -> None:
        with self.news:
            self.calls.append(call)
            self.news.notify_all()

    def wait_for(self, condition: object) -> None:
        with self.news:
            assert self.news.wait_for(condition, TIMEOUT_S), self.calls  # type: ignore[arg-type]


def conversation(
    server: FakeServer, microphone: object = None, speaker: object = None, **settings: object
) -> Session:
    defaults: dict[str, object] = {"inactivity_timeout_s": None}
    if microphone is None:
        defaults["input"] = "silence"
    if speaker is None:
        defaults["output"] = "null"
    return Session(
        server=server.url,
        input_device=microphone,  # type: ignore[arg-type]
        output_device=speaker,  # type: ignore[arg-type]
        **{**defaults, **settings},
    )


def test_the_devices_of_the_documents_are_made_as_printed() -> None:
    assert isinstance(CustomMicrophone(), AudioInputDevice)
    assert isinstance(CustomSpeaker(), AudioOutputDevice)
    assert front.__all__ == ["AudioInputDevice", "AudioOutputDevice"]


class Unsaid(AudioInputDevice):
    """A device that does not say whether it is active."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def stream_chunks(self) -> AsyncIterator[bytes]:
        while self.is_active:
            yield noise(40, seed=1)
            await asyncio.sleep(0.02)


def test_a_device_need_not_say_whether_it_is_active(server: FakeServer) -> None:
    microphone = Unsaid()
    assert not microphone.is_active

    with conversation(server, microphone):
        server.wait_for(lambda: noise(40, seed=1) in server.connection().audio)
        assert microphone.is_active

    assert not microphone.is_active


@pytest.mark.processes
def test_the_devices_of_the_documents_talk(server: FakeServer) -> None:
    voice, answer = noise(300, seed=1), noise(300, seed=2)
    microphone, ear = Talk(), Ear()

    with conversation(server, microphone, ear):
        for start in range(0, len(voice), 333):  # in the middle of samples
            microphone.words.put(voice[start : start + 333])
        server.connection().say("Hi.", answer, item="item_1")
        server.wait_for(lambda: voice in server.connection().audio)
        ear.wait_for(lambda: answer in ear.heard)
        assert microphone.is_active

    assert not microphone.is_active
    assert ear.calls[0] == "start"
    assert ear.calls[-1] == "stop"


@pytest.mark.processes("microphone", "speaker")
@pytest.mark.parametrize("component", ["microphone", "speaker"])
def test_a_killed_component_works_again_with_devices_of_the_program(
    server: FakeServer, component: str
) -> None:
    microphone, ear = Talk(), Ear()

    with conversation(server, microphone, ear) as session:
        events = session.events(ComponentRestarted)
        microphone.words.put(noise(100, seed=3))
        server.connection().say("One.", noise(200, seed=4), item="item_1")
        ear.wait_for(lambda: noise(200, seed=4) in ear.heard)
        os.kill(session.status()[component]["pid"], signal.SIGKILL)
        microphone.words.put(noise(200, seed=5))  # while it is down
        assert events.get(TIMEOUT_S) is not None
        microphone.words.put(noise(200, seed=6))
        server.connection().say("Two.", noise(200, seed=7), item="item_2")

        for seed in (5, 6):
            server.wait_for(lambda seed=seed: noise(200, seed=seed) in server.connection().audio)
        ear.wait_for(lambda: noise(200, seed=7) in ear.heard)

    assert ear.calls.count("start") == 1


def test_an_interruption_clears_the_buffer_and_what_follows_is_heard(server: FakeServer) -> None:
    ear = Ear()

    with conversation(server, None, ear) as session:
        server.connection().say("Long.", noise(5_000, seed=1), item="item_1", done=False)
        ear.wait_for(lambda: len(ear.heard) > 4_800)
        session.send(Interrupt())
        ear.wait_for(lambda: "clear_buffer" in ear.calls)
        server.connection().finish("Long.", item="item_1")
        server.connection().say("Short.", noise(200, seed=2), item="item_2")
        ear.wait_for(lambda: noise(200, seed=2) in ear.heard)

    assert len(ear.heard) < 48 * 4_000


# -- rates, volume, positions -----------------------------------------------------------------


def test_an_output_of_another_rate_is_given_that_rate(server: FakeServer) -> None:
    class Telephone(Ear):
        sample_rate = 8000

    ear = Telephone()
    with conversation(server, None, ear) as session:
        ended = session.events(PlaybackEnded)
        server.connection().say("Hi.", noise(600, seed=1), item="item_1")
        assert ended.get(TIMEOUT_S) == PlaybackEnded("item_1", 600)

    assert len(ear.heard) == pytest.approx(16 * 600, rel=0.02)


def test_a_rate_that_cannot_be_is_refused_at_the_start(server: FakeServer) -> None:
    class Odd(Ear):
        sample_rate = 12

    with pytest.raises(SessionFailedError, match=r"speaker cannot start: .*12 Hz"):
        conversation(server, None, Odd()).start()


@pytest.mark.processes("speaker")
def test_a_device_that_scales_gets_the_volume_and_unscaled_audio(server: FakeServer) -> None:
    class Scaling(Ear):
        def __init__(self) -> None:
            super().__init__()
            self.volumes: list[float] = []

        async def set_volume(self, level: float) -> None:
            self.volumes.append(level)
            self.note("set_volume")

    ear, answer = Scaling(), noise(200, seed=1)
    with conversation(server, None, ear, volume=0.5) as session:
        restarted = session.events(ComponentRestarted)
        ear.wait_for(lambda: ear.volumes == [0.5])
        session.send(SetVolume(0.25))
        ear.wait_for(lambda: ear.volumes == [0.5, 0.25])
        os.kill(session.status()["speaker"]["pid"], signal.SIGKILL)
        assert restarted.get(TIMEOUT_S) is not None
        ear.wait_for(lambda: ear.volumes[-1] == 0.25)
        server.connection().say("Hi.", answer, item="item_1")

        ear.wait_for(lambda: answer in ear.heard)


def test_the_end_is_not_reported_while_the_device_plays(server: FakeServer) -> None:
    class Slow(Ear):
        def __init__(self) -> None:
            super().__init__()
            self.done = threading.Event()

        @property
        def is_playing(self) -> bool:
            return bool(self.heard) and not self.done.is_set()

    ear = Slow()
    with conversation(server, None, ear) as session:
        ended = session.events(PlaybackEnded)
        # Long enough for the speaker to be told in time that it plays, also on a busy machine.
        server.connection().say("Hi.", noise(1_500, seed=1), item="item_1")
        ear.wait_for(lambda: len(ear.heard) == 48 * 1_500)
        with pytest.raises(TimeoutError):
            ended.get(0.5)  # its clock is 0.2 s behind at most
        ear.done.set()

        assert ended.get(TIMEOUT_S) == PlaybackEnded("item_1", 1_500)


def test_the_position_of_the_device_is_what_was_heard(server: FakeServer) -> None:
    class Late(Ear):
        """A device that plays a quarter of what it is given."""

        @property
        def played_ms(self) -> float:
            return len(self.heard) / 48 / 4

    ear = Late()
    with conversation(server, None, ear) as session:
        positions = session.events(PlayedPosition)
        server.connection().say("Hi.", noise(2_000, seed=1), item="item_1", done=False)
        while (told := positions.get(TIMEOUT_S)) and (
            told.played_samples < 24 * 200 or ear.played_ms < 200
        ):
            pass  # the position may be the clock's until the device has reported one
        session.send(Interrupt())
        truncation = server.connection().expect("conversation.item.truncate")

    assert 200 <= truncation["audio_end_ms"] <= ear.played_ms


# -- devices that are slow, fast, blocking ----------------------------------------------------


def test_a_device_that_blocks_blocks_nobody(server: FakeServer) -> None:
    beat = threading.Event()

    def block() -> None:
        """Return when the loop has gone on meanwhile."""
        beat.clear()
        assert beat.wait(TIMEOUT_S), "the loop waits for the device"

    class Blocking(Ear):
        def play_chunk(self, chunk: bytes) -> None:  # type: ignore[override]
            time.sleep(len(chunk) / 48_000)  # as a sound card does
            block()
            with self.news:
                self.heard += chunk
            self.note("play_chunk")

        def clear_buffer(self) -> None:  # type: ignore[override]
            self.note("clear_buffer")

    class Line(AudioInputDevice):
        def __init__(self) -> None:
            self.words: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

        def start(self) -> None:  # type: ignore[override]
            block()

        def stop(self) -> None:  # type: ignore[override]
            self.words.put(None)

        def stream_chunks(self) -> Iterator[bytes]:  # type: ignore[override]
            while (chunk := self.words.get()) is not None:
                block()
                yield chunk

        is_active = True  # type: ignore[assignment]

    async def heartbeat() -> None:
        while True:
            await asyncio.sleep(0.01)
            beat.set()

    async def talk() -> None:
        ear, line = Blocking(), Line()
        beating = asyncio.create_task(heartbeat())
        async with conversation(server, line, ear):
            line.words.put(noise(200, seed=1))
            server.connection().say("Hi.", noise(600, seed=2), item="item_1")
            await asyncio.to_thread(ear.wait_for, lambda: noise(600, seed=2) in ear.heard)
            await asyncio.to_thread(
                server.wait_for, lambda: noise(200, seed=1) in server.connection().audio
            )
        beating.cancel()

    asyncio.run(talk())


def test_a_source_faster_than_real_time_is_made_to_wait_and_nothing_is_lost(
    server: FakeServer,
) -> None:
    speech = noise(3_000, seed=1)
    ahead_s: list[float] = []

    class File(CustomMicrophone):
        async def stream_chunks(self) -> AsyncIterator[bytes]:
            began_s = time.monotonic()
            for start in range(0, len(speech), 4_801):
                ahead_s.append(start / 48_000 - (time.monotonic() - began_s))
                yield speech[start : start + 4_801]

    with conversation(server, File()):
        server.wait_for(lambda: speech in server.connection().audio)
    assert max(ahead_s) < 1


# -- devices that fail ------------------------------------------------------------------------


def failing(operation: str, times: int = 1) -> tuple[Talk, Ear]:
    """Return devices of which one raises in a method, so many times."""
    left = [times]

    def fail() -> None:
        if left[0]:
            left[0] -= 1
            raise ValueError(f"broken {operation}")

    class Microphone(Talk):
        async def start(self) -> None:
            if operation == "microphone start":
                fail()

        async def read_audio(self) -> bytes:
            chunk = await super().read_audio()
            if operation == "microphone stream_chunks":
                fail()
            return chunk

    class Speaker(Ear):
        async def start(self) -> None:
            if operation == "speaker start":
                fail()
            await super().start()

        async def play_chunk(self, chunk: bytes) -> None:
            if operation == "speaker play_chunk":
                fail()
            await super().play_chunk(chunk)

        async def clear_buffer(self) -> None:
            await super().clear_buffer()
            if operation == "speaker clear_buffer":
                fail()

    return Microphone(), Speaker()


@pytest.mark.parametrize(
    "operation",
    [
        "microphone start",
        "microphone stream_chunks",
        "speaker start",
        "speaker play_chunk",
        "speaker clear_buffer",
    ],
)
def test_a_device_that_raises_is_reported_and_works_again(
    server: FakeServer, operation: str
) -> None:
    microphone, ear = failing(operation)
    component, _, method = operation.partition(" ")

    with conversation(server, microphone, ear) as session:
        failures = session.events(DeviceFailed)
        microphone.words.put(noise(40, seed=1))
        server.connection().say("One.", noise(500, seed=2), item="item_1")
        if method == "clear_buffer":
            ear.wait_for(lambda: ear.heard)
            session.send(Interrupt())
        failure = None if method == "start" else failures.get(TIMEOUT_S)
        microphone.words.put(noise(200, seed=3))
        server.wait_for(lambda: noise(200, seed=3) in server.connection().audio)
        ear.wait_for(lambda: "start" in ear.calls[1:] or component == "microphone" or ear.heard)
        time.sleep(0.6)  # what was handed over while it was down
        server.connection().say("Two.", noise(200, seed=4), item="item_2")
        ear.wait_for(lambda: noise(200, seed=4) in ear.heard)

    if failure is not None:
        assert failure == DeviceFailed(component, method, f"ValueError: broken {operation}", 0.5)


def test_the_failure_of_the_first_start_is_reported(server: FakeServer) -> None:
    microphone, _ = failing("microphone start", times=3)
    session = conversation(server, microphone)
    events = session.events(DeviceFailed)

    with session:
        first, second = events.get(TIMEOUT_S), events.get(TIMEOUT_S)

    assert isinstance(first, DeviceFailed)
    assert isinstance(second, DeviceFailed)
    assert (first.operation, first.error) == ("start", "ValueError: broken microphone start")
    assert (first.retry_s, second.retry_s) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("chunk", "words"),
    [
        ("text", "it yielded a value of type str; yield bytes of 16-bit PCM"),
        (None, "it yielded None; yield bytes"),
        (1.5, "it yielded a value of type float"),
    ],
)
def test_an_invalid_chunk_is_refused_with_a_sentence(
    server: FakeServer, chunk: object, words: str
) -> None:
    microphone = Talk()
    session = conversation(server, microphone)
    events = session.events(DeviceFailed)

    with session:
        microphone.words.put(chunk)  # type: ignore[arg-type]
        failure = events.get(TIMEOUT_S)
        microphone.words.put(noise(100, seed=1))
        server.wait_for(lambda: noise(100, seed=1) in server.connection().audio)

    assert isinstance(failure, DeviceFailed)
    assert words in failure.error


@pytest.mark.parametrize("given", [CustomMicrophone, object(), "x" * 3])
def test_what_is_no_device_is_refused_before_anything_starts(given: object) -> None:
    with pytest.raises(TypeError, match=r"the input device: "):
        Session(input_device=given)  # type: ignore[arg-type]


# -- by name ----------------------------------------------------------------------------------

NAMED = """
import os, time
from pathlib import Path
from rtvoice.audio.devices import AudioInputDevice, AudioOutputDevice
from tests.conversation import noise

HERE = Path(__file__).parent

class Microphone(AudioInputDevice):
    async def start(self):
        (HERE / "microphone.pid").write_text(str(os.getpid()))

    async def stop(self):
        pass

    async def stream_chunks(self):
        yield noise(200, seed=1)
        while self.is_active:
            for path in HERE.glob("*.say"):
                seed = int(path.stem)
                path.unlink()
                yield noise(200, seed=seed)
            if (HERE / "raise").exists():
                (HERE / "raise").unlink()
                raise OSError("the line is dead")
            import asyncio
            await asyncio.sleep(0.01)

    @property
    def is_active(self):
        return self._active

def make_speaker():
    return Speaker(HERE / "heard.pcm")

class Speaker(AudioOutputDevice):
    def __init__(self, path):
        self.path = path

    def start(self):
        (HERE / "speaker.pid").write_text(str(os.getpid()))

    def stop(self):
        pass

    def play_chunk(self, chunk):
        with open(self.path, "ab") as file:
            file.write(chunk)

    def clear_buffer(self):
        (HERE / "cleared").touch()

class Refusing(Microphone):
    async def start(self):
        raise PermissionError("the microphone is not yours")

class Unmakeable(Microphone):
    def __init__(self, line):
        pass
"""


@pytest.fixture
def named(tmp_path: Path) -> str:
    path = tmp_path / "my_line.py"
    path.write_text(NAMED)
    return str(path)


@pytest.mark.processes("microphone", "speaker")
def test_devices_given_by_name_run_in_the_children(server: FakeServer, named: str) -> None:
    folder = Path(named).parent
    settings = {"input": f"{named}:Microphone", "output": f"{named}:make_speaker"}

    with Session(server=server.url, inactivity_timeout_s=None, **settings) as session:
        pids = {name: entry["pid"] for name, entry in session.status().items()}
        server.wait_for(lambda: noise(200, seed=1) in server.connection().audio)
        server.connection().say("Hi.", noise(300, seed=2), item="item_1")
        heard = folder / "heard.pcm"
        until(
            lambda: heard.exists() and noise(300, seed=2) in heard.read_bytes(), "it is not heard"
        )
        server.connection().say("Long.", noise(3_000, seed=3), item="item_2", done=False)
        until(lambda: len(heard.read_bytes()) > 48 * 500, "it is not heard for long")
        session.send(Interrupt())
        until((folder / "cleared").exists, "it is not cleared")

    assert int((folder / "microphone.pid").read_text()) == pids["microphone"]
    assert int((folder / "speaker.pid").read_text()) == pids["speaker"]


@pytest.mark.processes("microphone")
@pytest.mark.parametrize("fault", ["raise", "kill"])
def test_a_device_given_by_name_comes_back(server: FakeServer, named: str, fault: str) -> None:
    folder = Path(named).parent

    with Session(
        server=server.url, inactivity_timeout_s=None, input=f"{named}:Microphone", output="null"
    ) as session:
        events = session.events(ComponentRestarted)
        server.wait_for(lambda: noise(200, seed=1) in server.connection().audio)
        if fault == "raise":
            (folder / "raise").touch()
        else:
            os.kill(session.status()["microphone"]["pid"], signal.SIGKILL)
        restarted = events.get(TIMEOUT_S)
        (folder / "5.say").touch()
        server.wait_for(lambda: noise(200, seed=5) in server.connection().audio)

    assert isinstance(restarted, ComponentRestarted)
    assert restarted.component == "microphone"
    if fault == "raise":
        assert "failed in stream_chunks: OSError: the line is dead" in restarted.cause


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        ("Refusing", r"failed in start: PermissionError: the microphone is not yours"),
        ("Unmakeable", r"making it failed: TypeError: .*missing 1 required positional .*'line'"),
        ("Nobody", r"has no 'Nobody'"),
        ("noise", r"making it failed: TypeError"),
    ],
)
def test_a_device_by_name_that_does_not_start_is_reported_with_its_cause(
    server: FakeServer, named: str, attribute: str, words: str
) -> None:
    with pytest.raises(SessionFailedError, match=rf"microphone cannot start: .*{words}"):
        Session(server=server.url, input=f"{named}:{attribute}", output="null").start()
