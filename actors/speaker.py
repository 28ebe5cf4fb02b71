"""The speaker: plays what the assistant says, and reports how much of it was heard."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, NoReturn

import msgspec

from actors.base import Actor, StartAnew
from actors.devices.base import Playback
from actors.devices.errors import DeviceLostError
from actors.devices.faltering import CAME_LATE, NOT_SERVED, Faltering
from actors.devices.mark import ItemMark
from actors.devices.opening import is_name, open_playback, why_not_instead
from actors.devices.own.program import ProgramOutput
from actors.devices.own.to_program import ToProgram
from actors.devices.playout import Playout, Settled
from actors.devices.recent import keep_recent
from actors.devices.units import to_samples
from actors.level import Meter
from messages import (
    CONTROL,
    DIRECT,
    PCM_BYTES_PER_MS,
    SAMPLE_RATE,
    SILENCE_DBFS,
    AssistantAudio,
    AudioLost,
    DeviceInUse,
    DeviceLost,
    FileOpened,
    FlushPlayback,
    Interrupt,
    Keep,
    MayPass,
    Message,
    Newest,
    Notice,
    OutputLevel,
    PausePlayback,
    PlaybackEnded,
    PlaybackFlushed,
    PlaybackLost,
    PlaybackPaused,
    PlaybackResumed,
    PlayedAudio,
    PlayedPosition,
    ProgramFlushed,
    ProgramPlayed,
    ResumePlayback,
    SessionInfo,
    SetVolume,
    UseOutput,
)

if TYPE_CHECKING:
    from actors.inbox import Timer

__all__ = ["Speaker"]

_REPORT_S = 0.1
"""Interval at which the speaker notes what was heard."""
_TELL_NS = 250_000_000
"""Interval at which it tells realtime the position, if nobody else wants it."""
_SOONEST_S = 0.01
_SOON_S = 0.5
_EARLY = 100 * SAMPLE_RATE // 1000
"""Acknowledge the last held message when this little of it is left, so that the next one arrives in
time; a crash then loses at most this much."""
_CLEAR_S = 0.25
"""How long a device of the program may take to say where it had stopped when it was cleared. It
takes a few milliseconds; 0.1 s more if a call of ``play_chunk`` blocks."""
_SAMPLES_PER_MS = PCM_BYTES_PER_MS // 2
_ITEMS = 16
_Rest = list[tuple[str, int, bytes]]


class _SpeakerState(msgspec.Struct, frozen=True):
    volume: float
    paused: bool = False
    device: str = ""
    """The sound card that was chosen during the session; empty: that of the settings is used."""


class _Clearing(NamedTuple):
    """Why the device is cleared."""

    because: Literal["flush", "pause"]
    sent_ns: int = 0
    """``sent_ns`` of the `FlushPlayback`."""


class _Levels:
    """Sends the loudness of what is heard, if anybody wants it."""

    def __init__(self, speaker: Actor) -> None:
        self._speaker = speaker
        self._meter = Meter()
        self._sounding = True
        """Whether the last level sent was above silence; True also if it is not known."""

    def heard(self, pcm: bytes) -> None:
        """Send the levels of sound that was heard."""
        self._send(self._meter.add(pcm))

    def silent(self) -> None:
        """Send silence, once."""
        if self._sounding:
            self._send([*self._meter.rest(), (SILENCE_DBFS, SILENCE_DBFS)])
            self._sounding = False

    def _send(self, levels: Iterable[tuple[float, float]]) -> None:
        if self._speaker.is_wanted(OutputLevel):
            for level in levels:  # an iterator: this measures them
                self._sounding = True
                self._speaker.send(OutputLevel(*level))


class _Legacy:
    """A file in which a process leaves audio to the next one that nobody has heard."""

    def __init__(self, session: SessionInfo) -> None:
        self._path = session.file("speaker.rest")

    def leave(self, rest: _Rest) -> None:
        """Write audio for the next process.

        Raises:
            OSError: It cannot be written.
        """
        self._path.write_bytes(msgspec.msgpack.encode(rest))

    def take(self) -> _Rest:
        """Return what the process before has left, once."""
        try:
            rest = self._path.read_bytes()
            self._path.unlink()
        except OSError:
            return []
        return msgspec.msgpack.decode(rest, type=_Rest)


class Speaker(Actor):
    """Plays what realtime sends; realtime also flushes, pauses and resumes it.

    Audio stays the supervisor's until the device has taken it. The actor dies when its device is
    lost; when it raises for another reason, device and playout go on without it. It has more
    attributes than most actors: each is a fact about the one device and playout that it joins.
    """

    collects = True
    accepts: ClassVar = {
        AssistantAudio: Keep(seconds=1800, held=True, direct=True),
        FlushPlayback: DIRECT,
        PausePlayback: DIRECT,
        ResumePlayback: CONTROL,
        SetVolume: CONTROL,
        ProgramPlayed: Newest(1, direct=True),
        ProgramFlushed: DIRECT,
        MayPass: CONTROL,
        UseOutput: CONTROL,
    }

    @classmethod
    def prepare(cls, names: Iterable[str]) -> None:
        super().prepare(filter(is_name, map(str.strip, names)))

    def opened(self) -> None:
        self._held: collections.deque[tuple[AssistantAudio, int]] = collections.deque()
        self._timer: Timer | None = None
        self._pump_timer: Timer | None = None
        self._faltering_timer: Timer | None = None
        self._noted = self._told = ("", 0)
        """The position that was noted in the mark, and told realtime, last."""
        self._told_ns = 0
        """When it was told."""
        self._trouble = ""
        self._levels = _Levels(self)
        self._to_program = ToProgram(self)
        self._legacy = _Legacy(self.session)
        self._recent = keep_recent(self)
        self._settled = False
        """Whether sound was heard between the last two calls of `_settle`."""
        self._flushed_ns = 0
        """Time of the last flush by the sender's clock; audio sent before it is discarded."""
        self._paused_ns = 0
        """Time of the last pause or resumption by the sender's clock."""
        self._too_late: collections.deque[str] = collections.deque(maxlen=_ITEMS)
        self._clear_timer: Timer | None = None
        self._next: collections.deque[AssistantAudio] = collections.deque()
        """Audio that has come while the device was cleared; it is played after it."""
        mark = self._mark = self.keep.get("mark") or ItemMark(self.session, "speaker.mark")
        self.keep["mark"] = mark
        state = self.saved(_SpeakerState)
        self._volume = self._last_volume(state)
        self._chosen = state.device if state and self.session.resumed != "journal" else ""
        if self._chosen:
            self.settings = msgspec.structs.replace(self.settings, output=self._chosen)
        self._better = ""
        """Why another device is to be opened once nothing is played; empty: none is."""
        self._waits_since_ns: int | None = None
        """Since when audio waits for a device; None: it does not."""
        self._device: Playback = self.keep.get("device") or open_playback(
            self.settings, self.session, self.crash
        )
        prefill = self._device.prefill_ms * _SAMPLES_PER_MS
        self._playout: Playout = self.keep.get("playout") or Playout(prefill, mark)
        self._playout.attach(lambda: self.post(self._release))
        self.keep["playout"] = self._playout
        if self.session.resumed:  # nothing is played that could be paused
            self._playout.resume()
        elif state is not None and state.paused and not self._playout.paused:
            self._playout.pause()
        if self.session.resumed == "supervisor":
            self.send(PlaybackLost(*mark.heard))
        if "device" not in self.keep:
            self._start_device()
        if self._device.lookout is not None:
            self._device.lookout.start(lambda reason: self.post(lambda: self._found(reason)))
        self._set_volume()
        if isinstance(self._device, ProgramOutput):
            self._to_program.ask()
        self._check()
        self._cleared()  # the incarnation before this one may have raised while it was cleared
        self._go_on()

    def _start_device(self) -> None:
        """Start a device that was just opened, and report what there is to report about it."""
        device = self._device
        self._take_over()
        try:
            device.start(self._playout, self._on_failure)
        except BaseException:
            device.close()
            raise
        self.keep["device"] = device
        self._report_loss()
        self.log.info("speaker open", device=device.name, volume=self._volume)
        self.send(DeviceInUse("output", device.name, device.card))
        if device.stands_in_because and self.session.first:
            text = f"The assistant is not heard: {device.stands_in_because}"
            self.log.warning(text)
            self.send(Notice(text))
        if device.writes is not None:
            self.send(FileOpened(str(device.writes)))
        for message in device.news:
            self.send(message)

    def closed(self) -> None:
        device: Playback | None = self.keep.get("device")
        if device is not None and device.lookout is not None:
            device.lookout.close()
        self._report_faltering(at_once=True)

    def can_take_ahead(self, message: Message) -> bool:
        """Return whether no audio before it is still to come."""
        return type(message) is not AssistantAudio or (
            "clearing" not in self.keep
            and self._playout.continues(message.item_id, message.first_sample)
        )

    def handle(self, message: Message) -> None:
        if isinstance(message, FlushPlayback | PausePlayback | ResumePlayback | UseOutput):
            self._cleared()
        match message:
            case AssistantAudio():
                self._play(message)
            case FlushPlayback():
                self._flush(message.sent_ns)
            case PausePlayback(sent_ns):
                if not self._is_overtaken(sent_ns):
                    self._pause()
            case ResumePlayback(sent_ns):
                if not self._is_overtaken(sent_ns):
                    self._resume()
            case SetVolume(volume):
                self._volume = self._mark.volume = _clamped(volume)
                self._save()
                self._set_volume()
            case UseOutput(device):
                self._use(device)
            case ProgramPlayed():
                if isinstance(self._device, ProgramOutput):
                    self._device.played(message)
            case ProgramFlushed():
                if isinstance(self._device, ProgramOutput) and self._device.flushed(message):
                    self._cleared()
            case MayPass():
                self._to_program.answered(message)

    def _report_loss(self) -> None:
        """Report audio that a dead process had taken; how much of it was heard is unknown.

        What a file has of it is not in the recording yet, and is sent there.
        """
        samples = 0 if self.session.first else self._mark.unheard
        if not samples:
            return
        ms = samples // _SAMPLES_PER_MS
        if self._device.loses:
            cause = "at most: the device had taken it, and may not have played it"
            self.send(AudioLost("speaker", ms, cause))
        elif played := self._device.last_played(samples):
            item_id = next(reversed(self._mark.taken()), "")
            self._send_played(PlayedAudio(played[1], item_id, played[0]))
        elif self.settings.recording_path is not None:
            why = "at most: the speaker died before it could tell what it had played"
            self.send(AudioLost("recorder", ms, why))

    def _save(self) -> None:
        clearing: _Clearing | None = self.keep.get("clearing")
        pauses = clearing is not None and clearing.because == "pause"
        self.save(_SpeakerState(self._volume, self._playout.paused or pauses, self._chosen))

    def _set_volume(self) -> None:
        self._device.catch_up(time.monotonic_ns())
        self._playout.set_volume(1.0 if self._device.scales else self._volume)
        for message in self._device.set_volume(self._volume):
            self._to_program.send(message)

    def _last_volume(self, state: _SpeakerState | None) -> float:
        """Return the volume set last; the mark knows it where the saved state was withheld."""
        if self._mark.volume is not None:
            return _clamped(self._mark.volume)
        return _clamped(state.volume if state else self.settings.volume)

    # -- the device ---------------------------------------------------------------------------

    def _check(self) -> None:
        if self._device.check_s is None:
            return
        try:
            self._device.check(time.monotonic_ns())
        except DeviceLostError as error:
            self._replace(error.reason)
        except Exception:
            self._lose()
            raise
        self._report_faltering()
        self.after(self._device.check_s, self._check)

    def _report_faltering(self, *, at_once: bool = False) -> None:
        """Report underruns, at most once a second."""
        if self._faltering_timer is not None:
            self._faltering_timer.cancel()
            self._faltering_timer = None
        faltering: Faltering = self.keep.setdefault("faltering", Faltering("speaker"))
        if "playout" in self.keep:
            faltering.note(CAME_LATE, *self.keep["playout"].faltered())
        if "device" in self.keep:
            faltering.note(NOT_SERVED, self.keep["device"].faltered())
        for report in faltering.report(time.monotonic_ns(), at_once=at_once):
            self.log.info("sound faltered", times=report.count, because=report.reason)
            self.send(report)
        if faltering.has_unreported():
            self._faltering_timer = self.after(_SOON_S, self._report_faltering)

    def _replace(self, reason: str) -> NoReturn:
        """Report that the device is lost, and ask for a new process: it may not even close."""
        self._device.note_loss()
        self.send(DeviceLost(self.name, self._device.name, reason))
        self._change(f"its device is lost: {reason}")

    def _use(self, device: str) -> None:
        """Open another sound card at once, in a new process: PortAudio lists the devices once."""
        if device == self.settings.output:
            return
        if why := why_not_instead(device, self.settings.output):
            self.send(Notice(f"The loudspeaker stays: {why}"))
            return
        self._chosen = device
        self._save()
        self.post(lambda: self._change(f"{device!r} was chosen"))

    def _change(self, reason: str) -> NoReturn:
        self._settle()
        self._hand_over()
        raise StartAnew(reason)

    def _found(self, reason: str) -> None:
        """Ask for a new process, for a better device, once nothing is played."""
        self._better = reason
        self._go_on()

    def _change_if_quiet(self) -> None:
        quiet = not self._held and self._playout.left_ns(time.monotonic_ns()) is None
        if quiet or self._device.holds:
            self._hand_over()
            raise StartAnew(self._better)

    def _hand_over(self) -> None:
        """Leave unheard audio that the supervisor may not have to the next process, in a file."""
        rest = self._playout.give_back()
        for item_id, _, _ in rest:
            self._mark.note_heard(item_id)
        try:
            self._legacy.leave(rest)
        except OSError as error:
            ms = sum(len(pcm) for _, _, pcm in rest) // PCM_BYTES_PER_MS
            self.send(AudioLost("speaker", ms, f"its device was lost with it: {error.strerror}"))

    def _take_over(self) -> None:
        """Take over the audio that an earlier process has left."""
        for item_id, first, pcm in self._legacy.take():
            self._playout.push(item_id, first, pcm)

    def _lose(self) -> None:
        """Close a device that has failed, so that the next incarnation opens a new one."""
        self._report_faltering(at_once=True)
        self.keep.pop("device").close()

    def _on_failure(self, error: Exception) -> None:
        """Raise the error of the device's thread on the actor's thread."""

        def fail() -> None:
            self._lose()
            raise error

        self.post(fail)

    # -- playing ------------------------------------------------------------------------------

    def _play(self, message: AssistantAudio) -> None:
        if self._is_too_late(message):
            return
        if self.is_ahead:  # it comes again, to be held
            self._playout.push(message.item_id, message.first_sample, message.pcm, message.last)
            self._go_on()
            return
        self.hold(message)
        if "clearing" in self.keep:
            self._next.append(message)
        else:
            self._queue(message)

    def _queue(self, message: AssistantAudio) -> None:
        self._playout.push(message.item_id, message.first_sample, message.pcm, message.last)
        self._held.append((message, message.first_sample + len(message.pcm) // 2))
        if message.last:
            self._settle()
        self._go_on()

    def _is_too_late(self, message: AssistantAudio) -> bool:
        """Return whether it was flushed already: after a crash a flush can overtake audio."""
        if 0 < message.sent_ns < self._flushed_ns:
            self._too_late.append(message.item_id)
            return True
        return not message.sent_ns and message.item_id in self._too_late

    def _is_overtaken(self, sent_ns: int) -> bool:
        """Return whether a later pause, resumption or flush was handled before this one."""
        if 0 < sent_ns < max(self._paused_ns, self._flushed_ns):
            return True
        self._paused_ns = sent_ns
        return False

    def _flush(self, sent_ns: int) -> None:
        self._flushed_ns = max(self._flushed_ns, sent_ns)
        held, self._held = self._held, collections.deque()
        self._clear(_Clearing("flush", sent_ns))
        for message, _ in held:  # also while it is being cleared: the next process must not play it
            self.done(message)

    def _clear(self, clearing: _Clearing) -> None:
        """Have the device discard what it has taken, and go on once it has said how far it was."""
        self.keep["clearing"] = clearing
        now_ns = time.monotonic_ns()
        self._device.catch_up(now_ns)
        for message in self._device.clear(now_ns):
            self._to_program.send(message)
        if self._device.clearing:
            self._clear_timer = self.after(_CLEAR_S, self._cleared)
        else:
            self._cleared()

    def _cleared(self) -> None:
        """Finish what the device was cleared for, with an estimate if it has not answered."""
        clearing: _Clearing | None = self.keep.pop("clearing", None)
        if clearing is None:
            return
        if self._clear_timer is not None:
            self._clear_timer.cancel()
            self._clear_timer = None
        if clearing.because == "flush":
            self._finish_flush(clearing.sent_ns)
        else:
            self._settle()
            self._finish_pause()
        while self._next:
            self._queue(self._next.popleft())

    def _finish_flush(self, sent_ns: int) -> None:
        now_ns = time.monotonic_ns()
        was_paused, clears = self._playout.paused, self._device.clears
        heard_ns = self._device.heard_until(now_ns)
        settled = self._playout.settle(heard_ns) if clears else None  # what was heard counts then
        flushed = self._playout.flush(now_ns, taken_back=clears, overheard=self._device.overheard)
        for message in self._device.flush(now_ns):  # silence first; the reports can wait
            self._to_program.send(message)
        settled = settled or self._playout.settle(heard_ns)
        self.send(PlaybackFlushed(*flushed, sent_ns))  # may overtake the positions before it
        self._report_positions(settled, now_ns)
        self._report_audio(settled)
        if was_paused:
            self._save()
        self._mark.note_heard(flushed.item_id)
        self._go_on()

    def _pause(self) -> None:
        if self._playout.paused:
            self._save()  # the message may be handled for the second time
            return
        if self._device.clears:
            self._clear(_Clearing("pause"))
            self._save()  # also while it is being cleared: the next process is not told to pause
        else:
            self._settle()
            self._finish_pause()

    def _finish_pause(self) -> None:
        self._playout.pause(taken_back=self._device.clears)
        if self._device.clears:
            for message in self._device.flush(time.monotonic_ns()):
                self._to_program.send(message)
        self._save()
        item_id, taken = self._playout.front()
        self.send(PlaybackPaused(item_id, taken // _SAMPLES_PER_MS))
        self._go_on()

    def _resume(self) -> None:
        if not self._playout.paused:
            return
        item_id, taken = self._playout.front()
        self._playout.resume()
        self._save()
        self.send(PlaybackResumed(item_id, taken // _SAMPLES_PER_MS))
        self._go_on()

    def _go_on(self) -> None:
        """Do what is due, and set the timers for what comes next."""
        now_ns = time.monotonic_ns()
        self._pump(now_ns)
        self._release()
        left_ns = self._playout.left_ns(now_ns)
        if left_ns is not None and self._timer is None:
            wait_s = min(_REPORT_S, left_ns / 1e9)
            self._timer = self.after(max(wait_s, _SOONEST_S), self._report)
        if self._better:
            self.post(self._change_if_quiet)  # not while a message is in hand
        if self._device.holds:
            self._wait(now_ns, something=left_ns is not None)
        if left_ns is None or self._is_still():
            self._levels.silent()

    def _wait(self, now_ns: int, *, something: bool) -> None:
        """Report that audio waits for a device; give it up after `output_hold_s`."""
        if not something:
            self._waits_since_ns = None
            return
        if self._waits_since_ns is None:
            self._waits_since_ns = now_ns
        hold_s = self.settings.output_hold_s
        if hold_s is not None and now_ns - self._waits_since_ns >= hold_s * 1e9:
            self._waits_since_ns = None
            self.send(Interrupt())  # so that it counts as not heard
        elif not self._playout.paused:
            item_id, taken = self._playout.front()
            self.send(PlayedPosition(item_id, taken, now_ns))

    def _is_still(self) -> bool:
        """Return whether it is paused and what the device had taken before has been heard."""
        return self._playout.paused and not self._settled

    def _pump(self, now_ns: int) -> None:
        """Do the work of a device without a thread."""
        if self._pump_timer is not None:
            self._pump_timer.cancel()
        try:
            messages, wait_s = self._device.pump(now_ns)
        except Exception:
            self._lose()  # the next incarnation opens a new one
            raise
        for message in messages:
            self._to_program.send(message)
        if wait_s is not None:
            self._pump_timer = self.after(wait_s, lambda: self._pump(time.monotonic_ns()))

    def _report(self) -> None:
        self._timer = None
        self._settle()
        self._report_faltering()
        self._go_on()
        if self._device.trouble != self._trouble:
            self._trouble = self._device.trouble
            self._say_trouble()

    # -- reports ------------------------------------------------------------------------------

    def _settle(self) -> None:
        now_ns = time.monotonic_ns()
        self._device.catch_up(now_ns)
        settled = self._playout.settle(self._device.heard_until(now_ns))
        self._report_audio(settled)
        self._report_positions(settled, now_ns)
        self._release()

    def _report_audio(self, settled: Settled) -> None:
        self._settled = bool(settled.audio)
        for audio in settled.audio:
            first = to_samples(audio.run_ns - self.session.epoch_ns) + audio.offset
            self._send_played(PlayedAudio(audio.pcm, audio.item_id, first))
            self._levels.heard(audio.pcm)

    def _send_played(self, played: PlayedAudio) -> None:
        """Send what was heard to the recorder, and keep it for the next one."""
        if self._recent is not None:
            self._recent.put(played.first_sample, played.pcm)
        self.send(played)

    def _report_positions(self, settled: Settled, now_ns: int) -> None:
        for item_id, played in settled.finished:
            self._mark.note_heard(item_id)
            self.send(PlayedPosition(item_id, played, now_ns, True))
            self.send(PlaybackEnded(item_id, played // _SAMPLES_PER_MS))
        position = settled.position
        if position is None or not position[1]:
            return
        if position != self._noted:
            self._noted = position
            self._mark.note_heard(*position)
        if position != self._told:
            self._tell_position(position, now_ns)

    def _tell_position(self, position: tuple[str, int], now_ns: int) -> None:
        """Tell realtime a new position: that of a new item, or where it rests, at once."""
        begins, is_wanted = position[0] != self._told[0], self.is_wanted(PlayedPosition)
        rests = self._playout.paused or self._playout.left_ns(now_ns) is None
        is_due = begins or rests or now_ns - self._told_ns >= _TELL_NS
        if not (is_due or is_wanted):  # nobody else follows it
            return
        self._told, self._told_ns = position, now_ns
        message = PlayedPosition(*position, now_ns)
        # The first one of an item must not overtake the last one of the item before it, and a last
        # one must not be lost. Another one is worthless once there is a next: it goes past the hub.
        if begins or rests or is_wanted or not self.send_past(message):
            self.send(message)

    def _release(self) -> None:
        """Acknowledge audio that the device has taken, and the end of an item once it is heard."""
        progress = self._playout.progress()
        while self._held:
            message, end = self._held[0]
            taken = progress.get(message.item_id, -1)
            if taken >= 0:  # the item is not over
                lone = len(self._held) == 1 and taken > message.first_sample
                if message.last or end - taken >= (_EARLY if lone else 1):
                    return
            self._held.popleft()
            self.done(message)

    def _say_trouble(self) -> None:
        if self._trouble:
            self.log.info(self._trouble)
            self.send(Notice(f"What the assistant says is not written: {self._trouble}."))


def _clamped(volume: float) -> float:
    return min(max(volume, 0.0), 1.0)
