"""The agent of the command in a service: its options, and an AGENT that a component loads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from actors.embedding.session import Session
from messages import Settings
from rtvoice import checks
from rtvoice.agent import Agent
from rtvoice.command.assistant import ASSISTANT
from rtvoice.errors import AgentError
from rtvoice.in_force import InForce
from rtvoice.running import PLACED, Run, prepare_logging

__all__ = ["CommandAgent"]


class CommandAgent(Agent):
    """An agent whose settings are options of the command.

    An AGENT is loaded in the tools process, as in every session of the command. The devices are
    those of the caller, whatever the AGENT has.

    Args:
        given: Fields of `messages.Settings` that the options set; ``agent`` names the AGENT.
        defaults: Values of fields that neither the options nor the AGENT set.
    """

    def __init__(self, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        super().__init__()
        if "agent" not in given:
            given = {**ASSISTANT.describe(), **defaults, **given}
        devices = ("input", "output")
        vars(self)["_fields"] = {key: given[key] for key in given if key not in devices}
        vars(self)["_defaults"] = {key: defaults[key] for key in defaults if key not in devices}

    _fields: Mapping[str, Any]
    _defaults: Mapping[str, Any]

    def check(self) -> None:
        """Check the settings.

        Raises:
            ConfigurationError: One is out of range, or two contradict each other.
        """
        Session(defaults=self._defaults, **self._fields)

    def _new_run(self) -> tuple[Run, dict[str, Any]]:
        server = str(self._fields.get("server") or self._defaults.get("server") or "openai")
        if "agent" not in self._fields:  # else the AGENT may name another one
            checks.need_key(server, None, os.environ)
        prepare_logging(None)
        settings = {**self._fields, "input": self.audio_input}
        if self._input_rate is not None:
            settings["program_input_rate"] = self._input_rate

        def session(wire_names: tuple[str, ...]) -> Session:
            try:
                return Session(
                    output_device=self.audio_output,  # type: ignore[arg-type]
                    defaults=self._defaults,
                    wire_events=wire_names,
                    **settings,
                )
            except TypeError as error:
                raise AgentError("audio_output", str(error)) from error

        in_force = InForce(Settings(), (), named=True)
        unknown: dict[str, Any] = {
            "tools": [],
            "builtin_tools": (),
            "components": {},
        }  # the AGENT may have some
        places = {name: settings.get(name, unknown.get(name)) for name in PLACED}
        places |= {"server": server, "output": self.audio_output}
        return Run(session, self.event_bus, in_force), places
