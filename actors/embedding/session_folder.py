"""The folder of a session: its journal, recording and events, readable by their owner alone."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actors.embedding.event_file import EventFile
from actors.files import is_locked, path_of, why_not
from actors.loading import LoadError
from actors.redaction import redaction
from messages import ConfigurationError
from messages.paths import text_of_path

__all__ = [
    "EVENTS",
    "JOURNAL",
    "RECORDING",
    "SESSION",
    "SessionFolder",
    "journal_of",
    "recordings_in",
    "refuse_beside_a_folder",
]

JOURNAL, EVENTS, RECORDING = "journal", "events.jsonl", "recording.wav"
SESSION = "session"
"""Name of the line with which each session in `EVENTS` begins."""
VERSION = 1
"""Of the lines in `EVENTS`."""


class FolderError(ConfigurationError):
    """The folder cannot be used; the message says why, and what to do."""


class SessionFolder:
    """The folder of one session.

    Args:
        path: The folder; it is made if needed.
        stored: What is kept: ``nothing``, ``text`` or ``sound``.
        redact: Name of the function that each text passes; None: none.
        resumes: Whether the conversation in the folder goes on.
    """

    def __init__(self, path: Path, stored: str, redact: str | None, *, resumes: bool) -> None:
        self._path = path
        self._stored = stored
        self._redact = redact
        self._resumes = resumes
        self._recording = _next_recording(path) if stored == "sound" else None

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> SessionFolder | None:
        """Return the folder that settings name; None: they name none.

        Raises:
            FolderError: The folder has another conversation.
        """
        folder, resume = settings.get("session_folder"), settings.get("resume")
        if folder is None and isinstance(resume, str | os.PathLike):
            path = path_of(os.fspath(resume))
            if not path.is_dir():
                return None
            folder = resume
        elif not isinstance(folder, str | os.PathLike):
            return None
        stored, redact = settings.get("stored", "sound"), settings.get("redact")
        found = cls(path_of(os.fspath(folder)), stored, redact, resumes=resume is not None)
        found.check()
        return found

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that follow: fields of `messages.Settings`."""
        found: dict[str, Any] = {"session_folder": text_of_path(str(self._path))}
        if self._stored == "nothing":
            return {**found, "resume": None}
        journal = text_of_path(str(self._path / JOURNAL))
        found |= {"resume": journal} if self._resumes else {"journal_path": journal}
        if self._recording is not None:
            found["recording_path"] = text_of_path(str(self._recording))
        return found

    def check(self) -> None:
        """Check that no other conversation is in the folder.

        Raises:
            FolderError: There is one.
        """
        if not self._resumes and (self._path / JOURNAL).exists():
            raise FolderError(
                f"{self._path} has a conversation already; go on with it (resume), or choose "
                f"another folder"
            )

    def open(self) -> EventFile | None:
        """Make the folder and its files; return the listener that writes the events.

        None: nothing is kept.

        Raises:
            FolderError: It has another conversation, has one that is still being held, or cannot
                be made; or the redaction function cannot be loaded.
        """
        if self._stored == "nothing":
            return None
        self.check()
        if is_locked(self._path / JOURNAL):  # before anything is written into its events
            raise FolderError(
                f"the conversation in {self._path} is still being held; end it, then go on with it"
            )
        try:
            redact = redaction(self._redact)
        except LoadError as error:
            raise FolderError(f"redact: {error}") from error
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._recording is not None:
                _make(self._recording)
            file = os.fdopen(_make(self._path / EVENTS, keep=True), "ab")
            if _is_torn(self._path / EVENTS):
                file.write(b"\n")
        except OSError as error:
            reason = why_not(self._path / EVENTS, error)
            raise FolderError(f"{self._path} cannot be written: {reason}") from error
        recording = self._recording.name if self._recording is not None else None
        started = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        head = {
            "event": SESSION,
            "version": VERSION,
            "started": started,
            "clock_ns": time.monotonic_ns(),
            "recording": recording,
        }
        return EventFile(file, head, redact)


def refuse_beside_a_folder(settings: Mapping[str, Any]) -> None:
    """Check that nothing is named beside a folder that is in it.

    Raises:
        FolderError: A journal or a recording is named too.
    """
    for name in ("journal_path", "recording_path"):
        if settings.get(name) is not None:
            raise FolderError(f"{name}: leave it out, it is in the folder of the session")


def journal_of(resume: str) -> Path:
    """Return the journal of the conversation to resume: itself, or the one in its folder."""
    path = path_of(resume)
    return path / JOURNAL if path.is_dir() else path


def recordings_in(folder: Path) -> list[Path]:
    """Return the recordings in a folder, in the order in which they were made."""
    found: list[Path] = []
    while (path := _numbered(folder, len(found) + 1)).exists():
        found.append(path)
    return found


def _next_recording(folder: Path) -> Path:
    return _numbered(folder, len(recordings_in(folder)) + 1)


def _numbered(folder: Path, number: int) -> Path:
    return folder / (RECORDING if number == 1 else f"recording-{number}.wav")


def _is_torn(path: Path) -> bool:
    """Return whether the last line has no end: the program was killed while it wrote."""
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _make(path: Path, *, keep: bool = False) -> int:
    """Make a file that only its owner may read; return its descriptor, or close it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
    file = os.open(path, flags, 0o600)
    if not keep:
        os.close(file)
    return file
