"""Requests of responses, one at a time and each once; tool calls and their outputs."""

from __future__ import annotations

import pytest

from messages import (
    AssistantAudio,
    ConversationOver,
    CreateResponse,
    FatalError,
    ItemPlaced,
    Message,
    Notice,
    OutputReplaced,
    ResponseEnded,
    Say,
    SendText,
    ServerError,
    ToolAnswer,
    ToolCall,
    ToolSpec,
    UserItem,
)
from tests.actors.realtime.core.bench import NS, Bench


def _creates(bench: Bench) -> int:
    return len(bench.events("response.create"))


def _instructions(bench: Bench) -> list[str | None]:
    return [event["response"].get("instructions") for event in bench.events("response.create")]


def _marked(bench: Bench, response_id: str) -> Bench:
    """The server begins what was asked for last, and says so."""
    metadata = bench.events("response.create")[-1]["response"]["metadata"]
    return bench.server("response.created", response={"id": response_id, "metadata": metadata})


def _answer(call_id: str = "c1", output: str = "12:00", respond: bool = True) -> ToolAnswer:
    return ToolAnswer(call_id, "clock", output, respond=respond)


# -- the single writer of response.create ----------------------------------------------------------


def test_no_response_is_requested_while_one_is_active() -> None:
    bench = Bench().live().begin()

    bench.tell(SendText("Hello", "t1")).flushed("", 0)
    assert _creates(bench) == 0
    bench.done(status="cancelled")

    assert _creates(bench) == 1


def test_no_response_is_requested_while_another_request_is_open() -> None:
    bench = Bench().live()

    bench.tell(SendText("One", "t1")).tell(SendText("Two", "t2"))
    assert _creates(bench) == 1
    bench.begin("r1").done("r1", status="cancelled")

    assert _creates(bench) == 2


def test_no_response_is_requested_where_the_server_begins_one() -> None:
    bench = Bench().live().speak().answer()

    assert _creates(bench) == 0


def test_a_response_to_speech_is_requested_after_ten_seconds() -> None:
    bench = Bench().live().speak()

    bench.wait(9.9)
    assert _creates(bench) == 0
    bench.wait(0.2)

    assert _creates(bench) == 1


def test_a_request_refused_for_an_active_response_is_repeated_after_it() -> None:
    bench = Bench().live()
    bench.tell(SendText("Hello", "t1"))

    bench.error("conversation_already_has_active_response", "response.create")
    bench.begin("r9", "a9")
    assert _creates(bench) == 1
    bench.done("r9")

    assert _creates(bench) == 2
    bench.none(ServerError)


def test_a_request_refused_without_a_known_response_is_repeated_later() -> None:
    bench = Bench().live()
    bench.tell(SendText("Hello", "t1"))
    bench.error("conversation_already_has_active_response", "response.create")

    bench.wait(2.1)

    assert _creates(bench) == 2


@pytest.mark.parametrize("seen", [True, False])
def test_a_request_overtaken_by_the_server_is_repeated_if_items_were_missed(
    seen: bool,
) -> None:
    bench = Bench().live()
    bench.tell(SendText("Hello", "t1"))
    bench.speak("u1")
    if seen:
        bench.added("msg_t1")

    bench.begin("r9", "a9")
    bench.error("conversation_already_has_active_response", "response.create")
    bench.done("r9", status="cancelled")

    assert _creates(bench) == (1 if seen else 2)


@pytest.mark.parametrize("told", [Say("It is noon"), CreateResponse("Say that it is noon")])
@pytest.mark.parametrize("asked_before", [True, False])
def test_a_sentence_of_the_program_follows_the_servers_own_answer(
    told: Message, asked_before: bool
) -> None:
    bench = Bench().live()
    bench.capture(0)
    if asked_before:
        bench.tell(told)
    bench.server("input_audio_buffer.speech_started", item_id="u1", audio_start_ms=0)
    if not asked_before:
        bench.tell(told)
    bench.stop_speaking("u1")
    bench.begin("r9", "a9")
    if asked_before:
        bench.error("conversation_already_has_active_response", "response.create")

    bench.done("r9")

    assert _creates(bench) == 1 + asked_before
    assert "noon" in (_instructions(bench)[-1] or "")


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (CreateResponse("Be brief."), CreateResponse("Be brief."), "Be brief."),
        (CreateResponse("Tell A."), CreateResponse("Tell B."), "You are kind.\nTell A.\nTell B."),
        (CreateResponse("Tell A."), CreateResponse(), "You are kind.\nTell A."),
        (CreateResponse(), CreateResponse("Tell A."), "You are kind.\nTell A."),
        (CreateResponse(), CreateResponse(), None),
    ],
)
def test_one_response_for_two_requests_has_the_instructions_of_both(
    one: Message, other: Message, told: str | None
) -> None:
    bench = Bench(instructions="You are kind.").live().begin()
    bench.tell(one).tell(other)

    bench.done()

    assert _instructions(bench) == [told]


@pytest.mark.parametrize("say_first", [True, False])
def test_a_sentence_of_the_program_is_said_whatever_else_is_requested(say_first: bool) -> None:
    wishes: list[Message] = [Say("It is noon"), CreateResponse("Tell A.")]
    bench = Bench(instructions="You are kind.").live().begin()
    for wish in wishes if say_first else reversed(wishes):
        bench.tell(wish)

    bench.done()

    told = bench.event("response.create")["response"]["instructions"].split("\n")
    assert told[0] == "You are kind."
    assert "Tell A." in told
    assert any("It is noon" in line for line in told)


def test_a_response_is_recognised_by_its_metadata() -> None:
    bench = Bench().live()
    bench.tell(SendText("One", "t1"))
    _marked(bench, "r1").done("r1")
    bench.tell(SendText("Two", "t2"))

    bench.begin("r2", "a2").done("r2")  # of the server's own
    assert _creates(bench) == 2
    bench.tell(SendText("Three", "t3"))
    _marked(bench, "r3").done("r3")

    assert _creates(bench) == 3


def test_a_new_process_does_not_repeat_a_request_that_the_server_fulfilled() -> None:
    bench = Bench().live()
    bench.tell(SendText("One", "t1")).added("msg_t1")
    _marked(bench, "r1").done("r1")
    bench.tell(SendText("Two", "t2")).added("msg_t2")

    bench.server(
        "input_audio_buffer.timeout_triggered", item_id="s1", audio_start_ms=0, audio_end_ms=9
    )
    bench.server("input_audio_buffer.committed", item_id="s1", previous_item_id="msg_t2")
    bench.answer("r9", "a9")

    assert _creates(bench.restarted().configured()) == 0


def test_a_request_without_an_answer_is_repeated_once() -> None:
    bench = Bench().live()
    bench.tell(SendText("Hello", "t1"))

    bench.wait(10.1)
    assert _creates(bench) == 2
    bench.wait(60)

    assert _creates(bench) == 2
    assert "does not begin an answer" in bench.one(ServerError).text


def test_a_response_without_further_events_does_not_block_the_next_for_ever() -> None:
    bench = Bench(inactivity_timeout_s=None).live().begin()
    bench.tell(SendText("Hello?", "t1")).flushed("", 0)

    bench.wait(31)

    assert _creates(bench) == 1


def test_an_answer_that_never_ends_does_not_keep_the_conversation_going_for_ever() -> None:
    bench = Bench(inactivity_timeout_s=10.0).live().begin()

    bench.wait(60)
    bench.none(ConversationOver)
    bench.wait(70)

    assert bench.one(ConversationOver).reason == "inactivity timeout"


def test_a_cancellation_that_comes_too_late_is_harmless() -> None:
    bench = Bench().live().begin().say()
    bench.tell(SendText("Stop", "t1")).flushed()

    bench.error("response_cancel_not_active", "response.cancel")

    bench.none(ServerError)
    assert _creates(bench) == 1


# -- answers that fail -----------------------------------------------------------------------------


def _fail(bench: Bench, response_id: str, kind: str, code: str | None) -> Bench:
    details = {"type": "failed", "error": {"type": kind, "code": code, "message": "no"}}
    bench.server("response.created", response={"id": response_id})
    return bench.done(response_id, status="failed", status_details=details)


@pytest.mark.parametrize(
    ("kind", "code", "after"),
    [("server_error", None, 0.6), ("tokens", "rate_limit_exceeded", 3.1)],
)
def test_a_failure_that_may_pass_is_tried_again_once(kind: str, code: str, after: float) -> None:
    bench = Bench().live().speak()

    _fail(bench, "r1", kind, code)
    assert _creates(bench) == 0
    bench.wait(after)
    assert _creates(bench) == 1
    bench.none(ServerError)
    _fail(bench, "r2", kind, code)
    bench.wait(30)

    assert _creates(bench) == 1
    assert bench.one(ServerError)


def test_other_failures_are_published() -> None:
    bench = Bench().live().speak()

    _fail(bench, "r1", "invalid_request_error", "content_strange")
    bench.wait(30)

    assert _creates(bench) == 0
    assert bench.one(ServerError).code == "content_strange"
    assert bench.one(ResponseEnded).status == "failed"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("insufficient_quota", "credit"),
        ("invalid_api_key", "OPENAI_API_KEY"),
        ("model_not_found", "gpt-x"),
    ],
)
def test_some_failures_are_final(code: str, says: str) -> None:
    bench = Bench(model="gpt-x").live().speak()

    _fail(bench, "r1", "invalid_request_error", code)

    assert says in bench.one(FatalError).reason


def test_a_failure_after_sound_is_not_repeated() -> None:
    bench = Bench().live().speak().begin().say()

    bench.done(status="failed", status_details={"error": {"type": "server_error"}})
    bench.wait(2)

    assert _creates(bench) == 0
    assert bench.one(ServerError)


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Audio content of 1000ms is already shorter than 1085ms",
        "Only model output audio messages can be truncated",
    ],
)
def test_unnecessary_truncations_are_not_sent(text: str) -> None:
    bench = Bench().live().error(None, message=text)

    bench.none(ServerError, FatalError)


def test_a_bad_frame_is_published_and_ends_nothing() -> None:
    from actors.realtime import wire

    bench = Bench().live()

    bench.take(wire.decode(b"{"))
    bench.collect()

    assert bench.one(ServerError).code == "bad_frame"


def test_a_final_error_may_be_named_by_its_type() -> None:
    bench = Bench().live().error(None, type="insufficient_quota")

    assert bench.one(FatalError)


# -- tools -----------------------------------------------------------------------------------------


def test_a_completed_call_is_run_once() -> None:
    bench = Bench().live().speak().begin()

    bench.call("c1").call("c1")

    call = bench.one(ToolCall)
    assert (call.call_id, call.name, call.arguments, call.item_id) == ("c1", "clock", "{}", "f1")


def test_an_output_is_sent_at_once_and_a_response_requested_after_the_first() -> None:
    bench = Bench().live().speak().begin().call("c1")

    bench.tell(_answer("c1"))
    assert [(i["type"], i["call_id"], i["output"]) for i in bench.items()] == [
        ("function_call_output", "c1", "12:00")
    ]
    assert _creates(bench) == 0
    bench.done("r1")

    assert _creates(bench) == 1


def test_an_output_is_sent_before_all_else_that_is_due() -> None:
    """Somebody waits for it."""
    bench = Bench().live().speak().begin().call("c1")

    bench.core.message(_answer("c1"), bench.now)  # `tick` is still to be called
    bench.collect()

    assert [i["call_id"] for i in bench.items()] == ["c1"]


def test_several_calls_have_one_answer() -> None:
    bench = Bench().live().speak().begin()
    bench.call("c1", item_id="f1").call("c2", item_id="f2").done("r1")

    bench.tell(_answer("c1"))
    assert _creates(bench) == 0
    bench.tell(_answer("c2"))

    assert _creates(bench) == 1
    assert [item["call_id"] for item in bench.items()] == ["c1", "c2"]


def test_a_call_that_is_answered_twice_while_another_is_open_has_one_output() -> None:
    bench = Bench().live().speak().begin()
    bench.call("c1", item_id="f1").call("c2", item_id="f2").done("r1")

    bench.tell(_answer("c1", "1")).tell(_answer("c1", "2")).tell(_answer("c2", "3"))

    assert [item["output"] for item in bench.items()] == ["1", "3"]


@pytest.mark.parametrize("answered", ["while another call is open", "after all of them"])
def test_of_two_answers_the_first_counts_and_the_others_are_told(answered: str) -> None:
    """The tools process may die after it has given realtime an answer straight."""
    bench = Bench().live().begin().call("c1").call("c2").done()
    bench.tell(ToolAnswer("c1", "clock", "12:00"))
    if answered == "after all of them":
        bench.tell(ToolAnswer("c2", "clock", "12:00"))

    bench.tell(ToolAnswer("c1", "clock", "outcome unknown"))

    assert bench.one(OutputReplaced) == OutputReplaced("c1", "12:00")
    assert [it["output"] for it in bench.items() if it.get("call_id") == "c1"] == ["12:00"]


def test_one_call_has_one_output_however_often_it_is_answered() -> None:
    bench = Bench().live().speak().begin().call("c1").done("r1")

    bench.tell(_answer("c1", "1")).tell(_answer("c1", "2"))
    bench.begin("r2").done("r2")
    bench.tell(_answer("c1", "3"))

    assert [item["output"] for item in bench.items()] == ["1"]
    assert _creates(bench) == 1


def test_an_answer_of_an_unknown_call_is_ignored() -> None:
    bench = Bench().live()

    bench.tell(_answer("c9"))

    assert bench.sent == []


def test_a_tool_that_wants_no_answer_gets_none() -> None:
    bench = Bench().live().speak().begin().call("c1").done("r1")

    bench.tell(_answer("c1", respond=False))

    assert bench.items()
    assert _creates(bench) == 0


def test_one_of_several_calls_that_wants_an_answer_is_enough() -> None:
    bench = Bench().live().speak().begin()
    bench.call("c1", item_id="f1").call("c2", item_id="f2").done("r1")

    bench.tell(_answer("c1")).tell(_answer("c2", respond=False))

    assert _creates(bench) == 1


def test_the_instruction_of_a_tool_is_added_to_the_session_instructions() -> None:
    spec = ToolSpec("clock", "", {}, response_instruction="Be quick.")
    bench = Bench(instructions="You are kind.", tools=(spec,)).live()
    bench.speak().begin().call("c1").done("r1")

    bench.tell(_answer("c1"))

    response = bench.event("response.create")["response"]
    assert response["instructions"] == "You are kind.\nBe quick."


def test_what_a_tool_wants_said_is_said_before_its_answer() -> None:
    bench = Bench(instructions="You are kind.").live()
    bench.speak().begin().call("c1")

    bench.tell(Say("One moment."))
    assert _creates(bench) == 0  # the answer that has called is not over
    bench.done("r1")

    text = bench.event("response.create")["response"]["instructions"]
    assert text.startswith('You are kind.\nSay to the user now: "One moment."')
    bench.begin("r2").done("r2").tell(_answer("c1"))
    assert "instructions" not in bench.events("response.create")[-1].get("response", {})


def test_what_is_to_be_said_is_joined_with_the_answer_that_is_owed() -> None:
    bench = Bench().live().speak().begin().call("c1")
    bench.tell(Say("One moment.")).tell(_answer("c1"))

    bench.done("r1")

    assert _creates(bench) == 1
    assert "One moment." in bench.event("response.create")["response"]["instructions"]


def test_a_call_that_was_cut_off_is_not_run_but_answered() -> None:
    bench = Bench().live().speak().begin().call("c1", status="incomplete")

    bench.none(ToolCall)
    assert bench.items()[0]["call_id"] == "c1"
    assert "cancelled" in bench.items()[0]["output"]


@pytest.mark.parametrize("is_told", [True, False])
def test_history_has_nothing_of_a_call_that_was_cut_off(is_told: bool) -> None:
    """Otherwise history would wait for the call before it tells the next turn."""
    bench = Bench(inactivity_timeout_s=None).live().begin().audio(b"\1" * 960)
    item = {"id": "f1", "type": "function_call", "call_id": "c1", "name": "clock"}
    bench.server("response.output_item.added", response_id="r1", item=item)
    if is_told:
        bench.server("conversation.item.added", item=item, previous_item_id="a1")
    bench.done(status="cancelled", status_details={"reason": "turn_detected"})
    if not is_told:
        bench.server("conversation.item.added", item=item, previous_item_id="a1")

    bench.server("conversation.item.added", item=bench.items()[0], previous_item_id="f1")
    bench.tell(SendText("Hello?", "t1"))

    assert bench.one(UserItem).previous_item_id == "a1"
    bench.none(ItemPlaced)


def test_a_call_that_was_never_finished_is_answered_when_the_answer_is_done() -> None:
    bench = Bench().live().speak().begin()
    item = {"id": "f1", "type": "function_call", "call_id": "c1", "name": "clock"}
    bench.server("response.output_item.added", response_id="r1", item=item)

    bench.done(status="cancelled", status_details={"reason": "turn_detected"})

    bench.none(ToolCall)
    assert bench.items()[0]["call_id"] == "c1"
    assert _creates(bench) == 0


def _refused(bench: Bench, code: str = "string_above_max_length", message: str = "no") -> Bench:
    """The server refuses the item that was created last."""
    return bench.error(code, "conversation.item.create", message=message)


def test_in_place_of_a_refused_output_the_model_gets_the_reason() -> None:
    bench = Bench().live().speak().begin().call("c1").done("r1").tell(_answer("c1"))

    _refused(bench, message="string too long")

    first, second = bench.items()
    assert (second["call_id"], second["id"]) == ("c1", first["id"])
    assert "clock" in second["output"]
    assert "string too long" in second["output"]
    assert bench.one(OutputReplaced) == OutputReplaced("c1", second["output"])
    assert "the output of clock" in bench.one(Notice).text
    assert bench.one(ServerError).code == "string_above_max_length"


def test_the_answer_that_would_not_know_of_a_replaced_output_is_cancelled() -> None:
    bench = Bench().live().speak().begin().call("c1").done("r1").tell(_answer("c1"))
    assert _creates(bench) == 1

    _refused(bench).begin("r2", "a2")
    assert bench.event("response.cancel")["response_id"] == "r2"
    bench.added(bench.items()[-1]["id"], type="function_call_output")
    bench.done("r2", status="cancelled", status_details={"reason": "client_cancelled"})

    assert _creates(bench) == 2
    bench.none(AssistantAudio)


def test_while_other_calls_are_open_there_is_one_answer_in_the_end() -> None:
    bench = Bench().live().speak().begin()
    bench.call("c1", item_id="f1").call("c2", item_id="f2").done("r1")
    bench.tell(_answer("c1"))

    _refused(bench)
    assert _creates(bench) == 0
    bench.tell(_answer("c2"))

    assert [item["call_id"] for item in bench.items()] == ["c1", "c1", "c2"]
    assert _creates(bench) == 1


def test_a_tool_that_wants_no_answer_gets_none_for_a_refused_output_either() -> None:
    bench = Bench().live().speak().begin().call("c1").done("r1")
    bench.tell(_answer("c1", respond=False))

    _refused(bench)

    assert len(bench.items()) == 2
    assert _creates(bench) == 0


def test_a_replacement_that_is_refused_too_is_not_replaced() -> None:
    bench = Bench().live().speak().begin().call("c1").done("r1").tell(_answer("c1"))

    _refused(_refused(bench), message="no again")

    assert len(bench.items()) == 2
    assert "gets no output of clock" in bench.all(Notice)[-1].text


def test_an_output_for_a_call_that_the_server_does_not_know_is_not_replaced() -> None:
    bench = Bench().live().speak().begin().call("c1").done("r1").tell(_answer("c1"))

    _refused(bench, "invalid_tool_call_id")

    assert len(bench.items()) == 1
    bench.none(OutputReplaced)
    assert bench.one(ServerError)


@pytest.mark.parametrize(("code", "seconds"), [("server_error", 0.5), ("rate_limit_exceeded", 3)])
def test_an_output_is_sent_once_more_after_an_error_that_passes(code: str, seconds: float) -> None:
    bench = Bench(inactivity_timeout_s=1).live().speak().begin().call("c1").done("r1")
    bench.tell(_answer("c1")).begin("r2", "a2")
    _refused(bench, code).done("r2")

    bench.wait(seconds - 0.1)
    assert len(bench.items()) == 1
    bench.none(ServerError, ConversationOver)
    assert bench.core.next_deadline(bench.now) == bench.now + NS // 10
    bench.wait(0.1)

    first, second = bench.items()
    assert first == second
    assert _creates(bench) == 2

    _refused(bench, code)
    assert "could not be given" in bench.items()[2]["output"]


def test_an_output_during_another_answer_is_answered_after_it() -> None:
    bench = Bench().live().speak().begin("r1").call("c1").done("r1")
    bench.speak("u2").begin("r2", "a2")

    bench.tell(_answer("c1"))
    assert bench.items()
    assert _creates(bench) == 0
    bench.done("r2")

    assert _creates(bench) == 1


def test_an_output_that_the_servers_own_answer_has_seen_is_not_answered_again() -> None:
    bench = Bench().live().speak().begin("r1").call("c1").done("r1")
    bench.server("input_audio_buffer.speech_started", item_id="u2", audio_start_ms=0)
    bench.capture(0)
    bench.tell(_answer("c1"))
    bench.added(bench.items()[0]["id"], type="function_call_output")
    bench.stop_speaking("u2")

    bench.answer("r2", "a2")

    assert _creates(bench) == 0


def test_no_response_is_requested_while_the_user_speaks() -> None:
    bench = Bench().live().speak().begin("r1").call("c1").done("r1")
    bench.capture(0)
    bench.server("input_audio_buffer.speech_started", item_id="u2", audio_start_ms=0)

    bench.tell(_answer("c1"))

    assert bench.items()
    assert _creates(bench) == 0
