"""The plan for a new server session: the items to replay, the speech to repeat, what to request.

The ids of the items are made from those of history (`wire_id`); aliases map them back.
"""

from __future__ import annotations

import itertools
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
"""How often the same speech is sent again, or the same answer resumed, at most: it may be the cause
of the server's failures."""

GIVEN_UP = "what was said last could not be answered, please say it again"

MAX_ITEMS = 5000
"""At most this many of the newest items are replayed; no model's context holds more."""
_STEP = 1000
"""Older items are left out in steps of this many. So most plans begin with the same item as the one
before, and `difference` has little to send."""

MAX_IMAGES = 10
"""At most this many of the newest images are replayed; each costs time and tokens."""

OUTPUT = "output "
"""Begins the intent of an event that creates the output of a call; the id of the call follows."""

MESSAGE, CALL, CALL_OUTPUT = "msg_", "fc_", "fco_"
"""The prefixes of item ids, by type of item. The service uses the same for its own ids."""
PREFIXES = {"message": MESSAGE, "function_call": CALL, "function_call_output": CALL_OUTPUT}
_ID_CHARS = 32


def _silence(first_sample: int, last_sample: int) -> bytes:
    return b""


class Known(msgspec.Struct):
    """What this process knows in addition to the history, which may lack the latest events."""

    outputs: Mapping[str, tuple[str, str]] = {}
    """(item id, output) of the newest answered calls, by call id."""
    heard: Mapping[str, str] = {}
    """The text up to the interruption, by id of the interrupted item."""
    sound: Callable[[int, int], bytes] = _silence
    """Returns the user's audio from a first to a last sample; empty: it is no longer available."""
    since: int = 0
    """The oldest sample that the microphone can replay."""
    asks: bool = False
    """Whether to answer a turn that the saved state lacks."""


class Plan(msgspec.Struct):
    """How a new server session continues the conversation."""

    items: list[dict[str, Any]] = []
    """The items to create, in order."""
    ids: set[str] = set()
    """The ids of `items`."""
    left_out: int = 0
    """How many of the oldest items of the history are left out."""
    remembered: int = 0
    """How many of `items` come before the end of the history; the others follow it."""
    misplaced: set[str] = set()
    """The ids of outputs that stand among the items of the history, which lacks them, and of the
    item behind each."""
    aliases: dict[str, str] = {}
    """History's id of an item, by the server's, where the two differ."""
    from_sample: int = 0
    """The first sample of the user's audio to append again."""
    again: list[UnansweredTurn] = []
    """Turns whose audio is appended again. The server makes new items of them, so history drops
    the old ones."""
    transcribed: set[str] = set()
    """Item ids of the turns whose text is in history."""
    missing: int = 0
    """Number of the user's turns of which neither text nor audio is left."""
    given_up: list[UnansweredTurn] = []
    """Turns that were sent again too often, or whose audio is lost."""
    ask: Ask | None = None
    """The response to request; None: none."""
    answered: dict[str, str] = {}
    """The outputs among `items`, by call id."""
    open: set[str] = set()
    """Ids of the calls among `items` that have no output."""
    recorded: set[str] = set()
    """Ids of the calls among `items` that history has."""
    knows_history: bool = False
    """Whether history was known; otherwise `items` are only what realtime itself knows."""
    hears_speech: bool = False
    """Whether the audio that is appended again is known to contain speech."""


def wire_id(item_id: str, prefix: str = MESSAGE) -> str:
    """Return the id with which an item is created; the same id always gives the same result.

    It has the prefix of the item's type and at most 32 characters. The service itself accepts ids
    without a prefix; stricter servers refuse them.
    """
    if not item_id.startswith(prefix):
        item_id = f"{prefix}{item_id}"
    if len(item_id) <= _ID_CHARS:
        return item_id
    return f"{item_id[:23]}-{zlib.crc32(item_id.encode()):08x}"


def text_item(item_id: str, role: str, text: str, image: SentImage | None = None) -> dict[str, Any]:
    """Return a message to create. The API accepts no audio of the assistant, only its text.

    An image is a reference to its file, which the shell reads when it sends the item.
    """
    kind = "output_text" if role == "assistant" else "input_text"
    content: list[dict[str, Any]] = [{"type": kind, "text": text}] if text or not image else []
    if image is not None:
        url = f"{REFERENCE}{image.media_type}:{image.path}"
        content.append({"type": "input_image", "image_url": url, "detail": image.detail})
    return {"id": wire_id(item_id), "type": "message", "role": role, "content": content}


def call_item(item_id: str, call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """Return a function call to create."""
    return {
        "id": wire_id(item_id or call_id, CALL),
        "type": "function_call",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }


def output_item(item_id: str, call_id: str, output: str) -> dict[str, Any]:
    """Return the output of a function call to create."""
    return {
        "id": wire_id(item_id, CALL_OUTPUT),
        "type": "function_call_output",
        "call_id": call_id,
        "output": output,
    }


def difference(
    there: list[dict[str, Any]], wanted: list[dict[str, Any]], event_id: Callable[[str], str]
) -> list[wire.ClientEvent]:
    """Return the events that turn one list of items into another.

    From the first difference on, the old items are deleted and the new ones created.

    Args:
        there: The items that the server has.
        wanted: The items that it should have.
        event_id: Returns an id for an event with an intent.
    """
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
    """Return how a new server session continues.

    Args:
        items: The history, in order.
        saved: The saved state.
        speech_from: The sample at which speech began that the lost session had not committed.
        known: What this process knows in addition to the history.
    """
    known = known or Known()
    items = list(items)
    history = {item.item_id: item for item in items}
    result = Plan()
    _decide_speech(result, history, saved, speech_from, known)
    left_out = {turn.item_id for turn in result.again}
    result.left_out = _left_out(len(items))
    for item in items[result.left_out :]:
        if item.item_id not in left_out:
            _add(result, item, known)
    result.remembered = len(result.items)
    for text in (*saved.sent_texts, *saved.texts):
        if text.item_id not in history:
            _append(result, text_item(text.item_id, "user", text.text, text.image), text.item_id)
    _leave_out_images(result.items)
    result.recorded = {*result.open, *result.answered}
    _add_calls(result, saved.calls)
    for call_id in sorted(result.open & set(known.outputs)):
        _answer(result, call_id, *known.outputs[call_id])
        _move_behind_call(result, call_id)
    result.hears_speech = bool(result.again) or speech_from is not None
    result.ask = _ask(saved, result, list(history.values()), known)
    return result


def _left_out(count: int) -> int:
    """Return how many of the oldest items to leave out."""
    return -(-max(0, count - MAX_ITEMS) // _STEP) * _STEP


def _append(result: Plan, item: dict[str, Any], known_as: str) -> None:
    """Add an item to create. ``known_as``: its id in history; empty: history does not have it."""
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
    """Decide which speech the server hears again, and from which sample on."""
    unanswered = [turn for turn in saved.turns if turn.spoken]
    forgotten = []
    for index, turn in enumerate(unanswered):
        item = history.get(turn.item_id)
        if item is not None and (item.text or item.transcribed):
            result.transcribed.add(turn.item_id)
        if turn.transcribed or turn.item_id in result.transcribed:
            continue
        if turn.first_sample >= known.since:
            # The turns that follow it must come after it, so they are heard again too.
            result.again = unanswered[index:]
            break
        if turn.wanted and not known.sound(turn.first_sample, turn.last_sample):
            forgotten.append(turn)  # otherwise `_message` replays it as an item with audio
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
        return  # the server refuses a second item with the same id
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
    """Return a message with its text or, of the user, its audio; None: it has neither."""
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
    """Replace all images but the newest by a text, so that the model knows that there was one."""
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
    """Add the output of a call. ``item_id``: its id in history; empty: history does not have it."""
    at_server = item_id
    if not item_id or wire_id(item_id, CALL_OUTPUT) in result.ids:
        at_server = output_item_id(call_id)
    _append(result, output_item(at_server, call_id, output), item_id)
    result.open.discard(call_id)
    result.answered[call_id] = output


def _move_behind_call(result: Plan, call_id: str) -> None:
    """Move the output that was added last behind its call and the calls and outputs after that."""
    output = result.items.pop()
    at = next(at for at, item in enumerate(result.items) if item.get("call_id") == call_id) + 1
    while at < len(result.items) and result.items[at]["type"] != "message":
        at += 1
    result.items.insert(at, output)
    if at < result.remembered:
        result.remembered += 1
        result.misplaced |= {output["id"], result.items[at + 1]["id"]}


def _ask(saved: Saved, result: Plan, history: list[ConversationItem], known: Known) -> Ask | None:
    """Return the response to request, besides those to speech that is heard again; None: none."""
    answer, calls_run = saved.answer, _ends_with_open_call(history, result.open)
    if answer is None:
        others = [*result.again, *result.given_up]
        called = _before_open_call(history, result.open)
        wanted = (
            turn.wanted for turn in saved.turns if turn not in others and turn.item_id not in called
        )
        ids = {*(turn.item_id for turn in saved.turns), *saved.seen_texts, *called}
        waits = known.asks and not calls_run and _awaits_answer(history, ids)
        return Ask() if waits or any(wanted) else None
    if answer.begun and result.hears_speech:
        return None  # the user continues to speak, and the server answers that
    last = history[-1] if history else None
    if answer.begun and last is not None and last.role == "assistant" and last.complete:
        if last.item_id in known.heard:
            pass  # complete, but not heard to its end
        elif last.kind == "message" and not answer.announces:
            return None  # the answer was complete, only its ``response.done`` had not come
    if answer.call or (answer.begun and calls_run):
        return None  # a response is requested when the outputs have come
    if not answer.begun:
        return None if answer.unasked and _is_answered(history) else answer.ask
    resumed = answer.ask.resumed + 1
    return None if resumed > MAX_REPEATS else Ask(extra=(GO_ON,), resumed=resumed, tools="auto")


def _is_answered(history: list[ConversationItem]) -> bool:
    """Return whether only noise has come since an answer that was complete."""
    for item in reversed(history):
        is_noise = item.role == "user" and item.transcribed and not (item.text or item.image)
        if item.kind != "message" or not is_noise:
            is_answer = item.kind == "message" and item.role == "assistant"
            return is_answer and item.complete and not item.interrupted
    return False


def _awaits_answer(history: list[ConversationItem], known: set[str]) -> bool:
    """Return whether the last item is the output of a tool, or a turn of the user.

    Args:
        history: The history.
        known: Ids of the turns of which it is known whether they are to be answered.
    """
    if not history:
        return False
    last = history[-1]
    if last.kind == "function_call_output":
        return True
    is_turn = last.kind == "message" and last.role == "user" and last.item_id not in known
    return is_turn and bool(last.text or last.image)


def _ends_with_open_call(history: list[ConversationItem], open_calls: set[str]) -> bool:
    """Return whether nothing was said after the response with the newest call without an output.

    Calls that history lacks are the newest.
    """
    if open_calls - {item.call_id for item in history}:
        return True
    newest = itertools.takewhile(lambda item: item.kind != "message", reversed(history))
    return any(item.kind == "function_call" and item.call_id in open_calls for item in newest)


def _before_open_call(history: list[ConversationItem], open_calls: set[str]) -> set[str]:
    """Return the ids of the items before a call without an output.

    The model has answered them with that call; a response follows when the output has come.
    """
    places = {item.call_id: place for place, item in enumerate(history)}
    end = max((places.get(call_id, len(history)) for call_id in open_calls), default=0)
    return {item.item_id for item in history[:end]}
