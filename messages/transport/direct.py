"""Datagrams from component to component, for messages that somebody waits for.

Such a message is sent twice: in a datagram to the component that takes its type directly
(`Rule.direct`), and through the supervisor, like every message. The datagram is there first, as it
does not wait until the supervisor has woken up.

Nothing depends on a datagram. Where there are none, where the receiver is being restarted or its
buffer is full, the message comes through the supervisor alone, which keeps it until it is handled.

Of a type with `Message.direct`, the receiver handles what comes first, and drops the other. Of
sound (`Actor.send_ahead`), each actor knows by the position of its samples what it has had.
"""

from __future__ import annotations

import collections
import socket
from collections.abc import Iterable
from pathlib import Path

from messages.base import type_of_tag
from messages.transport.frame import HEAD_BYTES, tag_of

__all__ = ["DirectInbox", "DirectSender"]

_MOST_BYTES = 32_768
"""Longer frames go through the supervisor alone, as they could fill a socket's buffer."""
_REMEMBERED = 32
"""Messages that came one way, and whose copy is recognized when it comes the other way."""


def _new_socket() -> socket.socket | None:
    """Return a socket for datagrams that never blocks; None: this system has none."""
    family = getattr(socket, "AF_UNIX", None)
    if family is None:
        return None
    try:
        made = socket.socket(family, socket.SOCK_DGRAM)
    except OSError:
        return None
    made.setblocking(False)
    return made


def _address(base: Path, tag: int) -> str:
    return f"{base}.{tag}"


class DirectSender:
    """Sends frames to the components that accept their type.

    Args:
        base: The beginning of all addresses, the same for all components of a supervisor.
    """

    def __init__(self, base: Path) -> None:
        self._base = base
        self._socket = _new_socket()

    def send(self, frame: bytes) -> bool:
        """Send a frame if that is possible at once, and return whether it was; on any thread."""
        if self._socket is None or len(frame) > _MOST_BYTES:
            return False
        try:
            self._socket.sendto(frame, _address(self._base, tag_of(frame)))
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Release the descriptor."""
        if self._socket is not None:
            self._socket.close()


class DirectInbox:
    """What comes directly to one incarnation of a component.

    Args:
        base: As for `DirectSender`.
        tags: The types to receive. The first component that asks for one gets it.
    """

    def __init__(self, base: Path, tags: Iterable[int]) -> None:
        self.sockets: list[socket.socket] = []
        """To be waited for; `take` reads one."""
        self._ahead: collections.deque[bytes] = collections.deque(maxlen=_REMEMBERED)
        """Bodies of the newest frames that came directly, and not yet through the supervisor."""
        self._late: collections.deque[bytes] = collections.deque(maxlen=_REMEMBERED)
        """Bodies of the newest frames that came through the supervisor first."""
        self._twice: set[int] = set()
        """The types of which one of two equal messages is dropped."""
        for tag in tags:
            if self._bind(_address(base, tag)) and type_of_tag(tag).direct:
                self._twice.add(tag)

    def take(self, source: socket.socket) -> bytes | None:
        """Return the next frame of a socket; None: there is none, or it was handled already."""
        try:
            frame = source.recv(_MOST_BYTES)
        except OSError:
            return None
        if tag_of(frame) in self._twice:
            body = _body(frame)
            if body in self._late:
                self._late.remove(body)
                return None
            self._ahead.append(body)
        return frame

    def was_ahead(self, frame: bytes) -> bool:
        """Return whether a frame that comes through the supervisor was handled already."""
        if tag_of(frame) not in self._twice:
            return False
        body = _body(frame)
        if body in self._ahead:
            self._ahead.remove(body)
            return True
        self._late.append(body)
        return False

    def close(self) -> None:
        """Receive nothing any more. The files of the addresses remain; see `_bind`."""
        for used in self.sockets:
            used.close()
        self.sockets = []

    def _bind(self, address: str) -> bool:
        """Take an address, unless somebody else has it. Return whether it was taken."""
        if _is_taken(address) or (bound := _new_socket()) is None:
            return False
        try:
            Path(address).unlink(missing_ok=True)  # of somebody who has ended
            bound.bind(address)
        except OSError:  # the path is too long for an address, say
            bound.close()
            return False
        self.sockets.append(bound)
        return True


def _is_taken(address: str) -> bool:
    """Return whether a process that is alive receives there."""
    probe = _new_socket()
    if probe is None:
        return True
    with probe:
        try:
            probe.connect(address)
        except OSError:
            return False
    return True


def _body(frame: bytes) -> bytes:
    return frame[4:5] + frame[HEAD_BYTES:]
