"""The errors that a program gets: one base class, with the facts as attributes."""

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
    """The base class of errors that the user can correct; the text says what is wrong and how.

    The text of such an error is shown unchanged. Other errors of a component are shown with the
    name of their class, for developers.
    """


class RtvoiceError(Exception):
    """The base class of the errors that a program gets from rtvoice."""


class ConfigurationError(RtvoiceError, UserError):
    """Raised for a setting that cannot work; the text says which and what to do."""


class InvalidSettingError(ConfigurationError):
    """Raised for a setting whose value is not valid.

    ``name`` is the name of the setting; ``problem`` says what is wrong and what is allowed.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name = name
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


class ComponentCrashedError(RtvoiceError):
    """The crash of a component, as the ``__cause__`` of the error of the session that it ended.

    ``component`` is its name, ``cause`` the cause in one line, ``traceback`` the traceback in its
    process if it raised.
    """

    def __init__(self, component: str, cause: str, traceback: str = "") -> None:
        super().__init__(component, cause, traceback)
        self.component = component
        self.cause = cause
        self.traceback = traceback

    def __str__(self) -> str:
        text = f"{self.component} {self.cause}"
        return f"{text}\n\n{self.traceback.rstrip()}" if self.traceback else text


class EventError(RtvoiceError, ValueError):
    """Raised for an event that cannot be published; the text says what to do instead."""


class SessionFailedError(RtvoiceError):
    """Raised if the session could not start or could not continue.

    ``reason`` says why and what to do; ``component`` is the component that caused it, or empty.
    """

    def __init__(self, reason: str, component: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.component = component


class SupervisorDiedError(RtvoiceError):
    """Raised if the supervisor's process ended without being asked to."""


class NotRunningError(RtvoiceError):
    """Raised if a call needs a running conversation, which has not begun or is over."""
