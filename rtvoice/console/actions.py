"""What the commands do to the session."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from messages import (
    Interrupt,
    Message,
    SendText,
    SetMuted,
    SetSpeed,
    SetVolume,
    StartTalking,
    StopSession,
    StopTalking,
    UseInput,
    UseOutput,
)
from rtvoice.console.commands import CommandError
from rtvoice.console.entries import plain_lines
from rtvoice.console.link import OURS, Conversation, Link, Said
from rtvoice.view import View

__all__ = ["Actions"]

_SPEEDS = (0.25, 1.5)
_SIGNAL = getattr(signal, "SIGKILL", signal.SIGTERM)


class Actions:
    """Does to the session what the user asks for. What may take a while is done on a thread.

    Args:
        conversation: The session.
        link: Shows what becomes of it.
        view: The state; told what is sent, since no one else reports it.
    """

    def __init__(self, conversation: Conversation, link: Link, view: View) -> None:
        self._conversation = conversation
        self._link = link
        self._view = view
        self._talks = False

    # -- the user's turn ----------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Send a typed turn."""
        self._send(SendText(text, os.urandom(16).hex()))

    def interrupt(self) -> str:
        """Interrupt the assistant; with push-to-talk, begin a turn or end it."""
        if self._conversation.has_push_to_talk():
            return self.talk()
        self._send(Interrupt())
        return ""

    def talk(self) -> str:
        """Begin a turn with push-to-talk, or end it."""
        if not self._conversation.has_push_to_talk():
            return ""
        self._talks = not self._talks
        now_ns = time.monotonic_ns()
        self._send(StartTalking(now_ns) if self._talks else StopTalking(now_ns))
        return "listening: Space or Enter when you have finished" if self._talks else "heard"

    # -- devices ------------------------------------------------------------------------------

    def mute(self) -> str:
        """Mute the microphone, or unmute it."""
        muted = not self._view.muted
        self._send(SetMuted(muted))
        return "muted; m again to be heard" if muted else "unmuted"

    def volume(self, percent: float) -> str:
        """Set the volume."""
        volume = min(max(round(percent / 100, 2), 0.0), 1.0)
        self._send(SetVolume(volume))
        return f"volume {volume * 100:.0f} %"

    def speed(self, factor: float) -> str:
        """Set the speed of speech."""
        speed = min(max(round(factor, 2), _SPEEDS[0]), _SPEEDS[1])
        self._view.speed = speed  # so that the next key counts from it
        self._send(SetSpeed(speed))
        return f"speed {speed:g}, from the next answer on"

    def change_device(self, direction: str, device: str) -> str:
        """Use another sound card from now on."""
        self._send(UseInput(device) if direction == "input" else UseOutput(device))
        return f"opening {device} ..."

    # -- trouble on purpose -------------------------------------------------------------------

    @property
    def processes(self) -> list[str]:
        """Names of the processes that can be killed: all but our own."""
        return [name for name in self._view.processes if name != OURS]

    def kill(self, name: str) -> str:
        """Kill a process."""
        names = self.processes
        if name not in names:
            raise CommandError(f"there is no process {name!r}; there are {', '.join(names)}")

        def kill() -> Said:
            pid = self._pid(name)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, _SIGNAL)
            return Said(f"{name} was sent SIGKILL (process {pid})")

        self._link.run(kill)
        return f"killing {name} ..."

    def _pid(self, name: str) -> int:
        """Return the process id as it is now: one that has ended may be another process's."""
        try:
            return int(self._conversation.processes(1.0)[name]["pid"])
        except (KeyError, TimeoutError):
            if name != "supervisor":
                raise OSError(f"{name} does not run at the moment") from None
            return self._view.processes[name].pid

    def drop(self) -> str:
        """Drop the connection to the server."""
        self._conversation.inject("realtime", "disconnect")
        return "the connection is dropped"

    # -- the end ------------------------------------------------------------------------------

    def save(self) -> str:
        """Save the transcript; the text says where."""
        lines = [line for entry in self._view.entries for line in plain_lines(entry)]
        path = _write_new(f"rtvoice-{time.strftime('%Y%m%d-%H%M%S')}", "\n".join([*lines, ""]))
        return f"transcript saved: {path}"

    def quit(self) -> str:
        """End the conversation."""
        self._send(StopSession("the user quit"))
        return "ending ..."

    def _send(self, message: Message) -> None:
        self._view.take(message, self._link.now_s())
        self._conversation.send(message)


def _write_new(name: str, text: str) -> Path:
    """Write a file that is not there yet, in this folder, for this user alone."""
    number = 1
    while True:
        path = Path(f"{name}{f'-{number}' if number > 1 else ''}.txt")
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            number += 1
            continue
        with open(file, "w", encoding="utf-8", errors="surrogateescape") as stream:  # noqa: PTH123 - of a descriptor
            stream.write(text)
        return path
