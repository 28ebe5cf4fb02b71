"""What a program asks of a running session: settings, answers, wire events."""

from __future__ import annotations

from typing import Any

import pytest

from actors.realtime import wire
from messages import (
    Connected,
    CreateResponse,
    Disconnected,
    Notice,
    Reconnected,
    UpdateSettings,
    WantWireEvents,
)
from tests.actors.realtime.bench import Bench


def changed(**changes: Any) -> UpdateSettings:
    return UpdateSettings(changes)


# -- settings ------------------------------------------------------------------------------------


def test_new_instructions_are_told_to_a_live_session() -> None:
    bench = Bench(instructions="old").live()

    bench.tell(changed(instructions="new"))

    session = bench.event("session.update")["session"]
    assert session == {"type": "realtime", "instructions": "new"}


def test_what_is_the_same_is_not_told_again() -> None:
    bench = Bench(instructions="old").live()

    bench.tell(changed(instructions="old", inactivity_timeout_s=5.0))

    assert bench.events("session.update") == []


def test_empty_instructions_clear_those_of_the_server() -> None:
    bench = Bench(instructions="old").live()

    bench.tell(changed(instructions=""))

    assert bench.event("session.update")["session"]["instructions"] == ""


def test_transcription_is_switched_on_and_off() -> None:
    bench = Bench().live()

    bench.tell(changed(transcription_model="gpt-transcribe", language="de"))
    bench.tell(changed(transcription_model=None))

    told = [event["session"]["audio"]["input"] for event in bench.events("session.update")]
    assert told == [
        {"transcription": {"model": "gpt-transcribe", "language": "de"}},
        {"transcription": None},
    ]


def test_turn_detection_changes() -> None:
    bench = Bench().live()

    bench.tell(changed(turn_detection={"type": "semantic_vad", "eagerness": "low"}))

    told = bench.event("session.update")["session"]["audio"]["input"]["turn_detection"]
    assert (told["type"], told["eagerness"]) == ("semantic_vad", "low")


def test_changes_made_before_the_session_is_live_are_in_its_configuration() -> None:
    bench = Bench(instructions="old")

    bench.tell(changed(instructions="new"))
    bench.configured()

    assert bench.event("session.update")["session"]["instructions"] == "new"


def test_changes_survive_the_death_of_the_process() -> None:
    bench = Bench(instructions="old", transcription_model="gpt-transcribe").live()
    bench.tell(changed(instructions="new", transcription_model=None, inactivity_timeout_s=None))

    other = bench.restarted()
    other.configured()

    session = other.event("session.update")["session"]
    assert session["instructions"] == "new"
    assert "transcription" not in session["audio"]["input"]
    assert other.wait(1000).all(Notice) == []
    assert not other.core._context.finished  # the timeout is switched off


def test_the_inactivity_timeout_changes_while_it_runs() -> None:
    bench = Bench(inactivity_timeout_s=1000.0).live()

    bench.tell(changed(inactivity_timeout_s=2.0)).wait(3)

    assert bench.core._context.finished


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"voice": "cedar"}, "voice cannot be changed now"),
        ({"instructions": 3}, "Expected `str`, got `int`"),
    ],
)
def test_a_change_that_cannot_be_is_told_and_nothing_changes(
    changes: dict[str, Any], words: str
) -> None:
    bench = Bench(instructions="old").live()

    bench.tell(UpdateSettings(changes))

    assert words in bench.one(Notice).text
    assert bench.events("session.update") == []
    assert bench.core.saved.changes == {}


# -- answers -------------------------------------------------------------------------------------


def test_an_answer_is_asked_for_with_its_own_instructions() -> None:
    bench = Bench(instructions="usual").live()

    bench.tell(CreateResponse("Say hello."))

    assert bench.event("response.create")["response"]["instructions"] == "Say hello."


def test_an_answer_waits_for_the_one_under_way() -> None:
    bench = Bench().live().begin()

    bench.tell(CreateResponse())
    during = bench.events("response.create")
    bench.end_item().done()

    assert during == []
    assert len(bench.events("response.create")) == 1


# -- wire events ---------------------------------------------------------------------------------


def test_nothing_is_wanted_to_begin_with() -> None:
    assert Bench().core.wire_events == frozenset()


def test_wanted_wire_events_survive_the_death_of_the_process() -> None:
    bench = Bench(wire_events=("response.done",)).live()
    before = bench.core.wire_events

    bench.tell(WantWireEvents(("response.created",)))

    assert before == {"response.done"}
    assert bench.core.wire_events == {"response.created"}
    assert bench.restarted().core.wire_events == {"response.created"}


def test_wanting_nothing_any_more_survives_too() -> None:
    bench = Bench(wire_events=("response.done",)).live().tell(WantWireEvents(()))

    assert bench.restarted().core.wire_events == frozenset()


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (wire.decode(b'{"type":"session.created"}'), "session.created"),
        (wire.decode(b'{"type":"rate_limits.updated","rate_limits":[]}'), "rate_limits.updated"),
        (wire.decode(b"no event"), ""),
        (wire.Append(b""), "input_audio_buffer.append"),
    ],
)
def test_an_event_is_known_by_its_name_on_the_wire(event: object, name: str) -> None:
    assert wire.name_of(event) == name


# -- connected -----------------------------------------------------------------------------------


def test_the_first_session_is_told_as_connected_and_each_later_one_as_reconnected() -> None:
    bench = Bench().configured()
    assert bench.one(Connected).server == "ws://test/v1"
    bench.none(Reconnected, Disconnected)
    bench.clear()

    bench.lose()
    assert "1006" in bench.one(Disconnected).cause
    bench.connect()
    bench.snapshot()
    bench.server("session.updated", session={"type": "realtime"})

    bench.one(Reconnected)
    bench.none(Connected)


def test_a_connection_that_was_never_live_is_not_told_as_lost() -> None:
    bench = Bench().connect()

    bench.lose()

    bench.none(Disconnected)
