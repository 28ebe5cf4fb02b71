"""The settings of a session: one table, from which everything that takes settings follows.

To add a setting, touch at most four places:

1. its field of `Settings` below: name, type and range, default, and what a `Setting` can say. The
   checks and their sentences, the option of the command, the field of the Realtime API's session
   and docs/reference.md (``python scripts/reference.py``) follow from it;
2. if an agent has it, the parameter and the attribute of ``rtvoice.description.Description``;
3. if it may change during a conversation, ``rtvoice.description.Changes``;
4. what makes use of it: a component or, where the API wants another form of it, the functions in
   ``actors.realtime.core.session`` and ``rtvoice.publishing``.

``tests/rtvoice/test_table.py`` fails where these disagree. What can be wrong only with several
settings together is in `messages.limits`.

Annotations are evaluated here, so that a child need not compile them when it decodes its settings.
"""

# No `from __future__ import annotations`: see above.

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta

from messages.audio import SetVolume
from messages.base import Message
from messages.conversation import SetSpeed, SetTools, ToolSpec, UpdateSettings

__all__ = [
    "BUILTIN_TOOLS",
    "CHANGEABLE",
    "SETTINGS",
    "SPEEDS",
    "Option",
    "RetentionRatio",
    "SemanticVad",
    "ServerVad",
    "Setting",
    "Settings",
]

BUILTIN_TOOLS = (
    "get_current_time",
    "adjust_volume",
    "change_assistant_response_speed",
    "stop_assistant_run",
)
COMPONENTS = (
    *("history", "hub", "microphone", "program", "realtime", "recorder", "sandbox", "speaker"),
    *("supervisor", "tools"),
)
"""Names that a component of the user's own cannot have."""
SPEEDS = (0.25, 1.5)
"""The slowest and the fastest speech that the API takes."""


# -- what is known of a setting --------------------------------------------------------------------


class Option(msgspec.Struct, frozen=True):
    """How a setting is given on the command line."""

    flag: str
    group: Literal["devices", "conversation", "end", "files", "others"]
    help: str
    metavar: str = ""
    """What stands for the value in the help; empty: the range, the choices or the flag's name."""
    value: Any = UNSET
    """What the flag alone stands for; unset: the flag is followed by a value."""
    none: tuple[str, ...] = ()
    """Words that stand for None."""


class Setting(msgspec.Struct, frozen=True):
    """What is known of a setting besides its name, type and default."""

    text: str
    """What it is. Its unit is in its name, its range in its type."""
    parameter: str | None = ""
    """The parameter of ``rtvoice.Agent``; empty: of the same name; None: there is none."""
    changed_by: type[Message] | None = None
    """The message that changes it during a conversation; None: it cannot change."""
    fixed: str = ""
    """Why it cannot change during a conversation, or not any more."""
    can_unset: bool = True
    """Whether it can change to None; the API has no null for some of its fields."""
    session_field: str = ""
    """Where it goes in the session of the Realtime API: a path of dotted names."""
    option: Option | None = None
    allowed: str = ""
    """What it may be, where the type does not say it: ends the sentence "give …"."""
    none: tuple[str, ...] = ()
    """Words that stand for None."""
    form: Callable[[Any], Any] | None = None
    """Return a value of the right type as it is kept; raises ValueError, with a sentence or
    without, if it is not allowed."""


def _filled(text: str | None) -> str | None:
    if text is not None and not text.strip():
        raise ValueError
    return text


def _words(words: tuple[str, ...]) -> tuple[str, ...]:
    if not all(word.strip() for word in words):
        raise ValueError
    return words


def _languages(value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
    codes = (value,) if isinstance(value, str) else value or ()
    for code in codes:
        if len(code) not in (2, 3) or not code.isalpha():
            raise ValueError(f"{code!r} is not a valid language code; give one such as en or de")
    return value.lower() if isinstance(value, str) else tuple(map(str.lower, codes)) or None


def _server(server: str) -> str:
    if server not in ("openai", "sandbox"):
        from urllib.parse import urlsplit

        url = urlsplit(server)
        if url.scheme not in ("ws", "wss") or not url.netloc:
            raise ValueError
        try:
            url.port  # noqa: B018 - reading it checks it
        except ValueError:
            wrong = f"the port of {server!r} is not valid; give a number from 0 to 65535"
            raise ValueError(wrong) from None
    return server


def _tool_choice(choice: str) -> str:
    import re

    if re.fullmatch("[a-zA-Z0-9_-]{1,64}", choice) is None:
        raise ValueError
    return choice


def _builtin_tools(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in BUILTIN_TOOLS:
            there = ", ".join(BUILTIN_TOOLS)
            raise ValueError(f"{name!r} is not a built-in tool; give names out of {there}")
    return tuple(name for name in BUILTIN_TOOLS if name in names)


def _components(components: dict[str, str]) -> dict[str, str]:
    for name, target in components.items():
        if ":" not in target:
            wrong = f"{name!r}: {target!r} is not a valid component"
            raise ValueError(f'{wrong}; write "name": "module:Class"')
        if name in COMPONENTS or not name.replace("_", "").replace("-", "").isalnum():
            raise ValueError(
                f"{name!r} is not a valid name of a component; give letters, digits, - and _, and "
                f"none of {', '.join(COMPONENTS)}"
            )
    return components


# -- settings that have parts ----------------------------------------------------------------------

_Share = Annotated[float, Meta(ge=0.0, le=1.0)]


class ServerVad(msgspec.Struct, frozen=True, tag="server_vad", forbid_unknown_fields=True):
    """Turn detection by loudness (``turn_detection`` of the API)."""

    threshold: _Share = 0.5
    """How loud speech has to be."""
    prefix_padding_ms: Annotated[int, Meta(ge=0, le=10_000)] = 300
    """How much sound before the first loud moment belongs to the turn."""
    silence_duration_ms: Annotated[int, Meta(ge=0, le=60_000)] = 500
    """After how much silence the turn has ended."""
    idle_timeout_ms: Annotated[int, Meta(ge=5000, le=30_000)] | None = None
    """When nobody has spoken for so long after an answer, the assistant speaks again, and again
    until the inactivity timeout, for which that does not count. None: it waits."""
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

    ratio: _Share
    """How much of what may be kept is kept. Dropping more at once, such as with 0.8, is seldom
    needed, so that what is cached stays valid for longer."""
    token_limit: Annotated[int, Meta(ge=0)] | None = None
    """How many tokens may be kept, not counting instructions and tools; None: as many as the model
    takes."""


# -- the table -------------------------------------------------------------------------------------

_Effort = Literal["minimal", "low", "medium", "high", "xhigh"]
_Seconds = Annotated[float, Meta(gt=0.0)]
_Hour = Annotated[float, Meta(ge=0.1, le=3600.0)]
_NOT_EMPTY = "a text that is not empty"
_TRANSCRIPTION = "audio.input.transcription"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a session is told at its start. Every component gets all of it.

    It is one class, however long, since each field is a row of the table.
    """

    # -- the server, the model, the conversation

    server: Annotated[
        str,
        Setting(
            "``openai``, ``sandbox``, or a ws:// or wss:// URL.",
            fixed="the connection is made to it",
            option=Option(
                "--server", "conversation", "openai, sandbox, or a ws(s):// URL", "SERVER"
            ),
            allowed="openai, sandbox, or a ws:// or wss:// URL",
            form=_server,
        ),
    ] = "openai"
    instructions: Annotated[
        str,
        Setting(
            "What the model shall be and do.",
            changed_by=UpdateSettings,
            session_field="instructions",
            option=Option(
                "--instructions", "conversation", "what the assistant shall be and do", "TEXT"
            ),
        ),
    ] = ""
    model: Annotated[
        str,
        Setting(
            "A Realtime model of the service (`RealtimeModel`, or any name). One that is retired "
            "warns (`FutureWarning`) with the date and its successor.",
            fixed="the service opens a session for one model",
            option=Option("--model", "conversation", "a Realtime model"),
            allowed=_NOT_EMPTY,
            form=_filled,
        ),
    ] = "gpt-realtime-2.1-mini"
    voice: Annotated[
        str,
        Setting(
            "One of the service's voices (`AssistantVoice`), or the id of a custom one "
            "(``voice_…``); with a ``server`` of your own, any. It can change until the assistant "
            "has been heard.",
            changed_by=UpdateSettings,
            fixed="the service does not change the voice of a session that has spoken",
            session_field="audio.output.voice",
            option=Option(
                "--voice", "conversation", "a voice of the service, such as marin or cedar"
            ),
            allowed=_NOT_EMPTY,
            form=_filled,
        ),
    ] = "marin"
    speed: Annotated[
        float,
        Meta(ge=SPEEDS[0], le=SPEEDS[1]),
        Setting(
            "Speed of speech; 1.0 is normal.",
            parameter="speech_speed",
            changed_by=SetSpeed,
            session_field="audio.output.speed",
            option=Option("--speed", "conversation", "of speech"),
        ),
    ] = 1.0
    greeting: Annotated[
        str | None,
        Setting(
            "A sentence with which the assistant begins; None: the user begins.",
            fixed="it was said at the beginning",
            option=Option(
                "--greeting", "conversation", "the assistant begins with this sentence", "TEXT"
            ),
        ),
    ] = None
    output_modality: Annotated[
        Literal["audio", "text"],
        Setting(
            "``audio``, or ``text``: the assistant writes and nothing is heard.",
            changed_by=UpdateSettings,
            session_field="output_modalities",
            option=Option(
                "--text-only",
                "conversation",
                "the assistant writes and does not speak",
                value="text",
            ),
        ),
    ] = "audio"
    max_output_tokens: Annotated[
        Annotated[int, Meta(ge=1, le=4096)] | None,
        Setting(
            "Length of one answer, tool calls included; None or ``inf``: as many as the model "
            "gives.",
            changed_by=UpdateSettings,
            session_field="max_output_tokens",
            none=("inf",),
        ),
    ] = None
    reasoning_effort: Annotated[
        _Effort | None,
        Setting(
            "How much the model thinks before it answers: ``minimal``, ``low``, ``medium``, "
            "``high`` or ``xhigh``; only for models that reason. None: ``low``.",
            changed_by=UpdateSettings,
            can_unset=False,
            session_field="reasoning",
            option=Option("--reasoning-effort", "conversation", "of models that reason"),
        ),
    ] = None
    truncation: Annotated[
        Literal["auto", "disabled"] | RetentionRatio,
        Setting(
            "What becomes of a conversation that grows too long for the model: ``auto`` and "
            "`RetentionRatio` drop the oldest of it, with ``disabled`` answers fail.",
            changed_by=UpdateSettings,
            session_field="truncation",
            allowed="auto, disabled or an rtvoice.RetentionRatio(...)",
        ),
    ] = "auto"
    inactivity_timeout_s: Annotated[
        _Seconds | None,
        Setting(
            "The conversation ends when nobody has spoken for so many seconds; None: never. "
            "Playback, tools and restarts are not silence; what the assistant says because of "
            "`ServerVad.idle_timeout_ms` is.",
            changed_by=UpdateSettings,
            option=Option(
                "--inactivity-timeout",
                "end",
                "end when nobody has spoken for N seconds (60); 0: never",
                "N",
                none=("0", "never", "none", "None"),
            ),
            allowed="a number of seconds above 0, or None for never",
        ),
    ] = 60.0

    # -- what the user says

    turn_detection: Annotated[
        ServerVad | SemanticVad | None,
        Setting(
            "How the service tells that the user has finished: `ServerVad`, `SemanticVad`; None: "
            "it does not, `start_talking` and `stop_talking` do (push-to-talk).",
            changed_by=UpdateSettings,
            session_field="audio.input.turn_detection",
            option=Option(
                "--push-to-talk",
                "conversation",
                "Enter begins your turn, Enter again ends it",
                value=None,
            ),
            allowed="rtvoice.ServerVad(...), rtvoice.SemanticVad(...), or None for push-to-talk",
        ),
    ] = ServerVad()
    interruption: Annotated[
        Literal["immediate", "confirmed"],
        Setting(
            "What the user's speech does while the assistant speaks. ``immediate``: it interrupts. "
            "``confirmed``: the assistant pauses, and goes on from where it was unless there are "
            "400 ms of speech, or a transcript; a cough destroys no answer.",
            changed_by=UpdateSettings,
            option=Option(
                "--interruption",
                "conversation",
                "what you say interrupts at once, or when it is certain that it is no cough",
            ),
        ),
    ] = "immediate"
    preroll_ms: Annotated[
        int,
        Meta(ge=0, le=5000),
        Setting(
            "How much sound from before `start_talking` belongs to the turn.",
            fixed="the session was started with it",
        ),
    ] = 300
    noise_reduction: Annotated[
        Literal["near_field", "far_field"] | None,
        Setting(
            "At the service, before turn detection: ``near_field`` for a microphone close to the "
            "mouth, ``far_field`` for one of a room or a laptop, None: none.",
            changed_by=UpdateSettings,
            session_field="audio.input.noise_reduction",
            option=Option(
                "--noise-reduction",
                "conversation",
                "at the server: for a headset, or for a microphone further away",
            ),
        ),
    ] = None
    transcription_model: Annotated[
        str | None,
        Setting(
            "What transcribes the user (`TranscriptionModel`, or any name); None: the user's turns "
            "have no text.",
            changed_by=UpdateSettings,
            session_field=_TRANSCRIPTION,
            option=Option(
                "--transcription-model", "conversation", "what writes down what you say", "MODEL"
            ),
            allowed=f"{_NOT_EMPTY}, or None",
            form=_filled,
        ),
    ] = None
    language: Annotated[
        str | tuple[str, ...] | None,
        Setting(
            "What the user speaks, in two letters (ISO 639-1), a hint for transcription; several "
            "with ``gpt-transcribe`` and ``gpt-live-transcribe``.",
            changed_by=UpdateSettings,
            session_field=_TRANSCRIPTION,
            option=Option(
                "--language", "conversation", "what you speak, such as en (helps transcription)"
            ),
            allowed="a language code such as en or de, a list of them, or None",
            form=_languages,
        ),
    ] = None
    transcription_prompt: Annotated[
        str | None,
        Setting(
            "What transcription has to expect: a text, or for ``whisper-1`` words that occur.",
            changed_by=UpdateSettings,
            session_field=_TRANSCRIPTION,
            allowed=f"{_NOT_EMPTY}, or None",
            form=_filled,
        ),
    ] = None
    transcription_keywords: Annotated[
        tuple[str, ...],
        Setting(
            "Words and names that occur, for ``gpt-transcribe`` and ``gpt-live-transcribe``.",
            changed_by=UpdateSettings,
            session_field=_TRANSCRIPTION,
            allowed="a list of texts that are not empty",
            form=_words,
        ),
    ] = ()
    transcription_delay: Annotated[
        _Effort | None,
        Setting(
            "How long ``gpt-realtime-whisper`` waits before it writes down what it hears: "
            "``minimal``, ``low``, ``medium``, ``high`` or ``xhigh``.",
            changed_by=UpdateSettings,
            session_field=_TRANSCRIPTION,
        ),
    ] = None

    # -- tools

    tool_choice: Annotated[
        str,
        Setting(
            "``auto``, ``none``, ``required`` or the name of a tool: whether the first answer to a "
            "turn has to call a tool. What follows the tool's answer need not.",
            changed_by=UpdateSettings,
            session_field="tool_choice",
            allowed="auto, none, required or the name of a tool",
            form=_tool_choice,
        ),
    ] = "auto"
    parallel_tool_calls: Annotated[
        bool | None,
        Setting(
            "Whether the model may call several tools at once; only for models that reason. None: "
            "it may.",
            changed_by=UpdateSettings,
            can_unset=False,
            session_field="parallel_tool_calls",
        ),
    ] = None
    builtin_tools: Annotated[
        tuple[str, ...],
        Setting(
            "Names of the built-in tools that the model may call, out of ``get_current_time``, "
            "``adjust_volume``, ``change_assistant_response_speed`` and ``stop_assistant_run``; "
            "default: all.",
            changed_by=SetTools,
            allowed=f"names out of {', '.join(BUILTIN_TOOLS)}",
            form=_builtin_tools,
        ),
    ] = BUILTIN_TOOLS
    tool_timeout_s: Annotated[
        float,
        Meta(ge=0.1, le=86_400.0),
        Setting(
            "After so many seconds the model is told that a tool did not finish.",
            fixed="the tools were started with it",
        ),
    ] = 60.0
    program_tools: Annotated[
        tuple[ToolSpec, ...],
        Setting("Tools that run in the program that embeds the session.", parameter=None),
    ] = ()
    named_tools: Annotated[
        str | None,
        Setting(
            "``module:attr`` or ``file.py:attr`` of `Tools` that run in the tools process.",
            parameter=None,
        ),
    ] = None

    # -- devices

    input: Annotated[
        str,
        Setting(
            "``silence``, ``program``, ``default``, ``auto`` (``default``, or ``silence`` while "
            "there is no microphone), a WAV path, a device's index or part of its name, "
            "``module:Class`` or ``file.py:Class`` of a device of your own.",
            parameter="audio_input",
            fixed="the device is open",
            option=Option(
                "--input",
                "devices",
                "default, a device's index or name, a WAV file, silence",
                "DEV",
            ),
        ),
    ] = "default"
    output: Annotated[
        str,
        Setting(
            "``null``, ``program``, ``default``, ``auto`` (``default``, or ``null`` while there is "
            "no loudspeaker), a WAV path, a device's index or part of its name, ``module:Class`` "
            "or ``file.py:Class`` of a device of your own.",
            parameter="audio_output",
            fixed="the device is open",
            option=Option(
                "--output", "devices", "default, a device's index or name, a WAV file, null", "DEV"
            ),
        ),
    ] = "default"
    duplex: Annotated[
        Literal["auto", "half", "full"],
        Setting(
            "Whether the service hears the user while the assistant is heard: ``full``, or not, "
            "``half``, so that it does not hear itself; then `interrupt` interrupts, and Enter in "
            "the console. ``auto``: ``half`` where both devices are sound cards and neither is "
            "called a headset or headphones.",
            changed_by=UpdateSettings,
            option=Option(
                "--full-duplex",
                "devices",
                "listen also while the assistant speaks: with headphones, or echo cancelling "
                "devices",
                value="full",
            ),
        ),
    ] = "auto"
    volume: Annotated[
        float,
        Meta(ge=0.0, le=1.0),
        Setting(
            "Volume of playback; 1.0 is as it comes.",
            changed_by=SetVolume,
            option=Option("--volume", "devices", "of playback"),
        ),
    ] = 1.0
    output_hold_s: Annotated[
        Annotated[float, Meta(ge=0.0, le=86_400.0)] | None,
        Setting(
            "What the assistant says while there is no output device, because it was lost, waits "
            "for one so many seconds, and then counts as not heard. None: it waits for ever.",
            fixed="the output device was opened with it",
        ),
    ] = 30.0
    block_ms: Annotated[
        int,
        Meta(ge=10, le=100),
        Setting(
            "Length of a captured block.",
            parameter=None,
            option=Option("--block-ms", "devices", "captured block, 40 ms"),
        ),
    ] = 40
    muted: Annotated[
        bool, Setting("Whether the microphone is muted at the start.", parameter=None)
    ] = False
    program_output_rate: Annotated[
        int,
        Setting(
            "Sample rate of the program's output device in Hz; set by the session, as the next is.",
            parameter=None,
        ),
    ] = 24_000
    program_output_scales: Annotated[
        bool,
        Setting("Whether the program's output device applies the volume itself.", parameter=None),
    ] = False

    # -- files

    recording_path: Annotated[
        str | None,
        Setting(
            "A WAV file for both sides of the conversation, the user left. An agent makes its "
            "folder if need be.",
            parameter="recording_output_path",
            fixed="the recording has begun",
            option=Option(
                "--record", "files", "both sides: you on the left, the assistant right", "FILE.wav"
            ),
            allowed="a path, or None",
            form=_filled,
        ),
    ] = None
    journal_path: Annotated[
        str | None,
        Setting(
            "A file in which the conversation is kept; None: a temporary one.",
            fixed="the journal has begun",
            option=Option("--journal", "files", "keep the conversation, also over crashes", "FILE"),
            allowed="a path, or None",
            form=_filled,
        ),
    ] = None

    # -- what the session consists of

    agent: Annotated[
        str | None,
        Setting(
            "``module:attr`` or ``file.py:attr`` that the tools process loads.", parameter=None
        ),
    ] = None
    components: Annotated[
        dict[str, str],
        Setting(
            "Your own actors, name to ``module:Class``, each in a process of its own and started "
            "again when it crashes.",
            fixed="components are started with the session",
            allowed='a mapping such as {"mood": "app:MoodActor"}',
            form=_components,
        ),
    ] = {}
    import_path: Annotated[
        tuple[str, ...],
        Setting(
            "Folders in which names of the user's are looked up, after everything that is "
            "installed.",
            parameter=None,
        ),
    ] = ()
    wire_events: Annotated[
        tuple[str, ...],
        Setting(
            "Names of the wire events that the program has subscribed to; see `WantWireEvents`.",
            parameter=None,
        ),
    ] = ()

    # -- the supervisor

    hang_s: Annotated[
        _Hour,
        Setting(
            "A component that handles nothing for so long is ended and started again.",
            parameter=None,
        ),
    ] = 3.0
    start_s: Annotated[
        _Hour,
        Setting(
            "Each component has to be open within so many seconds; more where many agents start "
            "at once.",
            parameter="start_timeout_s",
            fixed="it has started",
            option=Option(
                "--start-timeout", "others", "each component has N seconds to start", "N"
            ),
        ),
    ] = 15.0
    stop_s: Annotated[
        _Hour, Setting("The whole session ends within so many seconds.", parameter=None)
    ] = 5.0
    max_seconds: Annotated[
        _Seconds | None,
        Setting(
            "The session ends after so many seconds; None: never.",
            parameter=None,
            option=Option("--max-seconds", "end", "end after N seconds", "N"),
            allowed="a number of seconds above 0",
        ),
    ] = None
    memory_limit_mib: Annotated[
        Annotated[int, Meta(ge=64)] | None,
        Setting(
            "What the process of your tools, and of each component of your own, may use; None: no "
            "limit. Enforced on Linux.",
            parameter=None,
            allowed="a whole number of MiB, 64 at least, or None for no limit",
        ),
    ] = 2048
    probes: Annotated[
        bool,
        Setting(
            "Answer fault injection (for tests).",
            parameter=None,
            option=Option(
                "--probes", "others", "let scripts/inject.py break it, for tests", value=True
            ),
        ),
    ] = False
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
        Setting("The least severe log records that are passed on.", parameter=None),
    ] = "INFO"


SETTINGS: dict[str, Setting] = {
    name: kind.__metadata__[-1] for name, kind in Settings.__annotations__.items()
}
"""What is known of each field of `Settings`."""
CHANGEABLE = tuple(
    name for name, setting in SETTINGS.items() if setting.changed_by is UpdateSettings
)
"""Fields of `Settings` that `UpdateSettings` may change while the session runs."""
