"""The conversation with the server, without socket, thread and clock: events in, actions out."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any, ClassVar, Literal

import msgspec

from actors.realtime import closing, errors, restore, session, wire
from actors.realtime.actions import (
    Action,
    ConnectAfter,
    Disconnect,
    Log,
    Publish,
    SaveState,
    SendEvent,
)
from actors.realtime.capture import Capture
from actors.realtime.errors import Meaning
from actors.realtime.playback import Cut, Playback, Spoken
from actors.realtime.responses import Active, Responses
from actors.realtime.state import Answer, Ask, Call, Ending, InputEnd, Saved, Text, Turn
from actors.realtime.timeline import SAMPLES_PER_MS
from messages import (
    AssistantAudio,
    AssistantItem,
    AssistantTranscript,
    CapturedAudio,
    CaptureEnded,
    ConversationItem,
    ConversationOver,
    EndConversation,
    FatalError,
    FlushPlayback,
    HistoryRequest,
    HistorySnapshot,
    Interrupt,
    Interrupted,
    ItemRemoved,
    Message,
    Notice,
    PlaybackFlushed,
    PlayedPosition,
    Reconnected,
    ReplayCapture,
    ReplayedAudio,
    ReplayEnded,
    ResponseEnded,
    ResponseStarted,
    SendText,
    ServerError,
    SessionInfo,
    SetSpeed,
    Settings,
    SpeedChanged,
    ToolAnswer,
    ToolCall,
    ToolsAvailable,
    UserItem,
    UserSpeechStarted,
    UserSpeechStopped,
    UserTranscript,
)

__all__ = ["Core", "Phase"]

_NS = 1_000_000_000
_MS = 1_000_000
HISTORY_NS = 2 * _NS
"""How long the history is waited for; then it goes on without."""
TOOLS_NS = 1 * _NS
"""How long the first tools are waited for."""
HANDSHAKE_NS = 10 * _NS
"""How long ``session.created`` and ``session.updated`` may take."""
SESSION_NS = 50 * 60 * _NS
"""The server ends a session after 60 minutes; from here on a quiet moment is used to renew it."""
STEADY_NS = 10 * _NS
"""A connection that has lived so long was a good one: the next back-off starts anew."""
BACKOFF_S = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)
COMMIT_NS = 2 * _NS
"""After speech has stopped, it is committed within this time."""
SPEECH_DUE_NS = 3 * _NS
"""Speech that is sent again is answered first, if it is found within this time."""
STILL_NS = 3 * _NS
"""Without sound for so long, speech that has begun is not waited for."""
TRANSCRIPT_NS = 5 * _NS
"""The end of the conversation waits so long for the text of speech."""
RATE_NS, TRANSIENT_NS = 3 * _NS, _NS // 2
SAME_ERROR_NS = 5 * _NS
"""The same error is told to the program at most once in this time."""
TEXT_STEP = 80
"""History is told of an item's text whenever it has grown by so many characters."""
_REMEMBERED = 1000
_SEEN_TEXTS = 20


class Phase(IntEnum):
    """How far the connection is."""

    OFFLINE = 0
    CONNECTED = 1
    """``session.created`` is awaited."""
    CREATED = 2
    """History and tools are awaited."""
    CONFIGURING = 3
    """The server has been told everything; ``session.updated`` is awaited."""
    LIVE = 4


class _Speech(msgspec.Struct):
    item_id: str
    first_sample: int
    last_sample: int = 0
    stopped_ns: int | None = None


class _Recent(collections.OrderedDict[str, Any]):
    """A dictionary of the newest entries."""

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        if len(self) > _REMEMBERED:
            self.popitem(last=False)


class Core:
    """Everything the realtime component decides.

    Told what happens and when (``now``: ``time.monotonic_ns()``), it collects actions, which `take`
    hands over. It keeps no reference to anything that could fail, so after a raise elsewhere it
    goes on as it is.
    """

    def __init__(
        self, settings: Settings, info: SessionInfo, saved: Saved | None = None, now: int = 0
    ) -> None:
        self.settings = settings
        if saved is None:
            saved = Saved(
                speed=_clamp_speed(settings.speed), greeted=not info.first, quiet_since_ns=now
            )
        self.saved = saved
        self.phase = Phase.OFFLINE
        self._server = _server_name(settings, info)
        self._actions: list[Action] = []
        self._dirty = False
        self._finished = False
        """The conversation is over, or cannot go on."""
        self._numbers = 0

        self._responses = Responses(saved.owed)
        self._playback = Playback(saved.playing, now)
        self._capture = Capture()
        self._speech: _Speech | None = None
        self._speech_due_by = 0
        """Until when speech that is sent again is expected to be found."""

        self._session = 0
        """Number of the session with the server."""
        self._opened_ns = now
        self._outage_ns = now
        self._outage_cause = "realtime was started again" if saved.connected else ""
        self._outage_told = False
        self._failures = 0
        self._created_ns = 0
        self._live_ns: int | None = None
        self._phase_by = 0
        self._request_id = now // _MS
        self._requested_ns = 0
        self._history: tuple[ConversationItem, ...] | None = None
        self._plan = restore.Plan()
        self._refusals = 0

        self._told_tools: object = None
        self._told_speed = 0.0
        self._intents = _Recent()
        """What our events were for, by event_id."""
        self._before = _Recent()
        """The item before each item that the server knows."""
        self._tail: str | None = None
        self._root: str | None = None
        """The last item of the history at the time of the replay."""
        self._aliases = _Recent()
        """Items that history knows by another id, or that stand for the one before them."""
        self._heard = _Recent()
        """Speech whose text has been told, and calls that have been run."""
        self._half_calls: dict[str, tuple[str, str, str]] = {}
        """Calls that are not complete: item id to (response_id, call_id, name)."""
        self._orphans: set[str] = set()
        """Calls of the history that have no output and that we do not wait for."""
        self._early = _Recent()
        """Answers that came before the history, of calls that we do not know."""
        self._outputs: set[str] = set()
        """Calls whose output this session with the server has."""
        self._errors = _Recent()
        self._committed_ns = 0

    # -- for the shell ------------------------------------------------------------------------

    def take(self) -> list[Action]:
        """Return the actions collected since the last call."""
        if self._dirty:
            self._dirty = False
            self.saved.playing = self._playback.audible()
            self._actions.append(SaveState())
        actions, self._actions = self._actions, []
        return actions

    def opened(self, now: int) -> None:
        """Begin: ask for the history, and connect meanwhile."""
        for was in self.saved.playing:
            if not was.complete:  # no more of it will come
                self._publish(_last_of(was.item_id, was.response_id, was.samples))
        self._seek(0.0, self._outage_cause, now)

    def connected(self, now: int) -> None:
        """Take note that the websocket is open."""
        if self._finished:
            self._emit(Disconnect("the conversation is over"))
            return
        self.phase = Phase.CONNECTED
        self._phase_by = now + HANDSHAKE_NS
        if now - self._requested_ns > _NS:  # what it says may be old
            self._request_history(now)

    def connect_failed(self, status: int, code: str, text: str, now: int) -> None:
        """Take note that there is no connection, and why (``status`` of HTTP, or 0)."""
        if self._finished:
            return
        fatal = errors.handshake_is_fatal(status, code, text)
        if fatal is not None:
            self._fail(errors.why_fatal(fatal, self.settings.model))
            return
        if not self._outage_told:
            self._outage_told = True
            self._publish(Notice(f"cannot reach {self._server}: {text}; trying again"))
        self._connect_again(text, now)

    def lost(self, code: int, reason: str, now: int) -> None:
        """Take note that the connection has ended."""
        if self.phase is Phase.OFFLINE:
            return
        if self._finished:
            self.phase = Phase.OFFLINE
            return
        meant, name = errors.close_meaning(code, reason)
        if meant is Meaning.FATAL:
            self._fail(errors.why_fatal(name, self.settings.model))
            return
        self._lose(f"the connection ended ({code}{': ' + reason if reason else ''})", now)
        self._connect_again(self._outage_cause, now)

    def server_event(self, event: object, now: int) -> None:
        """Act on an event of the server (what `wire.decode` returns)."""
        if self.phase is Phase.OFFLINE:
            return
        response_id = getattr(event, "response_id", None)
        active = self._responses.active
        if active is not None and active.response_id == response_id:
            active.news_ns = now
        if type(event) is wire.AudioDelta:
            self._audio(event, now)
            return
        on_event = self._on_event.get(type(event))
        if on_event is None:
            return  # unknown events are harmless
        on_event(self, event, now)
        self.tick(now)

    def message(self, message: Message, now: int) -> None:
        """Act on a message from another component."""
        if type(message) is CapturedAudio:
            if self.phase is Phase.LIVE:
                self._append(self._capture.live(message, now))
            if self.saved.input_end is None:
                return
        else:
            self._on_message[type(message)](self, message, now)
        self.tick(now)

    def tick(self, now: int) -> None:
        """Do what is due. Every event and message but sound does this too."""
        self._tick_connection(now)
        if self._playback.flush_by is not None and now >= self._playback.flush_by:
            self._log("debug", "the speaker has not said where it stopped")
            self._cut(self._playback.flushed("", 0))
        speech = self._speech
        if speech and speech.stopped_ns is not None and now >= speech.stopped_ns + COMMIT_NS:
            self._speech = None
        drained_at = self._playback.drained_at()
        if drained_at is not None and now >= drained_at:
            self._log("warning", "the speaker does not say what it has played")
            self._playback.give_up()
            self._touch(now)
        for happened in self._responses.tick(now):
            self._log("warning", happened)
            if happened == "the server does not answer":
                self._publish(ServerError("", "the server does not answer response.create"))
        if self.phase is Phase.LIVE:
            self._tick_live(now)
        self._note_owed()
        self._check_over(now)

    def next_deadline(self, now: int) -> int | None:
        """Return when `tick` has to be called at the latest; None: not before something happens."""
        if self._finished:
            return None
        times: list[int | None] = [self._phase_deadline(), self._playback.flush_by]
        if self._speech is not None:
            if self._speech.stopped_ns is not None:
                times.append(self._speech.stopped_ns + COMMIT_NS)
            if self._responses.owed is not None:
                times.append(self._capture.appended_ns + STILL_NS)
        times += (self._playback.drained_at(), self._responses.deadline(), self._speech_due_by)
        facts = self._facts(now)
        times += closing.deadlines(self.saved, self.settings, facts)
        if self.saved.untranscribed:
            times.append(self._committed_ns + TRANSCRIPT_NS)
        return min((time for time in times if time is not None and time > now), default=None)

    # -- connecting ---------------------------------------------------------------------------

    def _seek(self, seconds: float, reason: str, now: int) -> None:
        self.phase = Phase.OFFLINE
        self._request_history(now)
        self._emit(ConnectAfter(seconds, reason))

    def _request_history(self, now: int) -> None:
        self._history = None
        self._request_id += 1
        self._requested_ns = now
        self._publish(HistoryRequest(self._request_id))

    def _connect_again(self, reason: str, now: int) -> None:
        delay = BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
        self._failures += 1
        jitter = 0.75 + now // 1000 % 1000 / 2000  # the clock's last digits are random enough
        self._seek(delay * jitter, reason, now)

    def _phase_deadline(self) -> int | None:
        match self.phase:
            case Phase.CONNECTED | Phase.CONFIGURING:
                return self._phase_by
            case Phase.CREATED:
                history = self._requested_ns + HISTORY_NS if self._history is None else 0
                tools = self._opened_ns + TOOLS_NS if self.saved.tools is None else 0
                return max(history, tools)
            case Phase.LIVE:
                renew = self._created_ns + SESSION_NS
                by = self._capture.replay_by
                return renew if by is None else min(by, renew)
            case _:
                return None

    def _tick_connection(self, now: int) -> None:
        if self.phase is Phase.CONNECTED and now >= self._phase_by:
            self._renew("the server did not begin the session", now)
        elif self.phase is Phase.CREATED:
            due = self._phase_deadline()
            if due is not None and now >= due:
                self._configure(now)
        elif self.phase is Phase.CONFIGURING and now >= self._phase_by:
            self._log("warning", "the server has not confirmed the session's configuration")
            self._go_live(now)
        elif self.phase is Phase.LIVE:
            if self._capture.tick(now):
                self._log("warning", "the microphone did not send again what it had captured")
            if now >= self._created_ns + SESSION_NS and self._is_quiet(now):
                self._failures = 0
                self._renew("the server ends sessions after 60 minutes", now)

    def _renew(self, reason: str, now: int) -> None:
        self._emit(Disconnect(reason))
        self._lose(reason, now)
        self._connect_again(reason, now)

    def _fail(self, reason: str) -> None:
        self._finished = True
        self.phase = Phase.OFFLINE
        self._emit(Disconnect(reason))
        self._publish(FatalError(reason))

    def _on_session_created(self, _: wire.SessionCreated, now: int) -> None:
        if self.phase is Phase.CONNECTED:
            self.phase = Phase.CREATED
            self._created_ns = now

    def _configure(self, now: int) -> None:
        """Tell a new session everything: it is one ordered stream, nothing is waited for."""
        if self._history is None:
            self._log("warning", "the history has not answered; going on without it")
        self._session += 1
        self._plan = restore.plan(self._history or (), self.saved, self._speech_lost())
        self._speech = None
        self._refusals = 0
        self._told_tools, self._told_speed = self.saved.tools, self.saved.speed
        self._update(
            session.configuration(self.settings, self.saved.speed, self.saved.tools or ()),
            "configure",
        )
        self._repair_history()
        self._replay_items()
        self.phase = Phase.CONFIGURING
        self._phase_by = now + HANDSHAKE_NS

    def _speech_lost(self) -> int | None:
        return self._speech.first_sample if self._speech else None

    def _repair_history(self) -> None:
        """Tell history how things that the lost connection left open have ended."""
        saved, plan = self.saved, self._plan
        again = {turn.item_id for turn in plan.again}
        for item_id in again:
            self._publish(ItemRemoved(item_id, "the server is sent this speech again"))
        for item_id in saved.untranscribed:
            if item_id not in again:
                self._publish(UserTranscript(item_id, "", "the connection was lost"))
        if plan.given_up:
            self._publish(Notice("what was said last could not be answered, please say it again"))
        before = None
        for item in self._history or ():
            known = self._playback.items.get(item.item_id)
            if known is not None and not known.text:
                known.text = item.text
            if item.kind == "message" and item.role == "assistant" and not item.complete:
                if not known.ended if known else self._session == 1:
                    lost = known or Spoken(item.item_id, "", session=0)
                    lost.ended = True
                    self._publish(
                        AssistantItem(
                            item.item_id,
                            before,
                            lost.response_id,
                            item.text,
                            "incomplete",
                            lost.received,
                        )
                    )
            before = item.item_id
        saved.untranscribed = []
        saved.turns = [
            turn for turn in saved.turns if turn not in plan.again and turn not in plan.given_up
        ]
        if again or plan.given_up:
            saved.repeats = saved.repeats + 1 if again else 0
        saved.safe_sample = max(saved.safe_sample, plan.from_sample)
        self._dirty = True

    def _replay_items(self) -> None:
        self._before.clear()
        self._tail = None
        self._aliases.clear()
        self._aliases.update(self._plan.aliases)
        self._outputs = set(self._plan.answered)
        open_calls = {call.call_id for call in self.saved.calls}
        self._orphans = self._plan.open - open_calls
        self._half_calls.clear()
        for call in self.saved.calls:
            output = self._plan.answered.get(call.call_id)
            if call.output is None and output is not None:
                call.output = output
        for item in self._plan.items:
            self._send(wire.ItemCreate(item, self._event_id(f"replay {item.get('id')}")))
            if "id" in item:
                self._note_item(item["id"], self._tail)
        self._join_history()
        for message in list(self._early.values()):
            self._on_orphan(message)
        self._early.clear()

    def _join_history(self) -> None:
        """What was not replayed still comes before what follows, for history."""
        left_out = {turn.item_id for turn in self._plan.again}
        kept = [item.item_id for item in self._history or () if item.item_id not in left_out]
        self._root = kept[-1] if kept else None
        if kept and self._tail is not None and self._known(self._tail) != kept[-1]:
            self._aliases[self._tail] = kept[-1]

    def _on_session_updated(self, _: wire.SessionUpdated, now: int) -> None:
        if self.phase is Phase.CONFIGURING:
            self._go_live(now)

    def _go_live(self, now: int) -> None:
        self.phase = Phase.LIVE
        self._live_ns = now
        self._tell_reconnected(now)
        self._request_id += 1
        self._capture.restart(self._plan.from_sample, self._request_id, now)
        self._publish(ReplayCapture(self._plan.from_sample, self._request_id))
        self._speech_due_by = now + SPEECH_DUE_NS if self._plan.hears_speech else 0
        if self._plan.ask is not None:
            self._responses.want(self._plan.ask)
        self.saved.answer = None
        if not self.saved.greeted and self.settings.greeting:
            greeting = self.settings.greeting
            self._responses.want(Ask(f"Say exactly this, and nothing else: {greeting}"))
        self.saved.greeted = self.saved.connected = True
        self._dirty = True

    def _tell_reconnected(self, now: int) -> None:
        gap_ms = (now - self._outage_ns) // _MS
        if self.saved.connected:
            restored, count = self._history is not None, len(self._plan.items)
            self._publish(Reconnected(restored, count, gap_ms, self._outage_cause))
            self.saved.quiet_since_ns = min(now, self.saved.quiet_since_ns + now - self._outage_ns)
        else:
            self.saved.quiet_since_ns = now
            if self._outage_told:
                self._publish(Notice(f"connected to {self._server}"))
        self._outage_told = False

    def _lose(self, cause: str, now: int) -> None:
        """Settle what belonged to the connection that is gone."""
        was_live, self._live_ns = self._live_ns, None
        if was_live is not None:
            self._outage_ns, self._outage_cause = now, cause
            if now - was_live >= STEADY_NS:
                self._failures = 0
        active = self._responses.active
        self._responses.lost()
        for item in self._playback.items.values():
            if item.session and not item.complete:
                item.complete = True
                if item.received and not item.over:
                    self._publish(_last_of(item.item_id, item.response_id, item.received))
            if item.session and not item.ended:
                self._end_item(item, "incomplete")
            item.session = 0
        if active is not None:
            self._publish(ResponseEnded(active.response_id, "failed", "the connection was lost"))
        self._dirty = True

    # -- while there is a session -------------------------------------------------------------

    def _tick_live(self, now: int) -> None:
        responses = self._responses
        if self._told_speed != self.saved.speed and not (responses.active or responses.asked):
            self._told_speed = self.saved.speed
            self._update(session.speed_update(self.saved.speed), "speed")
        if self._told_tools != self.saved.tools:
            self._told_tools = self.saved.tools
            self._update(session.tools_update(self.saved.tools or ()), "tools")
        self._settle_calls()
        if self._playback.flush_by is not None or self._is_speaking(now):
            return
        if now < self._speech_due_by:
            return
        ask = responses.next_ask(now)
        if ask is not None:
            event_id = self._event_id("create")
            self._send(wire.ResponseCreate(event_id, self._overrides(ask)))
            responses.sent(event_id, now)
            self._touch(now)

    def _overrides(self, ask: Ask) -> dict[str, Any] | None:
        if ask.instructions is not None:
            return {"instructions": ask.instructions}
        if not ask.extra:
            return None
        parts = (self.settings.instructions, *ask.extra)
        return {"instructions": "\n".join(part for part in parts if part)}

    def _is_speaking(self, now: int) -> bool:
        """Tell whether speech is under way, which the server answers by itself."""
        return self._speech is not None and now < self._capture.appended_ns + STILL_NS

    def _append(self, pcm: bytes | None) -> None:
        if pcm:
            self._actions.append(SendEvent(wire.Append(pcm)))

    def _update(self, changes: dict[str, Any], intent: str) -> None:
        event_id = self._event_id(intent)
        self._intents[event_id] = (intent, changes)
        self._send(wire.SessionUpdate(changes, event_id))

    def _event_id(self, intent: str) -> str:
        self._numbers += 1
        event_id = f"rtvoice_{self._session}_{self._numbers}"
        self._intents[event_id] = (intent, None)
        return event_id

    def _note_item(self, item_id: str, previous: str | None) -> None:
        """Take note of where an item stands in the conversation."""
        if item_id in self._before or not item_id:
            return
        self._before[item_id] = previous or self._tail
        self._tail = item_id

    def _known(self, item_id: str | None) -> str | None:
        """Return the id by which history knows an item of the server's conversation."""
        for _ in range(len(self._aliases) + 1):
            if item_id is None or item_id not in self._aliases:
                break
            item_id = self._aliases[item_id]
        return item_id or self._root

    def _previous(self, item_id: str) -> str | None:
        before = self._before.get(item_id, self._tail if self._tail != item_id else None)
        return self._known(before)

    def _on_item(self, event: wire.ItemAdded | wire.ItemCreated | wire.ItemDone, now: int) -> None:
        item_id = event.item.id
        self._note_item(item_id, event.previous_item_id)
        self._responses.seen(item_id)
        if self.saved.texts and any(text.item_id == item_id for text in self.saved.texts):
            self.saved.texts = [text for text in self.saved.texts if text.item_id != item_id]
            self._dirty = True

    # -- what the user says -------------------------------------------------------------------

    def _on_speech_started(self, event: wire.SpeechStarted, now: int) -> None:
        self._interrupt("the user speaks", now)
        if self._responses.asked is not None:
            self._responses.asked.cancel = True
        first = self._capture.timeline.session_sample(event.audio_start_ms)
        self._speech = _Speech(event.item_id, first)
        self._speech_due_by = 0
        self._publish(UserSpeechStarted(event.item_id, first))
        self._touch(now)

    def _on_speech_stopped(self, event: wire.SpeechStopped, now: int) -> None:
        last = self._capture.timeline.session_sample(event.audio_end_ms)
        if self._speech is None or self._speech.item_id != event.item_id:
            self._speech = _Speech(event.item_id, last)
        self._speech.last_sample, self._speech.stopped_ns = last, now
        self._publish(UserSpeechStopped(event.item_id, last))
        self._touch(now)

    def _on_committed(self, event: wire.Committed, now: int) -> None:
        end = self._capture.timeline.next_sample
        speech = self._speech
        if speech is None or speech.item_id != event.item_id:
            speech = _Speech(event.item_id, end, end)
        else:
            self._speech = None
        self._note_item(event.item_id, event.previous_item_id)
        expected = self.settings.transcription_model is not None
        last = speech.last_sample or end
        self._publish(
            UserItem(
                event.item_id,
                self._previous(event.item_id),
                "",
                True,
                expected,
                speech.first_sample,
                last,
            )
        )
        if expected and event.item_id not in self._heard:
            self.saved.untranscribed.append(event.item_id)
        self.saved.turns.append(Turn(event.item_id, True, speech.first_sample, last))
        self._responses.expect(now)
        self._committed_ns = now
        self._touch(now)
        self._dirty = True

    def _on_transcript(self, event: wire.TranscriptionCompleted, now: int) -> None:
        self._transcribed(UserTranscript(event.item_id, event.transcript))
        for turn in self.saved.turns:
            if turn.item_id == event.item_id:
                turn.transcribed = bool(event.transcript.strip())
        for turn in self.saved.turns:
            if turn.spoken and not turn.transcribed:
                break
            self.saved.safe_sample = max(self.saved.safe_sample, turn.last_sample)

    def _on_no_transcript(self, event: wire.TranscriptionFailed, now: int) -> None:
        error = event.error
        why = (error.message if error else None) or errors.code_of(error) or "no transcript"
        self._transcribed(UserTranscript(event.item_id, "", why))

    def _transcribed(self, transcript: UserTranscript) -> None:
        if transcript.item_id in self._heard:
            return
        self._heard[transcript.item_id] = True
        self._publish(transcript)
        if transcript.item_id in self.saved.untranscribed:
            self.saved.untranscribed.remove(transcript.item_id)
        self._dirty = True

    def _on_send_text(self, message: SendText, now: int) -> None:
        saved = self.saved
        item_id = message.item_id or f"text_{now:x}"
        if item_id in saved.seen_texts:
            return
        saved.seen_texts = [*saved.seen_texts[1 - _SEEN_TEXTS :], item_id]
        self._on_interrupt(None, now)
        at = self._capture.timeline.next_sample
        self._note_item(restore.wire_id(item_id), self._tail)
        if restore.wire_id(item_id) != item_id:
            self._aliases[restore.wire_id(item_id)] = item_id
        before = self._previous(restore.wire_id(item_id))
        self._publish(UserItem(item_id, before, message.text, False, False, at, at))
        saved.turns.append(Turn(item_id, False))
        if self.phase >= Phase.CONFIGURING:
            item = restore.text_item(item_id, "user", message.text)
            self._send(wire.ItemCreate(item, self._event_id(f"text {item_id}")))
        saved.texts.append(Text(restore.wire_id(item_id), message.text))
        self._responses.want(Ask(), [restore.wire_id(item_id)])
        self._touch(now)
        self._dirty = True

    # -- being interrupted --------------------------------------------------------------------

    def _on_interrupt(self, _: Interrupt | None, now: int) -> None:
        """Stop at the wish of the program: the server does not do it by itself then."""
        self._interrupt("the program interrupts", now)
        response_id = self._responses.cancel()
        if response_id is not None:
            self._cancel(response_id)

    def _cancel(self, response_id: str) -> None:
        self._playback.mute([response_id])
        self._send(wire.Cancel(response_id, self._event_id("cancel")))

    def _interrupt(self, reason: str, now: int) -> None:
        active = self._responses.active
        if active is None and not self._playback.queue():
            return
        self._publish(FlushPlayback(reason, now))  # before everything else
        if self._playback.flush_by is not None:
            self._cut(self._playback.flushed("", 0))
        unvoiced: list[Spoken] = []
        if active is not None:
            self._playback.mute([active.response_id])
            unvoiced = [
                item
                for item in self._playback.items.values()
                if item.response_id == active.response_id and not item.received and item.begun
            ]
        self._playback.flush(unvoiced, now)
        self.saved.answer = None
        self._dirty = True

    def _on_flushed(self, message: PlaybackFlushed, now: int) -> None:
        if self._playback.flush_by is not None:
            self._cut(self._playback.flushed(message.item_id, message.played_samples))

    def _cut(self, cuts: Iterable[Cut]) -> None:
        """Tell the server, history and the program what was not heard."""
        for cut in cuts:
            item = cut.item
            if cut.truncation is not None and item.session == self._session and self._told:
                event_id = self._event_id(f"truncate {item.item_id}")
                self._send(wire.Truncate(item.item_id, *cut.truncation, event_id))
            if item.begun:
                heard_ms = item.heard() // SAMPLES_PER_MS
                self._publish(Interrupted(item.item_id, heard_ms, item.text_heard()))
        self._dirty = True

    @property
    def _told(self) -> bool:
        return self.phase >= Phase.CONFIGURING

    def _on_position(self, message: PlayedPosition, now: int) -> None:
        if self._playback.position(message.item_id, message.played_samples, message.finished, now):
            self._touch(now)
            self._dirty = True

    # -- answers ------------------------------------------------------------------------------

    def _on_response_created(self, event: wire.ResponseCreated, now: int) -> None:
        response_id = event.response.id
        active = self._responses.created(response_id, now)
        self._publish(ResponseStarted(response_id))
        self.saved.answer = Answer(response_id, active.ask or Ask())
        if active.cancelled:  # it was interrupted before it began
            self._cancel(response_id)
            self.saved.answer = None
        self._touch(now)
        self._dirty = True

    def _on_output_item_added(self, event: wire.OutputItemAdded, now: int) -> None:
        item = event.item
        if item.type == "function_call":
            self._half_calls[item.id] = (event.response_id, item.call_id or "", item.name or "")
        elif item.type == "message":
            self._playback.begin(item.id, event.response_id, self._session)

    def _audio(self, event: wire.AudioDelta, now: int) -> None:
        item = self._playback.begin(event.item_id, event.response_id, self._session)
        if event.response_id in self._playback.muted:
            item.dropped = True
            return
        pcm, first = item.take(event.delta, event.content_index)
        if not pcm:
            return
        self._actions.append(
            Publish(
                AssistantAudio(
                    pcm, item.item_id, item.response_id, first, False, now, event.content_index
                )
            )
        )
        self._playback.news(now)
        if first == 0:
            self._begin_item(item)
            self._answered(event.response_id, audio=True)
            self._touch(now)

    def _on_audio_done(self, event: wire.AudioDone, now: int) -> None:
        item = self._playback.items.get(event.item_id)
        if item is None or item.complete:
            return
        item.complete = True
        if event.response_id not in self._playback.muted and item.received:
            self._publish(_last_of(item.item_id, item.response_id, item.received))
        self._dirty = True

    def _on_text(self, event: wire.TranscriptDelta | wire.TextDelta, now: int) -> None:
        item = self._playback.begin(event.item_id, event.response_id, self._session)
        item.text += event.delta
        if event.response_id in self._playback.muted:
            return
        self._begin_item(item)
        if len(item.text) >= item.reported + TEXT_STEP:
            self._report(item, "in_progress")
        self._publish(AssistantTranscript(item.item_id, event.delta))

    def _on_text_done(self, event: wire.TranscriptDone | wire.TextDone, now: int) -> None:
        item = self._playback.begin(event.item_id, event.response_id, self._session)
        text = event.text if isinstance(event, wire.TextDone) else event.transcript
        if not item.text.endswith(text):
            item.text = text

    def _begin_item(self, item: Spoken) -> None:
        if not item.begun:
            self._report(item, "in_progress")

    def _end_item(self, item: Spoken, status: Literal["completed", "incomplete"]) -> None:
        if item.ended or not (item.begun or item.text or item.received):
            return
        item.ended = True
        self._report(item, status)

    def _report(
        self, item: Spoken, status: Literal["in_progress", "completed", "incomplete"]
    ) -> None:
        if not item.begun:
            item.begun = True
            item.previous_item_id = self._previous(item.item_id)
        item.reported = len(item.text)
        self._publish(
            AssistantItem(
                item.item_id,
                item.previous_item_id,
                item.response_id,
                item.text,
                status,
                item.received,
            )
        )

    def _on_output_item_done(self, event: wire.OutputItemDone, now: int) -> None:
        item = event.item
        if item.type == "function_call":
            self._half_calls.pop(item.id, None)
            if item.status in (None, "completed"):
                self._call(event.response_id, item, now)
            else:
                self._abandon(item.call_id or "")
        elif item.type == "message" and (spoken := self._playback.items.get(item.id)):
            self._end_item(spoken, "incomplete" if item.status == "incomplete" else "completed")

    def _on_response_done(self, event: wire.ResponseDone, now: int) -> None:
        response = event.response
        status = response.status or "completed"
        active = self._responses.done(response.id)
        self._publish(_ended(response, status))
        for item in self._playback.items.values():
            if item.response_id == response.id and item.session:
                self._end_item(item, "completed" if status == "completed" else "incomplete")
        for item_id in [i for i, half in self._half_calls.items() if half[0] == response.id]:
            self._abandon(self._half_calls.pop(item_id)[1])
        self._cut(self._playback.cut_late(response.id))
        if self.saved.answer is not None and self.saved.answer.response_id == response.id:
            self.saved.answer = None
        details = response.status_details
        if status == "failed":
            self._on_failed(active, details.error if details else None, now)
        elif status != "cancelled" or (details and details.reason != "turn_detected"):
            self._answered(response.id)
        self._touch(now)
        self._dirty = True

    def _on_failed(self, active: Active | None, error: wire.ErrorBody | None, now: int) -> None:
        meant = errors.meaning(error)
        code = errors.code_of(error)
        if meant is Meaning.FATAL:
            self._fail(errors.why_fatal(code, self.settings.model))
            return
        if active and not active.audio and not active.call:
            delay = {Meaning.RATE: RATE_NS, Meaning.TRANSIENT: TRANSIENT_NS}.get(meant)
            if delay is not None and self._responses.again(active.ask, now + delay):
                self._log("warning", "an answer failed, asking again", code=code)
                return
        self._report_error(error, now)
        self._answered("")

    def _answered(self, response_id: str, *, audio: bool = False, call: bool = False) -> None:
        """Take note that what the user said has an answer, or at least the beginning of one."""
        saved, active = self.saved, self._responses.active
        if active is not None and active.response_id == response_id:
            active.audio, active.call = active.audio or audio, active.call or call
        if saved.answer is not None and saved.answer.response_id == response_id:
            saved.answer.audio = saved.answer.audio or audio
            saved.answer.call = saved.answer.call or call
        for turn in saved.turns:
            saved.safe_sample = max(saved.safe_sample, turn.last_sample)
        saved.turns, saved.repeats = [], 0
        self._dirty = True

    # -- tools --------------------------------------------------------------------------------

    def _call(self, response_id: str, item: wire.Item, now: int) -> None:
        call_id, name, arguments = item.call_id or "", item.name or "", item.arguments or ""
        if not call_id or call_id in self._heard:
            return
        self._heard[call_id] = True
        self.saved.calls.append(Call(call_id, item.id, name, arguments, response_id))
        before = self._previous(item.id)
        self._publish(ToolCall(call_id, name, arguments, item.id, before))
        self._answered(response_id, call=True)
        self._touch(now)

    def _abandon(self, call_id: str) -> None:
        """Answer a call that was cut off and never run, so that the conversation is consistent."""
        if not call_id or call_id in self._heard:
            return
        self._heard[call_id] = True
        self._send_output(call_id, "", "cancelled: the call was interrupted and did not run")

    def _send_output(self, call_id: str, item_id: str, output: str) -> str:
        item = restore.output_item(item_id or restore.output_id(call_id), call_id, output)
        if not item_id:  # history may know the output by its call only
            self._aliases[item["id"]] = self._tail
        elif item["id"] != item_id:
            self._aliases[item["id"]] = item_id
        self._outputs.add(call_id)
        self._send(wire.ItemCreate(item, self._event_id(f"output {call_id}")))
        return str(item["id"])

    def _on_tool_answer(self, message: ToolAnswer, now: int) -> None:
        self._touch(now)
        call = next((c for c in self.saved.calls if c.call_id == message.call_id), None)
        if call is None:
            if self._told:
                self._on_orphan(message)
            else:
                self._early[message.call_id] = message
            return
        if call.output is not None:
            return
        call.output, call.respond = message.output, message.respond
        call.output_id = message.item_id
        self._dirty = True

    def _on_orphan(self, message: ToolAnswer) -> None:
        if message.call_id not in self._orphans:
            return
        self._orphans.discard(message.call_id)
        item_id = self._send_output(message.call_id, message.item_id, message.output)
        if message.respond:
            self._responses.want(Ask(extra=self._extra([message.name])), [item_id])

    def _settle_calls(self) -> None:
        """Send the outputs that are there, and ask for an answer when a group is complete."""
        saved = self.saved
        if not saved.calls:
            return
        for call in saved.calls:
            if call.output is not None and call.call_id not in self._outputs:
                self._send_output(call.call_id, call.output_id, call.output)
        active = self._responses.active
        groups: dict[str, list[Call]] = {}
        for call in saved.calls:
            groups.setdefault(call.response_id, []).append(call)
        for response_id, group in groups.items():
            if active is not None and active.response_id == response_id:
                continue
            if any(call.output is None for call in group):
                continue
            saved.calls = [call for call in saved.calls if call.response_id != response_id]
            self._dirty = True
            aloud = [call for call in group if call.respond]
            if aloud:
                ids = [restore.wire_id(c.output_id) or restore.output_id(c.call_id) for c in group]
                about = [item_id for item_id in ids if item_id not in self._before]
                self._responses.want(Ask(extra=self._extra(c.name for c in aloud)), about)

    def _extra(self, names: Iterable[str]) -> tuple[str, ...]:
        wanted = {
            spec.name: spec.response_instruction
            for spec in self.saved.tools or ()
            if spec.response_instruction
        }
        return tuple(dict.fromkeys(wanted[name] for name in names if name in wanted))

    def _on_tools(self, message: ToolsAvailable, now: int) -> None:
        if message.tools != self.saved.tools:
            self.saved.tools = message.tools
            self._dirty = True

    # -- errors -------------------------------------------------------------------------------

    def _on_bad_frame(self, frame: wire.BadFrame, now: int) -> None:
        self._log("warning", "a frame of the server is not understood", reason=frame.reason)
        self._report_error(wire.ErrorBody(code="bad_frame", message=frame.reason), now)

    def _on_error(self, event: wire.ErrorEvent, now: int) -> None:
        error = event.error
        code = errors.code_of(error)
        intent, detail = self._intents.get(error.event_id or "", ("", None))
        match errors.meaning(error):
            case Meaning.FATAL:
                self._fail(errors.why_fatal(code, self.settings.model))
                return
            case Meaning.EXPIRED:
                self._failures = 0
                self._renew("the server has ended the session", now)
                return
            case Meaning.ACTIVE if self._responses.refused(error.event_id, now):
                self._log("debug", "an answer is active already", intent=intent)
                return
            case Meaning.NOT_ACTIVE:
                self._not_active(now)
                return
            case Meaning.HARMLESS:
                self._log("debug", "the server found something unnecessary", code=code)
                return
            case meant:
                self._log("warning", "the server refused something", code=code, intent=intent)
        param = error.param or ""
        if intent == "configure" or (
            not intent and self.phase is Phase.CONFIGURING and param.startswith("session")
        ):
            self._refused_configuration(detail, error, now)
        elif intent == "speed" and self._responses.active is not None and self._refusals < 3:
            self._refusals += 1
            self._told_speed = 0.0  # once more, between the next two answers
            return
        ask = self._responses.failed_to_ask(error.event_id)
        if ask is not None:
            delay = {Meaning.RATE: RATE_NS, Meaning.TRANSIENT: TRANSIENT_NS}.get(meant)
            if delay is not None and self._responses.again(ask, now + delay):
                return
            self._answered("")
        self._report_error(error, now)

    def _not_active(self, now: int) -> None:
        active = self._responses.active
        if active is not None and active.cancelled:
            self._responses.done(active.response_id)

    def _refused_configuration(
        self, refused: dict[str, Any] | None, error: wire.ErrorBody, now: int
    ) -> None:
        """Do without what the server does not want; a session without the rest is no use."""
        if refused is None:
            refused = session.configuration(self.settings, self.saved.speed, self.saved.tools or ())
        self._refusals += 1
        left = session.without(refused, error.param)
        if left is not None and self._refusals <= 8:
            self._update(left, "configure")
            self._phase_by = now + HANDSHAKE_NS
            self._publish(Notice(f"the server refuses {error.param}; going on without it"))
        elif self.phase is Phase.CONFIGURING:
            self._go_live(now)

    def _report_error(self, error: wire.ErrorBody | None, now: int) -> None:
        code = errors.code_of(error)
        param = (error.param if error else None) or ""
        key = f"{code} {param}"
        if now < self._errors.get(key, -SAME_ERROR_NS) + SAME_ERROR_NS:
            return
        self._errors[key] = now
        text = (error.message if error else None) or "the server gave no reason"
        self._publish(ServerError(code, text, param))

    # -- the rest -----------------------------------------------------------------------------

    def _on_snapshot(self, message: HistorySnapshot, now: int) -> None:
        if message.request_id == self._request_id and self.phase < Phase.CONFIGURING:
            self._history = message.items

    def _on_replayed(self, message: ReplayedAudio, now: int) -> None:
        self._append(self._capture.replayed(message, now))

    def _on_replay_ended(self, message: ReplayEnded, now: int) -> None:
        self._capture.ended(message)

    def _on_capture_ended(self, message: CaptureEnded, now: int) -> None:
        if self.saved.input_end is None:
            self.saved.input_end = InputEnd(message.last_sample, now)
            self._dirty = True

    def _on_set_speed(self, message: SetSpeed, now: int) -> None:
        self.saved.speed = _clamp_speed(message.speed)
        self._refusals = 0
        self._publish(SpeedChanged(self.saved.speed))
        self._dirty = True

    def _on_end(self, message: EndConversation, now: int) -> None:
        if self.saved.ending is None:
            self.saved.ending = Ending(message.reason, now + closing.FAREWELL_NS)
            self._dirty = True

    def _touch(self, now: int) -> None:
        """Take note that somebody does something."""
        self.saved.quiet_since_ns = now

    def _note_owed(self) -> None:
        asked = self._responses.asked
        owed = self._responses.owed or (asked.ask if asked and not asked.cancel else None)
        if owed is not self.saved.owed:
            self.saved.owed = owed
            self._dirty = True

    def _is_quiet(self, now: int) -> bool:
        facts = self._facts(now)
        return not facts.busy and facts.drained_at is None and self._capture.replay_by is None

    def _facts(self, now: int) -> closing.Facts:
        busy = (
            self._responses.busy()
            or self._is_speaking(now)
            or bool(self.saved.calls)
            or self._playback.flush_by is not None
            or (bool(self.saved.untranscribed) and now < self._committed_ns + TRANSCRIPT_NS)
        )
        drained_at = self._playback.drained_at()
        replaying = self._capture.replay_by is not None
        live = None if replaying else self._live_ns
        return closing.Facts(live, busy, drained_at, self._capture.timeline.next_sample)

    def _check_over(self, now: int) -> None:
        if self._finished:
            return
        reason = closing.over(self.saved, self.settings, self._facts(now), now)
        if reason is not None:
            self._finished = True
            self._publish(ConversationOver(reason))

    def _publish(self, message: Message) -> None:
        self._actions.append(Publish(message))

    def _send(self, event: wire.ClientEvent) -> None:
        self._actions.append(SendEvent(event))

    def _emit(self, action: Action) -> None:
        self._actions.append(action)

    def _log(
        self, level: Literal["debug", "info", "warning", "error"], text: str, **fields: Any
    ) -> None:
        self._actions.append(Log(level, text, fields))

    _on_event: ClassVar[dict[type, Callable[[Core, Any, int], None]]] = {
        wire.BadFrame: _on_bad_frame,
        wire.ErrorEvent: _on_error,
        wire.SessionCreated: _on_session_created,
        wire.SessionUpdated: _on_session_updated,
        wire.ItemAdded: _on_item,
        wire.ItemCreated: _on_item,
        wire.ItemDone: _on_item,
        wire.TranscriptionCompleted: _on_transcript,
        wire.TranscriptionFailed: _on_no_transcript,
        wire.SpeechStarted: _on_speech_started,
        wire.SpeechStopped: _on_speech_stopped,
        wire.Committed: _on_committed,
        wire.ResponseCreated: _on_response_created,
        wire.ResponseDone: _on_response_done,
        wire.OutputItemAdded: _on_output_item_added,
        wire.OutputItemDone: _on_output_item_done,
        wire.AudioDone: _on_audio_done,
        wire.TranscriptDelta: _on_text,
        wire.TextDelta: _on_text,
        wire.TranscriptDone: _on_text_done,
        wire.TextDone: _on_text_done,
    }
    _on_message: ClassVar[dict[type[Message], Callable[[Core, Any, int], None]]] = {
        ReplayedAudio: _on_replayed,
        ReplayEnded: _on_replay_ended,
        CaptureEnded: _on_capture_ended,
        PlayedPosition: _on_position,
        PlaybackFlushed: _on_flushed,
        ToolAnswer: _on_tool_answer,
        ToolsAvailable: _on_tools,
        SetSpeed: _on_set_speed,
        SendText: _on_send_text,
        Interrupt: _on_interrupt,
        EndConversation: _on_end,
        HistorySnapshot: _on_snapshot,
    }


def _last_of(item_id: str, response_id: str, samples: int) -> AssistantAudio:
    return AssistantAudio(b"", item_id, response_id, samples, last=True)


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


def _clamp_speed(speed: float) -> float:
    return min(session.MAX_SPEED, max(session.MIN_SPEED, speed))


def _server_name(settings: Settings, info: SessionInfo) -> str:
    return (info.server_url or settings.server).partition("?")[0]
