"""The event bus: order, bounds, and isolation of the subscribers."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import msgspec
import pytest

from messages import Notice, Turn
from rtvoice.bus import EventBus
from rtvoice.events import AgentEvent, AgentStoppedEvent, ServerEvent
from rtvoice.wire import wire_names
from tests.loop import in_a_loop
from tests.rig import TIMEOUT_S


class Said(msgspec.Struct, frozen=True):
    number: int


class Shouted(Said, frozen=True):
    pass


def make(changed: Any = lambda: None) -> EventBus:
    bus = EventBus(lambda _: None, changed)
    bus.bind(asyncio.get_running_loop())
    return bus


async def drained(bus: EventBus) -> None:
    await bus.drain(TIMEOUT_S)


@in_a_loop
async def test_plain_functions_and_coroutines_are_called_in_order() -> None:
    bus, plain, slow = make(), [], []

    async def later(event: Said) -> None:
        await asyncio.sleep(0)
        slow.append(event.number)

    bus.subscribe(Said, lambda event: plain.append(event.number))
    bus.subscribe(Said, later)
    for number in range(100):
        bus.deliver(Said(number))
    await drained(bus)

    assert plain == slow == list(range(100))


@in_a_loop
async def test_a_base_class_stands_for_all_of_its_events() -> None:
    bus, heard = make(), []
    bus.subscribe(Said, heard.append)
    bus.subscribe(Shouted, heard.append)

    bus.deliver(Said(1))
    bus.deliver(Shouted(2))
    await drained(bus)

    assert sorted(heard, key=lambda event: event.number) == [Said(1), Shouted(2), Shouted(2)]


@in_a_loop
async def test_a_handler_that_raises_is_logged_and_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus, heard = make(), []

    def breaks(event: Said) -> None:
        raise ValueError(f"cannot stand {event.number}")

    bus.subscribe(Said, breaks)
    bus.subscribe(Said, heard.append)
    bus.deliver(Said(1))
    bus.deliver(Said(2))
    await drained(bus)

    assert heard == [Said(1), Said(2)]
    records = [record for record in caplog.records if record.name == "rtvoice.events"]
    assert [record.exc_info is not None for record in records] == [True, True]
    assert "breaks" in records[0].getMessage()


@in_a_loop
async def test_a_slow_handler_keeps_nobody_waiting_and_loses_the_oldest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus, slow, quick = make(), [], []
    gate = asyncio.Event()

    async def wait(event: Said) -> None:
        slow.append(event.number)
        await gate.wait()

    subscription = bus.subscribe(Said, wait, max_queued=3)
    bus.subscribe(Said, quick.append)
    bus.deliver(Said(0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for number in range(1, 10):
        bus.deliver(Said(number))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    heard_meanwhile = len(quick)
    gate.set()
    await drained(bus)

    assert heard_meanwhile == 10
    assert slow == [0, 7, 8, 9]
    assert subscription.dropped == 6
    assert "too slow" in caplog.text


@in_a_loop
async def test_a_handler_that_never_ends_is_cancelled_at_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus, cancelled = make(), []

    async def sleep(_: Said) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    bus.subscribe(Said, sleep)
    bus.deliver(Said(1))
    await bus.drain(0.01)

    assert cancelled == [True]
    assert "still busy" in caplog.text


@in_a_loop
async def test_unsubscribing_works_from_inside_and_throws_away_what_waits() -> None:
    bus, heard = make(), []

    def once(event: Said) -> None:
        heard.append(event)
        handle.unsubscribe()

    handle = bus.subscribe(Said, once)
    bus.deliver(Said(1))
    bus.deliver(Said(2))
    await drained(bus)
    handle()  # again

    assert heard == [Said(1)]


@in_a_loop
async def test_the_handle_is_a_context_manager() -> None:
    bus, heard = make(), []

    with bus.subscribe(Said, heard.append):
        bus.deliver(Said(1))
        await drained(bus)
    bus.deliver(Said(2))
    await drained(bus)

    assert heard == [Said(1)]


@in_a_loop
async def test_what_was_given_to_subscribe_unsubscribes_too() -> None:
    bus, heard = make(), []
    bus.subscribe(Said, heard.append)

    bus.unsubscribe(Said, heard.append)
    bus.unsubscribe(Said, print)
    bus.deliver(Said(1))
    await drained(bus)

    assert heard == []


@in_a_loop
async def test_events_come_from_any_thread_and_handlers_run_on_the_loop() -> None:
    bus, threads = make(), []
    bus.subscribe(Said, lambda _: threads.append(threading.current_thread()))

    other = threading.Thread(target=bus.deliver, args=(Said(1),))
    other.start()
    other.join()
    await asyncio.sleep(0)
    await drained(bus)

    assert threads == [threading.current_thread()]


@in_a_loop
async def test_handlers_see_the_context_of_the_agent() -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
    user.set("Ada")
    bus, seen = make(), []
    bus.subscribe(Said, lambda _: seen.append(user.get()))

    other = threading.Thread(target=bus.deliver, args=(Said(1),))
    other.start()
    other.join()
    await asyncio.sleep(0)
    await drained(bus)

    assert seen == ["Ada"]


@in_a_loop
async def test_what_something_awaited_cancels_is_no_end_of_the_subscription() -> None:
    bus, heard = make(), []

    async def cancels(event: Said) -> None:
        heard.append(event.number)
        task = asyncio.ensure_future(asyncio.sleep(60))
        task.cancel()
        await task

    bus.subscribe(Said, cancels)
    bus.deliver(Said(1))
    bus.deliver(Said(2))
    await drained(bus)

    assert heard == [1, 2]


@in_a_loop
async def test_a_stream_ends_when_the_conversation_does_and_drops_the_oldest() -> None:
    bus = make()
    stream = bus.stream((Said,), 2)
    for number in range(3):
        bus.deliver(Said(number))
    bus.end_streams()

    assert [event.number async for event in stream] == [1, 2]
    assert stream.dropped == 1
    assert bus.kinds == set()


@in_a_loop
async def test_a_stream_that_is_forgotten_costs_nothing() -> None:
    bus = make()

    stream = bus.stream((Said,), 2)
    del stream

    assert bus.kinds == set()


@in_a_loop
async def test_a_change_of_the_subscriptions_is_reported() -> None:
    changes = []
    bus = make(lambda: changes.append(set(bus.kinds)))

    handle = bus.subscribe(Turn, print)
    handle.unsubscribe()

    assert changes == [{Turn}, set()]


@pytest.mark.parametrize(
    ("kind", "handler", "words"),
    [("Turn", print, "give a class of events"), (Turn, None, "give a function")],
)
@in_a_loop
async def test_what_cannot_be_subscribed_is_refused(kind: Any, handler: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        make().subscribe(kind, handler)


@in_a_loop
async def test_an_event_between_two_conversations_reaches_neither() -> None:
    bus, heard = make(), []
    bus.bind(None)
    bus.subscribe(AgentStoppedEvent, heard.append)

    bus.deliver(AgentStoppedEvent("late"))
    bus.bind(asyncio.get_running_loop())
    bus.deliver(AgentStoppedEvent("next"))
    await drained(bus)

    assert heard == [AgentStoppedEvent("next")]


def test_classes_stand_for_names_on_the_wire() -> None:
    assert wire_names(Notice) == wire_names(AgentEvent) == frozenset()
    assert "response.done" in wire_names(ServerEvent)
    assert "response.create" not in wire_names(ServerEvent)


def test_a_subscriber_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="max_queued is 0"):
        EventBus(lambda _: None).subscribe(Said, print, max_queued=0)
