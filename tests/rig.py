"""A rig for one actor: the real host and Pykka thread, with the test in the hub's place."""

from __future__ import annotations

import collections
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from actors.base import Actor
from actors.host import Host
from messages import (
    AssistantTranscript,
    Crashed,
    Hello,
    Init,
    Log,
    Message,
    Open,
    PlayedAudio,
    Ready,
    Room,
    Save,
    SessionInfo,
    Settings,
    Stop,
    decode,
)
from messages.transport.channel import Channel
from messages.transport.page import HELD, MAIL, Page
from messages.transport.saved import read_state, remove_state

M = TypeVar("M", bound=Message)
TIMEOUT_S = 10.0 * float(os.environ.get("RTVOICE_TEST_TIME_FACTOR", "1"))
QUIET: dict[str, Any] = {"input": "silence", "output": "null", "inactivity_timeout_s": None}
"""Settings of a session without sound devices and without an end of its own."""


class Rig:
    """Runs an actor class in this process, on its real host, over a real channel.

    Use as a context manager. ``tell`` sends, ``expect`` waits for a message of a type and returns
    it (messages of other types stay queued); ``state`` is what the actor saved last.
    """

    probes = True
    """Whether the actor takes faults."""

    def __init__(self, kind: type[Actor], tmp_path: Path, **settings: object) -> None:
        ours, theirs = socket.socketpair()
        self.kind = kind
        self.settings = Settings(**settings)  # type: ignore[arg-type]
        self.session = SessionInfo(epoch_ns=time.monotonic_ns(), directory=str(tmp_path))
        self.channel = Channel(ours)
        self.page_path = tmp_path / f"page-{kind.__name__}-{next(_numbers)}"
        self.slot = Page(self.page_path, create=True).slot(0)
        self.host = Host(Channel(theirs))
        self.exit_code: int | None = None
        self.sent_state: bytes | None = None
        """The state that the supervisor was sent last."""
        self.received: list[type[Message]] = []
        """The types of all messages that the supervisor was sent, in order."""
        self.wanted: tuple[int, ...] = (PlayedAudio.tag(), AssistantTranscript.tag())
        """Tags of what is sent on demand only and somebody wants."""
        self.logs: list[Log] = []
        self.incarnation = 0
        self._queue: collections.deque[Message] = collections.deque()
        self._news = threading.Condition()
        self._ended = False

    def __enter__(self) -> Rig:
        threading.Thread(target=self._run_host, daemon=True).start()
        threading.Thread(target=self._read, daemon=True).start()
        target = f"{self.kind.__module__}:{self.kind.__qualname__}"
        self.channel.write(
            Init(
                self.kind.__name__.lower(),
                target,
                str(self.page_path),
                0,
                self.settings.agent,
                log_level="DEBUG",
                probes=self.probes,
            )
        )
        try:
            self.hello = self.expect(Hello)
            return self.open()
        except BaseException:
            self.channel.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.channel.close()

    def open(self, *, wait: bool = True) -> Rig:
        """Start the next incarnation."""
        self.incarnation += 1
        self.slot.clear()
        encode = msgspec.msgpack.encode
        self.channel.write(
            Open(
                self.incarnation,
                msgspec.Raw(encode(self.settings)),
                msgspec.Raw(encode(self.session)),
                self.state,
                self.incarnation > 1,
                self.wanted,
            ),
            self.incarnation & 255,
        )
        if wait:
            self.expect(Ready)
        return self

    def tell(self, message: Message) -> None:
        """Send a message to the actor."""
        self.channel.write(message, self.incarnation & 255)

    def expect(
        self,
        kind: type[M],
        where: Callable[[M], bool] = lambda _: True,
        timeout_s: float = TIMEOUT_S,
    ) -> M:
        """Return the next message of this type that fits; others before it stay queued."""
        found: list[M] = []

        def look() -> bool:
            for message in self._queue:
                if isinstance(message, kind) and where(message):
                    self._queue.remove(message)
                    found.append(message)
                    return True
            return self._ended

        with self._news:
            self._news.wait_for(look, timeout_s)
            if not found:
                raise AssertionError(f"no {kind.__name__} came; there are {list(self._queue)[:20]}")
        return found[0]

    def take(self, kind: type[M]) -> list[M]:
        """Return and remove all messages of this type that are there already."""
        with self._news:
            taken = [message for message in self._queue if isinstance(message, kind)]
            for message in taken:
                self._queue.remove(message)
        return taken

    def wait_handled(self, mail: int = 0, held: int = 0) -> None:
        """Wait until this incarnation has handled so many messages."""
        end = time.monotonic() + TIMEOUT_S
        while self.slot.handled(MAIL) < mail or self.slot.handled(HELD) < held:
            if time.monotonic() > end:
                raise AssertionError(
                    f"handled {self.slot.handled(MAIL)}, {self.slot.handled(HELD)}"
                )
            threading.Event().wait(0.002)

    @property
    def state(self) -> bytes | None:
        """What was saved last, as the supervisor knows it."""
        return read_state(self.session.directory, self.kind.__name__.lower()) or self.sent_state

    @state.setter
    def state(self, state: bytes | None) -> None:
        remove_state(self.session.directory, self.kind.__name__.lower())
        self.sent_state = state

    def wait_state(self, fits: Callable[[bytes], bool]) -> bytes:
        """Wait until the state saved last fits, and return it."""
        end = time.monotonic() + TIMEOUT_S
        while (state := self.state) is None or not fits(state):
            if time.monotonic() > end:
                raise AssertionError(f"the state saved last is {state!r}")
            threading.Event().wait(0.002)
        return state

    def restart(self) -> Rig:
        """After a `Crashed`: open again in the same process, with the state saved last."""
        self.expect(Crashed)
        return self.open()

    def stop(self) -> None:
        """Stop the actor in order and wait for its host to end."""
        try:
            self.channel.write(Stop("test over"), self.incarnation & 255)
        except OSError:
            return
        with self._news:
            self._news.wait_for(lambda: self.exit_code is not None and self._ended, TIMEOUT_S)

    def _run_host(self) -> None:
        code = self.host.run()
        with self._news:
            self.exit_code = code
            self._news.notify_all()
        self.host.close()

    def _read(self) -> None:
        try:
            while True:
                self._take(decode(self.channel.read()))
        except (EOFError, OSError):
            with self._news:
                self._ended = True
                self._news.notify_all()

    def _take(self, message: Message) -> None:
        with self._news:
            self.received.append(type(message))
            if isinstance(message, Save):
                self.sent_state = message.state
            elif isinstance(message, Log):
                self.logs.append(message)
            elif not isinstance(message, Room):
                self._queue.append(message)
            self._news.notify_all()


_numbers = itertools.count()


def until(
    condition: Callable[[], object],
    what: str,
    timeout_s: float = TIMEOUT_S,
    every_s: float = 0.02,
) -> None:
    """Wait until a condition holds that no message reports."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(what)
        threading.Event().wait(every_s)


def exists(pid: int) -> bool:
    """Return whether there is a process that has not been reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def alive(pid: int) -> bool:
    """Return whether a process runs; one that ended and is not reaped does not. Needs /proc."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until_gone(pids: list[int], within_s: float) -> None:
    """Wait until no process is alive."""
    until(lambda: not any(map(alive, pids)), f"one of {pids} lives on", within_s)
