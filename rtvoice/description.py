"""The parameters of an agent, and which of them may change during a conversation.

Each parameter is a setting of a session, and `messages.settings` has its range, description and
default. This module repeats only names and types, because editors and type checkers read them from
the source.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Never, TypedDict, TypeVar

import msgspec

from actors.tools.registry import Tools
from messages import (
    BUILTIN_TOOLS,
    Budget,
    Price,
    RetentionRatio,
    SemanticVad,
    ServerVad,
    Settings,
    limits,
)
from messages.hints import rtvoice
from messages.urls import secrets_of
from rtvoice import checks
from rtvoice.errors import AgentError

__all__ = ["Changes", "Description", "documented"]

_DEFAULTS = Settings()

F = TypeVar("F", bound=Callable[..., object])
Effort = Literal["minimal", "low", "medium", "high", "xhigh"]


def documented(names: Iterable[str]) -> Callable[[F], F]:
    """Add descriptions from the table of settings to the ``Args`` of a docstring."""

    def document(function: F) -> F:
        doc = inspect.cleandoc(function.__doc__ or "")
        texts = [
            f"\n    {name}: {checks.description_of(name)}"
            for name in names
            if f"\n    {name}: " not in doc
        ]
        args, raises, rest = doc.partition("\n\nRaises:")
        function.__doc__ = "".join((args, *texts, raises, rest))
        return function

    return document


class Changes(TypedDict, total=False):
    """The arguments of `Agent.update`: parameters of `Agent` that may change in a conversation."""

    instructions: str
    voice: str
    speech_speed: float
    transcription_model: str | None
    tools: Tools
    language: str | Sequence[str] | None
    transcription_prompt: str | None
    transcription_keywords: Sequence[str]
    transcription_delay: Effort | None
    inactivity_timeout_s: float | None
    turn_detection: ServerVad | SemanticVad | None
    interruption: Literal["immediate", "confirmed"] | None
    duplex: Literal["auto", "half", "full"]
    noise_reduction: Literal["near_field", "far_field"] | None
    output_modality: Literal["audio", "text"]
    max_output_tokens: int | Literal["inf"] | None
    tool_choice: str
    parallel_tool_calls: bool
    reasoning_effort: Effort
    truncation: Literal["auto", "disabled"] | RetentionRatio
    volume: float
    builtin_tools: tuple[str, ...]
    audio_input: str
    audio_output: str


class Description:
    """The immutable description of an assistant: the parameters of `Agent`, checked."""

    instructions: str
    model: str
    voice: str
    speech_speed: float
    transcription_model: str | None
    tools: Tools | str | None
    recording_output_path: str | None
    audio_input: object
    audio_output: object
    greeting: str | None
    language: str | tuple[str, ...] | None
    transcription_prompt: str | None
    transcription_keywords: tuple[str, ...]
    transcription_delay: Effort | None
    inactivity_timeout_s: float | None
    turn_detection: ServerVad | SemanticVad | None
    interruption: Literal["immediate", "confirmed"] | None
    preroll_ms: int
    duplex: Literal["auto", "half", "full"]
    echo_cancelling: Literal["auto", "on", "off"]
    noise_reduction: Literal["near_field", "far_field"] | None
    output_modality: Literal["audio", "text"]
    max_output_tokens: int | None
    budget: Budget | None
    prices: Mapping[str, tuple[Price, ...]]
    tool_choice: str
    parallel_tool_calls: bool | None
    reasoning_effort: Effort | None
    truncation: Literal["auto", "disabled"] | RetentionRatio
    volume: float
    output_hold_s: float | None
    connect_timeout_s: float | None
    outage_timeout_s: float | None
    builtin_tools: tuple[str, ...]
    tool_timeout_s: float
    start_timeout_s: float
    journal_path: str | None
    session_folder: str | None
    stored: Literal["nothing", "text", "sound"]
    redact: str | None
    resume: str | None
    server: str | None
    components: Mapping[str, str]

    @documented(checks.PARAMETERS)
    def __init__(  # noqa: D417 - `documented` adds the other parameters
        self,
        instructions: str = "",
        model: str = _DEFAULTS.model,
        voice: str = _DEFAULTS.voice,
        speech_speed: float = 1.0,
        transcription_model: str | None = None,
        tools: Tools | str | None = None,
        recording_output_path: str | os.PathLike[str] | None = None,
        api_key: str | None = None,
        audio_input: object = None,
        audio_output: object = None,
        *,
        greeting: str | None = None,
        language: str | Sequence[str] | None = None,
        transcription_prompt: str | None = None,
        transcription_keywords: Sequence[str] = (),
        transcription_delay: Effort | None = None,
        inactivity_timeout_s: float | None = 60.0,
        turn_detection: ServerVad | SemanticVad | None = _DEFAULTS.turn_detection,
        interruption: Literal["immediate", "confirmed"] | None = None,
        preroll_ms: int = 300,
        duplex: Literal["auto", "half", "full"] = "auto",
        echo_cancelling: Literal["auto", "on", "off"] = "auto",
        noise_reduction: Literal["near_field", "far_field"] | None = None,
        output_modality: Literal["audio", "text"] = "audio",
        max_output_tokens: int | Literal["inf"] | None = None,
        budget: float | Budget | None = None,
        prices: Mapping[str, Sequence[Price]] | None = None,
        tool_choice: str = "auto",
        parallel_tool_calls: bool | None = None,
        reasoning_effort: Effort | None = None,
        truncation: Literal["auto", "disabled"] | RetentionRatio = "auto",
        volume: float = 1.0,
        output_hold_s: float | None = _DEFAULTS.output_hold_s,
        connect_timeout_s: float | None = _DEFAULTS.connect_timeout_s,
        outage_timeout_s: float | None = _DEFAULTS.outage_timeout_s,
        builtin_tools: tuple[str, ...] = BUILTIN_TOOLS,
        tool_timeout_s: float = 60.0,
        start_timeout_s: float = _DEFAULTS.start_s,
        journal_path: str | os.PathLike[str] | None = None,
        resume: str | os.PathLike[str] | None = None,
        session_folder: str | os.PathLike[str] | None = None,
        stored: Literal["nothing", "text", "sound"] = "sound",
        redact: str | None = None,
        server: str | None = None,
        components: Mapping[str, str] | None = None,
        **unknown: Never,
    ) -> None:
        """Describe an assistant.

        Args:
            tools: Functions that the model may call. `Tools` run in this program. A name,
                ``module:attr`` or ``file.py:attr``, is loaded in the tools process and runs there.
            api_key: Key of the service; None: the environment variable ``OPENAI_API_KEY``. Only the
                process that is connected to the service gets it.
            audio_input: An object with ``start()``, ``stop()`` and ``stream_chunks()``
                (`rtvoice.audio.devices.AudioInputDevice`), or a name: ``default``, a device's index
                or part of its name, a WAV file, ``silence``, ``program`` (audio that is published
                as `InputAudioBufferAppendEvent`), or ``module:Class`` or ``file.py:Class`` of a
                device of your own. None: the environment variable ``RTVOICE_INPUT``, or the default
                microphone; on a machine without one, silence.
            audio_output: An object with ``start()``, ``stop()``, ``play_chunk(chunk)`` and
                ``clear_buffer()`` (`rtvoice.audio.devices.AudioOutputDevice`), or a name:
                ``default``, a device's index or part of its name, a WAV file, ``null``, or
                ``module:Class`` or ``file.py:Class`` of a device of your own. None: the environment
                variable ``RTVOICE_OUTPUT``, or the default loudspeaker; on a machine without one,
                nothing is played.
            server: ``openai``, ``sandbox``, or a ws:// or wss:// URL; None: the environment
                variable ``RTVOICE_SERVER``, or ``openai``.
            unknown: Not a parameter; any other keyword is refused.

        Raises:
            AgentError: A value is of the wrong type or out of range, or there is no such
                parameter.
        """
        given = dict(locals())  # must come first, while the parameters are the only local names
        del given["self"], given["unknown"]
        checks.refuse_unknown(unknown)
        found = {name: checks.checked(name, value) for name, value in given.items()}
        # Not by assignment: `__setattr__` refuses every name.
        vars(self).update(_api_key=found.pop("api_key"), **found)
        for name in ("model", "transcription_model"):
            checks.warn_if_retired(found[name], stacklevel=3)
        checks.refuse_clash(self._own_tool_names(), self.builtin_tools)
        self._settings(self.server or os.environ.get("RTVOICE_SERVER") or "openai")

    def describe(self) -> dict[str, Any]:
        """Return the agent as fields of `messages.Settings`, in plain values.

        A process that has loaded the agent by name sends these to the command. Objects cannot be
        sent, and the key is left out because only realtime may have it.

        Raises:
            AgentError: A device is given as an object, or the agent has an ``api_key`` or a key in
                its ``server``.
        """
        for name in ("audio_input", "audio_output"):
            device = getattr(self, name)
            if not isinstance(device, str | None):
                raise AgentError(
                    name,
                    f"{rtvoice()} cannot use an object ({type(device).__name__}): objects "
                    f"need a program of yours (async with agent); give {name} as a name, "
                    f'such as "default", "talk.wav" or "module:attribute"',
                )
        if self.session_folder is not None:
            raise AgentError(
                "session_folder",
                f"{rtvoice()} takes the folder from --session; leave session_folder out of the "
                "agent",
            )
        if self._api_key is not None:
            raise AgentError(
                "api_key",
                f"{rtvoice()} takes the key from OPENAI_API_KEY (or a .env file); leave "
                "api_key out of the agent",
            )
        if secrets_of(self.server or ""):
            raise AgentError(
                "server",
                f"{rtvoice()} takes the key from OPENAI_API_KEY (or a .env file), or in "
                "the URL of --server and RTVOICE_SERVER; leave it out of the agent's",
            )
        chosen = {"input": self.audio_input, "output": self.audio_output, "server": self.server}
        chosen = {name: value for name, value in chosen.items() if value is not None}
        plain: dict[str, Any] = msgspec.to_builtins(self._everywhere() | chosen)
        return plain

    def _everywhere(self) -> dict[str, Any]:
        """Return all settings but devices and server, which depend on where the agent runs."""
        elsewhere = ("audio_input", "audio_output", "server")
        names = {name: each for name, each in checks.PARAMETERS.items() if name not in elsewhere}
        return {setting: getattr(self, name) for name, setting in names.items()}

    def _settings(self, server: str) -> Settings:
        """Return the settings of a session with this server.

        Raises:
            AgentError: The server would refuse this combination of settings.
        """
        settings = Settings(**self._everywhere(), server=server)
        if wrong := limits.problem(settings):
            raise AgentError(*wrong)
        return settings

    def _own_tool_names(self) -> list[str]:
        return [tool.name for tool in self.tools] if isinstance(self.tools, Tools) else []

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            f"an Agent cannot be changed; make another one with {name}=..., or change the "
            f"current conversation by agent.update(...)"
        )

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"an Agent cannot be changed; {name} cannot be deleted")

    def __repr__(self) -> str:
        named = isinstance(self.tools, str)
        tools = f"tools={self.tools!r}" if named else f"{len(self._own_tool_names())} tools"
        return f"Agent({self.instructions[:40]!r}, model={self.model!r}, {tools})"

    _api_key: str | None
