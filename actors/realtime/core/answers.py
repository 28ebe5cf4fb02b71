"""The model's responses as they arrive: audio, text, items, and how each response ends."""

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
    SAMPLE_RATE,
    AssistantAudio,
    AssistantItem,
    AssistantTranscript,
    Notice,
    PlayedPosition,
    ResponseEnded,
    ResponseStarted,
    Tokens,
)

__all__ = ["Answers", "retry_delay"]

_NS = 1_000_000_000
RATE_NS, TRANSIENT_NS = 3 * _NS, _NS // 2
"""Delay before a failed response is requested again: after a rate limit, after other errors."""
_SHORT = 300 * SAMPLE_RATE // 1000
"""With less than this many samples to play, the speaker waits for what comes."""
_PIECE_BYTES = 5 * PCM_BYTES_PER_S
"""Maximum audio per message: more than the service sends at once. A flush waits until the speaker
has taken the message in front of it, so messages must not be longer."""
TEXT_STEP = 24
"""The text of an item is published to history each time it has grown by this many characters."""
_CUT_SHORT = {
    "max_output_tokens": "the answer is cut off: it has reached max_output_tokens",
    "content_filter": "the answer is cut off: the service's content filter has stopped it",
}
"""Notices about responses that the server leaves incomplete, by the reason that it gives."""


def retry_delay(meaning: Meaning) -> int | None:
    """Return the delay in ns before a retry; None if a retry cannot help."""
    return {Meaning.RATE: RATE_NS, Meaning.TRANSIENT: TRANSIENT_NS}.get(meaning)


class Answers:
    """Passes responses on to speaker and history, and marks the turns that they answer."""

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
        """Record that a response has begun."""
        context, response_id = self._context, event.response.id
        mark = (event.response.metadata or {}).get(MARK)
        active = context.responses.created(response_id, mark, now)
        # A list first: for a generator, CPython allocates ten places and shortens the tuple. Each
        # of these adds to its free tuples of that length, until there are 2,000.
        active.seen = tuple([turn.item_id for turn in context.saved.turns])
        context.publish(ResponseStarted(response_id))
        if active.cancelled:  # interrupted while it had no id yet, which `Cancel` needs
            self._interruption.cancel(response_id)
        context.activity.progress(now)

    def item_added(self, event: wire.OutputItemAdded, now: int) -> None:
        """Record a new item of a response."""
        if event.item.type == "function_call":
            self._calls.begun(event.response_id, event.item)
        elif event.item.type == "message":
            self._item(event.item.id, event.response_id)

    def audio(self, event: wire.AudioDelta, now: int) -> bool:
        """Publish audio to the speaker as soon as it arrives, in pieces of limited length.

        Returns:
            Whether the saved state must be compared and saved now; if not, only the received length
            of the item has changed, which can be saved later.
        """
        context = self._context
        item = self._item(event.item_id, event.response_id)
        begins = not (context.saved.spoken and item.is_arriving())
        context.saved.spoken = True
        if event.response_id in context.playback.muted:
            if event.content_index not in item.dropped:
                item.dropped.append(event.content_index)
            return begins
        is_awaited = context.playback.is_awaited(item, _SHORT)
        pcm, first = item.take(event.delta, event.content_index)
        if not pcm:
            return begins
        # The event may have been read before the last flush, although it belongs to a later
        # response: dated before the flush, it would be discarded with what was flushed.
        context.audio_ns = read_ns = max(now, context.flushed_ns)
        for start in range(0, len(pcm), _PIECE_BYTES):
            piece, at = pcm[start : start + _PIECE_BYTES], first + start // 2
            context.publish(
                AssistantAudio(
                    piece, event.item_id, event.response_id, at, False, read_ns, event.content_index
                ),
                ahead=is_awaited and start == 0,
            )
        context.playback.news(now)
        begins |= self._duplex.sounds(now)
        if first == 0:
            self._begin(item)
            self.answered(event.response_id, begun=True)
            context.latency.received(event.response_id, now)
            context.activity.progress(now)
        return begins

    def audio_done(self, event: wire.AudioDone, now: int) -> None:
        """Tell the speaker that no more audio of an item follows."""
        item = self._context.playback.items.get(event.item_id)
        if item is not None:
            self._complete(item)

    def text(self, event: wire.TranscriptDelta | wire.TextDelta, now: int) -> bool:
        """Publish the next piece of an item's transcript or text.

        Returns:
            As for `audio`; if not, the item has only grown.
        """
        context = self._context
        item = self._item(event.item_id, event.response_id)
        item.text += event.delta
        if isinstance(event, wire.TextDelta) and not item.written:
            item.written = True
            self.answered(event.response_id, begun=True)
        # A muted response is no longer heard, so its transcript ends too. Text without audio has
        # been read as it arrived: it continues until the server ends the response.
        if event.response_id in context.playback.muted and not item.written:
            return True
        grows = item.begun and not item.written
        self._begin(item)
        if len(item.text) >= item.reported + TEXT_STEP:
            self._report(item, "in_progress")
            grows = False
        context.publish(AssistantTranscript(item.item_id, event.delta))
        return not grows

    def text_done(self, event: wire.TranscriptDone | wire.TextDone, now: int) -> None:
        """Take the final text of a content part; it replaces the pieces if they differ from it."""
        item = self._item(event.item_id, event.response_id)
        item.written = item.written or isinstance(event, wire.TextDone)
        text = event.text if isinstance(event, wire.TextDone) else event.transcript
        if text is not None and not item.text.endswith(text):
            item.text = text

    def item_done(self, event: wire.OutputItemDone, now: int) -> None:
        """Publish a final item: a message to history, a function call to the tools."""
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
        """Record that a response has ended, with whatever status.

        Returns:
            Whether the response has failed and is not requested again.
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
                if not item.begun:
                    # The item stayed empty and was never published. History must not link the
                    # next item to one that it does not have.
                    context.leave_out(item.item_id)
        self._calls.response_done(response.id)
        self._interruption.cut(context.playback.cut_late(response.id))
        context.activity.progress(now)
        if status == "failed":
            return not self._retry(active, details.error if details else None, now)
        if not _by_speech(active, response):
            self._have_answer(active)
        return False

    def position(self, message: PlayedPosition, now: int) -> bool:
        """Record what the speaker has played.

        Returns:
            As for `audio`; if not, the position in the item has only moved on.
        """
        context = self._context
        known = context.playback.items.get(message.item_id)
        moves = known is not None and not message.finished
        if known is not None and known.response_id and message.played_samples:
            ns = message.at_ns - message.played_samples * _NS // SAMPLE_RATE
            if started := context.latency.heard(message.item_id, known.response_id, ns):
                context.publish(started)
                moves = False
        if (known is None or message.played_samples > known.played) and self._duplex.sounds(now):
            moves = False
        if context.playback.position(
            message.item_id, message.played_samples, message.finished, now
        ):
            context.activity.progress(now)
        return not moves

    def lost(self) -> None:
        """End the items that the lost connection has cut off; received audio is still played."""
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
        """Record that a response answers the user: it has audio or text, or calls a tool."""
        self._have_answer(self._context.responses.says(response_id, begun=begun, call=call))

    def _have_answer(self, active: Active | None) -> None:
        """Mark the turns as answered that the response has seen; later turns stay open."""
        self._context.turns.answered(None if active is None else active.seen)

    def _retry(self, active: Active | None, error: wire.ErrorBody | None, now: int) -> bool:
        """Request a failed response again if that can help.

        Not if the user has heard the beginning or a tool was called: both would happen twice.

        Returns:
            Whether the response is requested again.
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
        # The server may have moved the item since. An item of a lost session keeps its place: the
        # new session knows nothing of it.
        if not item.begun or (item.session and item.item_id in chain):
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
        """Tell the speaker, once, that no more audio of an item follows."""
        if item.complete:
            return
        item.complete = True
        if item.received and not item.over and item.response_id not in self._context.playback.muted:
            context = self._context
            context.audio_ns = sent_ns = max(context.audio_ns, context.flushed_ns)
            context.publish(
                AssistantAudio(b"", item.item_id, item.response_id, item.received, True, sent_ns)
            )


def _by_speech(active: Active | None, response: wire.Response) -> bool:
    """Return whether a response was cancelled because the user spoke.

    The turns before it then stay open: the next response has to answer them too.
    """
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
        usage.tokens() if usage else Tokens(),
    )
