"""Sound on its way (tags 20-39 and 80-99). All of it 16-bit little-endian mono PCM at 24 kHz.

Two clocks: ``first_sample`` of captured and of played audio counts samples on the timeline of the
session (0 is `SessionInfo.epoch_ns`); positions of the assistant's audio count within its item.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from messages.base import Message

__all__ = [
    "SILENCE_DBFS",
    "AssistantAudio",
    "CaptureEnded",
    "CapturedAudio",
    "DeviceInUse",
    "FlushPlayback",
    "InputLevel",
    "Level",
    "OutputLevel",
    "PausePlayback",
    "PlaybackFlushed",
    "PlayedAudio",
    "PlayedPosition",
    "ProgramCapture",
    "ProgramCaptureEnded",
    "ProgramFlush",
    "ProgramPlayed",
    "ProgramPlayout",
    "ProgramVolume",
    "ReplayCapture",
    "ReplayEnded",
    "ReplayedAudio",
    "ResumePlayback",
    "SetMuted",
    "SetVolume",
]


class CapturedAudio(Message, frozen=True, array_like=True, tag=20):
    """Microphone to realtime and recorder: one block as it was captured (silence when muted)."""

    pcm: bytes
    first_sample: int
    """On the session timeline; a jump means that nothing was captured in between."""
    captured_ns: int
    """``time.monotonic_ns()`` when the device had delivered the last sample of the block."""
    gap: bool = False
    """Whether something before this block is lost (device reopened, process died)."""


class AssistantAudio(Message, frozen=True, array_like=True, tag=21):
    """Realtime to speaker: audio of one item, as it came from the server."""

    attempts = 3
    pcm: bytes
    item_id: str
    response_id: str
    first_sample: int
    """Of ``pcm``, counted from the start of the item's audio."""
    last: bool = False
    """No audio of this item follows (``pcm`` may be empty)."""
    sent_ns: int = 0
    """``time.monotonic_ns()`` when the server's event had been read."""
    content_index: int = 0


class PlayedAudio(Message, frozen=True, array_like=True, tag=22):
    """Speaker to recorder: what the device has played, at the volume it was played."""

    pcm: bytes
    item_id: str
    first_sample: int
    """On the session timeline, by the device's clock."""


class PlayedPosition(Message, frozen=True, array_like=True, tag=23):
    """Speaker to realtime, ten a second at most and at the end of each item: what is played."""

    item_id: str
    played_samples: int
    """Of the item, from its start."""
    at_ns: int
    """``time.monotonic_ns()`` at which that was true."""
    finished: bool = False
    """The item was played to its end."""


class FlushPlayback(Message, frozen=True, array_like=True, tag=24):
    """Realtime to speaker: be silent now and throw away everything sent before this message."""

    flushes = (AssistantAudio,)
    attempts = 3
    reason: str
    sent_ns: int = 0


class PlaybackFlushed(Message, frozen=True, array_like=True, tag=25):
    """Speaker to realtime, the answer to `FlushPlayback`: where playback stopped.

    ``item_id`` is empty when nothing was playing.
    """

    item_id: str
    played_samples: int
    at_ns: int = 0
    flush_ns: int = 0
    """``sent_ns`` of the `FlushPlayback` that this answers."""


class PausePlayback(Message, frozen=True, array_like=True, tag=81):
    """Realtime to speaker: be silent, and keep what is here and what comes until it is decided.

    `ResumePlayback` or `FlushPlayback` end the pause.
    """

    attempts = 3


class ResumePlayback(Message, frozen=True, array_like=True, tag=82):
    """Realtime to speaker: go on with the sample at which the pause began."""

    attempts = 3


class DeviceInUse(Message, frozen=True, array_like=True, tag=80):
    """Microphone or speaker to realtime: which device it has opened."""

    attempts = 3
    direction: Literal["input", "output"]
    name: str
    card: bool
    """Whether it is a sound device of this machine, that is heard and hears in the room."""


class ReplayCapture(Message, frozen=True, array_like=True, tag=26):
    """Realtime to microphone: send again what was captured from this sample on (30 s at most)."""

    from_sample: int
    request_id: int


class ReplayedAudio(Message, frozen=True, array_like=True, tag=27):
    """Microphone to realtime: a block of `CapturedAudio` again."""

    pcm: bytes
    first_sample: int
    request_id: int


class ReplayEnded(Message, frozen=True, array_like=True, tag=28):
    """Microphone to realtime: the replay is complete; live blocks go on at ``next_sample``."""

    next_sample: int
    request_id: int


class CaptureEnded(Message, frozen=True, array_like=True, tag=29):
    """Microphone to realtime: the input has come to its end; silence follows."""

    attempts = 3
    last_sample: int


class SetMuted(Message, frozen=True, array_like=True, tag=30):
    """To the microphone: deliver silence (True) or what is heard (False)."""

    attempts = 3
    muted: bool


class SetVolume(Message, frozen=True, array_like=True, tag=31):
    """To the speaker and the tools: playback volume, 0.0-1.0."""

    attempts = 3
    volume: float


class ProgramCapture(Message, frozen=True, array_like=True, tag=32):
    """Program to microphone: audio of an input device that lives in the program, of any length."""

    pcm: bytes
    sample_rate: int = 24_000
    captured_ns: int = 0


class ProgramCaptureEnded(Message, frozen=True, array_like=True, tag=33):
    """Program to microphone: the program's input device has ended or failed."""

    attempts = 3
    error: str | None = None
    pauses: bool = False
    """Whether it is started again: silence until then."""


class ProgramPlayout(Message, frozen=True, array_like=True, tag=34):
    """Speaker to program: audio for an output device that lives in the program.

    At most 200 ms ahead of real time.
    """

    pcm: bytes
    first_sample: int
    """Counted from the start of the device, without gaps: what `ProgramPlayed` refers to."""


class ProgramFlush(Message, frozen=True, array_like=True, tag=35):
    """Speaker to program: clear the device's buffer."""

    flushes = (ProgramPlayout,)


class ProgramPlayed(Message, frozen=True, array_like=True, tag=36):
    """Program to speaker: how much of what was handed over the program's device has played."""

    played_samples: int
    at_ns: int
    playing: bool = False
    """Whether it still plays, so that the number holds although it does not grow."""
    waiting_samples: int = 0
    """How many samples the device has not taken yet."""


class ProgramVolume(Message, frozen=True, array_like=True, tag=39):
    """Speaker to program: how loud its device, which scales by itself, shall play, 0.0-1.0."""

    volume: float


# -- levels ---------------------------------------------------------------------------------------

SILENCE_DBFS = -96.0
"""The level of silence; nothing is told to be lower."""


class Level(Message, frozen=True, array_like=True):
    """How loud a tenth of a second was, in dBFS: decibels below the loudest that there can be.

    Told to those only who name it (or its subclasses): while there are none, nothing is computed.
    A sine wave as loud as can be has a mean of -3.0 and a peak of 0.0; speech close to a
    microphone a mean of -35 to -15; silence has -96.0 of both.

    Example:
        ```python
        from rtvoice import Agent, Level

        agent = Agent()
        agent.event_bus.subscribe(Level, lambda level: print(type(level).__name__, level.rms_dbfs))
        ```
    """

    event: ClassVar[str] = ""
    rms_dbfs: float
    """The mean (root of the mean square), -96.0 to 0.0."""
    peak_dbfs: float
    """The loudest sample, -96.0 to 0.0; at 0.0 again and again it is clipped: turn it down."""


class InputLevel(Level, frozen=True, array_like=True, tag=37):
    """Microphone: ten times a second, how loud the user is; silence while it is muted.

    Example:
        ```python
        from rtvoice import Agent, InputLevel

        agent = Agent()
        agent.event_bus.subscribe(InputLevel, lambda level: print(level.peak_dbfs))
        ```
    """

    event = "input_level"


class OutputLevel(Level, frozen=True, array_like=True, tag=38):
    """Speaker: ten times a second while it plays, how loud it plays; then once silence.

    At the volume that is set, unless a device of the program's applies it (`set_volume`).

    Example:
        ```python
        from rtvoice import Agent, OutputLevel

        agent = Agent()
        agent.event_bus.subscribe(OutputLevel, lambda level: print(level.rms_dbfs))
        ```
    """

    event = "output_level"
