"""The temporary directory of a session; those that dead supervisors left are removed."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from messages import ConfigurationError
from messages.transport.page import Page

__all__ = ["make_directory", "make_page", "page_path", "sweep"]


def sweep() -> None:
    """Remove the directories of killed supervisors; the conversations are in the journals."""
    for directory in Path(tempfile.gettempdir()).glob("rtvoice-*-*"):
        owner = directory.name.split("-")[1]
        with contextlib.suppress(OSError):  # another user's
            if owner.isdecimal() and not _is_alive(int(owner)):
                shutil.rmtree(directory, ignore_errors=True)


def make_directory() -> Path:
    """Make the directory of a session, named after this process.

    Raises:
        ConfigurationError: It cannot be made.
    """
    try:
        return Path(tempfile.mkdtemp(prefix=f"rtvoice-{os.getpid()}-"))
    except OSError as error:
        raise ConfigurationError(f"no directory for the session: {error}; set TMPDIR") from error


def page_path(directory: Path, pid: int) -> Path:
    """Return the path of a supervisor's accounting page, which begins the addresses of its session.

    Args:
        directory: The directory of the session.
        pid: The process id of the supervisor.
    """
    return directory / f"page-{pid}"


def make_page(path: Path) -> Page:
    """Make the accounting page of a supervisor in the directory of its session.

    Args:
        path: Its file; components make others whose names begin with this one's.

    Raises:
        ConfigurationError: It cannot be made; the directory is removed.
    """
    try:
        for left in path.parent.glob("page-*"):  # by an earlier supervisor and its components
            left.unlink(missing_ok=True)
        return Page(path, create=True)
    except OSError as error:
        shutil.rmtree(path.parent, ignore_errors=True)
        raise ConfigurationError(
            f"no room for the session in {path.parent.parent}: {error}; set TMPDIR"
        ) from error


def _is_alive(pid: int) -> bool:
    if sys.platform == "win32":  # os.kill would end it there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
