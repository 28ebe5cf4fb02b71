"""The history component: the ordered conversation, in a journal that survives crashes."""

from __future__ import annotations

import contextlib
import math
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from actors.base import Actor
from actors.conversation import ITEM_MESSAGES, Conversation
from actors.files import open_alone, path_of, why_not
from actors.published import published_changes
from actors.redaction import Redact, passed, redacted, redaction
from messages import (
    CONTROL,
    FileOpened,
    HistoryRequest,
    HistorySnapshot,
    Interrupted,
    Message,
    Notice,
    SentImage,
    UserError,
)

__all__ = ["History", "Journal", "JournalError", "messages_in"]


_AGAIN = 20
"""The newest turns, which are published once more to a program that may lack them."""
_VERSION = 1
"""Of the journal's format."""
_GO_ON = "go on with"


class JournalError(UserError):
    """The journal cannot be opened."""

    def __init__(self, path: Path, reason: str, action: str = "write") -> None:
        super().__init__(path, reason, action)
        self.path = path
        self.reason = reason
        self._action = action

    def __str__(self) -> str:
        return f"cannot {self._action} the journal {str(self.path)!r}: {self.reason}"


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
            self.append("Journal", {"version": _VERSION})
        except OSError as error:
            self.close()
            raise JournalError(path, why_not(path, error)) from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def messages_in(path: Path) -> Iterator[Message]:
    """Yield what a journal says of the conversation; damaged lines are passed over.

    Raises:
        OSError: It cannot be read.
    """
    for line in path.read_bytes().split(b"\n"):
        record = _record(line)
        if record is not None:
            with contextlib.suppress(ValueError):
                message = _message(record)
                if message is not None:
                    yield message


def _message(record: Mapping[str, Any]) -> Message | None:
    """Return the message of a record; None: it is of another kind.

    Raises:
        ValueError: It was written by another version.
    """
    fields = dict(record)
    kind = _KINDS.get(fields.pop("what"))
    if kind is None:
        return None
    try:
        if fields.get("image") is not None:
            fields["image"] = msgspec.convert(fields["image"], SentImage)
        return kind(**fields)
    except (TypeError, msgspec.ValidationError) as error:
        raise ValueError(str(error)) from error


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
        self._redact = redaction(self.settings.redact)
        path = self._path()
        if self.settings.resume and self.session.first:
            _refuse_what_is_no_journal(path)
        elif self.session.first and self.saved(bool) is None:
            aside = _set_aside(path)
            if aside is not None:
                self.send(
                    Notice(f"The journal {path} was another session's; it is kept as {aside}.")
                )
        self._journal = Journal(path)
        if self.settings.journal_path or self.settings.resume:
            self.send(FileOpened(str(path)))
        self._rebuild(self._journal)
        self.save(True)  # the journal of this session exists
        if self.session.resumed == "supervisor":  # it may have died before it delivered them
            for message in published_changes(self.session):
                self._apply(message)
            for turn in self._conversation.newest(_AGAIN):
                self.send(turn)
        self._publish()

    def handle(self, message: Message) -> None:
        if isinstance(message, HistoryRequest):
            self.send(HistorySnapshot(message.request_id, self._conversation.items()))
            return
        if self._apply(message):
            self._publish()

    def _apply(self, message: Message) -> bool:
        """Apply a change of the conversation; return whether it changes anything."""
        changes = self._conversation.apply(message, time.monotonic())
        if changes:
            kept = message if self._redact is None else self._redacted(message, self._redact)
            self._write(type(kept).__name__, msgspec.structs.asdict(kept))
        return changes

    def _redacted(self, message: Message, redact: Redact) -> Message:
        kept = redacted(message, redact)
        if isinstance(message, Interrupted) and isinstance(kept, Interrupted):
            # Not what was heard, in which a secret may be cut in two: as much of the redacted text.
            said = self._conversation.text_of(message.item_id)
            share = len(message.text_heard) / len(said) if said else 0.0
            whole = passed(said, redact)
            return msgspec.structs.replace(kept, text_heard=whole[: round(share * len(whole))])
        return kept

    def closed(self) -> None:
        if self.host.over and not self.host.orphaned and self._journal is not None:
            self._publish(math.inf)  # the session ends: waiting longer is useless
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _path(self) -> Path:
        given = self.settings.resume or self.settings.journal_path
        return path_of(given) if given else self.session.file("history.journal")

    def _rebuild(self, journal: Journal) -> None:
        now = time.monotonic()
        damaged = journal.damaged
        for record in journal.records:
            try:
                message = _message(record)
                if message is not None:
                    self._conversation.apply(message, now)
                elif record["what"] == "Told":
                    self._conversation.mark_published(record["item_id"])
            except (ValueError, KeyError):  # written by another version
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

    def _publish(self, now: float | None = None) -> None:
        """Publish the turns that are due, then record that: twice is better than never."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = time.monotonic() if now is None else now
        turns, more_at = self._conversation.turns(now)
        for turn in turns:
            self.send(turn)
            self._conversation.mark_published(turn.item_id)
            self._write("Told", {"item_id": turn.item_id})
        if more_at < math.inf:
            self._timer = self.after(max(0.0, more_at - now), self._publish)


def _refuse_what_is_no_journal(path: Path) -> None:
    """Check the journal that a session is to go on with.

    Raises:
        JournalError: There is none, or it is not one that can be continued.
    """
    try:
        with path.open("rb") as file:
            head = _record(file.readline().rstrip(b"\n"))
    except FileNotFoundError:
        raise JournalError(path, "there is no such file", _GO_ON) from None
    except OSError as error:
        raise JournalError(path, why_not(path, error), _GO_ON) from error
    if head is None or head["what"] != "Journal":
        raise JournalError(
            path, "it is not a journal of rtvoice, or its first line is damaged", _GO_ON
        )
    if head.get("version") != _VERSION:
        raise JournalError(path, "it was written by another version of rtvoice", _GO_ON)


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
        state = path.with_name(f"{path.name}.state")  # see `actors.supervision.record`
        if state.exists():
            state.rename(aside.with_name(f"{aside.name}.state"))
    except OSError as error:
        raise JournalError(path, why_not(path, error)) from error
    finally:
        os.close(file)
    return aside
