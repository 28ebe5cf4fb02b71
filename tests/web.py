"""``python -m supervisor --web`` for tests, and a wire between it and a browser that can be cut."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests.rig import TIMEOUT_S
from tests.test_command import environment_of

__all__ = ["Web", "Wire"]


class Web:
    """The command, until it has printed the address of the page."""

    def __init__(self, folder: Path, *options: str, port: int = 0, **environment: str) -> None:
        self.lines: list[str] = []
        self.url = ""
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "supervisor", "--web", "--port", str(port), *options],
            cwd=folder,
            env=environment_of(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        with self._news:
            self._news.wait_for(lambda: self.url or self._is_over, 3 * TIMEOUT_S)
        assert self.url, self.said

    _is_over = False

    @property
    def said(self) -> str:
        """What it has printed."""
        return "".join(self.lines)

    @property
    def port(self) -> int:
        return int(self.url.partition("/?")[0].rpartition(":")[2])

    @property
    def key(self) -> str:
        return self.url.partition("?key=")[2]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line)
                if found := re.match(r"Open (\S+)", line):
                    self.url = found[1]
                self._news.notify_all()
        with self._news:
            self._is_over = True
            self._news.notify_all()

    def end(self) -> int:
        """End it as Ctrl-C does; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        code = self.process.wait(3 * TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class Wire:
    """Passes connections on to a port of this machine, until they are cut without a word."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._is_cut = False
        self._frozen = threading.Event()
        """Of the connections that there are; others have another one."""
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections, and accept none until it is mended."""
        with self._lock:
            self._is_cut = True
            pairs, self._pairs = self._pairs, []
        for end in (end for pair in pairs for end in pair):
            _reset(end)

    def freeze(self) -> None:
        """Pass nothing on any more for the connections that there are, and end none."""
        self._frozen.set()
        self._frozen = threading.Event()

    def mend(self) -> None:
        """Accept connections again."""
        self._is_cut = False

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._is_cut:
                    _reset(near)
                    continue
                far = socket.create_connection(("127.0.0.1", self._to))
                self._pairs.append((near, far))
            for ends in ((near, far), (far, near)):
                threading.Thread(target=_pass_on, args=(*ends, self._frozen), daemon=True).start()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _pass_on(source: socket.socket, sink: socket.socket, frozen: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            if not frozen.is_set():
                sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def _reset(end: Any) -> None:
    """End a connection as a lost network does for the other side: without a goodbye."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RD)
    end.close()
