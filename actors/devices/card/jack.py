"""Removes JACK's metadata database if a killed program has left it locked.

If PortAudio was built with JACK, it is a JACK client. libjack then opens a Berkeley DB in shared
memory, even if no JACK server runs. Its locks survive the process that holds them: after a kill at
the wrong moment, every start of PortAudio by any program of this user waits for ever. The remedy is
to remove the folder (https://github.com/jackaudio/jack2/issues/647). It only holds metadata such as
display names, and the next client creates it again; running clients keep their open files.
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

    A healthy client has it open too, so call this only for a process that missed its deadline.

    Args:
        pid: The process that hangs.

    Returns:
        Whether a new process should try again.
    """
    if not any(name.startswith(f"{FOLDER}/__db.") for name in _open_files(pid)):
        return False
    shutil.rmtree(FOLDER, ignore_errors=True)
    return True


def _open_files(pid: int | str) -> list[str]:
    names = []
    with contextlib.suppress(OSError):  # not Linux, or the process has ended
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                names.append(str(file.readlink()))
    return names
