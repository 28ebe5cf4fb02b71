"""The socket for fault injection from other programs (`Settings.probes`)."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, Protocol

from messages import Inject, Message, Status, StatusRequest, decode, encode
from messages.transport.loop import Line, Loop

__all__ = ["Probe", "ProbeHub"]


class ProbeHub(Protocol):
    """What the socket needs of the hub."""

    loop: Loop
    directory: Path

    def status(self) -> dict[str, dict[str, Any]]:
        """Return the status of each component."""

    def obey(self, message: Message, frame: bytes) -> None:
        """Handle a request."""


class Probe:
    """Accepts `Inject` and `StatusRequest` from programs of the same user, at a Unix socket."""

    NAME = "probe"

    def __init__(self, hub: ProbeHub) -> None:
        self._hub = hub
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.setblocking(False)
        path = hub.directory / self.NAME
        path.unlink(missing_ok=True)  # of an earlier supervisor
        try:
            self._listener.bind(str(path))
        except OSError:
            self._listener.close()
            raise
        self._listener.listen()
        hub.loop.watch(self._listener, self._accept)

    def _accept(self, _: int) -> None:
        try:
            connection, _address = self._listener.accept()
        except OSError:
            return
        line: Line

        def read(frame: bytes) -> None:
            match decode(frame):
                case StatusRequest(call_id):
                    line.write([encode(Status(call_id, self._hub.status()))])
                case Inject() as inject:
                    self._hub.obey(inject, frame)

        line = Line(self._hub.loop, connection, read, lambda _: None)
