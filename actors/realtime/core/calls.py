"""Tool calls: each is run once, has one output, and calls made together have one answer."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import msgspec

from actors.realtime import wire
from actors.realtime.core import restore
from actors.realtime.core.context import Context, Recent
from actors.realtime.core.state import Ask, OpenCall
from messages import Notice, OutputReplaced, ToolAnswer, ToolCall, output_item_id

__all__ = ["Calls"]

CUT_OFF = "cancelled: the call was interrupted and did not run"
_REMEMBERED = 20
_SEEN = 20
"""So many ids of calls are saved; those before them are in the history, too."""
_ID_CHARS = 27
"""With ``call_`` before them, an id has the 32 characters that the service takes at most."""
_MAX_REASON = 200
"""Characters of what the server says of an output that it refuses, as the model is told."""


class _SentOutput(msgspec.Struct):
    """An output that the server may refuse."""

    item_id: str
    name: str
    output: str
    respond: bool
    repeated: bool = False
    """It was sent once more, after an error that passes."""
    replaced: bool = False
    """It is what the model is told in place of another, which was refused."""


class Calls:
    """The calls of the model and their outputs. What is not settled is in `Saved.calls`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._half: dict[str, tuple[str, wire.Item]] = {}
        """Calls that are being written: item id to (response_id, item)."""
        self._orphans: set[str] = set()
        """Calls of the history that have no output and that we do not know of."""
        self._early = Recent()
        """Answers that came before the history, of calls that we do not know of."""
        self._outputs: set[str] = set()
        """Calls whose output this session with the server has."""
        self._sent = Recent()
        """By call id: `_SentOutput`, the last ones."""
        self._sent.limit = _REMEMBERED
        self._again: dict[str, int] = {}
        """Calls whose output has to be sent once more, and when."""
        self._told = Recent()
        """The ids of the calls that this session with the server was told at its beginning."""
        self._told.limit = restore.MAX_ITEMS
        self._ids = Recent()
        """By item: the id of its call, as all but the server know it."""
        self._theirs = Recent()
        """By that id: the server's, where it is another."""

    def begun(self, response_id: str, item: wire.Item) -> None:
        """Take note of a call that is being written."""
        self._half[item.id] = (response_id, item)

    def _own_id(self, item: wire.Item) -> str:
        """Return an id that only this call has; an item is one call.

        It is the server's, but for servers that number the calls of each answer anew, or leave the
        id empty.
        """
        known: str | None = self._ids.get(item.id) if item.id else None
        if known is not None:
            return known
        theirs, saved = item.call_id or "", self._context.saved
        by_item = f"call_{item.id[-_ID_CHARS:]}"
        numbered = (f"{by_item[-_ID_CHARS:]}_{number}" for number in itertools.count(2))
        candidates = itertools.chain([theirs, by_item], numbered)
        own = next(each for each in candidates if each and not self._is_taken(each))
        saved.seen_calls = [*saved.seen_calls[1 - _SEEN :], own]
        self._ids[item.id] = own
        if own != theirs:
            self._theirs[own] = theirs
            self._context.log("info", "a call has an id of its own", call_id=own, server=theirs)
        return own

    def _is_taken(self, call_id: str) -> bool:
        context = self._context
        seen = context.saved.seen_calls
        return call_id in context.done or call_id in self._told or call_id in seen

    def written(self, response_id: str, item: wire.Item, now: int) -> bool:
        """Have a call run if it is complete. Return whether it is."""
        self._half.pop(item.id, None)
        context, call_id = self._context, self._own_id(item)
        if item.status not in (None, "completed"):
            self._abandon(call_id)
            return False
        if call_id in context.done:  # the same item again
            return False
        context.done[call_id] = True
        name, arguments = item.name or "", item.arguments or ""
        context.saved.calls.append(OpenCall(call_id, item.id, name, arguments, response_id))
        before = context.chain.previous(item.id)
        context.publish(ToolCall(call_id, name, arguments, item.id, before))
        context.activity.goes_on(now)
        return True

    def response_done(self, response_id: str) -> None:
        """Abandon calls that the end of an answer has cut off."""
        for item_id in [item for item, half in self._half.items() if half[0] == response_id]:
            self._abandon(self._own_id(self._half.pop(item_id)[1]))

    def answered(self, message: ToolAnswer, now: int) -> None:
        """Take an output from the tools; `settle` sends it."""
        context = self._context
        context.activity.goes_on(now)
        call = next((c for c in context.saved.calls if c.call_id == message.call_id), None)
        if call is None:
            if context.told:
                self._answer_orphan(message)
            else:
                self._early[message.call_id] = message
        elif call.output is None:
            call.output, call.respond = message.output, message.respond
            call.output_id = message.item_id
            context.outputs[call.call_id] = (message.item_id, message.output)

    def restored(self, plan: restore.Plan) -> None:
        """Begin a new session with the server, which has been told of some calls."""
        calls = self._context.saved.calls
        self._half.clear()
        self._outputs = set(plan.answered)
        self._orphans = plan.open - {call.call_id for call in calls}
        self._again.clear()
        self._ids.clear()
        self._theirs.clear()  # the new session was told our ids
        self._told.clear()
        self._note_told(plan)
        for call in calls:
            if call.output is None:
                call.output = plan.answered.get(call.call_id)
        for message in self._early.values():
            self._answer_orphan(message)
        self._early.clear()

    def _note_told(self, plan: restore.Plan) -> None:
        self._sent.clear()
        named = {item["call_id"]: item["name"] for item in plan.items if "name" in item}
        open_calls = {call.call_id for call in self._context.saved.calls}
        for item in plan.items:
            if "call_id" in item:
                self._told[item["call_id"]] = True
            if item["type"] == "function_call_output":
                call_id = item["call_id"]
                self._sent[call_id] = _SentOutput(
                    item["id"], named.get(call_id, ""), item["output"], call_id in open_calls
                )

    def refused(self, call_id: str, reason: str, delay: int | None, now: int) -> bool:
        """Have a call answered whose output the server has refused.

        Args:
            call_id: of the call.
            reason: what the server says.
            delay: after how many ns the same may be accepted; None: it will not be.
            now: the time.

        Returns:
            Whether it is sent once more as it was, so that there is nothing to tell yet.
        """
        sent: _SentOutput | None = self._sent.get(call_id)
        if sent is None:
            return False
        if delay is not None and not sent.repeated:
            sent.repeated = True
            self._again[call_id] = now + delay
            return True
        name = sent.name or "a tool"
        if sent.replaced:
            text = f"the server refuses that too; the model gets no answer of {name}"
            self._context.publish(Notice(text))
            return False
        sent.replaced, sent.repeated = True, False
        sent.output = (
            f"{name} has run, but its answer could not be given to you: {reason[:_MAX_REASON]}"
        )
        text = f"the server refuses the answer of {name}; the model is told that instead"
        self._context.publish(Notice(text))
        self._replace(call_id, sent.output)
        self._send_again(call_id)
        return False

    def _replace(self, call_id: str, output: str) -> None:
        context = self._context
        for call in context.saved.calls:
            if call.call_id == call_id:
                call.output = output
        if call_id in context.outputs:
            context.outputs[call_id] = (context.outputs[call_id][0], output)
        context.publish(OutputReplaced(call_id, output))

    def _send_again(self, call_id: str) -> None:
        """Send an output, and ask for an answer that knows it if that is not to come anyway."""
        sent: _SentOutput = self._sent[call_id]
        wire_id = self._send(call_id, sent)
        if sent.respond and not any(c.call_id == call_id for c in self._context.saved.calls):
            ask = Ask(extra=self._extra([sent.name]), tools="auto")
            self._context.responses.withdraw()  # it would not know of this
            self._context.responses.want(ask, [wire_id])

    def is_repeating(self) -> bool:
        """Tell whether an output is to be sent once more."""
        return bool(self._again)

    def deadline(self) -> int | None:
        """Return when `settle` has something to send once more."""
        return min(self._again.values(), default=None)

    def settle(self, now: int) -> None:
        """Send the outputs that are there, and ask for an answer when a group is complete."""
        for call_id in [call_id for call_id, due in self._again.items() if now >= due]:
            del self._again[call_id]
            self._send_again(call_id)
        context = self._context
        saved, active = context.saved, context.responses.active
        if not saved.calls:
            return
        groups: dict[str, list[OpenCall]] = {}
        for call in saved.calls:
            groups.setdefault(call.response_id, []).append(call)
            if call.output is not None and call.call_id not in self._outputs:
                self._send(
                    call.call_id, _SentOutput(call.output_id, call.name, call.output, call.respond)
                )
        for response_id, group in groups.items():
            if active is not None and active.response_id == response_id:
                continue  # it may call for more
            if all(call.output is not None for call in group):
                saved.calls = [call for call in saved.calls if call.response_id != response_id]
                self._ask(group)

    def _ask(self, group: Iterable[OpenCall]) -> None:
        aloud = [call for call in group if call.respond]
        if not aloud:
            return
        outputs = [c.output_id or output_item_id(c.call_id) for c in group]
        ids = [restore.wire_id(output, restore.CALL_OUTPUT) for output in outputs]
        about = [item_id for item_id in ids if item_id not in self._context.chain]
        ask = Ask(extra=self._extra(c.name for c in aloud), tools="auto")
        self._context.responses.want(ask, about)

    def _answer_orphan(self, message: ToolAnswer) -> None:
        if message.call_id not in self._orphans:
            return
        self._orphans.discard(message.call_id)
        sent = _SentOutput(message.item_id, message.name, message.output, message.respond)
        item_id = self._send(message.call_id, sent)
        if message.respond:
            ask = Ask(extra=self._extra([message.name]), tools="auto")
            self._context.responses.want(ask, [item_id])

    def _abandon(self, call_id: str) -> None:
        """Answer a call that was never run, so that the conversation is consistent."""
        if call_id and call_id not in self._context.done and call_id not in self._outputs:
            self._context.done[call_id] = True
            self._context.chain.hide(output_item_id(call_id))
            self._send(call_id, _SentOutput("", "", CUT_OFF, respond=False))

    def _send(self, call_id: str, sent: _SentOutput) -> str:
        context = self._context
        item_id = sent.item_id or output_item_id(call_id)
        item = restore.output_item(item_id, self._theirs.get(call_id, call_id), sent.output)
        wire_id = str(item["id"])
        context.chain.alias(wire_id, item_id)
        self._outputs.add(call_id)
        self._sent[call_id] = sent
        context.send(wire.ItemCreate(item, context.event_id(f"{restore.OUTPUT}{call_id}")))
        return wire_id

    def _extra(self, names: Iterable[str]) -> tuple[str, ...]:
        wanted = {
            spec.name: spec.response_instruction
            for spec in self._context.saved.tools or ()
            if spec.response_instruction
        }
        return tuple(dict.fromkeys(wanted[name] for name in names if name in wanted))
