"""Interruptions: the speaker first, then the server, history and the program."""

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
    ResumePlayback,
)

__all__ = ["PAUSE_NS", "Interruption"]

PAUSE_NS = 8_000_000_000
"""No pause is longer than this, whatever becomes of the decision it is for."""
ORPHAN_NS = 3_000_000_000
"""After a lost session or process, a pause waits so long for the new server to find the speech."""


class Interruption:
    """Ends what is being said, and sees that nobody believes it was heard.

    https://platform.openai.com/docs/guides/realtime-conversations#interruption-and-truncation
    """

    def __init__(self, context: Context, now: int = 0) -> None:
        self._context = context
        self._began_ns = now

    def by_speech(self, now: int) -> None:
        """Stop because the user speaks. In most sessions the server ends its answer by itself."""
        self._flush("the user speaks", now)
        responses = self._context.responses
        if responses.asked is not None:
            responses.asked.cancel = True
        if session.confirms(self._context.settings):
            response_id = responses.interrupt()
            if response_id is not None:
                self.cancel(response_id)

    def by_program(self, _: Interrupt | None, now: int) -> None:
        """Stop at the wish of the program."""
        self._flush("the program interrupts", now)
        context = self._context
        if context.responses.active is not None or context.responses.asked is not None:
            context.turns.withdraw()  # a new session is not asked for it either
        response_id = context.responses.cancel()
        if response_id is not None:
            self.cancel(response_id)

    def cancel(self, response_id: str) -> None:
        """Have the server end an answer."""
        context = self._context
        context.playback.mute([response_id])
        context.send(wire.Cancel(response_id, context.event_id("cancel")))

    def flushed(self, message: PlaybackFlushed, now: int) -> None:
        """Take note of where the speaker stopped."""
        playback = self._context.playback
        if 0 < message.flush_ns < self._began_ns:  # of a process that died before the answer
            earlier = [item for item in playback.queue() if not item.session]
            self.cut(playback.cut(earlier, message.item_id, message.played_samples))
            return
        self.cut(playback.flushed(message.item_id, message.played_samples, message.flush_ns))

    def tick(self, now: int) -> None:
        """Do without the speaker's answer, or without a decision, if it takes too long."""
        playback, paused_by = self._context.playback, self._context.saved.paused_by
        if playback.flush_by is not None and now >= playback.flush_by:
            self._context.log("debug", "the speaker has not said where it stopped")
            self.cut(playback.give_up_flushes())
        if paused_by is not None and now >= paused_by:
            self._context.log("debug", "a pause was not decided in time")
            self.resume(now)

    def by_the_end(self) -> None:
        """Stop because the session ends; what the speaker has told last is what was heard."""
        playback = self._context.playback
        cuts = playback.give_up_flushes()
        for cut in [*cuts, *playback.cut(playback.unflushed(), "", 0)]:
            self._tell_history(cut)

    def cut(self, cuts: Iterable[Cut]) -> None:
        """Tell everybody what was not heard."""
        context = self._context
        for cut in cuts:
            self._tell_history(cut)
            item = cut.item
            if not context.told:
                pass  # the new session is told what was heard
            elif item.session != context.session:
                self._tell_text(item)
            else:
                for truncation in cut.truncations:
                    event_id = context.event_id(f"truncate {item.item_id}")
                    context.send(wire.Truncate(item.item_id, *truncation, event_id))

    def _tell_history(self, cut: Cut) -> None:
        item = cut.item
        if cut.again:
            return
        item.text_heard = item.estimate_heard()
        if item.begun:
            heard_ms = item.heard() // SAMPLES_PER_MS
            self._context.publish(Interrupted(item.item_id, heard_ms, item.text_heard))

    def _tell_text(self, item: Spoken) -> None:
        """Tell what was heard of an item that this session knows as text, not as sound."""
        context, wire_id = self._context, restore.wire_id(item.item_id)
        if wire_id not in context.chain:
            return
        context.send(wire.ItemDelete(wire_id, context.event_id(f"delete {wire_id}")))
        if item.text_heard:
            again = restore.text_item(item.item_id, "assistant", item.text_heard)
            before = context.chain.before(wire_id) or "root"
            event_id = context.event_id(f"replay {wire_id}")
            context.send(wire.ItemCreate(again, event_id, before))

    # -- pausing ------------------------------------------------------------------------------

    def is_something_said(self) -> bool:
        """Tell whether there is something to interrupt: asked for, on its way or being played."""
        responses, playback = self._context.responses, self._context.playback
        active, asked = responses.active, responses.asked
        if active is not None and active.response_id not in playback.muted:
            return True
        return (asked is not None and not asked.cancel) or bool(playback.unflushed())

    def pause(self, now: int) -> None:
        """Be silent until it is decided whether this is an interruption."""
        context = self._context
        if context.saved.paused_by is None:
            context.publish(PausePlayback())
        self._pause_until(now + PAUSE_NS)

    def resume(self, now: int) -> None:
        """Go on: it was no interruption."""
        context = self._context
        if context.saved.paused_by is not None:
            context.saved.paused_by = None
            context.playback.resumed(now)
            context.publish(ResumePlayback())

    def orphaned(self, now: int) -> None:
        """Take note that who was to decide is gone: the session, or the process before this one."""
        if self._context.saved.paused_by is not None:
            self._pause_until(min(self._context.saved.paused_by, now + ORPHAN_NS))

    def reborn(self, now: int) -> None:
        """Begin in a new process: the speaker may be paused, whether that was saved or not."""
        if self._context.saved.paused_by is None:
            self._context.publish(ResumePlayback())
        self.orphaned(now)

    def _pause_until(self, paused_by: int) -> None:
        self._context.saved.paused_by = paused_by
        self._context.playback.news(paused_by)

    def _flush(self, reason: str, now: int) -> None:
        context = self._context
        playback, active = context.playback, context.responses.active
        items = playback.unflushed()
        if active is not None and active.response_id in playback.muted:
            active = None
        if active is None and not items:
            self.resume(now)
            return
        context.publish(FlushPlayback(reason, now))  # before everything else
        context.flushed_ns = now
        context.saved.paused_by = None
        if active is not None:
            playback.mute([active.response_id])
            items += [
                item
                for item in playback.items.values()
                if item.response_id == active.response_id and not item.received and item.begun
                if not item.written  # it goes on until the server ends it
            ]
        playback.flush(items, now)
        context.responses.drop_answer()
