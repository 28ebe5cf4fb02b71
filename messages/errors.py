"""The errors that a program gets: one base, each with its facts as attributes."""

from __future__ import annotations

__all__ = [
    "ComponentCrashedError",
    "ConfigurationError",
    "EventError",
    "InvalidSettingError",
    "NotRunningError",
    "RtvoiceError",
    "SessionFailedError",
    "SupervisorDiedError",
    "UserError",
]


class UserError(Exception):
    """What the person who runs this can mend: its text is a sentence that says what and how.

    It is told as it stands. Any other error of a component is told with the name of its class,
    which says something to developers.
    """


class RtvoiceError(Exception):
    """The base of the errors that a program gets from rtvoice."""


class ConfigurationError(RtvoiceError, UserError):
    """A setting that cannot work; the text says which and what to do."""


class InvalidSettingError(ConfigurationError):
    """A setting of which the value is not valid.

    ``name`` is the setting's, ``problem`` says what is wrong and what to give instead.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name = name
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


class ComponentCrashedError(RtvoiceError):
    """How a component went down; the ``__cause__`` of the error of a session that it has ended.

    ``component`` is its name, ``cause`` one line, ``traceback`` that of its process if it raised.
    """

    def __init__(self, component: str, cause: str, traceback: str = "") -> None:
        super().__init__(component, cause, traceback)
        self.component = component
        self.cause = cause
        self.traceback = traceback

    def __str__(self) -> str:
        told = f"{self.component} {self.cause}"
        return f"{told}\n\n{self.traceback.rstrip()}" if self.traceback else told


class EventError(RtvoiceError, ValueError):
    """An event that cannot be published; the text says what to do instead."""


class SessionFailedError(RtvoiceError):
    """The session could not go on, or could not start.

    ``reason`` says why and what to do; ``component`` names the one it is about, if it is about one.
    """

    def __init__(self, reason: str, component: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.component = component


class SupervisorDiedError(RtvoiceError):
    """The supervisor's process ended without being asked to."""


class NotRunningError(RtvoiceError):
    """Something was asked of a conversation that has not begun, or is over."""
