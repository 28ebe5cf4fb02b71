"""The sandbox on its socket: a connection is a session, and does the work it asks for."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from rtvoice.sandbox.conversation import Heard
from rtvoice.sandbox.listen import Listener, ListenerDiedError
from rtvoice.sandbox.session import Listen, Respond, Session, Speech, Work
from rtvoice.sandbox.settings import DEFAULT_MODEL
from rtvoice.sandbox.speak import Voice, utter

__all__ = ["PATH", "Sandbox", "listen_on"]

PATH: Final = "/v1/realtime"
_PATHS: Final = (PATH, "/openai/v1/realtime")
"""The second one is Azure's."""

_MAX_FRAME_BYTES: Final = 24 * 1024 * 1024
"""An append of 15 MiB is 20 MiB in base64."""
_CLOSE_S: Final = 1.0
"""A client that does not answer our close is not waited for any longer."""
_LEAD_S: Final = 0.5
"""Speech that is sent at once; what follows keeps the pace."""
_SAMPLE_S: Final = 1 / 24_000
_BETA_HEADER: Final = "OpenAI-Beta"
_CLOSED_BETA: Final = 4000
_CLOSED_EXPIRED: Final = 1001


class Sandbox:
    """What all sessions of one server share.

    Args:
        listener: recognises speech.
        voice: speaks.
        pace: how much faster than real time speech is sent; 0 for as fast as it can.
        max_session_s: how long a session may last.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        listener: Listener,
        voice: Voice,
        *,
        pace: float = 4.0,
        max_session_s: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.listener = listener
        self.voice = voice
        self.pace = pace
        self.max_session_s = max_session_s
        self.clock = clock

    async def handle(self, socket: ServerConnection) -> None:
        """Serve one client until it goes."""
        await _Connection(self, socket).run()


async def listen_on(sandbox: Sandbox, **where: Any) -> Server:
    """Serve sessions.

    Args:
        sandbox: what they share.
        where: `sock`, or `host` and `port`.
    """
    return await serve(
        sandbox.handle,
        **where,
        compression=None,
        close_timeout=_CLOSE_S,
        max_size=_MAX_FRAME_BYTES,
        process_request=_refuse_other_paths,
        select_subprotocol=_choose_subprotocol,
        logger=_quiet_logger(),
    )


def _refuse_other_paths(socket: ServerConnection, request: Request) -> Response | None:
    path = urlsplit(request.path).path.rstrip("/")
    if path in _PATHS:
        return None
    return socket.respond(
        HTTPStatus.NOT_FOUND, f"There is nothing at {path}. The sandbox is at {PATH}.\n"
    )


def _choose_subprotocol(
    _socket: ServerConnection, offered: Sequence[Subprotocol]
) -> Subprotocol | None:
    # Browsers offer it; clients that can send headers offer none, and must not be refused.
    return Subprotocol("realtime") if "realtime" in offered else None


def _quiet_logger() -> logging.Logger:
    """Log what is our fault, not port scans and handshakes that failed."""
    logger = logging.getLogger("rtvoice.sandbox.websockets")
    logger.setLevel(logging.ERROR)
    logger.addFilter(lambda record: "handshake" not in record.getMessage())
    return logger


class _Connection:
    """One client: its session, and the tasks that do the session's work."""

    def __init__(self, sandbox: Sandbox, socket: ServerConnection) -> None:
        self._sandbox = sandbox
        self._socket = socket
        self._session = _new_session(socket, sandbox.max_session_s)
        self._sending = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._heard: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        if _is_beta(self._socket):
            await self._refuse_beta()
            return
        self._session.open()
        await self._flush()
        # An exception in a task is a mistake of ours: it ends the connection, with its traceback.
        async with asyncio.TaskGroup() as group:
            expiry = group.create_task(self._expire())
            try:
                async for frame in self._socket:
                    self._session.receive(frame)
                    await self._flush()
                    self._begin_work(group, self._session.take_work())
            except ConnectionClosed:
                pass
            finally:
                for task in (expiry, *self._tasks):
                    task.cancel()

    async def _refuse_beta(self) -> None:
        error = {
            "type": "invalid_request_error",
            "code": "beta_api_shape_disabled",
            "message": "The Realtime Beta API is no longer supported. Please use /v1/realtime for "
            "the GA API, without the header OpenAI-Beta.",
            "param": None,
            "event_id": None,
        }
        await self._send({"type": "error", "event_id": "event_beta", "error": error})
        await self._socket.close(_CLOSED_BETA, "invalid_request_error.beta_api_shape_disabled")

    async def _expire(self) -> None:
        await asyncio.sleep(self._sandbox.max_session_s)
        minutes = self._sandbox.max_session_s / 60
        self._session.expire(minutes)
        await self._flush()
        reason = f"Your session hit the maximum duration of {minutes:g} minutes."
        await self._socket.close(_CLOSED_EXPIRED, reason)

    def _begin_work(self, group: asyncio.TaskGroup, work: list[Work]) -> None:
        for each in work:
            if isinstance(each, Listen):
                task = group.create_task(self._listen(each))
                self._heard[each.item_id] = task
            else:
                task = group.create_task(self._respond(each))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _listen(self, work: Listen) -> None:
        heard = await _heard(self._sandbox.listener, work.pcm)
        del self._heard[work.item_id]
        self._session.heard(work.item_id, heard)
        await self._flush()

    async def _respond(self, work: Respond) -> None:
        for item_id in self._session.unheard(work.response_id):
            listening = self._heard.get(item_id)
            if listening is not None:
                await asyncio.shield(listening)
        speech = self._session.think(work.response_id)
        await self._flush()
        if speech is not None:
            await self._speak(work.response_id, speech)

    async def _speak(self, response_id: str, speech: Speech) -> None:
        sandbox = self._sandbox
        began, sent_s = sandbox.clock(), 0.0
        pieces = utter(speech.text, sandbox.voice, speech.voice, speech.speed)
        async with aclosing(pieces):
            async for words, pcm in pieces:
                if sandbox.pace:
                    due = began + (sent_s - _LEAD_S) / sandbox.pace
                    await asyncio.sleep(max(0.0, due - sandbox.clock()))
                wanted = self._session.speak(response_id, words, pcm)
                await self._flush()
                if not wanted:
                    return
                sent_s += len(pcm) / 2 * _SAMPLE_S
        self._session.finish(response_id)
        await self._flush()

    async def _flush(self) -> None:
        """Send what the session has to say. One at a time, so that events keep their order."""
        async with self._sending:
            for event in self._session.take_events():
                await self._send(event)

    async def _send(self, event: dict[str, Any]) -> None:
        try:
            await self._socket.send(msgspec.json.encode(event), text=True)
        except ConnectionClosed:
            pass


def _new_session(socket: ServerConnection, max_session_s: float) -> Session:
    assert socket.request is not None
    query = parse_qs(urlsplit(socket.request.path).query)
    transcribes = query.get("intent") == ["transcription"] and "model" not in query
    model = query.get("model", [DEFAULT_MODEL])[0]
    expires_at = int(time.time() + max_session_s)
    return Session(model, transcribes=transcribes, expires_at=expires_at)


def _is_beta(socket: ServerConnection) -> bool:
    assert socket.request is not None
    offered = ",".join(socket.request.headers.get_all("Sec-WebSocket-Protocol"))
    return _BETA_HEADER in socket.request.headers or "openai-beta.realtime-v1" in offered


async def _heard(listener: Listener, pcm: bytes) -> Heard:
    import numpy as np

    from rtvoice.sandbox.vad import speech_span

    first, end = speech_span(np.frombuffer(pcm, "<i2"))
    seconds = (end - first) * _SAMPLE_S
    try:
        text = await listener.listen(pcm)
    except ListenerDiedError:
        text = None
    return Heard(seconds, text)
