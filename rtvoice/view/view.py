"""The fold: messages of a session in, the state that a screen shows out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Literal

from messages import (
    SAMPLE_RATE,
    SILENCE_DBFS,
    AssistantItem,
    AssistantTranscript,
    AudioLost,
    BudgetUsed,
    ComponentCrashed,
    ComponentParked,
    ComponentRestarted,
    Connected,
    DeadLetter,
    DeviceChanged,
    Disconnected,
    EchoState,
    Event,
    InputLevel,
    Interrupted,
    ItemPlaced,
    ItemRemoved,
    Level,
    Message,
    MessagesDropped,
    OutputLevel,
    OutputReplaced,
    PlaybackEnded,
    PlaybackPaused,
    PlaybackResumed,
    PlaybackStarted,
    PlayedPosition,
    Reconnected,
    ResponseEnded,
    ResponseStarted,
    RoundTrip,
    SessionEnded,
    SessionEnding,
    SessionFailed,
    SessionStarted,
    SetMuted,
    SetVolume,
    SoundFaltered,
    SpeedChanged,
    SupervisorRestarted,
    Tokens,
    ToolAnswer,
    ToolCall,
    Turn,
    UsageUpdated,
    UserItem,
    UserSpeechStarted,
    UserSpeechStopped,
    UserTranscript,
    WireEvent,
)
from rtvoice.view.entries import Entries, is_aside
from rtvoice.view.playback import Playback
from rtvoice.view.sentences import sentence
from rtvoice.view.state import Counts, Entry, Latency, Phase, Process, Waits

__all__ = ["PARTIAL_TRANSCRIPT", "View"]

PARTIAL_TRANSCRIPT = "conversation.item.input_audio_transcription.delta"
"""The event of the server with a piece of the user's transcript: `View` takes it as `WireEvent`."""
_TALKING = "(talking)"
"""Stands for the id of speech that has none yet: with push-to-talk it is known at the end."""
_PATIENCE_S = 15.0
"""How long an answer that does not begin is waited for: the model may give none."""


class View:
    """The state that a screen shows, folded from the messages of a session.

    All methods are called on one thread. Times are in seconds since the start of the session.

    It is longer than other classes: it has a case for each message that changes what is shown.
    """

    kinds: tuple[type[Message], ...] = (
        *(Event, Level, PlayedPosition, WireEvent),
        *(AssistantItem, ItemPlaced, ItemRemoved, OutputReplaced, UserItem, UserTranscript),
        *(SetVolume, SpeedChanged),
    )
    """The types of messages that it needs."""

    def __init__(self) -> None:
        self.processes: dict[str, Process] = {}
        self.counts = Counts()
        self.waits = Waits()
        self.input_dbfs = self.output_dbfs = SILENCE_DBFS
        """The peak of the last tenth of a second."""
        self.echo: EchoState | None = None
        self.round_trip_ms: float | None = None
        self.tokens = Tokens()
        self.dollars: float | None = 0.0
        self.budget_percent = 0
        """80 or 100, once so much of the budget is used."""
        self.muted = False
        self.volume = 1.0
        self.speed = 1.0
        self.started: SessionStarted | None = None
        self.summary: SessionEnded | None = None
        self.failure = ""
        """Why the session has failed; empty: it has not."""
        self._talk = Entries()
        self._playback = Playback(self._talk)
        self._now_s = 0.0
        self._connected: bool | None = None
        """Whether there is a connection to the server; None: there was none yet."""
        self._ending = False
        self._hearing = False
        self._owed_s: float | None = None
        """Since when an answer is expected; None: none is."""
        self._responding = False
        self._running: set[str] = set()
        """Ids of the tool calls without an answer."""
        self._used: dict[str, tuple[float, float]] = {}
        """When the CPU time of each process was looked at last, and what it was."""
        self._number = 0

    # -- what happens -------------------------------------------------------------------------

    def restore(self, messages: Iterable[Message]) -> None:
        """Begin with the conversation of an earlier session, from the messages of its journal."""
        for message in messages:
            self._user(message)
            self._assistant(message)
            self._heard(message)
            self._tool(message)
            if isinstance(message, AssistantItem) and message.text:  # no piece of it comes
                self._entry(message.item_id, "assistant").text = message.text
        for entry in self.entries:
            entry.at_s = 0.0
            if entry.kind == "tool":
                entry.seconds = None
            elif entry.state != "interrupted":
                entry.heard = len(entry.text)
            if entry.state == "partial":
                entry.state = "cut off" if entry.kind == "assistant" else "failed"
        self._running.clear()
        self._owed_s = None
        self.counts = Counts()

    def note(self, text: str, now_s: float, *, is_trouble: bool = False) -> None:
        """Add a sentence of the program."""
        self._now_s = now_s
        self._number += 1
        kind: Literal["trouble", "notice"] = "trouble" if is_trouble else "notice"
        at_s = round(now_s, 3)
        self._talk.add(Entry(f"(notice {self._number})", kind, text, at_s=at_s))

    def take(self, message: Message, now_s: float) -> None:
        """Take a message of the session, or one that the program has sent to it."""
        self._now_s = now_s
        self._session(message)
        self._user(message)
        self._assistant(message)
        self._heard(message)
        self._tool(message)
        self._component(message)
        self._sound(message)
        if isinstance(message, ComponentCrashed):
            return  # its restart is told, with the same cause
        text, is_trouble = sentence(message)
        if text:
            self.note(text, now_s, is_trouble=is_trouble)

    def look(self, now_s: float) -> None:
        """Let time pass without a message."""
        self._now_s = now_s

    def status(self, components: dict[str, dict[str, Any]], now_s: float) -> None:
        """Take what `Agent.status`, `Session.status` or `Session.processes` returns.

        The sandbox does not report its crashes: it is gone, or has another process id.
        """
        self._now_s = now_s
        sandbox = self.processes.get("sandbox")
        if sandbox is not None and "sandbox" not in components and "supervisor" in components:
            self._has_died(sandbox)
        for name, about in components.items():
            process = self._process(name)
            pid = about.get("pid") or 0
            if name == "sandbox" and process.pid not in (0, pid):
                self._has_died(process)
                process.restarts += 1
                self.counts.restarts += 1
            if about.get("state", "open") == "open":
                process.state = "up"
            used, before = about.get("cpu_seconds"), self._used.get(name)
            process.cpu = None
            if used is not None:
                if before is not None and process.pid == pid and now_s > before[0]:
                    process.cpu = max(0.0, (used - before[1]) / (now_s - before[0]))
                self._used[name] = (now_s, used)
            process.pid = pid
            process.restarts = about.get("restarts", process.restarts)
            process.mailbox = about.get("mailbox", 0)
            process.memory_bytes = about.get("memory_bytes")

    # -- what is shown ------------------------------------------------------------------------

    @property
    def entries(self) -> list[Entry]:
        """The talk, in its order."""
        return self._talk.all

    @property
    def phase(self) -> Phase:
        """What the conversation does, in one word."""
        if self.summary is not None or self.failure:
            return "failed" if self.failure or (self.summary and self.summary.failed) else "ended"
        if self._ending:
            return "ending"
        if self.started is None or self._connected is None:
            return "starting"
        if not self._connected:
            return "reconnecting"
        if self._hearing:
            return "hearing you"
        if self._playback.is_paused:
            return "paused"
        if self._playback.item_id:
            return "speaking"
        if self._responding or self._running or self._is_owed():
            return "thinking"
        return "muted" if self.muted else "listening"

    @property
    def listens_while_speaking(self) -> bool:
        """Whether the user is heard while the assistant speaks, as far as the echo decides it."""
        return self.echo is None or self.echo.state in ("off", "cancelled")

    def is_answered(self, item_id: str, since_s: float) -> bool:
        """Return whether the answer to a turn of the user was heard to its end.

        Args:
            item_id: The id of the turn.
            since_s: When the turn was sent. What has no answer after 15 s of silence gets none.
        """
        if self.summary is not None or self.failure:
            return True
        after = self._talk.after(item_id)
        last = next((entry for entry in reversed(after) if not is_aside(entry)), None)
        if any(entry.kind == "tool" and entry.state == "partial" for entry in after):
            return False
        if last is not None and last.kind == "assistant" and not self._responding:
            is_heard = last.heard >= len(last.text) or last.state == "interrupted"
            tools = [entry for entry in after if entry.kind == "tool"]
            if last.state != "partial" and is_heard and not (tools and tools[-1] is after[-1]):
                return self._playback.item_id != last.id
        latest_s = max([since_s, *(entry.at_s for entry in after)])
        is_silent = not (self._responding or self._playback.item_id or self._hearing)
        return is_silent and self._now_s - latest_s > _PATIENCE_S

    def find(self, entry_id: str) -> Entry | None:
        """Return an entry of the talk; None: there is none."""
        return self._talk.find(entry_id)

    def changes(self) -> tuple[list[tuple[str, Entry]], list[str]]:
        """Return what has changed in the talk since the last call; see `Entries.changes`."""
        return self._talk.changes()

    # -- the session --------------------------------------------------------------------------

    def _session(self, message: Message) -> None:
        match message:
            case SessionStarted(pids=pids, input=heard, output=played):
                self.started = message
                for name, pid in pids.items():
                    process = self._process(name)
                    process.pid, process.state = pid, "up"
                self._process("microphone").device = heard
                self._process("speaker").device = played
            case SupervisorRestarted(pid=pid, ms=ms, cause=cause):
                supervisor = self._process("supervisor")
                supervisor.pid, supervisor.back_ms, supervisor.cause = pid, ms, cause
                supervisor.died_s = self._now_s  # known only now
                supervisor.restarts += 1
                for process in self.processes.values():
                    process.state = "up"
                self.counts.restarts += 1
            case Connected() | Reconnected():
                self._connected = True
                self.counts.reconnects += isinstance(message, Reconnected)
            case Disconnected():
                self._connected = False
            case RoundTrip(ms):
                self.round_trip_ms = ms
            case UsageUpdated(_, tokens, dollars):
                self.tokens, self.dollars = tokens, dollars
            case BudgetUsed(percent):
                self.budget_percent = percent
            case SessionEnding():
                self._ending = True
            case SessionFailed(reason):
                self.failure = reason
            case SessionEnded():
                self.summary = message

    # -- the talk -----------------------------------------------------------------------------

    def _user(self, message: Message) -> None:
        match message:
            case UserSpeechStarted(item_id):
                self._hearing, self._owed_s = True, None
                self._entry(item_id or _TALKING, "user", state="partial", spoken=True)
            case UserSpeechStopped(item_id):
                self._hearing = False
                if item_id and _TALKING in self._talk:
                    self._talk.rename(_TALKING, item_id)
                if item_id:
                    self._owed_s = self._now_s
                else:  # too short to be a turn
                    self._talk.remove_unsaid()
            case WireEvent(name, _, data) if name == PARTIAL_TRANSCRIPT:
                self._partial(data)
            case UserItem(item_id, previous, text, spoken):
                if _TALKING in self._talk and spoken and item_id not in self._talk:
                    self._talk.rename(_TALKING, item_id)
                state = "partial" if spoken and message.transcript_expected else "complete"
                entry = self._entry(item_id, "user", state=state, spoken=spoken)
                if text:
                    entry.text = text
                entry.image = message.image is not None
                self._talk.place(entry, previous)
                if not spoken:
                    self._owed_s = self._now_s
            case UserTranscript(item_id, text, error):
                entry = self._entry(item_id, "user", spoken=True)
                entry.text, entry.state = text, "failed" if error else "complete"
            case ItemPlaced(item_id, previous) if (known := self._talk.find(item_id)) is not None:
                self._talk.touch(item_id)
                self._talk.place(known, previous)
            case ItemRemoved(item_id):
                self._talk.remove(item_id)
            case Turn(role, text, item_id, transcribed):
                entry = self._entry(item_id, role)
                if role == "user":
                    entry.text = text
                    entry.state = "complete" if transcribed else "failed"
                    entry.image = message.image is not None
                elif not entry.text:
                    self._playback.set_text(entry, text)

    def _assistant(self, message: Message) -> None:
        match message:
            case AssistantItem(item_id, previous, _, text, status):
                known = item_id in self._talk
                entry = self._entry(item_id, "assistant", state="partial")
                if not known:
                    self._talk.place(entry, previous)
                if status == "in_progress":
                    self._playback.measure(len(text), message.audio_samples / SAMPLE_RATE)
                    return
                if entry.state == "interrupted" and entry.text.startswith(text):
                    return  # what was heard of it, as it was restored after a death
                entry.text = text or entry.text
                self._playback.complete(entry, message.audio_samples)
                if entry.state == "partial":
                    entry.state = "complete" if status == "completed" else "cut off"
            case AssistantTranscript(item_id, delta):
                self._entry(item_id, "assistant", state="partial").text += delta
            case ResponseStarted():
                self._responding, self._owed_s = True, None
            case ResponseEnded():
                self._responding, self._owed_s = False, None

    def _heard(self, message: Message) -> None:
        match message:
            case PlaybackStarted(item_id=item_id, after_speech_ms=after_ms):
                self._owed_s = None
                self._playback.begin(self._entry(item_id, "assistant", state="partial"))
                if after_ms is not None:
                    steps = message.committed_after_ms, message.received_after_ms
                    self.waits.add(Latency(item_id, after_ms, *steps))
            case PlayedPosition(item_id, played_samples, finished=finished):
                self._playback.advance(item_id, played_samples, finished=finished)
            case PlaybackEnded(item_id, heard_ms):
                self._playback.end(item_id, heard_ms)
            case Interrupted(item_id, heard_ms, text_heard):
                self._playback.interrupt(item_id, heard_ms, text_heard)
                self.counts.interruptions += 1
            case PlaybackPaused():
                self._playback.is_paused = True
            case PlaybackResumed():
                self._playback.is_paused = False

    def _tool(self, message: Message) -> None:
        match message:
            case ToolCall(call_id, name, arguments, _, previous):
                if call_id in self._talk:
                    return
                entry = self._entry(call_id, "tool", state="partial")
                entry.text, entry.arguments = name, arguments
                if previous is not None:
                    self._talk.place(entry, previous)
                self._running.add(call_id)
            case ToolAnswer(call_id, name, output, failed):
                entry = self._entry(call_id, "tool")
                entry.text, entry.output = name, output
                entry.state = "failed" if failed else "complete"
                if entry.seconds is None:
                    entry.seconds = max(round(self._now_s - entry.at_s, 3), 0.0)
                self._running.discard(call_id)
            case OutputReplaced(call_id, output):
                entry = self._entry(call_id, "tool", state="failed")
                entry.output, entry.state = output, "failed"
                self._running.discard(call_id)

    def _partial(self, data: bytes) -> None:
        """Add a piece of the transcript of the user's speech."""
        try:
            event = json.loads(data)
            item_id, delta = event["item_id"], event["delta"]
        except (ValueError, KeyError, TypeError):
            return  # realtime has reported it, if it matters
        entry = self._talk.find(item_id) if isinstance(item_id, str) else None
        if entry is not None and entry.state == "partial" and isinstance(delta, str):
            entry.text += delta
            self._talk.touch(entry.id)

    # -- components and sound -----------------------------------------------------------------

    def _component(self, message: Message) -> None:
        match message:
            case ComponentCrashed(component, cause=cause):
                process = self._process(component)
                process.cause = cause
                self._has_died(process)
            case ComponentRestarted(component, pid, cause, ms, crashed=crashed):
                process = self._process(component)
                process.state, process.pid = "up", pid
                if crashed:
                    process.back_ms, process.cause = ms, cause
                    process.restarts += 1
                    self.counts.restarts += 1
            case ComponentParked(component, cause):
                process = self._process(component)
                process.state, process.cause = "parked", cause
            case DeviceChanged(component, using=using):
                self._process(component).device = using
            case DeadLetter():
                self.counts.lost += 1
            case MessagesDropped(count=count, audio_ms=audio_ms):
                self.counts.lost += count
                self.counts.lost_ms += audio_ms
            case AudioLost(audio_ms=audio_ms):
                self.counts.lost_ms += audio_ms

    def _sound(self, message: Message) -> None:
        match message:
            case InputLevel(peak_dbfs=peak_dbfs):
                self.input_dbfs = peak_dbfs
            case OutputLevel(peak_dbfs=peak_dbfs):
                self.output_dbfs = peak_dbfs
            case EchoState():
                self.echo = message
            case SoundFaltered(count=count):
                self.counts.underruns += count
            case SetMuted(muted):
                self.muted = muted
            case SetVolume(volume):
                self.volume = volume
            case SpeedChanged(speed):
                self.speed = speed

    def _has_died(self, process: Process) -> None:
        if process.state != "down":
            process.died_s = self._now_s
        process.state = "down"
        process.memory_bytes = process.cpu = None

    def _process(self, name: str) -> Process:
        return self.processes.setdefault(name, Process(name))

    def _is_owed(self) -> bool:
        return self._owed_s is not None and self._now_s - self._owed_s < _PATIENCE_S

    # -- entries ------------------------------------------------------------------------------

    def _entry(self, entry_id: str, kind: Any, *, state: Any = "complete", **new: Any) -> Entry:
        return self._talk.entry(entry_id, kind, state, self._now_s, **new)
