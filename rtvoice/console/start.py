"""Starts the console: first the session, then what is slow to import."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

from messages import Message, StopSession
from messages.exit_codes import EXIT_BUG, EXIT_KILLED
from rtvoice.command.console import Console
from rtvoice.command.conversation import CommandSession
from rtvoice.command.keyboard import in_foreground
from rtvoice.console.link import Link
from rtvoice.view import View

__all__ = ["fits", "is_installed", "run_console"]

_COLUMNS, _LINES = 60, 16
"""The smallest terminal that the console is laid out for."""
_END_S = 15.0
"""How long a session may take to end in order after the console has crashed."""
_NICE = 5
_LEAVE_S = 2.0
"""How long the screen may take to close: where the terminal is gone, textual may wait for ever."""
_RESTORE = "".join(f"\x1b[?{mode}l" for mode in (1000, 1003, 1015, 1006, 1004, 2004, 1049))
_RESTORE += "\x1b[<u\x1b[?25h"
"""Mouse, focus, paste and keyboard modes off, back from the alternate screen, cursor on."""


def fits() -> bool:
    """Return whether the terminal can show the console: large enough, and ours to read."""
    streams = (sys.stdin, sys.stdout, sys.stderr)
    if not all(stream.isatty() for stream in streams) or os.environ.get("TERM") == "dumb":
        return False
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError):
        return False
    large = size.columns >= _COLUMNS and size.lines >= _LINES
    return large and in_foreground(sys.stdin)


def is_installed() -> bool:
    """Return whether there is textual, without importing it."""
    return find_spec("textual") is not None


def run_console(
    session: CommandSession,
    link: Link,
    console: Console,
    given: dict[str, Any],
    *,
    hints: Callable[[], Sequence[str]],
    fall_back: Callable[[], None],
) -> int:
    """Run a session on the whole screen; return the exit code of the command.

    Args:
        session: The session; not begun yet.
        link: Its receiver.
        console: Writes the events, and the summary at the end.
        given: The settings of the session, as far as the command knows them.
        hints: Returns the lines to show once the session has started.
        fall_back: Called if textual does not load: the conversation goes on in plain lines.
    """
    restore = _terminal_as_it_is()
    console.hold()
    session.leave = link.over
    session.restore_terminal = restore
    session.begin()
    threading.Thread(target=_obey, args=(session, link), name="orders", daemon=True).start()
    _yield_to_the_session()
    for name in ("COLUMNS", "LINES"):  # textual believes them more than the terminal
        os.environ.pop(name, None)
    try:
        from rtvoice.console.app import ConsoleApp
    except ImportError as missing:
        console.release()
        console.say(f"[the console cannot be loaded ({missing}): plain lines instead]")
        session.leave = lambda: sys.exit(EXIT_KILLED)
        fall_back()
        link.wait_over()
        return session.finish()
    view = _view_of(given)
    app = ConsoleApp(link, session, view, hints=hints, budget=_dollars(given.get("budget")))
    link.begin(session)
    left = threading.Event()
    leave = partial(_leave_anyway, left, session, link, console, restore)
    threading.Thread(target=leave, name="leave", daemon=True).start()
    error = ""
    try:
        app.run()
    except Exception:  # noqa: BLE001 - a bug of ours or of textual: the conversation ends in order
        error = traceback.format_exc()
    finally:
        left.set()
        restore()
    error = error or app.error
    if error:
        session.send(StopSession("the console has crashed"))
        link.wait_over(_END_S)
    console.dropped += link.dropped
    console.release()
    return _finish(session, console, error)


def _yield_to_the_session() -> None:
    """Let this thread, which draws, wait for the components where there is too little CPU."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def _leave_anyway(
    left: threading.Event,
    session: CommandSession,
    link: Link,
    console: Console,
    restore: Callable[[], None],
) -> None:
    """End the process if the screen does not close after the end of the session."""
    link.wait_over()
    if left.wait(_LEAVE_S):
        return
    restore()
    console.release()
    code = EXIT_KILLED if session.was_killed else session.finish()
    console.close(1.0)
    os._exit(code)


def _finish(session: CommandSession, console: Console, error: str) -> int:
    if session.was_killed:
        return EXIT_KILLED
    code = session.finish()
    if not error:
        return code
    last = error.strip().splitlines()[-1]
    console.complain(
        f"{error}rtvoice: the console has crashed ({last}), and the conversation was ended in "
        f"order. Please report the lines above; --plain does without the console."
    )
    return EXIT_BUG


def _obey(session: CommandSession, link: Link) -> None:
    session.obey()
    link.over()


def _view_of(given: dict[str, Any]) -> View:
    """Return the state at the start: settings, and the conversation that is gone on with."""
    view = View()
    view.speed = float(given.get("speed") or 1.0)
    if given.get("resume"):
        from actors.embedding.session_folder import journal_of
        from actors.history import messages_in

        messages: Iterable[Message] = ()
        with contextlib.suppress(OSError):  # the session cannot start then, and says why
            messages = list(messages_in(journal_of(given["resume"])))
        view.restore(messages)
    return view


def _dollars(budget: Any) -> float | None:
    """Return the limit in dollars of a budget as the settings have it."""
    if isinstance(budget, dict):
        budget = budget.get("dollars")
    dollars = getattr(budget, "dollars", budget)
    return float(dollars) if isinstance(dollars, int | float) else None


def _terminal_as_it_is() -> Callable[[], None]:
    """Return a function that brings the terminal back to what it is now, whatever has happened."""
    if sys.platform == "win32":
        return lambda: None
    import termios

    number = sys.stdin.fileno()
    try:
        before = termios.tcgetattr(number)
    except (termios.error, OSError):
        return lambda: None

    def restore() -> None:
        with contextlib.suppress(termios.error, OSError):  # the terminal was closed
            os.write(sys.stderr.fileno(), _RESTORE.encode())
            termios.tcsetattr(number, termios.TCSADRAIN, before)

    return restore
