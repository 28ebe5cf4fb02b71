"""Between a program and the supervisor (tags 120-139), and what a session is made of."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from messages.base import Message
from messages.conversation import ToolSpec

__all__ = [
    "BUILTIN_TOOLS",
    "CHANGEABLE",
    "FAULTS",
    "INACTIVITY_TIMEOUT",
    "Inject",
    "RetentionRatio",
    "SemanticVad",
    "ServerVad",
    "SessionInfo",
    "Settings",
    "StartSession",
    "Status",
    "StatusRequest",
    "StopSession",
    "Subscribe",
]

BUILTIN_TOOLS = (
    "get_current_time",
    "adjust_volume",
    "change_assistant_response_speed",
    "stop_assistant_run",
)


CHANGEABLE = (
    "instructions",
    "voice",
    "language",
    "transcription_model",
    "transcription_prompt",
    "transcription_keywords",
    "transcription_delay",
    "turn_detection",
    "interruption",
    "duplex",
    "noise_reduction",
    "output_modality",
    "max_output_tokens",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning_effort",
    "truncation",
    "inactivity_timeout_s",
)
"""Fields of `Settings` that `UpdateSettings` may change while the session runs; ``voice`` only
until the assistant has been heard."""

INACTIVITY_TIMEOUT = "inactivity timeout"
"""The reason of a session that has ended because nobody had spoken."""


class ServerVad(msgspec.Struct, frozen=True, tag="server_vad", forbid_unknown_fields=True):
    """Turn detection by loudness (``turn_detection`` of the API)."""

    threshold: float = 0.5
    """0-1: how loud speech has to be."""
    prefix_padding_ms: int = 300
    """How much sound, in ms, before the first loud moment belongs to the turn."""
    silence_duration_ms: int = 500
    """After how much silence, in ms, the turn has ended."""
    idle_timeout_ms: int | None = None
    """5000-30000: when nobody has spoken for so long after an answer, the assistant speaks again,
    and again until the inactivity timeout, for which that does not count. None: it waits."""
    create_response: bool = True
    """Whether a turn is answered by itself; False: it is kept, and answered when that is asked for
    (`CreateResponse`)."""
    interrupt_response: bool = True
    """Whether speech interrupts an answer, at the server and here."""


class SemanticVad(msgspec.Struct, frozen=True, tag="semantic_vad", forbid_unknown_fields=True):
    """Turn detection by meaning (``turn_detection`` of the API)."""

    eagerness: Literal["auto", "low", "medium", "high"] = "auto"
    """How soon a turn is taken to have ended; ``low`` waits longest (8 s at most), ``high`` 2 s;
    ``auto`` is ``medium``, 4 s."""
    create_response: bool = True
    """As of `ServerVad`."""
    interrupt_response: bool = True
    """As of `ServerVad`."""


class RetentionRatio(
    msgspec.Struct, frozen=True, tag="retention_ratio", forbid_unknown_fields=True
):
    """How a conversation that has grown too long is shortened (``truncation`` of the API)."""

    ratio: float
    """0-1: how much of what may be kept is kept. Dropping more at once, such as with 0.8, is seldom
    needed, so that what is cached stays valid for longer."""
    token_limit: int | None = None
    """How many tokens may be kept, not counting instructions and tools; None: as many as the model
    takes."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a session is told at its start. Every component gets all of it."""

    instructions: str = ""
    model: str = "gpt-realtime-2.1-mini"
    voice: str = "marin"
    speed: float = 1.0
    """Speech speed, 0.25-1.5."""
    language: str | tuple[str, ...] | None = None
    """ISO 639-1 of what the user speaks, a hint for transcription; several where the model takes
    several."""
    transcription_model: str | None = None
    """None: the user's speech is not transcribed."""
    transcription_prompt: str | None = None
    """What to expect, for transcription: a text, or words that occur, as the model wants it."""
    transcription_keywords: tuple[str, ...] = ()
    """Words and names that occur, where the model takes them."""
    transcription_delay: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None
    """How long the model waits before it writes down what it hears, where it can choose."""
    greeting: str | None = None
    """A sentence with which the assistant begins."""
    turn_detection: ServerVad | SemanticVad | None = ServerVad()
    """None: the user says when a turn begins and ends (push-to-talk)."""
    interruption: Literal["immediate", "confirmed"] = "immediate"
    """When speech interrupts the assistant: at once, or when it has lasted 400 ms or has a text,
    so that a cough does not; until that is known, the assistant pauses."""
    duplex: Literal["auto", "half", "full"] = "auto"
    """Whether the server hears the user while the assistant is audible: ``full``, or not, ``half``.
    ``auto``: not if it would hear the assistant, from a sound card's loudspeaker by a sound card's
    microphone, neither of which is called a headset or headphones."""
    preroll_ms: int = 300
    """How much sound from before the key was pressed belongs to the turn, with push-to-talk;
    0-5000."""
    noise_reduction: Literal["near_field", "far_field"] | None = None
    """At the server, before turn detection: for a microphone close by, or far away."""
    output_modality: Literal["audio", "text"] = "audio"
    """Whether the assistant speaks, or only writes."""
    max_output_tokens: int | None = None
    """Of one answer, 1-4096, tool calls included; None: as many as the model gives."""
    tool_choice: str = "auto"
    """``auto``, ``none``, ``required`` or the name of a tool: whether the first answer to a turn
    has to call a tool. What follows the tool's answer need not."""
    parallel_tool_calls: bool | None = None
    """Whether the model may call several tools at once, of models that reason; None: it may."""
    reasoning_effort: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None
    """Of models that reason; None: ``low``."""
    truncation: Literal["auto", "disabled"] | RetentionRatio = "auto"
    """What becomes of a conversation that grows too long for the model: the oldest is dropped
    (``auto``, `RetentionRatio`), or answers fail (``disabled``)."""
    inactivity_timeout_s: float | None = 60.0
    """The session ends when nobody has spoken for so long; None: never."""

    input: str = "default"
    """``silence``, ``program``, ``default``, ``auto`` (``default``, or ``silence`` while
    there is no microphone), a WAV path, a device's index or part of its name."""
    output: str = "default"
    """``null``, ``program``, ``default``, ``auto`` (``default``, or ``null`` while there is no
    loudspeaker), a WAV path, a device's index or part of its name."""
    block_ms: int = 40
    """Length of a captured block, 10-100 ms."""
    volume: float = 1.0
    """0.0-1.0."""
    output_hold_s: float | None = 30.0
    """What the assistant says while there is no output device, because it was lost, waits so long
    for one; then it counts as not heard. 0: at once; None: it waits for ever."""
    muted: bool = False
    program_output_rate: int = 24_000
    """Hz; set by the session, as the next is."""
    program_output_scales: bool = False
    """Whether the program's output device applies the volume itself."""

    recording_path: str | None = None
    """A WAV file of both sides, the user left."""
    journal_path: str | None = None
    """Where history keeps its journal; None: in the session's own temporary directory."""

    server: str = "openai"
    """``openai``, ``sandbox`` or a ws:// or wss:// URL."""
    agent: str | None = None
    """``module:attr`` or ``file.py:attr`` that the tools process loads."""
    builtin_tools: tuple[str, ...] = BUILTIN_TOOLS
    program_tools: tuple[ToolSpec, ...] = ()
    """Tools that run in the program that embeds the session."""
    named_tools: str | None = None
    """``module:attr`` or ``file.py:attr`` of `Tools` that run in the tools process."""
    tool_timeout_s: float = 60.0
    """After so long the model is told that a tool did not finish."""
    components: dict[str, str] = {}
    """Components of the user's own: name to ``module:Class``."""
    import_path: tuple[str, ...] = ()
    """Folders in which names of the user's are looked up, after everything that is installed."""
    wire_events: tuple[str, ...] = ()
    """Names of the wire events that the program has subscribed to; see `WantWireEvents`."""

    hang_s: float = 3.0
    """A component that handles nothing for so long is ended and started again."""
    start_s: float = 15.0
    """Each component has to be open within so long."""
    stop_s: float = 5.0
    """The whole session ends within so long."""
    memory_limit_mib: int | None = 2048
    """What the process of your tools, and of each component of your own, may use; None: no limit.
    Enforced on Linux."""
    probes: bool = False
    """Answer fault injection (for tests)."""
    log_level: str = "INFO"
    max_seconds: float | None = None
    """The session ends after so long; None: never."""


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor knows only once the session runs."""

    epoch_ns: int
    """``time.monotonic_ns()`` of sample 0 of the session timeline."""
    directory: str
    """A directory of the session's own, deleted at its end."""
    server_url: str = ""
    """Where realtime connects to."""
    first: bool = True
    """Whether this component is opened for the first time in this session."""


class StartSession(Message, frozen=True, array_like=True, tag=120):
    """Program to supervisor, its first message."""

    settings: dict[str, Any]
    """Fields of `Settings` as plain values; what is absent is the agent's or the default."""
    subscribe: tuple[int, ...] = ()


class Subscribe(Message, frozen=True, array_like=True, tag=121):
    """Program to supervisor: the tags of the messages it wants from now on."""

    tags: tuple[int, ...]


class StatusRequest(Message, frozen=True, array_like=True, tag=122):
    """Program to supervisor: how are the components?"""

    call_id: int


class Status(Message, frozen=True, array_like=True, tag=123):
    """Supervisor to program, the answer to `StatusRequest`."""

    call_id: int
    components: dict[str, dict[str, Any]]
    """Per component: ``pid``, ``state``, ``restarts``, ``mailbox``, ``dropped``, ``handled``,
    ``memory_bytes`` (resident; None where the system does not tell), ``faltered`` (how often its
    sound did)."""


class StopSession(Message, frozen=True, array_like=True, tag=124):
    """Program to supervisor: end the session in order."""

    reason: str


class Inject(Message, frozen=True, array_like=True, tag=125):
    """Program to one component, accepted only with `Settings.probes`: fail in this way."""

    component: str
    fault: str
    """One of `FAULTS`, or the name of a signal (``SIGKILL``), which the supervisor sends."""


FAULTS = {
    "raise": "its handler raises",
    "system-exit": "its handler raises SystemExit",
    "exit": "its process ends at once",
    "segfault": "it reads from address 0",
    "hang": "its handler does not return",
    "gil": "its handler keeps the interpreter's lock, so that no thread of it runs",
    "memory": "it uses all the memory that it may",
    "raise-on-open": "its handler raises, and then its opening",
    "raise-on-close": "its handler raises, and then its closing",
    "torn-frame": "it is killed in the middle of a long message",
    "disk-full": "no file of its process can grow any more",
    "disk-free": "files can grow again",
}
"""What `Inject` can name."""
