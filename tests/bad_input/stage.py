"""A session in the test's process, with real components and a console on a simulated screen."""

from __future__ import annotations

import contextlib
import io
import re
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from messages import Message, StopSession
from rtvoice.command.console import Console
from supervisor import SPECS, Supervisor
from tests.fake_server import FakeServer
from tests.hub import Wire
from tests.rig import TIMEOUT_S

__all__ = ["Sitting", "Talk", "talking"]

ALL = tuple(spec.name for spec in SPECS)
_FRAME = re.compile(
    r"^\[(?:server: |ended after |failed after |restarted: |lost: nothing|sound faltered).*\n",
    re.MULTILINE,
)
"""What a session says at its beginning and its end, and of a machine with too much to do."""


def without_frame(text: str) -> str:
    """Return what a user has seen, but for what any session may say."""
    return _FRAME.sub("", text)


class Screen(io.StringIO):
    """Text that somebody waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.news = threading.Condition()

    def write(self, text: str) -> int:
        with self.news:
            self.news.notify_all()
            return super().write(text)

    def wait_for(self, pattern: str, start: int = 0) -> None:
        """Wait until it is written."""
        with self.news:
            if not self.news.wait_for(
                lambda: re.search(pattern, self.getvalue()[start:]), TIMEOUT_S
            ):
                raise AssertionError(f"nobody wrote {pattern!r} but:\n{self.getvalue()}")


class Sitting:
    """One session of some of the components, with what its user sees.

    Args:
        only: names of the components; each is a process.
        listens: further types of messages to collect.
        events: a binary stream for events as JSON lines.
        settings: of the session.
    """

    def __init__(
        self,
        *only: str,
        listens: tuple[type[Message], ...] = (),
        events: Any = None,
        **settings: Any,
    ) -> None:
        self.screen = Screen()
        self.messages: list[Message] = []
        self.code: int | None = None
        self._console = Console(transcript=self.screen, errors=self.screen, events=events)
        self.wants = self._console.wants | frozenset(listens)
        given = {"input": "silence", "output": "null", "server": "ws://127.0.0.1:1"}
        specs = [spec for spec in SPECS if spec.name in (only or ALL)]
        self.supervisor = Supervisor({**given, **settings}, specs=specs)
        self._wire = Wire(self.supervisor, self.wants, self.receive)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Sitting:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.end()

    def receive(self, message: Message) -> None:
        """Collect what was asked for, and pass everything on to the console."""
        if type(message) in self._console.wants:
            self._console.receive(message)
        with self.screen.news:
            self.messages.append(message)
            self.screen.news.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; looked at with each message."""
        with self.screen.news:
            if not self.screen.news.wait_for(condition, TIMEOUT_S):
                raise AssertionError(f"it never came true; last: {self.messages[-5:]}")

    def of(self, kind: type[Message]) -> list[Any]:
        """Return the messages of a type so far."""
        return [message for message in self.messages if isinstance(message, kind)]

    def sees(self, pattern: str) -> Sitting:
        """Wait until the user sees this."""
        self.screen.wait_for(pattern)
        return self

    def text(self, start: int = 0) -> str:
        """Return what the user has seen, but for what any session may say."""
        return without_frame(self.screen.getvalue()[start:])

    def ends_by_itself(self, after_s: float = 0.0) -> Sitting:
        """Wait for that, so much longer than for anything else."""
        self._thread.join(after_s + TIMEOUT_S)
        assert not self._thread.is_alive(), self.screen.getvalue()
        return self

    def end(self) -> Sitting:
        """End it in order, if it has not ended."""
        if self._thread.is_alive():
            self.supervisor.send(StopSession("the test is over"))
        return self.ends_by_itself()

    def _run(self) -> None:
        try:
            self.code = self.supervisor.run()
        finally:
            self._wire.wait()
            self._console.close(TIMEOUT_S)


class Talk:
    """A conversation in which the server does what a row wants; it has to go on."""

    def __init__(self, server: FakeServer, sitting: Sitting) -> None:
        self.server = server
        self.sitting = sitting
        self._turns = 0

    def seen_of(self, do: Callable[[], object], until: Callable[[], bool] | None = None) -> str:
        """Return what the user sees of something, up to the next turn, which has to come."""
        start = len(self.sitting.screen.getvalue())
        do()
        if until is not None:
            self.sitting.wait_for(until)
        self._turns += 1
        text = f"I am still here, for the {self._turns}. time."
        self.server.connections[0].say(text, bytes(480), item=f"item_still_{self._turns}")
        self.sitting.screen.wait_for(re.escape(f"assistant: {text}\n"), start)
        assert len(self.server.connections) == 1, "the connection was lost"
        return self.sitting.text(start).replace(f"assistant: {text}\n", "")

    def raw(self, *frames: str | bytes) -> str:
        """Return what the user sees of some frames."""

        def send() -> None:
            for frame in frames:
                self.server.connections[0].send_raw(frame)

        return self.seen_of(send)


@contextlib.contextmanager
def talking(**settings: Any) -> Iterator[Talk]:
    """Run a conversation."""
    from messages import AssistantAudio, ToolAnswer

    with FakeServer() as server:
        parts = ("history", "speaker", "tools", "realtime", "microphone")
        listens = (AssistantAudio, ToolAnswer)
        with Sitting(*parts, listens=listens, server=server.url, **settings) as sitting:
            server.connection(0)
            yield Talk(server, sitting)
