"""The end of the conversation: on request, of the input, by inactivity."""

from __future__ import annotations

from messages import (
    CaptureEnded,
    ConversationOver,
    EndConversation,
    FatalError,
    SemanticVad,
    ToolAnswer,
)
from tests.actors.realtime.core.bench import Bench


def _over(bench: Bench) -> str | None:
    found = bench.all(ConversationOver)
    assert len(found) <= 1
    return found[0].reason if found else None


def _silence(bench: Bench, first: int, seconds: float) -> int:
    end = first + int(seconds * 24000)
    for sample in range(first, end, 960):
        bench.wait(0.04)
        bench.capture(sample, byte=b"\0")
    return end


# -- farewell --------------------------------------------------------------------------------------


def test_the_farewell_is_created_and_played_before_the_end() -> None:
    bench = Bench().live().speak().begin().call("c1", name="stop_assistant_run")
    bench.tell(EndConversation("the assistant ended it"))
    bench.tell(ToolAnswer("c1", "stop_assistant_run", "Say goodbye."))
    bench.done("r1")
    assert bench.events("response.create")
    assert _over(bench) is None

    bench.answer("r2", "a2", "Goodbye", 900)
    bench.wait(0.5)
    assert _over(bench) is None
    bench.played("a2", 900)

    assert _over(bench) == "the assistant ended it"


def test_the_order_of_answer_and_end_does_not_matter() -> None:
    bench = Bench().live().speak().begin().call("c1")
    bench.tell(ToolAnswer("c1", "stop", "Say goodbye."))
    bench.tell(EndConversation("over"))
    bench.done("r1").answer("r2", "a2")
    assert _over(bench) is None

    bench.played("a2", 1000)

    assert _over(bench) == "over"


def test_the_farewell_is_waited_for_for_ten_seconds() -> None:
    bench = Bench().live().speak().begin()

    bench.tell(EndConversation("over"))
    bench.wait(9.9)
    assert _over(bench) is None
    bench.wait(0.2)

    assert _over(bench) == "over"


def test_an_end_while_nothing_is_said_is_immediate() -> None:
    bench = Bench().live()

    bench.tell(EndConversation("over"))

    assert _over(bench) == "over"


def test_the_deadline_of_the_farewell_survives_a_death() -> None:
    bench = Bench().live().speak().begin().call("c1")
    bench.tell(EndConversation("over"))
    bench.wait(8)
    now = bench.now

    bench = bench.restarted()
    bench.now = now
    bench.wait(2.1)

    assert _over(bench) == "over"


# -- end of input ----------------------------------------------------------------------------------


def test_the_end_of_the_input_is_the_end_after_enough_silence() -> None:
    bench = Bench().live()
    end = _silence(bench, 0, 1)
    bench.tell(CaptureEnded(end))

    end = _silence(bench, end, 1.4)
    assert _over(bench) is None
    _silence(bench, end, 0.2)

    assert _over(bench) == "end of input"


def test_semantic_turn_detection_needs_more_silence() -> None:
    bench = Bench(turn_detection=SemanticVad("high")).live()
    end = _silence(bench, 0, 1)
    bench.tell(CaptureEnded(end))

    end = _silence(bench, end, 2.9)
    assert _over(bench) is None
    _silence(bench, end, 0.2)

    assert _over(bench) == "end of input"


def test_speech_answer_tool_and_playback_are_waited_for() -> None:
    bench = Bench().live()
    bench.server("input_audio_buffer.speech_started", item_id="u1", audio_start_ms=0)
    end = _silence(bench, 0, 1)
    bench.tell(CaptureEnded(end))
    end = _silence(bench, end, 3)
    assert _over(bench) is None
    bench.stop_speaking("u1", 1500)
    end = _silence(bench, end, 2)
    assert _over(bench) is None
    bench.begin().call("c1").done()
    end = _silence(bench, end, 2)
    assert _over(bench) is None
    bench.tell(ToolAnswer("c1", "clock", "12:00"))
    end = _silence(bench, end, 2)
    assert _over(bench) is None
    bench.answer("r2", "a2", ms=5000)
    end = _silence(bench, end, 2)
    assert _over(bench) is None

    bench.played("a2", 5000)
    _silence(bench, end, 0.1)

    assert _over(bench) == "end of input"


def test_at_most_thirty_seconds_of_silence_are_sent() -> None:
    bench = Bench().live().speak()
    bench.tell(CaptureEnded(0))
    bench.begin()

    bench.wait(29.9)
    assert _over(bench) is None
    bench.wait(0.2)

    assert _over(bench) == "end of input"


def test_an_answer_that_is_still_being_played_is_waited_for_longer() -> None:
    bench = Bench().live().speak()
    bench.tell(CaptureEnded(0))
    bench.wait(20)
    bench.answer(ms=20_000)
    bench.wait(15)
    assert _over(bench) is None

    bench.played(ms=20_000)

    assert _over(bench) == "end of input"


def test_a_silent_speaker_does_not_delay_the_end_for_ever() -> None:
    bench = Bench().live().speak().answer(ms=2000)
    bench.tell(EndConversation("over"))

    bench.wait(6.9)
    assert _over(bench) is None
    bench.wait(0.2)

    assert _over(bench) == "over"


def test_the_silence_is_counted_from_the_last_sample_even_after_a_replay() -> None:
    bench = Bench().configured()
    bench.tell(CaptureEnded(48000))

    bench.wait(3)  # without the replay, and with nothing appended
    assert _over(bench) is None
    _silence(bench, 48000, 1.7)

    assert _over(bench) == "end of input"


def test_the_end_of_the_input_survives_a_death() -> None:
    bench = Bench().live()
    bench.tell(CaptureEnded(0))
    now = bench.now

    bench = bench.restarted()
    bench.now = now
    bench.wait(30.1)

    assert _over(bench) == "end of input"


def test_the_end_of_the_input_is_a_failure_if_the_server_was_never_reached() -> None:
    bench = Bench()
    bench.tell(CaptureEnded(0))
    bench.core.connect_failed(0, "", "Connection refused", bench.now)

    bench.wait(30.1)

    assert [failure.reason for failure in bench.all(FatalError)] == [
        "cannot reach ws://test/v1: Connection refused"
    ]
    assert _over(bench) is None


# -- inactivity ------------------------------------------------------------------------------------


def test_inactivity_ends_the_conversation() -> None:
    bench = Bench(inactivity_timeout_s=20).live()

    bench.wait(19.9)
    assert _over(bench) is None
    bench.wait(0.2)

    assert _over(bench) == "inactivity timeout"


def test_without_a_timeout_silence_is_for_ever() -> None:
    bench = Bench(inactivity_timeout_s=None).live()

    bench.wait(1000)

    assert _over(bench) is None


def test_an_open_tool_is_activity() -> None:
    bench = Bench(inactivity_timeout_s=20).live().speak().begin().call("c1").done()

    bench.wait(100)
    assert _over(bench) is None
    bench.tell(ToolAnswer("c1", "clock", "12:00", respond=False))
    bench.wait(20.1)

    assert _over(bench) == "inactivity timeout"


def test_playing_is_activity_until_its_end() -> None:
    bench = Bench(inactivity_timeout_s=5).live().speak().answer(ms=8000)
    for second in range(8):
        bench.wait(1)
        bench.played(ms=1000 * second, finished=False)
    bench.played(ms=8000)

    bench.wait(4.9)
    assert _over(bench) is None
    bench.wait(0.2)

    assert _over(bench) == "inactivity timeout"


def _commit_silence(bench: Bench, item_id: str = "s1") -> Bench:
    """The user has been silent for the idle timeout."""
    bench.server(
        "input_audio_buffer.timeout_triggered", item_id=item_id, audio_start_ms=0, audio_end_ms=0
    )
    bench.server("input_audio_buffer.committed", item_id=item_id, previous_item_id=None)
    return bench.added(item_id, role="user")


def _prompt(bench: Bench, number: int) -> Bench:
    """And the assistant speaks for a second."""
    _commit_silence(bench, f"s{number}").answer(f"p{number}", f"b{number}", "Are you still there?")
    return bench.wait(1).played(f"b{number}")


def test_speech_prompted_by_silence_is_not_activity() -> None:
    bench = Bench(inactivity_timeout_s=20).live().speak().answer().wait(1).played()

    for number in range(2):
        bench.wait(7)
        _prompt(bench, number)
    bench.wait(3.9)  # 19.9 since the answer
    assert _over(bench) is None
    bench.wait(0.2)

    assert _over(bench) == "inactivity timeout"


def test_the_timeout_leaves_time_to_answer_a_late_prompt() -> None:
    bench = Bench(inactivity_timeout_s=20).live().speak().answer().wait(1).played()
    bench.wait(19.5)

    _prompt(bench, 1).wait(3.9)
    assert _over(bench) is None
    bench.speak("u2").answer("r2", "a2").wait(1).played("a2")
    bench.wait(19.9)
    assert _over(bench) is None
    bench.wait(0.2)

    assert _over(bench) == "inactivity timeout"


def test_after_a_death_a_prompt_is_still_not_activity() -> None:
    bench = Bench(inactivity_timeout_s=20).live().speak().answer().wait(1).played()
    _commit_silence(bench).begin("p1", "b1")

    bench = bench.restarted().live()
    bench.wait(5).answer("p2", "b2").wait(1).played("b2")
    bench.wait(13.9)
    assert _over(bench) is None
    bench.wait(0.2)

    assert _over(bench) == "inactivity timeout"


def test_being_without_a_connection_is_not_inactivity() -> None:
    bench = Bench(inactivity_timeout_s=5).live()
    bench.wait(3)
    bench.lose()
    bench.wait(100)
    assert _over(bench) is None

    bench.live()
    bench.wait(1.9)
    assert _over(bench) is None
    bench.wait(0.2)

    assert _over(bench) == "inactivity timeout"


def test_after_the_end_there_is_no_new_connection() -> None:
    bench = Bench().live().tell(EndConversation("over"))
    bench.clear()

    bench.lose()

    assert bench.connects == []
