"""A program in a pseudo-terminal, driven by keys, and its screen as text."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Sequence
from pathlib import Path

import pyte
import pytest

from tests.conversation import DEAF
from tests.rig import TIMEOUT_S
from tests.test_command import environment_of

__all__ = ["Terminal"]

# Synchronized output, by which a terminal shows a frame whole: asked for, had, begun, ended.
_ASKS_FOR_FRAMES, _HAS_FRAMES = b"\x1b[?2026$p", b"\x1b[?2026;2$y"
_BEGINS, _ENDS = b"\x1b[?2026h", b"\x1b[?2026l"


class Terminal:
    """``python -m supervisor`` in a terminal of a size; use as a context manager."""

    def __init__(
        self,
        columns: int,
        lines: int,
        *arguments: str,
        cwd: Path,
        program: Sequence[str] = ("-m", "supervisor"),
        **environment: str,
    ) -> None:
        try:
            self._master, slave = pty.openpty()
        except OSError as error:  # a bare chroot has no /dev/pts
            pytest.skip(f"NO TERMINAL to be had: {error}")
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.before = termios.tcgetattr(slave)
        self._slave = slave
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._news = threading.Condition()
        self._ended = self._is_gone = False
        self.written = bytearray()
        self._drawn = 0  # bytes of it that are on the screen
        self.process = subprocess.Popen(
            [sys.executable, "-P", *program, *arguments],
            cwd=cwd,
            env=environment_of(**{**DEAF, "TERM": "xterm-256color", **environment}),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            preexec_fn=_own_terminal,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        os.close(self._slave)
        self._reader.join(TIMEOUT_S)
        if not self._is_gone:
            os.close(self._master)

    def vanish(self) -> None:
        """Close the terminal, as the end of its window does."""
        self._is_gone = True
        self.press("?")  # what is written for it ends the read: until then nothing is closed
        self._reader.join(TIMEOUT_S)
        os.close(self._master)

    def press(self, keys: str) -> None:
        """Write keys."""
        os.write(self._master, keys.encode())

    def lines(self) -> list[str]:
        """Return the screen."""
        with self._news:
            return [line.rstrip() for line in self._screen.display]

    def shows(self, *texts: str) -> list[str]:
        """Wait until texts are on the screen, and return it."""

        def shown() -> bool:
            whole = "\n".join(self._screen.display)
            return all(text in whole for text in texts)

        with self._news:
            self._news.wait_for(lambda: shown() or self._ended, 6 * TIMEOUT_S)
            assert shown(), "\n".join([f"{texts} are not shown:", *self._screen.display])
        return self.lines()

    def shows_line(self, pattern: str) -> str:
        """Wait until a line matches a pattern, and return it."""

        def found() -> str | None:
            return next((line for line in self._screen.display if re.search(pattern, line)), None)

        with self._news:
            self._news.wait_for(lambda: found() or self._ended, 6 * TIMEOUT_S)
            line = found()
        assert line is not None, "\n".join([f"no line is like {pattern}:", *self.lines()])
        return line

    def struck(self) -> str:
        """Return the text that is struck."""
        with self._news:
            rows = self._screen.buffer
            return " ".join(
                "".join(cell.data for _, cell in sorted(rows[y].items()) if cell.strikethrough)
                for y in range(self._screen.lines)
            ).strip()

    def end(self) -> tuple[int, list[str]]:
        """Wait for the end; return the exit code, and the screen."""
        code = self.process.wait(6 * TIMEOUT_S)
        with self._news:  # the rest of the output has been read once nothing comes any more
            while self._news.wait(0.2):
                pass
        return code, self.lines()

    @property
    def is_restored(self) -> bool:
        """Whether the terminal is as it was: its settings, the screen, the cursor, the mouse."""
        modes = bytes(self.written)
        left = modes.rfind(b"\x1b[?1049l") > modes.rfind(b"\x1b[?1049h")
        mouse = modes.rfind(b"\x1b[?1003l") > modes.rfind(b"\x1b[?1003h")
        cursor = modes.rfind(b"\x1b[?25h") > modes.rfind(b"\x1b[?25l")
        return left and mouse and cursor and self.settings() == self.before

    def settings(self) -> list[object]:
        """Return the settings of the terminal."""
        return termios.tcgetattr(self._slave)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while not self._is_gone and (data := os.read(self._master, 1 << 16)):
                with self._news:
                    seen = len(self.written) - len(_ASKS_FOR_FRAMES)
                    self.written += data
                    if self.written.find(_ASKS_FOR_FRAMES, max(seen, 0)) >= 0:
                        os.write(self._master, _HAS_FRAMES)
                    self._draw()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _draw(self) -> None:
        """Draw what was written, but not half of a frame."""
        begun = self.written.rfind(_BEGINS, max(self._drawn - len(_BEGINS), 0))
        is_half = begun >= 0 and self.written.find(_ENDS, begun) < 0
        until = begun if is_half else len(self.written)
        if until > self._drawn:
            self._stream.feed(bytes(self.written[self._drawn : until]))
            self._drawn = until
            self._news.notify_all()


def _own_terminal() -> None:
    """Make the terminal that of the process, in the foreground."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
