"""What must hold in a world that has come to rest, whatever happened before."""

from __future__ import annotations

import difflib
import itertools

from actors.realtime.core import restore
from messages import ConversationItem, ItemRemoved, ResponseEnded
from rtvoice.sandbox.conversation import ServerItem
from tests.actors.realtime.core.world.world import World

__all__ = [
    "hold",
    "is_answered",
    "is_interrupted",
    "questions_are_answered_once",
    "turns_are_published",
]


def hold(world: World) -> None:
    """Assert all that holds after a conversation of any kind."""
    _nothing_was_refused(world)
    _each_call_has_one_output(world)
    _history_is_a_chain(world)
    _server_and_history_agree(world)


def _nothing_was_refused(world: World) -> None:
    """Assert that servers refused nothing, except events that crossed one of theirs."""
    races = ("conversation_already_has_active_response", "response_cancel_not_active")
    for line in world.process.all_lines:
        for error in line.refused:
            if error["param"] == "session.audio.output.speed":
                continue  # it began to answer meanwhile
            strict = error["param"] in ("item.id", "item_id") and world.accepted_ids == "own"
            assert strict or error["code"] in (*races, "session_expired"), error


def _each_call_has_one_output(world: World) -> None:
    """Assert that each call at the current server has exactly one output."""
    items = list(world.process.lines[False].session._conversation)
    calls = sorted(item.call_id for item in items if item.kind == "function_call")
    outputs = sorted(item.call_id for item in items if item.kind == "function_call_output")
    assert calls == outputs


def _history_is_a_chain(world: World) -> None:
    """Assert that each item of history follows another one of it, without cycles."""
    before = world.history.previous()
    assert world.history.mentioned() == [], "history waits for it"
    assert not {before[item_id] for item_id in before} - {*before, None}, before
    for item_id in before:
        at, seen = item_id, {item_id}
        while (at := before[at]) is not None:
            assert at not in seen, before
            seen.add(at)


def _server_and_history_agree(world: World) -> None:
    """Assert that server and history have the same conversation."""
    ours = [item for item in world.history.items() if item.kind != "message" or item.text]
    wire_ids = {item.item_id: item.item_id for item in ours}
    wire_ids |= {_at_server(world, item): item.item_id for item in ours}
    # Of speech without a transcript history has no text, the server has its sound. Of what was
    # cut off before its first word, neither has.
    unheard = {
        item_id
        for item in world.history.items()
        if item.role == "user" and not item.transcribed
        for item_id in (item.item_id, _at_server(world, item))
    }
    theirs = [
        item
        for item in world.process.lines[False].session._conversation
        if item.kind != "message" or (item.words and item.id not in unheard) or item.id in wire_ids
    ]
    assert [wire_ids.get(item.id, item.id) for item in theirs] == [item.item_id for item in ours], (
        _difference(theirs, ours)
    )
    for their, our in zip(theirs, ours, strict=True):
        if their.kind == "function_call_output":
            assert their.output == our.output
        elif their.kind == "message" and their.words:
            assert their.words.strip() == our.text.strip(), (their.id, their.words, our)
        elif their.kind == "message":  # cut off: the server does not know the words any more
            assert our.interrupted, our
        sees = any(part.kind == "input_image" for part in their.content)
        assert sees == (our.image is not None), our


def _at_server(world: World, item: ConversationItem) -> str:
    """Return the id of an item at a server that was told of it again."""
    item_id = restore.wire_id(item.item_id, restore.PREFIXES[item.kind])
    return world.process.core._context._ids[False]._theirs.get(item_id, item_id)


def _difference(theirs: list[ServerItem], ours: list[ConversationItem]) -> str:
    """Return a text that shows how the server's view and the history's differ."""
    one = [f"{item.id[-20:]} {item.kind} {item.words or item.output}" for item in theirs]
    other = [f"{item.item_id[-20:]} {item.kind} {item.text or item.output}" for item in ours]
    return "\n".join(["server - history", *difflib.unified_diff(one, other, lineterm="")])


def turns_are_published(world: World) -> None:
    """What the user has said and typed is there once, in order, in history and as turns.

    The text of speech may be lost with the connection; that it was said is not. A cough has no
    text either. With half-duplex nobody hears what is said while the assistant is audible.
    """
    there = [item for item in world.history.items() if item.kind == "message"]
    remembered = [item.text for item in there if item.role == "user"]
    told = [turn.text for turn in world.history.turns if turn.role == "user"]
    # A turn that is heard again may have been told before, without a text.
    removed = len(world.of(ItemRemoved))
    both = [(remembered, 0), (told, removed)]
    if world.is_rough:  # then one with its text may have been told, as one before it has none
        both.pop()
    user, half = world.user, world.settings.duplex == "half"
    for texts, twice in both:
        assert [text for text in texts if text.startswith("typed")] == user.typed, texts
        words = " ".join(text or "ask lost" for text in texts if not text.startswith("typed"))
        said = [word for word in words.split() if word != "ask"]
        if half:  # what was said is cut in two where nobody listens
            said = [word for word, _ in itertools.groupby(said)]
        kept = [word for word in said if word != "lost"]
        assert kept == [str(number) for number in user.asked if str(number) in kept], texts
        if half:
            continue
        missing = len(user.asked) - len(kept)
        assert missing == 0 or world.process.all_lines[1:] or world.unheard, texts
        assert missing <= said.count("lost") <= missing + user.coughs + twice, texts


def questions_are_answered_once(world: World) -> None:
    """No question has two whole answers."""
    user = world.user
    questions = [number for number in user.asked if number % 4 != 3]
    questions += range(len(user.typed))
    for number in set(questions):
        answers = [
            item
            for item in world.history.items()
            if item.role == "assistant" and item.complete and not item.interrupted
            if item.text.startswith(f"about {number} ") and item.text.endswith("done")
        ]
        assert len(answers) <= questions.count(number) + user.wanted, answers


def is_answered(world: World) -> bool:
    """Return whether the assistant has spoken last."""
    last = world.history.items()[-1]
    return last.kind == "message" and last.role == "assistant"


def is_interrupted(world: World) -> bool:
    """Return whether speech that needs no answer has interrupted the last answer."""
    ends = world.of(ResponseEnded)
    vad = world.settings.turn_detection
    kept = vad is not None and not vad.create_response
    return kept and bool(ends) and ends[-1].reason in ("turn_detected", "client_cancelled")
