"""What describes an agent, and what of it may change during a conversation.

The parameters are the settings of a session (`messages.settings`), which has their ranges, their
descriptions and their defaults; this module tells their names and types to editors and type
checkers.
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
    RetentionRatio,
    SemanticVad,
    ServerVad,
    Settings,
    limits,
)
from rtvoice import checks
from rtvoice.errors import AgentError

__all__ = ["Changes", "Description", "documented"]

_DEFAULTS = Settings()

F = TypeVar("F", bound=Callable[..., object])
Effort = Literal["minimal", "low", "medium", "high", "xhigh"]


def documented(names: Iterable[str]) -> Callable[[F], F]:
    """Add to the ``Args`` of a docstring what the table of settings says of these parameters."""

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
    """What `Agent.update` takes: the parameters of `Agent` that may change in a conversation."""

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
    interruption: Literal["immediate", "confirmed"]
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


class Description:
    """What an assistant is: who speaks, how, with which tools and devices. It does not change."""

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
    interruption: Literal["immediate", "confirmed"]
    preroll_ms: int
    duplex: Literal["auto", "half", "full"]
    noise_reduction: Literal["near_field", "far_field"] | None
    output_modality: Literal["audio", "text"]
    max_output_tokens: int | None
    tool_choice: str
    parallel_tool_calls: bool | None
    reasoning_effort: Effort | None
    truncation: Literal["auto", "disabled"] | RetentionRatio
    volume: float
    output_hold_s: float | None
    builtin_tools: tuple[str, ...]
    tool_timeout_s: float
    start_timeout_s: float
    journal_path: str | None
    server: str | None
    components: Mapping[str, str]

    @documented(checks.PARAMETERS)
    def __init__(  # noqa: D417 - `documented` adds the others
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
        interruption: Literal["immediate", "confirmed"] = "immediate",
        preroll_ms: int = 300,
        duplex: Literal["auto", "half", "full"] = "auto",
        noise_reduction: Literal["near_field", "far_field"] | None = None,
        output_modality: Literal["audio", "text"] = "audio",
        max_output_tokens: int | Literal["inf"] | None = None,
        tool_choice: str = "auto",
        parallel_tool_calls: bool | None = None,
        reasoning_effort: Effort | None = None,
        truncation: Literal["auto", "disabled"] | RetentionRatio = "auto",
        volume: float = 1.0,
        output_hold_s: float | None = _DEFAULTS.output_hold_s,
        builtin_tools: tuple[str, ...] = BUILTIN_TOOLS,
        tool_timeout_s: float = 60.0,
        start_timeout_s: float = _DEFAULTS.start_s,
        journal_path: str | os.PathLike[str] | None = None,
        server: str | None = None,
        components: Mapping[str, str] | None = None,
        **unknown: Never,
    ) -> None:
        """Describe an assistant.

        Args:
            tools: functions that the model may call. They run in this program; those of a name,
                ``module:attr`` or ``file.py:attr``, in the process of the tools.
            api_key: for the service; None: ``OPENAI_API_KEY`` of the environment. Only the process
                that talks with the service is given it.
            audio_input: an object with ``start()``, ``stop()`` and ``stream_chunks()``
                (`rtvoice.audio.devices.AudioInputDevice`), or a name: ``default``, a device's index
                or part of its name, a WAV file, ``silence``, ``module:Class`` or ``file.py:Class``
                of such an object, ``program`` (what is published as `InputAudioBufferAppendEvent`).
                None: ``RTVOICE_INPUT`` of the environment, or the default microphone; without one,
                silence.
            audio_output: an object with ``start()``, ``stop()``, ``play_chunk(chunk)`` and
                ``clear_buffer()`` (`rtvoice.audio.devices.AudioOutputDevice`), or a name:
                ``default``, a device's index or part of its name, a WAV file, ``null``,
                ``module:Class`` or ``file.py:Class``. None: ``RTVOICE_OUTPUT`` of the environment,
                or the default loudspeaker; without one, nothing is heard.
            server: ``openai``, ``sandbox``, or a ws:// or wss:// URL; None: ``RTVOICE_SERVER`` of
                the environment, or the service.
            unknown: nothing.

        Raises:
            AgentError: something is of the wrong type or out of range, or there is no such
                parameter.
        """
        given = dict(locals())  # first of all: there are only the parameters yet
        del given["self"], given["unknown"]
        checks.refuse_unknown(unknown)
        found = {name: checks.checked(name, value) for name, value in given.items()}
        vars(self).update(_api_key=found.pop("api_key"), **found)
        for name in ("model", "transcription_model"):
            checks.warn_if_retired(found[name], stacklevel=3)
        checks.refuse_clash(self._own_tool_names(), self.builtin_tools)
        self._settings(self.server or os.environ.get("RTVOICE_SERVER") or "openai")

    def describe(self) -> dict[str, Any]:
        """Return the agent as fields of `messages.Settings`, in plain values.

        This is how a process that loads the agent by its name tells the others. Objects cannot be
        told, and the key is nobody else's business.

        Raises:
            AgentError: a device is given as an object, or the key is in the code.
        """
        for name in ("audio_input", "audio_output"):
            device = getattr(self, name)
            if not isinstance(device, str | None):
                raise AgentError(
                    name,
                    f"python -m supervisor cannot use an object ({type(device).__name__}), which "
                    f"would run in a program of yours (async with agent); give {name} as a name, "
                    f'such as "default", "talk.wav" or "module:attribute"',
                )
        if self._api_key is not None:
            raise AgentError(
                "api_key",
                "python -m supervisor takes the key from OPENAI_API_KEY (or a .env file); leave "
                "api_key out of the agent",
            )
        chosen = {"input": self.audio_input, "output": self.audio_output, "server": self.server}
        chosen = {name: value for name, value in chosen.items() if value is not None}
        plain: dict[str, Any] = msgspec.to_builtins(self._everywhere() | chosen)
        return plain

    def _everywhere(self) -> dict[str, Any]:
        """Return what is the same wherever it runs, as fields of `messages.Settings`."""
        elsewhere = ("audio_input", "audio_output", "server")
        names = {name: each for name, each in checks.PARAMETERS.items() if name not in elsewhere}
        return {setting: getattr(self, name) for name, setting in names.items()}

    def _settings(self, server: str) -> Settings:
        """Return what the server is told.

        Raises:
            AgentError: the server would not take it.
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
            f"conversation that goes on by agent.update(...)"
        )

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"an Agent cannot be changed; {name} stays")

    def __repr__(self) -> str:
        named = isinstance(self.tools, str)
        tools = f"tools={self.tools!r}" if named else f"{len(self._own_tool_names())} tools"
        return f"Agent({self.instructions[:40]!r}, model={self.model!r}, {tools})"

    _api_key: str | None
