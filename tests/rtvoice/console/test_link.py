"""The queue between a session and the screen has a bound, and says what it has dropped."""

from __future__ import annotations

from messages import InputLevel, Notice, SessionEnded
from rtvoice.console import link as link_module
from rtvoice.console.link import Link


def test_a_screen_that_is_too_slow_misses_messages_but_not_the_end(monkeypatch) -> None:
    monkeypatch.setattr(link_module, "_MAX_QUEUED", 2)
    forwarded: list[object] = []
    link = Link(forwarded.append)
    one, two, three = (Notice(f"number {number}") for number in range(3))
    end = SessionEnded("over", 1, 0, {}, (), (), 2.0)

    for message in (one, two, three, InputLevel(-20.0, -10.0), end):
        link.receive(message)

    assert [news for _, news in (*link.take(), *link.take())] == [one, two, end]
    assert link.dropped == 1  # a level is soon followed by another
    assert len(forwarded) == 5
