"""The tools of an agent: functions that the model may call."""

from __future__ import annotations

from actors.tools.context import ToolContext
from actors.tools.registry import Tool, Tools

__all__ = ["Tool", "ToolContext", "Tools"]
