from __future__ import annotations

import asyncio

import pytest

from rtvoice.service.admission import Admission, Limits, Load
from rtvoice.service.errors import Busy, Draining
from rtvoice.service.gate import Gate, Queue
from tests.loop import in_a_loop


def one_place() -> Admission:
    return Admission(Limits(cores=2, parallel=2, max_sessions=1, cpu_limit=None))


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@in_a_loop
async def test_so_many_start_at_once_and_the_others_in_order() -> None:
    gate, began, doors = Gate(2), [], [asyncio.Event() for _ in range(5)]

    async def start(number: int) -> None:
        async with gate.passing():
            began.append(number)
            await doors[number].wait()

    tasks = [asyncio.create_task(start(number)) for number in range(5)]
    await settled()
    assert began == [0, 1]
    tasks[2].cancel()  # who gives up holds up nobody
    doors[1].set()
    await settled()
    assert began == [0, 1, 3]
    for door in doors:
        door.set()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert began == [0, 1, 3, 4]


@in_a_loop
async def test_who_gives_up_in_its_turn_passes_it_on() -> None:
    gate, began = Gate(1), []

    async def start(number: int) -> None:
        async with gate.passing():
            began.append(number)

    async with gate.passing():
        tasks = [asyncio.create_task(start(number)) for number in range(2)]
        await settled()
    tasks[0].cancel()  # its turn has come, and it has not run since
    await settled()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert began == [1]


@in_a_loop
async def test_those_who_wait_get_places_in_order_and_are_not_overtaken() -> None:
    table = one_place()
    queue, served = Queue(table.take, 2, 60), []
    place = await queue.place()

    async def wait(number: int) -> None:
        mine = await queue.place()
        served.append(number)
        mine.release()

    tasks = [asyncio.create_task(wait(number)) for number in range(2)]
    await settled()
    with pytest.raises(Busy):
        await queue.place()  # two wait already
    place.release()
    newcomer = asyncio.create_task(wait(2))
    with pytest.raises(Busy):  # the place is for those who came before
        await newcomer
    for _ in range(2):
        queue.advance()
        await settled()
    await asyncio.gather(*tasks)

    assert served == [0, 1]


@in_a_loop
async def test_nobody_waits_longer_than_promised() -> None:
    table = one_place()
    queue = Queue(table.take, 1, 0.01)
    await queue.place()

    with pytest.raises(Busy, match="all places"):
        await queue.place()

    assert len(queue) == 0


@in_a_loop
async def test_who_finds_the_queue_full_is_told_what_is_short() -> None:
    table = one_place()
    queue = Queue(table.take, 1, 0.05)
    place = await queue.place()
    waiting = asyncio.create_task(queue.place())
    await settled()
    table.measured(Load(lag_ms=99.0))
    place.release()
    queue.advance()

    for _ in range(2):
        with pytest.raises(Busy) as refused:
            await queue.place()
        assert (refused.value.reason, refused.value.retry_after_s) == ("lag", 1.0)
    with pytest.raises(Busy, match="too busy"):
        await waiting


@in_a_loop
async def test_who_leaves_the_queue_takes_no_place_along() -> None:
    table = one_place()
    queue = Queue(table.take, 2, 60)
    place = await queue.place()
    waiting = asyncio.create_task(queue.place())
    await settled()
    place.release()
    queue.advance()
    waiting.cancel()
    await asyncio.wait({waiting})

    assert waiting.cancelled()
    assert table.count() == 0


@in_a_loop
async def test_those_who_wait_are_told_that_the_service_ends() -> None:
    table = one_place()
    queue = Queue(table.take, 2, 60)
    await queue.place()
    waiting = asyncio.create_task(queue.place())
    await settled()
    table.draining = True
    queue.advance()

    with pytest.raises(Draining):
        await waiting
