"""Real sessions with the service, replayed to a session of ours, which gets the same history."""

from __future__ import annotations

import json
import threading

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

from actors.realtime import wire
from messages import HistoryRequest, HistorySnapshot, PlaybackEnded, SendText, Turn
from rtvoice import Tools
from supervisor import Session
from tests.recordings import needs_recordings, recorded
from tests.rig import TIMEOUT_S

pytestmark = needs_recordings

CREATE = "conversation.item.create"
REQUEST = 4711


class Replay:
    """A server that says what was recorded, each thing when the client has come as far."""

    def __init__(self, name):
        self.recording = recorded(name)
        self.played = threading.Semaphore(0)
        self.is_over = threading.Event()
        self.failure = None
        self._names = {}

    def __enter__(self):
        self._server = serve(self._play, "127.0.0.1", 0, compression=None, max_size=None)
        self.url = f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}/v1/realtime"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()

    def _play(self, socket):
        try:
            self._replay(socket)
            self.is_over.set()
            for _ in socket:
                pass
        except ConnectionClosed:
            pass
        except BaseException as error:
            self.failure = error
            raise

    def _replay(self, socket):
        asked, answered = 0, False
        owed = []
        for direction, event in self.recording:
            kind = event["type"]
            if direction == "sent":
                if kind == CREATE:
                    owed.append(event["item"]["type"])
                asked += kind == "response.create"
                if kind == "session.update":
                    self._client(socket, kind)
                continue
            assert not isinstance(wire.decode(json.dumps(event).encode()), wire.BadFrame), event
            if kind == "conversation.item.added" and owed and event["item"]["type"] == owed[0]:
                # The client has given it a name of its own.
                owed.pop(0)
                sent = self._client(socket, CREATE)["item"]
                self._names[event["item"]["id"]] = sent["id"]
                assert sent["type"] == event["item"]["type"]
            if kind == "response.created" and asked:
                asked -= 1
                self._client(socket, "response.create")
            if kind == "input_audio_buffer.speech_started" and answered:
                # Nobody interrupted anybody: each answer was heard to its end.
                assert self.played.acquire(timeout=TIMEOUT_S)
            answered = answered or kind == "response.done"
            text = json.dumps(event)
            for theirs, ours in self._names.items():
                text = text.replace(theirs, ours)
            socket.send(text)

    def _client(self, socket, kind):
        """Wait for an event of the client."""
        while True:
            event = json.loads(socket.recv(TIMEOUT_S))
            if event["type"] == kind:
                return event


def history_after(replay, turns, *typed, **settings):
    """Have a session live through a replay; the items of its history."""
    with replay:
        session = Session(
            server=replay.url,
            input="silence",
            output="null",
            transcription_model="gpt-transcribe",
            inactivity_timeout_s=None,
            **settings,
        )
        told = session.events(Turn, PlaybackEnded)  # before the server begins
        return _history_after(session, told, replay, turns, typed)


def _history_after(session, told, replay, turns, typed):
    with session:
        snapshots = iter(session.events(HistorySnapshot))
        for number, text in enumerate(typed):
            session.send(SendText(text, f"text-{number}"))
        for event in told:
            if isinstance(event, PlaybackEnded):
                replay.played.release()
            else:
                turns -= 1
            if not turns:
                break
        assert replay.is_over.wait(TIMEOUT_S), replay.failure
        session.send(HistoryRequest(REQUEST))
        return next(each for each in snapshots if each.request_id == REQUEST).items


def messages_in(items):
    return [(item.role, item.text) for item in items if item.kind == "message"]


def test_a_spoken_turn():
    items = history_after(Replay("audio_in_server_vad_turn"), 2)

    assert messages_in(items) == [
        ("user", "Hello, my name is Marcelo."),
        ("assistant", "Hello, Marcelo! Great to meet you. How can I help you today?"),
    ]


def test_three_spoken_turns():
    items = history_after(Replay("input_audio_retention_segments_three_server_vad_turns"), 6)

    question = ("user", "Hello, my name is Marcelo.")
    assert messages_in(items) == [
        question,
        ("assistant", "Hi Marcelo! Nice to meet you."),
        question,
        ("assistant", "Hi Marcelo! Great to meet you."),
        question,
        ("assistant", "Hey Marcelo, nice meeting you."),
    ]


def test_a_typed_turn():
    items = history_after(Replay("text_in_audio_out_turn"), 2, "Say a short greeting.")

    assert messages_in(items) == [("user", "Say a short greeting."), ("assistant", "Hi there!")]


def test_a_tool_call():
    tools = Tools()

    @tools.action("Tell the weather of a city.")
    def get_weather(city: str) -> str:
        return f"It is foggy and 12 degrees in {city}."

    question = "What is the weather in London?"
    items = history_after(Replay("tool_call_round"), 2, question, tools=tools)

    answer = "It is foggy and 12 degrees in London."
    assert messages_in(items) == [("user", question), ("assistant", answer)]
    assert [item.kind for item in items] == [
        "message",
        "function_call",
        "function_call_output",
        "message",
    ]
    assert json.loads(items[1].arguments) == {"city": "London"}
    assert items[2].output == answer
