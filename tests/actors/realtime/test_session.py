"""The configuration, and what is left of it when the server refuses something."""

from __future__ import annotations

from typing import Any

import pytest

from actors.realtime.session import configuration, speed_update, tools_update, without
from messages import Settings, ToolSpec

TOOLS = (ToolSpec("a", "", {}), ToolSpec("b", "", {}))


def _whole() -> dict[str, Any]:
    return configuration(Settings(instructions="Be kind.", voice="x"), 1.0, TOOLS)


@pytest.mark.parametrize("update", [_whole(), tools_update(TOOLS), speed_update(1.1)])
def test_every_update_names_its_type(update: dict[str, Any]) -> None:
    assert update["type"] == "realtime"


@pytest.mark.parametrize("update", [tools_update(TOOLS), speed_update(1.1)])
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


def test_what_is_within_a_value_takes_the_value_with_it() -> None:
    left = without(_whole(), "session.audio.input.turn_detection.type")

    assert left is not None
    assert "type" not in left["audio"]["input"]["turn_detection"]
    left = without(_whole(), "tools.parameters")
    assert left is not None
    assert "tools" not in left


@pytest.mark.parametrize("param", [None, "", "type", "session.type", "session.nothing", "a.b.c"])
def test_what_cannot_be_left_out_is_said(param: str | None) -> None:
    assert without(_whole(), param) is None
