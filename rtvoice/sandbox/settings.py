"""The configuration of a session: its defaults, its checks, and the merging of updates."""

from __future__ import annotations

import copy
import re
from typing import Any, Final

from rtvoice.sandbox.errors import (
    RefusedError,
    invalid_type,
    invalid_value,
    missing,
    too_long,
)
from rtvoice.sandbox.schema import (
    Rule,
    anything,
    array,
    choice,
    either,
    flag,
    nullable,
    number,
    record,
    text,
    variant,
    whole,
)

__all__ = [
    "DEFAULT_MODEL",
    "VOICES",
    "Settings",
    "cannot_update_voice",
    "check_response",
    "conversation_settings",
    "merged",
    "transcription_settings",
]

Settings = dict[str, Any]

DEFAULT_MODEL: Final = "gpt-realtime-2.1"
VOICES: Final = (
    "alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar",
)  # fmt: skip

_INSTRUCTIONS: Final = (
    "You are the rtvoice sandbox. You understand a short list of phrases; "
    "whoever says help hears them."
)

# Defaults of a session, as recorded from the service in 2026. For silence_duration_ms, the
# documentation says 500, but the service uses 200.
_SERVER_VAD: Final[Settings] = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 200,
    "idle_timeout_ms": None,
    "create_response": True,
    "interrupt_response": True,
}
_SEMANTIC_VAD: Final[Settings] = {
    "type": "semantic_vad",
    "eagerness": "auto",
    "create_response": True,
    "interrupt_response": True,
}
_TRANSCRIPTION: Final[Settings] = {"model": None, "language": None, "prompt": None}
_PCM: Final[Settings] = {"type": "audio/pcm", "rate": 24000}

# Models without reasoning, which refuse its settings
# (https://platform.openai.com/docs/guides/realtime-models). An unknown model accepts them.
_WITHOUT_REASONING: Final = re.compile(r"gpt-realtime(-1\.5|-mini)?(-\d{4}-\d\d-\d\d)?$|gpt-4o-.*")


def conversation_settings(model: str) -> Settings:
    """Return the configuration of a new conversation session."""
    return {
        "type": "realtime",
        "model": model,
        "output_modalities": ["audio"],
        "instructions": _INSTRUCTIONS,
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "tracing": None,
        "truncation": "auto",
        "prompt": None,
        "audio": {
            "input": _input_settings(_SERVER_VAD),
            "output": {"format": dict(_PCM), "voice": "alloy", "speed": 1.0},
        },
        "include": None,
    }


def transcription_settings() -> Settings:
    """Return the configuration of a new transcription session."""
    return {
        "type": "transcription",
        "audio": {"input": _input_settings(_SERVER_VAD)},
        "include": None,
    }


def _input_settings(turn_detection: Settings) -> Settings:
    return {
        "format": dict(_PCM),
        "transcription": None,
        "noise_reduction": None,
        "turn_detection": dict(turn_detection),
    }


# The settings that each transcription model accepts
# (https://platform.openai.com/docs/guides/realtime-transcription). An unknown model accepts all.
_STREAMING: Final = ("gpt-live-transcribe", "gpt-realtime-whisper")
_ACCEPTED_BY: Final = {
    "keywords": ("gpt-transcribe", "gpt-live-transcribe"),
    "languages": ("gpt-transcribe", "gpt-live-transcribe"),
    "delay": ("gpt-realtime-whisper",),
}
_TRANSCRIBERS: Final = re.compile(
    r"whisper-1|gpt-(live-)?transcribe|gpt-4o(-mini)?-transcribe.*|gpt-realtime-whisper"
)


def merged(
    now: Settings, update: Any, *, voice_is_fixed: bool = False, responding: bool = False
) -> Settings:
    """Return a configuration with an update applied; `now` is not changed.

    Args:
        now: The configuration in force.
        update: The `session` of a `session.update`.
        voice_is_fixed: Whether the assistant has already produced audio.
        responding: Whether a response is in progress.

    Raises:
        RefusedError: A field is missing, unknown or wrong. The whole update is refused.
    """
    _check_session(now, update)
    new = copy.deepcopy(now)
    for name, value in update.items():
        if name == "audio":
            _merge_input(new["audio"]["input"], value.get("input", {}))
            _merge_output(new["audio"], value.get("output", {}), voice_is_fixed)
        else:
            new[name] = copy.deepcopy(value)
    _check_transcription(new["audio"]["input"])
    if responding and new["audio"]["output"]["speed"] != now["audio"]["output"]["speed"]:
        raise RefusedError(
            "Cannot change the speed while a response is in progress.",
            code="invalid_value",
            param="session.audio.output.speed",
        )
    return new


def check_response(parameters: Any, model: str) -> None:
    """Check the `response` of a `response.create`, except its `input` items.

    Raises:
        RefusedError: A field is unknown or wrong, or the model does not support it.
    """
    _RESPONSE(parameters, "response")
    _check_reasoning(parameters, model, "response")


def _check_session(now: Settings, update: Any) -> None:
    kind = now["type"]
    (_CONVERSATION if kind == "realtime" else _TRANSCRIBER)(update, "session")
    if "model" in update and update["model"] != now["model"]:
        raise RefusedError(
            f"Cannot change the model of a session: it is '{now['model']}'.",
            code="invalid_value",
            param="session.model",
        )
    _check_reasoning(update, str(now.get("model")), "session")
    if "tracing" in update and now["tracing"] not in (None, update["tracing"]):
        raise RefusedError(
            "Tracing cannot be changed once it is enabled.",
            code="invalid_value",
            param="session.tracing",
        )


def _check_reasoning(settings: Settings, model: str, path: str) -> None:
    for name in ("reasoning", "parallel_tool_calls"):
        if settings.get(name) is not None and _WITHOUT_REASONING.match(model):
            raise RefusedError(
                f"The model '{model}' does not support '{name}'.",
                code="invalid_value",
                param=f"{path}.{name}",
            )


def _check_transcription(settings: Settings) -> None:
    """Check the transcription settings against their model, after an update is merged."""
    wanted = settings["transcription"]
    model = (wanted or {}).get("model")
    if model is None or _TRANSCRIBERS.fullmatch(model) is None:
        return
    path = "session.audio.input.transcription"
    if model in _STREAMING and settings["turn_detection"] is not None:
        raise RefusedError(
            f"The transcription model '{model}' needs 'turn_detection' to be null.",
            code="invalid_value",
            param=f"{path}.model",
        )
    refused = [name for name, models in _ACCEPTED_BY.items() if model not in models]
    refused += ["prompt"] if model == "gpt-realtime-whisper" else []
    for name in refused:
        if wanted.get(name) is not None:
            raise RefusedError(
                f"The transcription model '{model}' does not support '{name}'.",
                code="invalid_value",
                param=f"{path}.{name}",
            )


def _merge_input(now: Settings, update: Settings) -> None:
    for name, value in update.items():
        if value is None:
            now[name] = None
        elif name == "turn_detection":
            now[name] = _turn_detection(now[name], value)
        elif name == "transcription":
            now[name] = {**_TRANSCRIPTION, **(now[name] or {}), **value}
        elif name == "noise_reduction":
            now[name] = {"strength": 1, **(now[name] or {}), **value}
        else:
            now[name] = _format(value)


def _turn_detection(now: Settings | None, update: Settings) -> Settings:
    if now is not None and now["type"] == update["type"]:
        return {**now, **update}
    return {**(_SERVER_VAD if update["type"] == "server_vad" else _SEMANTIC_VAD), **update}


def _merge_output(audio: Settings, update: Settings, voice_is_fixed: bool) -> None:
    for name, value in update.items():
        if name == "voice" and voice_is_fixed and value != audio["output"]["voice"]:
            raise cannot_update_voice()
        audio["output"][name] = _format(value) if name == "format" else value


def cannot_update_voice() -> RefusedError:
    return RefusedError(
        "Cannot update a conversation's voice if assistant audio is present.",
        code="cannot_update_voice",
    )


def _format(value: Settings) -> Settings:
    return dict(_PCM) if value["type"] == "audio/pcm" else dict(value)


def _modalities(value: Any, path: str) -> None:
    array(choice("text", "audio"))(value, path)
    if value not in (["text"], ["audio"]):
        raise RefusedError(
            f"Invalid modalities: {value}. Supported combinations are: ['text'] and ['audio'].",
            code="invalid_value",
            param=path,
        )


def _output_tokens(value: Any, path: str) -> None:
    if isinstance(value, str):
        choice("inf")(value, path)
    else:
        whole(1, 4096)(value, path)


def _mcp_tool(value: Any, path: str) -> None:
    _MCP_TOOL(value, path)
    if not {"server_url", "connector_id", "tunnel_id"} & value.keys():
        raise missing(f"{path}.server_url")


def _rate(value: Any, path: str) -> None:
    if value != 24000 or isinstance(value, bool):
        raise invalid_value(path, value, ("24000",))


def _tool_name(value: Any, path: str) -> None:
    text()(value, path)
    if re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", value) is None:
        raise RefusedError(
            f"Invalid '{path}': string does not match pattern. "
            "Expected a string that matches the pattern '^[a-zA-Z0-9_-]{1,64}$'.",
            code="invalid_value",
            param=path,
        )


def _metadata(value: Any, path: str) -> None:
    if not isinstance(value, dict):
        raise invalid_type(path, "an object", value)
    if len(value) > 16:
        raise RefusedError(
            f"Invalid '{path}': too many properties. Expected at most 16, got {len(value)}.",
            code="object_above_max_properties",
            param=path,
        )
    for name, each in value.items():
        if len(name) > 64:
            raise too_long(path, 64, len(name))
        text(512)(each, f"{path}.{name}")


def _object(value: Any, path: str) -> None:
    if not isinstance(value, dict):
        raise invalid_type(path, "an object", value)


_type: Final[Rule] = text()
_FORMAT: Final = variant(
    audio__pcm=record({"type": _type, "rate": _rate}),
    audio__pcmu=record({"type": _type}),
    audio__pcma=record({"type": _type}),
)
_VOICE: Final = either(record({"id": text()}, "id"), *VOICES)
_VAD: Final = variant(
    server_vad=record(
        {
            "type": _type,
            "threshold": number(0, 1),
            "prefix_padding_ms": whole(0, 10_000),
            "silence_duration_ms": whole(0, 60_000),
            "idle_timeout_ms": nullable(whole(5_000, 30_000)),
            "create_response": flag,
            "interrupt_response": flag,
        }
    ),
    semantic_vad=record(
        {
            "type": _type,
            "eagerness": choice("low", "medium", "high", "auto"),
            "create_response": flag,
            "interrupt_response": flag,
        }
    ),
)
_INPUT: Final = record(
    {
        "format": _FORMAT,
        "noise_reduction": nullable(
            record({"type": choice("near_field", "far_field"), "strength": number(0, 1)}, "type")
        ),
        "transcription": nullable(
            record(
                {
                    "model": nullable(text()),
                    "language": nullable(text()),
                    "prompt": nullable(text()),
                    "languages": nullable(array(text())),
                    "keywords": nullable(array(text())),
                    "delay": nullable(choice("minimal", "low", "medium", "high", "xhigh")),
                }
            )
        ),
        "turn_detection": nullable(_VAD),
    }
)
_MCP_TOOL: Final = record(
    {
        "type": _type,
        "server_label": text(),
        **dict.fromkeys(
            (
                "allowed_callers",
                "allowed_tools",
                "authorization",
                "connector_id",
                "defer_loading",
                "headers",
                "require_approval",
                "server_description",
                "server_url",
                "tunnel_id",
            ),
            anything,
        ),
    },
    "server_label",
)
_TOOLS: Final = array(
    variant(
        function=record(
            {
                "type": _type,
                "name": _tool_name,
                "description": nullable(text()),
                "parameters": nullable(_object),
            },
            "name",
        ),
        mcp=_mcp_tool,
    ),
    at_most=128,
)
_TOOL_CHOICE: Final = either(
    variant(
        function=record({"type": _type, "name": text()}, "name"),
        mcp=record({"type": _type, "server_label": text(), "name": nullable(text())}),
    ),
    "none",
    "auto",
    "required",
)
_REASONING: Final = record({"effort": choice("minimal", "low", "medium", "high", "xhigh")})
_PROMPT: Final = record({"id": text(), "version": nullable(text()), "variables": anything}, "id")
_TRUNCATION: Final = either(
    record(
        {
            "type": choice("retention_ratio"),
            "retention_ratio": number(0, 1),
            "token_limits": nullable(record({"post_instructions": whole(0)})),
        },
        "type",
        "retention_ratio",
    ),
    "auto",
    "disabled",
)
_INCLUDE: Final = nullable(array(choice("item.input_audio_transcription.logprobs")))

_CONVERSATION: Final = record(
    {
        "type": choice("realtime"),
        "model": text(),
        "output_modalities": _modalities,
        "instructions": nullable(text()),
        "audio": record(
            {
                "input": _INPUT,
                "output": record({"format": _FORMAT, "voice": _VOICE, "speed": number(0.25, 1.5)}),
            }
        ),
        "tools": _TOOLS,
        "tool_choice": _TOOL_CHOICE,
        "parallel_tool_calls": flag,
        "reasoning": nullable(_REASONING),
        "max_output_tokens": _output_tokens,
        "truncation": _TRUNCATION,
        "tracing": nullable(
            either(
                record(
                    {"workflow_name": text(), "group_id": text(), "metadata": nullable(_object)}
                ),
                "auto",
            )
        ),
        "prompt": nullable(_PROMPT),
        "include": _INCLUDE,
    },
    "type",
)
_TRANSCRIBER: Final = record(
    {
        "type": choice("transcription"),
        "audio": record({"input": _INPUT}),
        "include": _INCLUDE,
    },
    "type",
)
_RESPONSE: Final = record(
    {
        "instructions": nullable(text()),
        "output_modalities": nullable(_modalities),
        "audio": nullable(record({"output": record({"format": _FORMAT, "voice": _VOICE})})),
        "tools": nullable(_TOOLS),
        "tool_choice": nullable(_TOOL_CHOICE),
        "parallel_tool_calls": nullable(flag),
        "reasoning": nullable(_REASONING),
        "max_output_tokens": nullable(_output_tokens),
        "prompt": nullable(_PROMPT),
        "metadata": nullable(_metadata),
        "conversation": nullable(choice("auto", "none")),
        "input": nullable(array(anything)),
    }
)
