"""Components that fail at the worst moment, for tests of the supervisor's races.

Some wait until a file with a certain name is in the folder ``RTVOICE_TEST_DIR``.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from actors.base import Actor
from messages import AssistantAudio, Keep, Message, SendText, Turn
from tests.tiny import Echo


def there_is(name: str) -> bool:
    """Return whether the test has made this file."""
    return (Path(os.environ["RTVOICE_TEST_DIR"]) / name).exists()


def wait_for(name: str) -> None:
    """Wait until the test makes this file."""
    while not there_is(name):
        time.sleep(0.005)


class SlowToLoad(Echo):
    """Is loaded when it is told to go."""

    @classmethod
    def describe(cls, agent: str | None) -> Mapping[str, Any]:
        wait_for("go")
        return {}


class DiesWhileLoading(Echo):
    """Ends without a word before it has said what it accepts."""

    @classmethod
    def describe(cls, agent: str | None) -> Mapping[str, Any]:
        os._exit(9)


class SlowToOpen(Echo):
    """Opens when it is told to."""

    def opened(self) -> None:
        super().opened()
        wait_for("open")

    def handle(self, message: Message) -> None:
        if isinstance(message, SendText) and message.text == "!first":
            self.send(Turn("assistant", str(self.session.first), message.item_id))
        else:
            super().handle(message)


class HangsWhileOpening(Echo):
    """Does not open."""

    def opened(self) -> None:
        time.sleep(3600)


class HangsOnceOpen(Echo):
    """Opens, and does nothing any more."""

    def opened(self) -> None:
        super().opened()
        self.post(lambda: time.sleep(3600))


class LogsOddly(Echo):
    """Logs as libraries do that have a level of their own, or a wrong format."""

    def handle(self, message: Message) -> None:
        if isinstance(message, SendText) and message.text == "!log":
            logging.getLogger("library").log(35, "between warning and error")
            logging.getLogger("library").warning("%d pieces", "many")
        super().handle(message)


class LoadsNoMore(Echo):
    """Ends while it is loaded, once it is told so."""

    @classmethod
    def describe(cls, agent: str | None) -> Mapping[str, Any]:
        if there_is("broken"):
            os._exit(9)
        return {}


class _Device:
    """Takes its time to close, or does not."""

    def __init__(self, seconds: float, error: str = "") -> None:
        self._seconds = seconds
        self._error = error

    def close(self) -> None:
        time.sleep(self._seconds)
        if self._error:
            raise OSError(self._error)


class KeepsWhatDoesNotClose(Echo):
    """Keeps a device that is gone, and one that closes slowly."""

    def opened(self) -> None:
        super().opened()
        self.keep["slow"] = _Device(0.4)
        self.keep["gone"] = _Device(0.0, "the device is gone")


class OpensAndRaises(Echo):
    """Raises as soon as it is open, and does not end; until it is told to be well."""

    def opened(self) -> None:
        super().opened()
        self.keep["device"] = _Device(3600)
        if not there_is("well"):
            threading.Timer(0.01, lambda: self.post(self._fail_now)).start()

    def _fail_now(self) -> None:
        raise ValueError("not well")


class Forks(Echo):
    """Has a worker, as ``multiprocessing`` forks them; one that keeps the channel if told so."""

    def handle(self, message: Message) -> None:
        match message:
            case SendText("!fork" | "!clone", item_id):
                fork = os.fork if message.text == "!fork" else _fork_without_hooks
                pid = fork()
                if not pid:
                    if not there_is("in our group"):
                        os.setsid()
                    time.sleep(60)
                    os._exit(0)
                while not there_is("in our group") and os.getpgid(pid) == os.getpgid(0):
                    time.sleep(0.001)
                self.send(Turn("assistant", str(pid), item_id))
            case _:
                super().handle(message)


def _fork_without_hooks() -> int:
    return ctypes.CDLL(None).fork()  # type: ignore[no-any-return]


class DiesOfItsState(Echo):
    """Dies where it is opened with the state that it saves."""

    def opened(self) -> None:
        super().opened()
        if self.muted:
            os._exit(9)


class DiesOfSound(Actor):
    """Dies of a sound that is not silence."""

    accepts: ClassVar = {AssistantAudio: Keep(900, held=True)}

    def handle(self, message: Message) -> None:
        assert isinstance(message, AssistantAudio)
        if any(message.pcm):
            os._exit(9)
        self.send(Turn("assistant", "silence", message.item_id))


class TellsItsEnd(Echo):
    """Writes its name into a file when it is closed."""

    def closed(self) -> None:
        with (Path(os.environ["RTVOICE_TEST_DIR"]) / "ends").open("a") as file:
            file.write(f"{self.name}\n")


class SeesItsPredecessor(Echo):
    """Tells in each new process whether the one before it is still there; closes slowly."""

    def opened(self) -> None:
        self.keep["slow"] = _Device(0.4)
        before = self.saved(int)
        if before not in (None, os.getpid()):
            there = Path(f"/proc/{before}").exists()
            self.send(Turn("assistant", "crowded" if there else "alone", str(os.getpid())))
        self.save(os.getpid())


class WritesNonsense(Echo):
    """Writes what is no frame, and then what is one."""

    def handle(self, message: Message) -> None:
        if isinstance(message, SendText) and message.text == "!nonsense":
            self.host.channel.connection.sendall(b"\xff" * 100)
            self.send(Turn("assistant", "after nonsense", message.item_id))
        super().handle(message)
