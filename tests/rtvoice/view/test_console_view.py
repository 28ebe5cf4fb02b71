"""What a screen shows is folded from the messages of a session."""

from __future__ import annotations

from messages import (
    AssistantItem,
    AssistantTranscript,
    ComponentCrashed,
    ComponentRestarted,
    Connected,
    Interrupted,
    PlaybackEnded,
    PlaybackStarted,
    ResponseEnded,
    ResponseStarted,
    SessionStarted,
    ToolAnswer,
    ToolCall,
    UserItem,
)
from rtvoice.view import View

STARTED = SessionStarted({"speaker": 7, "supervisor": 1, "sandbox": 8}, "", "a", "b", sandbox=True)
QUESTION = UserItem("u", None, "hi", spoken=False, transcript_expected=False)
ANSWER = AssistantItem("a", "u", "r", "Hello.", "completed", 24_000)


def folded(*messages: object, view: View | None = None) -> View:
    view = view or View()
    for number, message in enumerate(messages):
        view.take(message, float(number))  # type: ignore[arg-type]
    return view


def test_a_session_without_a_connection_is_still_starting() -> None:
    view = folded(STARTED)
    assert view.phase == "starting"

    assert folded(Connected("x"), view=view).phase == "listening"


def test_a_sandbox_with_another_process_id_was_started_again() -> None:
    view = folded(STARTED)
    whole = {"supervisor": {"pid": 1}, "sandbox": {"pid": 8}}

    view.status(whole, 1.0)
    view.status({"supervisor": {"pid": 1}}, 2.0)
    assert (view.processes["sandbox"].state, view.processes["sandbox"].died_s) == ("down", 2.0)
    view.status(whole | {"sandbox": {"pid": 9}}, 3.0)

    sandbox = view.processes["sandbox"]
    assert (sandbox.state, sandbox.restarts, sandbox.pid) == ("up", 1, 9)


def test_it_is_known_when_a_process_died_after_it_is_back() -> None:
    view = View()
    view.take(ComponentCrashed("speaker", 7, "killed by SIGKILL"), 4.0)
    view.take(ComponentRestarted("speaker", 8, "killed by SIGKILL", 12.0, 2, True), 4.1)

    speaker = view.processes["speaker"]
    assert (speaker.state, speaker.died_s, speaker.back_ms) == ("up", 4.0, 12.0)


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


def test_a_turn_is_answered_once_the_answer_was_heard_to_its_end() -> None:
    view = folded(STARTED, Connected("x"))
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
    view = folded(
        STARTED,
        Connected("x"),
        QUESTION,
        ResponseStarted("r"),
        ToolCall("c", "clock", "{}"),
        ResponseEnded("r", "completed"),
        ToolAnswer("c", "clock", "12"),
    )

    assert not view.is_answered("u", 2.0)


def test_a_turn_that_nobody_answers_is_given_up() -> None:
    view = folded(STARTED, Connected("x"), QUESTION)

    view.look(10.0)
    assert not view.is_answered("u", 2.0)
    view.look(30.0)
    assert view.is_answered("u", 2.0)
