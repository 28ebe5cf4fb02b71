"""What is known of a caller when the agent for the call is made."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping
from typing import Any

__all__ = ["CallInfo"]


@dataclasses.dataclass(frozen=True)
class CallInfo:
    """A caller, for ``make_agent``: who calls, from where, and how.

    What a caller has sent (``query``, ``headers``, ``parameters``) is not to be trusted.
    """

    kind: str = "program"
    """``talk``, ``twilio``, or ``program``: no endpoint of the service."""
    path: str = ""
    query: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The query of the URL; of a name that is there twice, the last value."""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The headers of the request; names in lower case."""
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """``parameters`` of the hello (``/talk``), or the ``customParameters`` (``/twilio``)."""
    client: str = ""
    """The address of the other end of the socket, which may be a proxy."""
    sample_rate: int = 24_000
    """The rate of the caller's sound, in Hz."""
    id: str = dataclasses.field(default_factory=lambda: secrets.token_hex(8))
    """The id of the conversation, as in ``/sessions`` and in the log records."""
