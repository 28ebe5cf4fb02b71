"""Log records of a component, sent as messages to the supervisor, which renders them."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import Any

import msgspec

from messages import Log, Message, level_name

__all__ = ["Logger", "pass_on_library_logs"]

_LOG_CHARS = 8000
"""A log record, and each of its fields, is cut off at this length."""


class Logger:
    """The logger of an actor: sends records as messages to the supervisor."""

    def __init__(self, send: Callable[[Message], None], level: int) -> None:
        self._send = send
        self.level = level

    def debug(self, text: str, **fields: Any) -> None:
        """Log for developers."""
        self.log(logging.DEBUG, text, fields)

    def info(self, text: str, **fields: Any) -> None:
        """Log for operators; never what was said, never a key."""
        self.log(logging.INFO, text, fields)

    def warning(self, text: str, **fields: Any) -> None:
        """Log that something is wrong and the component goes on."""
        self.log(logging.WARNING, text, fields)

    def error(self, text: str, **fields: Any) -> None:
        """Log a failure."""
        self.log(logging.ERROR, text, fields)

    def log(self, level: int, text: str, fields: dict[str, Any]) -> None:
        """Send a record, if its level is high enough."""
        if level < self.level:
            return
        packed = {key: msgspec.Raw(_pack(value)) for key, value in fields.items()}
        self._send(Log(level_name(level), _cut(text), packed))


def _pack(value: Any) -> bytes:
    try:
        packed = msgspec.msgpack.encode(value)
    except (TypeError, OverflowError, UnicodeEncodeError):
        packed = msgspec.msgpack.encode(_cut(repr(value)))
    if len(packed) > _LOG_CHARS:
        packed = msgspec.msgpack.encode(_cut(repr(value)))
    return packed


def _cut(text: str) -> str:
    if len(text) <= _LOG_CHARS:
        return text
    return f"{text[:_LOG_CHARS]}… ({len(text)} characters)"


class _LogBridge(logging.Handler):
    """Sends the records of libraries' loggers."""

    def __init__(self, logger: Logger) -> None:
        super().__init__(logger.level)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - the library has logged with a wrong format
            text = str(record.msg)
        if record.exc_info:
            text += "\n" + "".join(traceback.format_exception(*record.exc_info))
        self._logger.log(record.levelno, text, {"logger": record.name})


def pass_on_library_logs(logger: Logger) -> None:
    """Send the records of Python's `logging` as messages too."""
    logging.basicConfig(level=max(logger.level, logging.INFO), handlers=[_LogBridge(logger)])
    logging.getLogger("pykka").setLevel(logging.CRITICAL)
    logging.getLogger("websockets").setLevel(logging.CRITICAL)  # we report why a connection failed
