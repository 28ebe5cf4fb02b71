"""The websocket server of the sandbox: connections, their sessions, and the sessions' work."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit
from weakref import WeakKeyDictionary

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from rtvoice.sandbox.conversation import Recognition
from rtvoice.sandbox.faults import COMMAND, Event, Fault, FaultError, parse_fault, refusal
from rtvoice.sandbox.line import ClientLine
from rtvoice.sandbox.listen import ListenerDiedError, RecogniserPool
from rtvoice.sandbox.script import Script
from rtvoice.sandbox.session import Listen, Respond, ServerSession, SpeechRequest, Work
from rtvoice.sandbox.settings import DEFAULT_MODEL
from rtvoice.sandbox.speak import Synthesizer, sentences, utter

__all__ = ["PATH", "Sandbox", "Watch", "listen_on"]

Watch = Callable[[int, Event], None]
"""Called with the number of a connection, and each event of both sides."""

PATH: Final = "/v1/realtime"
_PATHS: Final = (PATH, "/openai/v1/realtime")
"""The second path is that of Azure."""

_MAX_FRAME_BYTES: Final = 24 * 1024 * 1024
"""Limit of a frame; the largest append, 15 MiB, has 20 MiB in base64."""
_CLOSE_S: Final = 1.0
"""Time to wait for a client's answer to our close frame."""
_LEAD_S: Final = 0.5
"""Duration of speech that is sent at once; the rest is sent at the pace."""
_SAMPLE_S: Final = 1 / 24_000
_BETA_HEADER: Final = "OpenAI-Beta"
_CLOSED_BETA: Final = 4000
_CLOSED_EXPIRED: Final = 1001


class Sandbox:
    """A server: what all its sessions share.

    Args:
        listener: Recognises speech.
        voice: Speaks.
        pace: Speed at which speech is sent, as a multiple of real time; 0: as fast as possible.
        max_session_s: Time after which a session ends.
        clock: A monotonic clock in seconds.
        faults: Faults to inject into each connection.
        watch: Called with each event of both sides.
    """

    def __init__(
        self,
        listener: RecogniserPool,
        voice: Synthesizer,
        *,
        pace: float = 4.0,
        max_session_s: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
        faults: Iterable[Fault] = (),
        watch: Watch | None = None,
    ) -> None:
        self.listener = listener
        self.voice = voice
        self.pace = pace
        self.max_session_s = max_session_s
        self.clock = clock
        self.script = Script()
        self._faults = tuple(faults)
        self._next_faults: deque[Fault] = deque()
        self._commanded: WeakKeyDictionary[ServerConnection, list[Fault]] = WeakKeyDictionary()
        self._watch = watch
        self._connections: dict[int, _ClientConnection] = {}
        self._count = 0

    async def handle(self, socket: ServerConnection) -> None:
        """Serve one client until its connection ends."""
        self._count += 1
        number = self._count
        watch = self._watch
        watch_one = None if watch is None else lambda event: watch(number, event)
        connection = _ClientConnection(self, socket, self._commanded.pop(socket, []), watch_one)
        self._connections[number] = connection
        try:
            await connection.run()
        finally:
            del self._connections[number]

    async def command(self, fault: Fault) -> None:
        """Inject a fault into the newest open connection or, if none is open, into the next one.

        The fault `refuse` always waits for the next connection.
        """
        lines = [each.line for _, each in sorted(self._connections.items()) if each.line.is_open]
        if lines and fault.action != "refuse":
            await lines[-1].command(fault)
        else:
            self._next_faults.append(fault)

    async def answer_handshake(self, socket: ServerConnection, request: Request) -> Response | None:
        """Refuse a wrong path or an invalid fault, or refuse because of a fault; None: accept."""
        url = urlsplit(request.path)
        if url.path.rstrip("/") not in _PATHS:
            return socket.respond(
                HTTPStatus.NOT_FOUND,
                f"{url.path} is not a valid path. The sandbox is at {PATH}.\n",
            )
        try:
            asked = [parse_fault(text) for text in parse_qs(url.query).get("misbehave", [])]
        except FaultError as error:
            return socket.respond(HTTPStatus.BAD_REQUEST, f"{error}\n")
        # A refusal is used up by one handshake; other faults wait for an accepted connection.
        for fault in self._next_faults:
            if fault.action == "refuse":
                self._next_faults.remove(fault)
                return await _refuse(socket, fault)
        faults = [*self._faults, *asked]
        for fault in faults:
            if fault.action == "refuse":
                return await _refuse(socket, fault)
        self._commanded[socket] = [*faults, *self._next_faults]
        self._next_faults.clear()
        return None


async def listen_on(sandbox: Sandbox, **where: Any) -> Server:
    """Start to serve the sessions of a sandbox.

    Args:
        sandbox: What the sessions share.
        where: `sock`, or `host` and `port`.
    """
    return await serve(
        sandbox.handle,
        **where,
        compression=None,
        close_timeout=_CLOSE_S,
        max_size=_MAX_FRAME_BYTES,
        process_request=sandbox.answer_handshake,
        select_subprotocol=_choose_subprotocol,
        logger=_quiet_logger(),
    )


async def _refuse(socket: ServerConnection, fault: Fault) -> Response | None:
    if fault.value == "silence":
        await socket.wait_closed()
        return None
    if fault.value == "drop":
        socket.transport.abort()
        return None
    status, body = refusal(fault)
    response = socket.respond(status, body)
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = "application/json"
    return response


def _choose_subprotocol(
    _socket: ServerConnection, offered: Sequence[Subprotocol]
) -> Subprotocol | None:
    # Browsers offer it. Clients that can send headers offer none, and must be accepted too.
    return Subprotocol("realtime") if "realtime" in offered else None


def _quiet_logger() -> logging.Logger:
    """Return a logger that drops port scans and failed handshakes: these are not our errors."""
    logger = logging.getLogger("rtvoice.sandbox.websockets")
    logger.setLevel(logging.ERROR)
    logger.addFilter(lambda record: "handshake" not in record.getMessage())
    return logger


class _ClientConnection:
    """The connection of one client: its session, and the tasks that do the session's work."""

    def __init__(
        self,
        sandbox: Sandbox,
        socket: ServerConnection,
        faults: list[Fault],
        watch: Callable[[Event], None] | None,
    ) -> None:
        self._sandbox = sandbox
        self._socket = socket
        self._session = _new_session(socket, sandbox, _life_s(sandbox, faults))
        self._faults = faults
        self._watch = watch
        self._sending = asyncio.Lock()
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._heard: dict[str, asyncio.Task[None]] = {}
        self.line = ClientLine(socket, self._misbehave, self._spawn, watch)

    async def run(self) -> None:
        if _is_beta(self._socket):
            await self._refuse_beta()
            return
        self._session.open()
        # An exception in a task is a bug of ours: it ends the connection and is logged.
        async with self._group:
            self._spawn(self._expire(self._sandbox.max_session_s))
            try:
                for fault in self._faults:
                    await self.line.command(fault)
                await self._flush()
                async for frame in self._socket:
                    await self._receive(frame)
            except ConnectionClosed:
                pass
            finally:
                for task in self._tasks:
                    task.cancel()

    async def _receive(self, frame: str | bytes) -> None:
        if isinstance(frame, str) and f'"{COMMAND}"' in frame and await self._command(frame):
            return
        kind = self._observed(frame) if self._watch is not None or self.line.is_faulty else ""
        await self.line.before(kind)
        self._session.receive(frame)
        await self.line.after(kind)
        await self._flush()
        self._begin_work(self._session.take_work())

    def _observed(self, frame: str | bytes) -> str:
        """Pass an event on to the watcher, and return its type; "" if the frame is no event."""
        try:
            event = msgspec.json.decode(frame)
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
            return ""
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            return ""
        if self._watch is not None:
            self._watch(event)
        return str(event["type"])

    async def _command(self, frame: str) -> bool:
        """Inject the fault of a frame that commands one; return whether the frame does."""
        try:
            event = msgspec.json.decode(frame, type=_Command)
            if event.type != COMMAND:
                return False
            await self.line.command(parse_fault(event.fault))
        except msgspec.DecodeError:
            return False
        except FaultError as error:
            self._session.refuse(str(error), "fault", event.event_id)
            await self._flush()
        return True

    async def _misbehave(self, fault: Fault) -> None:
        """Carry out a fault that needs the session."""
        if fault.action == "expire":
            await self._expire(float(fault.value))
        elif fault.action == "ids":
            self._session.accepted_ids = "prefixes" if fault.value == "prefixes" else "own"
        elif not self._session.fail(fault.value):
            await self.line.command(Fault("fail", fault.value, "after", "response.created"))
        await self._flush()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _refuse_beta(self) -> None:
        error = {
            "type": "invalid_request_error",
            "code": "beta_api_shape_disabled",
            "message": "The Realtime Beta API is no longer supported. Please use /v1/realtime for "
            "the GA API, without the header OpenAI-Beta.",
            "param": None,
            "event_id": None,
        }
        await self.line.send([{"type": "error", "event_id": "event_beta", "error": error}])
        await self._socket.close(_CLOSED_BETA, "invalid_request_error.beta_api_shape_disabled")

    async def _expire(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        minutes = self._sandbox.max_session_s / 60
        self._session.expire(minutes)
        await self._flush()
        reason = f"Your session hit the maximum duration of {minutes:g} minutes."
        await self.line.close(_CLOSED_EXPIRED, reason)

    def _begin_work(self, work: list[Work]) -> None:
        for each in work:
            if isinstance(each, Listen):
                self._heard[each.item_id] = self._spawn(self._listen(each))
            else:
                self._spawn(self._respond(each))

    async def _listen(self, work: Listen) -> None:
        heard = await _recognised(self._sandbox, work.pcm)
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

    async def _speak(self, response_id: str, speech: SpeechRequest) -> None:
        texts = sentences(speech.text) if self.line.items_split else [speech.text]
        for number, text in enumerate(texts):
            if number:
                self._session.begin_item(response_id)
            if not await self._utter(response_id, speech._replace(text=text)):
                return
        self._session.finish(response_id)
        await self._flush()

    async def _utter(self, response_id: str, speech: SpeechRequest) -> bool:
        """Speak a text; return False if the response has ended and needs no more."""
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
                    return False
                sent_s += len(pcm) / 2 * _SAMPLE_S
        return True

    async def _flush(self) -> None:
        """Send the events of the session, under a lock, so that they keep their order."""
        async with self._sending:
            while events := self._session.take_events():
                await self.line.send(events)


class _Command(msgspec.Struct):
    """The event that commands a fault."""

    type: str
    fault: str
    event_id: str | None = None


def _life_s(sandbox: Sandbox, faults: list[Fault]) -> float:
    """Return the duration of a session, for `expires_at`: a fault may end it before its limit."""
    early = [float(each.value) for each in faults if each.action == "expire" and not each.when]
    return min([sandbox.max_session_s, *early])


def _new_session(socket: ServerConnection, sandbox: Sandbox, life_s: float) -> ServerSession:
    assert socket.request is not None
    query = parse_qs(urlsplit(socket.request.path).query)
    transcribes = query.get("intent") == ["transcription"] and "model" not in query
    model = query.get("model", [DEFAULT_MODEL])[0]
    return ServerSession(
        model,
        transcribes=transcribes,
        expires_at=int(time.time() + life_s),
        script=sandbox.script,
    )


def _is_beta(socket: ServerConnection) -> bool:
    assert socket.request is not None
    offered = ",".join(socket.request.headers.get_all("Sec-WebSocket-Protocol"))
    return _BETA_HEADER in socket.request.headers or "openai-beta.realtime-v1" in offered


async def _recognised(sandbox: Sandbox, pcm: bytes) -> Recognition:
    import numpy as np

    from rtvoice.sandbox.vad import speech_span

    first, end = speech_span(np.frombuffer(pcm, "<i2"))
    seconds = (end - first) * _SAMPLE_S
    scripted = sandbox.script.next_hearing()
    if scripted is not None:
        return Recognition(seconds, scripted)
    try:
        text = await sandbox.listener.listen(pcm)
    except ListenerDiedError:
        text = None
    return Recognition(seconds, text)
