"""Interruptions: the speaker first, then the server, history and the program."""

from __future__ import annotations

from collections.abc import Iterable

from actors.realtime import wire
from actors.realtime.context import Context
from actors.realtime.playback import Cut
from actors.realtime.timeline import SAMPLES_PER_MS
from messages import FlushPlayback, Interrupt, Interrupted, PlaybackFlushed

__all__ = ["Interruption"]


class Interruption:
    """Ends what is being said, and sees that nobody believes it was heard.

    https://platform.openai.com/docs/guides/realtime-conversations#interruption-and-truncation
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def by_speech(self, now: int) -> None:
        """Stop because the user speaks: the server ends its answer by itself then."""
        self._flush("the user speaks", now)
        asked = self._context.responses.asked
        if asked is not None:
            asked.cancel = True

    def by_program(self, _: Interrupt | None, now: int) -> None:
        """Stop at the wish of the program."""
        self._flush("the program interrupts", now)
        response_id = self._context.responses.cancel()
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
        if playback.flush_by is not None:
            self.cut(playback.flushed(message.item_id, message.played_samples))

    def tick(self, now: int) -> None:
        """Do without the speaker's answer if it takes too long."""
        playback = self._context.playback
        if playback.flush_by is not None and now >= playback.flush_by:
            self._context.log("debug", "the speaker has not said where it stopped")
            self.cut(playback.flushed("", 0))

    def cut(self, cuts: Iterable[Cut]) -> None:
        """Tell everybody what was not heard."""
        context = self._context
        for cut in cuts:
            item = cut.item
            if cut.truncation is not None and item.session == context.session and context.told:
                event_id = context.event_id(f"truncate {item.item_id}")
                context.send(wire.Truncate(item.item_id, *cut.truncation, event_id))
            if item.begun:
                heard_ms = item.heard() // SAMPLES_PER_MS
                context.publish(Interrupted(item.item_id, heard_ms, item.text_heard()))
        context.changed()

    def _flush(self, reason: str, now: int) -> None:
        context = self._context
        playback, active = context.playback, context.responses.active
        if active is None and not playback.queue():
            return
        context.publish(FlushPlayback(reason, now))  # before everything else
        context.flushed_ns = now
        if playback.flush_by is not None:
            self.cut(playback.flushed("", 0))
        unvoiced = []
        if active is not None:
            playback.mute([active.response_id])
            unvoiced = [
                item
                for item in playback.items.values()
                if item.response_id == active.response_id and not item.received and item.begun
            ]
        playback.flush(unvoiced, now)
        context.saved.answer = None
        context.changed()
