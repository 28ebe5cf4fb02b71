"""The state of a component in a file of the session, for the case that the supervisor dies."""

from __future__ import annotations

import contextlib
import zlib
from pathlib import Path

from messages.paths import path_of_text

__all__ = ["read_state", "remove_state", "write_state"]


def _path(directory: str | Path, name: str) -> Path:
    return Path(path_of_text(str(directory)), f"{name}.saved")


def write_state(directory: str | Path, name: str, state: bytes) -> None:
    """Write the state of a component; whenever the process dies, the file is whole.

    What cannot be written is left to the supervisor, which is sent the state too.
    """
    path = _path(directory, name)
    new = path.with_suffix(".new")
    with contextlib.suppress(OSError):
        new.write_bytes(b"%08x" % zlib.crc32(state) + state)
        new.replace(path)


def read_state(directory: str | Path, name: str) -> bytes | None:
    """Return the state that a component has written last; None: there is none, or it is damaged."""
    try:
        data = _path(directory, name).read_bytes()
        return data[8:] if int(data[:8], 16) == zlib.crc32(data[8:]) else None
    except (OSError, ValueError):
        return None


def remove_state(directory: str | Path, name: str) -> None:
    """Remove what a component has written: it cannot be opened with it."""
    with contextlib.suppress(OSError):
        _path(directory, name).unlink()
