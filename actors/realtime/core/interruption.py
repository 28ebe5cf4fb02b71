"""Interruptions: flushing the speaker first, then informing server, history and program."""

from __future__ import annotations

from collections.abc import Iterable

from actors.realtime import wire
from actors.realtime.core import restore, session
from actors.realtime.core.context import Context
from actors.realtime.core.playback import Cut, Spoken
from actors.realtime.core.timeline import SAMPLES_PER_MS
from messages import (
    FlushPlayback,
    Interrupt,
    Interrupted,
    PausePlayback,
    PlaybackFlushed,
    PlaybackLost,
    ResumePlayback,
)

__all__ = ["PAUSE_NS", "Interruption"]

PAUSE_NS = 8_000_000_000
"""Maximum length of a pause: playback then resumes even if nothing was decided."""
ORPHAN_NS = 3_000_000_000
"""Maximum length of a pause after the session or process is lost. The new session is sent the
speech again, and needs this time to detect it."""


class Interruption:
    """Stops playback, and corrects the item at the server and in history to what was heard.

    https://platform.openai.com/docs/guides/realtime-conversations#interruption-and-truncation
    """

    def __init__(self, context: Context, now: int = 0) -> None:
        self._context = context
        self._began_ns = now
        self._to_replace: list[tuple[int, Spoken]] = []
        """Items, each with the session, that cannot be named at the server yet."""
        self._dated_ns = 0
        """Date of the last pause, resumption or flush."""

    def by_speech(self, now: int) -> None:
        """Interrupt because the user speaks.

        The server cancels its response itself, unless interruptions have to be confirmed.
        """
        self._flush("the user speaks", now)
        responses = self._context.responses
        if responses.asked is not None:
            responses.asked.cancel = True
        if session.confirms(self._context.settings):
            response_id = responses.interrupt()
            if response_id is not None:
                self.cancel(response_id)

    def by_program(self, _: Interrupt | None, now: int) -> None:
        """Interrupt because the program asks for it."""
        self._flush("the program interrupts", now)
        context = self._context
        if context.responses.active is not None or context.responses.asked is not None:
            context.turns.withdraw()  # so that a new session does not request it again
        response_id = context.responses.cancel()
        if response_id is not None:
            self.cancel(response_id)

    def cancel(self, response_id: str) -> None:
        """Cancel a response at the server, and drop audio that still arrives for it."""
        context = self._context
        context.playback.mute([response_id])
        context.send(wire.Cancel(response_id, context.event_id("cancel")))

    def flushed(self, message: PlaybackFlushed, now: int) -> None:
        """Cut off items where the speaker has stopped."""
        playback = self._context.playback
        if 0 < message.flush_ns < self._began_ns:  # answers a flush of the process before this one
            earlier = [item for item in playback.queue() if not item.session]
            self.cut(playback.cut(earlier, message.item_id, message.played_samples))
            return
        self.cut(playback.flushed(message.item_id, message.played_samples, message.flush_ns))

    def lost(self, message: PlaybackLost, now: int) -> None:
        """Cut off what the speaker had not played: it is lost. The answer is to be resumed."""
        context = self._context
        items = context.playback.queue()
        for item in items:
            item.length_known = True  # as far as it was saved; more was not heard either
        cuts = context.playback.cut(items, message.item_id, message.played_samples)
        self.cut(cuts)
        if cuts:
            context.responses.cut_off(cuts[-1].item.response_id)
            context.activity.progress(now)

    def tick(self, now: int) -> None:
        """Give up on an answer of the speaker, or on the decision about a pause, if overdue."""
        self._replace_texts()
        playback, paused_by = self._context.playback, self._context.saved.paused_by
        if playback.flush_by is not None and now >= playback.flush_by:
            self._context.log("debug", "the speaker has not reported where it stopped")
            self.cut(playback.give_up_flushes())
        if paused_by is not None and now >= paused_by:
            self._context.log("debug", "a pause has ended undecided; playback resumes")
            self.resume(now)

    def by_the_end(self) -> None:
        """Interrupt because the session ends; the positions reported last are what was heard."""
        playback = self._context.playback
        cuts = playback.give_up_flushes()
        for cut in [*cuts, *playback.cut(playback.unflushed(), "", 0)]:
            self._publish(cut)

    def cut(self, cuts: Iterable[Cut]) -> None:
        """Correct each item at the server, and publish what was heard of it.

        A new session will be sent the text that was heard.
        """
        context = self._context
        for cut in cuts:
            item = cut.item
            is_older = item.session != context.session
            if context.has_conversation and not is_older:
                for truncation in cut.truncations:  # first: somebody may wait for it
                    event_id = context.event_id(f"truncate {item.item_id}")
                    context.send(wire.Truncate(item.item_id, *truncation, event_id))
            self._publish(cut)
            if context.has_conversation and is_older:
                self._replace_text(item)

    def _publish(self, cut: Cut) -> None:
        item = cut.item
        if cut.again:
            return
        item.text_heard = item.estimate_heard()
        if item.begun:
            heard_ms = item.heard() // SAMPLES_PER_MS
            self._context.publish(Interrupted(item.item_id, heard_ms, item.text_heard))

    def _replace_text(self, item: Spoken) -> None:
        """Replace an item of an earlier session, which this session has as text, not as audio.

        Only audio can be truncated, so the item is deleted and created again, shortened.
        """
        context, wire_id = self._context, restore.wire_id(item.item_id)
        if wire_id not in context.chain:
            return
        if context.has_no_id(wire_id):
            self._to_replace.append((context.session, item))
            return
        context.send(wire.ItemDelete(wire_id, context.event_id(f"delete {wire_id}")))
        if item.text_heard:
            again = restore.text_item(item.item_id, "assistant", item.text_heard)
            before = context.chain.before(wire_id) or "root"
            event_id = context.event_id(f"replay {wire_id}")
            context.send(wire.ItemCreate(again, event_id, before))

    def _replace_texts(self) -> None:
        """Replace items whose ids were not known; a new session is sent what was heard of them."""
        waiting, self._to_replace = self._to_replace, []
        for number, item in waiting:
            if self._context.has_conversation and number == self._context.session:
                self._replace_text(item)

    # -- pausing ------------------------------------------------------------------------------

    def is_something_said(self) -> bool:
        """Return whether a response is requested, generated or played that can be interrupted."""
        responses, playback = self._context.responses, self._context.playback
        active, asked = responses.active, responses.asked
        if active is not None and active.response_id not in playback.muted:
            return True
        return (asked is not None and not asked.cancel) or bool(playback.unflushed())

    def pause(self, now: int) -> None:
        """Pause playback until it is decided whether this is an interruption."""
        context = self._context
        if context.saved.paused_by is None:
            context.publish(PausePlayback(self._date(now)))
        self._pause_until(now + PAUSE_NS)

    def resume(self, now: int) -> None:
        """Resume playback: it was a false interruption."""
        context = self._context
        if context.saved.paused_by is not None:
            context.saved.paused_by = None
            context.playback.resumed(now)
            context.publish(ResumePlayback(self._date(now)))

    def orphaned(self, now: int) -> None:
        """Shorten a pause, because the session or process that was to decide about it is lost."""
        if self._context.saved.paused_by is not None:
            self._pause_until(min(self._context.saved.paused_by, now + ORPHAN_NS))

    def reborn(self, now: int) -> None:
        """Begin in a new process, in place of one that has died."""
        # It may have died between pausing the speaker and saving that.
        if self._context.saved.paused_by is None:
            self._context.publish(ResumePlayback(self._date(now)))
        self.orphaned(now)

    def _date(self, now: int) -> int:
        """Return a date for the speaker that is later than those of all that it was sent before.

        Each message may overtake others, and events that were read at once have the same time.
        """
        self._dated_ns = max(now, self._dated_ns + 1, self._context.audio_ns + 1)
        return self._dated_ns

    def _pause_until(self, paused_by: int) -> None:
        self._context.saved.paused_by = paused_by
        self._context.playback.news(paused_by)  # or the silence of the pause counts as the end

    def _flush(self, reason: str, now: int) -> None:
        context = self._context
        playback, active = context.playback, context.responses.active
        items = playback.unflushed()
        if active is not None and active.response_id in playback.muted:
            active = None
        if active is None and not items:
            self.resume(now)
            return
        flushed_ns = self._date(now)
        context.publish(FlushPlayback(reason, flushed_ns))  # first: the user hears each ms of delay
        context.flushed_ns = flushed_ns
        context.saved.paused_by = None
        if active is not None:
            playback.mute([active.response_id])
            items += [
                item
                for item in playback.items.values()
                if item.response_id == active.response_id and not item.received and item.begun
                if not item.written  # text continues until the server ends the response
            ]
        playback.flush(items, flushed_ns)
        context.responses.drop_answer()
