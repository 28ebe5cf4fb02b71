"""Recorded sessions with the service, cut at every event: nothing is lost or doubled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from actors.conversation import Conversation
from actors.realtime import wire
from messages import (
    CapturedAudio,
    ConversationItem,
    FatalError,
    FlushPlayback,
    ItemRemoved,
    Message,
    PlaybackFlushed,
    Reconnected,
    ReplayCapture,
    ReplayEnded,
    ServerError,
    SetSpeed,
    SpeedChanged,
    ToolAnswer,
    ToolCall,
)
from tests.actors.realtime.core.bench import Bench
from tests.actors.realtime.server import scripted_server
from tests.actors.realtime.test_actor import Stage
from tests.recordings import FOLDER, needs_recordings, received, recordings

pytestmark = [
    needs_recordings,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]

CUTS = [
    (name, at)
    for name in (recordings() if FOLDER.is_dir() else [])
    for at in range(len(received(name)) + 1)
]
SECOND = 24_000


class Past:
    """The history and the calls when the connection was cut."""

    def __init__(self, told: list[Message]) -> None:
        conversation = Conversation()
        for message in told:
            conversation.apply(message, 0.0)
        self.items = conversation.items()
        self.calls = [message for message in told if isinstance(message, ToolCall)]


def _is_replayed_once(past: Past, items: list[dict[str, Any]], removed: set[str]) -> None:
    """Assert that the new session was sent each message and call of the history once, in order."""
    known = [item for item in past.items if item.item_id not in removed]
    texts = [item.text for item in known if item.kind == "message" and item.text]
    told = [part["content"][0] for part in items if part["type"] == "message"]
    assert [part["text"] for part in told if "text" in part] == texts
    calls = [item.call_id for item in known if item.kind == "function_call"]
    assert [item["call_id"] for item in items if item["type"] == "function_call"] == calls
    outputs = [i["call_id"] for i in items if i["type"] == "function_call_output"]
    assert len(outputs) == len(set(outputs))
    assert set(outputs) <= set(calls)
    ids = [item["id"] for item in items]
    assert len(ids) == len(set(ids))
    assert all(len(item_id) <= 32 for item_id in ids)


def _lacks_an_answer(items: list[ConversationItem]) -> bool:
    """Return whether the last message is the user's, or an answer that was cut off."""
    said = [item for item in items if item.kind != "message" or item.text or item.role == "user"]
    if not said:
        return False
    last = said[-1]
    return last.role == "user" or last.kind != "message" or not last.complete


@pytest.mark.parametrize("how", ["connection", "process"])
@pytest.mark.parametrize("name", recordings() if FOLDER.is_dir() else [])
def test_a_conversation_goes_on_wherever_it_is_cut(name: str, how: str) -> None:
    for at in range(len(received(name)) + 1):
        bench = Bench(transcription_model="gpt-transcribe", inactivity_timeout_s=None).live()
        for block in range(60):
            bench.capture(block * SECOND // 2, SECOND // 2)
        for event in received(name)[:at]:
            bench.take(wire.decode(json.dumps(event).encode()))
            bench.collect()
        past = Past(bench.published)

        if how == "connection":
            bench.lose()
        else:
            bench = bench.restarted()
        bench.clear_but_requests()
        bench.history = list(past.items)
        bench.configured()
        replay = bench.all(ReplayCapture)[-1]
        bench.tell(ReplayEnded(replay.from_sample, replay.request_id))
        for call in past.calls:
            bench.tell(ToolAnswer(call.call_id, call.name, '"done"'))
        bench.wait(0.5)  # past the time in which the speaker would say where it stopped

        removed = {message.item_id for message in bench.all(ItemRemoved)}
        items = bench.items()
        calls = {item["call_id"] for item in items if item["type"] == "function_call"}
        outputs = [i["call_id"] for i in items if i["type"] == "function_call_output"]
        assert sorted(outputs) == sorted(calls), (name, at)
        told = [i for i in items if i["type"] != "function_call_output"]
        _is_replayed_once(past, told, removed)
        left = [item for item in past.items if item.item_id not in removed]
        asks = len(bench.events("response.create"))
        waits = removed or bench.core._user.is_speaking(bench.now)
        assert asks <= 1
        if _lacks_an_answer(left) and not waits:
            assert asks == 1, (name, at, left[-1:])
        if left and left[-1].role == "assistant" and left[-1].complete and not past.calls:
            assert asks == 0, (name, at, left[-1:])
        bench.none(FatalError, ServerError)


@pytest.mark.parametrize(("name", "at"), CUTS[::40])
def test_a_cut_of_a_real_connection_loses_nothing(tmp_path: Path, name: str, at: int) -> None:
    _cut(tmp_path, name, at)


@pytest.mark.long
@pytest.mark.parametrize(("name", "at"), CUTS)
def test_no_cut_of_a_real_connection_loses_anything(tmp_path: Path, name: str, at: int) -> None:
    _cut(tmp_path, name, at)


def _cut(tmp_path: Path, name: str, at: int) -> None:
    """Send a recording over a socket, break it there, and look at what the next session is told."""
    with (
        scripted_server() as server,
        Stage(
            server, tmp_path, transcription_model="gpt-transcribe", inactivity_timeout_s=None
        ) as stage,
    ):
        peer = stage.live()
        for event in received(name)[:at]:
            peer.send_raw(json.dumps(event))
        # Errors come back in order: when ours is told, all before it was taken in.
        peer.send("error", error={"type": "x", "code": "that_was_all", "message": ""})
        stage.rig.expect(ServerError)
        told = stage.rig.take(Message)
        for flush in told:
            if isinstance(flush, FlushPlayback):
                stage.rig.tell(PlaybackFlushed("", 0, 0, flush.sent_ns))
        stage.rig.tell(SetSpeed(1.0))  # messages are handled in order, too
        stage.rig.expect(SpeedChanged)
        past = Past(told + stage.rig.take(Message))

        peer.drop()
        after = stage.server.peer()
        stage.history = past.items
        after.send("session.created", session={"type": "realtime"})
        stage.snapshot()
        after.expect("session.update")
        after.send("session.updated", session={})
        replay = stage.rig.expect(ReplayCapture)
        stage.rig.tell(ReplayEnded(replay.from_sample, replay.request_id))
        stage.rig.tell(CapturedAudio(bytes(1920), replay.from_sample, 0))
        after.expect("input_audio_buffer.append")

        reconnected = stage.rig.expect(Reconnected)
        items = [e["item"] for e in after.received if e["type"] == "conversation.item.create"]
        removed = {message.item_id for message in stage.rig.take(ItemRemoved)}
        _is_replayed_once(past, items, removed)
        left = [item for item in past.items if item.item_id not in removed]
        unknown = [item for item in left if item.role == "user" and not item.transcribed]
        assert reconnected.missing == len(unknown)  # nobody has captured a sound here
        assert reconnected.state_restored == (not unknown)
        assert stage.rig.take(FatalError) == []
