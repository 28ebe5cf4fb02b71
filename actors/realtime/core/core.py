"""The protocol core, without socket, thread and clock: events and messages in, actions out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from actors.realtime import wire
from actors.realtime.core import session
from actors.realtime.core.actions import Action, Disconnect, Publish, SaveState
from actors.realtime.core.answers import Answers
from actors.realtime.core.calls import Calls
from actors.realtime.core.closing import Closing
from actors.realtime.core.consumption import Consumption
from actors.realtime.core.context import Context, LinkPhase
from actors.realtime.core.duplex import Duplex
from actors.realtime.core.interruption import Interruption
from actors.realtime.core.link import Link
from actors.realtime.core.responses import MARK
from actors.realtime.core.server_errors import ServerErrors
from actors.realtime.core.setup import Setup, within_limits
from actors.realtime.core.state import Ask, Audible, Saved, renewed
from actors.realtime.core.user import User
from messages import (
    CapturedAudio,
    CaptureEnded,
    CreateResponse,
    DeviceInUse,
    EchoState,
    EndConversation,
    HistorySnapshot,
    Interrupt,
    ItemPlaced,
    Message,
    Notice,
    OutputReplaced,
    PlaybackFlushed,
    PlaybackLost,
    PlayedPosition,
    ReplayedAudio,
    ReplayEnded,
    Say,
    SendImage,
    SendText,
    SentImage,
    ServerError,
    SessionInfo,
    SetSpeed,
    Settings,
    SpeedChanged,
    StartTalking,
    StopTalking,
    ToolAnswer,
    ToolCall,
    ToolsAvailable,
    UpdateSettings,
    WantWireEvents,
)
from messages.errors import InvalidSettingError
from messages.urls import shown

__all__ = ["Core"]

_NS = 1_000_000_000
_REMEMBERED = ("message", "function_call", "function_call_output")
"""Types of the items that history records. It has no others, such as ``mcp_call``."""
_ENCODER = msgspec.msgpack.Encoder()


class Core:
    """The decisions of the realtime component.

    Each call reports what happened and when (``now``: ``time.monotonic_ns()``). The core collects
    the actions that follow; the shell fetches them with `take` after each call. The core holds no
    reference to anything that can fail, so it stays usable after an exception in the shell.

    Its parts: `Link` (the session with the server), `User` (speech and typed turns), `Answers` (the
    model's responses), `Calls` (tools), `Interruption`, `Duplex`, `ServerErrors`, `Closing`,
    `Consumption` (tokens and budget). The `Context` is the state that they share.

    It is longer and has more attributes than other classes, as it puts all parts together: a line
    or two for each event and each message.
    """

    def __init__(
        self,
        settings: Settings,
        info: SessionInfo,
        saved: Saved | None = None,
        now: int = 0,
        outputs: Iterable[ToolAnswer | OutputReplaced] = (),
    ) -> None:
        """Begin, or go on where an earlier process has stopped.

        Args:
            settings: The settings of the session.
            info: What else is known of it.
            saved: The state that was saved last; None: there is none.
            now: The time.
            outputs: The outputs that earlier processes have kept (`KeepOutput`) or replaced.
        """
        self._reborn = not info.first
        self._resumed = info.resumed
        is_abandoned = bool(info.resumed) and saved is None
        if saved is None:
            speed = within_limits(settings.speed)
            goes_on = bool(info.resumed) or not info.first
            saved = Saved(speed=speed, greeted=goes_on, quiet_since_ns=now)
        elif info.resumed == "journal":
            saved = renewed(saved, now)
        server = shown(info.server_url or settings.server)
        setup = Setup(settings, saved)
        self._context = Context(setup, saved, server, now, info.epoch_ns)
        self._context.is_reborn = not info.first
        self._context.know_outputs(outputs)
        if info.resumed:
            self._context.resume("abandoned" if is_abandoned else info.resumed)
        self._duplex = Duplex(setup, saved, self._context.playback, info.epoch_ns)
        self._interruption = Interruption(self._context, now)
        self._calls = Calls(self._context)
        self._user = User(self._context, self._interruption, self._duplex, info.epoch_ns)
        self._answers = Answers(self._context, self._interruption, self._calls, self._duplex)
        self._link = Link(self._context, self._user, self._answers, self._calls, now)
        self._closing = Closing(self._context, self._user, self._calls, self._link)
        self._consumption = Consumption(self._context, self._closing)
        self._errors = ServerErrors(
            self._context, self._user, self._answers, self._calls, self._link
        )
        self._state = b""
        """The state of the last `SaveState`, encoded without what plays; empty: the next `take`
        saves it."""
        self._playing: list[Audible] = []
        """What played then."""
        self._is_unsaved = False
        """Whether a call of `take` has left the state to a later one."""
        self._is_plain = False
        """Whether the last call only passed on audio or text, or moved a position. The saved state
        may lag behind these."""
        self._on_event = self._event_table()
        self._on_message = self._message_table()

    @property
    def saved(self) -> Saved:
        """The state that is saved for the next process."""
        return self._context.saved

    @property
    def phase(self) -> LinkPhase:
        """The step that the session with the server has reached."""
        return self._context.phase

    @property
    def wire_events(self) -> frozenset[str]:
        """Names of the wire events that the program has subscribed to."""
        return self._context.setup.wire_events

    def take(self, *, saves: bool = True) -> Iterator[Action]:
        """Take the actions collected since the last call, in the order of performing them.

        If the state has changed, `SaveState` comes last, or before the first tool call. The state
        is compared after each call that does more than pass audio on, so that no part has to report
        its changes. That takes 0.1 ms, for which an interruption need not wait: it is done when the
        actions before it have been performed.

        Args:
            saves: Whether to save it now even if there is no call; else a later call of this does.
        """
        actions, is_plain = self._context.take(), self._is_plain and not self._is_unsaved
        self._is_plain = False
        return iter(actions) if is_plain else self._and_save(actions, saves=saves)

    def _and_save(self, actions: list[Action], *, saves: bool) -> Iterator[Action]:
        # Before a call is published: otherwise it could be run and then be unknown.
        calls = (place for place, action in enumerate(actions) if _is_call(action))
        first_call = next(calls, len(actions))
        yield from actions[:first_call]
        if saves or first_call < len(actions):
            yield from self._changed_state()
        self._is_unsaved = not saves
        yield from actions[first_call:]

    def _changed_state(self) -> Iterator[SaveState]:
        saved = self.saved
        saved.playing = []
        saved.owed = self._context.responses.still_owed()
        state, playing = _ENCODER.encode(saved), self._context.playback.audible()
        saved.playing = playing
        if state != self._state or playing != self._playing:
            save = SaveState(msgspec.Raw(_ENCODER.encode(saved)), recorded=state != self._state)
            self._state, self._playing = state, playing
            yield save

    def unsent(self) -> list[str]:
        """Return the item ids of typed turns that the server has not confirmed."""
        return [text.item_id for text in self.saved.texts]

    def ended(self) -> None:
        """Publish, as the session ends, how much of the current answer was heard."""
        self._interruption.by_the_end()

    # -- what happens -------------------------------------------------------------------------

    def opened(self, now: int) -> None:
        """Begin: request the history, and connect meanwhile."""
        if self._reborn:
            self._interruption.reborn(now)
        if self._resumed == "journal":
            self._calls.leave_unknown()
        self._consumption.resumed()
        self._link.open(now)

    def resumed(self, now: int) -> None:
        """Continue after an exception in the shell."""
        self._state = b""  # the last `SaveState` may not have been performed: save again
        self.tick(now)

    # What happens to the standby connection (``spare``) is passed to `Link.successor`.

    def connected(
        self,
        now: int,
        unix_ns: int | None = None,
        server_ns: int | None = None,
        *,
        spare: bool = False,
    ) -> None:
        """Record that the websocket is open.

        Args:
            now: The time.
            unix_ns: ``time.time_ns()``; None: unknown.
            server_ns: The same by the server's clock, in whole seconds; None: it sent no date.
            spare: Whether this is the websocket of the standby session.
        """
        if unix_ns is not None:
            self._link.clock.set(unix_ns, server_ns, now)
            self._consumption.today(unix_ns)
        if self._context.finished:
            self._context.do(Disconnect("the conversation is over", spare=spare))
        elif spare:
            self._link.successor.connected(now)
        else:
            self._link.connected(now)

    def connect_failed(
        self, status: int, code: str, text: str, now: int, *, spare: bool = False
    ) -> None:
        """Record that connecting failed, and why.

        Args:
            status: HTTP status of the response; 0: there was none.
            code: Code of the error in the response, or one of our own; empty: unknown.
            text: The reason, for people.
            now: The time.
            spare: Whether this is the websocket of the standby session.
        """
        if self._context.finished:
            return
        if spare:
            self._link.successor.lost(text, now)
        else:
            self._link.connect_failed(status, code, text, now)

    def lost(self, code: int, reason: str, now: int, *, spare: bool = False) -> None:
        """Record that the websocket has closed, with which close code and reason."""
        if self._context.finished:
            return
        if spare:
            self._link.successor.lost(f"it ended ({code} {reason})", now)
        elif self.phase is not LinkPhase.OFFLINE:
            self._link.lost(code, reason, now)

    def server_event(self, event: object, now: int, *, spare: bool = False) -> bool:
        """Handle an event of the server, as `wire.decode` returns it.

        Returns:
            Whether `tick` is to be called. What follows from the event itself should be performed
            before that: somebody may wait for it.
        """
        if type(event) is wire.PartialEvent:
            self._errors.left_out(event)
            event = event.event
        event = self._context.with_our_ids(event, spare=spare)
        if spare:
            self._link.successor.event(event, self._link.clock.expires_ns(event, now), now)
            return True
        if self.phase is LinkPhase.OFFLINE:
            return False
        active = self._context.responses.active
        if active is not None and active.response_id == getattr(event, "response_id", None):
            active.news_ns = now
        if type(event) is wire.AudioDelta:  # most events are audio
            self._is_plain = not self._answers.audio(event, now)
            return not self._is_plain
        if type(event) is wire.TranscriptDelta:  # and most of the others its text
            self._is_plain = not self._answers.text(event, now)
            return not self._is_plain
        act = self._on_event.get(type(event))
        if act is None:  # it is in `wire.IGNORED`, or unknown
            return False
        act(event, now)
        return True

    def can_take_ahead(self, message: Message) -> bool:
        """Return whether a message that has overtaken others can be handled before them.

        Sound cannot if some before it is still to come; it then comes again, in order.
        """
        return type(message) is not CapturedAudio or self._context.capture.continues(message)

    def message(self, message: Message, now: int) -> bool:
        """Handle a message of another component; returns what `server_event` returns."""
        if type(message) is CapturedAudio:  # most messages are audio
            self._is_plain = not self._captured(message, now)
        elif type(message) is PlayedPosition:  # and most of the others its position
            self._is_plain = not self._answers.position(message, now)
        else:
            self._on_message[type(message)](message, now)
        return not self._is_plain

    def _captured(self, message: CapturedAudio, now: int) -> bool:
        """Handle a captured block; return whether it decides anything."""
        if not self._context.capture.is_new(message):
            return False
        decides = self._user.hear(message.pcm, now)
        decides |= self._user.talking.is_busy  # the block may complete a push-to-talk turn
        self._user.hearing.captured(message, now)
        return decides or self.saved.input_end is not None

    def _flushed(self, message: PlaybackFlushed, now: int) -> None:
        """Take an answer to a flush, which may have overtaken the position before it.

        It may also name an item that was heard long ago, whose position is not news.
        """
        item = self._context.playback.items.get(message.item_id)
        if item is not None and not item.over and message.played_samples:
            position = (message.item_id, message.played_samples, message.at_ns)
            self._answers.position(PlayedPosition(*position), now)
        self._interruption.flushed(message, now)

    def image(self, message: SendImage, image: SentImage, now: int) -> None:
        """Handle an image of the program, which was written to a file; `tick` is to be called."""
        self._user.typed.shows(message, image, now)

    # -- as time goes by ----------------------------------------------------------------------

    def tick(self, now: int) -> None:
        """Do what is due, also because of what has just happened."""
        context = self._context
        if context.finished:
            return
        self._link.tick(now, self._closing.is_quiet)
        self._interruption.tick(now)
        self._user.tick(now)
        if context.capture.tick(now):
            context.log("warning", "the microphone has not replayed the audio in time")
        drained_at = context.playback.drained_at()
        if drained_at is not None and now >= drained_at:
            context.log("warning", "the speaker does not report what it has played")
            context.playback.give_up()
            context.activity.progress(now)
        self._duplex.tick(now)
        for happened in context.responses.tick(now):
            context.log("warning", happened)
        if context.responses.in_vain:
            context.responses.in_vain = False
            context.publish(ServerError("", "the server does not begin an answer"))
        if self.phase is LinkPhase.LIVE:
            self._link.configuration.follow()
            self._calls.settle(now)
            self._consumption.tick(now)
            self._ask(now)
        self._closing.tick(now)

    def next_deadline(self, now: int) -> int | None:
        """Return when `tick` must be called at the latest; None: only after the next event."""
        context = self._context
        if context.finished:
            return None
        times = [
            self._link.deadline(),
            context.playback.flush_by,
            self.saved.paused_by,
            context.playback.drained_at(),
            self._duplex.deadline(),
            context.responses.deadline(),
            context.capture.replay_by,
            self._calls.deadline(),
            *self._user.deadlines(),
            *self._closing.deadlines(now),
        ]
        return min((time for time in times if time is not None and time > now), default=None)

    def _ask(self, now: int) -> None:
        """Request a response, if one is owed, the flush is over and the user does not speak."""
        context = self._context
        if context.playback.flush_by is not None or self._user.is_speaking(now):
            return
        ask = context.responses.next_ask(now)
        if ask is not None:
            event_id = context.event_id("create")
            response = {"metadata": {MARK: event_id}, **self._overrides(ask)}
            context.send(wire.ResponseCreate(event_id, response))
            context.responses.sent(event_id, now)
            context.activity.progress(now)

    def _overrides(self, ask: Ask) -> dict[str, Any]:
        """Return the fields in which a response differs from the session's configuration."""
        settings = self._context.settings
        overrides: dict[str, Any] = {}
        if ask.tools and session.is_forced(settings):
            overrides["tool_choice"] = ask.tools
        own = ask.instructions
        if own is not None or ask.extra:
            parts = (settings.instructions if own is None else own, *ask.extra)
            overrides["instructions"] = "\n".join(part for part in parts if part)
        return overrides

    # -- events of the server -----------------------------------------------------------------

    def _event_table(self) -> dict[type, Callable[[Any, int], object]]:
        user, answers = self._user, self._answers
        return {
            wire.BadFrame: self._errors.bad_frame,
            wire.UnknownEvent: self._errors.unknown,
            wire.ErrorEvent: self._errors.refused,
            wire.SessionCreated: self._link.session_created,
            wire.SessionUpdated: self._link.session_updated,
            wire.ItemAdded: self._item,
            wire.ItemCreated: self._item,
            wire.ItemDone: self._item,
            wire.SpeechStarted: user.speech_started,
            wire.SpeechStopped: user.speech_stopped,
            wire.Committed: user.committed,
            wire.TimeoutTriggered: user.stayed_silent,
            wire.TranscriptionCompleted: user.transcribed,
            wire.TranscriptionDelta: user.heard_in_part,
            wire.TranscriptionFailed: user.not_transcribed,
            wire.ResponseCreated: answers.created,
            wire.ResponseDone: self._done,
            wire.OutputItemAdded: answers.item_added,
            wire.OutputItemDone: answers.item_done,
            wire.AudioDone: answers.audio_done,
            wire.TranscriptDone: answers.text_done,
            wire.TextDelta: answers.text,
            wire.TextDone: answers.text_done,
        }

    def _done(self, event: wire.ResponseDone, now: int) -> None:
        failed = self._answers.done(event, now)
        if event.response.usage is not None:
            self._consumption.add(event.response.id, event.response.usage.tokens())
        self._errors.answer_ended(event.response, now, failed=failed)

    def _item(self, event: wire.ItemAdded | wire.ItemCreated | wire.ItemDone, now: int) -> None:
        context, item = self._context, event.item
        known = item.id in context.chain
        placed = item.type == "function_call_output" and not known
        moved = context.chain.note(item.id, event.previous_item_id)
        if not known and item.type not in _REMEMBERED:
            context.leave_out(item.id)
        for item_id in [item.id] if placed else moved:
            if context.chain.is_left_out(item_id):
                continue
            known_as = context.chain.known_as(item_id)
            context.publish(ItemPlaced(known_as, context.chain.previous(item_id)))
        context.responses.seen(item.id)
        self._user.typed.confirmed(event.item.id)

    # -- messages of other components ---------------------------------------------------------

    def _message_table(self) -> dict[type[Message], Callable[[Any, int], None]]:
        return {
            ReplayedAudio: self._user.hearing.replayed,
            ReplayEnded: self._user.hearing.replay_ended,
            CaptureEnded: self._closing.capture_ended,
            PlaybackFlushed: self._flushed,
            PlaybackLost: self._interruption.lost,
            DeviceInUse: self._device_in_use,
            EchoState: self._echo_state,
            ToolAnswer: self._tool_answered,
            ToolsAvailable: self._tools,
            SetSpeed: self._set_speed,
            SendText: self._user.typed.types,
            StartTalking: self._user.talking.start,
            StopTalking: self._user.talking.stop,
            Say: self._say,
            Interrupt: self._interrupt,
            EndConversation: self._closing.end,
            CreateResponse: self._create_response,
            UpdateSettings: self._update_settings,
            WantWireEvents: self._want_wire_events,
            HistorySnapshot: self._snapshot,
        }

    def _snapshot(self, message: HistorySnapshot, now: int) -> None:
        self._link.snapshot(message, now, self._closing.is_quiet)

    def _interrupt(self, _: Interrupt, now: int) -> None:
        self._user.interrupted(now)

    def _device_in_use(self, message: DeviceInUse, now: int) -> None:
        if notice := self._duplex.device(message, now):
            self._context.publish(Notice(notice))

    def _echo_state(self, message: EchoState, now: int) -> None:
        self._context.setup.set_cancels_echo(message.state != "off")
        if notice := self._duplex.echo(message):
            self._context.publish(Notice(notice))

    def _tools(self, message: ToolsAvailable, now: int) -> None:
        self._context.setup.set_tools(message.tools)

    def _set_speed(self, message: SetSpeed, now: int) -> None:
        speed = self._context.setup.set_speed(message.speed)
        self._context.publish(SpeedChanged(speed))

    def _tool_answered(self, message: ToolAnswer, now: int) -> None:
        self._calls.answered(message, now)
        if self.phase is LinkPhase.LIVE:
            self._calls.settle(now)  # before all else that is due

    def _say(self, message: Say, now: int) -> None:
        # Added to the session's instructions, so that it can be joined with other owed responses.
        text = f'Say to the user now: "{message.text}". Call no tool for that.'
        self._context.responses.want(Ask(extra=(text,), tools="none", insists=True))

    def _create_response(self, message: CreateResponse, now: int) -> None:
        own = message.instructions
        self._context.responses.want(Ask(own, insists=own is not None))
        self._context.activity.touch(now)

    def _update_settings(self, message: UpdateSettings, now: int) -> None:
        context, old = self._context, self._context.settings
        try:
            context.setup.change(message.changes)
        except InvalidSettingError as error:
            context.publish(Notice(f"the settings stay as they are: {error}"))
            return
        if (old.turn_detection is None) != (context.settings.turn_detection is None):
            self._user.turn_detection_changed()
        context.activity.touch(now)

    def _want_wire_events(self, message: WantWireEvents, now: int) -> None:
        self._context.setup.want_wire_events(message.names)


def _is_call(action: Action) -> bool:
    return isinstance(action, Publish) and isinstance(action.message, ToolCall)
