"""Messages that carry or control audio (tags 20-39 and 80-99).

All audio is 16-bit little-endian mono PCM at 24 kHz. There are two counts of samples:
``first_sample`` of captured and of played audio is a position on the timeline of the session (0 is
`SessionInfo.epoch_ns`); positions of the assistant's audio are counted from the start of its item.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from messages.base import Message

__all__ = [
    "SILENCE_DBFS",
    "AskToPass",
    "AssistantAudio",
    "CaptureEnded",
    "CapturedAudio",
    "DeviceInUse",
    "FlushPlayback",
    "InputLevel",
    "Level",
    "MayPass",
    "OutputLevel",
    "PausePlayback",
    "PlaybackFlushed",
    "PlayedAudio",
    "PlayedPosition",
    "ProgramCapture",
    "ProgramCaptureEnded",
    "ProgramFlush",
    "ProgramFlushed",
    "ProgramPlayed",
    "ProgramPlayout",
    "ProgramVolume",
    "ReplayCapture",
    "ReplayEnded",
    "ReplayedAudio",
    "ResumePlayback",
    "SetMuted",
    "SetVolume",
    "UseInput",
    "UseOutput",
]


class CapturedAudio(Message, frozen=True, array_like=True, tag=20):
    """Microphone to realtime and recorder: one captured block (silence while muted)."""

    pcm: bytes
    first_sample: int
    """Position on the session timeline; a jump means that nothing was captured in between."""
    captured_ns: int
    """``time.monotonic_ns()`` when the device had delivered the last sample of the block."""
    gap: bool = False
    """Whether audio before this block is lost: the device was reopened, or the process died."""


class AssistantAudio(Message, frozen=True, array_like=True, tag=21):
    """Realtime to speaker: audio of one item, as it came from the server."""

    attempts = 3
    pcm: bytes
    item_id: str
    response_id: str
    first_sample: int
    """Position of ``pcm`` in the item's audio."""
    last: bool = False
    """Whether this is the last audio of the item (``pcm`` may be empty)."""
    sent_ns: int = 0
    """``time.monotonic_ns()`` when the server's event was read."""
    content_index: int = 0


class PlayedAudio(Message, frozen=True, array_like=True, tag=22):
    """Speaker to recorder: audio that the device has played, with the volume applied."""

    on_demand = True
    pcm: bytes
    item_id: str
    first_sample: int
    """Position on the session timeline, by the device's clock."""


class PlayedPosition(Message, frozen=True, array_like=True, tag=23):
    """Speaker to realtime: the playback position, four times a second, and at each item's end.

    If a program or a component wants it too, it comes ten times a second.
    """

    item_id: str
    played_samples: int
    """Samples of the item that were played."""
    at_ns: int
    """``time.monotonic_ns()`` of this position."""
    finished: bool = False
    """Whether the item was played to its end."""


class FlushPlayback(Message, frozen=True, array_like=True, tag=24):
    """Realtime to speaker: be silent now, and discard all audio sent before this message."""

    urgent = direct = True
    flushes = (AssistantAudio,)
    attempts = 3
    reason: str
    sent_ns: int = 0


class PlaybackFlushed(Message, frozen=True, array_like=True, tag=25):
    """Speaker to realtime: where playback stopped; the answer to `FlushPlayback`.

    If nothing was playing, it names the last item that was heard to its end, even if that is long
    ago: this may overtake the `PlayedPosition` that said so. ``item_id`` is empty if there is none.
    """

    urgent = direct = True
    item_id: str
    played_samples: int
    at_ns: int = 0
    flush_ns: int = 0
    """``sent_ns`` of the `FlushPlayback` that this answers."""


class PausePlayback(Message, frozen=True, array_like=True, tag=81):
    """Realtime to speaker: be silent, and keep all audio until `ResumePlayback` or `FlushPlayback`.

    It is sent while it is not decided whether the user interrupts.
    """

    urgent = direct = True
    attempts = 3
    sent_ns: int = 0


class ResumePlayback(Message, frozen=True, array_like=True, tag=82):
    """Realtime to speaker: continue with the sample at which the pause began."""

    attempts = 3
    sent_ns: int = 0


class PlaybackLost(Message, frozen=True, array_like=True, tag=83):
    """Speaker to realtime: all that waited to be played is lost; where playback has stopped.

    The supervisor, which holds what waits, has died.
    """

    attempts = 3
    item_id: str
    """The item that was playing; empty: none."""
    played_samples: int
    """Samples of it that were played, as far as the speaker's last report."""


class DeviceInUse(Message, frozen=True, array_like=True, tag=80):
    """Microphone or speaker to realtime: the device that it has opened."""

    attempts = 3
    direction: Literal["input", "output"]
    name: str
    card: bool
    """Whether the device is a sound card, so that the microphone hears the loudspeaker."""


class UseInput(Message, frozen=True, array_like=True, tag=85):
    """Program to the microphone: use this sound card from now on, instead of another one."""

    attempts = 3
    device: str
    """``default``, the device's index, or a part of its name."""


class UseOutput(Message, frozen=True, array_like=True, tag=86):
    """Program to the speaker: use this sound card from now on, instead of another one."""

    attempts = 3
    device: str
    """``default``, the device's index, or a part of its name."""


class ReplayCapture(Message, frozen=True, array_like=True, tag=26):
    """Realtime to microphone: send again the audio captured since this sample (at most 30 s)."""

    from_sample: int
    request_id: int


class ReplayedAudio(Message, frozen=True, array_like=True, tag=27):
    """Microphone to realtime: a block of captured audio, sent again."""

    pcm: bytes
    first_sample: int
    request_id: int


class ReplayEnded(Message, frozen=True, array_like=True, tag=28):
    """Microphone to realtime: the replay is complete; live blocks continue at ``next_sample``."""

    next_sample: int
    request_id: int


class CaptureEnded(Message, frozen=True, array_like=True, tag=29):
    """Microphone to realtime: the input has ended; silence follows."""

    urgent = True
    attempts = 3
    last_sample: int


class SetMuted(Message, frozen=True, array_like=True, tag=30):
    """To the microphone: deliver silence (True) or the captured audio (False)."""

    attempts = 3
    muted: bool


class SetVolume(Message, frozen=True, array_like=True, tag=31):
    """To the speaker and the tools: playback volume, 0.0-1.0."""

    attempts = 3
    volume: float


class ProgramCapture(Message, frozen=True, array_like=True, tag=32):
    """Program to microphone: audio of the program's input device, of any length."""

    pcm: bytes
    sample_rate: int = 24_000
    captured_ns: int = 0
    number: int = 0
    """Counts the pieces of a session from 1, as they may come twice; 0: it is not counted."""


class ProgramCaptureEnded(Message, frozen=True, array_like=True, tag=33):
    """Program to microphone: the program's input device has ended or failed."""

    attempts = 3
    error: str | None = None
    pauses: bool = False
    """Whether the program will start the device again; until then, silence is captured."""


class ProgramPlayout(Message, frozen=True, array_like=True, tag=34):
    """Speaker to program: audio for the program's output device.

    It is sent at most 200 ms ahead of real time.
    """

    urgent = passes = True
    pcm: bytes
    first_sample: int
    """Position since the start of the device, without gaps; `ProgramPlayed` uses the same count."""


class ProgramFlush(Message, frozen=True, array_like=True, tag=35):
    """Speaker to program: clear the device's buffer."""

    urgent = passes = True
    flushes = (ProgramPlayout,)
    number: int = 0
    """Number that the answer, `ProgramFlushed`, repeats; 0: no answer is wanted."""


class ProgramFlushed(Message, frozen=True, array_like=True, tag=84):
    """Program to speaker: the device's buffer is cleared; how far the device had played by then."""

    urgent = direct = True
    number: int
    """That of the `ProgramFlush`."""
    played_samples: int
    """In the count of `ProgramPlayout.first_sample`; -1: unknown."""
    at_ns: int
    """``time.monotonic_ns()`` when the buffer was cleared."""


class ProgramPlayed(Message, frozen=True, array_like=True, tag=36):
    """Program to speaker: how much of the audio the program's device has played."""

    played_samples: int
    at_ns: int
    playing: bool = False
    """Whether the device still plays; if so, its position moves on until the next report, and one
    that does not grow counts too."""
    waiting_samples: int = 0
    """Samples that the device has not taken yet."""


class ProgramVolume(Message, frozen=True, array_like=True, tag=39):
    """Speaker to program: the volume, 0.0-1.0, for a device that applies it itself."""

    passes = True
    volume: float


class AskToPass(Message, frozen=True, array_like=True, tag=91):
    """Speaker to program: everything sent through the supervisor before this has arrived.

    A program that can be sent messages past the supervisor (`Message.passes`) answers.
    """

    number: int


class MayPass(Message, frozen=True, array_like=True, tag=92):
    """Program to speaker: what is sent past the supervisor cannot overtake anything."""

    number: int
    """That of the `AskToPass`."""


# -- levels ---------------------------------------------------------------------------------------

SILENCE_DBFS = -96.0
"""The level of silence, and the lowest level that is reported."""


class Level(Message, frozen=True, array_like=True):
    """The level of a tenth of a second, in dBFS: decibels relative to full scale.

    It is sent only to subscribers of this class or its subclasses; without subscribers, it is not
    computed. A full-scale sine wave has a mean of -3.0 and a peak of 0.0; speech close to a
    microphone has a mean of -35 to -15; silence has -96.0 for both.

    Example:
        ```python
        from rtvoice import Agent, Level

        agent = Agent()
        agent.event_bus.subscribe(Level, lambda level: print(type(level).__name__, level.rms_dbfs))
        ```
    """

    on_demand = True
    event: ClassVar[str] = ""
    rms_dbfs: float
    """The mean (root mean square), -96.0 to 0.0."""
    peak_dbfs: float
    """The loudest sample, -96.0 to 0.0; if it is often 0.0, the audio clips: turn it down."""


class InputLevel(Level, frozen=True, array_like=True, tag=37):
    """Microphone: the level of the captured audio, ten times a second; silence while muted.

    Example:
        ```python
        from rtvoice import Agent, InputLevel

        agent = Agent()
        agent.event_bus.subscribe(InputLevel, lambda level: print(level.peak_dbfs))
        ```
    """

    event = "input_level"


class OutputLevel(Level, frozen=True, array_like=True, tag=38):
    """Speaker: the level of the played audio, ten times a second; at the end once silence.

    The volume is included, unless a device of the program applies it (`set_volume`).

    Example:
        ```python
        from rtvoice import Agent, OutputLevel

        agent = Agent()
        agent.event_bus.subscribe(OutputLevel, lambda level: print(level.rms_dbfs))
        ```
    """

    event = "output_level"
