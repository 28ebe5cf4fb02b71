"""The accounts of one incarnation: which messages it has begun and handled."""

from __future__ import annotations

import collections
from collections.abc import Callable

from messages import Message, decode, tag_of
from messages.transport.page import HELD, LOCAL, MAIL, Slot

__all__ = ["Accounts"]


class Accounts:
    """Counts begun and handled messages in the page, which survives the process.

    Used on the actor's thread only.
    """

    def __init__(self, slot: Slot, held_tags: frozenset[int], room: Callable[[], None]) -> None:
        self._slot = slot
        self._held_tags = held_tags
        self._room = room
        self._handled = [0, 0]
        self._begun_held = 0
        self._local = 0
        self._held: collections.deque[tuple[Message, list[bool]]] = collections.deque()
        self._holding = False

    def handle(self, frame: bytes, dispatch: Callable[[Message], None]) -> None:
        """Decode and handle a frame; if that raises, the message stays in hand."""
        if tag_of(frame) in self._held_tags:
            self._handle_held(frame, dispatch)
            return
        self._slot.begin(MAIL, self._handled[MAIL] + 1)
        dispatch(decode(frame))
        self._settle(MAIL, 1)
        self._slot.end()

    def pass_over(self, frame: bytes) -> None:
        """Count a frame as handled whose message was handled when it came directly."""
        assert tag_of(frame) not in self._held_tags
        self._settle(MAIL, 1)

    def run(self, call: Callable[[], None]) -> None:
        """Run a posted call or timer, accounted for so that a hang in it is noticed."""
        self._local += 1
        self._slot.begin(LOCAL, self._local)
        call()
        self._slot.end_local(self._local)

    def hold(self, message: Message) -> None:
        """See `Actor.hold`."""
        if not self._held or self._held[-1][0] is not message:
            raise ValueError(
                f"{type(message).__name__} cannot be held: only the message in hand, "
                f"if its rule in accepts has held=True"
            )
        self._holding = True

    def done(self, message: Message) -> None:
        """See `Actor.done`."""
        for held, finished in self._held:
            if held is message:
                finished[0] = True
                break
        else:
            raise ValueError(f"{type(message).__name__} is not held")
        self._settle_held()

    def _handle_held(self, frame: bytes, dispatch: Callable[[Message], None]) -> None:
        self._begun_held += 1
        self._slot.begin(HELD, self._begun_held)
        message = decode(frame)
        finished = [False]
        self._held.append((message, finished))
        self._holding = False
        dispatch(message)
        if not self._holding:
            finished[0] = True
        self._settle_held()
        self._slot.end()

    def _settle_held(self) -> None:
        count = 0
        while self._held and self._held[0][1][0]:
            self._held.popleft()
            count += 1
        if count:
            self._settle(HELD, count)

    def _settle(self, lane: int, count: int) -> None:
        self._handled[lane] += count
        if self._slot.settle(lane, self._handled[lane]):
            self._room()
