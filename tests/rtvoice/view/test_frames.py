"""What a screen elsewhere is sent: the whole state, and then what has changed."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from messages import (
    SILENCE_DBFS,
    AssistantTranscript,
    ComponentRestarted,
    InputLevel,
    ItemRemoved,
    Message,
    SessionStarted,
    SetMuted,
    ToolAnswer,
    ToolCall,
    Turn,
    UserItem,
)
from rtvoice.view import View
from rtvoice.view.frames import Frames

STARTED = SessionStarted({"supervisor": 1, "speaker": 2}, "ws://server", "a mic", "a box")


class Screen:
    """A view, its frames, and what they make of a screen elsewhere."""

    def __init__(self, *, inside: bool = True) -> None:
        self.view = View()
        self.frames = Frames(self.view, inside=inside)
        self.shown: list[dict[str, Any]] = []
        self.sections: dict[str, Any] = {}

    def happens(self, *messages: Message) -> None:
        for number, message in enumerate(messages):
            self.view.take(message, 0.1 * number)
            self.frames.note(message, 0.1 * number)

    def take(self, frame: dict[str, Any]) -> dict[str, Any]:
        json.dumps(frame)
        if frame.get("whole"):
            self.shown, self.sections = [], {}
        self.shown = [each for each in self.shown if each["id"] not in frame.get("removed", ())]
        for entry in frame.get("entries", ()):
            self.shown = [each for each in self.shown if each["id"] != entry["id"]]
            ids = [each["id"] for each in self.shown]
            at = ids.index(entry["after"]) + 1 if entry["after"] in ids else 0
            self.shown.insert(at, entry)
        parts = ("whole", "entries", "removed", "events")
        self.sections |= {name: frame[name] for name in frame if name not in parts}
        return frame

    @property
    def ids(self) -> list[str]:
        return [each["id"] for each in self.shown]


def test_what_has_not_changed_is_not_sent_again() -> None:
    screen = Screen()
    screen.happens(STARTED)
    screen.take(screen.frames.whole())

    assert screen.frames.changes() == {}
    screen.happens(SetMuted(True))
    frame = screen.take(screen.frames.changes())
    assert set(frame) == {"state"}
    assert frame["state"]["muted"]
    screen.happens(InputLevel(-20.0, -10.0))
    assert screen.frames.changes(levels=False) == {}
    assert screen.frames.changes() == {"levels": {"input": -10, "output": round(SILENCE_DBFS)}}


def test_a_stranger_is_shown_no_tools_no_processes_and_no_server() -> None:
    screen = Screen(inside=False)
    screen.happens(
        STARTED,
        UserItem("u1", None, "what time is it", spoken=False, transcript_expected=False),
        ToolCall("call_1", "clock", "{}", "r1", "u1"),
        ToolAnswer("call_1", "clock", "noon"),
        ComponentRestarted("speaker", 3, "killed by SIGKILL", 11.0, 2, process=True),
        AssistantTranscript("a1", "Noon."),
    )
    screen.take(screen.frames.whole())
    whole = json.dumps([screen.shown, screen.sections])

    assert screen.ids == ["u1", "a1"]
    assert set(screen.sections) == {"state", "levels", "session"}
    assert [secret for secret in ("clock", "noon", "SIGKILL", "ws://") if secret in whole] == []


def test_each_event_is_sent_once_and_the_newest_with_the_whole_state() -> None:
    screen = Screen()
    screen.happens(STARTED, Turn("user", "hello", "u1"))
    first = screen.frames.whole()["events"]
    screen.happens(Turn("assistant", "Hello!", "a1"))
    news = screen.frames.changes()["events"]

    assert [event["event"] for event in first] == ["session_started", "turn"]
    assert [event["fields"]["text"] for event in news] == ["Hello!"]
    assert "events" not in screen.frames.changes()
    assert len(screen.frames.whole()["events"]) == 3


IDS = st.sampled_from(["i1", "i2", "i3", "i4"])
THINGS = st.one_of(
    st.builds(
        lambda one, before: UserItem(one, before, "words", spoken=False, transcript_expected=False),
        IDS,
        st.none() | IDS,
    ),
    st.builds(AssistantTranscript, IDS, st.just("a")),
    st.builds(lambda one: ItemRemoved(one, "deleted"), IDS),
)


@given(st.lists(st.lists(THINGS, max_size=4), max_size=6))
def test_a_screen_that_takes_the_changes_shows_what_the_whole_state_shows(
    steps: list[list[Message]],
) -> None:
    screen = Screen()
    screen.happens(STARTED)
    screen.take(screen.frames.whole())
    for step in steps:
        screen.happens(*step)
        screen.take(screen.frames.changes())
    changed = {entry["id"]: entry["text"] for entry in screen.shown}, set(screen.ids)

    again = Screen()
    again.take(screen.frames.whole())
    assert changed == ({entry["id"]: entry["text"] for entry in again.shown}, set(again.ids))
    assert screen.ids == [entry.id for entry in screen.view.entries]
