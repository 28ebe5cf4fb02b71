"""The record of a session: what the next supervisor needs to go on with the conversation.

It lies beside the journal, as ``JOURNAL.state``, and is written anew and renamed each time, so that
it is whole whenever the process is killed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from actors.supervision.summary import SummaryState
from messages import Notice
from messages.paths import path_of_text
from messages.transport.loop import Loop

__all__ = ["Kept", "Record", "UnusableRecordError", "read", "state_path"]

VERSION = 1
_DELAY_S = 0.05
"""The record is behind by this at most, but for what was confirmed to the program."""
_LINK = "session.state"
"""In the directory of the session: a link to the record, whatever its path."""


class UnusableRecordError(Exception):
    """A record is not used; the text says why."""


class _Head(msgspec.Struct):
    """What each version of a record has."""

    version: int


class Kept(msgspec.Struct, kw_only=True):
    """The contents of a record."""

    version: int = VERSION
    epoch_ns: int
    """``time.monotonic_ns()`` of sample 0 of the session timeline, on the machine of then."""
    settings: msgspec.Raw
    """`Settings`, without the secrets in the server's URL."""
    states: dict[str, bytes] = {}
    """What each component has saved last."""
    commands: dict[str, list[bytes]] = {}
    """For each component, the frames of the program that it had not handled, and that the program
    will not send again: they were confirmed."""
    restarts: dict[str, int] = {}
    """How often each component came back after a crash."""
    summary: SummaryState = msgspec.field(default_factory=SummaryState)


def state_path(journal: str) -> Path:
    """Return the path of the record that belongs to a journal."""
    path = Path(path_of_text(journal))
    with contextlib.suppress(RuntimeError):  # there is no such user
        path = path.expanduser()
    return path.with_name(f"{path.name}.state")


def read(path: Path) -> Kept | None:
    """Return the contents of a record; None: there is none.

    Raises:
        UnusableRecordError: It is damaged, or of another version.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnusableRecordError(f"it cannot be read: {error.strerror}") from error
    head, _, body = data.partition(b"\n")
    if head != b"%08x" % zlib.crc32(body):
        raise UnusableRecordError("it is damaged")
    try:
        if msgspec.msgpack.decode(body, type=_Head).version == VERSION:
            return msgspec.msgpack.decode(body, type=Kept)
    except msgspec.MsgspecError:
        pass  # whole, so another version has written it
    raise UnusableRecordError("it was written by another version of rtvoice")


class Record:
    """Writes the record of a session, at most once in 50 ms, or at once where that matters."""

    def __init__(
        self,
        loop: Loop,
        directory: Path,
        kept: Callable[[], Kept],
        publish: Callable[[Notice], None],
    ) -> None:
        """Prepare it; nothing is written until `begin`.

        Args:
            loop: The hub's loop.
            directory: The directory of the session.
            kept: Returns what is to be written.
            publish: Called with a notice when it cannot be written.
        """
        self._loop = loop
        self._link = directory / _LINK
        self._kept = kept
        self._publish = publish
        self._path: Path | None = None
        self._is_due = self._has_failed = False

    def begin(self, path: Path | None) -> None:
        """Write it from now on.

        Args:
            path: Its path; None: in the directory of the session.
        """
        self._path = path or self._link
        if path is not None:
            with contextlib.suppress(OSError):
                self._link.unlink(missing_ok=True)
                self._link.symlink_to(path.absolute())
        self.write()

    @property
    def found(self) -> Path:
        """Where an earlier supervisor of this session has written it."""
        return self._link

    def changed(self) -> None:
        """Have it written soon."""
        if not self._is_due and self._path is not None:
            self._is_due = True
            self._loop.later(_DELAY_S, self._write_if_due)

    def write(self) -> None:
        """Write it now."""
        if self._path is None:
            return
        self._is_due = False
        body = msgspec.msgpack.encode(self._kept())
        try:
            _replace(self._path, b"%08x\n" % zlib.crc32(body) + body)
            self._has_failed = False
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True
                self._publish(
                    Notice(
                        f"The state of the conversation cannot be kept in {self._path}: "
                        f"{error.strerror}. If the supervisor died now, the conversation would go "
                        f"on from the journal alone."
                    )
                )

    def _write_if_due(self) -> None:
        if self._is_due:
            self.write()

    def remove(self) -> None:
        """Remove it: the session has ended in order."""
        path, self._path = self._path, None
        if path is not None:
            with contextlib.suppress(OSError):
                path.unlink()


def _replace(path: Path, data: bytes) -> None:
    new = path.with_name(f".{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        if os.write(descriptor, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(descriptor)
    new.replace(path)
