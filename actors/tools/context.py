"""What a tool may know and do besides its arguments."""

from __future__ import annotations

import threading
from collections.abc import Callable

from messages import Message, Say

__all__ = ["ToolContext"]


class ToolContext:
    """One call, for the tool that is called. Made for each call; not seen by the model.

    A tool gets it in a parameter with this annotation, wherever that stands. It is the same for
    tools that run in the program and for those that run in the tools process, and may be used from
    any thread. ``call_id`` is the service's id of the call, ``tool`` the name by which the model
    called.

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
        """Whether nobody waits for the result any more: it took too long, or the session ends.

        A coroutine is cancelled then; a plain function has to look here.
        """
        return self._cancelled.is_set()

    def wait_cancelled(self, timeout_s: float | None = None) -> bool:
        """Sleep for so many seconds, or until the call is cancelled; tell whether it is.

        For plain functions. In a coroutine, which is cancelled anyway, use `asyncio.sleep`.
        """
        return self._cancelled.wait(timeout_s)

    def say(self, text: str) -> None:
        """Have the assistant say this while the tool works, as soon as it is not speaking.

        A call that is cancelled has nothing to say any more, and nothing is said when the user
        speaks first: that is answered instead.

        Raises:
            TypeError: ``text`` is no text.
        """
        if not isinstance(text, str):
            raise TypeError(f"give say() a text, not a value of type {type(text).__name__}")
        if text.strip() and not self.cancelled:
            self._send(Say(text.encode("utf-8", "replace").decode()))

    def send(self, message: Message) -> None:
        """Give a message to every component that accepts its type, such as ``SetMuted(True)``."""
        if not isinstance(message, Message):
            raise TypeError(f"give send() a message, not a value of type {type(message).__name__}")
        self._send(message)

    def cancel(self) -> None:
        """Say that nobody waits any more; done by whoever runs the tool."""
        self._cancelled.set()

    def __repr__(self) -> str:
        return f"ToolContext({self.tool!r}, {self.call_id!r})"
