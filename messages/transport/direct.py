"""Datagrams between components, and between them and the program.

A message that somebody waits for is sent twice: in a datagram to the component that takes its type
directly (`Rule.direct`), and through the supervisor, like every message. The datagram is there
first, as it does not wait until the supervisor has woken up. A few are sent in a datagram alone, if
that is possible (`Actor.send_past`).

Where there are no datagrams, where the receiver is being restarted or its buffer is full, the
message comes through the supervisor, which keeps it until it is handled.

Of a type with `Message.direct`, the receiver handles what comes first, and drops the other. Of
sound (`Actor.send_ahead`), each actor knows by the position of its samples whether it can handle it
now (`Actor.can_take_ahead`), and what it has had.
"""

from __future__ import annotations

import collections
import select
import socket
from collections.abc import Iterable
from pathlib import Path

from messages.base import type_of_tag
from messages.transport.frame import HEAD_BYTES

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


class DirectSender:
    """Sends frames to the components that accept their type.

    Args:
        base: The beginning of all addresses, the same for all components of a supervisor.
    """

    def __init__(self, base: Path) -> None:
        self._addresses = _Addresses(base)
        self._socket = _new_socket()

    def send(self, frame: bytes) -> bool:
        """Send a frame if that is possible at once, and return whether it was; on any thread."""
        if self._socket is None or len(frame) > _MOST_BYTES:
            return False
        try:
            self._socket.sendto(frame, self._addresses[frame[4]])
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Release the descriptor."""
        if self._socket is not None:
            self._socket.close()


class _Addresses(dict[int, str]):
    """The address of each type, by tag."""

    def __init__(self, base: Path) -> None:
        super().__init__()
        self._base = str(base)

    def __missing__(self, tag: int) -> str:
        self[tag] = address = f"{self._base}.{tag}"
        return address


class DirectInbox:
    """What comes directly to one incarnation of a component, in the order in which it was sent.

    It is one socket. Its file has the address of one type; those of the others are links to it.

    Args:
        base: As for `DirectSender`.
        tags: The types to receive. The first component that asks for one gets it.
    """

    def __init__(self, base: Path, tags: Iterable[int]) -> None:
        self.socket: socket.socket | None = None
        """To be waited for; None: nothing comes directly."""
        self._ahead: collections.deque[bytes] = collections.deque(maxlen=_REMEMBERED)
        """Bodies of the newest frames that came directly, and not yet through the supervisor."""
        self._late: collections.deque[bytes] = collections.deque(maxlen=_REMEMBERED)
        """Bodies of the newest frames that came through the supervisor first."""
        self._tags: set[int] = set()
        self._twice: set[int] = set()
        """The types of which one of two equal messages is dropped."""
        addresses = _Addresses(base)
        own: Path | None = None
        for tag in tags:
            address = Path(addresses[tag])
            if not _leads_to(address, own) and (_is_taken(address) or not self._bind(address, own)):
                continue
            own = own or address
            self._tags.add(tag)
            if type_of_tag(tag).direct:
                self._twice.add(tag)

    def take(self) -> bytes | None:
        """Return the next frame that was not handled already; None: there is none."""
        assert self.socket is not None
        while True:
            try:
                frame = self.socket.recv(_MOST_BYTES)
            except OSError:
                return None
            if not frame:
                return None
            if frame[4] not in self._tags:  # by a link that somebody before us has left
                continue
            if frame[4] not in self._twice:
                return frame
            body = _body(frame)
            if body not in self._late:
                self._ahead.append(body)
                return frame
            self._late.remove(body)

    def has_news(self, wait_s: float = 0.0) -> bool:
        """Return whether a frame has come, or comes within ``wait_s`` seconds."""
        return self.socket is not None and bool(select.select([self.socket], (), (), wait_s)[0])

    def handled(self, frame: bytes) -> None:
        """Record that sound was handled, and is dropped when it comes through the supervisor."""
        if frame[4] not in self._twice:
            self._ahead.append(_body(frame))

    def was_ahead(self, frame: bytes) -> bool:
        """Return whether a frame that comes through the supervisor was handled already."""
        if frame[4] not in self._tags:
            return False
        body = _body(frame)
        if body in self._ahead:
            self._ahead.remove(body)
            return True
        if frame[4] in self._twice:
            self._late.append(body)
        return False

    def close(self) -> None:
        """Receive nothing any more. The files of the addresses remain; see `_bind`."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def _bind(self, address: Path, own: Path | None) -> bool:
        """Take an address that nobody uses.

        Args:
            address: The address.
            own: That of our socket, which this address is to lead to; None: make the socket.

        Returns:
            Whether it was taken.
        """
        bound = None
        try:
            address.unlink(missing_ok=True)  # of somebody who has ended
            if own is not None:
                address.symlink_to(own.name)
            elif (bound := _new_socket()) is not None:
                bound.bind(str(address))
                self.socket = bound
            else:
                return False
        except OSError:  # the path is too long for an address, say
            if bound is not None:
                bound.close()
            return False
        return True


def _leads_to(address: Path, own: Path | None) -> bool:
    """Return whether an address is a link to another one: ours, of an earlier incarnation."""
    try:
        return own is not None and address.readlink() == Path(own.name)
    except OSError:
        return False


def _is_taken(address: Path) -> bool:
    """Return whether a process that is alive receives there."""
    probe = _new_socket()
    if probe is None:
        return True
    with probe:
        try:
            probe.connect(str(address))
        except OSError:
            return False
    return True


def _body(frame: bytes) -> bytes:
    return frame[4:5] + frame[HEAD_BYTES:]
