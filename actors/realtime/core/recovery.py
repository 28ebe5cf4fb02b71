"""The recovery of the conversation in a new server session, and the repair of history."""

from __future__ import annotations

from typing import Any

from actors.realtime.core import restore, session
from actors.realtime.core.context import Context
from actors.realtime.core.playback import Spoken
from actors.realtime.core.user import User
from messages import (
    SAMPLE_RATE,
    AssistantItem,
    ConversationItem,
    HistoryRequest,
    HistorySnapshot,
    ItemPlaced,
    ItemRemoved,
    Notice,
    ReplayCapture,
)

__all__ = ["Recovery"]

_NS = 1_000_000_000
HISTORY_NS = 2 * _NS
"""Maximum wait for the history; after it, the session begins without."""
RECENT_NS = 1 * _NS
"""Maximum age of a request for the history that need not be repeated."""
REHEAR = SAMPLE_RATE
"""Samples that a standby session hears again when it is swapped in: speech may just have begun,
before the server has reported it."""


class Recovery:
    """Requests the history, plans from it how a new session continues, and executes the plan."""

    def __init__(self, context: Context, user: User) -> None:
        self._context = context
        self._user = user
        self._request_id = 0
        self._requested_ns = 0
        self.history: tuple[ConversationItem, ...] | None = None
        """The history; None: it has not come yet."""
        self.plan = restore.Plan()

    # -- the history --------------------------------------------------------------------------

    def request(self, now: int) -> None:
        """Request the history."""
        self.history = None
        self._request_id = self._context.request_id()
        self._requested_ns = now
        self._context.publish(HistoryRequest(self._request_id))

    def is_recent(self, now: int) -> bool:
        """Return whether the history was requested less than `RECENT_NS` ago."""
        return now - self._requested_ns <= RECENT_NS

    def take(self, message: HistorySnapshot) -> bool:
        """Store the history. Return False if it answers an earlier request."""
        if message.request_id != self._request_id:
            return False
        self.history = message.items
        return True

    def deadline(self) -> int:
        """Return when to continue without the history; 0: it is there."""
        return self._requested_ns + HISTORY_NS if self.history is None else 0

    def is_complete(self) -> bool:
        """Return whether the new session has the whole conversation."""
        return self.history is not None and not self.plan.missing

    # -- the plan -----------------------------------------------------------------------------

    def begin(self, otherwise: tuple[ConversationItem, ...] | None) -> None:
        """Make the plan.

        Args:
            otherwise: the history to use if none has come in time; None: there is no other.
        """
        if self.history is None:
            self._context.log("warning", "history has not answered; continuing with what is known")
            self.history = otherwise
        self.plan = self.plan_for(self.history or (), self._user.speech_from())
        self.plan.knows_history = self.history is not None

    def plan_for(
        self, history: tuple[ConversationItem, ...], speech_from: int | None = None
    ) -> restore.Plan:
        """Return how a new session continues.

        Args:
            history: the history, which may not have the latest items yet.
            speech_from: the sample at which speech began that is not a turn yet; None: none.
        """
        context = self._context
        heard = {
            item.item_id: item.text_heard
            for item in context.playback.items.values()
            if item.text_heard is not None
        }
        sound, since = self._user.hearing.remembered, context.capture.since
        asks = context.resumes and session.answers_each_turn(context.settings)
        known = restore.Known(context.outputs, heard, sound, since, asks)
        plan = restore.plan(history, context.saved, speech_from, known)
        context.turns.have_text(plan.transcribed)
        return plan

    # -- carrying it out ----------------------------------------------------------------------

    def send_items(self, known: list[dict[str, Any]]) -> None:
        """Publish the end of open items, and send the server the items that it lacks.

        Args:
            known: the items that the server has.
        """
        if self._context.resumes and self.plan.left_out:
            count = f"{self.plan.left_out} older items"
            text = f"The conversation is long: the model is not told its {count}."
            self._context.publish(Notice(text))
        self._repair_history()
        self._set_order()
        for event in restore.difference(known, self.plan.items, self._context.event_id):
            self._context.send(event)

    def hand_over(self, now: int, *, is_swapped: bool) -> None:
        """Let the new session, which is live, hear and answer what the plan says.

        Args:
            now: the time.
            is_swapped: whether it is a standby session: the one before has then heard all audio
                up to now, so that only the last second has to be heard again.
        """
        context, plan = self._context, self.plan
        if plan.given_up:
            context.publish(Notice(restore.GIVEN_UP))
        context.turns.restored(plan)
        heard_from = self._user.restored(plan, now)
        if heard_from is None:
            context.capture.idle()
        else:
            if is_swapped:
                heard_from = max(heard_from, context.capture.timeline.next_sample - REHEAR)
            self._hear_again(heard_from, now)
        if plan.ask is not None:
            context.responses.want(plan.ask)
        context.responses.drop_answer()

    def _repair_history(self) -> None:
        """Publish what history must drop, and transcripts and ends of items that cannot come."""
        # The new session makes new items of speech that it hears again.
        again = [turn.item_id for turn in self.plan.again]
        for item_id in again:
            self._context.publish(ItemRemoved(item_id, "this speech is sent to the server again"))
        known = {item.item_id for item in self.history or () if item.text}
        self._user.texts_lost({*again, *known}, self._awaited() - {*again})
        self._end_items()

    def _awaited(self) -> set[str]:
        """Return the ids of speech whose text history awaits, though the saved state lacks it.

        The process before this one has died after publishing the turn, before saving it.
        """
        if not self._context.is_reborn:
            return set()
        return {
            item.item_id
            for item in self.history or ()
            if item.kind == "message" and item.role == "user" and not item.transcribed
            if not item.text
        }

    def _end_items(self) -> None:
        """Publish the end of the assistant's items that the lost session has cut off."""
        before = None
        for item in self.history or ():
            known = self._context.playback.items.get(item.item_id)
            if known is not None and len(known.text) < len(item.text):
                known.text = item.text
            spoken = item.kind == "message" and item.role == "assistant"
            cut_off = spoken and not item.complete
            # An item that this process does not know was cut off with the process before it. That
            # has to be published only once: for the first session.
            # What was published before the supervisor died may be lost with it.
            is_lost = self._context.resumes or (known is not None and not known.ended)
            if cut_off and (is_lost or (known is None and self._context.session == 1)):
                self._end_item(known or Spoken(item.item_id, "", session=0), item.text, before)
            before = item.item_id

    def _end_item(self, item: Spoken, text: str, before: str | None) -> None:
        item.ended = True
        self._context.publish(
            AssistantItem(item.item_id, before, item.response_id, text, "incomplete", item.received)
        )

    def _set_order(self) -> None:
        """Start a new item order, and publish the place of items that history did not have."""
        context, plan = self._context, self.plan
        self._user.leave_out_doubts()
        context.chain.restart(plan.aliases)
        left_out = {turn.item_id for turn in plan.again}
        kept = [item.item_id for item in self.history or () if item.item_id not in left_out]
        for item in plan.items[: plan.remembered]:
            context.chain.note(item["id"])
        context.chain.join(kept[-1] if kept else None)
        for number, item in enumerate(plan.items):
            follows = number >= plan.remembered
            if follows:
                context.chain.note(item["id"])
            is_new_output = follows and item["type"] == "function_call_output"
            if is_new_output or item["id"] in plan.misplaced:  # history may have it elsewhere
                known_as = context.chain.known_as(item["id"])
                context.publish(ItemPlaced(known_as, context.chain.previous(item["id"])))
        if plan.knows_history:
            self._user.typed.place(kept)

    def _hear_again(self, from_sample: int, now: int) -> None:
        """Request a replay of the microphone, to be appended before live audio."""
        context, request_id = self._context, self._context.request_id()
        has_speech = self.plan.hears_speech
        context.capture.restart(from_sample, request_id, now, has_speech=has_speech)
        context.publish(ReplayCapture(from_sample, request_id))
