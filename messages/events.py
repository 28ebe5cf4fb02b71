"""What happens to the session and its components (tags 100-119, 140-159): events for programs."""

from __future__ import annotations

from messages.base import Event, Message

__all__ = [
    "AudioLost",
    "ComponentCrashed",
    "ComponentParked",
    "ComponentRestarted",
    "Connected",
    "DeadLetter",
    "DeviceChanged",
    "DeviceFailed",
    "DeviceLost",
    "Disconnected",
    "FatalError",
    "FileOpened",
    "MessagesDropped",
    "Notice",
    "Reconnected",
    "ServerError",
    "SessionEnded",
    "SessionEnding",
    "SessionFailed",
    "SessionStarted",
    "SoundFaltered",
]


class SessionStarted(Event, frozen=True, array_like=True, tag=100):
    """Every component is open."""

    event = "session_started"
    pids: dict[str, int]
    """Process id of each component, and of ``supervisor`` (and ``sandbox`` if we started one)."""
    server: str
    input: str
    output: str
    sandbox: bool = False
    epoch_ns: int = 0
    """``time.monotonic_ns()`` of sample 0 of the session timeline."""


class ComponentCrashed(Event, frozen=True, array_like=True, tag=101):
    """A component raised, died or hung."""

    event = "component_crashed"
    component: str
    pid: int
    cause: str
    """In one line: ``raised ValueError: …``, ``killed by SIGKILL``, ``hung for 3.0 s``, …"""
    traceback: str = ""
    """Of its Python code; of a hang or a segmentation fault the stacks of all threads."""
    log_tail: tuple[str, ...] = ()
    """Its last 50 log records."""


class ComponentRestarted(Event, frozen=True, array_like=True, tag=102):
    """A component that crashed is open again, or has a new process for another reason."""

    event = "component_restarted"
    component: str
    pid: int
    cause: str
    ms: float
    """From noticing the crash until it was open again."""
    incarnation: int
    """1 for the first."""
    process: bool
    """Whether a new process was needed."""
    crashed: bool = True
    """False: it has asked for a new process, because its sound device was lost or is back."""


class ComponentParked(Event, frozen=True, array_like=True, tag=103):
    """A component crashes again and again without progress; it is tried again later."""

    event = "component_parked"
    component: str
    cause: str
    retry_s: float
    """After so long."""


class DeadLetter(Event, frozen=True, array_like=True, tag=104):
    """A message that will not be handled any more."""

    event = "dead_letter"
    component: str
    message: str
    """The name of its type."""
    reason: str
    begun: int
    """How often a handler was called with it."""
    about: str = ""
    """What it was about, by ids: ``call_id=call_7``. Never what was said."""
    audio_ms: int = 0
    """How much sound it carried."""


class Reconnected(Event, frozen=True, array_like=True, tag=105):
    """Realtime has a new connection to the server."""

    event = "reconnected"
    state_restored: bool
    """Whether the server was told the whole conversation so far."""
    items: int
    """How many items of the conversation it was told."""
    gap_ms: int
    """How long there was no connection."""
    cause: str = ""
    missing: int = 0
    """How many turns of the user it could not be told: without transcription what was said is known
    as sound only, which is remembered for half a minute."""


class ServerError(Event, frozen=True, array_like=True, tag=106):
    """The server refused something (`error` event); the session goes on."""

    event = "server_error"
    code: str
    text: str
    param: str = ""


class Notice(Event, frozen=True, array_like=True, tag=107):
    """Something the person at the screen should know, in a sentence."""

    event = "notice"
    text: str


class SessionFailed(Event, frozen=True, array_like=True, tag=108):
    """The session cannot go on; the reason is in plain words with what to do."""

    event = "session_failed"
    reason: str
    component: str = ""


class SessionEnded(Event, frozen=True, array_like=True, tag=109):
    """The last event: what was done, what was lost, why it ended."""

    event = "summary"
    reason: str
    turns: int
    tool_calls: int
    restarts: dict[str, int]
    lost: tuple[str, ...]
    """What was lost, in a phrase each."""
    files: tuple[str, ...]
    """Paths of what was written."""
    seconds: float
    failed: bool = False
    faltered: tuple[str, ...] = ()
    """What faltered (`SoundFaltered`), in a phrase each, with how often."""


class MessagesDropped(Event, frozen=True, array_like=True, tag=111):
    """A mailbox was full, and the oldest messages of a type were dropped to make room.

    Told once a second at most, with the sum since the last time.
    """

    event = "messages_dropped"
    component: str
    """Whose mailbox; ``program``: your program did not read what it was told."""
    message: str
    """The name of their type."""
    count: int
    audio_ms: int = 0
    """How much sound they carried."""


class AudioLost(Event, frozen=True, array_like=True, tag=112):
    """Sound that a component can not account for."""

    event = "audio_lost"
    component: str
    """``microphone``: it was not captured; ``speaker``: it was perhaps not heard; ``recorder``: it
    is not in the recording; ``realtime``: it was said while there was no connection, or before it
    was lost, for longer than is remembered, and no server has heard it."""
    audio_ms: int
    reason: str


class SoundFaltered(Event, frozen=True, array_like=True, tag=113):
    """Sound with a gap or a crackle in it.

    Told once a second at most for each reason, with the sum since the last time.
    """

    event = "sound_faltered"
    component: str
    """``speaker`` or ``microphone``."""
    reason: str
    """In a phrase: what the assistant says came too late, or the sound card was not served in time
    because the machine was too busy."""
    count: int
    """How often."""
    silent_ms: int = 0
    """How long it was silent in between; 0: nobody knows."""

    @property
    def text(self) -> str:
        """All of it in a phrase."""
        times = "once" if self.count == 1 else f"{self.count} times"
        silence = f", {self.silent_ms} ms of silence" if self.silent_ms else ""
        return f"{times} at the {self.component} ({self.reason}{silence})"

    def plus(self, other: SoundFaltered) -> SoundFaltered:
        """Return the sum of both, which have the same reason."""
        count, silent_ms = self.count + other.count, self.silent_ms + other.silent_ms
        return SoundFaltered(self.component, self.reason, count, silent_ms)


class DeviceFailed(Event, frozen=True, array_like=True, tag=119):
    """A device of the user's own raised; the session goes on without it."""

    event = "device_failed"
    component: str
    """``microphone`` or ``speaker``."""
    operation: str
    """The method that raised, such as ``play_chunk``."""
    error: str
    """In one line, such as ``ConnectionError: the line is dead``."""
    retry_s: float | None = None
    """When it is started again; None: it is not."""


class DeviceLost(Event, frozen=True, array_like=True, tag=140):
    """A sound device delivers or takes nothing any more; `DeviceChanged` tells what is used now."""

    event = "device_lost"
    component: str
    """``microphone`` or ``speaker``."""
    device: str
    reason: str


class DeviceChanged(Event, frozen=True, array_like=True, tag=141):
    """From now on another sound device is used, or the same one again after it was lost.

    While the chosen device is away, the default one takes its place; without any there is
    ``silence`` or ``null``. The chosen device is used again as soon as it is back.
    """

    event = "device_changed"
    component: str
    """``microphone`` or ``speaker``."""
    wanted: str
    """The device that was chosen."""
    using: str
    """The device that is used."""
    reason: str = ""
    """Why it is not the chosen one; empty: it is."""


class FileOpened(Message, frozen=True, array_like=True, tag=118):
    """Component to supervisor: it writes this file of the user's."""

    path: str


class FatalError(Message, frozen=True, array_like=True, tag=110):
    """Component to supervisor: fail the session, going on is pointless (a wrong key, say)."""

    reason: str


class Connected(Event, frozen=True, array_like=True, tag=115):
    """The server has begun the session, for the first time (later: `Reconnected`)."""

    event = "connected"
    server: str


class Disconnected(Event, frozen=True, array_like=True, tag=116):
    """The session with the server is gone; a new one is begun by itself (`Reconnected`)."""

    event = "disconnected"
    cause: str


class SessionEnding(Event, frozen=True, array_like=True, tag=117):
    """The components begin to close; `SessionEnded` follows when they have."""

    event = "session_ending"
    reason: str
