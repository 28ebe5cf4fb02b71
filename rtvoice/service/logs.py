"""Log records of a service, each with the id of its conversation: as text or as JSON."""

from __future__ import annotations

import contextvars
import datetime as dt
import json
import logging

__all__ = ["JsonFormatter", "TextFormatter", "session_id"]

session_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("session_id", default=None)
"""The id of the conversation that this code runs for; None: for none."""


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: time, level, logger, text, session, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = dt.datetime.fromtimestamp(record.created, dt.UTC)
        fields = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "text": record.getMessage(),
        }
        if (session := session_id.get()) is not None:
            fields["session"] = session
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """Formats a record for people: time, level, logger, session, text."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s%(session)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - as in logging
        """Return the line, without a traceback."""
        session = session_id.get()
        record.session = f" [{session}]" if session is not None else ""
        return super().formatMessage(record)
