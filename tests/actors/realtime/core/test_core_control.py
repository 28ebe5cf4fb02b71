"""Requests of the program to a running session: settings, answers, wire events."""

from __future__ import annotations

from typing import Any

import pytest

from actors.realtime import wire
from messages import (
    Connected,
    ConversationItem,
    CreateResponse,
    Disconnected,
    FlushPlayback,
    Notice,
    Reconnected,
    ReplayCapture,
    Say,
    SendText,
    ServerVad,
    ToolAnswer,
    ToolSpec,
    UpdateSettings,
    UserItem,
    WantWireEvents,
)
from tests.actors.realtime.core.bench import Bench

NEAR = {"type": "near_field"}


def changed(**changes: Any) -> UpdateSettings:
    return UpdateSettings(changes)


# -- settings ------------------------------------------------------------------------------------


def test_new_instructions_are_sent_to_a_live_session() -> None:
    bench = Bench(instructions="old").live()

    bench.tell(changed(instructions="new"))

    session = bench.event("session.update")["session"]
    assert session == {"type": "realtime", "instructions": "new"}


def test_an_unchanged_setting_is_not_sent_again() -> None:
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
        (
            {"model": "gpt-realtime-2"},
            "model: it cannot change during a conversation (the service opens a s",
        ),
        ({"max_output_tokens": 5000}, "max_output_tokens: 5000 is out of range"),
        ({"transcription_model": "gpt-live-transcribe"}, "transcribes only with push-to-talk"),
        (
            {"turn_detection": {"type": "server_vad", "threshold": 3}},
            "threshold: 3 is out of range; give a",
        ),
        (
            {"turn_detection": {"type": "server_vad", "treshold": 1}},
            "no such part; did you mean threshold?",
        ),
        ({"instructions": 3}, "instructions: 3 is not valid; give a text"),
    ],
)
def test_an_invalid_change_is_reported_and_changes_nothing(
    changes: dict[str, Any], words: str
) -> None:
    bench = Bench(instructions="old").live()

    bench.tell(UpdateSettings(changes))

    assert words in bench.one(Notice).text
    assert bench.events("session.update") == []
    assert bench.core.saved.changes == {}


def test_a_refused_part_of_a_change_does_not_prevent_the_rest() -> None:
    bench = Bench().live()

    bench.tell(UpdateSettings({"instructions": "Be brief", "noise_reduction": "near_field"}))
    bench.error("invalid_value", "session.update", param="session.audio.input.noise_reduction")
    bench.error("invalid_value", "session.update", param="session.instructions")

    assert bench.events("session.update")[1]["session"]["instructions"] == "Be brief"
    assert "noise_reduction" in bench.all(Notice)[0].text
    assert len(bench.events("session.update")) == 2


def test_a_voice_changes_until_it_was_heard() -> None:
    bench = Bench(voice="marin").live()

    bench.tell(changed(voice="cedar"))
    told = bench.event("session.update")["session"]
    bench.answer()
    bench.clear()
    bench.tell(changed(voice="verse"))
    other = bench.restarted()
    other.configured()
    other.clear()
    other.tell(changed(voice="verse"))

    assert told["audio"] == {"output": {"voice": "cedar"}}
    for each in (bench, other):
        assert "voice: it cannot change during a conversation" in each.one(Notice).text
        assert each.events("session.update") == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"output_modality": "text"}, {"output_modalities": ["text"]}),
        ({"max_output_tokens": 100}, {"max_output_tokens": 100}),
        ({"truncation": "disabled"}, {"truncation": "disabled"}),
        ({"reasoning_effort": "high"}, {"reasoning": {"effort": "high"}}),
        ({"parallel_tool_calls": False}, {"parallel_tool_calls": False}),
        ({"noise_reduction": "near_field"}, {"audio": {"input": {"noise_reduction": NEAR}}}),
        ({"turn_detection": None}, {"audio": {"input": {"turn_detection": None}}}),
    ],
)
def test_a_change_is_sent_alone_and_survives_a_death(
    changes: dict[str, Any], told: dict[str, Any]
) -> None:
    bench = Bench().live()

    bench.tell(UpdateSettings(changes))
    other = bench.restarted()

    assert bench.event("session.update")["session"] == {"type": "realtime", **told}
    assert other.core._context.settings == bench.core._context.settings


# -- turns that are not answered by themselves, speech that does not interrupt ---------------------


LISTENS = ServerVad(create_response=False)
TALKS_ON = ServerVad(interrupt_response=False)


def test_a_turn_is_kept_and_answered_when_the_program_asks() -> None:
    bench = Bench(turn_detection=LISTENS, transcription_model="gpt-transcribe").live()

    bench.speak().wait(30)
    unasked = bench.events("response.create")
    bench.tell(CreateResponse())

    assert bench.one(UserItem).item_id == "u1"
    assert unasked == []
    assert len(bench.events("response.create")) == 1


def test_unwanted_answers_are_not_requested_after_a_reconnect_either() -> None:
    bench = Bench(turn_detection=LISTENS, transcription_model="gpt-transcribe").live().speak()
    kind = "conversation.item.input_audio_transcription.completed"
    bench.server(kind, item_id="u1", transcript="Hello")
    bench.history = [ConversationItem("u1", "message", "user", "Hello")]

    bench.lose().clear_but_requests()
    bench.configured().wait(10)

    assert [item["id"] for item in bench.items()] == ["msg_u1"]
    assert bench.events("response.create") == []


def test_only_the_newest_unanswered_turns_are_remembered() -> None:
    bench = Bench(turn_detection=LISTENS, transcription_model="gpt-transcribe").live()

    for number in range(100):
        bench.speak(f"u{number}", 1000 * number, 1000 * number + 500)

    assert len(bench.core.saved.turns) == 20


def test_speech_that_does_not_interrupt_is_not_answered_by_the_answer_under_way() -> None:
    bench = Bench(turn_detection=TALKS_ON, transcription_model="gpt-transcribe").live()
    bench.capture(0, 3 * 24_000).begin().say()
    bench.speak()
    bench.server("error", error={"code": "conversation_already_has_active_response"})
    bench.end_item().done()

    other = bench.restarted()
    other.configured()

    assert other.one(ReplayCapture).from_sample == 0  # or nobody would know what was said


def test_speech_that_does_not_interrupt_is_answered_after_the_answer_under_way() -> None:
    bench = Bench(turn_detection=TALKS_ON).live().begin().say()

    bench.speak()
    bench.server("error", error={"code": "conversation_already_has_active_response"})
    during = [*bench.events("response.create"), *bench.all(FlushPlayback)]
    bench.end_item().done().wait(1)

    assert during == []
    assert bench.events("conversation.item.truncate") == []
    assert len(bench.events("response.create")) == 1


# -- tools that have to be called ------------------------------------------------------------------


FORCED = {"tool_choice": "required", "tools": (ToolSpec("clock", "", {}),)}


def test_only_the_first_answer_of_a_turn_has_to_call_a_tool() -> None:
    bench = Bench(**FORCED).live()

    bench.tell(SendText("What time is it?", "t1"))
    first = bench.event("response.create")["response"]
    bench.server("response.created", response={"id": "r1"}).call().done()
    bench.clear()
    bench.tell(ToolAnswer("c1", "clock", "12:00"))
    second = bench.event("response.create")["response"]

    assert "tool_choice" not in first
    assert second["tool_choice"] == "auto"


def test_without_a_forced_tool_no_tool_choice_is_sent() -> None:
    bench = Bench(tools=FORCED["tools"]).live()

    bench.server("response.created", response={"id": "r1"}).call().done()
    bench.tell(ToolAnswer("c1", "clock", "12:00"))

    assert "tool_choice" not in bench.event("response.create")["response"]


@pytest.mark.parametrize("greeting", [None, "Welcome!"])
def test_a_sentence_of_the_program_calls_no_tool(greeting: str | None) -> None:
    bench = Bench(**FORCED, greeting=greeting).configured()

    if greeting is None:
        bench.tell(Say("One moment."))

    assert bench.event("response.create")["response"]["tool_choice"] == "none"


@pytest.mark.parametrize("turn_first", [True, False])
def test_a_turn_that_waits_with_outputs_of_others_calls_a_tool(turn_first: bool) -> None:
    bench = Bench(**FORCED).live()
    bench.server("response.created", response={"id": "r1"}).call().done()
    bench.server("response.created", response={"id": "r2"})

    messages = [SendText("And there?", "t1"), ToolAnswer("c1", "clock", "12:00")]
    for message in messages if turn_first else reversed(messages):
        bench.tell(message)
    bench.flushed("", 0).done("r2", "cancelled")

    assert "tool_choice" not in bench.event("response.create")["response"]


# -- answers -------------------------------------------------------------------------------------


def test_a_response_is_requested_with_its_own_instructions() -> None:
    bench = Bench(instructions="usual").live()

    bench.tell(CreateResponse("Say hello."))

    assert bench.event("response.create")["response"]["instructions"] == "Say hello."


def test_a_requested_response_waits_for_the_active_one() -> None:
    bench = Bench().live().begin()

    bench.tell(CreateResponse())
    during = bench.events("response.create")
    bench.end_item().done()

    assert during == []
    assert len(bench.events("response.create")) == 1


# -- wire events ---------------------------------------------------------------------------------


def test_no_wire_events_are_subscribed_at_first() -> None:
    assert Bench().core.wire_events == frozenset()


def test_subscriptions_to_wire_events_survive_the_death_of_the_process() -> None:
    bench = Bench(wire_events=("response.done",)).live()
    before = bench.core.wire_events

    bench.tell(WantWireEvents(("response.created",)))

    assert before == {"response.done"}
    assert bench.core.wire_events == {"response.created"}
    assert bench.restarted().core.wire_events == {"response.created"}


def test_unsubscribing_from_wire_events_survives_too() -> None:
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


def test_the_first_session_is_published_as_connected_later_ones_as_reconnected() -> None:
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


def test_a_connection_that_was_never_live_is_not_published_as_lost() -> None:
    bench = Bench().connect()

    bench.lose()

    bench.none(Disconnected)
