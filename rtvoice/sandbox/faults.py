"""Misbehaviour that a test may command: the words for it.

Nothing of it ever happens by itself. It is asked for in the URL (`?misbehave=...`), with a
`sandbox.misbehave` event, on the command line, or through `rtvoice.testing`; `Line` does it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, NamedTuple

__all__ = [
    "CLIENT_EVENTS",
    "COMMAND",
    "GARBAGE",
    "HELP",
    "LATE_EVENTS",
    "SERVER_EVENTS",
    "Event",
    "Fault",
    "FaultError",
    "Faults",
    "parse_fault",
    "refusal",
]

Event = dict[str, Any]

COMMAND: Final = "sandbox.misbehave"
"""Type of the event that commands a fault; the service has none of that name."""

CLIENT_EVENTS: Final = (
    "session.update",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
    "output_audio_buffer.clear",
    "conversation.item.create",
    "conversation.item.delete",
    "conversation.item.retrieve",
    "conversation.item.truncate",
    "response.create",
    "response.cancel",
)
LATE_EVENTS: Final = (
    "conversation.item.input_audio_transcription.delta",
    "conversation.item.input_audio_transcription.completed",
    "conversation.item.input_audio_transcription.failed",
    "rate_limits.updated",
)
"""What may come whenever it likes: after its item, and in its own order."""
SERVER_EVENTS: Final = (
    "error",
    "session.created",
    "session.updated",
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.timeout_triggered",
    "input_audio_buffer.committed",
    "input_audio_buffer.cleared",
    "conversation.item.added",
    "conversation.item.done",
    "conversation.item.deleted",
    "conversation.item.retrieved",
    "conversation.item.truncated",
    "response.created",
    "response.output_item.added",
    "response.output_item.done",
    "response.content_part.added",
    "response.content_part.done",
    "response.output_audio.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.delta",
    "response.output_audio_transcript.done",
    "response.output_text.delta",
    "response.output_text.done",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.done",
    *LATE_EVENTS,
)

_HUGE: Final = 20_000_000


def _changed(**fields: Any) -> Callable[[Event], str]:
    return lambda delta: json.dumps({**delta, **fields})


GARBAGE: Final[dict[str, Callable[[Event], str | bytes]]] = {
    "text": lambda _: "this is no JSON",
    "cut": lambda delta: json.dumps(delta)[:-20],
    "array": lambda _: "[1, 2, 3]",
    "null": lambda _: "null",
    "deep": lambda _: "[" * 100_000,
    "binary": lambda _: b"\x00\x01\xfe\xff",
    "utf8": lambda _: b'{"type": "\xff\xfe"}',
    "untyped": lambda _: '{"event_id": "event_garbage"}',
    "unknown": lambda _: '{"type": "response.thought.delta", "event_id": "event_garbage"}',
    "missing": lambda _: '{"type": "response.done", "event_id": "event_garbage"}',
    "types": _changed(item_id=7, output_index="zero"),
    "base64": _changed(delta="*not base64*"),
    "odd": _changed(delta="AAAA"),
    "huge": _changed(type="response.huge", delta="A" * _HUGE),
    "frame": lambda _: b"\x83\x00",
}
"""Frames that no client expects, made from the last `response.output_audio.delta`."""

HELP: Final = f"""\
  drop                     end the connection without a word
  reset                    the same, with a TCP reset
  close CODE [REASON]      end it with a close frame
  stall [SECONDS]          read and write nothing any more, or for so long
  silence [SECONDS]        take everything and answer nothing
  trickle [BYTES]          send so many bytes a second from then on (1000)
  garbage KIND             send a frame that is no event
  send TEXT                send this text frame
  error CODE [MESSAGE]     send an error event
  fail CODE                end the response under way as failed, with this code
  expire [SECONDS]         end the session as its time limit does
Each at once, or with `after EVENT [N]` or `before EVENT [N]`: the N-th from now, of the server's
events or the client's.

  refuse STATUS [CODE]     answer the handshake with an HTTP status; or: refuse drop, refuse silence
  delay SECONDS [of EVENT [N]]  send late: everything, or each EVENT, or the N-th
  delay EVENT of EVENT [N]      send the second one after the first
  omit EVENT [N]           do not send it
  reorder [SEED]           send in any other order that the protocol allows
  newer                    have events and fields that nobody knows, and previous_item_id null
  items                    speak each sentence into an item of its own

KIND is one of: {", ".join(GARBAGE)}.
"""

# For each action: what its value looks like, and the value that it has without one.
_ACTIONS: Final[dict[str, tuple[str, str | None]]] = {
    "drop": ("", ""),
    "reset": ("", ""),
    "close": (r"(1\d{3}|[34]\d{3})( .{1,120})?", None),
    "stall": (r"\d+\.?\d*|\.\d+", "inf"),
    "silence": (r"\d+\.?\d*|\.\d+", "inf"),
    "trickle": (r"[1-9]\d*", "1000"),
    "garbage": ("|".join(GARBAGE), None),
    "send": (r"(?s:.+)", None),
    "error": (r"\S+( .+)?", None),
    "fail": (r"\S+", None),
    "expire": (r"\d+\.?\d*|\.\d+", "0"),
    "refuse": (r"[45]\d\d( \S+)?|drop|silence", None),
    "delay": (r"\d+\.?\d*|\.\d+|[a-z_]+\.[a-z_.]+", None),
    "omit": (r"\S+( [1-9]\d*)?", None),
    "reorder": (r"\d+", "0"),
    "newer": ("", ""),
    "items": ("", ""),
}
_WITHOUT_MOMENT: Final = ("refuse", "delay", "omit", "reorder", "newer", "items")

_FAULT: Final = re.compile(
    r"(?P<action>[a-z]+)(?: (?P<value>.+?))??"
    r"(?: (?P<when>before|after|of) (?P<event>[a-z_.]+)(?: (?P<number>[1-9]\d*))?)?",
    re.DOTALL,
)


class FaultError(ValueError):
    """A text that commands no misbehaviour. It says what is wrong with it."""


class Fault(NamedTuple):
    """One thing to do wrong.

    Attributes:
        action: one of the words in `HELP`.
        value: what follows it; "" if nothing does.
        when: "before" or "after" `event`; "of" it, if it happens to the event itself; or "".
        event: type of an event, or "".
        number: which one, from 1; 0 for the first (before, after) or for each (of).
    """

    action: str
    value: str = ""
    when: str = ""
    event: str = ""
    number: int = 0


def parse_fault(text: str) -> Fault:
    """Read a fault, such as `drop after response.created 2`.

    Raises:
        FaultError: it is none.
    """
    found = _FAULT.fullmatch(text.strip())
    if found is None or found["action"] not in _ACTIONS:
        raise FaultError(f"There is no misbehaviour {text!r}. There is: {', '.join(_ACTIONS)}.")
    action, value = found["action"], found["value"]
    pattern, usual = _ACTIONS[action]
    if value is None and usual is None:
        raise FaultError(f"{action!r} has to say what. {_how(action)}")
    if value is not None and re.fullmatch(pattern, value) is None:
        raise FaultError(f"{value!r} is not for {action!r}. {_how(action)}")
    value = value or usual or ""
    fault = Fault(
        action, value, found["when"] or "", found["event"] or "", int(found["number"] or 0)
    )
    if action == "omit" and not fault.when:
        event, _, number = value.partition(" ")
        fault = Fault(action, "", "of", event, int(number or 0))
    _check(fault)
    return fault


def _check(fault: Fault) -> None:
    action, value, when, event, _ = fault
    if event and event not in CLIENT_EVENTS and event not in SERVER_EVENTS:
        raise FaultError(f"There is no event {event!r}.")
    if (when == "of") != (action in ("delay", "omit")) and when:
        raise FaultError(f"{action!r} does not go with {when!r}. {_how(action)}")
    if when in ("before", "after") and action in _WITHOUT_MOMENT:
        raise FaultError(f"{action!r} has no moment. {_how(action)}")
    if when == "of" and event in CLIENT_EVENTS:
        raise FaultError(f"{event!r} is sent by the client.")
    if action == "delay" and "." in value and not value.replace(".", "").isdigit():
        if value not in SERVER_EVENTS:
            raise FaultError(f"The server sends no event {value!r}.")
        if event not in LATE_EVENTS:
            raise FaultError(f"Only these may come after others: {', '.join(LATE_EVENTS)}.")


def _how(action: str) -> str:
    lines = [line.strip() for line in HELP.splitlines() if line.startswith(f"  {action} ")]
    return f"It is: {re.split('  +', lines[0])[0]}."


class Faults:
    """The faults of a connection that wait for their events."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Fault, int]] = []

    def add(self, fault: Fault) -> None:
        """Wait for the event of a fault, from now on."""
        self._waiting.append((fault, fault.number or 1))

    def due(self, when: str, event: str) -> list[Fault]:
        """Count an event, and give the faults that it brings."""
        due, waiting = [], []
        for fault, left in self._waiting:
            mine = fault.when == when and fault.event in ("", event)
            each = when == "of" and not fault.number
            if mine and (left == 1 or each):
                due.append(fault)
            if not mine or each:
                waiting.append((fault, left))
            elif left > 1:
                waiting.append((fault, left - 1))
        self._waiting = waiting
        return due


# What the service answers to a handshake that it refuses.
_REFUSALS: Final = {
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: ("invalid_request_error", "unsupported_country_region_territory", "Not available here."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached. Please try again later."),
}


def refusal(fault: Fault) -> tuple[HTTPStatus, str]:
    """Write the answer to a handshake: a status, and JSON."""
    status, _, wanted = fault.value.partition(" ")
    kind, code, message = _REFUSALS.get(
        int(status), ("server_error", "server_error", "The server had an error.")
    )
    error = {"type": wanted or kind, "code": wanted or code, "message": message, "param": None}
    return HTTPStatus(int(status)), json.dumps({"error": error}) + "\n"
