"""The settings in force, and the speed, tools and wire events that the program can change."""

from __future__ import annotations

from typing import Any

import msgspec

from actors.realtime.core.state import Saved
from messages import Settings, ToolSpec, limits, validation
from messages.errors import InvalidSettingError

__all__ = ["Setup", "within_limits"]


def within_limits(speed: float) -> float:
    """Return a speed of speech, clipped to the limits of the API."""
    slowest, fastest = limits.SPEEDS
    return min(fastest, max(slowest, speed))


class Setup:
    """The settings in force, and the other values that the program can change at run time."""

    def __init__(self, settings: Settings, saved: Saved) -> None:
        self._saved = saved
        self._given = _changed(settings, saved.changes)
        """The settings at the start, with the changes that the program has made since."""
        self.settings = self._in_force()
        """The same, with what they leave open."""
        names = settings.wire_events if saved.wire_events is None else saved.wire_events
        self.wire_events = frozenset(names)
        """Names of the wire events that the program has subscribed to."""

    def change(self, changes: dict[str, Any]) -> None:
        """Change settings.

        Args:
            changes: plain values (as in JSON), by the names of the settings.

        Raises:
            InvalidSettingError: a setting cannot be changed now, or a value is not valid.
        """
        settings = validation.changed(self._given, changes)
        # The API refuses another voice once the session has produced audio.
        if settings.voice != self.settings.voice and self._saved.spoken:
            raise InvalidSettingError("voice", validation.fixed("voice"))
        self._given = settings
        self.settings = self._in_force()
        valid = {name: msgspec.to_builtins(getattr(settings, name)) for name in changes}
        self._saved.changes = {**self._saved.changes, **valid}

    def set_cancels_echo(self, cancels: bool) -> None:
        """Record whether echo is cancelled: then interruptions are confirmed, unless told."""
        if cancels != self._saved.cancels_echo:
            self._saved.cancels_echo = cancels
            self.settings = self._in_force()

    def _in_force(self) -> Settings:
        if self._given.interruption is not None:
            return self._given
        interruption = "confirmed" if self._saved.cancels_echo else "immediate"
        return msgspec.structs.replace(self._given, interruption=interruption)

    def set_speed(self, speed: float) -> float:
        """Set the speed of speech, clipped to the limits of the API. Return it."""
        self._saved.speed = within_limits(speed)
        return self._saved.speed

    def set_tools(self, tools: tuple[ToolSpec, ...]) -> None:
        """Set the tools that the model can call."""
        self._saved.tools = tools

    def want_wire_events(self, names: tuple[str, ...]) -> None:
        """Replace the subscription to wire events."""
        self._saved.wire_events = names
        self.wire_events = frozenset(names)


def _changed(settings: Settings, changes: dict[str, Any]) -> Settings:
    """Return settings with saved changes, which were checked when they were made."""
    if not changes:
        return settings
    return msgspec.convert({**msgspec.to_builtins(settings), **changes}, Settings)
