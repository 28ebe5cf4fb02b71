"""The state is saved whenever it has changed."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from actors.realtime.core.actions import SaveState
from actors.realtime.core.answers import TEXT_STEP
from actors.realtime.core.state import Audible, Saved
from messages import SendText, SetSpeed, StartTalking
from tests.actors.realtime.core.bench import Bench


def _saves(bench: Bench) -> int:
    return sum(isinstance(action, SaveState) for action in bench.actions)


def _saved(bench: Bench) -> Saved:
    return msgspec.msgpack.decode(bench.state, type=Saved)


def test_a_change_is_saved_once_and_after_everything_else() -> None:
    bench = Bench().live()

    bench.tell(SendText("Hello", "t1"))

    assert [text.item_id for text in _saved(bench).texts] == ["t1"]
    assert isinstance(bench.actions[-1], SaveState)
    assert _saves(bench) == 1


def test_what_changes_nothing_is_not_saved() -> None:
    bench = Bench().live().tell(SetSpeed(1.5))
    bench.clear()

    bench.tell(SetSpeed(1.5)).server("rate_limits.updated", rate_limits=[])

    assert _saves(bench) == 0


def test_a_change_that_no_part_knows_of_is_saved() -> None:
    bench = Bench().live()

    bench.core.saved.repeats += 1
    bench.server("rate_limits.updated", rate_limits=[])

    assert _saved(bench).repeats == 1


def test_that_the_assistant_begins_to_sound_is_saved_with_its_first_sound() -> None:
    bench = Bench().live().speak().begin()

    bench.audio(b"\0" * 4800)

    saved = _saved(bench)
    assert saved.answer is not None
    assert saved.answer.begun
    assert saved.spoken
    assert saved.turns == []
    assert saved.audible[-1].end is None
    assert saved.playing == [Audible("a1", "r1", 2400)]


def _another_answer(bench: Bench) -> None:
    bench.begin("r2", "a2").audio(b"\0" * 480, "r2", "a2")


def _a_second_after(bench: Bench) -> None:
    bench.wait(2).audio(b"\0" * 480)


def _a_further_part_of_what_was_played(bench: Bench) -> None:
    bench.audio(b"\0" * 480, item_id="a2").played("a1", 10)
    bench.audio(b"\0" * 480)


def _a_further_part_of_what_was_complete(bench: Bench) -> None:
    bench.server("response.output_audio.done", response_id="r1", item_id="a1")
    bench.audio(b"\0" * 480)


@pytest.mark.parametrize(
    "sounds",
    [
        _another_answer,
        _a_second_after,
        _a_further_part_of_what_was_played,
        _a_further_part_of_what_was_complete,
    ],
)
def test_sound_that_changes_more_than_how_much_was_received_is_saved_at_once(
    sounds: Callable[[Bench], None],
) -> None:
    bench = Bench().live().begin().audio(b"\0" * 480)

    sounds(bench)

    assert isinstance(bench.actions[-1], SaveState)
    assert _saved(bench) == bench.core.saved
    assert _saved(bench).playing == bench.core._context.playback.audible()


def test_more_audio_of_an_item_is_saved_with_the_next_event() -> None:
    bench = Bench().live().begin().audio(b"\0" * 480)
    bench.clear()

    bench.audio(b"\0" * 480).capture(0)
    assert _saves(bench) == 0

    bench.server("rate_limits.updated", rate_limits=[])
    assert [item.samples for item in _saved(bench).playing] == [480]


def _transcript(bench: Bench, delta: str, item_id: str = "a1") -> None:
    kind = "response.output_audio_transcript.delta"
    bench.server(kind, response_id="r1", item_id=item_id, delta=delta)


def _written(bench: Bench, delta: str) -> None:
    bench.server("response.output_text.delta", response_id="r1", item_id="a1", delta=delta)


@pytest.mark.parametrize("before", ["", "Hello"])
def test_the_first_written_text_of_an_answer_is_saved_at_once(before: str) -> None:
    bench = Bench().live().speak()
    bench.stop_speaking().begin()
    if before:
        _transcript(bench, before)
    bench.clear()
    assert bench.core.saved.turns

    _written(bench, "written")

    assert isinstance(bench.actions[-1], SaveState)
    assert _saved(bench) == bench.core.saved
    assert _saved(bench).turns == []


def test_an_item_that_begins_with_text_after_it_was_flushed_is_saved_at_once() -> None:
    bench = Bench().live().flushed("a1", 1)
    bench.clear()

    _transcript(bench, "Hello")

    assert _saved(bench) == bench.core.saved
    assert _saved(bench).playing == bench.core._context.playback.audible()


@pytest.mark.parametrize("item_id", ["a1", "a2"])
@pytest.mark.parametrize("delta", [" there", "x" * TEXT_STEP])
def test_no_other_text_changes_what_is_saved(item_id: str, delta: str) -> None:
    bench = Bench().live().speak()
    bench.stop_speaking().begin()
    _transcript(bench, "Hello")
    bench.clear()

    _transcript(bench, delta, item_id)

    assert _saves(bench) == 0
    assert _saved(bench) == bench.core.saved


def test_a_block_that_ends_a_turn_is_saved() -> None:
    bench = Bench(turn_detection=None).live()
    bench.tell(StartTalking(bench.now))
    assert len(_saved(bench).talks) == 1
    bench.clear()

    bench.wait(0.5).tell(SetSpeed(1.5))  # the key is still pressed
    assert len(_saved(bench).talks) == 1


def test_after_a_raise_the_state_is_saved_again() -> None:
    """The `SaveState` may not have been performed: an action before it may have raised."""
    bench = Bench().live()
    bench.clear()

    bench.core.resumed(bench.now)
    bench.collect()

    assert _saves(bench) == 1
