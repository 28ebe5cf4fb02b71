"""A session on threads behaves to its program as one in processes does."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from actors.tools.registry import Tools
from messages import Event, PlaybackEnded, SendText
from supervisor import Session, SessionFailedError
from tests.conversation import noise
from tests.fake_server import FakeServer
from tests.rig import QUIET, TIMEOUT_S
from tests.threads import sessions_on_threads

LOAD = {"Notice", "SoundFaltered"}
"""What a busy machine may add: a start that takes long, sound that comes late."""


def conversation() -> list[object]:
    """Have every component do something; return what the server and the program are told."""
    tools = Tools()

    @tools.action("Double it.")
    def double(number: int) -> int:
        return 2 * number

    with FakeServer() as server:
        session = Session(server=server.url, tools=tools, **QUIET)
        events = session.events(Event)
        session.start()
        session.send(SendText("Twice two?", "text_1"))
        connection = server.connection()
        connection.expect("response.create")
        connection.call("double", '{"number": 2}', call_id="call_1")
        answered = connection.expect("conversation.item.create", lambda e: "output" in e["item"])
        connection.say("Four.", noise(100, seed=1), item="item_1")
        told: list[Any] = []
        while not (told and isinstance(told[-1], PlaybackEnded)):
            told.append(events.get(TIMEOUT_S))
        status = session.status()
        summary = session.stop()
        while (event := events.get(TIMEOUT_S)) is not None:
            told.append(event)
    asked = [event["type"] for event in connection.events]
    return [
        sorted({type(event).__name__ for event in told} - LOAD),
        [kind for kind in asked if kind != "input_audio_buffer.append"],
        answered["item"]["output"],
        {name: entry.keys() for name, entry in status.items()},
        (summary.reason, summary.turns, summary.restarts),
    ]


def failure() -> str:
    with pytest.raises(SessionFailedError) as failed:
        Session(server="ws://127.0.0.1:1", input="nobody.wav", output="null").start()
    return str(failed.value)


def test_a_conversation_on_threads_is_that_in_processes() -> None:
    in_processes = conversation()
    with sessions_on_threads():
        on_threads = conversation()

    assert on_threads == in_processes


def test_what_cannot_start_on_threads_fails_as_in_a_process() -> None:
    in_a_process = failure()
    with sessions_on_threads():
        on_a_thread = failure()

    assert on_a_thread == in_a_process


def test_a_session_that_is_left_ends_with_its_threads() -> None:
    before = threading.active_count()

    with sessions_on_threads():
        Session(server="ws://127.0.0.1:1", **QUIET).start()
        assert threading.active_count() > before + 7

    ours = ("rtvoice.peer", "actors ")
    assert not [it.name for it in threading.enumerate() if it.name.startswith(ours)]
