"""A session that is held at the terminal: the command is its program."""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, Protocol

from actors.embedding.session import Session
from messages import (
    ConfigurationError,
    Message,
    RtvoiceError,
    SessionFailed,
    SessionStarted,
    StopSession,
    SupervisorDiedError,
)
from messages.exit_codes import EXIT_BUG, EXIT_FAILED, EXIT_KILLED, EXIT_USAGE
from rtvoice.command.console import Console

__all__ = ["CommandSession", "Receiver"]


class Receiver(Protocol):
    """What is given the messages of the session: the console, or the demo."""

    wants: frozenset[type[Message]]
    """The types of the messages."""

    def receive(self, message: Message) -> None:
        """Receive a message, on the session's reading thread; must return at once."""


_LOOK_S = 1.0
"""A signal that comes just before the main thread begins to wait does not end the wait, and is
handled this much later at most."""


class CommandSession:
    """Runs a session until its end, Ctrl-C, SIGTERM or SIGHUP. A second Ctrl-C kills it."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        receiver: Receiver,
        console: Console,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        """Check the settings; `run` starts the session.

        Args:
            settings: Fields of `messages.Settings` as plain values.
            receiver: Is given the messages.
            console: Where to say that it ends.
            defaults: As for `Session`.

        Raises:
            ConfigurationError: A setting is unknown or out of range.
        """
        logging.getLogger("rtvoice").addHandler(logging.NullHandler())  # the console shows them
        self._session = Session(defaults=defaults, **settings)
        self._receivers = [receiver]
        self._console = console
        self._defaults = {**(defaults or {}), **settings}
        self._orders: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        """What signal handlers have the main thread send; None: the session is over."""
        self.leave: Callable[[], object] = lambda: sys.exit(EXIT_KILLED)
        """Called on the main thread after a second Ctrl-C has killed the session."""
        self.restore_terminal: Callable[[], object] = lambda: None
        """Called before a third Ctrl-C ends this process at once."""
        self._pressed = 0
        self._has_failed = self._has_bug = self._is_usage = False

    # -- the listener of the session ----------------------------------------------------------

    @property
    def kinds(self) -> tuple[type[Message], ...]:
        """The types of the messages that the session passes to `put`."""
        return (*(kind for each in self._receivers for kind in each.wants), SessionFailed)

    def put(self, message: Message | None) -> None:
        """Pass a message on; None: the session is over."""
        if message is None:
            self._orders.put(None)
            return
        self._has_failed |= isinstance(message, SessionFailed)
        for receiver in self._receivers:
            if isinstance(message, (*receiver.wants, SessionFailed)):
                receiver.receive(message)

    # -- for the command ----------------------------------------------------------------------

    def add(self, receiver: Receiver) -> None:
        """Have another receiver given the messages that it wants; before the session begins."""
        self._receivers.append(receiver)

    def send(self, message: Message) -> None:
        """Send a message to the components; from any thread."""
        self._session.send(message)

    @property
    def started(self) -> SessionStarted | None:
        """Process ids and devices; None until the session runs."""
        return self._session.started

    def has_push_to_talk(self) -> bool:
        """Return whether push-to-talk is on; known once the session has started."""
        started = self._session.started
        return started is not None and started.push_to_talk

    def inject(self, component: str, fault: str) -> None:
        """Inject a fault into a component; the session needs ``probes``."""
        self._session.inject(component, fault)

    def processes(self, timeout_s: float = 5.0) -> dict[str, dict[str, Any]]:
        """Return what is known of each process; see `Session.processes`."""
        if self._session.started is None:
            raise TimeoutError("the session has not started yet")
        return self._session.processes(timeout_s)

    def interrupted(self) -> bool:
        """Begin to end the session for a Ctrl-C; for a second one, kill it and return True."""
        self._pressed += 1
        if self._pressed == 1:
            self._stop("Ctrl-C")
            self._console.say("[ending; Ctrl-C again kills]")
            return False
        self._session.kill()
        return True

    @property
    def was_killed(self) -> bool:
        """Whether a second Ctrl-C has killed the session."""
        return self._pressed > 1

    def run(self) -> int:
        """Run the session to its end; return the exit code of the command."""
        self.begin()
        self.obey()
        return self.finish()

    def begin(self) -> None:
        """Begin to start the session, and return."""
        self._handle_signals()
        self._session.listen(self)
        # Not on this thread: a signal handler runs only between two steps of it.
        threading.Thread(target=self._start, name="start", daemon=True).start()

    def obey(self) -> None:
        """Send what signal handlers order, until the session has ended."""
        while (order := self._next_order()) is not None:
            self._session.send(order)

    def finish(self) -> int:
        """Return the exit code of the command, after the end of the session."""
        try:
            if not self._has_bug:
                self._session.wait(1.0)
        except SupervisorDiedError as error:
            if not self._has_failed:
                self._console.complain(f"rtvoice: {error}")
        except (RtvoiceError, TimeoutError):
            pass  # the console has shown why
        if self._has_bug:
            return EXIT_BUG
        if self._is_usage:
            return EXIT_USAGE
        code = self._session.exit_code
        return code if code is not None and 0 <= code < EXIT_BUG else EXIT_FAILED

    def _next_order(self) -> Message | None:
        """Wait for the next order; None: the session has ended."""
        while True:
            try:
                return self._orders.get(timeout=_LOOK_S)
            except queue.Empty:
                continue

    def _start(self) -> None:
        try:
            self._session.start()
        except SupervisorDiedError:
            pass  # `run` says so
        except RtvoiceError as error:
            if not self._has_failed:  # nobody else says it
                self._has_failed = True
                self._console.complain(f"rtvoice: {error}")
            self._is_usage = isinstance(error, ConfigurationError)
            self._orders.put(None)
        except Exception:  # noqa: BLE001 - a bug of ours; its exit code must not look like success
            traceback.print_exc()
            self._has_bug = True
            self._orders.put(None)

    def _handle_signals(self) -> None:
        self._console.events_closed = lambda: self._stop("nobody reads the events")
        signal.signal(signal.SIGINT, self._interrupted)
        for name in ("SIGTERM", "SIGHUP", "SIGBREAK"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, lambda number, _: self._stop(signal.Signals(number).name))
        if hasattr(signal, "SIGTTIN"):
            # In the background, reading the terminal must fail, not stop the process: `Keyboard`
            # ends.
            signal.signal(signal.SIGTTIN, signal.SIG_IGN)

    def _stop(self, reason: str) -> None:
        self._orders.put(StopSession(reason))

    def _interrupted(self, _signal: int, _frame: FrameType | None) -> None:
        if self._pressed > 1:
            self.restore_terminal()
            os._exit(EXIT_KILLED)
        if self.interrupted():
            self.leave()
