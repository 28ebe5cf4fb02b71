"""Events of the session and its components, for programs (tags 100-119 and 140-159)."""

from __future__ import annotations

from typing import Literal

from messages.base import Event, Message
from messages.usage import Tokens

__all__ = [
    "AudioLost",
    "BudgetUsed",
    "ComponentCrashed",
    "ComponentParked",
    "ComponentRestarted",
    "Connected",
    "DeadLetter",
    "DeviceChanged",
    "DeviceFailed",
    "DeviceLost",
    "Disconnected",
    "EchoState",
    "FatalError",
    "FileOpened",
    "MessagesDropped",
    "Notice",
    "Reconnected",
    "RoundTrip",
    "ServerError",
    "SessionEnded",
    "SessionEnding",
    "SessionFailed",
    "SessionStarted",
    "SoundFaltered",
    "UsageUpdated",
]


class SessionStarted(Event, frozen=True, array_like=True, tag=100):
    """The session has started: every component is open."""

    event = "session_started"
    pids: dict[str, int]
    """Process id of each component, of ``supervisor``, and of ``sandbox`` if we started one."""
    server: str
    input: str
    output: str
    sandbox: bool = False
    epoch_ns: int = 0
    """``time.monotonic_ns()`` of sample 0 of the session timeline."""
    items: int = 0
    """Number of turns and tool calls of a conversation that goes on."""
    push_to_talk: bool = False
    """Whether the program marks the beginning and end of the user's turns."""


class ComponentCrashed(Event, frozen=True, array_like=True, tag=101):
    """A component raised, died or hung."""

    event = "component_crashed"
    component: str
    pid: int
    cause: str
    """The cause in one line: ``raised ValueError: …``, ``killed by SIGKILL``, …"""
    traceback: str = ""
    """Traceback of an exception; the stacks of all threads of a hang or a segmentation fault."""
    log_tail: tuple[str, ...] = ()
    """Its last 50 log records."""


class ComponentRestarted(Event, frozen=True, array_like=True, tag=102):
    """A component is open again, after a crash or in a new process that it asked for."""

    event = "component_restarted"
    component: str
    pid: int
    cause: str
    ms: float
    """Time from the detection of the crash until the component was open again."""
    incarnation: int
    """Number of the incarnation; the first is 1."""
    process: bool
    """Whether the component has a new process."""
    crashed: bool = True
    """False: the component asked for a new process: its sound device was lost or is back."""


class SupervisorRestarted(Event, frozen=True, array_like=True, tag=114):
    """The supervisor had died, and all components with it; another one goes on."""

    event = "supervisor_restarted"
    pid: int
    cause: str
    """The cause in one line: ``killed by SIGKILL``, an exception, …"""
    ms: float
    """Time from the detection of its death until every component was open again."""
    items: int
    """Number of turns and tool calls of the conversation so far."""


class ComponentParked(Event, frozen=True, array_like=True, tag=103):
    """A component is backing off: it crashed repeatedly without progress, and is retried later."""

    event = "component_parked"
    component: str
    cause: str
    retry_s: float
    """Seconds until it is started again."""


class DeadLetter(Event, frozen=True, array_like=True, tag=104):
    """A message will never be handled."""

    event = "dead_letter"
    component: str
    message: str
    """The name of the message's type."""
    reason: str
    begun: int
    """How often a handler was called with it."""
    about: str = ""
    """The ids in it, such as ``call_id=call_7``; never the text of the conversation."""
    audio_ms: int = 0
    """Length of the audio that it carried."""


class Reconnected(Event, frozen=True, array_like=True, tag=105):
    """Realtime has a new connection to the server."""

    event = "reconnected"
    state_restored: bool
    """Whether the whole conversation so far was replayed to the server."""
    items: int
    """Number of items of the conversation that were replayed."""
    gap_ms: int
    """How long there was no connection."""
    cause: str = ""
    missing: int = 0
    """Number of turns of the user that could not be replayed. Without transcription, a turn is only
    known as audio, which is kept for half a minute."""


class ServerError(Event, frozen=True, array_like=True, tag=106):
    """The server refused a request (its `error` event); the session continues."""

    event = "server_error"
    code: str
    text: str
    param: str = ""


class Notice(Event, frozen=True, array_like=True, tag=107):
    """A sentence for the person at the screen."""

    event = "notice"
    text: str


class SessionFailed(Event, frozen=True, array_like=True, tag=108):
    """The session cannot continue; the reason says in plain words why, and what to do."""

    event = "session_failed"
    reason: str
    component: str = ""


class SessionEnded(Event, frozen=True, array_like=True, tag=109):
    """The last event of a session: a summary of its work and losses, and the reason of its end."""

    event = "summary"
    reason: str
    turns: int
    tool_calls: int
    restarts: dict[str, int]
    lost: tuple[str, ...]
    """A phrase for each loss."""
    files: tuple[str, ...]
    """Paths of the files that were written."""
    seconds: float
    failed: bool = False
    faltered: tuple[str, ...] = ()
    """A phrase with a count for each kind of underrun or overrun (`SoundFaltered`)."""


class MessagesDropped(Event, frozen=True, array_like=True, tag=111):
    """A mailbox was full, and the oldest messages of a type were dropped to make room.

    Published at most once a second, with the counts since the last time.
    """

    event = "messages_dropped"
    component: str
    """The owner of the mailbox; ``program``: your program did not read its messages."""
    message: str
    """The name of the messages' type."""
    count: int
    audio_ms: int = 0
    """Length of the audio that they carried."""


class AudioLost(Event, frozen=True, array_like=True, tag=112):
    """Audio was lost in a component."""

    event = "audio_lost"
    component: str
    """``microphone``: it was not captured; ``speaker``: it was perhaps not heard; ``recorder``: it
    is missing in the recording; ``realtime``: it was said while there was no connection, for longer
    than audio is kept, so that no server has heard it."""
    audio_ms: int
    reason: str


class SoundFaltered(Event, frozen=True, array_like=True, tag=113):
    """The sound had a gap or a crackle: an underrun or an overrun.

    Published at most once a second for each reason, with the counts since the last time.
    """

    event = "sound_faltered"
    component: str
    """``speaker`` or ``microphone``."""
    reason: str
    """A phrase: the assistant's audio came too late, or the sound card was not served in time
    because the machine was too busy."""
    count: int
    """Number of underruns or overruns."""
    silent_ms: int = 0
    """Duration of the silence in between; 0: unknown."""

    @property
    def text(self) -> str:
        """All of this in one phrase."""
        times = "once" if self.count == 1 else f"{self.count} times"
        silence = f", {self.silent_ms} ms of silence" if self.silent_ms else ""
        return f"{times} at the {self.component} ({self.reason}{silence})"

    def plus(self, other: SoundFaltered) -> SoundFaltered:
        """Return the sum of this event and another one with the same reason."""
        count, silent_ms = self.count + other.count, self.silent_ms + other.silent_ms
        return SoundFaltered(self.component, self.reason, count, silent_ms)


class DeviceFailed(Event, frozen=True, array_like=True, tag=119):
    """A method of a user's device raised; the session continues without the device."""

    event = "device_failed"
    component: str
    """``microphone`` or ``speaker``."""
    operation: str
    """The method that raised, such as ``play_chunk``."""
    error: str
    """The error in one line, such as ``ConnectionError: the line is dead``."""
    retry_s: float | None = None
    """Seconds until the device is started again; None: it is not started again."""


class DeviceLost(Event, frozen=True, array_like=True, tag=140):
    """A sound device has stopped working; `DeviceChanged` follows with the device used instead."""

    event = "device_lost"
    component: str
    """``microphone`` or ``speaker``."""
    device: str
    reason: str


class DeviceChanged(Event, frozen=True, array_like=True, tag=141):
    """From now on another sound device is used, or the same one again after it was lost.

    While the chosen device is missing, the default device stands in for it, or ``silence`` or
    ``null`` if there is none. The chosen device is used again as soon as it is back.
    """

    event = "device_changed"
    component: str
    """``microphone`` or ``speaker``."""
    wanted: str
    """The device that was chosen."""
    using: str
    """The device that is used now."""
    reason: str = ""
    """Why the chosen device is not used; empty: it is used."""


class EchoState(Event, frozen=True, array_like=True, tag=142):
    """Whether the loudspeaker's echo is cancelled, so that speech can interrupt the assistant.

    The microphone reports each change and, while something is played, every five seconds. With
    ``duplex="auto"`` the assistant listens while it speaks only if the state is ``cancelled``.
    """

    event = "echo_state"
    state: Literal["off", "learning", "cancelled", "failed"]
    """``off``: the echo is not to be cancelled; ``learning``: not known yet; ``cancelled``: the
    echo is cancelled, or there is none; ``failed``: the echo is not cancelled."""
    erle_db: float = 0.0
    """Median attenuation of the echo (echo return loss enhancement); 0.0: unknown."""
    delay_ms: int | None = None
    """Time from the loudspeaker to the microphone; None: unknown."""
    reason: str = ""
    """Why it is ``off`` or ``failed``, as a phrase."""
    from_sample: int = 0
    """The first sample of the session timeline for which this holds."""


class RoundTrip(Event, frozen=True, array_like=True, tag=145):
    """How long the server took to answer a ping; published every five seconds.

    Example:
        ```python
        from rtvoice import Agent, RoundTrip

        agent = Agent()
        agent.event_bus.subscribe(RoundTrip, lambda event: print(f"{event.ms:.0f} ms"))
        ```
    """

    event = "round_trip"
    on_demand = True
    ms: float
    """Time from the ping until its answer was read, in milliseconds."""


class UsageUpdated(Event, frozen=True, array_like=True, tag=143):
    """What the conversation has used so far; published after each answer.

    The numbers are sums, so an event that is lost or comes twice changes nothing. The tokens of an
    answer that was cut off by a lost connection are unknown.

    Example:
        ```python
        from rtvoice import Agent, UsageUpdated

        agent = Agent()
        subscription = agent.event_bus.subscribe(
            UsageUpdated, lambda event: print(event.tokens.total, event.dollars)
        )
        ```
    """

    event = "usage_updated"
    response_id: str
    """The answer that was counted last; empty: none yet, a conversation goes on."""
    tokens: Tokens
    dollars: float | None = None
    """The price in US dollars, without transcription; None: the price of the model is not known."""


class BudgetUsed(Event, frozen=True, array_like=True, tag=144):
    """The conversation has used 80 % of its budget, or all of it.

    After the second one, the assistant says goodbye and the conversation ends (``budget``).

    Example:
        ```python
        from rtvoice import Agent, BudgetUsed

        agent = Agent(budget=0.50)
        subscription = agent.event_bus.subscribe(
            BudgetUsed, lambda event: print(f"{event.percent} % are used")
        )
        ```
    """

    event = "budget_used"
    percent: Literal[80, 100]
    tokens: int
    """All tokens so far."""
    dollars: float | None = None
    """The price so far; None: it is not known."""


class FileOpened(Message, frozen=True, array_like=True, tag=118):
    """Component to supervisor: it writes this output file."""

    path: str


class FatalError(Message, frozen=True, array_like=True, tag=110):
    """Component to supervisor: end the session as failed; going on is useless (a wrong key)."""

    reason: str


class Connected(Event, frozen=True, array_like=True, tag=115):
    """The first connection to the server is ready (later ones: `Reconnected`)."""

    event = "connected"
    server: str


class Disconnected(Event, frozen=True, array_like=True, tag=116):
    """The connection to the server is lost; a new one is made automatically (`Reconnected`)."""

    event = "disconnected"
    cause: str


class SessionEnding(Event, frozen=True, array_like=True, tag=117):
    """The components are closing; `SessionEnded` follows once they have closed."""

    event = "session_ending"
    reason: str
