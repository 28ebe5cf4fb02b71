"""Asks a fork server (`messages.transport.forkserver`) for processes.

A program has one fork server, which its first session starts; a supervisor that it has forked asks
the same one. Where there is none, or it has ended, processes are started with `subprocess`.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import msgspec

from messages.transport.lifeline import Lifeline, arm

__all__ = [
    "EXIT_UNKNOWN",
    "FOLDER",
    "LIFELINE",
    "MAX_BYTES",
    "REQUESTS",
    "STAGES",
    "Answer",
    "Forked",
    "Order",
    "Stage",
    "adopt",
    "available",
    "fork",
    "start",
]

MAX_BYTES = 1 << 20
"""Longest datagram; the kernel takes less (``net.core.wmem_default``)."""
EXIT_UNKNOWN = 256
"""In place of an exit code: the fork server, which would know it, has ended before."""
LIFELINE, FOLDER, REQUESTS = 3, 4, 5
"""Numbers of the descriptors that a forked child begins with, after its standard streams."""
_PATIENCE_S = 5.0
"""A fork server that does not answer for this long is given up. It answers within milliseconds; on
a machine with a load of 40, within a second."""
_SWITCH = "RTVOICE_FORK"
"""Environment variable that switches the fork server off, with the value 0."""
_FIXED = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "GLIBC_", "RTVOICE_PYTHON")
"""Variables that take effect when an interpreter starts; children inherit what they have done."""
_SHARED = (*_FIXED, "PATH", "HOME", "TMPDIR", "TEMP", "TMP", "VIRTUAL_ENV", "TZ", "RTVOICE_")
"""Variables that the fork server itself gets; secrets are in others."""
_SECRET = "RTVOICE_API_KEY"
_ROOM = "RTVOICE_FORKSERVER_ROOM"
"""A variable of the fork server without meaning: the space in which its children show theirs."""
_MORE_BYTES = 4096
_MOST_BYTES = 100_000
"""The kernel allows 128 KiB for one variable."""
_ROOT = str(Path(__file__).resolve().parents[2])


class Stage(msgspec.Struct, frozen=True, array_like=True):
    """Modules that the fork server imports before it forks a child of this kind."""

    arguments: tuple[str, ...]
    """The first arguments of the child."""
    modules: tuple[str, ...]
    """With ``module:function``, the function is called too."""

    def is_for(self, arguments: tuple[str, ...]) -> bool:
        """Return whether a child with these arguments needs it."""
        return arguments[: len(self.arguments)] == self.arguments


STAGES = (
    Stage((), ("actors.host:warm_up", "random", "resource")),
    Stage(("rtvoice.peer",), ("rtvoice.hub:supervisor",)),
    Stage(("actors", "recorder"), ("actors.recorder",)),
    Stage(("actors", "history"), ("actors.history",)),
    Stage(("actors", "speaker"), ("actors.speaker",)),
    Stage(("actors", "tools"), ("actors.tools.actor",)),
    Stage(
        ("actors", "realtime"),
        ("actors.realtime.actor", "actors.realtime.websocket", "encodings.idna"),
    ),
    Stage(("actors", "microphone"), ("actors.microphone",)),
)
"""In the order in which a session needs them."""


class Order(msgspec.Struct, frozen=True, array_like=True):
    """A request: fork a child that does what ``python -P -m ARGUMENTS`` would do.

    Its environment is waiting in the answers' socket: only the child reads it.
    """

    DESCRIPTORS: ClassVar = ("answers", "stdin", "stdout", "stderr", "lifeline", "folder")
    """What comes with it."""

    arguments: tuple[str, ...]
    umask: int
    forks: bool
    """Whether the child may ask for children itself."""


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """The fork server's answer: a pid; when the child has ended, its exit code too."""

    pid: int = 0
    code: int | None = None
    error: int = 0
    """Not 0: the child could not be forked, because of this error of the system."""


class Forked:
    """A forked process, with the interface of `subprocess.Popen` that is needed here."""

    def __init__(self, pid: int, pidfd: int, answers: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._pidfd = pidfd
        self._answers: socket.socket | None = answers
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Return its exit code; None: it runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return its exit code.

        Raises:
            subprocess.TimeoutExpired: If it still runs.
        """
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def kill(self) -> None:
        """Send it SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        with self._lock, contextlib.suppress(ProcessLookupError, OSError):
            signal.pidfd_send_signal(self._pidfd, number)

    def _look(self, timeout: float | None) -> int | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        answers = self._answers
        if answers is not None and _can_be_read(answers, deadline):
            with self._lock:
                self._hear()
        if self.returncode is None and self._answers is None and self._pidfd >= 0:
            # The fork server has ended; the process may live on.
            if _can_be_read(self._pidfd, deadline):
                self._ended(EXIT_UNKNOWN)
        return self.returncode

    def _hear(self) -> None:
        """Read the exit code; the lock is held."""
        if self._answers is None:
            return
        try:
            data = self._answers.recv(MAX_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._answers.close()
        self._answers = None
        if data:
            self._ended(msgspec.msgpack.decode(data, type=Answer).code)

    def _ended(self, code: int | None) -> None:
        self.returncode = code
        descriptor, self._pidfd = self._pidfd, -1
        os.close(descriptor)

    def __del__(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
        if self._answers is not None:
            self._answers.close()


def _can_be_read(thing: socket.socket | int, deadline: float | None) -> bool:
    timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
    poll = select.poll()
    poll.register(thing, select.POLLIN)
    return bool(poll.poll(None if timeout is None else timeout * 1000))


class _Client:
    """Our end of a fork server."""

    def __init__(
        self,
        requests: socket.socket,
        process: subprocess.Popen[bytes] | None = None,
        lifeline: Lifeline | None = None,
    ) -> None:
        self.requests = requests
        self.is_ready = process is None
        """Whether it is known to have imported everything."""
        self._process = process
        """None: it is that of the program that has started us."""
        self._lifeline = lifeline
        self._identity = _identity()

    def look(self) -> bool:
        """Return whether it lives and can be used, and note whether it is ready."""
        try:
            said = self.requests.recv(64, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return self._identity == _identity()
        except OSError:
            return False
        self.is_ready = self.is_ready or bool(said)
        return bool(said)

    def end(self) -> None:
        """End it if it is ours, and forget it; its children live on."""
        self.requests.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._lifeline is not None:
            self._lifeline.close()

    def forget(self) -> None:
        """Close our copies in a process forked from ours."""
        self.requests.close()
        if self._process is not None:
            self._process.returncode = 0  # or it would warn that its child runs


class _Ours:
    """The fork server that this process uses."""

    def __init__(self) -> None:
        self.client: _Client | None = None
        self.lock = threading.Lock()


_ours = _Ours()


def available() -> bool:
    """Return whether processes are started by fork here."""
    return (
        sys.platform == "linux"
        and hasattr(os, "pidfd_open")
        and hasattr(signal, "pidfd_send_signal")
        and os.environ.get(_SWITCH, "").strip() != "0"
    )


def start(interpreter: str) -> None:
    """Start the fork server of this process, unless it has one.

    Raises:
        OSError: If the system has no process or descriptor left.
    """
    with _ours.lock:
        if _ours.client is not None:
            if _ours.client.look():
                return
            _ours.client.end()
            _ours.client = None
        if available():
            _ours.client = _started(interpreter)


def _started(interpreter: str) -> _Client:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lifeline = Lifeline()
    command = [interpreter, "-P", "-m", "messages.transport.forkserver", f"of {os.getpid()}"]
    shown = sum(len(name) + len(value) + 2 for name, value in os.environb.items()) + _MORE_BYTES
    environment = {name: value for name, value in os.environ.items() if _is_shared(name)}
    with theirs, contextlib.ExitStack() as undo:
        undo.callback(ours.close)
        process = subprocess.Popen(
            command,
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            env={
                **environment,
                "PYTHONPATH": os.pathsep.join(_search_path()),
                "OPENBLAS_NUM_THREADS": "1",
                _ROOM: "-" * min(shown, _MOST_BYTES),
            },
            pass_fds=(lifeline.theirs,),
            process_group=0,
        )
        arm(lifeline.theirs, process.pid)
        lifeline.pass_on()
        ours.send(msgspec.msgpack.encode(STAGES))
        undo.pop_all()
    return _Client(ours, process, lifeline)


def adopt(descriptor: int) -> None:
    """Use the fork server of the program, in a child that it has forked."""
    _ours.client = _Client(socket.socket(fileno=descriptor))


def fork(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    descriptors: Sequence[int],
    *,
    forks: bool,
    patient: bool,
) -> Forked | None:
    """Fork a child that does what ``python -P -m ARGUMENTS`` would do.

    Args:
        arguments: The module and its arguments.
        environment: The whole environment of the child.
        descriptors: Its standard input, output and error, and its end of a lifeline.
        forks: Whether the child may ask for children itself.
        patient: Whether to wait for a fork server that is not ready yet.

    Returns:
        The child; None: there is no fork server, or none that is ready.

    Raises:
        OSError: If the system has no process or descriptor left.
    """
    with _ours.lock:
        client = _ours.client
        if client is None or not client.look() or not (client.is_ready or patient):
            return None
    with contextlib.ExitStack() as closing:
        answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        closing.callback(answers.close)
        closing.callback(theirs.close)
        folder = os.open(".", os.O_PATH | os.O_DIRECTORY)
        closing.callback(os.close, folder)
        order = Order(tuple(arguments), _umask(), forks)
        variables = {os.fsencode(name): os.fsencode(it) for name, it in environment.items()}
        passed = [theirs.fileno(), *descriptors, folder]
        try:
            answers.send(msgspec.msgpack.encode(variables))
            socket.send_fds(
                client.requests, [msgspec.msgpack.encode(order)], passed, socket.MSG_DONTWAIT
            )
        except OSError as error:
            if error.errno != errno.EMSGSIZE:  # a very long environment; others are shorter
                _give_up(client)
            return None
        theirs.close()
        if not _can_be_read(answers, time.monotonic() + _PATIENCE_S):
            _give_up(client)
            return None
        try:
            data, received, _, _ = socket.recv_fds(answers, MAX_BYTES, 1)
        except OSError:  # closed, with what we have sent unread
            data = b""
        if not data:
            if client.look():  # alive, but it could not even take the descriptors
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            _give_up(client)
            return None
        answer = msgspec.msgpack.decode(data, type=Answer)
        if answer.error:
            raise OSError(answer.error, os.strerror(answer.error))
        client.is_ready = True
        closing.pop_all()
        os.close(folder)
    return Forked(answer.pid, received[0], answers)


def _give_up(client: _Client) -> None:
    with _ours.lock:
        if _ours.client is client:
            client.end()
            _ours.client = None


def _identity() -> tuple[object, ...]:
    """Return what a child inherits from the fork server and we may have changed since."""
    named = {name: value for name, value in os.environ.items() if name.startswith(_FIXED)}
    return (os.getpid(), os.getresuid(), os.getresgid(), named)


def _is_shared(name: str) -> bool:
    return name.startswith(_SHARED) and name != _SECRET


def _search_path() -> list[str]:
    given = os.environ.get("PYTHONPATH")
    return [_ROOT, *([given] if given else [])]


def _umask() -> int:
    """Return the umask; `os.umask` would change it, for all threads."""
    with open("/proc/self/status", "rb") as status:  # noqa: PTH123 - at each start of a process
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    return 0o022


@atexit.register
def _end() -> None:
    """End our fork server with the program; otherwise the kernel would, without reaping it."""
    if _ours.client is not None:
        _give_up(_ours.client)


def _forget() -> None:
    """Leave the fork server to the process that has forked us."""
    client, _ours.client = _ours.client, None
    _ours.lock = threading.Lock()
    if client is not None:
        client.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
