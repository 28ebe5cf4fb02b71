"""What the model answers, as it comes: sound, text, items, and how it ends."""

from __future__ import annotations

from typing import Literal

from actors.realtime import wire
from actors.realtime.core import errors
from actors.realtime.core.calls import Calls
from actors.realtime.core.context import Context
from actors.realtime.core.duplex import Duplex
from actors.realtime.core.errors import Meaning
from actors.realtime.core.interruption import Interruption
from actors.realtime.core.playback import Spoken
from actors.realtime.core.responses import MARK, Active
from messages import (
    PCM_BYTES_PER_S,
    AssistantAudio,
    AssistantItem,
    AssistantTranscript,
    Notice,
    PlayedPosition,
    ResponseEnded,
    ResponseStarted,
)

__all__ = ["Answers", "retry_delay"]

_NS = 1_000_000_000
RATE_NS, TRANSIENT_NS = 3 * _NS, _NS // 2
_PIECE_BYTES = 5 * PCM_BYTES_PER_S
"""More than the service sends at once. A flush would wait behind longer ones."""
TEXT_STEP = 24
"""History is told of an item's text whenever it has grown by so many characters."""
_CUT_SHORT = {
    "max_output_tokens": "the answer ends here: it has reached max_output_tokens",
    "content_filter": "the answer ends here: the service's content filter has stopped it",
}
"""What the user is told of an answer that the server leaves incomplete, by its reason."""


def retry_delay(meaning: Meaning) -> int | None:
    """Return after how many ns what failed may be tried again; None: it need not be tried."""
    return {Meaning.RATE: RATE_NS, Meaning.TRANSIENT: TRANSIENT_NS}.get(meaning)


class Answers:
    """Passes answers on, and knows which turn has one."""

    def __init__(
        self,
        context: Context,
        interruption: Interruption,
        calls: Calls,
        duplex: Duplex,
    ) -> None:
        self._context = context
        self._interruption = interruption
        self._calls = calls
        self._duplex = duplex

    def created(self, event: wire.ResponseCreated, now: int) -> None:
        """Take note that an answer begins."""
        context, response_id = self._context, event.response.id
        mark = (event.response.metadata or {}).get(MARK)
        active = context.responses.created(response_id, mark, now)
        active.seen = tuple(turn.item_id for turn in context.saved.turns)
        context.publish(ResponseStarted(response_id))
        if active.cancelled:  # it was interrupted before it began
            self._interruption.cancel(response_id)
        context.activity.goes_on(now)

    def item_added(self, event: wire.OutputItemAdded, now: int) -> None:
        """Take note of a further item of an answer."""
        if event.item.type == "function_call":
            self._calls.begun(event.response_id, event.item)
        elif event.item.type == "message":
            self._item(event.item.id, event.response_id)

    def audio(self, event: wire.AudioDelta, now: int) -> bool:
        """Pass sound on to the speaker: all of it, at once, in pieces that can wait in the hub.

        Returns:
            Whether something begins with it. If not, the saved state changes only in how much of
            the item was received.
        """
        context = self._context
        item = self._item(event.item_id, event.response_id)
        begins = not (context.saved.spoken and item.goes_on())
        context.saved.spoken = True
        if event.response_id in context.playback.muted:
            if event.content_index not in item.dropped:
                item.dropped.append(event.content_index)
            return begins
        pcm, first = item.take(event.delta, event.content_index)
        if not pcm:
            return begins
        read_ns = max(now, context.flushed_ns)  # read before a flush, but not what it was about
        for start in range(0, len(pcm), _PIECE_BYTES):
            piece, at = pcm[start : start + _PIECE_BYTES], first + start // 2
            context.publish(
                AssistantAudio(
                    piece, event.item_id, event.response_id, at, False, read_ns, event.content_index
                )
            )
        context.playback.news(now)
        begins |= self._duplex.sounds(now)
        if first == 0:
            self._begin(item)
            self.answered(event.response_id, begun=True)
            context.activity.goes_on(now)
        return begins

    def audio_done(self, event: wire.AudioDone, now: int) -> None:
        """Tell the speaker that an item is complete."""
        item = self._context.playback.items.get(event.item_id)
        if item is not None:
            self._complete(item)

    def text(self, event: wire.TranscriptDelta | wire.TextDelta, now: int) -> None:
        """Tell what is being said."""
        context = self._context
        item = self._item(event.item_id, event.response_id)
        item.text += event.delta
        if isinstance(event, wire.TextDelta) and not item.written:
            item.written = True
            self.answered(event.response_id, begun=True)
        if event.response_id in context.playback.muted and not item.written:
            return
        self._begin(item)
        if len(item.text) >= item.reported + TEXT_STEP:
            self._report(item, "in_progress")
        context.publish(AssistantTranscript(item.item_id, event.delta))

    def text_done(self, event: wire.TranscriptDone | wire.TextDone, now: int) -> None:
        """Take the whole text, whatever its pieces were."""
        item = self._item(event.item_id, event.response_id)
        item.written = item.written or isinstance(event, wire.TextDone)
        text = event.text if isinstance(event, wire.TextDone) else event.transcript
        if not item.text.endswith(text):
            item.text = text

    def item_done(self, event: wire.OutputItemDone, now: int) -> None:
        """Give history the whole of an item that is final, or the tools a call."""
        item = event.item
        if item.type == "function_call":
            if self._calls.written(event.response_id, item, now):
                self.answered(event.response_id, call=True)
        elif item.type == "message":
            spoken = self._context.playback.items.get(item.id)
            if spoken is not None:
                self._end(spoken, "incomplete" if item.status == "incomplete" else "completed")
            self._context.responses.announces(
                event.response_id, announces=item.phase == "commentary"
            )

    def done(self, event: wire.ResponseDone, now: int) -> bool:
        """Record that an answer has ended, one way or another.

        Returns:
            Whether it has failed for good.
        """
        context, response = self._context, event.response
        status = response.status or "completed"
        active = context.responses.done(response.id)
        context.publish(_ended(response, status))
        details = response.status_details
        if status == "incomplete" and details is not None and details.reason in _CUT_SHORT:
            context.publish(Notice(_CUT_SHORT[details.reason]))
        for item in context.playback.items.values():
            if item.response_id == response.id and item.session:
                self._complete(item)
                self._end(item, "completed" if status == "completed" else "incomplete")
                if not item.begun:  # nothing came of it, and history knows nothing of it
                    context.leave_out(item.item_id)
        self._calls.response_done(response.id)
        self._interruption.cut(context.playback.cut_late(response.id))
        context.activity.goes_on(now)
        if status == "failed":
            return not self._retry(active, details.error if details else None, now)
        if not _by_speech(active, response):
            self._have_answer(active)
        return False

    def position(self, message: PlayedPosition, now: int) -> None:
        """Take note of what the speaker has played."""
        context = self._context
        known = context.playback.items.get(message.item_id)
        if known is None or message.played_samples > known.played:
            self._duplex.sounds(now)
        if context.playback.position(
            message.item_id, message.played_samples, message.finished, now
        ):
            context.activity.goes_on(now)

    def lost(self) -> None:
        """End what the lost connection has cut off; what came of it is played to its end."""
        context = self._context
        active = context.responses.active
        context.responses.lost()
        for item in context.playback.items.values():
            if not item.session:
                continue
            self._complete(item)
            self._end(item, "incomplete")
            item.session = 0
        if active is not None:
            context.publish(ResponseEnded(active.response_id, "failed", "the connection was lost"))

    def answered(self, response_id: str, *, begun: bool = False, call: bool = False) -> None:
        """Take note that what the user said has an answer, or at least the beginning of one."""
        self._have_answer(self._context.responses.says(response_id, begun=begun, call=call))

    def _have_answer(self, active: Active | None) -> None:
        """Take note that the turns have one, but for those that were said while it was given."""
        self._context.turns.answered(None if active is None else active.seen)

    def _retry(self, active: Active | None, error: wire.ErrorBody | None, now: int) -> bool:
        """Ask once more if that may help; what was heard in part is not said again.

        Returns:
            Whether it is asked for once more.
        """
        delay = retry_delay(errors.meaning(error))
        if delay is not None and active and not active.begun and not active.call:
            if self._context.responses.again(active.ask, now + delay):
                self._context.log("warning", "an answer failed", code=errors.code_of(error))
                return True
        self.answered("")
        return False

    def _item(self, item_id: str, response_id: str) -> Spoken:
        return self._context.playback.begin(item_id, response_id, self._context.session)

    def _begin(self, item: Spoken) -> None:
        if not item.begun:
            self._report(item, "in_progress")

    def _end(self, item: Spoken, status: Literal["completed", "incomplete"]) -> None:
        if not item.ended and (item.begun or item.text or item.received):
            item.ended = True
            self._report(item, status)

    def _report(
        self, item: Spoken, status: Literal["in_progress", "completed", "incomplete"]
    ) -> None:
        chain = self._context.chain
        if not item.begun or (item.session and item.item_id in chain):  # it may have moved
            item.begun = True
            item.previous_item_id = chain.previous(item.item_id)
        item.reported = len(item.text)
        self._context.publish(
            AssistantItem(
                item.item_id,
                item.previous_item_id,
                item.response_id,
                item.text,
                status,
                item.received,
            )
        )

    def _complete(self, item: Spoken) -> None:
        """Tell the speaker that no more of an item will come."""
        if item.complete:
            return
        item.complete = True
        if item.received and not item.over and item.response_id not in self._context.playback.muted:
            self._context.publish(
                AssistantAudio(b"", item.item_id, item.response_id, item.received, last=True)
            )


def _by_speech(active: Active | None, response: wire.Response) -> bool:
    """Tell whether the user has interrupted an answer: what was said before is still open."""
    if response.status != "cancelled":
        return False
    details = response.status_details
    by_server = details is None or details.reason == "turn_detected"
    return by_server or (active is not None and active.interrupted)


def _ended(response: wire.Response, status: str) -> ResponseEnded:
    details, usage = response.status_details, response.usage
    cached = usage.input_token_details if usage else None
    reason = ""
    if details is not None:
        reason = details.reason or errors.code_of(details.error)
    return ResponseEnded(
        response.id,
        status,
        reason,
        (usage.input_tokens if usage else None) or 0,
        (usage.output_tokens if usage else None) or 0,
        (cached.cached_tokens if cached else None) or 0,
    )
