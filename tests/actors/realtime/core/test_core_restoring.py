"""Recovery after a lost connection, and after the death of the process."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from actors.conversation import Conversation
from actors.realtime.core.actions import SaveState
from actors.realtime.core.restore import GO_ON, wire_id
from messages import (
    AssistantAudio,
    AssistantItem,
    AudioLost,
    ConversationItem,
    CreateResponse,
    FlushPlayback,
    HistorySnapshot,
    Interrupt,
    Interrupted,
    ItemPlaced,
    ItemRemoved,
    Message,
    Notice,
    OutputReplaced,
    PlaybackLost,
    PlayedPosition,
    Reconnected,
    ReplayCapture,
    ReplayedAudio,
    ReplayEnded,
    ResponseEnded,
    SendText,
    SetSpeed,
    ToolAnswer,
    ToolCall,
    ToolsAvailable,
    ToolSpec,
    UserItem,
    UserTranscript,
)
from tests.actors.realtime.core.bench import Bench

TRANSCRIBE = {"transcription_model": "gpt-transcribe"}


def _user(item_id: str, text: str, **fields: Any) -> ConversationItem:
    return ConversationItem(item_id, "message", "user", text, **fields)


def _assistant(item_id: str, text: str, **fields: Any) -> ConversationItem:
    return ConversationItem(item_id, "message", "assistant", text, **fields)


def _call(call_id: str = "c1", item_id: str = "f1") -> ConversationItem:
    return ConversationItem(item_id, "function_call", call_id=call_id, name="clock", arguments="{}")


def _output(call_id: str = "c1", output: str = "12:00") -> ConversationItem:
    return ConversationItem(f"o{call_id}", "function_call_output", call_id=call_id, output=output)


def _heard(bench: Bench, text: str, item_id: str = "u1") -> Bench:
    return bench.server(
        "conversation.item.input_audio_transcription.completed",
        item_id=item_id,
        content_index=0,
        transcript=text,
    )


def _again(bench: Bench, how: str) -> Bench:
    """Lose the connection, or the process; be configured again."""
    if how == "connection":
        bench.lose()
        bench.wait(0.1)
    else:
        bench = bench.restarted()
    bench.clear_but_requests()
    return bench.configured()


both = pytest.mark.parametrize("how", ["connection", "process"])


# -- replay ----------------------------------------------------------------------------------------


@both
def test_the_conversation_is_replayed_to_the_new_session(how: str) -> None:
    bench = Bench().live()
    bench.history = [
        _user("u1", "Hello"),
        _assistant("a1", "Good day", interrupted=True),
        _call(),
        _output(),
        _assistant("a2", ""),
    ]

    bench = _again(bench, how)

    assert [(i["id"], i["type"], i.get("role")) for i in bench.items()] == [
        ("msg_u1", "message", "user"),
        ("msg_a1", "message", "assistant"),
        ("fc_f1", "function_call", None),
        ("fco_oc1", "function_call_output", None),
    ]
    assert bench.items()[0]["content"] == [{"type": "input_text", "text": "Hello"}]
    assert bench.items()[1]["content"] == [{"type": "output_text", "text": "Good day"}]
    told = bench.one(Reconnected)
    assert (told.state_restored, told.items) == (True, 4)


def test_the_configuration_comes_before_the_items() -> None:
    bench = Bench().live()
    bench.history = [_user("u1", "Hello")]

    bench = _again(bench, "connection")

    assert bench.kinds() == ["session.update", "conversation.item.create"]


def test_ids_that_the_api_does_not_take_are_shortened_and_known_to_history() -> None:
    bench = Bench().live()
    long = "u" * 50
    bench.history = [_user(long, "Hello")]

    bench = _again(bench, "connection")
    bench.server("input_audio_buffer.committed", item_id="u2", previous_item_id=wire_id(long))

    assert len(bench.items()[0]["id"]) <= 32
    assert bench.one(UserItem).previous_item_id == long


def test_without_the_history_it_continues_and_reports_that() -> None:
    bench = Bench().live().lose()
    bench.connect()

    bench.wait(2.1)
    bench.server("session.updated", session={})

    assert not bench.one(Reconnected).state_restored


def test_a_turn_without_text_and_audio_is_reported_as_missing() -> None:
    bench = Bench().live()
    bench.history = [_user("u1", "Hi"), ConversationItem("u2", "message", transcribed=False)]

    bench = _again(bench, "connection")

    told = bench.one(Reconnected)
    assert (told.state_restored, told.items, told.missing) == (False, 1, 1)


def test_a_resumed_session_does_not_greet_again() -> None:
    bench = Bench(greeting="Hi!").live()
    bench.begin().say().end_item().done()
    bench.played()

    for how in ("connection", "process"):
        bench = _again(bench, how)
        assert bench.events("response.create") == []


def test_a_greeting_that_was_never_heard_is_said() -> None:
    bench = Bench(greeting="Hi!").configured()

    bench = _again(bench, "process")

    assert "Hi!" in bench.event("response.create")["response"]["instructions"]


def test_speed_and_tools_of_before_are_configured() -> None:
    spec = ToolSpec("clock", "", {"type": "object"})
    bench = Bench(tools=(spec,)).live().tell(SetSpeed(1.4))

    bench = _again(bench, "process")

    session = bench.event("session.update")["session"]
    assert session["audio"]["output"]["speed"] == 1.4
    assert session["tools"][0]["name"] == "clock"


def test_what_comes_after_an_item_that_was_not_replayed_is_still_after_it() -> None:
    bench = Bench().live()
    bench.history = [_user("u1", "Hi"), _assistant("a1", "Hello"), _user("u2", "")]

    bench = _again(bench, "connection")
    bench.server("input_audio_buffer.committed", item_id="u3", previous_item_id="msg_a1")

    assert bench.one(UserItem).previous_item_id == "u2"


def test_the_gap_and_its_cause_are_published() -> None:
    bench = Bench().live().lose(1011, "keepalive ping timeout")
    bench.wait(1.5)

    bench.configured()

    told = bench.one(Reconnected)
    assert told.gap_ms == 1500
    assert "1011" in told.cause


# -- unanswered turns ------------------------------------------------------------------------------


def _say(bench: Bench, item_id: str = "u1", start: float = 1000, end: float = 2000) -> Bench:
    for sample in range(0, int(end * 24), 960):
        bench.capture(sample)
    return bench.speak(item_id, start, end)


@both
def test_unanswered_speech_without_text_is_sent_again_and_leaves_the_history(how: str) -> None:
    bench = _say(Bench(**TRANSCRIBE).live())
    bench.history = [_user("u1", "", transcribed=False)]

    bench = _again(bench, how)

    assert bench.one(ReplayCapture).from_sample == 24000
    assert bench.one(ItemRemoved).item_id == "u1"
    assert bench.items() == []
    assert bench.events("response.create") == []
    bench.none(UserTranscript)


@both
def test_unanswered_speech_with_text_is_replayed_as_text_and_answered(how: str) -> None:
    bench = _heard(_say(Bench(**TRANSCRIBE).live()), "What now?")
    bench.history = [_user("u1", "What now?")]

    bench = _again(bench, how)

    bench.none(ItemRemoved)
    assert bench.one(ReplayCapture).from_sample == 48000
    assert [item["id"] for item in bench.items()] == ["msg_u1"]
    assert len(bench.events("response.create")) == 1


@both
def test_unanswered_text_is_asked_again(how: str) -> None:
    bench = Bench().live().tell(SendText("Well?", "t1"))
    bench.added("msg_t1").begin()
    bench.history = [_user("t1", "Well?")]

    bench = _again(bench, how)

    assert [item["id"] for item in bench.items()] == ["msg_t1"]
    assert len(bench.events("response.create")) == 1


@both
def test_text_that_history_does_not_know_yet_is_not_lost(how: str) -> None:
    bench = Bench().live().tell(SendText("Well?", "t1"))

    bench = _again(bench, how)

    assert [item["id"] for item in bench.items()] == ["msg_t1"]
    assert len(bench.events("response.create")) == 1


@both
def test_answered_speech_is_not_sent_again(how: str) -> None:
    bench = _say(Bench().live()).answer()
    bench.history = [_user("u1", "", transcribed=False), _assistant("a1", "Hello there")]

    bench = _again(bench, how)

    assert bench.one(ReplayCapture).from_sample == 48000
    bench.none(ItemRemoved)
    assert [item["id"] for item in bench.items()] == ["msg_a1"]
    assert bench.events("response.create") == []


def test_the_first_half_of_a_question_is_sent_again() -> None:
    bench = _say(Bench().live()).answer().played()
    for sample in range(48000, 96000, 960):
        bench.capture(sample)
    bench.server("input_audio_buffer.speech_started", item_id="u2", audio_start_ms=3000)

    bench = _again(bench, "connection")

    assert bench.one(ReplayCapture).from_sample == 72000


@pytest.mark.parametrize(("remembered_from", "lost_ms"), [(24000, 0), (96000, 3000), (None, 9000)])
def test_speech_that_nobody_can_replay_is_reported_as_lost(
    remembered_from: int | None, lost_ms: int
) -> None:
    bench = Bench().live()
    for sample in range(0, 240000, 960):
        bench.capture(sample)
    bench.server("input_audio_buffer.speech_started", item_id="u1", audio_start_ms=1000)
    bench.lose().clear_but_requests()
    bench.configured()
    request_id = bench.one(ReplayCapture).request_id

    if remembered_from is not None:
        bench.tell(ReplayedAudio(bytes(1920), remembered_from, request_id))
        bench.tell(ReplayedAudio(bytes(1920), remembered_from + 960, request_id))
    bench.tell(ReplayEnded(240000, request_id))

    lost = [(event.component, event.audio_ms) for event in bench.all(AudioLost)]
    assert lost == ([("realtime", lost_ms)] if lost_ms else [])


def test_a_question_before_a_long_outage_is_sent_as_audio_and_answered() -> None:
    bench = Bench(**TRANSCRIBE).live()
    for sample in range(0, 48000, 960):
        bench.capture(sample)
    bench.speak("u1", 500, 1500).lose()
    place = {"first_sample": 12000, "last_sample": 36000}
    bench.history = [ConversationItem("u1", "message", transcribed=False, **place)]

    for sample in range(48000, 41 * 24000, 960):
        bench.capture(sample)
    bench.clear_but_requests()
    bench.configured()

    bench.none(ItemRemoved)
    assert [part["type"] for part in bench.items()[0]["content"]] == ["input_audio"]
    assert len(bench.events("response.create")) == 1


def test_after_a_death_everything_since_the_last_answer_is_sent_again() -> None:
    bench = _say(Bench().live()).answer().played()
    for sample in range(48000, 96000, 960):
        bench.capture(sample)
    bench.server("input_audio_buffer.speech_started", item_id="u2", audio_start_ms=3000)

    bench = _again(bench, "process")

    assert bench.one(ReplayCapture).from_sample == 48000


def test_speech_that_was_sent_again_is_answered_before_other_things() -> None:
    bench = _say(Bench().live()).begin().call("c1").done()
    for sample in range(48000, 96000, 960):
        bench.capture(sample)
    bench.server("input_audio_buffer.speech_started", item_id="u2", audio_start_ms=3000)
    bench.tell(ToolAnswer("c1", "clock", "12:00"))
    bench.history = [_call(), _output()]

    bench = _again(bench, "connection")
    assert bench.events("response.create") == []
    bench.wait(3.1)

    assert len(bench.events("response.create")) == 1


def test_the_same_speech_is_not_sent_again_for_ever() -> None:
    bench = _say(Bench(**TRANSCRIBE).live(), "u0")
    for number in range(1, 5):
        bench.history = [_user(f"u{number - 1}", "", transcribed=False)]
        bench = _again(bench, "process")
        if number == 4:
            break
        assert bench.one(ItemRemoved).item_id == f"u{number - 1}"
        assert bench.one(ReplayCapture).from_sample == 24000
        bench.tell(ReplayEnded(24000, bench.one(ReplayCapture).request_id))
        for sample in range(24000, 48000, 960):
            bench.capture(sample)
        bench.speak(f"u{number}", 0, 1000)

    bench.none(ItemRemoved)
    assert bench.one(ReplayCapture).from_sample >= 48000
    assert "again" in bench.one(Notice).text


def test_two_unanswered_turns_are_sent_again_from_the_first_without_text() -> None:
    bench = _say(Bench(**TRANSCRIBE).live(), "u1", 0, 1000)
    _say(bench, "u2", 1500, 2000)
    _heard(bench, "Second", "u2")
    bench.history = [_user("u1", "", transcribed=False), _user("u2", "Second")]

    bench = _again(bench, "process")

    assert [removed.item_id for removed in bench.all(ItemRemoved)] == ["u1", "u2"]
    assert bench.one(ReplayCapture).from_sample == 0


def test_speech_whose_text_will_never_come_is_settled() -> None:
    bench = _say(Bench(**TRANSCRIBE).live()).answer()

    bench = _again(bench, "connection")

    assert bench.one(UserTranscript).error


def test_a_turn_that_the_saved_state_lacks_is_not_waited_for_either() -> None:
    """The process has died after publishing it, before saving its state."""
    bench = Bench(**TRANSCRIBE).live()
    bench.history = [_user("u1", "", transcribed=False)]

    bench = _again(bench, "process")

    assert bench.one(UserTranscript).item_id == "u1"
    assert bench.one(UserTranscript).error


# -- answers that were under way -------------------------------------------------------------------


@both
def test_an_answer_of_which_nothing_was_heard_is_requested_again(how: str) -> None:
    bench = Bench().live().tell(SendText("Well?", "t1")).added("t1")
    bench.begin()
    bench.history = [_user("t1", "Well?")]

    bench = _again(bench, how)

    assert len(bench.events("response.create")) == 1


@both
def test_an_answer_that_is_cut_off_repeatedly_is_resumed_three_times(how: str) -> None:
    bench = Bench().live().tell(SendText("Well?", "t1")).added("t1")
    bench.begin().say("It is", 500)
    bench.history = [_user("t1", "Well?"), _assistant("a1", "It is", complete=False)]

    for number in range(2, 5):
        bench = _again(bench, how)
        assert GO_ON in bench.event("response.create")["response"]["instructions"]
        ids = f"r{number}", f"a{number}"
        bench.begin(*ids).say("noon", 300, *ids)
        bench.history.append(_assistant(ids[1], "noon", complete=False))
    bench = _again(bench, how)

    assert bench.events("response.create") == []


def test_received_audio_of_a_lost_answer_is_played_to_its_end() -> None:
    bench = Bench().live().begin().say("It is", 500)
    bench.clear()

    bench.lose()

    bench.none(FlushPlayback)
    audio = bench.one(AssistantAudio)
    assert (audio.item_id, audio.pcm, audio.first_sample, audio.last) == ("a1", b"", 12000, True)
    item = bench.one(AssistantItem)
    assert (item.status, item.text, item.audio_samples) == ("incomplete", "It is", 12000)
    assert bench.one(ResponseEnded).status == "failed"


def test_after_a_death_too_history_learns_how_the_answer_ended() -> None:
    bench = Bench().live().begin().say("It is", 500)
    bench.history = [_user("u1", "Well?"), _assistant("a1", "It is", complete=False)]

    bench = bench.restarted()
    assert bench.one(AssistantAudio).last
    bench.configured()

    item = bench.one(AssistantItem)
    assert (item.item_id, item.status, item.text) == ("a1", "incomplete", "It is")
    assert item.previous_item_id == "u1"


def test_an_end_that_was_lost_with_the_supervisor_is_published_again() -> None:
    bench = Bench().live().begin().say("It is", 500)
    bench.lose()  # the end of the answer is published, and lost
    bench.history = [_assistant("a1", "It is", complete=False, interrupted=True)]

    again = bench.restarted()
    again.clear_but_requests()
    again.configured().none(AssistantItem)
    again = bench.restarted(resumed="supervisor")
    again.clear_but_requests()
    again.configured()

    assert again.one(AssistantItem).status == "incomplete"


@both
def test_a_complete_answer_is_not_requested_again(how: str) -> None:
    bench = Bench().live().tell(SendText("Well?", "t1")).answer()
    bench.history = [_user("t1", "Well?"), _assistant("a1", "Hello there")]

    bench = _again(bench, how)

    assert bench.events("response.create") == []


@both
def test_a_complete_answer_without_its_done_event_is_not_resumed(how: str) -> None:
    bench = Bench().live().tell(SendText("Well?", "t1")).begin().say().end_item()
    bench.history = [_user("t1", "Well?"), _assistant("a1", "Hello there")]

    bench = _again(bench, how)

    assert bench.events("response.create") == []


@both
@pytest.mark.parametrize(("phase", "asks"), [("commentary", True), ("final_answer", False)])
def test_an_answer_that_was_only_announced_is_resumed(how: str, phase: str, asks: bool) -> None:
    bench = Bench().live().tell(SendText("Well?", "t1")).begin()
    bench.say("Let me see.").end_item("Let me see.", phase=phase)
    bench.history = [_user("t1", "Well?"), _assistant("a1", "Let me see.")]

    bench = _again(bench, how)

    creates = [event["response"]["instructions"] for event in bench.events("response.create")]
    assert creates == ([GO_ON] if asks else [])


@both
def test_an_interrupted_answer_is_not_resumed(how: str) -> None:
    bench = Bench().live().begin().say("It is", 500)
    bench.server("input_audio_buffer.speech_started", item_id="u2", audio_start_ms=0)
    bench.flushed("a1", 100)

    bench = _again(bench, how)

    assert bench.events("response.create") == []


def test_a_requested_answer_that_had_not_begun_is_requested_again() -> None:
    bench = Bench(tools=()).live().begin().call("c1").done()
    bench.tell(ToolAnswer("c1", "clock", "12:00"))
    assert bench.events("response.create")
    bench.history = [_call(), _output()]

    bench = _again(bench, "process")

    assert len(bench.events("response.create")) == 1


@both
@pytest.mark.parametrize(("before", "asks"), [("answer", 0), ("cut answer", 1), ("question", 1)])
def test_an_answer_to_noise_is_requested_again_only_if_something_is_unanswered(
    how: str, before: str, asks: int
) -> None:
    items = {
        "answer": [_user("u1", "Hi"), _assistant("a1", "Hello")],
        "cut answer": [_user("u1", "Hi"), _assistant("a1", "Hel", interrupted=True)],
        "question": [_user("u1", "Hi")],
    }
    bench = Bench().live()
    bench.server("response.created", response={"id": "r2"})  # it has nothing to say so far
    bench.history = [*items[before], _user("u2", "")]

    bench = _again(bench, how)

    assert len(bench.events("response.create")) == asks


# -- what is still being played --------------------------------------------------------------------


@both
def test_an_interruption_of_old_audio_is_not_sent_to_the_new_session(how: str) -> None:
    bench = Bench().live().answer(text="one two three four", ms=2000)
    bench.history = [_assistant("a1", "one two three four")]
    bench = _again(bench, how)
    bench.clear()

    bench.server("input_audio_buffer.speech_started", item_id="u2", audio_start_ms=0)
    bench.flushed("a1", 1000)

    assert bench.flushes() == 1
    assert bench.events("conversation.item.truncate") == []
    assert bench.one(Interrupted) == Interrupted("a1", 1000, "one two")


def test_audio_of_a_forgotten_item_can_be_interrupted() -> None:
    bench = Bench(first=False).live()
    bench.tell(PlayedPosition("a9", 24000, bench.now))

    bench.server("input_audio_buffer.speech_started", item_id="u2", audio_start_ms=0)

    assert bench.flushes() == 1


# -- tools -----------------------------------------------------------------------------------------


@both
def test_an_answer_that_comes_while_there_is_no_connection_is_sent_later(how: str) -> None:
    bench = Bench().live().begin().call("c1").done()
    bench.lose()
    bench.tell(ToolAnswer("c1", "clock", "12:00"))
    bench.history = [_call()]
    if how == "process":
        bench = bench.restarted()
    bench.clear_but_requests()

    bench.configured()

    assert [(i["type"], i["call_id"]) for i in bench.items()] == [
        ("function_call", "c1"),
        ("function_call_output", "c1"),
    ]
    assert len(bench.events("response.create")) == 1


@both
def test_a_call_under_way_gets_its_output_when_it_comes(how: str) -> None:
    bench = Bench().live().begin().call("c1").done()
    bench.history = [_call()]
    bench = _again(bench, how)
    assert [item["type"] for item in bench.items()] == ["function_call"]
    assert bench.events("response.create") == []

    bench.tell(ToolAnswer("c1", "clock", "12:00"))
    bench.tell(ToolAnswer("c1", "clock", "13:00"))

    assert [item.get("output") for item in bench.items()] == [None, "12:00"]
    assert len(bench.events("response.create")) == 1


@both
def test_an_output_that_history_has_is_sent_once(how: str) -> None:
    bench = Bench().live().begin().call("c1").done()
    bench.history = [_call(), _output()]

    bench = _again(bench, how)
    bench.tell(ToolAnswer("c1", "clock", "13:00"))

    assert [item.get("output") for item in bench.items()] == [None, "12:00"]
    assert len(bench.events("response.create")) == 1


@both
def test_an_output_that_only_the_next_server_refuses_is_replaced_there(how: str) -> None:
    bench = Bench().live().begin().call("c1").done()
    bench.history = [_call(), _output()]
    bench = _again(bench, how)

    bench.error("string_above_max_length", "conversation.item.create", message="too long")

    old, new = [item for item in bench.items() if "output" in item]
    assert (new["id"], new["call_id"]) == (old["id"], "c1")
    assert bench.one(OutputReplaced) == OutputReplaced("c1", new["output"])
    assert "clock" in new["output"]
    assert "too long" in new["output"]


@pytest.mark.parametrize("others", [0, 1])
def test_a_replaced_output_is_replayed_before_history_has_it(others: int) -> None:
    bench = Bench().live().begin().call("c1")
    for _ in range(others):
        bench.call("c2", item_id="f2")
    bench.done().tell(ToolAnswer("c1", "clock", "12:00"))
    bench.error("string_above_max_length", "conversation.item.create")
    bench.history = [_call()]

    bench = _again(bench, "connection")

    (output,) = [item["output"] for item in bench.items() if "output" in item]
    assert "could not be given" in output


def test_an_old_output_that_the_next_server_refuses_is_replaced_and_not_spoken_about() -> None:
    bench = Bench(first=False)
    bench.history = [_call(), _output()]
    bench.configured()

    bench.error("string_above_max_length", "conversation.item.create")

    assert [item.get("output", "")[:9] for item in bench.items()] == ["", "12:00", "clock has"]
    assert bench.events("response.create") == []


@both
def test_a_call_that_history_lost_is_replayed_with_its_output(how: str) -> None:
    bench = Bench().live().begin().call("c1").done()

    bench = _again(bench, how)
    bench.tell(ToolAnswer("c1", "clock", "12:00"))

    assert [item["type"] for item in bench.items()] == ["function_call", "function_call_output"]


def test_a_call_that_only_history_knows_can_be_answered() -> None:
    bench = Bench(first=False)
    bench.history = [_call()]
    bench.tell(ToolAnswer("c1", "clock", "12:00"))

    bench.configured()

    assert [item.get("output") for item in bench.items()] == [None, "12:00"]
    assert len(bench.events("response.create")) == 1


def test_what_follows_an_output_follows_it_in_history_too() -> None:
    bench = Bench().live().begin().call("c1").done()
    bench.tell(ToolAnswer("c1", "clock", "12:00"))
    output = bench.items()[0]["id"]
    bench.added(output, type="function_call_output")
    bench.answer("r2", "a2")

    assert output == "fco_c1"
    assert bench.all(AssistantItem)[-1].previous_item_id == "fco_c1"


def test_a_text_that_history_has_is_not_taken_back() -> None:
    bench = _say(Bench(**TRANSCRIBE).live()).answer()
    bench.history = [_user("u1", "Hello")]

    bench = _again(bench, "process")

    bench.none(UserTranscript)


def test_a_call_that_was_saved_and_maybe_not_published_is_published_again() -> None:
    bench = Bench().live().begin().call("c1").done()
    bench.history = [_user("u1", "What time is it?")]
    published = bench.one(ToolCall)

    call = _again(bench, "process").one(ToolCall)

    assert (call.call_id, call.name, call.item_id) == ("c1", published.name, published.item_id)
    assert call.previous_item_id == "u1"


def test_a_call_is_saved_before_it_is_published() -> None:
    bench = Bench().live().begin()
    bench.clear()

    bench.call("c1").done()

    kinds = [type(getattr(action, "message", action)) for action in bench.actions]
    assert kinds.index(SaveState) < kinds.index(ToolCall)


def test_a_call_of_an_earlier_session_that_was_not_answered_has_an_unknown_outcome() -> None:
    bench = Bench().live().begin().call("c1").done()
    bench.history = [_call()]

    again = bench.restarted(resumed="journal")

    assert "unknown" in again.one(ToolAnswer).output
    again.none(ToolCall)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_call_that_has_its_output_is_published_again_only_if_history_lacks_it(
    recorded: bool,
) -> None:
    bench = Bench().live().begin().call("c1")
    bench.tell(ToolAnswer("c1", "clock", "12:00"))
    bench.history = [_call()] if recorded else []

    published = [call.call_id for call in _again(bench, "process").all(ToolCall)]

    assert published == ([] if recorded else ["c1"])


def _told(bench: Bench, *before: Message) -> list[str]:
    """Return the order of history after these messages, and what the bench has published."""
    history = Conversation()
    for message in (*before, *bench.published):
        history.apply(message, 0.0)
    return [item.item_id for item in history.items()]


@pytest.mark.parametrize("resumed", ["", "supervisor"])
@pytest.mark.parametrize("knows_history", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_a_call_that_is_published_again_keeps_its_place(
    resumed: str, knows_history: bool, first: bool
) -> None:
    """Also if history is silent, and where the new session is sent nothing before the call."""
    bench = Bench(transcription_model=None).live().begin().call("c1").done()
    bench.tell(SendText("Hello?", "t1"))
    known = [] if first else [UserItem("u1", None, "What time is it?", False, False, 0, 0)]
    known += [ToolCall("c1", "clock", "{}", "f1", None if first else "u1")]
    known += [UserItem("t1", "f1", "Hello?", False, False, 0, 0)]
    again = bench.restarted(resumed=resumed)
    again.history = [_user("u1", "What time is it?")] * (not first)
    again.history += [_call(), _user("t1", "Hello?")]
    again.clear_but_requests()

    if knows_history:
        again.configured()
    else:
        again.connect().wait(3)

    call = again.one(ToolCall)
    assert (call.call_id, call.previous_item_id) == ("c1", None)
    assert _told(again, *known) == [*(["u1"] * (not first)), "f1", "t1"]


@pytest.mark.parametrize("resumed", ["", "supervisor"])
def test_an_output_that_only_the_server_was_sent_is_known_to_the_next_process(
    resumed: str,
) -> None:
    """It had come straight; history and the others get another one, or the same, or none."""
    bench = Bench().live().speak().begin().call("c1").done("r1")
    bench.tell(ToolAnswer("c1", "clock", "12:00", item_id="o1"))
    known = bench.outputs()
    bench.answer("r2", "a1")
    again = bench.restarted(resumed=resumed, outputs=known)
    again.history = [_user("u1", "What time is it?"), _call(), _assistant("a1", "Noon")]
    again.tell(ToolAnswer("c1", "clock", "it did not finish", failed=True, item_id="o1"))
    again.clear_but_requests()

    again.configured()

    assert [item.get("output") for item in again.items()] == [None, None, "12:00", None]
    assert again.one(OutputReplaced) == OutputReplaced("c1", "12:00")
    places = [(m.item_id, m.previous_item_id) for m in again.all(ItemPlaced)]
    assert places == [("o1", "f1"), ("a1", "o1")]
    again.none(ToolCall)
    assert not [each for each in again.sent if each["type"] == "response.create"]


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("resumed", ["supervisor", "journal"])
def test_a_call_that_only_history_has_is_published_again_until_a_session_knows_of_it(
    resumed: str, dies: bool
) -> None:
    bench = Bench().live()
    bench.history = [_user("u1", "What time is it?"), _call("c9", "f9")]
    again = bench.restarted(resumed=resumed)
    if dies:
        again.wait(0.1)
        again = again.restarted()
    again.tell(ToolsAvailable(())).clear_but_requests()

    again.configured()

    assert [call.call_id for call in again.all(ToolCall)] == ["c9"]


@pytest.mark.parametrize("dies", ["", "supervisor"])
def test_a_call_without_state_is_answered_as_unknown_though_somebody_dies_first(dies: str) -> None:
    """First: before the first session was told the conversation."""
    bench = Bench(resumed="journal").wait(0.1)
    bench.history = [_user("u1", "What time is it?"), _call()]

    again = bench.restarted(resumed=dies)
    again.clear_but_requests()
    again.configured()

    assert "unknown" in again.one(ToolAnswer).output
    assert [item["type"] for item in again.items()][-1] == "function_call_output"


@pytest.mark.parametrize("dies", ["", "supervisor"])
def test_a_call_of_another_day_is_not_run_though_somebody_dies_first(dies: str) -> None:
    bench = Bench().live().begin().call("c1").done()
    again = bench.restarted(resumed="journal")
    assert "unknown" in again.one(ToolAnswer).output

    again = again.restarted(resumed=dies)
    again.history = [_user("u1", "What time is it?")]  # the call is lost
    again.tell(ToolsAvailable(())).clear_but_requests()
    again.configured()

    assert [item["type"] for item in again.items()][1:] == ["function_call", "function_call_output"]
    again.none(ToolCall)


@pytest.mark.parametrize("how", ["silent", "dies"])
def test_a_typed_text_that_was_lost_is_published_though_the_first_session_cannot(how: str) -> None:
    bench = Bench().live().tell(SendText("Hello?", "t1")).added("msg_t1")
    bench.history = [_user("u1", "Hm")]
    again = bench.restarted(resumed="supervisor").wait(0.1)
    if how == "dies":
        again = again.restarted()
    else:
        again.connect().wait(3)
        again.none(UserItem)
        again.lose().wait(0.1)
    again.clear_but_requests()

    again.configured()

    assert [(item.item_id, item.previous_item_id) for item in again.all(UserItem)] == [("t1", "u1")]


def test_a_call_that_is_answered_is_not_published_again_to_a_history_that_is_silent() -> None:
    """It may well have it."""
    bench = Bench().live().begin().call("c1")
    bench.tell(ToolAnswer("c1", "clock", "12:00", item_id="oc1"))
    again = bench.restarted(outputs=bench.outputs())
    again.tell(ToolsAvailable(())).clear_but_requests()

    again.connect().wait(3)

    assert [item["type"] for item in again.items()] == ["function_call", "function_call_output"]
    again.none(ToolCall)


def test_no_answer_is_requested_while_another_call_still_runs() -> None:
    bench = Bench().live().begin().call("c1").call("c2", item_id="f2").done()
    bench.tell(ToolAnswer("c1", "clock", "12:00", item_id="oc1"))
    bench.history = [_user("u1", "?"), _call(), _call("c2", "f2"), _output()]
    again = _again(bench, "process").restarted(resumed="supervisor")
    again.clear_but_requests()

    again.configured()

    assert again.events("response.create") == []
    again.tell(ToolAnswer("c2", "clock", "13:00", item_id="oc2"))
    again.added("fco_oc2")
    assert len(again.events("response.create")) == 1


@pytest.mark.parametrize("history_knows", [True, False])
def test_an_answer_that_was_cut_off_is_not_gone_on_with_while_a_call_runs(
    history_knows: bool,
) -> None:
    bench = Bench().live().begin("r0", "a0").audio(b"\1" * 48_000, "r0", "a0").done("r0")
    bench.begin("r1", "a1").call("c1", "r1").done("r1")
    bench.history = [_assistant("a0", ""), _user("u1", "What time is it?")]
    bench.history += [_call()] * history_knows
    again = bench.restarted(resumed="supervisor").tell(PlaybackLost("a0", 0))
    again.clear_but_requests()

    again.configured()

    assert again.events("response.create") == []
    again.tell(ToolAnswer("c1", "clock", "12:00", item_id="oc1"))
    again.added("fco_oc1")
    assert len(again.events("response.create")) == 1


def test_the_output_that_the_server_was_sent_counts_after_a_death_too() -> None:
    bench = Bench().live().begin().call("c1")
    bench.tell(ToolAnswer("c1", "clock", "12:00"))
    again = _again(bench, "process")

    again.tell(ToolAnswer("c1", "clock", "outcome unknown", failed=True))

    assert again.one(OutputReplaced) == OutputReplaced("c1", "12:00")


def test_calls_are_not_run_again() -> None:
    bench = Bench().live().begin().call("c1").done()
    bench.history = [_call()]

    bench = _again(bench, "connection")

    bench.none(ToolCall)


# -- nothing of the old connection counts ----------------------------------------------------------


def test_a_snapshot_for_an_earlier_request_is_ignored() -> None:
    bench = Bench().live().lose().connect()

    bench.tell(HistorySnapshot(1, (_user("old", "old"),)))

    assert bench.sent == []


def test_a_second_loss_while_restoring_loses_nothing() -> None:
    bench = _say(Bench(**TRANSCRIBE).live())
    bench.history = [_user("u1", "", transcribed=False)]
    bench.lose()
    bench.connect().snapshot()
    bench.history = []
    bench.lose()
    bench.clear_but_requests()

    bench.configured()

    assert bench.one(ReplayCapture).from_sample == 24000


def test_captured_audio_waits_for_the_replay_of_the_new_session() -> None:
    bench = Bench().live()
    bench = _again(bench, "connection")
    bench.capture(0)
    assert bench.appended() == b""
    replay = bench.one(ReplayCapture)

    bench.tell(ReplayEnded(replay.from_sample, replay.request_id))
    bench.capture(960)

    assert len(bench.appended()) == 1920


def test_tools_of_a_new_process_of_tools_change_nothing() -> None:
    bench = Bench(tools=()).live()

    bench.tell(ToolsAvailable(()))

    assert bench.sent == []


# -- what the new session believes -----------------------------------------------------------------


def _replayed_while_playing() -> Bench:
    """An answer is whole, its sound still plays, and a new session was told its text."""
    bench = Bench(inactivity_timeout_s=None).live()
    bench.answer("r1", "a1", "one two three four", 4000)
    bench.lose()
    bench.history = [
        ConversationItem("u1", "message", "user", "Count"),
        ConversationItem("a1", "message", "assistant", "one two three four"),
    ]
    bench.configured()
    bench.clear()
    return bench


def test_the_unheard_part_of_a_replayed_text_is_removed() -> None:
    bench = _replayed_while_playing()

    bench.tell(Interrupt()).flushed("a1", 2000)

    assert bench.one(Interrupted).text_heard == "one two"
    assert bench.kinds() == ["conversation.item.delete", "conversation.item.create"]
    created = bench.event("conversation.item.create")
    assert created["previous_item_id"] == "msg_u1"
    assert created["item"]["content"] == [{"type": "output_text", "text": "one two"}]


def test_a_replayed_text_of_which_nothing_was_heard_is_deleted() -> None:
    bench = _replayed_while_playing()

    bench.tell(Interrupt()).flushed("a1", 0)

    assert bench.event("conversation.item.delete")["item_id"] == "msg_a1"
    assert bench.items() == []


def test_what_was_interrupted_while_history_was_asked_is_replayed_as_heard() -> None:
    bench = Bench(inactivity_timeout_s=None).live().answer("r1", "a1", "one two three four", 4000)
    bench.lose()
    bench.connect()
    bench.tell(Interrupt()).flushed("a1", 2000)
    bench.history = [ConversationItem("a1", "message", "assistant", "one two three four")]
    bench.snapshot()

    assert [item["content"][0]["text"] for item in bench.items()] == ["one two"]


def test_the_text_heard_stays_the_same_though_more_text_arrives() -> None:
    bench = Bench(inactivity_timeout_s=None).live().begin().say("one two three four", 4000)
    bench.tell(Interrupt()).flushed("a1", 2000)
    heard = bench.one(Interrupted).text_heard
    bench.say(" five six seven eight", 4000).end_item("one two three four five six seven eight")
    bench.done("r1", "cancelled")
    bench.history = [_assistant("a1", heard, interrupted=True)]

    bench.lose()
    bench.clear_but_requests()
    bench.configured()

    assert [item["content"][0]["text"] for item in bench.items()] == [heard]


def test_answered_speech_whose_text_was_lost_is_replayed_as_sound() -> None:
    bench = Bench(transcription_model="gpt-transcribe", inactivity_timeout_s=None).live()
    for block in range(50):
        bench.capture(960 * block, byte=bytes([block]))
    bench.speak("u1", 400, 1200).begin().say("Well", 100)
    bench.lose()
    bench.history = [
        ConversationItem(
            "u1", "message", "user", transcribed=False, first_sample=9600, last_sample=28800
        ),
        ConversationItem("a1", "message", "assistant", "Well", complete=False),
    ]
    bench.configured()

    sound = bench.items()[0]["content"][0]
    pcm = base64.b64decode(sound["audio"])
    assert sound["type"] == "input_audio"
    assert pcm == b"".join(bytes([block]) * 1920 for block in range(10, 30))
    assert "Go on" in bench.event("response.create")["response"]["instructions"]


@pytest.mark.parametrize("known", [0, 1, 2])
def test_a_text_typed_before_the_history_was_known_is_put_behind_it(known: int) -> None:
    bench = Bench(first=False)
    bench.tell(SendText("Hello?", "t1")).tell(SendText("Hello!", "t2"))
    typed = [_user("t1", "Hello?"), _user("t2", "Hello!")]
    bench.history = [_user("u1", "Hm"), *typed[:known]]
    bench.configured()

    before: dict[str, str | None] = {}
    for told in bench.published:
        if isinstance(told, UserItem | ItemPlaced):
            before[told.item_id] = told.previous_item_id
    assert before == {"t1": "u1", "t2": "t1"}


def test_a_text_that_history_has_already_stays_where_it_is() -> None:
    """An item that history has behind the text, such as an output, stays behind it."""
    bench = Bench(first=False).tell(SendText("Hello?", "t1"))
    bench.history = [_call(), _user("t1", "Hello?"), _output()]

    bench.configured()

    assert [place for place in bench.all(ItemPlaced) if place.item_id == "t1"] == [
        ItemPlaced("t1", "f1")
    ]


def test_after_a_death_of_the_supervisor_a_text_does_not_follow_what_was_lost() -> None:
    bench = Bench().live().answer("r1", "a1").tell(SendText("Hello?", "t1"))
    bench.history = [_user("u1", "Hm"), _user("t1", "Hello?")]

    again = bench.restarted(resumed="supervisor")
    again.clear_but_requests()
    again.configured()

    assert again.one(ItemPlaced) == ItemPlaced("t1", "u1")


def test_typed_texts_that_were_lost_with_the_supervisor_are_published_again() -> None:
    bench = Bench().live()
    for number in range(4):
        bench.tell(SendText(f"Text {number}", f"t{number}"))
        bench.added(f"msg_t{number}")  # the server has it, so that it is not sent again
    bench.tell(SendText("Text 4", "t4"))
    bench.history = [_user("u1", "Hello"), _user("t1", "Text 1")]

    again = bench.restarted(resumed="supervisor")
    again.clear_but_requests()
    again.configured()

    found = [(item.item_id, item.previous_item_id, item.text) for item in again.all(UserItem)]
    assert found == [
        ("t2", "t1", "Text 2"),
        ("t3", "t2", "Text 3"),
        ("t4", "t3", "Text 4"),
    ]


def test_the_place_of_a_sent_item_at_the_server_is_published() -> None:
    bench = Bench(inactivity_timeout_s=None).live().answer("r1", "a1")
    bench.tell(SendText("Hello", "t1"))
    assert bench.one(UserItem).previous_item_id == "a1"

    bench.server("input_audio_buffer.committed", item_id="u2", previous_item_id="a1")
    bench.added("u2", "a1", role="user").added("msg_t1", "u2", role="user")

    assert bench.one(ItemPlaced) == ItemPlaced("t1", "u2")


def test_the_place_of_an_output_at_the_server_is_published() -> None:
    bench = Bench(inactivity_timeout_s=None).live()
    bench.server("response.created", response={"id": "r1"}).call("c1").done("r1")
    bench.tell(ToolAnswer("c1", "clock", "12:00", item_id="o1"))

    for _ in range(2):
        output = {"id": "o1", "type": "function_call_output", "call_id": "c1"}
        bench.server("conversation.item.added", item=output, previous_item_id="f1")

    assert bench.one(ItemPlaced) == ItemPlaced("o1", "f1")


def test_an_output_behind_a_typed_text_is_placed_there_in_history() -> None:
    bench = Bench().live().begin().call("c1").done().lose()
    bench.history = [_call()]
    bench.clear_but_requests()
    bench.tell(SendText("Hello?", "t1")).tell(ToolAnswer("c1", "clock", "12:00", item_id="o1"))

    bench.configured()

    assert [item["id"] for item in bench.items()][1:] == ["msg_t1", "fco_o1"]
    assert bench.all(ItemPlaced)[-2:] == [ItemPlaced("o1", "t1"), ItemPlaced("t1", "f1")]


def test_speech_lost_with_two_sessions_is_heard_again_and_not_requested() -> None:
    bench = Bench(transcription_model="gpt-transcribe").live()
    bench.capture(0, 3 * 24_000).speak()
    bench.server("response.created", response={"id": "r1", "status": "in_progress"})

    bench.lose().clear_but_requests()
    bench.connect().snapshot()
    bench.lose().clear_but_requests()
    bench.configured()
    bench.wait(0.1)

    assert bench.one(ReplayCapture).from_sample == 0
    assert bench.events("response.create") == []  # the server answers what it hears again


@both
def test_speech_whose_second_session_is_lost_too_is_answered_before_what_is_owed(how: str) -> None:
    bench = Bench(transcription_model="gpt-transcribe").live().answer("r1", "a1")
    bench.capture(0, 3 * 24_000).speak().tell(CreateResponse())
    bench.history = [_user("u0", "Hello"), _assistant("a1", "Hello there")]
    again = _again(bench, how)
    assert again.one(ReplayCapture)

    again = _again(again, how)
    again.wait(1.0)

    assert again.events("response.create") == [], "it would answer what was answered before"
    again.wait(2.5)
    assert len(again.events("response.create")) == 1, "the server hears no speech"


def test_what_is_owed_is_asked_for_at_last_though_no_session_lives_long() -> None:
    bench = Bench(transcription_model="gpt-transcribe").live().answer("r1", "a1")
    bench.capture(0, 3 * 24_000).speak().tell(CreateResponse())
    bench.history = [_user("u0", "Hello"), _assistant("a1", "Hello there")]
    asked = []

    for _ in range(5):
        bench = _again(bench, "connection").wait(2.9)
        asked.append(len(bench.events("response.create")))

    assert asked == [0, 0, 0, 1, 1]
