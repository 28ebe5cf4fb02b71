"""The keyboard of the plain console: lines of text, and keys that are commands."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from messages import (
    Interrupt,
    Message,
    SendText,
    SetMuted,
    StartTalking,
    StopSession,
    StopTalking,
)
from rtvoice.command.console import Console
from rtvoice.command.line_editor import END, LineEditor

__all__ = ["Keyboard", "in_foreground", "keyboard_help", "no_keyboard"]


def keyboard_help(*, push_to_talk: bool) -> Sequence[str]:
    """Return the lines that explain the keyboard."""
    enter = "Enter begins your turn and ends it" if push_to_talk else "Enter interrupts"
    return (f"Type a line to say it; {enter}, m mutes, q quits.",)


def no_keyboard(*, push_to_talk: bool) -> Sequence[str]:
    """Return the lines to show where there is no terminal."""
    if not push_to_talk:
        return ()
    return ("Nothing that you say is heard: there is no terminal in which Enter begins a turn.",)


class Keyboard:
    """Reads lines from a terminal on its own thread, and sends them as messages.

    Args:
        stream: The terminal.
        send: Called with each message.
        console: Shows the effect of a key, and what is typed.
        push_to_talk: Returns whether push-to-talk is on. Then Enter begins a turn and ends it: a
            terminal does not report when a key is released.
        edits: Whether to take key by key and show the line ourselves, so that it is not mixed with
            the transcript; else the terminal does, and passes whole lines.
    """

    def __init__(
        self,
        stream: TextIO,
        send: Callable[[Message], None],
        console: Console,
        *,
        push_to_talk: Callable[[], bool] = lambda: False,
        edits: bool = False,
    ) -> None:
        self._stream = stream
        self._send = send
        self._console = console
        self._muted = False
        self._push_to_talk = push_to_talk
        self._talking = False
        self._keys = Keys(stream) if edits else None
        self._editor = LineEditor()

    def start(self) -> None:
        """Start the thread that reads until the stream ends."""
        if self._keys is not None and self._keys.begin():
            self._console.typing("")
        else:
            self._keys = None
        threading.Thread(target=self.read, name="keyboard", daemon=True).start()

    def restore(self) -> None:
        """Let the terminal show what is typed again."""
        if self._keys is not None:
            self._keys.end()

    def read(self) -> None:
        """Read lines and obey them; the end of the stream (Ctrl-D) ends the session."""
        rest = b""
        try:
            # Not through the stream's buffer: a thread inside it blocks the end of the process.
            while data := os.read(self._stream.fileno(), 4096):
                if self._keys is not None:
                    if not self._edit(data):
                        break
                    continue
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self.obey(line.decode(errors="replace"))
        except (OSError, ValueError):
            return  # in the background, or closed: the session goes on without a keyboard
        self._send(StopSession("the keyboard was closed"))

    def _edit(self, data: bytes) -> bool:
        """Take keys; return False at the end of the input."""
        for line in self._editor.feed(data):
            if line == END:
                return False
            self._console.typing("")
            self.obey(line)
        self._console.typing(self._editor.text)
        return True

    def obey(self, line: str) -> None:
        """Send the message that a line stands for: a command, or words of the user."""
        text = line.strip()
        match text:
            case "" if self._push_to_talk():
                self._toggle_turn()
            case "":
                self._send(Interrupt())
            case "m":
                self._muted = not self._muted
                self._send(SetMuted(self._muted))
                self._console.say("[muted; m again to be heard]" if self._muted else "[unmuted]")
            case "q":
                self._send(StopSession("the user quit"))
            case _:
                item_id = os.urandom(16).hex()
                self._console.typed(item_id, None if self._keys is None else text)
                self._send(SendText(text, item_id))

    def _toggle_turn(self) -> None:
        self._talking = not self._talking
        now = time.monotonic_ns()
        self._send(StartTalking(now) if self._talking else StopTalking(now))
        said = "[listening; Enter when you have finished]" if self._talking else "[heard]"
        self._console.say(said)


class Keys:
    """A terminal that passes on each key and shows none of them; signals stay.

    Args:
        stream: The terminal; in the foreground.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._before: list[Any] | None = None

    def begin(self) -> bool:
        """Begin; return whether the system can do that."""
        if sys.platform == "win32":
            return False
        import termios
        import tty

        try:
            number = self._stream.fileno()
            self._before = termios.tcgetattr(number)
            tty.setcbreak(number, termios.TCSADRAIN)
        except (termios.error, OSError):
            return False
        signal.signal(signal.SIGCONT, lambda *_: self._again())
        return True

    def _again(self) -> None:
        """Begin again after the shell had the terminal (Ctrl-Z, fg)."""
        import tty

        if self._before is not None and in_foreground(self._stream):
            tty.setcbreak(self._stream.fileno())

    def end(self) -> None:
        """Bring the terminal back to what it was; a second call does nothing."""
        if sys.platform == "win32" or self._before is None:
            return
        import termios

        before, self._before = self._before, None
        if in_foreground(self._stream):  # else the terminal would stop this process
            with contextlib.suppress(termios.error, OSError, ValueError):
                termios.tcsetattr(self._stream.fileno(), termios.TCSADRAIN, before)


def in_foreground(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that this process may read.

    In the background it may not: the terminal stops a process that does (SIGTTIN).
    """
    if not stream.isatty():
        return False
    if sys.platform == "win32":
        return True
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except OSError:
        return False
