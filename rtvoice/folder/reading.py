"""Reads the folder of a session (`actors.embedding.session_folder`)."""

from __future__ import annotations

import contextlib
import datetime as dt
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from actors.embedding.session_folder import EVENTS, JOURNAL, SESSION, VERSION, recordings_in
from actors.files import is_locked
from actors.history import messages_in
from messages import Event, Message, SessionStarted, UserError, message_types
from messages.paths import printable
from rtvoice.view import Entry, View

__all__ = ["Folder", "Part", "UnreadableFolderError"]

_RENEWED = (".state", ".images")
"""What lies beside a journal, after its name."""


class UnreadableFolderError(UserError):
    """A folder has no conversation, or one that cannot be read or removed."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self._text = f"{path}: {reason}"

    def __str__(self) -> str:
        return self._text


class Part(msgspec.Struct):
    """What one session has added to a folder; a conversation that was resumed has several."""

    started: dt.datetime
    recording: Path | None = None
    """Its recording; None: there is none."""
    events: list[tuple[float, Message]] = []
    """With their times, in seconds since it started."""
    clock_ns: int = 0
    """``time.monotonic_ns()`` when it started."""

    @property
    def epoch_s(self) -> float:
        """The time of sample 0 of the recording, in seconds since the session started."""
        for _, event in self.events:
            if isinstance(event, SessionStarted) and event.epoch_ns:
                return (event.epoch_ns - self.clock_ns) / 1e9
        return 0.0


class Folder:
    """A conversation that is over, or that is being held.

    Args:
        path: The folder.

    Raises:
        UnreadableFolderError: It has no events, or they are of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        """Lines that were passed over."""
        self.parts = self._read()

    @property
    def name(self) -> str:
        """Its name, for a title."""
        return printable(self.path.resolve().name)

    @property
    def journal(self) -> Path:
        """The journal, with which the conversation goes on."""
        return self.path / JOURNAL

    def views(self) -> Iterator[tuple[Part, View]]:
        """Yield each part with what a screen would show of it.

        An answer that was cut off by the death of the program has its text in the journal alone.
        """
        journal = self._entries_of_journal()
        for part in self.parts:
            view = View()
            for t, event in part.events:
                view.take(event, t)
            for entry in view.entries:
                kept = journal.get(entry.id)
                if entry.kind == "assistant" and not entry.text and kept is not None:
                    entry.text, entry.heard, entry.state = kept.text, kept.heard, kept.state
            yield part, view

    def _entries_of_journal(self) -> dict[str, Entry]:
        view = View()
        with contextlib.suppress(OSError):
            view.restore(messages_in(self.journal))
        return {entry.id: entry for entry in view.entries}

    def purge(self) -> list[Path]:
        """Remove the files of the conversation, and the folder if it is empty then.

        Returns:
            What else is in it, which stays.

        Raises:
            UnreadableFolderError: The conversation is still being held.
        """
        if is_locked(self.journal):
            raise UnreadableFolderError(self.path, "the conversation is still being held; end it")
        beside = [self.journal.with_name(f"{JOURNAL}{ending}") for ending in _RENEWED]
        for path in (self.path / EVENTS, self.journal, *beside, *recordings_in(self.path)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        left = sorted(self.path.iterdir())
        if not left:
            self.path.resolve().rmdir()  # the folder itself: the path may be a link, or "."
            if self.path.is_symlink():
                self.path.unlink()
        return left

    def _read(self) -> list[Part]:
        path = self.path / EVENTS
        try:
            lines = path.read_bytes().splitlines()
        except FileNotFoundError:
            reason = "it is no folder of a session (--session FOLDER makes one)"
            raise UnreadableFolderError(self.path, reason) from None
        except OSError as error:
            raise UnreadableFolderError(path, str(error.strerror)) from error
        parts: list[Part] = []
        for line in lines:
            try:
                fields = msgspec.json.decode(line)
                name = fields.pop("event")
                if name == SESSION:
                    parts.append(self._begun(fields))
                else:
                    parts[-1].events.append((float(fields.pop("t")), _event(name, fields)))
            except (msgspec.DecodeError, LookupError, TypeError, ValueError, AttributeError):
                self.damaged += 1
        if not parts:
            raise UnreadableFolderError(path, "it has no line with which a session begins")
        return parts

    def _begun(self, fields: dict[str, Any]) -> Part:
        if fields["version"] != VERSION:
            reason = f"it was written by another version of rtvoice ({fields['version']})"
            raise UnreadableFolderError(self.path, reason)
        name = fields["recording"]
        recording = self.path / Path(name).name if name else None
        exists = recording is not None and recording.is_file()
        started = dt.datetime.fromisoformat(fields["started"])
        return Part(started, recording if exists else None, clock_ns=fields["clock_ns"])


@cache
def _kinds() -> dict[str, type[Event]]:
    events = [kind for kind in message_types().values() if issubclass(kind, Event)]
    return {kind.event or kind.__name__: kind for kind in events}


def _event(name: str, fields: dict[str, Any]) -> Message:
    """Return an event as it was written.

    Raises:
        LookupError, TypeError, ValueError: It is none.
    """
    kind = _kinds()[name]
    types = {field.name: field.type for field in msgspec.structs.fields(kind)}
    known = {key: value for key, value in fields.items() if key in types}
    with contextlib.suppress(KeyError):
        return kind(**{key: msgspec.convert(value, types[key]) for key, value in known.items()})
    raise ValueError(name)
