"""Tool calls: each runs once and gets one output; the calls of one response get one answer."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import msgspec

from actors.realtime import wire
from actors.realtime.core import restore
from actors.realtime.core.actions import KeepOutput
from actors.realtime.core.context import Context, Recent
from actors.realtime.core.state import Ask, OpenCall
from messages import Notice, OutputReplaced, ToolAnswer, ToolCall, output_item_id, tool_answer

__all__ = ["Calls"]

UNKNOWN = "outcome unknown: the call was interrupted, and is not run again"
CUT_OFF = "cancelled: the call was interrupted and did not run"
_REMEMBERED = 20
_SEEN = 20
"""At most this many call ids are saved; history has the older ones."""
_ID_CHARS = 27
"""Length of our own ids without ``call_``. The service accepts at most 32 characters."""
_MAX_REASON = 200
"""At most this many characters of the server's reason for a refusal are passed to the model."""


class _SentOutput(msgspec.Struct):
    """An output that was sent, and that the server may still refuse."""

    item_id: str
    name: str
    output: str
    respond: bool
    repeated: bool = False
    """Whether the output was sent a second time, after a temporary error."""
    replaced: bool = False
    """Whether the output replaces one that the server has refused."""


class Calls:
    """The model's calls and their outputs. Those not settled are in `Saved.calls`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._unfinished: dict[str, tuple[str, wire.Item]] = {}
        """Calls that the model is still writing: item id to (response_id, item)."""
        self._orphans: set[str] = set()
        """Ids of calls that are in history without an output, and not in `Saved.calls`."""
        self._early = Recent()
        """Answers to unknown calls that came before the history, by call id."""
        self._outputs: set[str] = set()
        """Ids of the calls whose output the current server session was sent."""
        self._sent = Recent()
        """The newest outputs, as `_SentOutput`, by call id."""
        self._sent.limit = _REMEMBERED
        self._again: dict[str, int] = {}
        """The outputs to send once more: call id to time in ns."""
        self._replayed = Recent()
        """Ids of the calls that the current server session was sent when it began."""
        self._replayed.limit = restore.MAX_ITEMS
        self._ids = Recent()
        """The id of each call, by item id. Everyone but the server uses it."""
        self._theirs = Recent()
        """The server's id of a call, by ours, where the two differ."""

    def begun(self, response_id: str, item: wire.Item) -> None:
        """Record that the model has begun to write a call."""
        self._unfinished[item.id] = (response_id, item)

    def _own_id(self, item: wire.Item) -> str:
        """Return an id that no other call has; each item is one call.

        It is the server's id unless that is empty or taken: some servers number the calls of each
        response from the start again.
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
            text = "the server's id of a call is empty or taken; using our own"
            self._context.log("info", text, call_id=own, server=theirs)
        return own

    def _is_taken(self, call_id: str) -> bool:
        context = self._context
        seen = context.saved.seen_calls
        return call_id in context.done or call_id in self._replayed or call_id in seen

    def written(self, response_id: str, item: wire.Item, now: int) -> bool:
        """Publish a call, to be run, if it is complete and new. Return whether it was published."""
        self._unfinished.pop(item.id, None)
        context, call_id = self._context, self._own_id(item)
        if item.status not in (None, "completed"):
            self._abandon(call_id, item.id)
            return False
        if call_id in context.done:  # the server has sent the same item again
            return False
        context.done[call_id] = True
        name, arguments = item.name or "", item.arguments or ""
        context.saved.calls.append(OpenCall(call_id, item.id, name, arguments, response_id))
        before = context.chain.previous(item.id)
        context.publish(ToolCall(call_id, name, arguments, item.id, before))
        context.activity.progress(now)
        return True

    def response_done(self, response_id: str) -> None:
        """Abandon the calls that the end of a response has cut off."""
        cut_off = [item for item, call in self._unfinished.items() if call[0] == response_id]
        for item_id in cut_off:
            self._abandon(self._own_id(self._unfinished.pop(item_id)[1]), item_id)

    def answered(self, message: ToolAnswer, now: int) -> None:
        """Store an output of the tools component; `settle` sends it."""
        context = self._context
        context.activity.progress(now)
        call = next((c for c in context.saved.calls if c.call_id == message.call_id), None)
        if call is None and not context.has_conversation:
            self._early[message.call_id] = message
        elif call is None and message.call_id in self._orphans:
            self._answer_orphan(message)
        elif call is not None and call.output is None:
            call.output, call.respond = message.output, message.respond
            call.output_id = message.item_id
            self._keep(message)
        else:
            self._keep_to_first(message, call)

    def _keep(self, message: ToolAnswer) -> None:
        """Keep an answer as the one that counts."""
        self._context.outputs[message.call_id] = (message.item_id, message.output)
        self._context.do(KeepOutput(message))

    def _keep_to_first(self, message: ToolAnswer, call: OpenCall | None) -> None:
        """Tell the others which output counts, if a call is answered a second time."""
        _, first = self._context.outputs.get(message.call_id, ("", message.output))
        if call is not None and call.output is not None:
            first = call.output
        if first != message.output:
            self._context.publish(OutputReplaced(message.call_id, first))

    def leave_unknown(self) -> None:
        """Give the calls without an output one that says so: they belong to an earlier session."""
        for call in self._context.saved.calls:
            if call.output is None:
                call.output, call.output_id = UNKNOWN, output_item_id(call.call_id)
                self._publish_unknown(call.call_id, call.name)

    def _publish_unknown(self, call_id: str, name: str) -> ToolAnswer:
        answer = tool_answer(call_id, name, UNKNOWN, failed=True)
        self._context.publish(answer)
        return answer

    def restored(self, plan: restore.Plan) -> None:
        """Begin a new server session, which was sent the calls and outputs of the plan."""
        calls = self._context.saved.calls
        self._unfinished.clear()
        self._outputs = set(plan.answered)
        self._orphans = plan.open - {call.call_id for call in calls}
        self._again.clear()
        self._ids.clear()
        self._theirs.clear()  # the new session was sent our ids
        self._replayed.clear()
        self._note_replayed(plan)
        for call in calls:
            if call.output is None:
                call.output = plan.answered.get(call.call_id)
            if call.output is not None:
                self._context.outputs.setdefault(call.call_id, (call.output_id, call.output))
        for message in self._early.values():
            if message.call_id in self._orphans:
                self._answer_orphan(message)
            else:
                self._keep_to_first(message, None)
        self._early.clear()
        if self._context.is_reborn:
            self._publish_saved(plan)
        if self._context.resumes:
            self._look_after_orphans(plan)
        if plan.knows_history:
            self._context.restored()

    def _publish_saved(self, plan: restore.Plan) -> None:
        """Publish the saved calls again that not everyone may know.

        The process before may have died after it had saved a call, before it could send it to the
        supervisor. Tools may know the call nevertheless: they are sent it straight, and may have
        answered it by now.
        """
        may_be_lost = plan.knows_history and self._context.saved.resumed != "journal"
        for call in self._context.saved.calls:
            if call.output is None or (may_be_lost and call.call_id not in plan.recorded):
                self._publish_again(call.call_id, call.item_id, call.name, call.arguments, plan)

    def _look_after_orphans(self, plan: restore.Plan) -> None:
        """Have the calls answered that the saved state lacks.

        The tools component has written down each call before it has run it. Without its state,
        nobody knows whether it has.
        """
        calls = {item["call_id"]: item for item in plan.items if "name" in item}
        for call_id in sorted(self._orphans):
            name = calls[call_id]["name"]
            if self._context.saved.resumed == "abandoned":
                self._answer_orphan(self._publish_unknown(call_id, name))
            else:
                item = calls[call_id]
                item_id = self._context.chain.known_as(item["id"])
                self._publish_again(call_id, item_id, name, item["arguments"], plan)

    def _publish_again(
        self, call_id: str, item_id: str, name: str, arguments: str, plan: restore.Plan
    ) -> None:
        """Publish a call that the tools component may not know; it recognises one that it does.

        History, which may have it, keeps it where it is.
        """
        before = None
        if plan.knows_history and call_id not in plan.recorded:
            before = self._context.chain.previous(restore.wire_id(item_id or call_id, restore.CALL))
        self._context.publish(ToolCall(call_id, name, arguments, item_id, before))

    def _note_replayed(self, plan: restore.Plan) -> None:
        self._sent.clear()
        named = {item["call_id"]: item["name"] for item in plan.items if "name" in item}
        open_calls = {call.call_id for call in self._context.saved.calls}
        for item in plan.items:
            if "call_id" in item:
                self._replayed[item["call_id"]] = True
            if item["type"] == "function_call_output":
                call_id = item["call_id"]
                self._sent[call_id] = _SentOutput(
                    item["id"], named.get(call_id, ""), item["output"], call_id in open_calls
                )

    def refused(self, call_id: str, reason: str, delay: int | None, now: int) -> bool:
        """Handle the refusal of an output: send it once more, or send the reason in its place.

        Args:
            call_id: The call.
            reason: The server's message.
            delay: After how many ns the server may accept the same output; None: never.
            now: The time.

        Returns:
            Whether the same output will be sent once more, so that the error is not published yet.
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
            text = f"the server refuses that message too; the model gets no output of {name}"
            self._context.publish(Notice(text))
            return False
        sent.replaced, sent.repeated = True, False
        sent.output = (
            f"{name} has run, but its output could not be given to you: {reason[:_MAX_REASON]}"
        )
        text = f"the server refuses the output of {name}; the model gets a message about it instead"
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
        """Send an output once more; request a response to it unless `settle` will do so."""
        sent: _SentOutput = self._sent[call_id]
        wire_id = self._send(call_id, sent)
        if sent.respond and not any(c.call_id == call_id for c in self._context.saved.calls):
            ask = Ask(extra=self._extra([sent.name]), tools="auto")
            self._context.responses.withdraw()  # it would not know of this output
            self._context.responses.want(ask, [wire_id])

    def is_repeating(self) -> bool:
        """Return whether an output is waiting to be sent once more."""
        return bool(self._again)

    def deadline(self) -> int | None:
        """Return when `settle` has an output to send once more; None: there is none."""
        return min(self._again.values(), default=None)

    def settle(self, now: int) -> None:
        """Send outputs that have come; request a response once all calls of a response have one."""
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
                continue  # the response may still add calls
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
        self._orphans.remove(message.call_id)
        self._keep(message)
        sent = _SentOutput(message.item_id, message.name, message.output, message.respond)
        item_id = self._send(message.call_id, sent)
        if message.respond:
            ask = Ask(extra=self._extra([message.name]), tools="auto")
            self._context.responses.want(ask, [item_id])

    def _abandon(self, call_id: str, item_id: str) -> None:
        """Send an output for a call that never ran, so that no call is left without one.

        Neither the call nor the output is published.
        """
        if call_id and call_id not in self._context.done and call_id not in self._outputs:
            self._context.done[call_id] = True
            self._context.leave_out(item_id)
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
