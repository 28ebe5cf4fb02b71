"""The agent: a description of who speaks, how, with which tools and through which devices."""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from typing import Any

import msgspec

from actors.tools.registry import Tools
from messages import BUILTIN_TOOLS, SemanticVad, ServerVad, Settings

__all__ = ["Agent", "AgentError"]

_DEFAULTS = Settings()


class AgentError(ValueError):
    """An agent that cannot be; the text says what to do."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name = name
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


class Agent:
    """Describes an assistant. It cannot be changed once it is made.

    Example:
        ```python
        from rtvoice import Agent, Tools

        tools = Tools()

        @tools.action("Say how warm it is in a city.")
        def get_temperature(city: str) -> str:
            return "21 degrees"

        agent = Agent("You are a weather forecaster.", tools=tools)
        ```

    Run it with ``python -m supervisor FILE:agent``.
    """

    __slots__ = (
        "_api_key",
        "audio_input",
        "audio_output",
        "builtin_tools",
        "components",
        "greeting",
        "inactivity_timeout_s",
        "instructions",
        "journal_path",
        "language",
        "model",
        "recording_output_path",
        "server",
        "speech_speed",
        "tool_timeout_s",
        "tools",
        "transcription_model",
        "turn_detection",
        "voice",
        "volume",
    )

    def __init__(
        self,
        instructions: str = "",
        model: str = _DEFAULTS.model,
        voice: str = _DEFAULTS.voice,
        speech_speed: float = 1.0,
        transcription_model: str | None = None,
        tools: Tools | None = None,
        recording_output_path: str | os.PathLike[str] | None = None,
        api_key: str | None = None,
        audio_input: object = None,
        audio_output: object = None,
        *,
        greeting: str | None = None,
        language: str | None = None,
        inactivity_timeout_s: float | None = 60.0,
        turn_detection: ServerVad | SemanticVad = _DEFAULTS.turn_detection,
        volume: float = 1.0,
        builtin_tools: tuple[str, ...] = BUILTIN_TOOLS,
        tool_timeout_s: float = 60.0,
        journal_path: str | os.PathLike[str] | None = None,
        server: str | None = None,
        components: Mapping[str, str] | None = None,
    ) -> None:
        """Describe an assistant.

        Args:
            instructions: what the model shall be and do.
            model: a Realtime model of the service.
            voice: one of the service's voices, or the id of a custom one.
            speech_speed: 0.5-1.5, 1.0 is normal.
            transcription_model: what transcribes the user, such as ``gpt-transcribe``; None: the
                user's turns have no text.
            tools: functions that the model may call.
            recording_output_path: a WAV file for both sides of the conversation, user left.
            api_key: for the service; None: ``OPENAI_API_KEY`` of the environment.
            audio_input: ``default``, a device's index or part of its name, a WAV file, ``silence``.
            audio_output: ``default``, a device's index or part of its name, a WAV file, ``null``.
            greeting: a sentence with which the assistant begins; None: the user begins.
            language: what the user speaks, in two letters (ISO 639-1), a hint for transcription.
            inactivity_timeout_s: the session ends when nobody has spoken for so many seconds; None:
                never.
            turn_detection: how the service tells that the user has finished.
            volume: of playback, 0.0-1.0.
            builtin_tools: names of the built-in tools that the model may call.
            tool_timeout_s: after so many seconds the model is told that a tool did not finish.
            journal_path: a file in which the conversation is kept; None: a temporary one.
            server: ``openai``, ``sandbox``, or a ws:// or wss:// URL; None: ``RTVOICE_SERVER`` of
                the environment, or the service.
            components: your own actors, name to ``module:Class``.

        Raises:
            AgentError: something is of the wrong type or out of range.
        """
        given: dict[str, Any] = {
            "instructions": _text("instructions", instructions),
            "model": _name("model", model),
            "voice": _name("voice", voice),
            "speech_speed": _number("speech_speed", speech_speed, 0.5, 1.5),
            "transcription_model": _optional(_name, "transcription_model", transcription_model),
            "tools": _tools(tools),
            "recording_output_path": _path("recording_output_path", recording_output_path),
            "_api_key": _optional(_name, "api_key", api_key),
            "audio_input": _device("audio_input", audio_input),
            "audio_output": _device("audio_output", audio_output),
            "greeting": _optional(_text, "greeting", greeting),
            "language": _language(language),
            "inactivity_timeout_s": _seconds("inactivity_timeout_s", inactivity_timeout_s),
            "turn_detection": _turn_detection(turn_detection),
            "volume": _number("volume", volume, 0.0, 1.0),
            "builtin_tools": _builtin_tools(builtin_tools),
            "tool_timeout_s": _number("tool_timeout_s", tool_timeout_s, 0.001, 86_400.0),
            "journal_path": _path("journal_path", journal_path),
            "server": _server(server),
            "components": _components(components),
        }
        for name, value in given.items():
            object.__setattr__(self, name, value)

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
                    f"python -m supervisor cannot use an object ({type(device).__name__}) of your "
                    f'program yet; give {name} as a name, such as "default" or "talk.wav"',
                )
        if self.components:
            raise AgentError(
                "components", "python -m supervisor does not run an agent's own components yet"
            )
        if self._api_key is not None:
            raise AgentError(
                "api_key",
                "python -m supervisor takes the key from OPENAI_API_KEY (or a .env file); leave "
                "api_key out of the agent",
            )
        settings = {
            "instructions": self.instructions,
            "model": self.model,
            "voice": self.voice,
            "speed": self.speech_speed,
            "language": self.language,
            "transcription_model": self.transcription_model,
            "greeting": self.greeting,
            "turn_detection": msgspec.to_builtins(self.turn_detection),
            "inactivity_timeout_s": self.inactivity_timeout_s,
            "volume": self.volume,
            "builtin_tools": list(self.builtin_tools),
            "tool_timeout_s": self.tool_timeout_s,
        }
        chosen = {
            "input": self.audio_input,
            "output": self.audio_output,
            "recording_path": self.recording_output_path,
            "journal_path": self.journal_path,
            "server": self.server,
        }
        return settings | {name: value for name, value in chosen.items() if value is not None}

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"an Agent cannot be changed; make another one with {name}=...")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"an Agent cannot be changed; {name} stays")

    def __repr__(self) -> str:
        tools = len(self.tools) if self.tools is not None else 0
        return f"Agent({self.instructions[:40]!r}, model={self.model!r}, {tools} tools)"

    # What __init__ sets through object.__setattr__:
    instructions: str
    model: str
    voice: str
    speech_speed: float
    transcription_model: str | None
    tools: Tools | None
    recording_output_path: str | None
    audio_input: object
    audio_output: object
    greeting: str | None
    language: str | None
    inactivity_timeout_s: float | None
    turn_detection: ServerVad | SemanticVad
    volume: float
    builtin_tools: tuple[str, ...]
    tool_timeout_s: float
    journal_path: str | None
    server: str | None
    components: dict[str, str]
    _api_key: str | None


# -- checks: each returns the value in its plain form, or says what is wrong -------------------


def _plain(value: object) -> object:
    return value.value if isinstance(value, enum.Enum) else value


def _text(name: str, value: object) -> str:
    value = _plain(value)
    if not isinstance(value, str):
        raise AgentError(name, f"give a text, not {_kind(value)}")
    return value


def _name(name: str, value: object) -> str:
    text = _text(name, value)
    if not text.strip():
        raise AgentError(name, "it is empty; leave it out for the default")
    return text


def _optional(check: Any, name: str, value: object) -> Any:
    return None if value is None else check(name, value)


def _number(name: str, value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AgentError(name, f"give a number from {low:g} to {high:g}, not {_kind(value)}")
    if not low <= value <= high:
        raise AgentError(name, f"{value:g} is out of range; give a number from {low:g} to {high:g}")
    return float(value)


def _seconds(name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise AgentError(name, "give a number of seconds above 0, or None for never")
    return float(value)


def _path(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike):
        raise AgentError(name, f"give a path, not {_kind(value)}")
    path = os.fspath(value)
    if not isinstance(path, str) or not path:
        raise AgentError(name, "give a path as text")
    return path


def _tools(value: object) -> Tools | None:
    if value is not None and not isinstance(value, Tools):
        raise AgentError("tools", f"give an rtvoice.Tools, not {_kind(value)}")
    return value


def _device(name: str, value: object) -> object:
    """Names and paths become text; an object stays what it is."""
    if isinstance(value, bool):
        raise AgentError(name, "give a device's name or index, or a WAV file")
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str | os.PathLike):
        return _path(name, value)
    return value


def _language(value: object) -> str | None:
    if value is None:
        return None
    text = _name("language", value)
    if len(text) not in (2, 3) or not text.isalpha():
        raise AgentError("language", f"{text!r} is no language code; give one such as en, de or fr")
    return text.lower()


def _turn_detection(value: object) -> ServerVad | SemanticVad:
    if not isinstance(value, ServerVad | SemanticVad):
        raise AgentError(
            "turn_detection",
            f"give messages.ServerVad(...) or messages.SemanticVad(...), not {_kind(value)}",
        )
    return value


def _builtin_tools(value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, tuple | list | set | frozenset):
        raise AgentError("builtin_tools", f"give names out of {', '.join(BUILTIN_TOOLS)}")
    for name in value:
        if name not in BUILTIN_TOOLS:
            raise AgentError(
                "builtin_tools", f"{name!r} is not built in; there are {', '.join(BUILTIN_TOOLS)}"
            )
    return tuple(name for name in BUILTIN_TOOLS if name in value)


def _server(value: object) -> str | None:
    if value is None:
        return None
    text = _text("server", value)
    if text not in ("openai", "sandbox") and not text.startswith(("ws://", "wss://")):
        raise AgentError(
            "server", f"{text!r} is no server; give openai, sandbox, or a ws:// or wss:// URL"
        )
    return text


def _components(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise AgentError("components", 'give a mapping such as {"mood": "app:MoodActor"}')
    for name, target in value.items():
        if not isinstance(name, str) or not isinstance(target, str) or ":" not in target:
            raise AgentError(
                "components", f'{name!r}: {target!r} is no component; write "name": "module:Class"'
            )
    return dict(value)


def _kind(value: object) -> str:
    if value is None:
        return "None"
    return f"a value of type {type(value).__name__}"
