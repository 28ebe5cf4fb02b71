"""The context of a tool call: cancellation, spoken notes and messages."""

from __future__ import annotations

import threading
from collections.abc import Callable

from messages import Message, Say

__all__ = ["ToolContext"]


class ToolContext:
    """The context of one call, passed to the tool; the model does not see it.

    A tool gets it in the parameter with this annotation, at any position. It works the same for
    tools in the program and in the tools process, and may be used on any thread. ``call_id`` is the
    service's id of the call, ``tool`` the name that the model called.

    Example:
        ```python
        @tools.action("Find a free table.")
        def find_table(guests: int, context: ToolContext) -> str:
            context.say("One moment, I am looking for a table.")
            while not context.wait_cancelled(1.0):
                if table := look_for(guests):
                    return table
            return ""
        ```
    """

    __slots__ = ("_cancelled", "_send", "call_id", "tool")

    def __init__(self, call_id: str, tool: str, send: Callable[[Message], None]) -> None:
        self.call_id = call_id
        self.tool = tool
        self._send = send
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether the call was cancelled: it took too long, or the session ends.

        A coroutine is then cancelled; a plain function must check this property.
        """
        return self._cancelled.is_set()

    def wait_cancelled(self, timeout_s: float | None = None) -> bool:
        """Sleep until the timeout, or until the call is cancelled; return whether it is cancelled.

        This is for plain functions. In a coroutine, which is cancelled anyway, use `asyncio.sleep`.

        Args:
            timeout_s: How long to sleep in seconds; None: until the call is cancelled.
        """
        return self._cancelled.wait(timeout_s)

    def say(self, text: str) -> None:
        """Let the assistant say a text while the tool works, as soon as it does not speak.

        Nothing is said if the call is cancelled, or if the user speaks first: then the assistant
        answers the user instead.

        Raises:
            TypeError: If ``text`` is not a ``str``.
        """
        if not isinstance(text, str):
            raise TypeError(f"give say() a text, not a value of type {type(text).__name__}")
        if text.strip() and not self.cancelled:
            self._send(Say(text.encode("utf-8", "replace").decode()))

    def send(self, message: Message) -> None:
        """Send a message, such as ``SetMuted(True)``, to the components that accept its type.

        Raises:
            TypeError: If it is not a message.
        """
        if not isinstance(message, Message):
            raise TypeError(f"give send() a message, not a value of type {type(message).__name__}")
        self._send(message)

    def cancel(self) -> None:
        """Mark the call as cancelled; called by the executor."""
        self._cancelled.set()

    def __repr__(self) -> str:
        return f"ToolContext({self.tool!r}, {self.call_id!r})"
