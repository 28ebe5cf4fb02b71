"""A real supervisor on a thread of the test, and the messages that its peer receives."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TypeVar

from messages import (
    Event,
    Message,
    SendText,
    SessionFailed,
    SessionStarted,
    StopSession,
    Subscribe,
    decode,
    message_types,
)
from messages.transport.channel import Channel
from supervisor import ChildSpec, Supervisor
from tests.rig import TIMEOUT_S

M = TypeVar("M", bound=Message)
ECHO = ChildSpec(name="echo", target="tests.tiny:Echo")
OTHER = ChildSpec(name="other", target="tests.tiny:Player")
_numbers = itertools.count()


class Wire:
    """The program's end of a supervisor in this process: reads what it is sent."""

    def __init__(
        self,
        supervisor: Supervisor,
        wants: Iterable[type[Message]],
        receive: Callable[[Message], None],
    ) -> None:
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours)
        self._receive = receive
        supervisor.attach(theirs)
        supervisor.send(Subscribe(tuple(kind.tag() for kind in wants)))
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until everything is read that the supervisor has sent before its end."""
        self._thread.join(TIMEOUT_S)

    def _read(self) -> None:
        with contextlib.suppress(EOFError):
            while True:
                self._receive(decode(self._channel.read()))
        self._channel.close()


class Hub:
    """Runs a supervisor and collects everything that it tells a peer."""

    def __init__(self, specs: Sequence[ChildSpec], **settings: object) -> None:
        wants = {kind for kind in message_types().values() if issubclass(kind, Event)}
        self.wants = frozenset(wants)
        self.messages: list[Message] = []
        self.exit_code: int | None = None
        self.error: BaseException | None = None
        self._news = threading.Condition()
        defaults = {"server": "ws://127.0.0.1:1", "hang_s": 0.5, "probes": True}
        self.supervisor = Supervisor({**defaults, **settings}, specs=specs)
        self._wire = Wire(self.supervisor, self.wants, self.receive)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Hub:
        self._thread.start()
        try:
            self.wait_for(lambda: any(self.of(SessionStarted)) or any(self.of(SessionFailed)))
        except BaseException:  # nobody leaves what was never entered
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.stop()

    def receive(self, message: Message) -> None:
        """Collect a message."""
        with self._news:
            self.messages.append(message)
            self._news.notify_all()

    def of(self, kind: type[M]) -> list[M]:
        """Return the messages of this type so far."""
        return [message for message in self.messages if isinstance(message, kind)]

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
        """Wait until the condition holds; looked at with each message."""
        with self._news:
            if not self._news.wait_for(condition, timeout_s):
                raise AssertionError(f"it never came true; last: {self.messages[-10:]}")

    def expect(self, kind: type[M], where: Callable[[M], bool] = lambda _: True) -> M:
        """Return the first message of this type that fits; waits for it."""
        self.wait_for(lambda: any(where(message) for message in self.of(kind)))
        return next(message for message in self.of(kind) if where(message))

    def pid(self, name: str) -> int:
        """Return the process id of a component now."""
        return int(self.supervisor.status()[name]["pid"])

    def settled(self, name: str) -> None:
        """Wait until a component has handled everything it was sent."""
        end = time.monotonic() + TIMEOUT_S
        done = threading.Event()

        def look() -> None:
            child = self.supervisor._children[name]
            child.mailbox.settle(child.slot)
            if not len(child.mailbox) and child.slot.in_hand() is None:
                done.set()

        while not done.is_set():
            assert time.monotonic() < end, self.supervisor.status()
            self.supervisor.loop.call(look)
            done.wait(0.002)

    def stop(self) -> None:
        """End the session and wait for it."""
        self.supervisor.send(StopSession("test over"))
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive(), "the supervisor did not stop"

    def _run(self) -> None:
        try:
            self.exit_code = self.supervisor.run()
        except BaseException as error:
            self.error = error
            raise
        finally:
            self._wire.wait()
            with self._news:
                self._news.notify_all()


def say(hub: Hub, text: str) -> None:
    """Type a text, with an item id of its own."""
    hub.supervisor.send(SendText(text, f"item {next(_numbers)}"))
