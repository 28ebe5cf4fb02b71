"""The settings of a session: one table, from which checks, options and documentation are derived.

To add a setting, change at most four places:

1. Its field of `Settings` below: name, type and range, default, and a `Setting`. From these follow
   its checks and their texts, the option of the command, the field of the Realtime API's session,
   and docs/reference.md (run ``python scripts/reference.py``).
2. If an agent has it: the parameter and the attribute of ``rtvoice.description.Description``.
3. If it can change during a conversation: ``rtvoice.description.Changes``.
4. The code that uses it: a component; or, if the API needs it in another form, the functions in
   ``actors.realtime.core.session`` and ``rtvoice.publishing``.

``tests/rtvoice/test_table.py`` fails where these disagree. Checks that involve several settings are
in `messages.limits`.

Annotations are evaluated here, so that a child does not have to compile them when it decodes its
settings.
"""

# No `from __future__ import annotations`: see above.

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta

from messages.audio import SetVolume, UseInput, UseOutput
from messages.base import Message
from messages.conversation import SetSpeed, SetTools, ToolSpec, UpdateSettings
from messages.prices import Budget, Price

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
"""Reserved names, which a component of the user cannot have."""
SPEEDS = (0.25, 1.5)
"""The slowest and the fastest speech that the API accepts."""


# -- the description of a setting ------------------------------------------------------------------


class Option(msgspec.Struct, frozen=True):
    """The option of a setting on the command line."""

    flag: str
    group: Literal["devices", "conversation", "end", "files", "others"]
    help: str
    metavar: str = ""
    """Placeholder for the value in the help; empty: the range, the choices or the flag's name."""
    value: Any = UNSET
    """The value that the flag alone sets; unset: a value must follow the flag."""
    none: tuple[str, ...] = ()
    """Words that mean None."""
    allowed: str = ""
    """The allowed values, if they are fewer than those of the setting, as in `Setting.allowed`."""


class Setting(msgspec.Struct, frozen=True):
    """The properties of a setting besides its name, type and default."""

    text: str
    """Its description, without the unit, which is in its name, and the range, which is in its
    type."""
    parameter: str | None = ""
    """The parameter of ``rtvoice.Agent``; empty: it has the same name; None: there is none."""
    changed_by: type[Message] | None = None
    """The message that changes the setting during a conversation; None: it cannot change."""
    fixed: str = ""
    """Why the setting cannot change during a conversation, or only at its start."""
    can_unset: bool = True
    """Whether the setting can change to None; some fields of the API do not accept null."""
    session_field: str = ""
    """Its field in the session of the Realtime API, as a dotted path; empty: there is none."""
    option: Option | None = None
    """Its option on the command line; None: there is none."""
    allowed: str = ""
    """The allowed values, as the end of the sentence "give …"; empty: they follow from the type."""
    none: tuple[str, ...] = ()
    """Words that mean None."""
    is_path: bool = False
    """Whether the value is a path or a list of paths, or may contain one; see `messages.paths`."""
    form: Callable[[Any], Any] | None = None
    """Checks a value of the right type, and returns it in the form in which it is stored. Raises
    ValueError if it is not allowed; without a text, `allowed` gives the error."""


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


_SERVERS = "openai, sandbox, or a ws:// or wss:// URL"
_LIVE = "speaks GPT-Live, another protocol than the Realtime API"


def _model(model: str) -> str:
    if model.startswith("gpt-live-") and "transcribe" not in model:
        raise ValueError(f"{model!r} {_LIVE}; give a Realtime model such as gpt-realtime-2.1")
    return _filled(model) or ""


def _server(server: str) -> str:
    if server in ("openai", "sandbox"):
        return server
    from urllib.parse import urlsplit

    from messages.urls import shown

    place = shown(server)
    try:
        url = urlsplit(server)
        if url.scheme not in ("ws", "wss") or not url.netloc:
            raise ValueError
    except ValueError:  # brackets that are no IPv6 address raise it too
        raise ValueError(f"{place[:80]!r} is not valid; give {_SERVERS}") from None
    try:
        url.port  # noqa: B018 - reading it checks it
    except ValueError:
        wrong = f"the port of {place!r} is not valid; give a number from 0 to 65535"
        raise ValueError(wrong) from None
    if "live" in url.path.split("/") or "model=gpt-live-" in url.query:
        wrong = f"what is at {place} {_LIVE}"
        raise ValueError(f"{wrong}; give the URL of a Realtime API (…/v1/realtime)")
    return server


def _tool_choice(choice: str) -> str:
    if re.fullmatch("[a-zA-Z0-9_-]{1,64}", choice) is None:
        raise ValueError
    return choice


def _builtin_tools(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in BUILTIN_TOOLS:
            there = ", ".join(BUILTIN_TOOLS)
            raise ValueError(f"{name!r} is not a built-in tool; give names from {there}")
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


_A_BUDGET = "US dollars above 0, a Budget with dollars, tokens or both, or None for no limit"


def _budget(value: float | Budget | None) -> Budget | None:
    if isinstance(value, int | float):
        return Budget(dollars=value)
    if value == Budget():
        raise ValueError(f"it has no limit; give {_A_BUDGET}")
    return value


# -- settings that have parts ----------------------------------------------------------------------

_Share = Annotated[float, Meta(ge=0.0, le=1.0)]


class ServerVad(msgspec.Struct, frozen=True, tag="server_vad", forbid_unknown_fields=True):
    """Turn detection by loudness (``turn_detection`` of the API)."""

    threshold: _Share = 0.5
    """Loudness from which audio counts as speech."""
    prefix_padding_ms: Annotated[int, Meta(ge=0, le=10_000)] = 300
    """Length of the audio before the speech that belongs to the turn."""
    silence_duration_ms: Annotated[int, Meta(ge=0, le=60_000)] = 500
    """Length of the silence that ends the turn."""
    idle_timeout_ms: Annotated[int, Meta(ge=5000, le=30_000)] | None = None
    """If nobody speaks for this long after an answer, the assistant speaks again, repeatedly until
    the inactivity timeout, which its speech does not reset. None: it waits for the user."""
    create_response: bool = True
    """Whether a turn is answered automatically; False: the turn waits until an answer is requested
    (`CreateResponse`)."""
    interrupt_response: bool = True
    """Whether the user's speech interrupts an answer, at the server and in the speaker."""


class SemanticVad(msgspec.Struct, frozen=True, tag="semantic_vad", forbid_unknown_fields=True):
    """Turn detection by meaning (``turn_detection`` of the API)."""

    eagerness: Literal["auto", "low", "medium", "high"] = "auto"
    """How soon a turn counts as ended: ``low`` waits at most 8 s, ``medium`` 4 s, ``high`` 2 s;
    ``auto`` is ``medium``."""
    create_response: bool = True
    """The same as in `ServerVad`."""
    interrupt_response: bool = True
    """The same as in `ServerVad`."""


class RetentionRatio(
    msgspec.Struct, frozen=True, tag="retention_ratio", forbid_unknown_fields=True
):
    """How a conversation that is too long is shortened (``truncation`` of the API)."""

    ratio: _Share
    """Share of the limit that is kept when the conversation is shortened. With a lower share, such
    as 0.8, it is shortened less often, so that the service's cache stays valid for longer."""
    token_limit: Annotated[int, Meta(ge=0)] | None = None
    """Most tokens that are kept, without instructions and tools; None: the limit of the model."""


# -- the table -------------------------------------------------------------------------------------

_Effort = Literal["minimal", "low", "medium", "high", "xhigh"]
_Seconds = Annotated[float, Meta(gt=0.0)]
_Hour = Annotated[float, Meta(ge=0.1, le=3600.0)]
_NOT_EMPTY = "a text that is not empty"
_SECONDS_OR_NEVER = "a number of seconds above 0, or None for never"
_TRANSCRIPTION = "audio.input.transcription"


def _timeout_option(flag: str, text: str) -> Option:
    """Return the option of a time limit that can be switched off."""
    return Option(flag, "end", text, "N", none=("0", "never", "none", "None"))


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a session; every component gets all of them.

    It is one long class, because each field is a row of the table.

    It is longer than other classes because it is the table of settings: each is declared here and
    nowhere else.
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
            allowed=_SERVERS,
            form=_server,
        ),
    ] = "openai"
    instructions: Annotated[
        str,
        Setting(
            "The instructions for the model: its role and its behaviour.",
            changed_by=UpdateSettings,
            session_field="instructions",
            option=Option(
                "--instructions", "conversation", "the assistant's role and behaviour", "TEXT"
            ),
        ),
    ] = ""
    model: Annotated[
        str,
        Setting(
            "A Realtime model of the service (`RealtimeModel`, or any name). For a model that will "
            "be retired, a `FutureWarning` names the date and its successor.",
            fixed="the service opens a session for one model",
            option=Option("--model", "conversation", "a Realtime model"),
            allowed=_NOT_EMPTY,
            form=_model,
        ),
    ] = "gpt-realtime-2.1-mini"
    voice: Annotated[
        str,
        Setting(
            "A voice of the service (`AssistantVoice`), or the id of a custom voice "
            "(``voice_…``); with a ``server`` of your own, any name. It can change until the "
            "assistant has spoken.",
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
            option=Option("--speed", "conversation", "speed of speech"),
        ),
    ] = 1.0
    greeting: Annotated[
        str | None,
        Setting(
            "The first sentence of the assistant; None: the user speaks first.",
            fixed="it was said at the start",
            option=Option(
                "--greeting", "conversation", "the first sentence of the assistant", "TEXT"
            ),
        ),
    ] = None
    output_modality: Annotated[
        Literal["audio", "text"],
        Setting(
            "``audio``, or ``text``: the assistant writes instead of speaking.",
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
            "Most tokens of an answer, tool calls included; None or ``inf``: the limit of the "
            "model.",
            changed_by=UpdateSettings,
            session_field="max_output_tokens",
            none=("inf",),
        ),
    ] = None
    reasoning_effort: Annotated[
        _Effort | None,
        Setting(
            "How much the model reasons before it answers: ``minimal``, ``low``, ``medium``, "
            "``high`` or ``xhigh``; only for models that reason. None: ``low``.",
            changed_by=UpdateSettings,
            can_unset=False,
            session_field="reasoning",
            option=Option(
                "--reasoning-effort", "conversation", "how much the model reasons, if it can"
            ),
        ),
    ] = None
    truncation: Annotated[
        Literal["auto", "disabled"] | RetentionRatio,
        Setting(
            "What happens when the conversation is too long for the model: ``auto`` and "
            "`RetentionRatio` drop its oldest items; with ``disabled``, answers fail.",
            changed_by=UpdateSettings,
            session_field="truncation",
            allowed="auto, disabled or an rtvoice.RetentionRatio(...)",
        ),
    ] = "auto"
    inactivity_timeout_s: Annotated[
        _Seconds | None,
        Setting(
            "Seconds without activity after which the conversation ends; None: never. Playback, "
            "tools and restarts count as activity; speech because of `ServerVad.idle_timeout_ms` "
            "does not.",
            changed_by=UpdateSettings,
            option=_timeout_option(
                "--inactivity-timeout", "end after N seconds (60) without activity; 0: never"
            ),
            allowed=_SECONDS_OR_NEVER,
        ),
    ] = 60.0

    # -- the user's speech

    turn_detection: Annotated[
        ServerVad | SemanticVad | None,
        Setting(
            "How the service detects the user's turns: `ServerVad` or `SemanticVad`. None: the "
            "program marks them with `start_talking` and `stop_talking` (push-to-talk).",
            changed_by=UpdateSettings,
            session_field="audio.input.turn_detection",
            option=Option(
                "--push-to-talk",
                "conversation",
                "Enter starts your turn, and ends it",
                value=None,
            ),
            allowed="rtvoice.ServerVad(...), rtvoice.SemanticVad(...), or None for push-to-talk",
        ),
    ] = ServerVad()
    interruption: Annotated[
        Literal["immediate", "confirmed"] | None,
        Setting(
            "How the user's speech interrupts the assistant. ``immediate``: at once. "
            "``confirmed``: the assistant pauses, and is interrupted after 400 ms of speech, or by "
            "a transcript; otherwise, such as after a cough, it continues from where it was. None: "
            "``confirmed`` where its echo is cancelled (``echo_cancelling``), else ``immediate``.",
            changed_by=UpdateSettings,
            option=Option(
                "--interruption",
                "conversation",
                "your speech interrupts at once, or once it is certain that it is not a cough",
            ),
        ),
    ] = None
    preroll_ms: Annotated[
        int,
        Meta(ge=0, le=5000),
        Setting(
            "Length of the audio before `start_talking` that belongs to the turn.",
            fixed="the session was started with it",
        ),
    ] = 300
    noise_reduction: Annotated[
        Literal["near_field", "far_field"] | None,
        Setting(
            "Noise reduction at the service, before turn detection: ``near_field`` for a "
            "microphone close to the mouth, ``far_field`` for that of a room or a laptop, None: "
            "no noise reduction.",
            changed_by=UpdateSettings,
            session_field="audio.input.noise_reduction",
            option=Option(
                "--noise-reduction",
                "conversation",
                "noise reduction at the server: for a headset, or for a distant microphone",
            ),
        ),
    ] = None
    transcription_model: Annotated[
        str | None,
        Setting(
            "The model that transcribes the user (`TranscriptionModel`, or any name); None: the "
            "user's turns have no text.",
            changed_by=UpdateSettings,
            session_field=_TRANSCRIPTION,
            option=Option(
                "--transcription-model", "conversation", "the model that transcribes you", "MODEL"
            ),
            allowed=f"{_NOT_EMPTY}, or None",
            form=_filled,
        ),
    ] = None
    language: Annotated[
        str | tuple[str, ...] | None,
        Setting(
            "The user's language in two letters (ISO 639-1), as a hint for transcription; "
            "``gpt-transcribe`` and ``gpt-live-transcribe`` accept several.",
            changed_by=UpdateSettings,
            session_field=_TRANSCRIPTION,
            option=Option(
                "--language", "conversation", "your language, such as en (helps transcription)"
            ),
            allowed="a language code such as en or de, a list of them, or None",
            form=_languages,
        ),
    ] = None
    transcription_prompt: Annotated[
        str | None,
        Setting(
            "A hint for transcription: a description of the speech or, for ``whisper-1``, words "
            "that occur in it.",
            changed_by=UpdateSettings,
            session_field=_TRANSCRIPTION,
            allowed=f"{_NOT_EMPTY}, or None",
            form=_filled,
        ),
    ] = None
    transcription_keywords: Annotated[
        tuple[str, ...],
        Setting(
            "Words and names that occur in the user's speech, for ``gpt-transcribe`` and "
            "``gpt-live-transcribe``.",
            changed_by=UpdateSettings,
            session_field=_TRANSCRIPTION,
            allowed="a list of texts that are not empty",
            form=_words,
        ),
    ] = ()
    transcription_delay: Annotated[
        _Effort | None,
        Setting(
            "How long ``gpt-realtime-whisper`` waits before it transcribes speech: ``minimal``, "
            "``low``, ``medium``, ``high`` or ``xhigh``.",
            changed_by=UpdateSettings,
            session_field=_TRANSCRIPTION,
        ),
    ] = None

    # -- cost

    budget: Annotated[
        Annotated[float, Meta(gt=0.0)] | Budget | None,
        Setting(
            "What the conversation may use: US dollars, or a `Budget`. At 80 % of it a "
            "`BudgetUsed` is published; when it is used up, the assistant says goodbye, and the "
            "conversation ends. None: no limit.",
            fixed="the conversation has begun with it",
            option=Option(
                "--budget",
                "end",
                "end after answers for N US dollars",
                "N",
                allowed="a number of US dollars above 0",
            ),
            allowed=_A_BUDGET,
            form=_budget,
        ),
    ] = None
    prices: Annotated[
        dict[str, tuple[Price, ...]],
        Setting(
            "Prices by model, which come before those of `PRICES`.",
            fixed="the conversation is priced with them",
            allowed='a mapping such as {"my-model": (Price(input_text=4.0, output_text=24.0),)}',
        ),
    ] = {}

    # -- tools

    tool_choice: Annotated[
        str,
        Setting(
            "Whether the first answer to a turn must call a tool: ``auto``, ``none``, "
            "``required`` or the name of a tool. Answers after a tool's result need not.",
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
            "the model may.",
            changed_by=UpdateSettings,
            can_unset=False,
            session_field="parallel_tool_calls",
        ),
    ] = None
    builtin_tools: Annotated[
        tuple[str, ...],
        Setting(
            "Names of the built-in tools that the model may call, from ``get_current_time``, "
            "``adjust_volume``, ``change_assistant_response_speed`` and ``stop_assistant_run``; "
            "default: all.",
            changed_by=SetTools,
            allowed=f"names from {', '.join(BUILTIN_TOOLS)}",
            form=_builtin_tools,
        ),
    ] = BUILTIN_TOOLS
    tool_timeout_s: Annotated[
        float,
        Meta(ge=0.1, le=86_400.0),
        Setting(
            "Seconds after which a tool call fails with an answer to the model.",
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
            is_path=True,
        ),
    ] = None

    # -- devices

    input: Annotated[
        str,
        Setting(
            "The input: ``default``, ``auto`` (``default``, or ``silence`` while there is no "
            "microphone), a device's index or a part of its name, a WAV path, ``silence``, "
            "``program``, or ``module:Class`` or ``file.py:Class`` of a device of your own.",
            parameter="audio_input",
            changed_by=UseInput,
            can_unset=False,
            option=Option(
                "--input",
                "devices",
                "default, a device's index or name, a WAV file, silence",
                "DEV",
            ),
            is_path=True,
        ),
    ] = "default"
    output: Annotated[
        str,
        Setting(
            "The output: ``default``, ``auto`` (``default``, or ``null`` while there is no "
            "loudspeaker), a device's index or a part of its name, a WAV path, ``null``, "
            "``program``, or ``module:Class`` or ``file.py:Class`` of a device of your own.",
            parameter="audio_output",
            changed_by=UseOutput,
            can_unset=False,
            option=Option(
                "--output", "devices", "default, a device's index or name, a WAV file, null", "DEV"
            ),
            is_path=True,
        ),
    ] = "default"
    duplex: Annotated[
        Literal["auto", "half", "full"],
        Setting(
            "Whether the service hears the user while the assistant speaks: ``full``, yes; "
            "``half``, no, so that the assistant does not hear itself; then only `interrupt`, or "
            "Enter in the console, interrupts it. ``auto``: ``half`` if both devices are sound "
            "cards, neither has headset or headphones in its name, and the echo is not cancelled "
            "(``echo_cancelling``).",
            changed_by=UpdateSettings,
            option=Option(
                "--full-duplex",
                "devices",
                "listen while the assistant speaks; for headphones, or devices with echo "
                "cancellation",
                value="full",
            ),
        ),
    ] = "auto"
    echo_cancelling: Annotated[
        Literal["auto", "on", "off"],
        Setting(
            "Whether the echo of the loudspeaker is taken out of what the microphone hears, so "
            "that the user can interrupt by speaking without a headset. It needs "
            "``pip install 'rtvoice[audio]'``. ``auto``: if both devices are sound cards, and "
            "neither is a headset or cancels echo itself, by its name. ``on``: whatever the names "
            "of the cards are.",
            fixed="the devices were opened with it",
            option=Option(
                "--echo-cancelling",
                "devices",
                "take the loudspeaker's echo out of what the microphone hears",
            ),
        ),
    ] = "auto"
    volume: Annotated[
        float,
        Meta(ge=0.0, le=1.0),
        Setting(
            "Volume of playback; 1.0 is unchanged.",
            changed_by=SetVolume,
            option=Option("--volume", "devices", "volume of playback"),
        ),
    ] = 1.0
    output_hold_s: Annotated[
        Annotated[float, Meta(ge=0.0, le=86_400.0)] | None,
        Setting(
            "Seconds for which audio waits for a new output device after the loss of one; then it "
            "counts as not heard. None: it waits for ever.",
            fixed="the output device was opened with it",
        ),
    ] = 30.0
    block_ms: Annotated[
        Annotated[int, Meta(ge=10, le=100)] | None,
        Setting(
            "Length of a captured block; None: 40, or 20 where echo is cancelled, or 100 of a file "
            "or of silence.",
            parameter=None,
            option=Option("--block-ms", "devices", "length of a captured block in ms (40)"),
        ),
    ] = None
    muted: Annotated[
        bool, Setting("Whether the microphone is muted at the start.", parameter=None)
    ] = False
    program_input_rate: Annotated[
        int,
        Setting(
            "Sample rate expected of the program's input device, in Hz; set by the session.",
            parameter=None,
        ),
    ] = 24_000
    program_output_rate: Annotated[
        int,
        Setting(
            "Sample rate of the program's output device in Hz; set by the session.",
            parameter=None,
        ),
    ] = 24_000
    program_output_scales: Annotated[
        bool,
        Setting(
            "Whether the program's output device applies the volume itself; set by the session.",
            parameter=None,
        ),
    ] = False

    # -- files

    recording_path: Annotated[
        str | None,
        Setting(
            "A WAV file for the recording: the user on the left channel, the assistant on the "
            "right. An agent makes its folder if needed.",
            parameter="recording_output_path",
            fixed="the recording has begun",
            option=Option(
                "--record", "files", "record you (left) and the assistant (right)", "FILE.wav"
            ),
            allowed="a path, or None",
            form=_filled,
            is_path=True,
        ),
    ] = None
    journal_path: Annotated[
        str | None,
        Setting(
            "A file in which the conversation is kept; None: a temporary file.",
            fixed="the journal has begun",
            option=Option("--journal", "files", "keep the conversation in a file", "FILE"),
            allowed="a path, or None",
            form=_filled,
            is_path=True,
        ),
    ] = None

    resume: Annotated[
        str | None,
        Setting(
            "The journal of an earlier conversation, which goes on: its turns are told to the "
            "model, there is no greeting, and the journal is continued.",
            fixed="the conversation has begun",
            option=Option(
                "--resume", "files", "go on with the conversation of a journal", "JOURNAL"
            ),
            allowed="a path, or None",
            form=_filled,
        ),
    ] = None
    session_folder: Annotated[
        str | None,
        Setting(
            "A folder for all that is kept of the conversation: its journal, recording and "
            "events, readable by their owner alone. ``rtvoice show`` shows it, ``rtvoice resume`` "
            "goes on with it.",
            fixed="the conversation has begun",
            option=Option(
                "--session", "files", "keep journal, recording and events in a folder", "FOLDER"
            ),
            allowed="a path, or None",
            form=_filled,
            is_path=True,
        ),
    ] = None
    stored: Annotated[
        Literal["nothing", "text", "sound"],
        Setting(
            "What is kept in ``session_folder``: ``nothing``; ``text``: journal and events; "
            "``sound``: these and the recording.",
            fixed="the conversation has begun",
            option=Option("--store", "files", "what --session keeps (sound: text and sound)"),
        ),
    ] = "sound"
    redact: Annotated[
        str | None,
        Setting(
            "``module:function`` or ``file.py:function``: is given each text of the conversation "
            "before it is written to a journal or to ``session_folder``, and returns what is "
            "written. Images are not kept then, and nothing can be recorded.",
            fixed="the journal has begun",
            option=Option("--redact", "files", "a function that each stored text passes", "NAME"),
            allowed="module:function or file.py:function, or None",
            form=_filled,
            is_path=True,
        ),
    ] = None

    # -- the parts of the session

    agent: Annotated[
        str | None,
        Setting(
            "``module:attr`` or ``file.py:attr`` of the agent, which the tools process loads.",
            parameter=None,
            is_path=True,
        ),
    ] = None
    components: Annotated[
        dict[str, str],
        Setting(
            "Your own actors: a mapping from name to ``module:Class``. Each runs in its own "
            "process, which is restarted after a crash.",
            fixed="components are started with the session",
            allowed='a mapping such as {"mood": "app:MoodActor"}',
            form=_components,
        ),
    ] = {}
    import_path: Annotated[
        tuple[str, ...],
        Setting(
            "Folders in which the user's modules are looked up, after the installed packages.",
            parameter=None,
            is_path=True,
        ),
    ] = ()
    wire_events: Annotated[
        tuple[str, ...],
        Setting(
            "Names of the wire events that the program has subscribed to; see `WantWireEvents`.",
            parameter=None,
        ),
    ] = ()

    lease_path: Annotated[
        str | None,
        Setting(
            "The file that says until when the conversation may send anything; set by the host of "
            "a fleet.",
            parameter=None,
            is_path=True,
        ),
    ] = None
    asks_to_run: Annotated[
        bool,
        Setting(
            "Whether the program records each call of a tool before it is run, unless running it "
            "twice is harmless; set by the host of a fleet.",
            parameter=None,
        ),
    ] = False

    # -- the supervisor

    hang_s: Annotated[
        _Hour,
        Setting(
            "Seconds without progress after which a component counts as hung and is restarted.",
            parameter=None,
        ),
    ] = 3.0
    start_s: Annotated[
        _Hour,
        Setting(
            "Seconds within which each component must be open; give more if many agents start at "
            "once.",
            parameter="start_timeout_s",
            fixed="the session has started",
            option=Option(
                "--start-timeout", "others", "each component must start within N seconds", "N"
            ),
        ),
    ] = 15.0
    connect_timeout_s: Annotated[
        _Seconds | None,
        Setting(
            "Seconds within which the server must begin the first session; then the conversation "
            "fails. None: no limit.",
            fixed="the first session has begun",
            option=_timeout_option(
                "--connect-timeout",
                "fail if the server begins no session within N seconds (60); 0: never",
            ),
            allowed=_SECONDS_OR_NEVER,
        ),
    ] = 60.0
    outage_timeout_s: Annotated[
        _Seconds | None,
        Setting(
            "Seconds without a session with the server, later in the conversation, after which the "
            "conversation fails. None: no limit.",
            fixed="it is set when the session starts",
            option=_timeout_option(
                "--outage-timeout", "fail if the server is lost for N seconds (300); 0: never"
            ),
            allowed=_SECONDS_OR_NEVER,
        ),
    ] = 300.0
    stop_s: Annotated[
        _Hour, Setting("Seconds within which the session must end.", parameter=None)
    ] = 5.0
    max_seconds: Annotated[
        _Seconds | None,
        Setting(
            "Seconds after which the session ends; None: never.",
            parameter=None,
            option=Option("--max-seconds", "end", "end after N seconds", "N"),
            allowed="a number of seconds above 0",
        ),
    ] = None
    memory_limit_mib: Annotated[
        Annotated[int, Meta(ge=64)] | None,
        Setting(
            "Memory limit of the tools process, and of that of each component of your own; None: "
            "no limit. It is enforced on Linux only.",
            parameter=None,
            allowed="a whole number of MiB, at least 64, or None for no limit",
        ),
    ] = 2048
    probes: Annotated[
        bool,
        Setting(
            "Whether components accept fault injection (for tests).",
            parameter=None,
            option=Option(
                "--probes", "others", "accept faults from scripts/inject.py, for tests", value=True
            ),
        ),
    ] = False
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
        Setting("The lowest level of the log records that are kept.", parameter=None),
    ] = "INFO"


SETTINGS: dict[str, Setting] = {
    name: kind.__metadata__[-1] for name, kind in Settings.__annotations__.items()
}
"""The properties of each field of `Settings`, by name."""
CHANGEABLE = tuple(
    name for name, setting in SETTINGS.items() if setting.changed_by is UpdateSettings
)
"""Fields of `Settings` that `UpdateSettings` may change while the session runs."""
