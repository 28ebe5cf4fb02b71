"""The settings in force in a conversation: those of its agent, with all changes applied since."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from actors.devices.opening import why_not_instead
from messages import (
    Message,
    SetSpeed,
    Settings,
    SetVolume,
    UpdateSettings,
    UseInput,
    UseOutput,
    limits,
)
from messages.settings import SETTINGS
from rtvoice import checks
from rtvoice.errors import AgentError

__all__ = ["InForce"]


class InForce:
    """The settings in force in one conversation, and the names of the program's tools."""

    def __init__(self, settings: Settings, tools: Iterable[str], *, named: bool) -> None:
        """Check and store the settings that a conversation starts with.

        Args:
            settings: The settings of the agent.
            tools: Names of the tools that run in the program.
            named: Whether there are also tools that only the tools process knows, so that
                ``tool_choice`` cannot be checked here.

        Raises:
            AgentError: Two tools have the same name, or ``tool_choice`` names no tool.
        """
        self.settings = settings
        self.has_spoken = False
        """Whether the assistant has produced audio; from then on the API refuses another voice."""
        self._tools = tuple(tools)
        self._named = named
        self._check_tools(settings, self._tools)
        self._check_choice(settings, self._tools)

    @property
    def timeout_s(self) -> float:
        """The inactivity timeout in seconds; 0: there is none."""
        return self.settings.inactivity_timeout_s or 0.0

    def change(self, changes: Mapping[str, Any]) -> Iterator[Message]:
        """Change settings; return the messages that make the components apply the changes.

        Args:
            changes: Parameters of `Agent.update`; each value has been checked alone.

        Raises:
            AgentError: The new values contradict each other or the settings in force.
        """
        fields = {checks.PARAMETERS[name]: changes[name] for name in changes if name != "tools"}
        settings = msgspec.structs.replace(self.settings, **fields)
        tools = self._tools
        if "tools" in changes:
            tools = tuple(tool.name for tool in changes["tools"])
        self._check_tools(settings, tools)
        if "tool_choice" in changes:
            self._check_choice(settings, tools)
        self._check_devices(settings)
        if wrong := limits.problem(settings):
            raise AgentError(*wrong)
        if settings.voice != self.settings.voice and self.has_spoken:
            raise AgentError("voice", checks.fixed("voice"))
        self.settings, self._tools = settings, tools
        return _messages(fields)

    def _check_tools(self, settings: Settings, tools: tuple[str, ...]) -> None:
        checks.refuse_clash(tools, settings.builtin_tools)

    def _check_devices(self, settings: Settings) -> None:
        """Refuse another device, unless one sound card takes the place of another one."""
        for name in ("input", "output"):
            device, current = getattr(settings, name), getattr(self.settings, name)
            if not isinstance(device, str):
                raise AgentError(f"audio_{name}", "an object cannot be set during a conversation")
            if device != current and (why := why_not_instead(device, current)):
                raise AgentError(f"audio_{name}", why)

    def _check_choice(self, settings: Settings, tools: tuple[str, ...]) -> None:
        if not self._named:
            checks.refuse_unknown_tool(settings.tool_choice, (*tools, *settings.builtin_tools))


def _messages(fields: Mapping[str, Any]) -> Iterator[Message]:
    """Return the messages that change these settings, by the column ``changed_by`` of the table."""
    by = {name: SETTINGS[name].changed_by for name in fields}
    update = {name: value for name, value in fields.items() if by[name] is UpdateSettings}
    if update:
        yield UpdateSettings(msgspec.to_builtins(update))
    for name, kind in by.items():
        if kind in (SetSpeed, SetVolume, UseInput, UseOutput):
            yield kind(fields[name])
