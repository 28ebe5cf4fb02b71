"""What a screen shows of a conversation, by what has happened."""

from __future__ import annotations

import json

import pytest

from messages import (
    AssistantItem,
    AssistantTranscript,
    AudioLost,
    BudgetUsed,
    ComponentCrashed,
    ComponentParked,
    ComponentRestarted,
    Connected,
    Disconnected,
    EchoState,
    Interrupted,
    ItemPlaced,
    ItemRemoved,
    Message,
    Notice,
    PlaybackEnded,
    PlaybackPaused,
    PlaybackResumed,
    PlaybackStarted,
    PlayedPosition,
    Reconnected,
    ResponseEnded,
    ResponseStarted,
    RoundTrip,
    SessionEnded,
    SessionEnding,
    SessionFailed,
    SessionStarted,
    SetMuted,
    SoundFaltered,
    SupervisorRestarted,
    Tokens,
    ToolAnswer,
    ToolCall,
    Turn,
    UsageUpdated,
    UserItem,
    UserSpeechStarted,
    UserSpeechStopped,
    UserTranscript,
    WireEvent,
)
from rtvoice.view import PARTIAL_TRANSCRIPT, Entry, View, Waits

STARTED = SessionStarted({"supervisor": 1, "speaker": 2, "microphone": 3}, "", "a mic", "a box")
QUESTION = UserItem("u", None, "hi", spoken=False, transcript_expected=False)
ANSWER = AssistantItem("a", "u", "r", "Hello.", "completed", 24_000)


def view_after(*messages: Message, view: View | None = None) -> View:
    """Return what is shown after these messages, a tenth of a second apart."""
    view = view or View()
    if not view.started:
        view.take(STARTED, 0.0)
        view.take(Connected(""), 0.0)
    for number, message in enumerate(messages, 1):
        view.take(message, number / 10)
    return view


def talk(view: View) -> list[str]:
    """Return the talk, with what was not heard in brackets."""
    return [
        f"{entry.kind}: {entry.text[: entry.heard]}[{entry.text[entry.heard :]}]"
        if entry.kind == "assistant"
        else f"{entry.kind}: {entry.text}"
        for entry in view.entries
    ]


def piece(item_id: str, delta: object) -> WireEvent:
    """Return the server's event with a piece of the user's transcript."""
    data = json.dumps({"item_id": item_id, "delta": delta}).encode()
    return WireEvent(PARTIAL_TRANSCRIPT, "server", data)


def spoken(item_id: str = "u1", before: str | None = None) -> UserItem:
    """Return a turn of the user whose transcript has not come."""
    return UserItem(item_id, before, "", spoken=True, transcript_expected=True)


# -- the talk -------------------------------------------------------------------------------------


def test_speech_is_shown_while_it_is_said_and_as_its_transcript_at_the_end() -> None:
    view = view_after(UserSpeechStarted("u1", 0), piece("u1", "what "), piece("u1", "time"))
    assert talk(view) == ["user: what time"]
    assert [entry.state for entry in view.entries] == ["partial"]

    view_after(
        UserSpeechStopped("u1", 100), spoken(), UserTranscript("u1", "What time is it?"), view=view
    )

    assert talk(view) == ["user: What time is it?"]
    assert [entry.state for entry in view.entries] == ["complete"]


def test_speech_by_a_key_is_one_entry_though_its_id_is_known_at_the_end() -> None:
    view = view_after(
        UserSpeechStarted("", 0),
        UserSpeechStopped("u1", 100),
        spoken(),
        UserTranscript("u1", "Hello"),
        Turn("user", "Hello", "u1"),
    )

    assert talk(view) == ["user: Hello"]


def test_speech_that_was_too_short_to_be_a_turn_is_not_shown_any_more() -> None:
    assert talk(view_after(UserSpeechStarted("u1", 0), UserSpeechStopped("", 100))) == []


def test_what_was_heard_of_an_answer_follows_what_is_played() -> None:
    text = "0123456789"
    view = view_after(
        AssistantItem("a1", None, "r1", "", "in_progress"),
        AssistantTranscript("a1", text),
        AssistantItem("a1", None, "r1", text, "completed", 24_000),
        PlayedPosition("a1", 7_200, 0),
    )
    assert talk(view) == ["assistant: 012[3456789]"]

    view_after(PlayedPosition("a1", 24_000, 0, finished=True), view=view)
    view_after(PlaybackEnded("a1", 1000), view=view)

    assert talk(view) == ["assistant: 0123456789[]"]


def test_while_the_length_of_an_answer_is_not_known_what_was_heard_is_estimated_by_its_pace() -> (
    None
):
    view = view_after(
        AssistantTranscript("a1", "x" * 100),
        AssistantItem("a1", None, "r1", "x" * 40, "in_progress", 48_000),
        PlayedPosition("a1", 24_000, 0),
    )

    assert view.entries[0].heard == 20


def test_what_was_heard_never_becomes_less() -> None:
    view = view_after(
        AssistantTranscript("a1", "x" * 100),
        PlayedPosition("a1", 96_000, 0),
        AssistantItem("a1", None, "r1", "x" * 100, "completed", 240_000),
        PlayedPosition("a1", 98_000, 0),
    )

    assert view.entries[0].heard == 60


def test_after_an_interruption_what_was_heard_is_what_the_event_says() -> None:
    view = view_after(
        AssistantTranscript("a1", "Once upon a time"),
        PlayedPosition("a1", 1_000, 0),
        Interrupted("a1", 700, "Once upon"),
        PlayedPosition("a1", 24_000, 0),
    )

    assert talk(view) == ["assistant: Once upon[ a time]"]
    assert view.entries[0].state == "interrupted"
    assert view.counts.interruptions == 1


def test_what_was_not_heard_is_known_also_after_the_death_of_the_supervisor() -> None:
    view = view_after(
        AssistantTranscript("a1", "Once upon a time"),
        AssistantItem("a1", None, "r1", "Once upon a time", "incomplete", 24_000),
        Interrupted("a1", 700, "Once upon"),
        AssistantItem("a1", None, "", "Once upon", "incomplete", 0),  # restored
    )

    assert talk(view) == ["assistant: Once upon[ a time]"]
    assert view.entries[0].state == "interrupted"


def test_a_tool_call_has_its_arguments_its_answer_and_how_long_it_took() -> None:
    view = view_after(
        ToolCall("c1", "weather", '{"city": "Rome"}'), ToolAnswer("c1", "weather", "21 degrees")
    )

    entry = view.entries[0]
    assert (entry.text, entry.arguments, entry.output) == (
        "weather",
        '{"city": "Rome"}',
        "21 degrees",
    )
    assert (entry.state, entry.seconds) == ("complete", 0.1)


def test_a_tool_call_that_comes_twice_is_one_entry() -> None:
    call = ToolCall("c1", "weather", "{}")
    assert len(view_after(call, call, ToolAnswer("c1", "weather", "21"), call).entries) == 1


def test_turns_are_in_the_order_of_the_conversation() -> None:
    view = view_after(
        AssistantItem("a1", "u1", "r1", "", "in_progress"),
        UserItem("u2", "a1", "typed", spoken=False, transcript_expected=False),
        AssistantItem("a2", "a1", "r2", "", "in_progress"),
        Notice("something"),
        ItemPlaced("u2", "a2"),
    )

    assert [entry.id for entry in view.entries if entry.kind != "notice"] == ["a1", "a2", "u2"]


def test_an_earlier_conversation_was_heard_but_for_what_was_interrupted() -> None:
    view = View()

    view.restore(
        [
            QUESTION,
            ANSWER,
            ToolCall("c", "clock", "{}"),
            AssistantItem("b", "a", "s", "Once upon a time.", "incomplete", 24_000),
            Interrupted("b", 500, "Once upon"),
        ]
    )

    heard = {entry.id: entry.text[: entry.heard] for entry in view.entries}
    assert heard == {"u": "hi", "a": "Hello.", "c": "", "b": "Once upon"}
    assert [view.find(each).state for each in "acb"] == ["complete", "failed", "interrupted"]  # type: ignore[union-attr]
    assert view.phase == "starting"
    assert view.counts.interruptions == 0


def test_an_item_that_was_removed_is_not_shown() -> None:
    view = view_after(spoken(), ItemRemoved("u1", "noise"))
    assert talk(view) == []
    assert view.find("u1") is None


def test_what_has_gone_wrong_is_one_line() -> None:
    view = view_after(
        ComponentCrashed("speaker", 2, "killed by SIGKILL"),
        ComponentRestarted("speaker", 9, "killed by SIGKILL", 16.2, 2, process=True),
        SoundFaltered("speaker", "too busy", 3),
    )

    assert talk(view) == ["trouble: speaker crashed: killed by SIGKILL; back in 16 ms"]
    assert (view.counts.underruns, view.counts.restarts) == (3, 1)


# -- the one word ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "phase"),
    [
        ((), "listening"),
        ((UserSpeechStarted("u1", 0),), "hearing you"),
        ((UserSpeechStarted("u1", 0), UserSpeechStopped("u1", 9)), "thinking"),
        ((UserSpeechStarted("u1", 0), UserSpeechStopped("", 9)), "listening"),
        ((UserItem("u1", None, "hi", False, False),), "thinking"),
        ((ResponseStarted("r1"),), "thinking"),
        ((ResponseStarted("r1"), ResponseEnded("r1", "completed")), "listening"),
        ((ToolCall("c1", "f", "{}"),), "thinking"),
        ((ToolCall("c1", "f", "{}"), ToolAnswer("c1", "f", "")), "listening"),
        ((ResponseStarted("r1"), PlaybackStarted("a1", "r1", 0)), "speaking"),
        ((PlaybackStarted("a1", "r1", 0), PlaybackEnded("a1", 9)), "listening"),
        ((PlaybackStarted("a1", "r1", 0), Interrupted("a1", 9)), "listening"),
        ((PlaybackStarted("a1", "r1", 0), PlaybackPaused("a1", 9)), "paused"),
        (
            (PlaybackStarted("a1", "r1", 0), PlaybackPaused("a1", 9), PlaybackResumed("a1", 9)),
            "speaking",
        ),
        ((PlaybackStarted("a1", "r1", 0), UserSpeechStarted("u1", 0)), "hearing you"),
        ((SetMuted(True),), "muted"),
        ((SetMuted(True), SetMuted(False)), "listening"),
        ((Disconnected("gone"),), "reconnecting"),
        ((Disconnected("gone"), Reconnected(True, 2, 40)), "listening"),
        ((SessionEnding("over"),), "ending"),
        ((SessionEnded("over", 1, 0, {}, (), (), 2.0),), "ended"),
        ((SessionFailed("no key"),), "failed"),
    ],
)
def test_one_word_says_what_the_conversation_does(
    messages: tuple[Message, ...], phase: str
) -> None:
    assert view_after(*messages).phase == phase


def test_before_there_is_a_connection_it_is_starting() -> None:
    view = View()
    assert view.phase == "starting"
    view.take(STARTED, 0.0)
    assert view.phase == "starting"


def test_a_turn_that_nothing_answers_is_not_thought_about_for_ever() -> None:
    view = view_after(UserSpeechStarted("u1", 0), UserSpeechStopped("u1", 9))

    view.look(30.0)

    assert view.phase == "listening"


# -- whether a turn is answered -------------------------------------------------------------------


def test_a_turn_is_answered_once_the_answer_was_heard_to_its_end() -> None:
    view = view_after()
    steps = (
        QUESTION,
        ResponseStarted("r"),
        AssistantTranscript("a", "Hello."),
        ANSWER,
        PlaybackStarted("a", "r", 0),
        ResponseEnded("r", "completed"),
    )
    for step in steps:
        view.take(step, 3.0)
        assert not view.is_answered("u", 2.0), step

    view.take(PlaybackEnded("a", 1000), 4.0)

    assert view.is_answered("u", 2.0)


def test_a_tool_call_is_no_answer() -> None:
    view = view_after(
        QUESTION,
        ResponseStarted("r"),
        ToolCall("c", "clock", "{}"),
        ResponseEnded("r", "completed"),
        ToolAnswer("c", "clock", "12"),
    )

    assert not view.is_answered("u", 2.0)


def test_a_turn_that_nobody_answers_is_given_up() -> None:
    view = view_after(QUESTION)

    view.look(10.0)
    assert not view.is_answered("u", 2.0)
    view.look(30.0)
    assert view.is_answered("u", 2.0)


# -- processes ------------------------------------------------------------------------------------


def test_a_process_that_dies_is_down_until_it_is_back() -> None:
    view = view_after(ComponentCrashed("speaker", 2, "killed by SIGKILL"))
    assert view.processes["speaker"].state == "down"

    view.take(ComponentRestarted("speaker", 9, "killed by SIGKILL", 16.2, 2, process=True), 0.2)

    speaker = view.processes["speaker"]
    assert (speaker.state, speaker.pid, speaker.restarts, speaker.back_ms) == ("up", 9, 1, 16.2)
    assert speaker.died_s == 0.1  # known also when it is back


def test_a_new_process_for_another_device_is_no_restart() -> None:
    view = view_after(ComponentRestarted("speaker", 9, "", 40.0, 2, process=True, crashed=False))

    assert (view.processes["speaker"].pid, view.processes["speaker"].restarts) == (9, 0)


def test_a_component_that_crashes_again_and_again_is_parked() -> None:
    view = view_after(ComponentParked("speaker", "raised ValueError", 5.0))
    assert view.processes["speaker"].state == "parked"


def test_a_supervisor_that_was_replaced_is_a_restart_of_all() -> None:
    view = view_after(
        ComponentCrashed("speaker", 2, "x"), SupervisorRestarted(7, "killed", 85.0, 2)
    )

    assert view.processes["speaker"].state == "up"
    assert (view.processes["supervisor"].pid, view.processes["supervisor"].back_ms) == (7, 85.0)


def test_a_sandbox_with_another_process_id_was_started_again() -> None:
    view = view_after()
    whole = {"supervisor": {"pid": 1}, "sandbox": {"pid": 8}}

    view.status(whole, 1.0)
    view.status({"supervisor": {"pid": 1}}, 2.0)
    assert (view.processes["sandbox"].state, view.processes["sandbox"].died_s) == ("down", 2.0)
    view.status(whole | {"sandbox": {"pid": 9}}, 3.0)

    sandbox = view.processes["sandbox"]
    assert (sandbox.state, sandbox.restarts, sandbox.pid) == ("up", 1, 9)


def test_the_use_of_the_cpu_is_what_was_used_between_two_looks() -> None:
    view = view_after()
    about = {"pid": 2, "state": "open", "restarts": 0, "mailbox": 1, "memory_bytes": 4096}
    view.status({"speaker": {**about, "cpu_seconds": 1.0}}, 1.0)
    assert view.processes["speaker"].cpu is None

    view.status({"speaker": {**about, "cpu_seconds": 1.5}}, 3.0)

    speaker = view.processes["speaker"]
    assert (speaker.cpu, speaker.mailbox, speaker.memory_bytes) == (0.25, 1, 4096)


def test_the_cpu_time_of_another_process_is_not_compared() -> None:
    view = view_after()
    view.status({"speaker": {"pid": 2, "state": "open", "cpu_seconds": 5.0}}, 1.0)
    view.status({"speaker": {"pid": 3, "state": "open", "cpu_seconds": 0.1}}, 2.0)
    assert view.processes["speaker"].cpu is None


# -- latency, cost, sound -------------------------------------------------------------------------


def test_the_steps_of_the_last_answer_are_kept_and_the_waits_of_all() -> None:
    view = view_after(
        PlaybackStarted("a1", "r1", 0, 900, 500, 700),
        PlaybackStarted("a2", "r2", 0, None),
        PlaybackStarted("a3", "r3", 0, 300, 100, 200),
    )

    assert view.waits.last is not None
    assert (view.waits.last.committed_ms, view.waits.last.received_ms) == (100, 200)
    assert (view.waits.percentile(50), view.waits.percentile(95)) == (300, 900)


def test_without_an_answer_there_is_no_percentile() -> None:
    assert Waits().percentile(50) is None


def test_cost_echo_round_trip_and_losses_are_the_last_known() -> None:
    view = view_after(
        UsageUpdated("r1", Tokens(input_text=3), 0.25),
        BudgetUsed(80, 3, 0.25),
        RoundTrip(41.5),
        EchoState("failed", reason="too loud"),
        AudioLost("microphone", 40, "it died"),
    )

    assert (view.tokens.total, view.dollars, view.budget_percent) == (3, 0.25, 80)
    assert (view.round_trip_ms, view.counts.lost_ms) == (41.5, 40)
    assert not view.listens_while_speaking


# -- what has changed -----------------------------------------------------------------------------


def replayed(changes: list[tuple[list[tuple[str, Entry]], list[str]]]) -> list[str]:
    """Return the ids of the talk as a page has it that was told only what has changed."""
    ids: list[str] = []
    for changed, removed in changes:
        for gone in removed:
            ids.remove(gone) if gone in ids else None
        for before, entry in changed:
            if entry.id in ids:
                ids.remove(entry.id)
            ids.insert(ids.index(before) + 1 if before else 0, entry.id)
    return ids


def test_whoever_is_told_only_the_changes_has_the_same_talk() -> None:
    view = View()
    changes = []
    for number, message in enumerate(
        [
            STARTED,
            UserSpeechStarted("", 0),
            UserSpeechStopped("u1", 9),
            AssistantItem("a1", "u1", "r1", "", "in_progress"),
            Notice("one"),
            spoken("u1"),
            UserItem("u2", "a1", "typed", spoken=False, transcript_expected=False),
            AssistantItem("a2", "a1", "r2", "", "in_progress"),
            ItemPlaced("u2", "a2"),
            ItemRemoved("a1", "gone"),
            Interrupted("a2", 4),
        ]
    ):
        view.take(message, number / 10)
        changes.append(view.changes())

    assert replayed(changes) == [entry.id for entry in view.entries]
    assert view.changes() == ([], [])
