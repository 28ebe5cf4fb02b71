"""The opening of a session: connect, configure, replay the conversation, go live."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from messages import (
    CapturedAudio,
    ConversationOver,
    FatalError,
    HistoryRequest,
    Notice,
    Reconnected,
    ReplayCapture,
    ReplayedAudio,
    ReplayEnded,
    SemanticVad,
    SendText,
    ServerError,
    ServerVad,
    ToolsAvailable,
    ToolSpec,
)
from tests.actors.realtime.core.bench import Bench

TOOL = ToolSpec("clock", "Tells the time.", {"type": "object", "properties": {}})


def test_it_asks_for_the_history_and_connects_at_once() -> None:
    bench = Bench()

    assert bench.one(HistoryRequest)
    assert bench.connects == [0.0]


def test_nothing_is_sent_before_both_the_session_and_the_history_are_there() -> None:
    bench = Bench().connect()
    assert bench.sent == []

    bench.snapshot()

    assert bench.kinds() == ["session.update"]


def test_the_history_may_come_first() -> None:
    bench = Bench().snapshot()
    assert bench.sent == []

    bench.connect()

    assert bench.kinds() == ["session.update"]


def test_without_a_history_it_goes_on_after_two_seconds() -> None:
    bench = Bench().connect()

    bench.wait(1.9)
    assert bench.sent == []
    bench.wait(0.2)

    assert bench.kinds() == ["session.update"]


def test_a_session_that_does_not_begin_is_given_up() -> None:
    bench = Bench()
    bench.core.connected(bench.now)

    bench.wait(10.1)

    assert bench.disconnects
    assert len(bench.connects) == 2


def test_the_configuration_has_the_shapes_of_the_api() -> None:
    bench = Bench(
        instructions="Be brief.",
        voice="cedar",
        speed=1.2,
        language="en",
        transcription_model="gpt-transcribe",
        turn_detection=ServerVad(0.6, 200, 400),
        tools=(TOOL,),
    ).configured()

    assert bench.event("session.update")["session"] == {
        "type": "realtime",
        "instructions": "Be brief.",
        "output_modalities": ["audio"],
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "transcription": {"model": "gpt-transcribe", "language": "en"},
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.6,
                    "prefix_padding_ms": 200,
                    "silence_duration_ms": 400,
                    "create_response": True,
                    "interrupt_response": True,
                },
            },
            "output": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "voice": "cedar",
                "speed": 1.2,
            },
        },
        "tools": [
            {
                "type": "function",
                "name": "clock",
                "description": "Tells the time.",
                "parameters": {"type": "object", "properties": {}},
            }
        ],
        "tool_choice": "auto",
    }


def test_semantic_turn_detection_has_its_own_fields() -> None:
    bench = Bench(turn_detection=SemanticVad("high")).configured()

    assert bench.event("session.update")["session"]["audio"]["input"]["turn_detection"] == {
        "type": "semantic_vad",
        "eagerness": "high",
        "create_response": True,
        "interrupt_response": True,
    }


def test_empty_instructions_and_no_transcription_are_left_to_the_server() -> None:
    session = Bench().configured().event("session.update")["session"]

    assert "instructions" not in session
    assert "transcription" not in session["audio"]["input"]


def test_tools_are_waited_for_for_a_second() -> None:
    bench = Bench(tools=None).connect().snapshot()
    assert bench.sent == []

    bench.wait(1.1)

    assert bench.event("session.update")["session"]["tools"] == []


def test_later_tools_are_sent_in_an_update_of_their_own() -> None:
    bench = Bench(tools=()).live()

    bench.tell(ToolsAvailable((TOOL,)))

    session = bench.event("session.update")["session"]
    assert set(session) == {"type", "tools", "tool_choice"}
    assert session["tools"][0]["name"] == "clock"


def test_unchanged_tools_are_not_sent_again() -> None:
    bench = Bench(tools=(TOOL,)).live()

    bench.tell(ToolsAvailable((TOOL,)))

    assert bench.sent == []


def test_the_first_connection_is_not_a_reconnection() -> None:
    bench = Bench().configured()

    bench.none(Reconnected, Notice)


# -- captured audio --------------------------------------------------------------------------------


def test_audio_captured_while_connecting_is_replayed_from_the_start() -> None:
    bench = Bench().configured()

    assert bench.one(ReplayCapture).from_sample == 0


def test_captured_audio_is_not_appended_before_the_session_is_configured() -> None:
    bench = Bench().connect().snapshot()

    bench.capture(0)

    assert bench.appended() == b""


def test_replayed_audio_comes_first_and_live_audio_after_it_once() -> None:
    bench = Bench().configured()
    request = bench.one(ReplayCapture).request_id

    bench.capture(960, byte=b"L")  # contained in the replay
    bench.tell(ReplayedAudio(b"A" * 1920, 0, request))
    bench.tell(ReplayedAudio(b"B" * 1920, 960, request))
    bench.tell(ReplayEnded(1920, request))
    bench.capture(960, byte=b"L")  # is known already
    bench.capture(1920, byte=b"C")

    assert bench.appended() == b"A" * 1920 + b"B" * 1920 + b"C" * 1920


def test_of_a_block_that_is_known_in_part_the_rest_is_appended() -> None:
    bench = Bench().live()

    bench.tell(CapturedAudio(b"ab" * 10, 0, 0))
    bench.tell(CapturedAudio(b"cd" * 10, 4, 0))

    assert bench.appended() == b"ab" * 10 + b"cd" * 4


def test_without_an_end_of_the_replay_it_goes_live_after_a_second() -> None:
    bench = Bench().configured()

    bench.wait(0.9)
    bench.capture(0)
    assert bench.appended() == b""
    bench.wait(0.2)
    bench.capture(24000)

    assert len(bench.appended()) == 1920


def test_a_replay_for_an_earlier_session_is_not_appended() -> None:
    bench = Bench().configured()
    request = bench.one(ReplayCapture).request_id

    bench.tell(ReplayedAudio(b"A" * 1920, 0, request - 1))
    bench.tell(ReplayEnded(960, request - 1))
    bench.capture(960)

    assert bench.appended() == b""


# -- greeting --------------------------------------------------------------------------------------


def test_the_greeting_is_said_exactly_and_once() -> None:
    bench = Bench(greeting="Good day!").configured()

    response = bench.event("response.create")["response"]
    assert response["instructions"] == "Say exactly this, and nothing else: Good day!"


def test_a_question_before_the_greeting_is_answered_too() -> None:
    bench = Bench(greeting="Good day!", instructions="Be kind.")

    bench.tell(SendText("What time is it?", "t1")).configured()

    instructions = bench.event("response.create")["response"]["instructions"]
    assert instructions == "Be kind.\nBegin with exactly this sentence: Good day!"


def test_without_a_greeting_no_answer_is_asked_for() -> None:
    assert Bench().configured().events("response.create") == []


# -- back-off and what is fatal --------------------------------------------------------------------


def test_back_off_grows_to_five_seconds() -> None:
    bench = Bench()

    for _ in range(12):
        bench.core.connect_failed(0, "", "Connection refused", bench.now)
        bench.collect()

    expected = [0.0, 0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 5.0, 5.0]
    assert len(bench.connects) == len(expected)
    for seconds, about in zip(bench.connects, expected, strict=True):
        assert 0.75 * about <= seconds <= 1.25 * about


def test_an_outage_is_published_once_and_so_is_its_end() -> None:
    bench = Bench()
    for _ in range(3):
        bench.core.connect_failed(0, "", "Connection refused", bench.now)
    bench.collect()
    assert [notice.text for notice in bench.all(Notice)] == [
        "cannot reach ws://test/v1: Connection refused; trying again"
    ]

    bench.configured()

    assert bench.all(Notice)[-1].text == "connected to ws://test/v1"


# -- servers without a session ---------------------------------------------------------------------


def _silent(bench: Bench, seconds: float) -> Bench:
    """Let time go by with a server that takes each connection and begins no session."""
    for _ in range(int(seconds)):
        if bench.core.phase.name == "OFFLINE" and not bench.all(FatalError):
            bench.core.connected(bench.now)
        bench.wait(1)
    return bench


def _refusing(bench: Bench, seconds: float) -> Bench:
    """Let time go by with nobody there."""
    for _ in range(int(seconds)):
        bench.core.connect_failed(0, "", "Connection refused", bench.now)
        bench.wait(1)
    return bench


def test_a_server_that_begins_no_session_is_reported_after_ten_seconds_and_again() -> None:
    bench = _silent(Bench(connect_timeout_s=None), 11)
    (first,) = [notice.text for notice in bench.all(Notice)]

    _silent(bench, 120)

    assert "ws://test/v1 is silent" in first
    assert "/v1/realtime" in first
    later = [notice.text for notice in bench.all(Notice)[1:]]
    assert 3 <= len(later) <= 4
    assert all(text.startswith("still no session after ") for text in later)
    bench.none(FatalError)


@pytest.mark.parametrize(("wait", "why"), [(_silent, "begins no session"), (_refusing, "refused")])
def test_without_a_first_session_it_fails_after_a_minute(
    wait: Callable[[Bench, float], Bench], why: str
) -> None:
    bench = wait(Bench(), 59)
    bench.none(FatalError)

    wait(bench, 2)

    reason = bench.one(FatalError).reason
    assert reason.startswith("no session with ws://test/v1 within 60 s: ")
    assert why in reason


@pytest.mark.parametrize("wait", [_silent, _refusing])
def test_a_server_that_goes_away_for_good_fails_the_session_after_five_minutes(
    wait: Callable[[Bench, float], Bench],
) -> None:
    bench = Bench().live()
    bench.lose(1006).clear()

    wait(bench, 299)
    bench.none(FatalError)
    wait(bench, 2)

    assert bench.one(FatalError).reason.startswith("no session with ws://test/v1 for 300 s: ")


def test_the_time_without_a_session_goes_on_over_the_death_of_the_process() -> None:
    bench = Bench(inactivity_timeout_s=None).live().wait(100)
    _refusing(bench.lose(1006), 200)

    reborn = bench.restarted()
    reborn.now = bench.now
    _refusing(reborn, 99)
    reborn.none(FatalError)
    _refusing(reborn, 2)

    assert reborn.one(FatalError)


def test_a_process_that_died_during_a_session_has_all_the_time_for_the_next() -> None:
    bench = Bench(inactivity_timeout_s=None).live()
    assert bench.core.saved.offline_since_ns is None

    reborn = bench.restarted()
    _refusing(reborn, 299)

    assert reborn.core.saved.offline_since_ns == reborn.now - 299 * 1_000_000_000
    reborn.none(FatalError)


def test_a_session_in_time_ends_the_outage() -> None:
    bench = _refusing(Bench(inactivity_timeout_s=None).live().lose(1006), 299)

    bench.configured()
    bench.wait(600)
    _refusing(bench.lose(1006), 299)

    bench.none(FatalError)


def test_no_timeout_means_retrying_for_ever() -> None:
    never = _refusing(Bench(connect_timeout_s=None), 500)
    later = _refusing(Bench(outage_timeout_s=None).live().lose(1006), 500)

    never.none(FatalError)
    later.none(FatalError)


@pytest.mark.parametrize(
    ("status", "code", "text", "says"),
    [
        (401, "", "HTTP 401", "OPENAI_API_KEY"),
        (403, "", "HTTP 403", "OPENAI_API_KEY"),
        (400, "", "HTTP 400: unknown model x", "model"),
        (404, "model_not_found", "HTTP 404", "model"),
        (429, "insufficient_quota", "HTTP 429", "credit"),
        (0, "invalid_url", "", "ws://"),
        (0, "missing_api_key", "", "not set"),
    ],
)
def test_some_refusals_are_final(status: int, code: str, text: str, says: str) -> None:
    bench = Bench()

    bench.core.connect_failed(status, code, text, bench.now)
    bench.collect()

    assert says in bench.one(FatalError).reason
    assert bench.connects == [0.0]


@pytest.mark.parametrize("status", [0, 408, 429, 500, 502, 503])
def test_other_refusals_are_tried_again(status: int) -> None:
    bench = Bench()

    bench.core.connect_failed(status, "", f"HTTP {status}", bench.now)
    bench.collect()

    bench.none(FatalError)
    assert len(bench.connects) == 2


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (4000, "invalid_request_error.beta_api_shape_disabled"),
        (4000, "invalid_request_error.invalid_api_key"),
        (1008, "insufficient_quota"),
    ],
)
def test_some_closes_are_final(code: int, reason: str) -> None:
    bench = Bench().live()

    bench.lose(code, reason)

    assert bench.one(FatalError)
    assert bench.connects == []


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1011, 1012])
def test_other_closes_are_followed_by_a_new_connection(code: int) -> None:
    bench = Bench().live()

    bench.lose(code)

    bench.none(FatalError)
    assert len(bench.connects) == 1


def test_a_server_that_closes_every_session_at_once_is_not_hammered() -> None:
    bench = Bench()
    for _ in range(6):
        bench.configured()
        bench.lose()

    assert bench.connects[-1] > 0.5


# -- a refused configuration -----------------------------------------------------------------------


def test_a_refused_parameter_is_left_out_and_published() -> None:
    bench = Bench(voice="nobody").connect().snapshot()

    bench.error("invalid_value", "session.update", param="session.audio.output.voice")

    updates = bench.events("session.update")
    assert "voice" not in updates[1]["session"]["audio"]["output"]
    assert updates[1]["session"]["audio"]["output"]["format"]
    assert bench.one(ServerError).param == "session.audio.output.voice"
    bench.server("session.updated", session={"type": "realtime"})
    assert bench.one(ReplayCapture)


def test_a_configuration_that_is_refused_for_no_known_field_does_not_end_the_session() -> None:
    bench = Bench().connect().snapshot()

    bench.error("invalid_value", "session.update")

    bench.none(FatalError, ConversationOver)
    assert bench.one(ReplayCapture)


def test_a_configuration_that_is_not_confirmed_is_taken_as_accepted() -> None:
    bench = Bench().connect().snapshot()

    bench.wait(10.1)

    assert bench.one(ReplayCapture)


def test_an_address_without_the_api_is_fatal_unless_there_was_a_connection() -> None:
    never, lost = Bench(), Bench()
    lost.live()

    never.core.connect_failed(404, "", "HTTP 404", never.now)
    never.collect()
    lost.lose()
    lost.core.connect_failed(404, "", "HTTP 404", lost.now)
    lost.collect()

    assert "/v1/realtime" in never.one(FatalError).reason
    lost.none(FatalError)
