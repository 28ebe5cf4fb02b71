"""Log records as lines of JSON, each with the id of its conversation."""

from __future__ import annotations

import contextvars
import datetime as dt
import json
import logging

__all__ = ["JsonFormatter", "session_id"]

session_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("session_id", default=None)
"""The id of the conversation that this code runs for; None: for none."""


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: time, level, logger, session, text."""

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
