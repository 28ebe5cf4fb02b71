"""The realtime actor on its real host, with a scripted server on a real socket."""

from __future__ import annotations

import base64
import json
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.frames import Frame, Opcode

from actors.published import PublishedChanges, published_changes
from actors.realtime import websocket, wire
from actors.realtime.actor import KEY_VARIABLE, Realtime
from actors.realtime.core.core import Core
from actors.realtime.core.state import Saved
from messages import (
    AssistantAudio,
    AssistantItem,
    AssistantTranscript,
    CapturedAudio,
    ConversationItem,
    ConversationOver,
    Crashed,
    EndConversation,
    FatalError,
    FlushPlayback,
    HistoryRequest,
    HistorySnapshot,
    Inject,
    Interrupted,
    Message,
    Notice,
    PlaybackFlushed,
    PlayedPosition,
    Reconnected,
    ReplayCapture,
    ReplayedAudio,
    ReplayEnded,
    ResponseEnded,
    ResponseStarted,
    SendText,
    ServerError,
    ToolAnswer,
    ToolCall,
    ToolsAvailable,
    UserItem,
    UserSpeechStarted,
    WantWireEvents,
    WireEvent,
)
from messages.transport.saved import StateFile, read_state
from tests.actors.realtime.raw import RawServer
from tests.actors.realtime.server import Peer, ScriptedServer, scripted_server
from tests.rig import TIMEOUT_S, Rig, until

KEY = "sk-canary-0123456789"
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)


@pytest.fixture
def server() -> Iterator[tuple[ScriptedServer, str]]:
    with scripted_server() as running:
        yield running


class Stage:
    """An actor, its server, and the test in the place of everybody else."""

    def __init__(
        self, server: tuple[ScriptedServer, str], tmp_path: Path, /, **settings: object
    ) -> None:
        self.server, self.url = server
        self.rig = Rig(Realtime, tmp_path, **{"server": self.url, "model": "m", **settings})
        self.rig.session = msgspec.structs.replace(self.rig.session, server_url=self.url)
        self.history: tuple[ConversationItem, ...] = ()

    def __enter__(self) -> Stage:
        self.rig.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.rig.__exit__()

    def snapshot(self) -> None:
        request = [self.rig.expect(HistoryRequest), *self.rig.take(HistoryRequest)][-1]
        self.rig.tell(HistorySnapshot(request.request_id, self.history))

    def live(self, from_sample: int = 0, **session: Any) -> Peer:
        """Bring a session up to the point where captured audio flows."""
        peer = self.server.peer()
        self.rig.tell(ToolsAvailable(()))
        self.snapshot()
        peer.begin(**session)
        replay = self.rig.expect(ReplayCapture)
        assert replay.from_sample == from_sample
        self.rig.tell(ReplayEnded(from_sample, replay.request_id))
        return peer

    def block(self, first_sample: int, byte: bytes = b"\1") -> None:
        self.rig.tell(CapturedAudio(byte * 1920, first_sample, 0))


@pytest.fixture
def stage(server: tuple[ScriptedServer, str], tmp_path: Path) -> Iterator[Stage]:
    with Stage(server, tmp_path) as running:
        yield running


def _speak(peer: Peer, text: str = "Hello", ms: int = 100, response_id: str = "r1") -> None:
    """Have the server give an answer up to its sound."""
    ids = {"response_id": response_id, "item_id": f"a{response_id}"}
    peer.send("response.created", response={"id": response_id, "status": "in_progress"})
    item = {"id": ids["item_id"], "type": "message", "role": "assistant"}
    peer.send("response.output_item.added", response_id=response_id, item=item)
    peer.send("conversation.item.added", item=item, previous_item_id=None)
    peer.send("response.output_audio_transcript.delta", **ids, delta=text)
    delta = base64.b64encode(b"\7" * 48 * ms).decode()
    peer.send("response.output_audio.delta", **ids, content_index=0, delta=delta)


def _finish(peer: Peer, response_id: str = "r1") -> None:
    ids = {"response_id": response_id, "item_id": f"a{response_id}"}
    peer.send("response.output_audio.done", **ids)
    item = {"id": ids["item_id"], "type": "message", "role": "assistant", "status": "completed"}
    peer.send("response.output_item.done", response_id=response_id, item=item)
    peer.send("response.done", response={"id": response_id, "status": "completed"})


def test_it_is_open_before_the_server_has_answered(stage: Stage) -> None:
    assert stage.rig.expect(HistoryRequest)  # and so `Ready` was said without a session


def test_the_handshake_names_model_agent_and_key(
    key: None, server: tuple[ScriptedServer, str], tmp_path: Path
) -> None:
    with Stage(server, tmp_path, model="gpt realtime&2") as stage:
        request = stage.server.peer().request

        assert request.path == "/v1/realtime?model=gpt%20realtime%262"
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        assert request.headers["User-Agent"] == websocket.USER_AGENT
        assert "OpenAI-Beta" not in request.headers
        assert "Sec-WebSocket-Extensions" not in request.headers


def test_without_a_key_no_authorization_is_sent(
    monkeypatch: pytest.MonkeyPatch, server: tuple[ScriptedServer, str], tmp_path: Path
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with Stage(server, tmp_path) as stage:
        assert "Authorization" not in stage.server.peer().request.headers


def test_the_sandbox_is_not_given_the_key(
    key: None, server: tuple[ScriptedServer, str], tmp_path: Path
) -> None:
    with Stage(server, tmp_path, server="sandbox") as stage:
        assert "Authorization" not in stage.server.peer().request.headers


def test_the_key_does_not_leave_this_machine_in_clear(key: None, tmp_path: Path) -> None:
    with Rig(Realtime, tmp_path, server="ws://192.0.2.1:9/v1/realtime") as rig:
        rig.expect(HistoryRequest)

        assert any("key is not sent" in log.text for log in rig.logs)
        assert KEY not in repr(rig.logs)


def test_a_model_in_the_url_is_kept(server: tuple[ScriptedServer, str], tmp_path: Path) -> None:
    with Stage((server[0], f"{server[1]}?model=mine&x=1"), tmp_path) as stage:
        assert stage.server.peer().request.path == "/v1/realtime?model=mine&x=1"


def test_the_agent_has_our_version() -> None:
    project = Path(__file__).parents[3] / "pyproject.toml"
    version = tomllib.loads(project.read_text())["project"]["version"]

    assert f"rtvoice/{version}" == websocket.USER_AGENT


def test_captured_audio_reaches_the_server(stage: Stage) -> None:
    peer = stage.live()

    stage.block(0, b"\5")

    audio = peer.expect("input_audio_buffer.append")["audio"]
    assert base64.b64decode(audio) == b"\5" * 1920


def test_an_audio_delta_reaches_the_speaker(stage: Stage) -> None:
    peer = stage.live()

    _speak(peer, ms=100)

    audio = stage.rig.expect(AssistantAudio)
    assert audio.pcm == b"\7" * 4800
    assert (audio.item_id, audio.response_id, audio.first_sample) == ("ar1", "r1", 0)
    assert audio.sent_ns > 0
    assert stage.rig.expect(AssistantItem).text == "Hello"


def test_an_interruption_is_truncated_at_the_server(stage: Stage) -> None:
    peer = stage.live()
    _speak(peer, "one two", ms=1000)
    _finish(peer)
    stage.rig.expect(ResponseEnded)

    peer.send("input_audio_buffer.speech_started", item_id="u1", audio_start_ms=0)
    stage.rig.expect(FlushPlayback)
    stage.rig.tell(PlaybackFlushed("ar1", 12000))

    assert peer.expect("conversation.item.truncate")["audio_end_ms"] == 500
    assert stage.rig.expect(Interrupted).heard_ms == 500


def test_broken_frames_end_nothing(stage: Stage) -> None:
    peer = stage.live()

    for text in ("no json", "[]", '{"type": "response.done"}', '{"type": "of.tomorrow"}'):
        peer.send_raw(text)
    stage.block(0)

    assert peer.expect("input_audio_buffer.append")
    assert stage.rig.expect(ServerError).code == "bad_frame"


@pytest.mark.parametrize("orphaned", [False, True])
def test_the_saved_state_and_the_published_changes_go_together(
    stage: Stage, orphaned: bool
) -> None:
    """Otherwise the next history would have a call of which the next realtime does not know."""
    peer = stage.live()
    stage.rig.host.orphaned = orphaned
    peer.send("response.created", response={"id": "r1"})
    item = {"id": "f1", "type": "function_call", "call_id": "c1", "name": "clock"}
    peer.send("response.output_item.done", response_id="r1", item={**item, "arguments": "{}"})

    call = stage.rig.expect(ToolCall)

    session = stage.rig.session
    until(lambda: (call in published_changes(session)) is not orphaned, "not as the state")
    assert (b"clock" in (read_state(session.directory, "realtime") or b"")) is not orphaned
    stage.rig.host.orphaned = False


def test_changes_are_sent_and_then_written_right_before_the_state(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A supervisor that dies in between takes along as little as possible that is done again."""
    stage.live()
    host, done = stage.rig.host, list[str]()
    send, write, save = host.channel.write_frame, PublishedChanges.write, StateFile.write

    def note(what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: (done.append(what), call(*args))[1]

    monkeypatch.setattr(host.channel, "write_frame", note("sent", send))
    monkeypatch.setattr(PublishedChanges, "write", note("changes", write))
    monkeypatch.setattr(StateFile, "write", note("state", save))

    stage.rig.tell(SendText("Hello", "typed"))
    assert stage.rig.expect(UserItem).text == "Hello"

    until(lambda: "sent changes state" in " ".join(done), f"it was {done}")


def test_an_answer_to_what_was_sent_straight_waits_for_neither_supervisor_nor_file(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = stage.live()
    host, done = stage.rig.host, list[str]()

    def note(what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: (done.append(what), call(*args))[1]

    look = Realtime.take_straight

    def look_or_wait(realtime: Realtime, wait_s: float = 0.0) -> None:
        done.append("wait" if wait_s else "look")
        look(realtime, wait_s)

    monkeypatch.setattr(Realtime, "take_straight", look_or_wait)
    monkeypatch.setattr(host.channel, "write_frame", note("sent", host.channel.write_frame))
    monkeypatch.setattr(StateFile, "write", note("state", StateFile.write))
    monkeypatch.setattr(Core, "tick", note("tick", Core.tick))
    take = Core.server_event

    def begin(core: Core, event: object, *args: Any, **how: Any) -> bool:
        done.clear()
        return take(core, event, *args, **how)

    monkeypatch.setattr(Core, "server_event", begin)

    def before_the_state() -> list[str]:
        until(lambda: "state" in done, "nothing was saved")
        before = done[: done.index("state")]
        return [each for each in before if each != "sent"]

    peer.send("input_audio_buffer.speech_started", item_id="u1", audio_start_ms=100)
    stage.rig.expect(UserSpeechStarted)
    assert before_the_state() == ["look", "tick", "look"]

    peer.send("input_audio_buffer.speech_stopped", item_id="u1", audio_end_ms=500)
    peer.send("response.created", response={"id": "r1"})
    stage.rig.expect(ResponseStarted)
    peer.send("input_audio_buffer.speech_started", item_id="u2", audio_start_ms=900)
    stage.rig.expect(FlushPlayback)
    assert before_the_state() == ["look", "tick", "wait"]  # for where the speaker has stopped


def test_a_tool_is_called_and_its_answer_sent(stage: Stage) -> None:
    peer = stage.live()
    peer.send("response.created", response={"id": "r1"})
    item = {"id": "f1", "type": "function_call", "call_id": "c1", "name": "clock"}
    peer.send("response.output_item.done", response_id="r1", item={**item, "arguments": "{}"})
    assert stage.rig.expect(ToolCall).name == "clock"

    stage.rig.tell(ToolAnswer("c1", "clock", "12:00"))
    peer.send("response.done", response={"id": "r1", "status": "completed"})

    assert peer.expect("conversation.item.create")["item"]["output"] == "12:00"
    assert peer.expect("response.create")


def test_the_end_of_the_conversation_is_published(stage: Stage) -> None:
    stage.live()

    stage.rig.tell(EndConversation("enough"))

    assert stage.rig.expect(ConversationOver).reason == "enough"


def test_timers_of_the_core_run(stage: Stage) -> None:
    peer = stage.live()
    _speak(peer, ms=1000)
    stage.rig.expect(AssistantAudio)

    peer.send("input_audio_buffer.speech_started", item_id="u1", audio_start_ms=0)

    assert stage.rig.expect(Interrupted)  # after 300 ms without an answer of the speaker


# -- losing the connection -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["drop", "close"])
def test_a_lost_connection_is_made_again_with_the_conversation(stage: Stage, how: str) -> None:
    first = stage.live()
    stage.history = (ConversationItem("u1", "message", "user", "Hello"),)

    first.drop() if how == "drop" else first.close(1001, "going away")
    second = stage.server.peer()
    stage.snapshot()
    second.begin()

    assert second.expect("conversation.item.create")["item"]["id"] == "msg_u1"
    told = stage.rig.expect(Reconnected)
    assert (told.state_restored, told.items) == (True, 1)
    replay = stage.rig.expect(ReplayCapture)
    stage.rig.tell(ReplayedAudio(b"\2" * 1920, 0, replay.request_id))
    stage.rig.tell(ReplayEnded(960, replay.request_id))
    stage.block(960, b"\3")
    heard = [second.expect("input_audio_buffer.append")["audio"] for _ in range(2)]
    assert [base64.b64decode(audio)[:1] for audio in heard] == [b"\2", b"\3"]


def test_after_a_death_the_conversation_goes_on(
    server: tuple[ScriptedServer, str], tmp_path: Path
) -> None:
    with Stage(server, tmp_path) as before:
        before.live()
        before.rig.tell(SendText("Hello?", "t1"))
        before.rig.expect(UserItem)
        state = before.rig.wait_state(
            lambda state: bool(msgspec.msgpack.decode(state, type=Saved).texts)
        )

    after = Stage(server, tmp_path)
    after.rig.state = state
    after.rig.session = msgspec.structs.replace(after.rig.session, first=False)
    with after:
        peer = after.server.peer()
        after.snapshot()
        peer.begin()

        assert peer.expect("conversation.item.create")["item"]["id"] == "msg_t1"
        assert peer.expect("response.create")
        assert after.rig.expect(Reconnected)


def test_connecting_is_retried_until_the_server_is_there(
    server: tuple[ScriptedServer, str], tmp_path: Path
) -> None:
    server[0].refuse = [(503, ""), (503, "")]
    with Stage(server, tmp_path) as stage:
        notice = stage.rig.expect(Notice)
        assert notice.text.startswith(f"cannot reach {stage.url}: HTTP 503")

        stage.live()

        assert stage.rig.expect(Notice).text.startswith("connected")


def test_a_refused_connection_is_tried_again(tmp_path: Path) -> None:
    with scripted_server() as closed:
        pass  # nobody listens there any more
    with Stage(closed, tmp_path) as stage:
        assert "refused" in stage.rig.expect(Notice).text.lower()


def test_a_refused_key_ends_the_session_and_is_not_quoted(
    key: None, server: tuple[ScriptedServer, str], tmp_path: Path
) -> None:
    body = json.dumps({"error": {"code": "invalid_api_key", "message": f"no {KEY}"}})
    server[0].refuse = [(401, body)]
    with Stage(server, tmp_path) as stage:
        reason = stage.rig.expect(FatalError).reason

        assert "OPENAI_API_KEY" in reason
        assert KEY not in reason
        assert KEY not in repr(stage.rig.logs)


def test_a_key_that_the_server_quotes_is_removed(
    key: None, server: tuple[ScriptedServer, str], tmp_path: Path
) -> None:
    with Stage(server, tmp_path) as stage:
        peer = stage.live()

        peer.send("error", error={"type": "x", "code": "odd", "message": f"your key {KEY}"})

        assert stage.rig.expect(ServerError).text == "your key [key]"


def test_without_a_key_openai_is_not_contacted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with Rig(Realtime, tmp_path, server="openai") as rig:
        assert "not set" in rig.expect(FatalError).reason


def test_a_server_that_accepts_no_more_data_is_disconnected(
    monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    monkeypatch.setattr("actors.realtime.connection.STALL_S", 0.2)
    peer = stage.live()
    peer.stop_reading()
    given_up = threading.Event()

    def fill() -> None:
        first = 0
        while not given_up.is_set():
            stage.rig.tell(CapturedAudio(b"\1" * 192_000, first, 0))
            first += 96_000
            given_up.wait(0.005)

    threading.Thread(target=fill, daemon=True).start()
    try:
        assert stage.server.peer()
    finally:
        given_up.set()
    stage.rig.wait_handled(mail=5)  # the actor has not hung meanwhile


# -- two connections -------------------------------------------------------------------------------


def _spare(stage: Stage) -> tuple[Peer, Peer]:
    """Bring a session up that ends soon, and the one that follows it, both connected."""
    peer = stage.live(expires_at=time.time() + 3.0)
    spare = stage.server.peer()
    return peer, spare


def test_a_session_near_its_end_is_swapped_for_another_and_no_sound_is_lost(stage: Stage) -> None:
    peer = stage.live(expires_at=time.time() + 3.0)
    stage.history = (ConversationItem("u1", "message", "user", "Hello"),)
    stage.block(0, b"\5")
    peer.expect("input_audio_buffer.append")

    spare = stage.server.peer()
    spare.send("session.created", session={"type": "realtime"})
    stage.snapshot()
    update = spare.expect("session.update")
    assert spare.expect("conversation.item.create")["item"]["id"] == "msg_u1"
    spare.send("session.updated", session=update["session"])
    stage.snapshot()

    replay = stage.rig.expect(ReplayCapture)
    stage.rig.tell(ReplayEnded(replay.from_sample, replay.request_id))
    stage.block(960, b"\6")
    assert spare.expect("input_audio_buffer.append")["audio"].startswith("BgYG")
    assert stage.rig.expect(Reconnected).gap_ms == 0
    peer.connection.recv_events_thread.join(TIMEOUT_S)
    assert peer.connection.close_code == 1000
    assert len(stage.server.all) == 2


def test_after_a_raise_the_standby_connection_is_kept(stage: Stage) -> None:
    peer, spare = _spare(stage)
    _speak(peer)  # so that nothing is swapped meanwhile
    stage.rig.expect(AssistantAudio)
    stage.rig.tell(Inject("realtime", "raise"))
    stage.rig.expect(Crashed)
    spare.send("session.created", session={"type": "realtime"})
    stage.rig.open()

    stage.snapshot()

    assert spare.expect("session.update")
    assert len(stage.server.all) == 2


def test_the_end_of_the_session_closes_both_connections(stage: Stage) -> None:
    peer, spare = _spare(stage)

    stage.rig.stop()

    for each in (peer, spare):
        each.connection.recv_events_thread.join(TIMEOUT_S)
        assert each.connection.close_code == 1000


def test_events_of_the_standby_connection_are_not_sent_to_the_program(stage: Stage) -> None:
    stage.rig.tell(WantWireEvents(("session.created", "session.update")))
    peer, spare = _spare(stage)
    _speak(peer)
    stage.rig.expect(AssistantAudio)
    stage.rig.take(WireEvent)

    spare.send("session.created", session={"type": "realtime"})
    stage.snapshot()
    spare.expect("session.update")
    stage.rig.wait_handled(mail=2)

    assert stage.rig.take(WireEvent) == []


# -- a raise ---------------------------------------------------------------------------------------


def test_after_a_raise_the_server_sees_the_same_connection(stage: Stage) -> None:
    peer = stage.live()
    stage.rig.tell(Inject("realtime", "raise"))

    stage.rig.restart()
    stage.block(0, b"\5")
    _speak(peer)

    assert peer.expect("input_audio_buffer.append")
    assert stage.rig.expect(AssistantAudio)
    assert len(stage.server.all) == 1


def test_what_arrives_while_the_actor_is_away_is_not_lost(stage: Stage) -> None:
    peer = stage.live()
    stage.rig.tell(Inject("realtime", "raise"))
    stage.rig.expect(Crashed)

    _speak(peer)
    _finish(peer)
    stage.rig.open()

    assert stage.rig.expect(AssistantAudio, lambda audio: audio.last)
    assert stage.rig.expect(ResponseEnded)


def test_a_raise_before_the_state_is_saved_saves_it_all_the_same(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.live()

    with monkeypatch.context() as broken:
        broken.delattr(Realtime, "_send")
        stage.rig.tell(SendText("Hello?", "t1"))
        stage.rig.expect(Crashed)
    stage.rig.open()

    stage.rig.wait_state(lambda state: bool(msgspec.msgpack.decode(state, type=Saved).texts))


def test_a_raise_while_connecting_connects_all_the_same(
    server: tuple[ScriptedServer, str], tmp_path: Path
) -> None:
    with Stage(server, tmp_path) as stage:
        stage.rig.tell(Inject("realtime", "raise"))
        stage.rig.restart()

        peer = stage.live()

        stage.block(0)
        assert peer.expect("input_audio_buffer.append")


def test_a_tool_answer_after_a_raise_is_sent_once(stage: Stage) -> None:
    peer = stage.live()
    peer.send("response.created", response={"id": "r1"})
    item = {"id": "f1", "type": "function_call", "call_id": "c1", "name": "clock"}
    peer.send("response.output_item.done", response_id="r1", item={**item, "arguments": "{}"})
    peer.send("response.done", response={"id": "r1", "status": "completed"})
    stage.rig.expect(ResponseEnded)
    stage.rig.tell(Inject("realtime", "raise"))
    stage.rig.restart()

    stage.rig.tell(ToolAnswer("c1", "clock", "12:00"))
    stage.rig.tell(ToolAnswer("c1", "clock", "12:00"))
    stage.rig.tell(PlayedPosition("none", 0, 0))
    stage.block(0)
    peer.expect("input_audio_buffer.append")

    assert peer.kinds().count("conversation.item.create") == 1
    assert peer.kinds().count("response.create") == 1


def test_stopping_says_goodbye_to_the_server(stage: Stage) -> None:
    peer = stage.live()

    stage.rig.stop()

    assert stage.rig.exit_code == 0
    peer.connection.recv_events_thread.join(TIMEOUT_S)
    assert peer.connection.close_code == 1000


def test_a_raise_while_waiting_to_connect_again_connects_all_the_same(
    server: tuple[ScriptedServer, str], tmp_path: Path
) -> None:
    server[0].refuse = [(503, "")] * 3
    with Stage(server, tmp_path) as stage:
        stage.rig.expect(Notice)
        stage.rig.tell(Inject("realtime", "raise"))
        stage.rig.restart()

        stage.live()


def _at_once(peer: Peer, events: list[dict[str, Any]]) -> None:
    """Have several events arrive in one read."""
    frames = [Frame(Opcode.TEXT, json.dumps(event).encode()) for event in events]
    peer.connection.socket.sendall(b"".join(frame.serialize(mask=False) for frame in frames))


def test_several_events_save_the_state_once_but_before_a_tool_call(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = stage.live()
    done: list[str] = []
    save, send = Realtime.save, Realtime.send

    def saves(self: Realtime, state: object, **how: bool) -> None:
        done.append("save")
        save(self, state, **how)

    def sends(self: Realtime, message: Message) -> None:
        done.append(type(message).__name__)
        send(self, message)

    monkeypatch.setattr(Realtime, "save", saves)
    monkeypatch.setattr(Realtime, "send", sends)
    call = {"id": "f1", "type": "function_call", "call_id": "c1", "name": "clock"}
    item = {"id": "a1", "type": "message", "role": "assistant"}

    _at_once(
        peer,
        [
            {"type": "response.created", "response": {"id": "r1"}},
            {"type": "response.output_item.added", "response_id": "r1", "item": item},
            {"type": "response.output_item.done", "response_id": "r1", "item": item},
            {
                "type": "response.output_item.done",
                "response_id": "r1",
                "item": {**call, "arguments": "{}"},
            },
            {"type": "response.done", "response": {"id": "r1", "status": "completed"}},
        ],
    )
    stage.rig.expect(ResponseEnded)
    until(lambda: done[-1] == "save", "the state is not saved at the end")

    done = done[done.index("ResponseStarted") :]
    assert done[done.index("ToolCall") - 1] == "save"
    assert done.count("save") == 2


def test_a_raise_in_the_middle_of_several_events_loses_that_one(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = stage.live()
    real = wire.decode

    def decode(data: bytes) -> object:
        if b"poison" in data:
            raise ValueError("poison")
        return real(data)

    monkeypatch.setattr(wire, "decode", decode)
    item = {"id": "a1", "type": "message", "role": "assistant"}
    ids = {"response_id": "r1", "item_id": "a1"}
    transcript = "response.output_audio_transcript"
    events = [
        {"type": "response.created", "response": {"id": "r1"}},
        {"type": "response.output_item.added", "response_id": "r1", "item": item},
        {"type": f"{transcript}.delta", **ids, "delta": "one "},
        {"type": f"{transcript}.delta", **ids, "delta": "poison "},
        {"type": f"{transcript}.delta", **ids, "delta": "two"},
        {"type": "response.output_audio.delta", **ids, "delta": "AAAA"},
    ]

    _at_once(peer, events)
    assert stage.rig.expect(Crashed).error == "ValueError: poison"
    stage.rig.open()

    assert stage.rig.expect(AssistantAudio)
    told = [delta.delta for delta in stage.rig.take(AssistantTranscript)]
    assert told == ["one ", "two"]
    assert len(stage.server.all) == 1


def test_half_an_event_that_was_read_before_a_raise_is_completed_after_it(stage: Stage) -> None:
    peer = stage.live()
    event = {"type": "error", "error": {"type": "x", "code": "odd", "message": "whole"}}
    frame = Frame(Opcode.TEXT, json.dumps(event).encode()).serialize(mask=False)
    peer.connection.socket.sendall(frame[:20])
    stage.block(0)
    peer.expect("input_audio_buffer.append")

    stage.rig.tell(Inject("realtime", "raise"))
    stage.rig.expect(Crashed)
    peer.connection.socket.sendall(frame[20:])
    stage.rig.open()

    assert stage.rig.expect(ServerError).text == "whole"


def test_what_waits_for_the_socket_is_sent_after_a_raise(
    server: tuple[ScriptedServer, str], tmp_path: Path
) -> None:
    with RawServer() as raw, Stage((server[0], raw.url), tmp_path) as stage:
        peer = raw.accept()
        stage.rig.tell(ToolsAvailable(()))
        stage.snapshot()
        peer.send(b'{"type": "session.created", "session": {"type": "realtime"}}')
        frames = peer.frames()
        assert json.loads(bytes(next(frames).data))["type"] == "session.update"
        peer.send(b'{"type": "session.updated", "session": {}}')
        replay = stage.rig.expect(ReplayCapture)
        stage.rig.tell(ReplayEnded(0, replay.request_id))
        for first in range(0, 96_000 * 200, 96_000):
            stage.rig.tell(CapturedAudio(first.to_bytes(4) * 48_000, first, 0))

        stage.rig.tell(Inject("realtime", "raise"))
        stage.rig.restart()

        for first in range(0, 96_000 * 200, 96_000):
            audio = base64.b64decode(json.loads(bytes(next(frames).data))["audio"])
            assert audio[:4] == first.to_bytes(4)
