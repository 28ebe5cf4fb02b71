"""The configuration of a session, and the rest of it if the server refuses a part."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.realtime.core.session import (
    configuration,
    settings_update,
    speed_update,
    tools_update,
    without,
)
from messages import RetentionRatio, SemanticVad, ServerVad, Settings, ToolSpec
from rtvoice.sandbox.settings import conversation_settings, merged
from tests.actors.realtime.core.strategies import TOOLS as CLOCK_AND_LAMP
from tests.actors.realtime.core.strategies import any_settings

ANY_TIME = settings(deadline=None)
TOOLS = (ToolSpec("a", "", {}), ToolSpec("b", "", {}))


def _whole() -> dict[str, Any]:
    return configuration(Settings(instructions="Be kind.", voice="x"), 1.0, TOOLS)


@pytest.mark.parametrize("update", [_whole(), tools_update(Settings(), TOOLS), speed_update(1.1)])
def test_every_update_names_its_type(update: dict[str, Any]) -> None:
    assert update["type"] == "realtime"


@pytest.mark.parametrize("update", [tools_update(Settings(), TOOLS), speed_update(1.1)])
def test_a_voice_is_only_in_the_whole_configuration(update: dict[str, Any]) -> None:
    assert "voice" not in str(update)


def test_what_is_refused_is_left_out_and_nothing_else() -> None:
    left = without(_whole(), "session.audio.output.voice")

    assert left is not None
    assert "voice" not in left["audio"]["output"]
    left["audio"]["output"]["voice"] = "x"
    assert left == _whole()


def test_of_the_tools_the_refused_one_is_left_out() -> None:
    left = without(_whole(), "session.tools[0].parameters")

    assert left is not None
    assert [tool["name"] for tool in left["tools"]] == ["b"]


def test_refusing_a_part_of_a_value_leaves_out_the_whole_value() -> None:
    left = without(_whole(), "session.audio.input.turn_detection.type")

    assert left is not None
    assert "type" not in left["audio"]["input"]["turn_detection"]
    left = without(_whole(), "tools.parameters")
    assert left is not None
    assert "tools" not in left


@pytest.mark.parametrize("param", [None, "", "type", "session.type", "session.nothing", "a.b.c"])
def test_a_parameter_that_cannot_be_left_out_leaves_nothing(param: str | None) -> None:
    assert without(_whole(), param) is None


def _at_the_server(*updates: dict[str, Any] | None) -> dict[str, Any]:
    """Return what a strict server makes of updates; what is null is as good as absent."""
    now = conversation_settings("gpt-realtime-2.1")
    for update in updates:
        if update is not None:
            now = merged(now, update)
    said: dict[str, Any] = _without_nulls(now)
    return said


def _without_nulls(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: _without_nulls(each) for name, each in value.items() if each is not None}


@ANY_TIME
@given(any_settings, st.sampled_from([(), CLOCK_AND_LAMP]))
def test_every_configuration_is_taken(settings: Settings, tools: tuple[ToolSpec, ...]) -> None:
    now = _at_the_server(configuration(settings, 1.0, tools))

    assert ("turn_detection" in now["audio"]["input"]) == (settings.turn_detection is not None)
    assert now["output_modalities"] == [settings.output_modality]


@ANY_TIME
@given(any_settings, any_settings)
def test_whatever_changes_the_session_is_as_if_it_had_been_so_from_the_start(
    old: Settings, new: Settings
) -> None:
    if not new.instructions:  # the server's own, which a session begins with, do not come back
        old = msgspec.structs.replace(old, instructions="")
    for name in ("parallel_tool_calls", "reasoning_effort"):  # they cannot be taken back
        if getattr(new, name) is None:
            old = msgspec.structs.replace(old, **{name: None})

    changed = _at_the_server(
        configuration(old, 1.0, CLOCK_AND_LAMP), settings_update(old, new, CLOCK_AND_LAMP)
    )

    assert changed == _at_the_server(configuration(new, 1.0, CLOCK_AND_LAMP))
    assert settings_update(new, new, CLOCK_AND_LAMP) is None


@pytest.mark.parametrize(
    ("settings", "place", "told"),
    [
        ({"voice": "voice_12"}, "audio.output.voice", {"id": "voice_12"}),
        ({"noise_reduction": "far_field"}, "audio.input.noise_reduction", {"type": "far_field"}),
        ({"turn_detection": None}, "audio.input.turn_detection", None),
        (
            {"turn_detection": ServerVad(0.6, 200, 700, 6000, False, False)},
            "audio.input.turn_detection",
            {
                "type": "server_vad",
                "threshold": 0.6,
                "prefix_padding_ms": 200,
                "silence_duration_ms": 700,
                "idle_timeout_ms": 6000,
                "create_response": False,
                "interrupt_response": False,
            },
        ),
        (
            {"turn_detection": SemanticVad("high", interrupt_response=False)},
            "audio.input.turn_detection",
            {
                "type": "semantic_vad",
                "eagerness": "high",
                "create_response": True,
                "interrupt_response": False,
            },
        ),
        (
            {
                "transcription_model": "gpt-transcribe",
                "language": ("en", "de"),
                "transcription_prompt": "Rivers.",
                "transcription_keywords": ("Rhine",),
            },
            "audio.input.transcription",
            {
                "model": "gpt-transcribe",
                "languages": ["en", "de"],
                "prompt": "Rivers.",
                "keywords": ["Rhine"],
            },
        ),
        ({"output_modality": "text"}, "output_modalities", ["text"]),
        ({"max_output_tokens": 200}, "max_output_tokens", 200),
        ({"reasoning_effort": "high"}, "reasoning", {"effort": "high"}),
        ({"parallel_tool_calls": False}, "parallel_tool_calls", False),
        ({"tool_choice": "required"}, "tool_choice", "required"),
        ({"tool_choice": "b"}, "tool_choice", {"type": "function", "name": "b"}),
        ({"tool_choice": "gone"}, "tool_choice", "auto"),
        ({"truncation": "disabled"}, "truncation", "disabled"),
        (
            {"truncation": RetentionRatio(0.8, 5000)},
            "truncation",
            {
                "type": "retention_ratio",
                "retention_ratio": 0.8,
                "token_limits": {"post_instructions": 5000},
            },
        ),
    ],
)
def test_a_setting_is_sent_under_its_name_in_the_api(
    settings: dict[str, Any], place: str, told: object
) -> None:
    tree: Any = configuration(Settings(**settings), 1.0, TOOLS)

    for key in place.split("."):
        tree = tree[key]
    assert tree == told


def test_no_tool_is_required_where_there_is_none() -> None:
    session = configuration(Settings(tool_choice="required"), 1.0, ())

    assert session["tool_choice"] == "auto"
