"""What a new session with the server is told of the conversation so far, and what it must do.

Its items have ids made from those of the history (`wire_id`); aliases lead back.
"""

from __future__ import annotations

import zlib
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from actors.realtime import wire
from actors.realtime.core.state import Ask, OpenCall, Saved, UnansweredTurn
from actors.realtime.pictures import GONE, REFERENCE
from messages import ConversationItem, SentImage, output_item_id

__all__ = [
    "GIVEN_UP",
    "GO_ON",
    "MAX_IMAGES",
    "MAX_ITEMS",
    "MAX_REPEATS",
    "OUTPUT",
    "PREFIXES",
    "Known",
    "Plan",
    "call_item",
    "difference",
    "output_item",
    "plan",
    "text_item",
    "wire_id",
]

GO_ON = (
    "The connection was lost in the middle of your last answer. Go on from where it stopped, "
    "without a greeting and without repeating what you have said."
)
MAX_REPEATS = 3
"""How often the same speech is sent again, or an answer gone on with: it might be what the server
dies of."""

GIVEN_UP = "what was said last could not be answered, please say it again"

MAX_ITEMS = 5000
"""So many items a new session is told, the newest: no model's context holds more."""
_STEP = 1000
"""So many older ones are left out at once, so that two plans mostly begin alike (`difference`)."""

MAX_IMAGES = 10
"""So many images a new session is shown again, the last ones; each costs time and tokens."""

OUTPUT = "output "
"""What an event is for that tells the output of a call; the id of the call follows."""

MESSAGE, CALL, CALL_OUTPUT = "msg_", "fc_", "fco_"
"""What the ids of items begin with, by the type of item; the service's own do so too."""
PREFIXES = {"message": MESSAGE, "function_call": CALL, "function_call_output": CALL_OUTPUT}
_ID_CHARS = 32


def _silence(first_sample: int, last_sample: int) -> bytes:
    return b""


class Known(msgspec.Struct):
    """What is known besides the history, which may be a moment behind."""

    outputs: Mapping[str, tuple[str, str]] = {}
    """Of the calls answered last: (item id, output)."""
    heard: Mapping[str, str] = {}
    """Of items that were interrupted: the text up to there."""
    sound: Callable[[int, int], bytes] = _silence
    """Returns what the user said between two samples, if it is remembered."""
    since: int = 0
    """From this sample on the microphone can say again what it has captured."""


class Plan(msgspec.Struct):
    """How to go on in a new session."""

    items: list[dict[str, Any]] = []
    """To be created, in this order."""
    ids: set[str] = set()
    """Those of the items."""
    remembered: int = 0
    """How many of them are out of the history; the others come after everything in it."""
    aliases: dict[str, str] = {}
    """Ids that had to be shortened: as the server knows it to as history knows it."""
    from_sample: int = 0
    """From here on the server has to hear the user again."""
    again: list[UnansweredTurn] = []
    """Turns that the server hears again; they leave the history."""
    transcribed: set[str] = set()
    """Item ids of the turns whose text is in the history."""
    missing: int = 0
    """Of how many turns of the user neither the text nor the sound is known any more."""
    given_up: list[UnansweredTurn] = []
    """Turns that were sent again too often, or that nobody remembers."""
    ask: Ask | None = None
    answered: dict[str, str] = {}
    """Outputs that the server has now, by call_id."""
    open: set[str] = set()
    """Calls that the server knows without an output."""
    hears_speech: bool = False
    """Whether speech is known to be in what it hears again."""


def wire_id(item_id: str, prefix: str = MESSAGE) -> str:
    """Return an id under which an item can be created: the same for the same id, with its prefix.

    The service itself takes any id; strict servers take none without the prefix of its type.
    """
    if not item_id.startswith(prefix):
        item_id = f"{prefix}{item_id}"
    if len(item_id) <= _ID_CHARS:
        return item_id
    return f"{item_id[:23]}-{zlib.crc32(item_id.encode()):08x}"


def text_item(item_id: str, role: str, text: str, image: SentImage | None = None) -> dict[str, Any]:
    """Return a message as it is created. Sound of the assistant cannot be created, its text can.

    Of an image there is a reference, for which it is read when it is sent.
    """
    kind = "output_text" if role == "assistant" else "input_text"
    content: list[dict[str, Any]] = [{"type": kind, "text": text}] if text or not image else []
    if image is not None:
        url = f"{REFERENCE}{image.media_type}:{image.path}"
        content.append({"type": "input_image", "image_url": url, "detail": image.detail})
    return {"id": wire_id(item_id), "type": "message", "role": role, "content": content}


def call_item(item_id: str, call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """Return a function call as it is created."""
    return {
        "id": wire_id(item_id or call_id, CALL),
        "type": "function_call",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }


def output_item(item_id: str, call_id: str, output: str) -> dict[str, Any]:
    """Return the output of a function call as it is created."""
    return {
        "id": wire_id(item_id, CALL_OUTPUT),
        "type": "function_call_output",
        "call_id": call_id,
        "output": output,
    }


def difference(
    there: list[dict[str, Any]], wanted: list[dict[str, Any]], event_id: Callable[[str], str]
) -> list[wire.ClientEvent]:
    """Return the events that make one list of items into another: what differs is told anew."""
    same = 0
    for one, other in zip(there, wanted, strict=False):
        if one != other:
            break
        same += 1
    deletions = [
        wire.ItemDelete(item["id"], event_id(f"delete {item['id']}"))
        for item in reversed(there[same:])
    ]
    creations = [wire.ItemCreate(item, event_id(_intent(item))) for item in wanted[same:]]
    return [*deletions, *creations]


def _intent(item: Mapping[str, Any]) -> str:
    if item["type"] == "function_call_output":
        return f"{OUTPUT}{item['call_id']}"
    return f"replay {item['id']}"


def plan(
    items: Iterable[ConversationItem],
    saved: Saved,
    speech_from: int | None,
    known: Known | None = None,
) -> Plan:
    """Return how to go on.

    Args:
        items: the history, in order.
        saved: what we remember.
        speech_from: the sample at which speech began that the lost server had not committed.
        known: what is known besides.
    """
    known = known or Known()
    items = list(items)
    history = {item.item_id: item for item in items}
    result = Plan()
    _decide_speech(result, history, saved, speech_from, known)
    left_out = {turn.item_id for turn in result.again}
    for item in items[_left_out(len(items)) :]:
        if item.item_id not in left_out:
            _add(result, item, known)
    result.remembered = len(result.items)
    for text in saved.texts:
        if text.item_id not in history:
            _append(result, text_item(text.item_id, "user", text.text, text.image), text.item_id)
    _leave_out_images(result.items)
    _add_calls(result, saved.calls)
    for call_id in sorted(result.open & set(known.outputs)):
        _answer(result, call_id, *known.outputs[call_id])
    result.hears_speech = bool(result.again) or speech_from is not None
    result.ask = _ask(saved, result, list(history.values()))
    return result


def _left_out(count: int) -> int:
    """Return how many of the oldest items are too many."""
    return -(-max(0, count - MAX_ITEMS) // _STEP) * _STEP


def _append(result: Plan, item: dict[str, Any], known_as: str) -> None:
    """Have an item created that history knows by this id; empty: by none."""
    result.items.append(item)
    result.ids.add(item["id"])
    if known_as and known_as != item["id"]:
        result.aliases[item["id"]] = known_as


def _decide_speech(
    result: Plan,
    history: dict[str, ConversationItem],
    saved: Saved,
    speech_from: int | None,
    known: Known,
) -> None:
    unanswered = [turn for turn in saved.turns if turn.spoken]
    forgotten = []
    for index, turn in enumerate(unanswered):
        item = history.get(turn.item_id)
        if item is not None and (item.text or item.transcribed):
            result.transcribed.add(turn.item_id)
        if turn.transcribed or turn.item_id in result.transcribed:
            continue
        if turn.first_sample >= known.since:
            # What follows it has to come after it, so that is heard again too.
            result.again = unanswered[index:]
            break
        if turn.wanted and not known.sound(turn.first_sample, turn.last_sample):
            forgotten.append(turn)  # else it is replayed as sound
    if saved.repeats >= MAX_REPEATS:
        result.given_up, result.again = result.again, []
    result.given_up = forgotten + result.given_up
    result.from_sample = saved.safe_sample
    if result.again:
        result.from_sample = result.again[0].first_sample
    elif unanswered:
        result.from_sample = max(saved.safe_sample, *(turn.last_sample for turn in unanswered))
    elif speech_from is not None:
        result.from_sample = max(saved.safe_sample, speech_from)


def _add(result: Plan, item: ConversationItem, known: Known) -> None:
    short = wire_id(item.item_id, PREFIXES[item.kind])
    if item.kind == "function_call_output":
        if item.call_id in result.open:
            _answer(result, item.call_id, item.item_id, item.output)
    elif short in result.ids:
        return  # an id may be there once
    elif item.kind == "message":
        message = _message(item, known)
        if message is not None:
            _append(result, message, item.item_id)
        elif item.role == "user" and not item.transcribed:
            result.missing += 1
    elif item.call_id not in result.open and item.call_id not in result.answered:
        call = call_item(item.item_id, item.call_id, item.name, item.arguments)
        _append(result, call, item.item_id)
        result.open.add(item.call_id)


def _message(item: ConversationItem, known: Known) -> dict[str, Any] | None:
    """Return a message as text or, of the user, as sound; None: it says nothing."""
    text = known.heard.get(item.item_id, item.text)
    if text or item.image:
        return text_item(item.item_id, item.role, text, item.image)
    if item.role == "user":
        pcm = known.sound(item.first_sample, item.last_sample)
        if pcm:
            content = [{"type": "input_audio", "audio": b64encode(pcm).decode()}]
            return {**text_item(item.item_id, "user", ""), "content": content}
    return None


def _leave_out_images(items: list[dict[str, Any]]) -> None:
    """Show the last images only, and say where others were."""
    left = MAX_IMAGES
    for item in reversed(items):
        parts = item.get("content", [])
        for place, part in enumerate(parts):
            if part["type"] == "input_image":
                left -= 1
                if left < 0:
                    parts[place] = {"type": "input_text", "text": GONE}


def _add_calls(result: Plan, calls: Iterable[OpenCall]) -> None:
    for call in calls:
        if call.call_id not in result.open and call.call_id not in result.answered:
            item = call_item(call.item_id, call.call_id, call.name, call.arguments)
            _append(result, item, call.item_id)
            result.open.add(call.call_id)
        if call.output is not None and call.call_id in result.open:
            _answer(result, call.call_id, call.output_id, call.output)


def _answer(result: Plan, call_id: str, item_id: str, output: str) -> None:
    at_server = item_id
    if not item_id or wire_id(item_id, CALL_OUTPUT) in result.ids:
        at_server = output_item_id(call_id)
    _append(result, output_item(at_server, call_id, output), item_id)
    result.open.discard(call_id)
    result.answered[call_id] = output


def _ask(saved: Saved, result: Plan, history: list[ConversationItem]) -> Ask | None:
    """Return what is asked for, besides the answers to what is heard again."""
    answer = saved.answer
    if answer is None:
        others = [*result.again, *result.given_up]
        wanted = (turn.wanted for turn in saved.turns if turn not in others)
        return Ask() if any(wanted) else None
    if answer.begun and result.hears_speech:
        return None  # the user goes on
    last = history[-1] if history else None
    if answer.begun and last is not None and last.role == "assistant" and last.complete:
        if last.kind == "message" and not answer.announces:
            return None  # it was whole, only its end had not been told
    if answer.call:
        return None  # its outputs will ask
    if not answer.begun:
        return None if answer.unasked and _is_answered(history) else answer.ask
    resumed = answer.ask.resumed + 1
    return None if resumed > MAX_REPEATS else Ask(extra=(GO_ON,), resumed=resumed, tools="auto")


def _is_answered(history: list[ConversationItem]) -> bool:
    """Return whether nothing but noise has come since an answer that was heard to its end."""
    for item in reversed(history):
        is_noise = item.role == "user" and item.transcribed and not (item.text or item.image)
        if item.kind != "message" or not is_noise:
            is_answer = item.kind == "message" and item.role == "assistant"
            return is_answer and item.complete and not item.interrupted
    return False
