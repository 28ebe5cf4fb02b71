"""Faults that a test can inject into a connection, and the parsing of their names.

None happens without a command, which comes in the URL (`?misbehave=...`), in a `sandbox.misbehave`
event, from the command line, or from `rtvoice.testing`. `ClientLine` carries faults out.
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
"""Type of the event that commands a fault; it does not exist at the service."""

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
"""Events that may come at any time after their item; those of one item keep their order."""
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
"""Invalid or unknown frames, by kind; some are made from the last `response.output_audio.delta`."""

HELP: Final = f"""\
  drop                     end the connection without a close frame
  reset                    the same, with a TCP reset
  close CODE [REASON]      end the connection with a close frame
  stall [SECONDS]          stop reading and writing, for this time or permanently
  silence [SECONDS]        read everything but send nothing, for this time or permanently
  trickle [BYTES]          from then on, send this many bytes a second (1000)
  garbage KIND             send a frame that is not a valid event
  send TEXT                send this text frame
  error CODE [MESSAGE]     send an error event
  fail CODE                end the current response as failed, with this code
  expire [SECONDS]         end the session as its time limit does
Each happens at once, or with `after EVENT [N]` or `before EVENT [N]`: the N-th such event of the
server or the client from now on.

  refuse STATUS [CODE]     answer the handshake with an HTTP status; or: refuse drop, refuse silence
  delay SECONDS [of EVENT [N]]  send late: everything, or each EVENT, or the N-th
  delay EVENT of EVENT [N]      send the second event only after the first
  omit EVENT [N]           do not send this event
  reorder [SEED]           send in another order that the protocol allows
  newer                    send unknown events and fields, and previous_item_id null
  items                    speak each sentence into a separate item
  ids [WHICH]              refuse items with ids that do not begin with the prefix of their type
                           (prefixes), or with any id (own)

KIND is one of: {", ".join(GARBAGE)}.
"""

# For each action: the pattern of its value, and the default value (None: it needs a value).
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
    "ids": ("prefixes|own", "prefixes"),
}
_WITHOUT_MOMENT: Final = ("refuse", "delay", "omit", "reorder", "newer", "items", "ids")

_FAULT: Final = re.compile(
    r"(?P<action>[a-z]+)(?: (?P<value>.+?))??"
    r"(?: (?P<when>before|after|of) (?P<event>[a-z_.]+)(?: (?P<number>[1-9]\d*))?)?",
    re.DOTALL,
)


class FaultError(ValueError):
    """Raised for a text that is not a valid fault; the message says how to write it."""


class Fault(NamedTuple):
    """A fault to inject.

    Attributes:
        action: One of the words in `HELP`.
        value: The value of the action; "" if it has none.
        when: "before" or "after" `event`; "of", if the event itself is changed; "": at once.
        event: The type of an event, or "".
        number: Number of the event, from 1; 0: the first one (before, after) or each (of).
    """

    action: str
    value: str = ""
    when: str = ""
    event: str = ""
    number: int = 0


def parse_fault(text: str) -> Fault:
    """Return a fault from its text, such as `drop after response.created 2`.

    Raises:
        FaultError: The text is not a valid fault.
    """
    found = _FAULT.fullmatch(text.strip())
    if found is None or found["action"] not in _ACTIONS:
        raise FaultError(f"{text!r} is not a valid fault. Faults are: {', '.join(_ACTIONS)}.")
    action, value = found["action"], found["value"]
    pattern, usual = _ACTIONS[action]
    if value is None and usual is None:
        raise FaultError(f"{action!r} needs a value. {_how(action)}")
    if value is not None and re.fullmatch(pattern, value) is None:
        raise FaultError(f"{value!r} is not a valid value of {action!r}. {_how(action)}")
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
        raise FaultError(f"{action!r} does not go with {when!r}. {_how(action)}")
    if when == "of" and event in CLIENT_EVENTS:
        raise FaultError(f"{event!r} is sent by the client.")
    if action == "delay" and "." in value and not value.replace(".", "").isdigit():
        if value not in SERVER_EVENTS:
            raise FaultError(f"The server sends no event {value!r}.")
        if event not in LATE_EVENTS:
            raise FaultError(f"Only these can wait for an event: {', '.join(LATE_EVENTS)}.")


def _how(action: str) -> str:
    lines = [line.strip() for line in HELP.splitlines() if line.startswith(f"  {action} ")]
    return f"Write: {re.split('  +', lines[0])[0]}."


class Faults:
    """The faults of a connection that wait for an event."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Fault, int]] = []

    def add(self, fault: Fault) -> None:
        """Add a fault, which counts events from now on."""
        self._waiting.append((fault, fault.number or 1))

    def due(self, when: str, event: str) -> list[Fault]:
        """Count an event, and return the faults that it triggers."""
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


# Type, code and message of the error with which the service refuses a handshake, by status.
_REFUSALS: Final = {
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: ("invalid_request_error", "unsupported_country_region_territory", "Not available here."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached. Please try again later."),
}


def refusal(fault: Fault) -> tuple[HTTPStatus, str]:
    """Return the refusal of a handshake: a status, and a body in JSON."""
    status, _, wanted = fault.value.partition(" ")
    kind, code, message = _REFUSALS.get(
        int(status), ("server_error", "server_error", "The server had an error.")
    )
    error = {"type": wanted or kind, "code": wanted or code, "message": message, "param": None}
    return HTTPStatus(int(status)), json.dumps({"error": error}) + "\n"
