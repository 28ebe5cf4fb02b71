"""What a session with the server is told about itself: as a whole, and what changes later."""

from __future__ import annotations

from typing import Any

from actors.realtime.core import session
from actors.realtime.core.context import Context
from messages import Notice

__all__ = ["MAX_REFUSALS", "Configuration"]

MAX_REFUSALS = 8


class Configuration:
    """Configures a session and keeps it so; does without what the server refuses."""

    def __init__(self, context: Context) -> None:
        self._context = context
        # As the session was told of them:
        self._settings = context.settings
        self._tools: object = None
        self._speed = 0.0
        self._refusals = 0

    def whole(self) -> dict[str, Any]:
        """Return the configuration of a new session."""
        saved = self._context.saved
        return session.configuration(self._context.settings, saved.speed, saved.tools or ())

    def begin(self, known: dict[str, Any]) -> bool:
        """Tell a new session its configuration, of which it may know another already.

        Returns:
            Whether it knows this one, so that there is nothing to wait for.
        """
        context, saved = self._context, self._context.saved
        self._settings, self._tools, self._speed = context.settings, saved.tools, saved.speed
        self._refusals = 0
        configuration = self.whole()
        if configuration == known:
            return True
        context.update(configuration, "configure")
        return False

    def follow(self) -> None:
        """Tell a live session what has changed: at any time, but speed between two answers."""
        context, saved = self._context, self._context.saved
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
        """Send what was refused again without what the server does not want of it.

        A session without instructions and tools would be no use.

        Returns:
            Whether something was left that could be sent.
        """
        self._refusals += 1
        left = session.without(self.whole() if refused is None else refused, param)
        if left is None or self._refusals > MAX_REFUSALS:
            return False
        self._context.update(left, "configure")
        self._context.publish(Notice(f"the server refuses {param}; going on without it"))
        return True

    def refused_speed(self) -> bool:
        """Try a refused speed again after the answer under way. Return False if that is no use."""
        if self._context.responses.active is None or self._refusals > MAX_REFUSALS:
            return False
        self._refusals += 1
        self._speed = 0.0
        return True
