"""Checks of the files that a session writes. They leave no file behind, and overwrite none."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from actors.devices.errors import UnwritableFileError
from actors.devices.opening import refuse_as_output
from actors.files import path_of, why_not
from messages import Settings
from rtvoice.command.doctor.result import Result, ok, problem, warning

__all__ = ["output", "written"]

_ROOM_BYTES = 200 * 1024 * 1024
"""Free space below which there is a warning: more than a recording of half an hour takes."""


def output(settings: Settings) -> Iterator[Result]:
    """Check whether the output file may be written."""
    try:
        refuse_as_output(path_of(settings.output), settings)
    except UnwritableFileError as error:
        yield problem("speaker", str(error))
    else:
        yield ok("speaker", f"{settings.output} is written")


def written(paths: Mapping[str, str]) -> Iterator[Result]:
    """Check whether each file can be written.

    Args:
        paths: Maps the option that names a file, such as ``--record``, to its path.
    """
    for source, name in paths.items():
        path = path_of(name)
        try:
            _try(path)
            free = shutil.disk_usage(path.absolute().parent).free
        except OSError as error:
            yield problem("files", f"{source}: cannot write to {name}: {why_not(path, error)}")
            continue
        if free < _ROOM_BYTES:
            text = f"only {free // 1024**2} MiB are free there, and half an hour takes 165 MiB"
            yield warning("files", f"{source}: {name} can be written, but {text}")
        else:
            there = " (it is replaced)" if path.exists() and source != "--journal" else ""
            yield ok("files", f"{source}: {name} can be written{there}")


def _try(path: Path) -> None:
    """Open an existing file for writing, or create a temporary one in the folder of a new file.

    Raises:
        OSError: The file cannot be written.
    """
    if path.exists():
        os.close(os.open(path, os.O_RDWR))
    else:
        with tempfile.TemporaryFile(dir=path.absolute().parent) as file:
            file.write(b"x")
