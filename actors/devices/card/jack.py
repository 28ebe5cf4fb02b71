"""JACK's database, which a program that is killed leaves locked for all that come after it.

Where PortAudio was built with JACK it is a client of it, and libjack opens a Berkeley DB in shared
memory, whether a JACK server runs or not. Its locks outlive the process that holds them: after a
kill in the wrong moment every opening of PortAudio, by any program of this user, waits for ever.
The remedy is to remove the folder (https://github.com/jackaudio/jack2/issues/647). It holds what
clients like to be called, and is made anew by the next one; those that run keep what they have.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

__all__ = ["FOLDER", "remove_locked_database"]

FOLDER = Path(f"/dev/shm/jack_db-{getattr(os, 'getuid', int)()}")


def remove_locked_database(pid: int | str = "self") -> bool:
    """Remove the database if a process that hangs has it open.

    A client that is well has it open as well: only who has waited too long may ask.

    Returns:
        Whether it is worth to try again in a new process.
    """
    if not any(name.startswith(f"{FOLDER}/__db.") for name in _open_files(pid)):
        return False
    shutil.rmtree(FOLDER, ignore_errors=True)
    return True


def _open_files(pid: int | str) -> list[str]:
    names = []
    with contextlib.suppress(OSError):  # not Linux, or it is gone
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                names.append(str(file.readlink()))
    return names
