"""What is in force in a conversation: what its agent was made with and all that changed since."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from messages import Message, SetSpeed, Settings, SetVolume, UpdateSettings, limits
from messages.settings import SETTINGS
from rtvoice import checks
from rtvoice.errors import AgentError

__all__ = ["InForce"]


class InForce:
    """The settings of one conversation and the names of the program's tools."""

    def __init__(self, settings: Settings, tools: Iterable[str], *, named: bool) -> None:
        """Take what a conversation begins with.

        Args:
            settings: of the agent.
            tools: names of the tools that run in the program.
            named: whether there are tools of which only the tools process knows the names.

        Raises:
            AgentError: two tools have one name, or there is no such tool as is to be called.
        """
        self.settings = settings
        self.has_spoken = False
        """Whether the assistant has been heard."""
        self._tools = tuple(tools)
        self._named = named
        self._check_tools(settings, self._tools)
        self._check_choice(settings, self._tools)

    @property
    def timeout_s(self) -> float:
        """The inactivity timeout; 0: there is none."""
        return self.settings.inactivity_timeout_s or 0.0

    def change(self, changes: Mapping[str, Any]) -> Iterator[Message]:
        """Change what is in force; return the messages that have the components do so.

        Args:
            changes: parameters of `Agent.update`, each of them valid.

        Raises:
            AgentError: they do not go with the rest.
        """
        fields = {checks.PARAMETERS[name]: changes[name] for name in changes if name != "tools"}
        settings = msgspec.structs.replace(self.settings, **fields)
        tools = self._tools
        if "tools" in changes:
            tools = tuple(tool.name for tool in changes["tools"])
        self._check_tools(settings, tools)
        if "tool_choice" in changes:
            self._check_choice(settings, tools)
        if wrong := limits.problem(settings):
            raise AgentError(*wrong)
        if settings.voice != self.settings.voice and self.has_spoken:
            raise AgentError("voice", checks.fixed("voice"))
        self.settings, self._tools = settings, tools
        return _messages(fields)

    def _check_tools(self, settings: Settings, tools: tuple[str, ...]) -> None:
        checks.refuse_clash(tools, settings.builtin_tools)

    def _check_choice(self, settings: Settings, tools: tuple[str, ...]) -> None:
        if not self._named:
            checks.refuse_unknown_tool(settings.tool_choice, (*tools, *settings.builtin_tools))


def _messages(fields: Mapping[str, Any]) -> Iterator[Message]:
    by = {name: SETTINGS[name].changed_by for name in fields}
    update = {name: value for name, value in fields.items() if by[name] is UpdateSettings}
    if update:
        yield UpdateSettings(msgspec.to_builtins(update))
    for name, kind in by.items():
        if kind in (SetSpeed, SetVolume):
            yield kind(fields[name])
