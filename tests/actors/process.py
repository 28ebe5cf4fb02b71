"""A rig whose actor runs in a process of its own, so that it can be killed."""

from __future__ import annotations

import collections
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from actors.base import Actor
from messages import AssistantTranscript, Log, Message, PlayedAudio, SessionInfo, Settings
from messages.transport.channel import Channel
from messages.transport.page import Page
from tests.rig import TIMEOUT_S, Rig

_ROOT = Path(__file__).parents[2]


class ProcessRig(Rig):
    """Runs an actor class as the supervisor does, and kills it."""

    def __init__(self, kind: type[Actor], tmp_path: Path, **settings: object) -> None:
        self.kind = kind
        self.settings = Settings(**settings)  # type: ignore[arg-type]
        self.session = SessionInfo(epoch_ns=time.monotonic_ns(), directory=str(tmp_path))
        self.page_path = tmp_path / f"page-{kind.__name__}-process"
        self.slot = Page(self.page_path, create=True).slot(0)
        self.exit_code: int | None = None
        self.sent_state: bytes | None = None
        """The state that the supervisor was sent last."""
        self.received: list[type[Message]] = []
        """The types of all messages that the supervisor was sent, in order."""
        self.wanted: tuple[int, ...] = (PlayedAudio.tag(), AssistantTranscript.tag())
        self.logs: list[Log] = []
        self.incarnation = 0
        self.process: subprocess.Popen[bytes]
        self._queue: collections.deque[Message] = collections.deque()
        self._news = threading.Condition()
        self._ended = False

    def __enter__(self) -> ProcessRig:
        ours, theirs = socket.socketpair()
        self.channel = Channel(ours)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "actors", self.kind.__name__.lower()],
                stdin=theirs,
                env={**os.environ, "PYTHONPATH": str(_ROOT)},
            )
        super().__enter__()
        return self

    def stop_where(self, condition: Callable[[], bool]) -> None:
        """Have the process stand still in a moment in which this is true of what it left."""
        end_s = time.monotonic() + TIMEOUT_S
        while True:
            if condition():
                self.process.send_signal(signal.SIGSTOP)
                os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)
                if condition():
                    return
                self.process.send_signal(signal.SIGCONT)
            assert time.monotonic() < end_s, "it never came true"
            time.sleep(0.001)

    def kill(self) -> None:
        """Kill the process, as nobody can prevent."""
        self.process.kill()
        self.process.wait(TIMEOUT_S)
        with self._news:
            self._news.wait_for(lambda: self._ended, TIMEOUT_S)

    def reborn(self) -> ProcessRig:
        """Start another process for the same session, with the state saved last."""
        self.session = msgspec.structs.replace(self.session, first=False)
        self.channel.close()
        self.exit_code = None
        self._ended = False
        return self.__enter__()

    def _run_host(self) -> None:
        process = self.process
        code = process.wait()
        with self._news:
            if process is self.process:
                self.exit_code = code
                self._news.notify_all()
