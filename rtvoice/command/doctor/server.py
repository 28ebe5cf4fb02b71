"""Checks of the server: the key, the models, and a session that is begun and left at once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from actors.realtime import wire
from actors.realtime.address import KEY_VARIABLE, OPENAI_URL, Address, address_of
from actors.realtime.alone import Alone
from actors.realtime.connection import (
    Arrived,
    Connection,
    PingAnswered,
    ReceivedText,
    WebsocketClosed,
    WebsocketRefused,
)
from actors.realtime.core.errors import (
    beta_protocol,
    fatal_code,
    handshake_is_fatal,
    why_fatal,
)
from messages import Settings
from messages.urls import shown
from rtvoice.command.doctor.result import Result, ok, problem, warning
from rtvoice.models import retirement_of

__all__ = ["SERVER_S", "key", "models", "server"]

SERVER_S = 25.0
"""Limit of the whole check; longer than the limits of its parts together."""
_OPEN_S, _FIRST_EVENT_S, _ANSWER_S = 12.0, 5.0, 5.0
_BETA_SESSION = {"modalities", "input_audio_format", "output_audio_format"}
"""Fields of a session before general availability."""
_LATER = (429, 500, 502, 503, 504)
"""HTTP statuses of a server that is busy; a session tries again."""


def key(settings: Settings, environment: Mapping[str, str]) -> Iterator[Result]:
    """Check the form of the key, without showing it."""
    secret = environment.get(KEY_VARIABLE, "").strip()
    if settings.server == "sandbox":
        there = f"; {KEY_VARIABLE} is set, and is not used" if secret else ""
        yield ok("key", f"the sandbox needs none{there}")
        return
    address = address_of(settings, secret)
    if address.wrong_key:
        yield problem("key", why_fatal(address.wrong_key, settings.model))
    elif address.keeps_key:
        yield warning("key", "it is not sent to this server, since ws:// is not encrypted")
    elif not secret:
        yield ok("key", f"{KEY_VARIABLE} is not set; this server may need none")
    elif address.url.startswith(OPENAI_URL) and not secret.startswith("sk-"):
        yield warning("key", f"the value of {KEY_VARIABLE} does not begin with sk-, as keys do")
    else:
        yield ok("key", f"{KEY_VARIABLE} is set ({len(secret)} characters)")


def models(settings: Settings) -> Iterator[Result]:
    """Check whether the models of the settings are retired."""
    used = [name for name in (settings.model, settings.transcription_model) if name]
    gone = [retirement for name in used if (retirement := retirement_of(name)) is not None]
    if gone:
        yield warning("models", "; ".join(map(str, gone)))
    else:
        yield ok("models", ", ".join(used))


def server(settings: Settings, environment: Mapping[str, str]) -> Iterator[Result]:
    """Begin a session as a conversation does, and leave it.

    It requests no answer from OpenAI and the sandbox, and is free there. Any other server is asked
    for one word in writing, because only its answer shows whether it speaks the beta protocol.
    """
    secret = environment.get(KEY_VARIABLE, "").strip()
    if settings.server != "sandbox":
        yield _tried(settings, address_of(settings, secret), secret)
        return
    from rtvoice.sandbox.launch import SandboxError, start_sandbox

    try:
        with start_sandbox() as sandbox:
            yield _tried(settings, address_of(settings, "", sandbox.url), "")
    except (SandboxError, OSError) as error:
        yield problem("server", f"the sandbox does not start: {error}")


def _tried(settings: Settings, address: Address, secret: str) -> Result:
    if address.wrong_key:
        return problem("server", "not tried: there is no valid key")
    where = "the sandbox" if settings.server == "sandbox" else shown(address.url)
    connection = _Attempt(address, secret)
    began = time.monotonic()
    try:
        match connection.next(_OPEN_S):
            case WebsocketRefused(status, code, text):
                return _refused(settings, where, status, code, text)
            case None:
                return problem("server", f"{where} does not answer")
        ms = round(1000 * (time.monotonic() - began))
        first = connection.next(_FIRST_EVENT_S)
        told = _begun(settings, f"{where} answers in {ms} ms", first)
        is_other = settings.server not in ("openai", "sandbox")
        if told.status == "ok" and is_other and _is_beta(connection, first):
            return problem("server", beta_protocol(where))
        return told
    finally:
        connection.close()


def _refused(settings: Settings, where: str, status: int, code: str, text: str) -> Result:
    fatal = handshake_is_fatal(status, code, text, first=True)
    if fatal is not None:
        return problem("server", why_fatal(fatal, settings.model, text))
    if status in _LATER:
        return warning("server", f"{where} is busy: {text}; try again")
    return problem("server", f"cannot reach {where}: {text}")


def _begun(settings: Settings, answers: str, first: Arrived | None) -> Result:
    """Return a result by the first event of the server, which should begin a session."""
    match _event_of(first):
        case wire.SessionCreated():
            return ok("server", f"{answers} and begins a session with {settings.model}")
        case wire.ErrorEvent(error=error) if (fatal := fatal_code(error)) is not None:
            return problem("server", why_fatal(fatal, settings.model))
        case wire.ErrorEvent(error=error):
            return problem("server", f"{answers} and refuses: {error.message or error.code}")
    if isinstance(first, WebsocketClosed):
        why = f" ({first.reason})" if first.reason else ""
        return problem("server", f"{answers} and ends the connection with {first.code}{why}")
    return problem("server", f"{answers}, but does not begin a session of the Realtime API")


def _event_of(arrived: Arrived | None) -> object:
    event = wire.decode(arrived.data) if isinstance(arrived, ReceivedText) else None
    return event.event if isinstance(event, wire.PartialEvent) else event


def _is_beta(connection: _Attempt, first: Arrived | None) -> bool:
    """Ask a server for one word in writing. Return whether it is one of before GA."""
    event = _event_of(first)
    if isinstance(event, wire.SessionCreated) and _BETA_SESSION & set(event.session or ()):
        return True
    content = [{"type": "input_text", "text": "Say ok, and nothing else."}]
    item = {"type": "message", "role": "user", "content": content}
    connection.send(wire.ItemCreate(item, "doctor_1"))
    connection.send(wire.ResponseCreate("doctor_2", {"output_modalities": ["text"]}))
    end = time.monotonic() + _ANSWER_S
    while (left_s := end - time.monotonic()) > 0:
        arrived = connection.next(left_s)
        if not isinstance(arrived, ReceivedText):
            break
        name = wire.name_of(_event_of(arrived))
        if name in wire.BETA:
            return True
        if name in ("response.done", "error", "response.output_text.delta"):
            break
    return False


class _Attempt:
    """One connection to the server, made as in a conversation."""

    def __init__(self, address: Address, secret: str) -> None:
        self._connection = Connection(address.url, address.headers, secret)
        self._loop = Alone()
        self._connection.attend(self._loop, lambda: None)
        self._connection.start()

    def next(self, timeout_s: float) -> Arrived | None:
        """Return what arrives next; None: nothing arrives in time."""
        arrived, end_s = self._connection.arrived, time.monotonic() + timeout_s
        while self._loop.run(lambda: arrived, end_s - time.monotonic()):
            if not isinstance(found := arrived.popleft(), PingAnswered):
                return found
        return None

    def send(self, event: wire.ClientEvent) -> None:
        """Send an event."""
        self._connection.send(wire.encode(event))

    def close(self) -> None:
        """Close the connection gracefully."""
        with self._loop:
            self._connection.close()
