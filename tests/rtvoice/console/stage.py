"""The console's screen in a test: textual's driver, and what the screen shows as text."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from messages import Connected, Message, SendText, SessionStarted
from rtvoice.console.app import ConsoleApp
from rtvoice.console.link import Link
from rtvoice.view import View
from tests.rig import TIMEOUT_S

__all__ = ["Stage", "run", "stage"]

PIDS = {"recorder": 11, "history": 12, "speaker": 13, "realtime": 15, "supervisor": 1, "sandbox": 2}
STARTED = SessionStarted(PIDS, "ws://x", "in.wav", "null", sandbox=True)


class Asked:
    """Takes what the console asks of its session, and keeps it."""

    def __init__(self, *, push_to_talk: bool = False) -> None:
        self.sent: list[Message] = []
        self.injected: list[tuple[str, str]] = []
        self.pressed = 0
        self._push_to_talk = push_to_talk

    @property
    def lines(self) -> list[str]:
        """What was typed for the user, in order."""
        return [each.text for each in self.sent if isinstance(each, SendText)]

    def send(self, message: Message) -> None:
        self.sent.append(message)

    def inject(self, component: str, fault: str) -> None:
        self.injected.append((component, fault))

    def processes(self, timeout_s: float = 5.0) -> dict[str, dict[str, Any]]:
        raise TimeoutError(f"no answer within {timeout_s} s")

    def interrupted(self) -> bool:
        self.pressed += 1
        return self.pressed > 1

    def has_push_to_talk(self) -> bool:
        return self._push_to_talk


class Stage:
    """The running app."""

    def __init__(self, app: ConsoleApp, link: Link, asked: Asked, pilot: Any) -> None:
        self.app = app
        self.link = link
        self.asked = asked
        self._pilot = pilot

    def tell(self, *messages: Message) -> None:
        """Have the session say something."""
        for message in messages:
            self.link.receive(message)

    async def press(self, *keys: str) -> None:
        await self._pilot.press(*keys)

    async def type(self, text: str) -> None:
        names = {" ": "space", "/": "slash"}
        await self._pilot.press(*(names.get(each, each) for each in text))

    async def enter(self, line: str) -> None:
        """Type a line, and Enter."""
        await self.type(line)
        await self.press("enter")

    async def click(self, text: str) -> None:
        """Click on a text of the screen."""
        row, line = next((y, each) for y, each in enumerate(self.lines()) if text in each)
        await self._pilot.click(offset=(line.index(text), row))

    async def resize(self, width: int, height: int) -> None:
        await self._pilot.resize_terminal(width, height)

    def lines(self) -> list[str]:
        """Return what is on the screen."""
        return [strip.text.rstrip() for strip in self.app.screen._compositor.render_strips()]

    def has(self, text: str) -> bool:
        return any(text in line for line in self.lines())

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        end = time.monotonic() + TIMEOUT_S
        while not condition():
            await self._pilot.pause(0.01)
            assert time.monotonic() < end, "\n".join([what, *self.lines()])

    async def shows(self, text: str) -> None:
        """Wait until a text is on the screen."""
        await self.until(lambda: self.has(text), f"{text!r} is not shown:")

    async def hides(self, text: str) -> None:
        await self.until(lambda: not self.has(text), f"{text!r} is still shown:")


@contextlib.asynccontextmanager
async def stage(
    view: View | None = None, *, size: tuple[int, int] = (80, 24), push_to_talk: bool = False
) -> AsyncIterator[Stage]:
    """Show a session that has started."""
    link, asked = Link(lambda _: None), Asked(push_to_talk=push_to_talk)
    app = ConsoleApp(link, asked, view or View())
    async with app.run_test(size=size) as pilot:
        found = Stage(app, link, asked, pilot)
        found.tell(STARTED, Connected("x"))
        await found.shows("LISTENING")
        yield found


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test to its end."""
    asyncio.run(test)
