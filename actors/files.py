"""Output files: locks against a second session, and errors that say what to do."""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

from messages.paths import path_of_text

__all__ = ["is_locked", "lock", "open_alone", "path_of", "same_file", "why_not"]

_WAIT_S = 1.0
"""How long to wait for a lock: a session that was killed may hold it a moment longer."""
_STEP_S = 0.02

_held: dict[tuple[int, int], int] = {}
"""Files locked by this process: device and inode, and the descriptor that holds the lock."""

_REASONS = {
    "ENOSPC": "the disk is full; make room, or choose another place",
    "EDQUOT": "this user's share of the disk is full; make room, or choose another place",
    "EACCES": "this user may not write there; choose another place, or have it allowed",
    "EPERM": "this user may not write there; choose another place, or have it allowed",
    "EROFS": "that disk is read-only; choose another place",
    "EISDIR": "it is a folder; give the name of a file",
    "EEXIST": "a part of the path is a file, not a folder; choose another place",
    "ENOTDIR": "a part of the path is a file, not a folder; choose another place",
    "ESPIPE": "it is a pipe; give the name of a file, which can be written at any position",
    "EWOULDBLOCK": "another session is writing it; choose another file",
    "ENAMETOOLONG": "the name is too long; choose a shorter one",
}
_BY_NUMBER = {
    getattr(errno, name): reason for name, reason in _REASONS.items() if hasattr(errno, name)
}


def why_not(path: Path, error: OSError) -> str:
    """Return why a file cannot be written, and what to do."""
    if error.errno == errno.ENOENT:
        if path.parent.is_dir():
            return "no file can be made there; choose another place"
        return f"there is no folder {str(path.parent)!r}; make it, or choose another place"
    reason = _BY_NUMBER.get(error.errno or 0)
    return reason or f"{error.strerror or error}; choose another place"


def path_of(text: str) -> Path:
    """Return the path that a user wrote, with ``~`` and ``~user`` replaced if the user exists.

    Args:
        text: The path, as it was given or as it is in settings (`messages.paths`).
    """
    path = Path(path_of_text(text))
    try:
        return path.expanduser()
    except RuntimeError:  # there is no such user
        return path


def same_file(one: Path, other: Path) -> bool:
    """Return whether two paths lead to the same file, also through links; it need not exist."""
    try:
        return one.samefile(other)
    except OSError:
        return one.resolve() == other.resolve()


def open_alone(path: Path, flags: int, mode: int) -> int:
    """Open a file and lock it against all other sessions, whatever path they use.

    Raises:
        BlockingIOError: If another session is writing it.
        OSError: If it cannot be opened.
    """
    file = os.open(path, flags | getattr(os, "O_BINARY", 0), mode)
    try:
        lock(file)
    except BaseException:
        os.close(file)
        raise
    return file


def lock(file: int) -> None:
    """Lock an open file against other sessions until this process ends.

    The lock is not released when the file is closed: after an actor has raised, its next
    incarnation in this process may open the file before the old descriptor is closed.

    Raises:
        BlockingIOError: If another session is writing it.
    """
    status = os.fstat(file)
    if (which := (status.st_dev, status.st_ino)) in _held:
        return
    end = time.monotonic() + _WAIT_S
    while not _locked(file):
        if time.monotonic() >= end:
            raise BlockingIOError(errno.EWOULDBLOCK, "another session is writing it")
        time.sleep(_STEP_S)
    _held[which] = os.dup(file)


def is_locked(path: Path) -> bool:
    """Return whether a session is writing a file; wait a moment for one that was killed."""
    try:
        file = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    except OSError:  # whoever opens it says why
        return False
    end = time.monotonic() + _WAIT_S
    try:
        while not _locked(file):
            if time.monotonic() >= end:
                return True
            time.sleep(_STEP_S)
    finally:
        os.close(file)  # and so unlock it
    return False


if sys.platform == "win32":  # never tested

    def _locked(file: int) -> bool:
        at = os.lseek(file, 0, os.SEEK_CUR)
        os.lseek(file, 0x7FFF_FFFF, os.SEEK_SET)  # a byte far behind the data
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(file, at, os.SEEK_SET)
        return True
else:

    def _locked(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks: go on without one
            pass
        return True
