"""The microphone: captured sound as blocks on the timeline of the session."""

from __future__ import annotations

import collections
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar, NoReturn

import msgspec

from actors.base import Actor, StartAnew
from actors.devices.base import Capture, Captured
from actors.devices.card.reference import ReferenceReader
from actors.devices.echo import choice
from actors.devices.errors import DeviceError, DeviceLostError
from actors.devices.faltering import NOT_SERVED, Faltering
from actors.devices.mark import Mark
from actors.devices.opening import is_card, is_name, open_capture, why_not_instead
from actors.devices.own.program import ProgramInput
from actors.devices.recent import keep_recent, recent_sound
from actors.devices.units import to_ns, to_samples
from actors.level import Meter
from messages import (
    CONTROL,
    PCM_BYTES_PER_MS,
    SAMPLE_RATE,
    AudioLost,
    CapturedAudio,
    CaptureEnded,
    ComponentCrashed,
    DeviceInUse,
    DeviceLost,
    EchoState,
    InputLevel,
    Keep,
    Message,
    Notice,
    ProgramCapture,
    ProgramCaptureEnded,
    ReplayCapture,
    ReplayedAudio,
    ReplayEnded,
    SessionInfo,
    SetMuted,
    UseInput,
)

if TYPE_CHECKING:
    from actors.devices.echo.canceller import EchoCanceller
    from actors.inbox import Timer

__all__ = ["Microphone"]

_MEMORY = 30 * SAMPLE_RATE
"""Samples that are kept for a replay."""
_WAITING_BLOCKS = 250
"""Blocks that are buffered while the actor restarts: 10 s of 40 ms."""
_ZEROS_S = 3
"""A sound card that delivers nothing but zeros for this long hears nothing."""
_ZEROS_AGAIN_NS = 600_000_000_000
"""Minimum time between two reopenings because of all-zero input; a device that stays silent after
one is simply quiet."""
_REFERENCE_NS = 20_000_000
"""How long a block waits for what the loudspeaker has played, on a busy machine."""
_REFERENCE_LOOK_S = 0.003
_ECHO_NS = 5_000_000_000
"""Interval of reports about the echo while something plays."""
_HOLD_S = 0.4
"""Interval at which blocks that realtime has already are sent to the supervisor, several at once:
waking it for each block costs more than everything else that happens to the block."""
_DOUBT_S = 0.5
"""For this long no block waits: after one that did not go straight, after a replay, and after a
crash of realtime. A block may be missing at realtime then. Until that block comes through the
supervisor, realtime refuses the blocks that come straight."""
_MOST_HELD = SAMPLE_RATE // 2
"""At most this many samples wait so, also of a burst: the next process has the newest second."""
_NEXT, _POSITION, _ENDED, _MUTED, _ENDING, _HEARD, _ZEROS, _LEAD, _SENT, _FED = range(10)
_UNMUTED_MARK, _MUTED_MARK = 1, 2


class _MicrophoneState(msgspec.Struct, frozen=True):
    muted: bool
    device: str = ""
    """The sound card that was chosen during the session; empty: that of the settings is used."""


class _KeptDevice:
    """The device and what is known about its sound; survives a raise of the actor.

    It has more attributes than other classes: each is a fact about the sound so far that a raise of
    the actor must not lose.
    """

    def __init__(self, session: SessionInfo) -> None:
        self.mark = Mark(session, "microphone.mark")
        """Survives the death of the process too: the next sample of the timeline, the position in a
        file, whether it has ended, whether the microphone is muted, whether the device of the
        program has ended, the last sample heard by a sound card, the time of the last reopening,
        the lead of the echo canceller's reference, the end of what the supervisor has, the number
        of the last piece of the program's sound."""
        self.device: Capture | None = None
        self.waiting: collections.deque[Captured] = collections.deque()
        self.memory: collections.deque[tuple[int, bytes]] = collections.deque()
        self.remembered = 0
        self.next = self.mark[_NEXT]
        self.anchored = False
        self.gap = not session.first
        self.dropped = 0
        self.behind = 0
        """How late the last block was, in samples, against the end of the block before it."""
        self.faltering = Faltering("microphone")
        self.heard_from_ns = 0
        """What was captured before this time is silenced: the microphone was muted."""
        self.canceller: EchoCanceller | None = None
        """Takes the echo out; None: echo is not cancelled in this process."""
        self.failure: Exception | None = None
        self.trouble = ""
        """The fault of the device that has been reported."""
        self.wake: Callable[[], None] = _nothing

    def put(self, block: Captured) -> None:
        """Buffer a block; called on the device's thread."""
        if len(self.waiting) >= _WAITING_BLOCKS:
            self.waiting.popleft()
            self.dropped += 1
        self.waiting.append(block)
        self.wake()

    def fail(self, error: Exception) -> None:
        """Record the error with which the device's thread has ended."""
        self.failure = error
        self.wake()

    def remember(self, first: int, pcm: bytes) -> None:
        self.memory.append((first, pcm))
        self.remembered += len(pcm) // 2
        while self.remembered > _MEMORY:
            self.remembered -= len(self.memory.popleft()[1]) // 2

    def close_device(self) -> None:
        if self.device is not None:
            self.device.close()
        self.device = None
        self.failure = None
        self.anchored = False
        self.gap = True

    def close(self) -> None:
        self.close_device()
        self.mark.close()


class Microphone(Actor):
    """Captures. It can be muted, and realtime has it replay what a lost connection had not heard.

    Dies when its device is lost, and is opened anew; when it raises for another reason, the device
    goes on without it and its blocks wait.

    It is longer than other classes: all that happens to a block on its way, and to the device, is
    here in one place.
    """

    collects = True
    accepts: ClassVar = {
        SetMuted: CONTROL,
        ReplayCapture: CONTROL,
        ProgramCapture: Keep(seconds=5, direct=True),
        ProgramCaptureEnded: CONTROL,
        UseInput: CONTROL,
        ComponentCrashed: CONTROL,
    }

    @classmethod
    def prepare(cls, names: Iterable[str]) -> None:
        super().prepare(filter(is_name, map(str.strip, names)))

    def opened(self) -> None:
        self._zero_blocks = 0
        self._all_zeros = True
        """Whether the device has delivered only zeros so far."""
        self._meter = Meter()
        self._said: set[str] = set()
        self._pump_timer: Timer | None = None
        self._reference_timer: Timer | None = None
        self._asked: Captured | None = None
        """The block whose reference was not there yet."""
        self._echo = EchoState("off")
        """The last state that was sent."""
        self._echo_sent_ns = 0
        line = self.keep.get("line")
        self._line: _KeptDevice = line or _KeptDevice(self.session)
        self.keep["line"] = self._line
        self._recent = keep_recent(self, always=True)
        self._hold_timer: Timer | None = None
        self._doubtful_until_s = 0.0
        """Until then, no block is held back."""
        self._muted = self._was_muted()
        state = self.saved(_MicrophoneState)
        self._chosen = state.device if state and self.session.resumed != "journal" else ""
        if self._chosen:
            self.settings = msgspec.structs.replace(self.settings, input=self._chosen)
        self._send_again()
        self._line.wake = lambda: self.post(self._forward)
        if self._line.device is None:
            self._open()
        self._forward()
        self._check()
        self._pump()
        self._look_out()

    def handle(self, message: Message) -> None:
        match message:
            case SetMuted(muted):
                self._mute(muted)
            case ReplayCapture(from_sample, request_id):
                self._replay(from_sample, request_id)
            case ProgramCapture():
                self._feed(message)
            case ComponentCrashed(component="realtime"):
                self._doubt()
            case ProgramCaptureEnded():
                self._end_program(message)
            case UseInput(device):
                self._use(device)

    def can_take_ahead(self, message: Message) -> bool:
        """Return whether no piece of the program's sound before it is still to come."""
        return type(message) is not ProgramCapture or message.number == self._line.mark[_FED] + 1

    def closed(self) -> None:
        if "line" in self.keep:
            self._line.wake = _nothing
            if self._line.device is not None and self._line.device.lookout is not None:
                self._line.device.lookout.close()
            self._send_held_back()
            self._report_faltering(at_once=True)
            if self._line.canceller is not None:
                self.log.info("reference", **self._line.canceller.account)

    def _was_muted(self) -> bool:
        """Return what was set last; the mark knows it where the saved state was withheld."""
        state = self.saved(_MicrophoneState)
        if mark := self._line.mark[_MUTED]:
            return mark == _MUTED_MARK
        return state.muted if state else self.settings.muted

    # -- the device ---------------------------------------------------------------------------

    def _open(self) -> None:
        line = self._line
        device = open_capture(self.settings, self.session, line.mark[_POSITION], self.crash)
        if (line.mark[_ENDED] or line.mark[_ENDING]) and isinstance(device, ProgramInput):
            device.end()
        line.device = device
        try:
            device.start(line.put, line.fail)
            self._prepare_canceller(device)
        except BaseException:
            line.close_device()
            raise
        self.log.info("microphone open", device=device.name, muted=self._muted)
        for message in device.news:
            self.send(message)
        self.send(DeviceInUse("input", device.name, device.card))
        if device.stands_in_because and self.session.first:
            self._say_once(f"The user is not heard: {device.stands_in_because}")
        line.trouble = ""
        if not self.session.first:
            line.trouble = device.trouble  # an earlier incarnation has reported it
        self._say_trouble()

    def _say_trouble(self) -> None:
        """Report a fault of the device when it is new."""
        line = self._line
        if line.device is not None and line.device.trouble != line.trouble:
            line.trouble = line.device.trouble
            if line.trouble:
                self._say_once(f"{line.trouble}.")

    def _prepare_canceller(self, device: Capture) -> None:
        """Import the echo canceller if it is to be used; what is captured meanwhile waits."""
        line, settings = self._line, self.settings
        cards = device.card and is_card(settings.output) and bool(self.session.directory)
        why = choice.why_not(settings, device.name, cards=cards)
        if not why and line.canceller is None:
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
            try:
                from actors.devices.echo.canceller import EchoCanceller
            except ImportError as error:
                why = f"pywebrtc-audio does not load: {error}"
            else:
                ring = ReferenceReader(self.session.file("."))
                line.canceller = EchoCanceller(ring, settings, line.mark[_LEAD])
                self.log.info("echo cancelling", engine="AEC3", lag=line.canceller.lag)
        if why:
            line.canceller = None
        if why and device.card and settings.echo_cancelling == "on" and self.session.first:
            self._say_once(f"Echo is not cancelled: {why}")
        if device.card and is_card(settings.output):
            self._send_echo(EchoState("off" if why else "learning", reason=why))

    def _send_echo(self, state: EchoState) -> None:
        self._echo, self._echo_sent_ns = state, time.monotonic_ns()
        self.send(state)

    def _check(self) -> None:
        device = self._line.device
        if device is None or device.check_s is None:
            return
        try:
            device.check(time.monotonic_ns())
        except DeviceLostError as error:
            self._replace(error.reason)
        except Exception:
            self._lose()
            raise
        self._report_faltering()
        self._say_trouble()
        self.after(device.check_s, self._check)

    def _report_faltering(self, *, at_once: bool = False) -> None:
        """Report overruns of the sound card, at most once a second."""
        line = self._line
        if line.device is not None:
            line.faltering.note(NOT_SERVED, line.device.faltered())
        for report in line.faltering.report(time.monotonic_ns(), at_once=at_once):
            self.log.info("sound faltered", times=report.count, because=report.reason)
            self.send(report)

    def _replace(self, reason: str) -> NoReturn:
        """Report that the device is lost, and ask for a new process: it may not even close."""
        assert self._line.device is not None
        self._line.device.note_loss()
        self.send(DeviceLost(self.name, self._line.device.name, reason))
        self._go_to_new_process(f"its device is lost: {reason}")

    def _use(self, device: str) -> None:
        """Open another sound card, in a new process: PortAudio lists the devices once."""
        if device == self.settings.input:
            return
        if why := why_not_instead(device, self.settings.input):
            self._say_once(f"The microphone stays: {why}")
            return
        self._chosen = device
        self.save(_MicrophoneState(self._muted, device))
        self.post(lambda: self._go_to_new_process(f"{device!r} was chosen"))

    def _go_to_new_process(self, why: str) -> NoReturn:
        self._pass_on_waiting(at_once=True)
        raise StartAnew(why)

    def _look_out(self) -> None:
        """Watch for a better device, and ask for a new process when it is there."""
        lookout = self._line.device.lookout if self._line.device is not None else None
        if lookout is not None:

            def found(reason: str) -> None:
                self.post(lambda: self._go_to_new_process(reason))

            lookout.start(found)

    def _lose(self) -> None:
        """Close a device that has failed, so that the next incarnation opens a new one."""
        self._pass_on_waiting(at_once=True)
        self._report_faltering(at_once=True)
        self._line.close_device()

    def _pump(self) -> None:
        device = self._line.device
        assert device is not None
        if self._pump_timer is not None:
            self._pump_timer.cancel()
        line = self._line
        wake, line.wake = line.wake, _nothing  # what it delivers now is passed on below
        try:
            wait_s = device.pump(time.monotonic_ns())
        except Exception:
            self._lose()  # the next incarnation opens a new one
            raise
        finally:
            line.wake = wake
        self._say_trouble()
        if wait_s is not None:
            self._pump_timer = self.after(wait_s, self._pump)
        if line.waiting or line.failure is not None:
            self._forward()

    # -- its sound ----------------------------------------------------------------------------

    def _forward(self) -> None:
        self._pass_on_waiting(at_once=self._line.failure is not None)
        if (failure := self._line.failure) is not None:
            self._lose()
            raise failure

    def _pass_on_waiting(self, *, at_once: bool = False) -> None:
        waiting = self._line.waiting
        while waiting and (at_once or not self._awaits_reference(waiting[0])):
            self._pass_on(waiting.popleft())

    def _awaits_reference(self, block: Captured) -> bool:
        """Return whether a block has to wait for what the loudspeaker played meanwhile."""
        canceller, now_ns = self._line.canceller, time.monotonic_ns()
        if canceller is None or now_ns - block.captured_ns > _REFERENCE_NS:
            return False
        if canceller.is_ready(block.pcm, now_ns, again=self._asked is block):
            return False
        self._asked = block
        if self._reference_timer is not None:
            self._reference_timer.cancel()
        self._reference_timer = self.after(_REFERENCE_LOOK_S, self._pass_on_waiting)
        return True

    def _pass_on(self, block: Captured) -> None:
        line, expected = self._line, self._line.next
        first = self._place(block)
        if line.gap and first > line.mark[_HEARD] > 0:
            self._report_loss(first - line.mark[_HEARD], block)
        pcm, begins_ns = block.pcm, block.first_ns
        if line.canceller is not None:
            pcm = self._without_echo(line.canceller, block, first, lost=first != expected)
            begins_ns -= to_ns(line.canceller.lag)
        if self._muted or begins_ns < line.heard_from_ns:
            pcm = bytes(len(pcm))
        else:
            self._watch_zeros(block.pcm)
        line.next = first + len(pcm) // 2
        if line.device is not None and line.device.jump_loses:
            line.mark[_HEARD] = line.next
        if self._recent is not None:
            self._recent.put(first, pcm)
        captured = CapturedAudio(pcm, first, block.captured_ns, line.gap)
        self._deliver(captured, follows=first == expected)
        if self.is_wanted(InputLevel):
            for level in self._meter.add(pcm):
                self.send(InputLevel(*level))
        line.gap = False
        line.remember(first, pcm)
        line.mark[_NEXT] = line.next
        line.mark[_POSITION] = block.position
        if block.used >= 0 and not line.mark[_ENDED]:
            self.send(CaptureEnded(first + block.used - 1))  # urgent: it leaves before the mark
            line.mark[_ENDED] = 1

    def _deliver(self, block: CapturedAudio, *, follows: bool) -> None:
        """Send a block: to realtime at once, and through the supervisor with those after it.

        Args:
            block: The block.
            follows: Whether it follows the one before it; otherwise realtime would wait for what is
                between them.
        """
        if follows:
            self.send_ahead(block)
        else:
            self.send(block)
        if not self.host.holds_back:
            self._doubt()
            return
        held = self._line.next - self._line.mark[_SENT]
        is_late = held > _MOST_HELD or time.monotonic() < self._doubtful_until_s
        if is_late or self.is_wanted(CapturedAudio):
            self._send_held_back()
        elif self._hold_timer is None:
            self._hold_timer = self.after(_HOLD_S, self._send_held_back)

    def _doubt(self) -> None:
        """Hold nothing back for a while."""
        self._doubtful_until_s = time.monotonic() + _DOUBT_S
        self._send_held_back()

    def _send_held_back(self) -> None:
        if self._hold_timer is not None:
            self._hold_timer.cancel()
            self._hold_timer = None
        self.send_held_back()
        self._line.mark[_SENT] = self._line.next

    def _send_again(self) -> None:
        """Send what the process before this one had not sent the supervisor when it died."""
        line = self._line
        sent, end = line.mark[_SENT], line.mark[_NEXT]
        first, pcm = recent_sound(self.session, self.name)
        if sent < end and (pcm := pcm[2 * max(0, sent - first) : 2 * max(0, end - first)]):
            end_ns = self.session.epoch_ns + to_ns(end)
            self.send(CapturedAudio(pcm, max(first, sent), end_ns))
        line.mark[_SENT] = end

    def _without_echo(
        self, canceller: EchoCanceller, block: Captured, first: int, *, lost: bool
    ) -> bytes:
        """Return a block without the loudspeaker's echo, and report whether that succeeds."""
        now_ns = time.monotonic_ns()
        pcm = canceller.process(block.pcm, block.first_ns, now_ns, lost=lost)
        self._line.mark[_LEAD] = canceller.lead_ms
        state = canceller.state(first)
        changed = (state.state, state.reason) != (self._echo.state, self._echo.reason)
        due = canceller.plays and now_ns - self._echo_sent_ns > _ECHO_NS
        if changed or due:
            if changed:
                of_it = {"erle_db": state.erle_db, "reason": state.reason, **canceller.account}
                self.log.info("echo", state=state.state, **of_it)
            self._send_echo(state)
        return pcm

    def _place(self, block: Captured) -> int:
        """Return the position of a block: right after the last one, unless it came too late."""
        line, device = self._line, self._line.device
        at = to_samples(block.first_ns - self.session.epoch_ns)
        if line.canceller is not None:
            at -= line.canceller.lag
        if line.dropped:
            self.log.warning("captured audio dropped", blocks=line.dropped)
            line.dropped = 0
            line.gap = True
        line.gap = line.gap or block.lost
        if not line.anchored:
            line.anchored = True
            return max(at, line.next, 0)
        behind, before = at - line.next, line.behind
        line.behind = behind
        jump = 0 if device is None else to_samples(device.jump_ns)
        if device is not None and (behind > jump or (block.lost and behind > 0)):
            suddenly = behind - before > jump // 2  # else its clock is slower than ours
            line.gap = line.gap or (device.jump_loses and suddenly)
            line.behind = 0
            return at
        return line.next

    def _report_loss(self, samples: int, block: Captured) -> None:
        """Report sound that was not captured; a file or a program waits instead."""
        if self._line.device is not None and self._line.device.jump_loses and not self._muted:
            ms = samples // (PCM_BYTES_PER_MS // 2)
            reason = NOT_SERVED if block.lost else "nothing was captured while it was down"
            self.send(AudioLost("microphone", ms, reason))

    def _watch_zeros(self, pcm: bytes) -> None:
        """Notice a sound card that delivers only zeros: no permission, a switch, a driver."""
        device = self._line.device
        if device is None or device.check_s is None:
            return
        if any(pcm):
            self._zero_blocks, self._all_zeros = 0, False
            return
        self._zero_blocks += 1
        if self._zero_blocks * len(pcm) // 2 >= _ZEROS_S * SAMPLE_RATE:
            self._zero_blocks = 0
            self.post(self._answer_zeros)

    def _answer_zeros(self) -> None:
        mark, now_ns = self._line.mark, time.monotonic_ns()
        if not mark[_ZEROS] or now_ns - mark[_ZEROS] > _ZEROS_AGAIN_NS:
            mark[_ZEROS] = now_ns
            self._replace("it delivers nothing but zeros")
        elif self._all_zeros:
            self._all_zeros = False
            self._say_zeros()

    def _say_zeros(self) -> None:
        self.log.info("the microphone delivers only zeros", seconds=_ZEROS_S)
        text = "Nothing is heard: is the microphone muted in the system?"
        if sys.platform == "darwin":
            text = (
                "Nothing is heard. Allow this terminal to use the microphone: System Settings, "
                "Privacy & Security, Microphone."
            )
        self.send(Notice(text))

    # -- commands -----------------------------------------------------------------------------

    def _mute(self, muted: bool) -> None:
        self._line.mark[_MUTED] = _MUTED_MARK if muted else _UNMUTED_MARK
        self.save(_MicrophoneState(muted, self._chosen))  # before any more sound leaves
        if self._muted and not muted:
            self._line.heard_from_ns = time.monotonic_ns()
        self._muted = muted
        self.log.info("microphone muted" if muted else "microphone unmuted")

    def _replay(self, from_sample: int, request_id: int) -> None:
        for first, pcm in self._line.memory:
            missing = from_sample - first
            if missing >= len(pcm) // 2:
                continue
            if missing > 0:
                first, pcm = from_sample, pcm[2 * missing :]  # noqa: PLW2901 - cut to it
            self.send(ReplayedAudio(pcm, first, request_id))
        self.send(ReplayEnded(self._line.next, request_id))
        self._doubt()

    def _feed(self, message: ProgramCapture) -> None:
        if message.number:
            if message.number <= self._line.mark[_FED]:
                return
            self._line.mark[_FED] = message.number
        device = self._line.device
        if not isinstance(device, ProgramInput):
            self._say_once(f"The program sends audio, but the input is {self.settings.input!r}.")
            return
        try:
            device.feed(message)
        except DeviceError as error:
            self._say_once(f"{error}.")
        self._pump()

    def _end_program(self, message: ProgramCaptureEnded) -> None:
        if message.error and not message.pauses:
            self._say_once(f"The program's input has failed: {message.error}")
        device = self._line.device
        if not isinstance(device, ProgramInput):
            return
        if message.pauses:
            device.pause()
        else:
            self._line.mark[_ENDING] = 1
            device.end()
        self._pump()

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self.log.info(text)
            self.send(Notice(text[0].upper() + text[1:]))


def _nothing() -> None:
    pass
