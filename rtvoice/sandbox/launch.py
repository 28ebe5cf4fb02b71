"""Starts the sandbox from a program, as a child process that ends with its parent."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from types import TracebackType
from typing import IO, Any, Final, Self

from messages.transport.spawning import environment_with_us

__all__ = ["SandboxError", "SandboxProcess", "child_environment", "start_sandbox"]

_KEPT_LINES: Final = 50
_END_S: Final = 2.0
_SECRETS: Final = ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY")


class SandboxError(Exception):
    """Raised if the sandbox does not start.

    Attributes:
        reason: What happened.
        stderr: The last lines of its standard error.
    """

    def __init__(self, reason: str, stderr: str) -> None:
        super().__init__(reason, stderr)
        self.reason = reason
        self.stderr = stderr

    def __str__(self) -> str:
        return f"{self.reason}: {self.stderr}" if self.stderr else self.reason


class SandboxProcess:
    """A running sandbox. It ends with `close`, or with the program that started it.

    Attributes:
        url: Its address, `ws://127.0.0.1:PORT/v1/realtime`.
        pid: Id of its process.
    """

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self._process = process
        self.url = url
        self.pid = process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End the sandbox; kill it after two seconds. Later calls do nothing."""
        _close_stdin(self._process)
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def start_sandbox(port: int = 0, timeout_s: float = 10.0, *options: str) -> SandboxProcess:
    """Start a sandbox and wait until it listens.

    Args:
        port: The port; 0: any free one.
        timeout_s: Seconds in which it must listen.
        options: More options of its command line, such as `--pace=8`.

    Raises:
        SandboxError: It cannot be started, has ended, or does not listen in time.
    """
    command = [sys.executable, "-P", "-m", "rtvoice.sandbox", "--until-eof", f"--port={port}"]
    started: queue.SimpleQueue[subprocess.Popen[str] | OSError] = queue.SimpleQueue()
    first_line: queue.SimpleQueue[str] = queue.SimpleQueue()
    # Linux kills a child with PR_SET_PDEATHSIG when the *thread* that started it ends. So a thread
    # starts it that lives as long as it does, and reads its output.
    threading.Thread(
        target=_start_and_read,
        args=([*command, *options], started, first_line),
        name="sandbox stdout",
        daemon=True,
    ).start()
    process = started.get()
    if isinstance(process, OSError):
        raise SandboxError("the sandbox could not be started", str(process))
    last_words: deque[str] = deque(maxlen=_KEPT_LINES)
    errors = threading.Thread(
        target=_keep_lines, args=(process.stderr, last_words), name="sandbox stderr", daemon=True
    )
    errors.start()
    try:
        line = first_line.get(timeout=timeout_s)
    except queue.Empty:
        line = ""
        process.kill()
        reason = f"the sandbox did not listen within {timeout_s:g} s"
    else:
        reason = "the sandbox ended before it listened"
    if line.startswith("listening on "):
        return SandboxProcess(process, line.removeprefix("listening on ").strip())
    process.wait()
    _close_stdin(process)
    errors.join(_END_S)
    raise SandboxError(reason, "".join(last_words).strip())


def child_environment() -> dict[str, str]:
    """Return an environment for our children: without keys, and with a path to this package."""
    shared = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    environment = environment_with_us(shared)
    # Otherwise numpy starts a thread for each core, which nothing here needs.
    environment.setdefault("OPENBLAS_NUM_THREADS", "1")
    return environment


def _close_stdin(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()


def _start_and_read(
    command: list[str],
    started: queue.SimpleQueue[subprocess.Popen[str] | OSError],
    first_line: queue.SimpleQueue[str],
) -> None:
    group: dict[str, Any] = (
        {"creationflags": 0x200} if sys.platform == "win32" else {"process_group": 0}
    )
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=child_environment(),
            text=True,
            **group,
        )
    except OSError as error:
        started.put(error)
        return
    started.put(process)
    assert process.stdout is not None
    with process.stdout as lines:
        first_line.put(lines.readline())
        for _ in lines:
            pass
    process.wait()


def _keep_lines(stream: IO[str] | None, last: deque[str]) -> None:
    assert stream is not None
    with stream:
        last.extend(stream)
