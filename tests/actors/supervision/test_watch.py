"""Detection of hangs and progress of a component, by counters on a real accounting page."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.supervision.watch import Watch
from messages import Ping, SendText, encode
from messages.transport.mailbox import Mailbox
from messages.transport.page import HELD, LOCAL, MAIL, Page, Slot

HANG_S = 8.0


class Watched:
    """A component that is open since the tenth second, and the hub's side of it."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.mailbox = Mailbox({})
        self.watch = Watch(slot)
        self.watch.begin(self.mailbox)
        self.watch.opened(10.0)
        self.look(10.0)

    def send(self, *messages: object) -> None:
        for message in messages:
            self.mailbox.put(encode(message))  # type: ignore[arg-type]
        self.mailbox.take(self.slot)

    def look(self, now: float) -> str:
        return self.watch.look(now, self.mailbox, HANG_S)

    def ping(self, now: float) -> None:
        assert self.look(now) == "idle"
        self.send(Ping())


@pytest.fixture
def it(tmp_path: Path) -> Watched:
    return Watched(Page(tmp_path / "page", create=True).slot(0))


def test_one_that_has_nothing_to_do_is_idle_after_a_quarter_of_the_time(it: Watched) -> None:
    assert [it.look(now) for now in (10.1, 11.9, 12.0)] == ["", "", "idle"]


def test_one_that_does_not_handle_its_mail_hangs(it: Watched) -> None:
    it.send(SendText("a", "i"))

    assert [it.look(now) for now in (10.1, 17.9, 18.0)] == ["", "", "hung"]
    assert it.watch.quiet_s(18.0) == 8.0


def test_one_that_was_sent_a_ping_late_has_half_the_time_to_answer(it: Watched) -> None:
    it.ping(17.0)

    assert [it.look(now) for now in (18.0, 20.9, 21.0)] == ["", "", "hung"]


def test_a_component_that_handles_something_gets_no_ping(it: Watched) -> None:
    it.slot.begin(LOCAL, 1)

    assert [it.look(now) for now in (12.0, 17.9, 18.0)] == ["", "", "hung"]


@pytest.mark.parametrize("lane", [MAIL, HELD])
def test_whatever_it_handles_is_a_sign_of_life(it: Watched, lane: int) -> None:
    it.slot.begin(MAIL, 2)
    it.slot.settle(lane, 1)

    assert [it.look(now) for now in (17.0, 24.9, 25.0)] == ["", "", "hung"]


def test_a_supervisor_that_did_not_run_blames_nobody(it: Watched) -> None:
    it.send(SendText("a", "i"))

    it.watch.forgive(1000.0)

    assert [it.look(now) for now in (1000.1, 1007.9, 1008.0)] == ["", "", "hung"]


def test_the_time_before_a_hang_counts_as_working(it: Watched) -> None:
    it.slot.begin(MAIL, 1)
    it.slot.settle(MAIL, 1)
    it.look(13.0)
    it.look(20.0)

    assert it.watch.well_s == 3.0


def test_an_answered_ping_is_no_progress_and_handled_mail_is(it: Watched) -> None:
    it.ping(12.0)
    it.slot.settle(MAIL, 1)
    answered = it.watch.progress(it.mailbox)
    it.send(SendText("a", "i"))
    it.slot.settle(MAIL, 2)

    assert (answered, it.watch.progress(it.mailbox)) == (False, True)


def test_a_timer_is_no_progress_and_sound_is(it: Watched) -> None:
    it.slot.end_local(7)
    timer = it.watch.progress(it.mailbox)
    it.watch.sent_audio = True

    assert (timer, it.watch.progress(it.mailbox)) == (False, True)


def test_held_messages_that_are_done_are_progress(it: Watched) -> None:
    it.slot.settle(HELD, 1)

    assert it.watch.progress(it.mailbox)


def test_sound_that_one_made_is_no_progress_of_the_next(it: Watched) -> None:
    it.watch.sent_audio = True

    it.watch.begin(it.mailbox)

    assert not it.watch.progress(it.mailbox)


def test_a_ping_that_comes_after_a_death_is_no_progress_of_the_next_one(it: Watched) -> None:
    it.mailbox.put(encode(Ping()))
    it.slot.clear()
    it.watch.begin(it.mailbox)
    before = it.watch.progress(it.mailbox)

    it.mailbox.take(it.slot)
    it.slot.settle(MAIL, 1)

    assert (before, it.watch.progress(it.mailbox)) == (False, False)


def test_a_stop_is_forgotten_once_it_is_open_or_the_supervisor_did_not_run(it: Watched) -> None:
    assert not it.watch.is_stopped(11.0, True, HANG_S)
    it.watch.opened(12.0)
    assert not it.watch.is_stopped(100.0, True, HANG_S)
    it.watch.forgive(200.0)
    assert not it.watch.is_stopped(200.0, True, HANG_S)
    assert it.watch.is_stopped(208.0, True, HANG_S)
