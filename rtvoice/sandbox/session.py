"""One session of the Realtime API: frames in, events and work out; no socket, no clock.

What takes time (recognition, speech) is returned as work, which the server does and reports back.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

import msgspec

from rtvoice.sandbox import brain
from rtvoice.sandbox.audio import Decoder
from rtvoice.sandbox.conversation import (
    SAMPLES_PER_MS,
    Part,
    Recognition,
    ServerConversation,
    ServerItem,
    decoded_audio,
    parse_item,
)
from rtvoice.sandbox.errors import RefusedError, invalid_type, invalid_value, missing
from rtvoice.sandbox.input_audio import InputAudio, SpeechBegan, SpeechEnded, StayedIdle
from rtvoice.sandbox.responses import ResponseOutcome, ServerResponse, padding
from rtvoice.sandbox.schema import Rule, anything, nullable, record, text, whole
from rtvoice.sandbox.script import Script
from rtvoice.sandbox.settings import (
    Settings,
    cannot_update_voice,
    check_response,
    conversation_settings,
    merged,
    transcription_settings,
)
from rtvoice.sandbox.speak import split_words
from rtvoice.sandbox.tokens import transcription_usage

__all__ = ["Event", "Listen", "Respond", "ServerSession", "SpeechRequest", "Work"]

Event = dict[str, Any]

_MAX_DEPTH: Final = 64
_TOKENS_PER_MINUTE: Final = 15_000_000
_ID_CHARS: Final = 32
_PREFIXES: Final = {"message": "msg_", "function_call": "fc_", "function_call_output": "fco_"}
"""What strict servers want the id of an item to begin with."""


class Listen(NamedTuple):
    """Work: recognise audio, then call `ServerSession.heard`.

    Attributes:
        item_id: The item that has the audio.
        pcm: int16 little-endian mono, 24 kHz.
    """

    item_id: str
    pcm: bytes


class Respond(NamedTuple):
    """Work: wait until the items of `ServerSession.unheard` are recognised, then call `think`."""

    response_id: str


Work = Listen | Respond


class SpeechRequest(NamedTuple):
    """Work: speak a text with `ServerSession.speak`, then call `ServerSession.finish`.

    Attributes:
        text: The words.
        voice: As in `session.audio.output.voice`.
        speed: From 0.25 to 1.5; 1 is normal.
    """

    text: str
    voice: Any
    speed: float


class ServerSession:
    """The state of one session.

    The server passes it every frame of the client, takes its events and work, and reports the
    results of the work. No event of a client ends the session: a wrong one is answered with an
    `error` event.

    It is longer and has more attributes than other classes: it is the API's session, with a method
    for each event of a client.

    Args:
        model: The model in the URL.
        transcribes: Whether this is a transcription session, which never responds.
        expires_at: Unix time at which the session ends.
        script: Answers and transcripts set by a test.
    """

    # One class with a method for each event of the client, since nearly all of them need the input,
    # the conversation and the responses. What each of these does alone is in `InputAudio`,
    # `ServerConversation` and `ServerResponse`.

    def __init__(
        self,
        model: str,
        *,
        transcribes: bool = False,
        expires_at: int = 0,
        script: Script | None = None,
    ) -> None:
        self.accepted_ids: Literal["any", "prefixes", "own"] = "any"
        """Which ids of items a client may give: any, those with the prefix of the type, or none."""
        self._settings = transcription_settings() if transcribes else conversation_settings(model)
        self._transcribes = transcribes
        self._expires_at = expires_at
        self._script = script or Script()
        self._unique = secrets.token_hex(5)
        self._count = 0
        self._id = self._new_id("sess")
        self._conversation = ServerConversation(self._new_id("conv"))
        self._events: list[Event] = []
        self._work: list[Work] = []
        self._responses: dict[str, ServerResponse] = {}
        self._active: ServerResponse | None = None
        self._voice_is_fixed = False
        self._cached_tokens = 0
        self._tokens_left = _TOKENS_PER_MINUTE
        self._unheard: dict[str, ServerItem] = {}
        self._transcribed: dict[str, Settings] = {}
        self._input = InputAudio(self._settings["audio"]["input"])
        self._speech_id: str | None = None
        self._speech_start = 0
        self._handlers: dict[str, Callable[[Event], None]] = {
            "session.update": self._update,
            "input_audio_buffer.append": self._append,
            "input_audio_buffer.commit": self._commit,
            "input_audio_buffer.clear": self._clear,
            "output_audio_buffer.clear": self._clear_output,
            "conversation.item.create": self._create_item,
            "conversation.item.delete": self._delete_item,
            "conversation.item.retrieve": self._retrieve_item,
            "conversation.item.truncate": self._truncate_item,
            "response.create": self._create_response,
            "response.cancel": self._cancel_response,
        }

    # Output to the server.

    def take_events(self) -> list[Event]:
        """Return and clear the events for the client, oldest first."""
        events, self._events = self._events, []
        return events

    def take_work(self) -> list[Work]:
        """Return and clear the work to do."""
        work, self._work = self._work, []
        return work

    # Input from the server.

    def open(self) -> None:
        self._emit("session.created", session=self._shown_settings())

    def expire(self, minutes: float) -> None:
        """Emit the error that the session has reached its time limit."""
        self._report(
            RefusedError(
                f"Your session hit the maximum duration of {minutes:g} minutes.",
                code="session_expired",
            )
        )

    def refuse(self, message: str, param: str, event_id: str | None) -> None:
        """Emit an error for an event that the server handles itself."""
        self._report(RefusedError(message, code="invalid_value", param=param), event_id)

    def fail(self, code: str) -> bool:
        """End the current response as failed; return False if there is none."""
        if self._active is None:
            return False
        self._close(self._active, ResponseOutcome.failed(code))
        return True

    def receive(self, frame: str | bytes) -> None:
        """Handle a frame of the client."""
        event_id = None
        try:
            event = _decoded(frame)
            event_id = event.get("event_id") if isinstance(event.get("event_id"), str) else None
            kind = _kind_of(event)
            _EVENTS[kind](event, "")
            self._handlers[kind](event)
        except RefusedError as error:
            self._report(error, event_id)

    def unheard(self, response_id: str) -> list[str]:
        """Return the items of a response that are not recognised yet."""
        response = self._responses.get(response_id)
        context = response.context if response is not None else []
        return [item.id for item in context if item.id in self._unheard]

    def heard(self, item_id: str, heard: Recognition) -> None:
        """Store the result of the recogniser for an item, and emit its transcription."""
        item = self._unheard.pop(item_id, None)
        if item is None:
            return
        part = next(part for part in item.content if part.kind == "input_audio")
        part.heard = heard
        settings = self._transcribed.pop(item_id, None)
        if settings is not None:
            self._transcribe(item_id, part, heard, settings)

    def think(self, response_id: str) -> SpeechRequest | None:
        """Choose the answer of a response, and emit it unless it must be spoken.

        Returns:
            What to speak; None if the response has ended.
        """
        response = self._responses.get(response_id)
        if response is None:
            return None
        settings = response.settings
        tools = [tool for tool in settings["tools"] if tool["type"] == "function"]
        answer = self._script.next_answer() or brain.think(
            response.context, tools, settings["tool_choice"], settings["own_instructions"]
        )
        if isinstance(answer, brain.ToolCalls):
            one = settings.get("parallel_tool_calls") is False
            for call in answer.calls[:1] if one else answer.calls:
                response.call(call.name, call.arguments)
            self._close(response, ResponseOutcome("completed"))
            return None
        response.begin_message()
        if not response.with_audio:
            response.write(split_words(answer.text))
            self._close(response, ResponseOutcome("completed"))
            return None
        output = settings["audio"]["output"]
        return SpeechRequest(answer.text, output["voice"], output["speed"])

    def speak(self, response_id: str, words: list[str], pcm: bytes) -> bool:
        """Add a piece of speech to a response.

        Args:
            response_id: The response.
            words: The words of the piece, including the spaces between them.
            pcm: int16 little-endian mono, 24 kHz.

        Returns:
            Whether to go on; False after a cancellation or at the token limit.
        """
        response = self._responses.get(response_id)
        if response is None:
            return False
        self._voice_is_fixed = True
        response.speak(words, pcm)
        if not response.is_open:
            self._retire(response)
        return response.is_open

    def begin_item(self, response_id: str) -> None:
        """Continue the answer in a new item."""
        response = self._responses.get(response_id)
        if response is not None:
            response.end_message()
            response.begin_message()

    def finish(self, response_id: str) -> None:
        """End a response after all of it was spoken."""
        response = self._responses.get(response_id)
        if response is not None:
            self._close(response, ResponseOutcome("completed"))

    # Events and errors.

    def _emit(self, kind: str, **fields: Any) -> None:
        self._events.append({"type": kind, "event_id": self._new_id("event"), **fields})

    def _report(self, error: RefusedError, event_id: str | None = None) -> None:
        self._emit(
            "error",
            error={
                "type": "invalid_request_error",
                "code": error.code,
                "message": error.message,
                "param": error.param,
                "event_id": event_id,
            },
        )

    def _new_id(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._unique}{self._count:07d}"

    # session.update

    def _update(self, event: Event) -> None:
        self._settings = merged(
            self._settings,
            event["session"],
            voice_is_fixed=self._voice_is_fixed,
            responding=self._active is not None,
        )
        settings = self._settings["audio"]["input"]
        self._input.configure(settings)
        if settings["turn_detection"] is None:
            self._speech_id = None
        self._emit("session.updated", session=self._shown_settings())

    def _shown_settings(self) -> Settings:
        kind = "transcription_session" if self._transcribes else "session"
        return {
            **self._settings,
            "object": f"realtime.{kind}",
            "id": self._id,
            "expires_at": self._expires_at,
        }

    # The input audio buffer.

    def _append(self, event: Event) -> None:
        for change in self._input.append(decoded_audio(event["audio"], "audio")):
            match change:
                case SpeechBegan(at):
                    self._speech_started(max(at, self._input.start))
                case SpeechEnded(at):
                    self._speech_stopped(at)
                case StayedIdle(since, at):
                    self._stayed_idle(since, at)

    def _speech_started(self, at: int) -> None:
        self._speech_id = self._new_id("item")
        self._speech_start = at
        self._emit(
            "input_audio_buffer.speech_started",
            audio_start_ms=at // SAMPLES_PER_MS,
            item_id=self._speech_id,
        )
        if self._active is not None and self._turn_setting("interrupt_response"):
            self._close(self._active, ResponseOutcome.cancelled("turn_detected"))

    def _speech_stopped(self, at: int) -> None:
        self._emit(
            "input_audio_buffer.speech_stopped",
            audio_end_ms=at // SAMPLES_PER_MS,
            item_id=self._speech_id,
        )
        self._end_turn(at)

    def _stayed_idle(self, since: int, at: int) -> None:
        if self._active is not None:
            return
        self._speech_id = self._new_id("item")
        self._speech_start = max(since, self._input.start)
        self._emit(
            "input_audio_buffer.timeout_triggered",
            audio_start_ms=since // SAMPLES_PER_MS,
            audio_end_ms=at // SAMPLES_PER_MS,
            item_id=self._speech_id,
        )
        self._end_turn(at)

    def _end_turn(self, at: int) -> None:
        self._commit_until(at)
        if not self._turn_setting("create_response") or self._transcribes:
            return
        try:
            self._start_response({})
        except RefusedError as error:
            self._report(error)

    def _turn_setting(self, name: str) -> bool:
        settings = self._settings["audio"]["input"]["turn_detection"]
        return bool(settings is not None and settings[name])

    def _commit(self, _event: Event) -> None:
        self._commit_until(self._input.end)
        self._input.reset_detector()

    def _commit_until(self, end: int) -> None:
        first = self._input.start if self._speech_id is None else self._speech_start
        pcm = self._input.take(first, end)
        item_id = self._speech_id or self._new_id("item")
        self._speech_id = None
        self._emit(
            "input_audio_buffer.committed",
            previous_item_id=self._conversation.last_id(),
            item_id=item_id,
        )
        item = ServerItem(item_id, "message", role="user", content=[Part("input_audio", pcm=pcm)])
        self._add(item, None)
        transcription = self._settings["audio"]["input"]["transcription"]
        if transcription is not None:
            self._transcribed[item_id] = transcription
        self._listen_to(item)

    def _clear(self, _event: Event) -> None:
        self._input.clear()
        self._speech_id = None
        self._emit("input_audio_buffer.cleared")

    # Recognition.

    def _listen_to(self, item: ServerItem) -> None:
        pcm = b"".join(bytes(part.pcm) for part in item.content if part.kind == "input_audio")
        if pcm:
            self._unheard[item.id] = item
            self._work.append(Listen(item.id, pcm))

    def _transcribe(self, item_id: str, part: Part, heard: Recognition, settings: Settings) -> None:
        place = {"item_id": item_id, "content_index": 0}
        kind = "conversation.item.input_audio_transcription"
        if heard.text is None:
            error = {
                "type": "server_error",
                "code": "transcription_unavailable",
                "message": "The sandbox has no speech recogniser.",
                "param": None,
            }
            self._emit(f"{kind}.failed", **place, error=error)
            return
        part.transcript = heard.text
        # whisper-1 sends the whole transcript in one delta.
        whole = settings["model"] == "whisper-1"
        for piece in [heard.text] if whole else split_words(heard.text):
            self._emit(f"{kind}.delta", **place, delta=piece, obfuscation=padding(piece))
        usage = transcription_usage(settings["model"], part.samples, heard.text)
        self._emit(f"{kind}.completed", **place, transcript=heard.text, usage=usage)

    # Conversation items.

    def _create_item(self, event: Event) -> None:
        self._check_id(event["item"])
        item = parse_item(event["item"], self._new_id, self._whole_audio)
        if item.kind == "function_call_output" and not self._conversation.has_call(item.call_id):
            raise RefusedError(
                f"Tool call ID '{item.call_id}' not found in conversation.",
                code="invalid_tool_call_id",
            )
        self._add(item, event.get("previous_item_id"))
        self._listen_to(item)

    def _check_id(self, item: Any) -> None:
        """Refuse the id of an item, as strict servers do and the service does not."""
        item_id = item.get("id") if isinstance(item, dict) else None
        if item_id is None or self.accepted_ids == "any":
            return
        prefix = _PREFIXES.get(item.get("type"), "")
        wanted = "none, since the server gives each item its own"
        if self.accepted_ids == "prefixes":
            if str(item_id).startswith(prefix) and len(str(item_id)) <= _ID_CHARS:
                return
            wanted = f"an ID that begins with '{prefix}' and has at most {_ID_CHARS} characters"
        raise RefusedError(
            f"Invalid 'item.id': '{item_id}'. Expected {wanted}.",
            code="invalid_value",
            param="item.id",
        )

    def _whole_audio(self, data: bytes) -> bytes:
        decoder = Decoder(self._settings["audio"]["input"]["format"])
        return decoder.decode(data, "item.content.audio") + decoder.rest()

    def _add(self, item: ServerItem, after: str | None) -> None:
        self._conversation.add(item, after)
        before = self._conversation.before(item)
        for kind in ("conversation.item.added", "conversation.item.done"):
            self._emit(kind, previous_item_id=before, item=item.wire())

    def _find(self, item_id: str, doing: str, code: str) -> ServerItem:
        item = self._conversation.find(item_id)
        if item is None:
            raise RefusedError(
                f"Error {doing} item: the item with id '{item_id}' does not exist.",
                code=code,
                param="item_id",
            )
        return item

    def _delete_item(self, event: Event) -> None:
        item = self._find(event["item_id"], "deleting", "item_delete_invalid_item_id")
        self._conversation.remove(item)
        self._emit("conversation.item.deleted", item_id=item.id)

    def _retrieve_item(self, event: Event) -> None:
        item = self._find(event["item_id"], "retrieving", "item_retrieve_invalid_item_id")
        self._emit("conversation.item.retrieved", item=item.wire(with_audio=True))

    def _truncate_item(self, event: Event) -> None:
        item = self._find(event["item_id"], "truncating", "item_truncate_invalid_item_id")
        index, end_ms = event["content_index"], event["audio_end_ms"]
        if index >= len(item.content):
            known = tuple(str(each) for each in range(len(item.content)))
            raise invalid_value("content_index", index, known)
        part = item.content[index]
        if part.kind != "output_audio" or not part.samples:
            raise RefusedError(
                "Only model output audio messages can be truncated",
                code="unsupported_content_type",
            )
        if end_ms * SAMPLES_PER_MS > part.samples:
            raise RefusedError(
                f"Audio content of {part.samples // SAMPLES_PER_MS}ms is already shorter than "
                f"{end_ms}ms",
                code="invalid_value",
                param="audio_end_ms",
            )
        part.cut(end_ms * SAMPLES_PER_MS)
        self._emit(
            "conversation.item.truncated",
            item_id=item.id,
            content_index=index,
            audio_end_ms=end_ms,
        )

    # Responses.

    def _create_response(self, event: Event) -> None:
        parameters = event.get("response")
        if parameters is None:
            parameters = {}
        check_response(parameters, str(self._settings.get("model")))
        self._start_response(
            {name: value for name, value in parameters.items() if value is not None}
        )

    def _start_response(self, parameters: Settings) -> None:
        if self._transcribes:
            raise RefusedError(
                "A transcription session does not create responses.", code="invalid_value"
            )
        in_band = parameters.get("conversation", "auto") == "auto"
        if in_band and self._active is not None:
            raise RefusedError(
                "Conversation already has an active response in progress: "
                f"{self._active.id}. Wait until the response is finished before creating a new "
                "one.",
                code="conversation_already_has_active_response",
            )
        settings = self._response_settings(parameters)
        response = ServerResponse(
            settings,
            self._context(parameters.get("input")),
            self._conversation if in_band else None,
            self._emit,
            self._new_id,
            self._cached_tokens,
        )
        self._responses[response.id] = response
        if in_band:
            self._active = response
        response.begin()
        self._work.append(Respond(response.id))

    def _response_settings(self, parameters: Settings) -> Settings:
        settings = {**self._settings, "metadata": None}
        settings |= {name: value for name, value in parameters.items() if name != "audio"}
        settings["own_instructions"] = parameters.get("instructions")
        output = dict(self._settings["audio"]["output"])
        wanted = parameters.get("audio", {}).get("output", {})
        if self._voice_is_fixed and wanted.get("voice", output["voice"]) != output["voice"]:
            raise cannot_update_voice()
        settings["audio"] = {"output": output | wanted}
        return settings

    def _context(self, raw_items: list[Any] | None) -> list[ServerItem]:
        if raw_items is None:
            return list(self._conversation)
        return [self._input_item(raw, f"response.input[{at}]") for at, raw in enumerate(raw_items)]

    def _input_item(self, raw: Any, path: str) -> ServerItem:
        """Return an item of `response.input`: a new one, or one that it references."""
        if isinstance(raw, dict) and raw.get("type") == "item_reference":
            record({"type": text(), "id": text()}, "id")(raw, path)
            item = self._conversation.find(raw["id"])
            if item is None:
                raise RefusedError(
                    f"Item with id '{raw['id']}' does not exist.",
                    code="invalid_value",
                    param=f"{path}.id",
                )
            return item
        item = parse_item(raw, self._new_id, self._whole_audio)
        self._listen_to(item)
        return item

    def _cancel_response(self, event: Event) -> None:
        wanted = event.get("response_id")
        response = self._active if wanted is None else self._responses.get(wanted)
        if response is None:
            raise RefusedError(
                "Cancellation failed: no active response found", code="response_cancel_not_active"
            )
        self._close(response, ResponseOutcome.cancelled("client_cancelled"))

    def _close(self, response: ServerResponse, outcome: ResponseOutcome) -> None:
        response.close(outcome)
        self._retire(response)

    def _retire(self, response: ServerResponse) -> None:
        """Remove a closed response, start the idle timeout, and account for its tokens."""
        del self._responses[response.id]
        assert response.usage is not None
        self._cached_tokens = response.usage["input_tokens"]
        if response is self._active:
            self._active = None
            self._input.await_idle(response.samples)
        self._tokens_left = max(0, self._tokens_left - response.usage["total_tokens"])
        self._emit(
            "rate_limits.updated",
            rate_limits=[
                {
                    "name": "tokens",
                    "limit": _TOKENS_PER_MINUTE,
                    "remaining": self._tokens_left,
                    "reset_seconds": 0.002,
                }
            ],
        )

    def _clear_output(self, _event: Event) -> None:
        raise RefusedError(
            "output_audio_buffer.clear is for WebRTC and SIP: over a WebSocket the client has "
            "the output audio.",
            code="invalid_value",
            param="type",
        )


def _decoded(frame: str | bytes) -> Event:
    if isinstance(frame, bytes):
        raise RefusedError("Events are sent as text frames, not as binary.", code="invalid_json")
    try:
        event = msgspec.json.decode(frame)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise RefusedError(f"The event is not JSON: {error}", code="invalid_json") from None
    if not isinstance(event, dict):
        raise invalid_type("event", "an object", event)
    if _is_deeper(event, _MAX_DEPTH):
        raise RefusedError(
            f"The event is nested deeper than {_MAX_DEPTH} levels.", code="invalid_json"
        )
    return event


def _is_deeper(value: Any, levels: int) -> bool:
    layer = [value]
    while layer and levels:
        levels -= 1
        layer = [
            inner
            for outer in layer
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    return bool(layer)


def _kind_of(event: Event) -> str:
    if "type" not in event:
        raise missing("type")
    kind = event["type"]
    if not isinstance(kind, str):
        raise invalid_type("type", "a string", kind)
    if kind not in _EVENTS:
        raise invalid_value("type", kind, tuple(_EVENTS))
    return kind


def _event(*required: str, **fields: Rule) -> Rule:
    return record({"type": text(), "event_id": nullable(text(512)), **fields}, *required)


_EVENTS: Final[dict[str, Rule]] = {
    "session.update": _event("session", session=anything),
    "input_audio_buffer.append": _event("audio", audio=text()),
    "input_audio_buffer.commit": _event(),
    "input_audio_buffer.clear": _event(),
    "output_audio_buffer.clear": _event(),
    "conversation.item.create": _event("item", item=anything, previous_item_id=nullable(text())),
    "conversation.item.delete": _event("item_id", item_id=text()),
    "conversation.item.retrieve": _event("item_id", item_id=text()),
    "conversation.item.truncate": _event(
        "item_id",
        "content_index",
        "audio_end_ms",
        item_id=text(),
        content_index=whole(0),
        audio_end_ms=whole(0),
    ),
    "response.create": _event(response=anything),
    "response.cancel": _event(response_id=nullable(text())),
}
