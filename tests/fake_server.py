"""A Realtime server that does what a test tells it, on a real socket."""

from __future__ import annotations

import base64
import itertools
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from tests.rig import TIMEOUT_S

Json = dict[str, Any]
DELTA_BYTES = 4800


class Connection:
    """One client that has connected; what it sent, and what to tell it."""

    def __init__(self, server: FakeServer, connection: ServerConnection) -> None:
        self.events: list[Json] = []
        self.times: list[float] = []
        """When each event came, in seconds of ``time.monotonic()``."""
        self.audio = bytearray()
        self.closed = False
        self._server = server
        self._socket = connection
        self._numbers = itertools.count(1)
        self._last: str | None = None
        self._lock = threading.Lock()

    def tell(self, kind: str, **fields: Any) -> None:
        """Send an event."""
        event = {"type": kind, "event_id": f"event_{next(self._numbers)}", **fields}
        with self._lock:
            self._socket.send(json.dumps(event))

    def send_raw(self, frame: str | bytes) -> None:
        """Send what may be no event."""
        with self._lock:
            self._socket.send(frame)

    def of(self, kind: str) -> list[Json]:
        """Return the events of a type that the client has sent."""
        return [event for event in self.events if event["type"] == kind]

    def expect(self, kind: str, where: Callable[[Json], bool] = lambda _: True) -> Json:
        """Wait for the first event of a type that fits, and return it."""
        self._server.wait_for(lambda: any(where(event) for event in self.of(kind)))
        return next(event for event in self.of(kind) if where(event))

    def say(
        self, text: str, pcm: bytes, *, item: str, response: str = "", done: bool = True
    ) -> None:
        """Send a whole spoken answer."""
        response = response or f"resp_{item}"
        ids = {"response_id": response, "item_id": item, "output_index": 0, "content_index": 0}
        message = {"id": item, "type": "message", "role": "assistant", "status": "in_progress"}
        self.tell("response.created", response=_response(response, "in_progress"))
        self.tell(
            "response.output_item.added",
            response_id=response,
            output_index=0,
            item={**message, "content": []},
        )
        self._add({**message, "content": []})
        self.tell("response.output_audio_transcript.delta", delta=text, **ids)
        for start in range(0, len(pcm), DELTA_BYTES):
            delta = base64.b64encode(pcm[start : start + DELTA_BYTES]).decode()
            self.tell("response.output_audio.delta", delta=delta, **ids)
        if done:
            self.finish(text, item=item, response=response)

    def finish(self, text: str, *, item: str, response: str = "") -> None:
        """Send the end of a spoken answer."""
        response = response or f"resp_{item}"
        ids = {"response_id": response, "item_id": item, "output_index": 0, "content_index": 0}
        content = [{"type": "output_audio", "transcript": text}]
        message = {"id": item, "type": "message", "role": "assistant", "status": "completed"}
        self.tell("response.output_audio.done", **ids)
        self.tell("response.output_audio_transcript.done", transcript=text, **ids)
        self.tell("conversation.item.done", item={**message, "content": content})
        self.tell(
            "response.output_item.done",
            response_id=response,
            output_index=0,
            item={**message, "content": content},
        )
        self.tell("response.done", response=_response(response, "completed", message))

    def call(self, name: str, arguments: str, *, call_id: str, item: str = "") -> None:
        """Send a function call."""
        item = item or f"item_{call_id}"
        response = f"resp_{item.removeprefix('item_')}"
        call = {
            "id": item,
            "type": "function_call",
            "status": "completed",
            "call_id": call_id,
            "name": name,
            "arguments": arguments,
        }
        self.tell("response.created", response=_response(response, "in_progress"))
        self._add({**call, "status": "in_progress"})
        self.tell("response.output_item.done", response_id=response, output_index=0, item=call)
        self.tell("response.done", response=_response(response, "completed", call))

    def hear(self, item: str, text: str) -> None:
        """Tell that speech was heard, and what it was heard as."""
        previous = self._last
        message = {"id": item, "type": "message", "role": "user", "status": "completed"}
        content = [{"type": "input_audio", "transcript": None}]
        self.tell("input_audio_buffer.speech_started", audio_start_ms=0, item_id=item)
        self.tell("input_audio_buffer.speech_stopped", audio_end_ms=100, item_id=item)
        self.tell("input_audio_buffer.committed", item_id=item, previous_item_id=previous)
        self._add({**message, "content": content})
        self.tell(
            "conversation.item.input_audio_transcription.completed",
            item_id=item,
            content_index=0,
            transcript=text,
            usage={"type": "duration", "seconds": 1.0},
        )

    def _add(self, item: Json) -> None:
        self.tell("conversation.item.added", item=item, previous_item_id=self._last)
        self._last = item["id"]

    def drop(self) -> None:
        """End the connection without a word."""
        self._socket.socket.close()

    def reset(self) -> None:
        """End the connection as a router does that has forgotten it."""
        self._socket.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.socket.close()

    def leave(self) -> None:
        """End the connection in order, as a server does that is restarted."""
        self._socket.close(1012, "restarting")

    def serve(self) -> None:
        """Read until the client is gone."""
        self.tell("session.created", session={"type": "realtime", "id": "sess_1"})
        for text in self._socket:
            event = json.loads(text)
            if event["type"] == "input_audio_buffer.append":
                self.audio += base64.b64decode(event["audio"])
            self.times.append(time.monotonic())
            self.events.append(event)
            self._answer(event)
            self._server.news()

    def _answer(self, event: Json) -> None:
        match event["type"]:
            case "session.update":
                self.tell("session.updated", session=event["session"])
            case "conversation.item.create":
                self._add({"status": "completed", **event["item"]})
                self.tell("conversation.item.done", item=event["item"])
            case "conversation.item.truncate":
                keep = ("item_id", "content_index", "audio_end_ms")
                self.tell("conversation.item.truncated", **{key: event[key] for key in keep})


class FakeServer:
    """Listens on a free port of loopback until it is left."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self._news = threading.Condition()
        self.refuse = 0
        """How many of the next handshakes are refused with 503."""
        self._server = serve(
            self._serve,
            "127.0.0.1",
            0,
            compression=None,
            max_size=None,
            process_request=self._look,
        )
        self.url = f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}/v1/realtime"

    def __enter__(self) -> FakeServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()

    def connection(self, number: int = 0) -> Connection:
        """Return the first, second, … connection; waits until its session is configured."""
        self.wait_for(lambda: len(self.connections) > number)
        self.connections[number].expect("session.update")
        return self.connections[number]

    def news(self) -> None:
        """Wake who waits."""
        with self._news:
            self._news.notify_all()

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
        """Wait until the condition holds; looked at with each event."""
        with self._news:
            if not self._news.wait_for(condition, timeout_s):
                seen = [event["type"] for c in self.connections for event in c.events]
                raise AssertionError(f"it never came true; the last events: {seen[-10:]}")

    def _look(self, connection: ServerConnection, _: Request) -> Response | None:
        if not self.refuse:
            return None
        self.refuse -= 1
        return connection.respond(503, "overloaded")

    def _serve(self, made: ServerConnection) -> None:
        connection = Connection(self, made)
        self.connections.append(connection)
        self.news()
        try:
            connection.serve()
        except (ConnectionClosed, OSError):
            pass
        finally:
            connection.closed = True
            self.news()


def _response(response: str, status: str, *output: Json) -> Json:
    return {
        "id": response,
        "object": "realtime.response",
        "status": status,
        "output": list(output),
        "usage": None,
    }
