"""The configuration of a server session: all of it at the start, changes later."""

from __future__ import annotations

from typing import Any

from actors.realtime.core import session
from actors.realtime.core.context import Context
from messages import Notice

__all__ = ["MAX_REFUSALS", "Configuration"]

MAX_REFUSALS = 8
"""How often a configuration without the refused parameter is sent again, for each session."""


class Configuration:
    """Configures a session, sends it changes, and leaves out parameters that the server refuses."""

    def __init__(self, context: Context) -> None:
        self._context = context
        # As last sent to the session:
        self._settings = context.settings
        self._tools: object = None
        self._speed = 0.0
        self._refusals = 0

    def whole(self) -> dict[str, Any]:
        """Return the whole configuration, for a new session."""
        saved = self._context.saved
        return session.configuration(self._context.settings, saved.speed, saved.tools or ())

    def begin(self, present: dict[str, Any]) -> bool:
        """Send a new session its configuration, unless the session has the same one already.

        Args:
            present: The configuration that the session got as standby session; empty: none.

        Returns:
            Whether the session has this configuration already; then no ``session.updated`` follows.
        """
        context, saved = self._context, self._context.saved
        self._settings, self._tools, self._speed = context.settings, saved.tools, saved.speed
        self._refusals = 0
        configuration = self.whole()
        if configuration == present:
            return True
        context.update(configuration, "configure")
        return False

    def follow(self) -> None:
        """Send a live session the changes since the last call.

        The API accepts a change of speed only between two responses, so that may have to wait.
        """
        context, saved = self._context, self._context.saved
        # A requested response may begin before the change reaches the server.
        between = context.responses.active is None and context.responses.asked is None
        if self._speed != saved.speed and between:
            self._speed = saved.speed
            context.update(session.speed_update(saved.speed), "speed")
        if self._tools != saved.tools:
            self._tools = saved.tools
            context.update(session.tools_update(context.settings, saved.tools or ()), "tools")
        if self._settings is not context.settings:
            tools = saved.tools or ()
            changes = session.settings_update(self._settings, context.settings, tools)
            self._settings = context.settings
            if changes is not None:
                context.update(changes, "settings")

    def refused(self, refused: dict[str, Any] | None, param: str | None) -> bool:
        """Send a refused configuration again, without the parameter that the server refuses.

        The server has refused all of it, and without the rest, such as instructions and tools, the
        session would be useless.

        Args:
            refused: The update that was refused; None: the whole configuration.
            param: The parameter that the error names.

        Returns:
            Whether a configuration was sent.
        """
        self._refusals += 1
        left = session.without(self.whole() if refused is None else refused, param)
        if left is None or self._refusals > MAX_REFUSALS:
            return False
        self._context.update(left, "configure")
        self._context.publish(Notice(f"the server refuses {param}; going on without it"))
        return True

    def refused_speed(self) -> bool:
        """Send a refused speed again after the active response.

        Returns:
            False if no response is active, so that the speed itself must be what is refused, or
            after too many refusals.
        """
        if self._context.responses.active is None or self._refusals > MAX_REFUSALS:
            return False
        self._refusals += 1
        self._speed = 0.0  # differs from every valid speed, so `follow` sends it
        return True
