"""The log records of a session, for the log pane."""

from __future__ import annotations

import collections
import time
from collections.abc import Sequence

import msgspec

from messages import Log, level_of
from rtvoice.console.rows import Row, paragraph
from rtvoice.view.wrapping import printable

__all__ = ["Records"]

_KEPT = 1000
_WARNING = 30


class Records:
    """The newest records."""

    def __init__(self) -> None:
        self._records: collections.deque[tuple[str, Log]] = collections.deque(maxlen=_KEPT)
        self._rows: list[Row] = []
        self._width = 0
        self.unread = 0
        """Warnings and errors since the log was looked at last."""

    def add(self, record: Log) -> None:
        """Add a record."""
        self._records.append((time.strftime("%H:%M:%S"), record))
        self._width = 0
        self.unread += level_of(record.level) >= _WARNING

    def rows(self, width: int) -> Sequence[Row]:
        """Return the records as rows."""
        if width != self._width:
            self._width = width
            self._rows = [row for at, record in self._records for row in _rows(at, record, width)]
            if not self._rows:
                self._rows = [(("the log is empty", "dim"),)]
        return self._rows


def _rows(at: str, record: Log, width: int) -> list[Row]:
    fields = {name: msgspec.msgpack.decode(value) for name, value in record.fields.items()}
    trace = str(fields.pop("traceback", ""))
    extra = "".join(f" {name}={value!r}" for name, value in fields.items())
    style = "bad" if level_of(record.level) > _WARNING else ""
    style = "warn" if level_of(record.level) == _WARNING else style
    head = f"{at} {record.level.lower():<8} {record.component:<11} "
    rows = paragraph(
        [(f"{record.text}{extra}", style)], width, ((printable(head), "dim"),), (("  ", ""),)
    )
    for line in trace.splitlines():
        rows += paragraph([(line, "dim")], width, (("  ", ""),), (("  ", ""),))
    return rows
