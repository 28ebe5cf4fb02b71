"""How a session ends: the components close one after the other, in a limited time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from actors.supervision.child import Child
from messages.transport.loop import Loop

__all__ = ["Shutdown"]


class Shutdown:
    """Closes the components, each once the one before it is gone; then the session is over."""

    def __init__(
        self, loop: Loop, order: Sequence[Child], within_s: float, over: Callable[[], None]
    ) -> None:
        """Prepare the end; `advance` begins it.

        Args:
            loop: Calls everything that follows.
            order: The components; a later one may still be needed by an earlier one.
            within_s: How long all of them together may take. One may take half of it.
            over: Called once, when all are gone.
        """
        self._loop = loop
        self._left = list(order)
        self._each_s = within_s / 2
        self._over: Callable[[], None] | None = over

    def advance(self) -> None:
        """Close the next component if the one before it is gone."""
        while self._left:
            child = self._left[0]
            if not child.asked_to_close:
                child.close()
                self._loop.later(self._each_s, partial(child.give_up, "did not close"))
            if not child.gone:
                return
            del self._left[0]
        over, self._over = self._over, None
        if over is not None:
            over()
