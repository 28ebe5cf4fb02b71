"""The history component: the ordered conversation, in a journal that survives crashes."""

from __future__ import annotations

import math
import os
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from actors.base import Actor
from actors.conversation import ITEM_MESSAGES, Conversation
from actors.files import open_alone, path_of, why_not
from messages import (
    CONTROL,
    FileOpened,
    HistoryRequest,
    HistorySnapshot,
    Message,
    Notice,
    SentImage,
    UserError,
)

__all__ = ["History", "Journal", "JournalError"]


class JournalError(UserError):
    """The journal cannot be opened."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot write the journal {str(self.path)!r}: {self.reason}"


class Journal:
    """An append-only file, one line per change: a CRC-32 and a JSON object.

    A last line without its end is cut off when the journal is opened. Damaged lines before that
    are passed over and stay where they are. Nobody else may write it meanwhile.
    """

    def __init__(self, path: Path) -> None:
        """Open or create it.

        Raises:
            JournalError: that is not possible.
        """
        self._file = _opened(path)
        try:
            data = path.read_bytes()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                os.ftruncate(self._file, whole)
        except OSError as error:
            self.close()
            raise JournalError(path, why_not(path, error)) from error
        self.damaged = 0
        """Number of damaged lines that were skipped."""
        self.records: list[dict[str, Any]] = []
        """The records that were in it."""
        for line in data[:whole].split(b"\n")[:-1]:
            record = _record(line)
            if record is None:
                self.damaged += 1
            else:
                self.records.append(record)
        if not whole:
            self._begin(path)

    def append(self, what: str, fields: Mapping[str, Any]) -> None:
        """Append a record; when this returns, the operating system has it.

        Raises:
            OSError: it cannot be written.
        """
        text = msgspec.json.encode({"what": what, **fields})
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        if os.write(self._file, line) != len(line):
            raise OSError("the disk is full")

    def _begin(self, path: Path) -> None:
        try:
            self.append("Journal", {"version": 1})
        except OSError as error:
            self.close()
            raise JournalError(path, why_not(path, error)) from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _opened(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file() and not path.is_dir():
            raise JournalError(path, "it is a pipe or a device; give the name of a file")
        return open_alone(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise JournalError(path, why_not(path, error)) from error


def _record(line: bytes) -> dict[str, Any] | None:
    checksum, _, text = line.partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(text):
            return None
        record = msgspec.json.decode(text)
    except (ValueError, msgspec.DecodeError):
        return None
    return record if isinstance(record, dict) and "what" in record else None


_KINDS = {kind.__name__: kind for kind in ITEM_MESSAGES}


class History(Actor):
    """Keeps the conversation: receives items from realtime and tool answers, publishes turns.

    Dies of nothing but bugs: a journal that cannot be written is told, and history goes on in
    memory.
    """

    accepts: ClassVar = {
        **dict.fromkeys(_KINDS.values(), CONTROL),
        HistoryRequest: CONTROL,
    }
    _journal: Journal | None = None
    _timer: Any = None

    def opened(self) -> None:
        self._conversation = Conversation()
        path = self._path()
        if self.session.first and self.saved(bool) is None:
            aside = _set_aside(path)
            if aside is not None:
                self.send(
                    Notice(f"The journal {path} was another session's; it is kept as {aside}.")
                )
        self._journal = Journal(path)
        if self.settings.journal_path:
            self.send(FileOpened(str(path)))
        self._rebuild(self._journal)
        self.save(True)  # the journal of this session exists
        self._tell()

    def handle(self, message: Message) -> None:
        if isinstance(message, HistoryRequest):
            self.send(HistorySnapshot(message.request_id, self._conversation.items()))
            return
        if self._conversation.apply(message, time.monotonic()):
            self._write(type(message).__name__, msgspec.structs.asdict(message))
            self._tell()

    def closed(self) -> None:
        if self.host.over and self._journal is not None:
            self._tell(math.inf)  # the session ends: waiting longer is useless
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _path(self) -> Path:
        given = self.settings.journal_path
        return path_of(given) if given else Path(self.session.directory) / "history.journal"

    def _rebuild(self, journal: Journal) -> None:
        now = time.monotonic()
        damaged = journal.damaged
        for record in journal.records:
            fields = dict(record)
            what = fields.pop("what")
            try:
                if what == "Told":
                    self._conversation.tell(fields["item_id"])
                elif what in _KINDS:
                    if fields.get("image") is not None:
                        fields["image"] = msgspec.convert(fields["image"], SentImage)
                    self._conversation.apply(_KINDS[what](**fields), now)
            except (TypeError, KeyError, msgspec.ValidationError):  # written by another version
                damaged += 1
        if damaged:
            lines = "1 damaged line" if damaged == 1 else f"{damaged} damaged lines"
            self.log.info("the journal is damaged", lines=damaged)
            self.send(
                Notice(f"The history's journal has {lines}; what stands before and after is kept.")
            )

    def _write(self, what: str, fields: Mapping[str, Any]) -> None:
        if self._journal is None:
            return
        try:
            self._journal.append(what, fields)
        except OSError as error:
            self._journal.close()
            self._journal = None
            self.log.info("the journal cannot be written", error=str(error))
            self.send(
                Notice(
                    f"The journal cannot be written any more: {why_not(self._path(), error)}. "
                    f"The history goes on in memory, and would not survive a crash of its own."
                )
            )

    def _tell(self, now: float | None = None) -> None:
        """Publish the turns that are due, then record that: twice is better than never."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = time.monotonic() if now is None else now
        turns, more_at = self._conversation.turns(now)
        for turn in turns:
            self.send(turn)
            self._conversation.tell(turn.item_id)
            self._write("Told", {"item_id": turn.item_id})
        if more_at < math.inf:
            self._timer = self.after(max(0.0, more_at - now), self._tell)


def _set_aside(path: Path) -> Path | None:
    """Rename the journal of an earlier session without overwriting anything; return its new name.

    Raises:
        JournalError: that session is not over, or it cannot be renamed.
    """
    if not path.is_file() or path.stat().st_size == 0:
        return None
    file = _opened(path)
    number = 1
    while (aside := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    try:
        path.rename(aside)
    except OSError as error:
        raise JournalError(path, why_not(path, error)) from error
    finally:
        os.close(file)
    return aside
