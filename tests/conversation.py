"""A running conversation: a real session in its processes, and a server that a test commands."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from unittest import mock

from messages import (
    ComponentRestarted,
    Event,
    Message,
    ProgramCapture,
    ProgramPlayout,
    SendText,
    Turn,
)
from supervisor import Session
from tests.fake_server import Connection, FakeServer
from tests.rig import TIMEOUT_S

M = TypeVar("M", bound=Message)
BLOCK = 960
"""Samples in 40 ms."""


def noise(ms: int, seed: int) -> bytes:
    """Return PCM that occurs nowhere else: a mark to look for."""
    chosen = random.Random(seed)
    return b"".join(
        chosen.randrange(-8000, 8000).to_bytes(2, "little", signed=True) for _ in range(24 * ms)
    )


class Conversation:
    """Six processes that talk with a `FakeServer`; the test is microphone and loudspeaker.

    It collects all domain events, what the loudspeaker is given, and ``more``.
    """

    def __init__(self, server: FakeServer, *more: type[Message], **settings: Any) -> None:
        self.server = server
        self.held_up_s = 0.0
        """How much longer than it should `speak` has waited at most, the last time."""
        self.messages: list[Message] = []
        defaults = {
            "server": server.url,
            "input": "program",
            "output": "program",
            "hang_s": 0.5,
            "probes": True,
            "transcription_model": "gpt-transcribe",
            "inactivity_timeout_s": None,
        }
        self.session = Session(**{**defaults, **settings})
        self._news = threading.Condition()
        self._stream = self.session.events(Event, ProgramPlayout, *more)

    def __enter__(self) -> Conversation:
        _start(self.session)
        threading.Thread(target=self._collect, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.session.__exit__(kind, error, trace)

    @property
    def connection(self) -> Connection:
        """The connection that realtime has now."""
        return self.server.connection(max(0, len(self.server.connections) - 1))

    def of(self, kind: type[M]) -> list[M]:
        """Return the messages of this type so far."""
        return [message for message in self.messages if isinstance(message, kind)]

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
        """Wait until the condition holds; looked at with each message."""
        with self._news:
            if not self._news.wait_for(condition, timeout_s):
                told = [m for m in self.messages if not isinstance(m, ProgramPlayout)]
                raise AssertionError(f"it never came true; the last messages: {told[-10:]}")

    def expect(self, kind: type[M], where: Callable[[M], bool] = lambda _: True) -> M:
        """Return the first message of this type that fits; waits for it."""
        self.wait_for(lambda: any(where(message) for message in self.of(kind)))
        return next(message for message in self.of(kind) if where(message))

    def pids(self) -> dict[str, int]:
        """Return the process id of each component now."""
        return {name: entry["pid"] for name, entry in self.session.status().items()}

    def break_it(self, component: str, fault: str) -> ComponentRestarted:
        """Break a component, and return how it came back."""
        before = len(self._restarts(component))
        others = {name: pid for name, pid in self.pids().items() if name != component}
        self.session.inject(component, fault)
        self.wait_for(lambda: len(self._restarts(component)) > before)
        now = self.pids()
        assert {name: now[name] for name in others} == others, "another component restarted too"
        return self._restarts(component)[-1]

    def speak(self, pcm: bytes) -> None:
        """Be the microphone: give it sound, in real time, and the silence after it."""
        pcm += bytes(-len(pcm) % (2 * BLOCK) + 4 * BLOCK)
        piece = 2 * 10 * BLOCK  # so that a busy machine makes no pause in the middle of a mark
        self.held_up_s = 0.0
        for start in range(0, len(pcm), piece):
            part = pcm[start : start + piece]
            self.session.send(ProgramCapture(part, 24_000, time.monotonic_ns()))
            due = time.monotonic() + len(part) / 48_000
            time.sleep(len(part) / 48_000)  # the pace of a device, not a wait
            self.held_up_s = max(self.held_up_s, time.monotonic() - due)

    def played(self) -> bytes:
        """Return everything that the loudspeaker was given."""
        return b"".join(chunk.pcm for chunk in self.of(ProgramPlayout))

    def _restarts(self, component: str) -> list[ComponentRestarted]:
        return [told for told in self.of(ComponentRestarted) if told.component == component]

    def _collect(self) -> None:
        for message in self._stream:
            with self._news:
                self.messages.append(message)
                self._news.notify_all()


def _start(session: Session) -> None:
    try:
        session.start()
    except BaseException:  # a time limit, say: nobody leaves what was never entered
        session.kill()
        raise


DEAF = {"RTVOICE_SANDBOX_LISTEN": "none"}
"""For a sandbox that nobody speaks to: its recogniser costs as much CPU as four components."""


class Typed:
    """A conversation with the sandbox by text, and all that was told of it."""

    def __init__(self) -> None:
        quiet = {"input": "silence", "output": "null", "inactivity_timeout_s": None}
        self.session = Session(server="sandbox", probes=True, **quiet)  # type: ignore[arg-type]
        self.told: list[Message] = []
        self._news = threading.Condition()

    def __enter__(self) -> Typed:
        stream = self.session.events(Event)
        with mock.patch.dict(os.environ, DEAF):
            _start(self.session)

        def collect() -> None:
            for message in stream:
                with self._news:
                    self.told.append(message)
                    self._news.notify_all()

        threading.Thread(target=collect, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.session.stop()

    def ask(self, item_id: str) -> None:
        """Ask for the time, and wait for the question and an answer behind it."""

        def answered() -> bool:
            turns = [told for told in self.told if isinstance(told, Turn)]
            places = [place for place, turn in enumerate(turns) if turn.item_id == item_id]
            return bool(places) and any(t.role == "assistant" for t in turns[places[0] + 1 :])

        self.session.send(SendText("what time is it", item_id))
        with self._news:
            assert self._news.wait_for(answered, 2 * TIMEOUT_S), (item_id, self.told[-10:])


def wav_channels(path: Path) -> tuple[bytes, bytes]:
    """Return left and right of a stereo recording."""
    import wave
    from array import array

    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 24_000)
        samples = array("h", file.readframes(file.getnframes()))
    return samples[0::2].tobytes(), samples[1::2].tobytes()
