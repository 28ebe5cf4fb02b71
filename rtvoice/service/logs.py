"""Log records of a service, each with the id of its conversation: as text or as JSON."""

from __future__ import annotations

import contextlib
import contextvars
import datetime as dt
import json
import logging
from collections.abc import Iterator

__all__ = ["JsonFormatter", "TextFormatter", "of_session", "session_id"]

session_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("session_id", default=None)
"""The id of the conversation that this code runs for; None: for none."""


@contextlib.contextmanager
def of_session(id: str) -> Iterator[None]:  # noqa: A002 - as in `CallInfo`
    """Mark the records of this block, and of what it starts, with the id of a conversation."""
    token = session_id.set(id)
    try:
        yield
    finally:
        session_id.reset(token)


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON.

    Its fields: time, level, logger, text; session, of a record of a conversation; fields, the
    values that a component has logged with the text; traceback.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = dt.datetime.fromtimestamp(record.created, dt.UTC)
        fields: dict[str, object] = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "text": record.getMessage(),
        }
        if (session := session_id.get()) is not None:
            fields["session"] = session
        if values := getattr(record, "fields", None):
            fields["fields"] = values
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """Formats a record for people: time, level, logger, session, text."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s%(session)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - as in logging
        """Return the line, without a traceback."""
        session = session_id.get()
        record.session = f" [{session}]" if session is not None else ""
        return super().formatMessage(record)
