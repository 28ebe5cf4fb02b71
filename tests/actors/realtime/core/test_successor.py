"""The standby session takes over before the server ends the current one, unnoticed."""

from __future__ import annotations

from typing import Any

import pytest

from messages import (
    SAMPLE_RATE,
    Connected,
    ConversationItem,
    Disconnected,
    HistoryRequest,
    HistorySnapshot,
    Reconnected,
    ReplayCapture,
    ReplayEnded,
    SendText,
    ServerError,
    ServerVad,
    SetSpeed,
    ToolAnswer,
    ToolSpec,
    UserTranscript,
)
from tests.actors.realtime.core.bench import NS, Bench

HELLO = ConversationItem("u1", "message", "user", "Hello")
WELL = ConversationItem("a1", "message", "assistant", "Well met")
MORE = ConversationItem("u2", "message", "user", "More, please")


def _bench(**settings: Any) -> Bench:
    bench = Bench(inactivity_timeout_s=None, **settings)
    bench.history = [HELLO, WELL]
    return bench


def _ready(**settings: Any) -> Bench:
    """A session with a second one ready, and an answer under way that keeps it waiting."""
    bench = _bench(**settings).live()
    return bench.wait(50 * 60 - 30).begin("r9", "a9").prepared()


def test_the_next_session_is_begun_when_a_sixth_of_the_hour_is_left() -> None:
    bench = _bench().live()

    bench.wait(50 * 60 - 1)
    assert bench.spare.connects == []
    bench.wait(2)

    assert bench.spare.connects == [0.0]
    assert bench.disconnects == []


@pytest.mark.parametrize("at", [1e308, pytest.param(10**400, id="huge"), -1, True, "no", None])
def test_without_a_time_limit_an_hour_is_assumed(at: Any) -> None:
    bench = _bench().live(expires_at=at)

    bench.wait(50 * 60 - 1)
    assert bench.spare.connects == []
    bench.wait(2)

    assert bench.spare.connects == [0.0]


def test_the_time_limit_is_that_of_the_server() -> None:
    bench = _bench().live(expires_at=1000 + 30 * 60)

    bench.wait(25 * 60 - 1)
    assert bench.spare.connects == []
    bench.wait(2)

    assert bench.spare.connects == [0.0]


@pytest.mark.parametrize("ahead_s", [-5000, -1800, 0.9, 3500, 10**6])
def test_the_time_limit_is_in_the_time_of_the_server(ahead_s: float) -> None:
    bench = _bench()
    bench.ahead_s = ahead_s
    bench.live(expires_at=1000 - int(ahead_s) + 30 * 60)

    bench.wait(25 * 60 - 2)
    assert bench.spare.connects == []
    bench.wait(4)

    assert bench.spare.connects == [0.0]


@pytest.mark.parametrize("expires_at", [5, 10**10, "soon", None])
def test_an_absurd_time_limit_is_ignored(expires_at: object) -> None:
    bench = _bench().live(expires_at=expires_at)

    bench.wait(50 * 60 - 1)
    assert bench.spare.connects == []
    bench.wait(2)

    assert bench.spare.connects == [0.0]


def test_the_standby_session_gets_configuration_and_conversation() -> None:
    bench = _bench(instructions="Be kind", voice="cedar").live().prepared()

    first = bench.spare.sent[0]
    assert first["type"] == "session.update"
    assert first["session"]["instructions"] == "Be kind"
    assert first["session"]["audio"]["output"]["voice"] == "cedar"
    assert [item["id"] for item in bench.spare.items()] == ["msg_u1", "msg_a1"]


def test_in_silence_the_standby_session_takes_over_without_a_gap() -> None:
    bench = _bench().live().prepared()
    assert bench.swaps == []  # the history may have news

    bench.clear_but_requests()
    bench.snapshot()

    assert len(bench.swaps) == 1
    reconnected = bench.one(Reconnected)
    assert (reconnected.state_restored, reconnected.gap_ms, reconnected.items) == (True, 0, 2)
    bench.none(Disconnected, Connected)
    assert bench.kinds() == []  # it knows everything
    assert bench.core.phase.name == "LIVE"


def test_while_an_answer_is_under_way_it_waits() -> None:
    bench = _ready()
    bench.snapshot()
    assert bench.swaps == []

    bench.say("Well", 100, "r9", "a9").end_item("Well", "r9", "a9").done("r9")
    assert bench.swaps == []
    bench.played("a9", 100).snapshot()

    assert len(bench.swaps) == 1


def test_speech_that_begins_while_history_is_asked_keeps_the_old_session() -> None:
    bench = _bench().live().prepared()
    bench.capture(0)
    bench.server("input_audio_buffer.speech_started", item_id="u5", audio_start_ms=0)

    bench.snapshot()

    assert bench.swaps == []


def test_the_standby_session_gets_the_latest_items_as_it_takes_over() -> None:
    bench = _bench().live().prepared()
    bench.history = [HELLO, WELL, MORE]

    bench.clear_but_requests()
    bench.snapshot()

    assert [item["id"] for item in bench.items()] == ["msg_u2"]
    assert bench.kinds() == ["conversation.item.create"]
    assert bench.actions.index(next(a for a in bench.actions if type(a).__name__ == "Swap")) < next(
        n for n, a in enumerate(bench.actions) if type(a).__name__ == "SendEvent"
    )


def test_items_that_have_changed_are_sent_again() -> None:
    bench = _bench().live().prepared()
    heard = ConversationItem("a1", "message", "assistant", "Well", interrupted=True)
    bench.history = [HELLO, heard, MORE]

    bench.clear_but_requests()
    bench.snapshot()

    assert [e["item_id"] for e in bench.events("conversation.item.delete")] == ["msg_a1"]
    assert [item["content"][0]["text"] for item in bench.items()] == ["Well", "More, please"]


def test_settings_changed_meanwhile_are_sent() -> None:
    bench = _bench().live().prepared()
    bench.tell(SetSpeed(1.5))

    bench.clear_but_requests()
    bench.snapshot()
    assert bench.core.phase.name == "CONFIGURING"
    bench.server("session.updated", session={})

    assert bench.event("session.update")["session"]["audio"]["output"]["speed"] == 1.5
    assert bench.core.phase.name == "LIVE"


def test_the_last_second_is_heard_again_and_nothing_older() -> None:
    bench = _bench().live()
    bench.capture(0, 24_000 * 60)
    bench.prepared()

    bench.snapshot()

    assert bench.all(ReplayCapture)[-1].from_sample == 24_000 * 59


@pytest.mark.parametrize("comes", [True, False])
def test_a_text_that_comes_late_is_waited_for_but_not_for_ever(comes: bool) -> None:
    bench = _bench(transcription_model="gpt-transcribe").live().wait(50 * 60 - 30)
    bench.speak("u2").begin("r9", "a9").prepared()
    bench.server("input_audio_buffer.committed", item_id="u3", previous_item_id="a9")
    bench.done("r9").begin("r10", "a10").done("r10")
    bench.clear()

    bench.wait(10)
    bench.none(HistoryRequest)
    if comes:
        kind = "conversation.item.input_audio_transcription.completed"
        bench.server(kind, item_id="u2", content_index=0, transcript="Late")
        bench.server(kind, item_id="u3", content_index=0, transcript="Later")
        assert len(bench.all(UserTranscript)) == 2
    else:
        bench.wait(6)
    bench.snapshot()

    assert len(bench.swaps) == 1
    errors = [told.error for told in bench.all(UserTranscript) if told.error]
    assert bool(errors) is not comes


def test_after_it_has_taken_over_the_conversation_goes_on() -> None:
    bench = _bench().live().prepared()
    bench.snapshot()
    replay = bench.all(ReplayCapture)[-1]
    bench.tell(ReplayEnded(replay.from_sample, replay.request_id))
    bench.clear()

    bench.capture(replay.from_sample)
    bench.speak("u7").begin("r7", "a7")

    assert bench.kinds() == ["input_audio_buffer.append"]
    assert bench.core._context.responses.active is not None


def test_the_one_after_it_comes_in_time_too() -> None:
    bench = _bench().live().prepared()
    bench.snapshot()
    bench.clear()

    bench.prepared()

    assert bench.spare.items()


def test_a_session_that_ends_before_is_replaced_by_the_one_that_is_ready() -> None:
    bench = _ready().say("Well", 100, "r9", "a9")
    bench.history.append(ConversationItem("a9", "message", "assistant", "Well", complete=False))

    bench.lose(1001, "Your session hit the maximum duration of 60 minutes.")

    assert len(bench.swaps) == 1
    assert bench.connects == []
    bench.one(Disconnected)
    bench.clear_but_requests()
    bench.snapshot()
    assert bench.one(Reconnected).state_restored
    assert bench.core.phase.name == "LIVE"
    assert "response.create" in bench.kinds()  # it goes on with the answer that was cut off


def test_an_expired_session_is_replaced_by_the_one_that_is_ready() -> None:
    bench = _ready()

    bench.server("error", error={"code": "session_expired", "message": "over"})

    assert len(bench.swaps) == 1
    assert bench.connects == []


def test_a_connection_that_comes_when_it_is_not_wanted_any_more_is_closed() -> None:
    bench = _bench().live()
    bench.wait(50 * 60 + 1).lose()
    bench.clear_but_requests()

    bench.connect(spare=True)

    assert bench.spare.disconnects
    assert bench.live().core.phase.name == "LIVE"


def test_a_turn_that_nobody_wanted_answered_is_not_heard_again_after_a_renewal() -> None:
    vad = ServerVad(create_response=False)
    bench = _bench(turn_detection=vad).live()
    bench.wait(50 * 60)
    bench.capture(0, 3 * SAMPLE_RATE).speak("u3", 0, 1000)
    bench.prepared().wait(6).snapshot()
    assert bench.swaps

    bench.lose().clear_but_requests()
    bench.configured()

    assert bench.one(ReplayCapture).from_sample >= SAMPLE_RATE


def test_a_session_lost_before_the_standby_is_ready_is_reconnected() -> None:
    bench = _bench().live()
    bench.wait(50 * 60 + 1)
    bench.connect(spare=True)

    bench.lose()

    assert bench.swaps == []
    assert bench.spare.disconnects
    assert bench.connects == [0.0]


def test_without_the_history_the_standby_session_gets_the_missing_items() -> None:
    bench = _bench(tools=(ToolSpec("clock", "", {}),)).live()
    bench.begin("r9", "a9").call("c1", "r9", "f9").prepared()
    bench.lose()

    bench.clear_but_requests()
    bench.tell(ToolAnswer("c1", "clock", '"12"')).tell(SendText("And now?", "t1"))
    bench.wait(2.1)

    assert bench.core.phase.name == "LIVE"
    assert {"msg_t1", "fco_c1"} <= {item["id"] for item in bench.items()}


def test_without_the_history_the_standby_session_keeps_its_items() -> None:
    bench = _ready()
    bench.lose()

    bench.clear_but_requests()
    bench.wait(2.1)

    assert bench.core.phase.name == "LIVE"
    assert bench.events("conversation.item.delete") == []
    assert bench.one(Reconnected).state_restored


@pytest.mark.parametrize("how", ["refused", "lost", "slow", "key"])
def test_failures_of_the_standby_session_are_not_published(how: str) -> None:
    bench = _bench().live()
    bench.wait(50 * 60 + 1)
    bench.clear()

    if how == "refused":
        bench.core.connect_failed(503, "", "busy", bench.now, spare=True)
    elif how == "lost":
        bench.connect(spare=True)
        bench.core.lost(1011, "", bench.now, spare=True)
    elif how == "key":
        bench.core.connect_failed(401, "", "", bench.now, spare=True)
    else:
        bench.connect(spare=True)
        bench.wait(11)
    bench.collect()
    bench.wait(1.5)

    bench.none(ServerError, Disconnected)
    assert bench.core.phase.name == "LIVE"
    assert bench.spare.connects == [0.0]  # it is tried again
    assert bench.connects == bench.disconnects == []


def test_the_standby_session_is_retried_less_and_less_often() -> None:
    bench = _bench().live()
    bench.wait(50 * 60 + 1)

    for _ in range(600):
        if bench.spare.connects:
            bench.spare.connects.clear()
            bench.core.connect_failed(0, "", "refused", bench.now, spare=True)
            bench.collect()
        bench.wait(0.1)

    assert bench.core._link.successor._failures == 6  # after 0, 1, 3, 8, 18, 48 s


def test_what_the_next_session_refuses_of_its_configuration_is_left_out() -> None:
    bench = _bench(voice="cedar").live()
    bench.wait(50 * 60 + 1)
    bench.connect(spare=True)
    bench.snapshot()

    error = {"code": "invalid_value", "message": "no", "param": "session.audio.output.voice"}
    bench.server("error", spare=True, error=error)

    again = bench.spare.sent[-1]
    assert again["type"] == "session.update"
    assert "voice" not in again["session"]["audio"]["output"]
    bench.none(ServerError)


def test_an_output_that_history_lacks_is_sent() -> None:
    bench = Bench(inactivity_timeout_s=None).live()
    bench.server("response.created", response={"id": "r1"}).call("c1").done("r1")
    bench.tell(ToolAnswer("c1", "clock", "12:00", respond=False, item_id="o1"))
    bench.history = [ConversationItem("f1", "function_call", call_id="c1", name="clock")]

    bench.prepared()

    outputs = [item for item in bench.spare.items() if item["type"] == "function_call_output"]
    assert [(item["call_id"], item["output"]) for item in outputs] == [("c1", "12:00")]


def test_taking_over_requests_no_response_to_an_unanswered_turn() -> None:
    bench = Bench(inactivity_timeout_s=None, transcription_model="gpt-transcribe").live()
    bench.capture(0, 24_000 * 3)
    bench.speak("u1")
    bench.server("conversation.item.input_audio_transcription.completed", item_id="u1",
                 transcript="Hm")  # fmt: skip
    bench.server("response.created", response={"id": "r1"})
    details = {"type": "cancelled", "reason": "turn_detected"}
    bench.done("r1", "cancelled", status_details=details)
    bench.history = [ConversationItem("u1", "message", "user", "Hm")]
    bench.prepared()

    bench.clear_but_requests()
    bench.snapshot()

    assert len(bench.swaps) == 1
    assert bench.kinds() == []
    assert bench.all(UserTranscript) == []


def test_an_unanswered_history_request_is_repeated() -> None:
    bench = _bench().live().prepared()
    requests = len(bench.all(HistoryRequest))

    bench.wait(10.1)

    assert len(bench.all(HistoryRequest)) == requests + 1
    bench.snapshot()
    assert len(bench.swaps) == 1


def test_an_old_answer_of_history_does_not_swap() -> None:
    bench = _bench().live().prepared()
    old = bench.all(HistoryRequest)[-1]
    bench.wait(10.1)

    bench.tell(HistorySnapshot(old.request_id, ()))

    assert bench.swaps == []


def test_when_the_conversation_is_over_no_session_is_begun() -> None:
    bench = Bench(inactivity_timeout_s=60.0).live()
    bench.wait(51 * 60)

    assert bench.spare.connects == []
    assert bench.now > 50 * 60 * NS
