"""Asks a fork server (`messages.transport.forkserver`) for processes.

A program has one fork server, which its first session starts; a supervisor that it has forked asks
the same one. Where there is none, or it has ended, processes are started with `subprocess`.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import errno
import os
import re
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

if sys.platform == "linux":
    import resource

__all__ = [
    "EXIT_UNKNOWN",
    "FOLDER",
    "LIFELINE",
    "MAX_BYTES",
    "REQUESTS",
    "STAGES",
    "Answer",
    "Forked",
    "Inherited",
    "Order",
    "Stage",
    "adopt",
    "available",
    "fork",
    "is_open",
    "server_pid",
    "start",
]

MAX_BYTES = 1 << 20
"""Longest datagram; the kernel takes less (``net.core.wmem_default``)."""
_ANSWER_BYTES = 1024
EXIT_UNKNOWN = 256
"""In place of an exit code: the fork server, which would know it, has ended before."""
LIFELINE, FOLDER, REQUESTS = 3, 4, 5
"""Numbers of the descriptors that a forked child begins with, after its standard streams."""
_PATIENCE_S = 2.0
"""A fork server that does not answer for this long is given up. It answers within milliseconds; on
a machine with a load of 40, within a second."""
_START_PATIENCE_S = 20.0
"""The same while it still imports what the first child needs."""
_MOST_FAILURES = 3
"""After so many fork servers in a row that ended before they were ready, no other is started."""
_SWITCH = "RTVOICE_FORK"
"""Environment variable that switches the fork server off, with the value 0."""
_FIXED = re.compile(
    r"PYTHON[A-Z0-9]+|PYTHON_(GIL|JIT|TLBC|COLORS|CPU_COUNT|FROZEN_MODULES|CONTEXT_AWARE_WARNINGS"
    r"|THREAD_INHERIT_CONTEXT|PERF_JIT_SUPPORT)|HOME|LANG|LANGUAGE|LC_[A-Z]+|LD_LIBRARY_PATH"
    r"|LD_PRELOAD|LD_AUDIT|LD_BIND_NOW|GLIBC_TUNABLES|MALLOC_[A-Z_]+|OPENSSL_(CONF|MODULES|ENGINES"
    r"|ia32cap)|WEBSOCKETS_[A-Z_]+|COVERAGE_PROCESS_[A-Z]+|RTVOICE_PYTHON"
)
"""Variables that take effect when an interpreter starts or a preloaded module is imported; children
inherit what they have done."""
_SHARED = re.compile(r"PATH|TZ|RTVOICE_(?!API_KEY$).*")
"""Further variables that the fork server gets. All others may be secrets: a name is not shared for
its beginning, such as that of ``LANGCHAIN_API_KEY``."""
_ROOM = "RTVOICE_FORKSERVER_ROOM"
"""A variable of the fork server without meaning: the space in which its children show theirs."""
_OVERHEAD = 1024
"""Bytes of a socket's buffer that a datagram cannot have: the kernel takes 32."""
_BUSY = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS)
"""Requests are waiting: no reason to give the fork server up."""
_RESOURCES = 16
"""Limits that Linux has (getrlimit(2))."""
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
    Stage(("actors", "speaker"), ("actors.speaker", "actors.devices.silence")),
    Stage(("actors", "tools"), ("actors.tools.actor",)),
    Stage(
        ("actors", "realtime"),
        ("actors.realtime.actor", "actors.realtime.websocket", "encodings.idna"),
    ),
    Stage(("actors", "microphone"), ("actors.microphone", "actors.devices.own.program")),
)
"""In the order in which a session needs them."""


class Inherited(msgspec.Struct, frozen=True, array_like=True):
    """What a process inherits from the one that starts it, but for its environment and folder."""

    umask: int
    ignored: int
    """Ignored signals, as a mask: bit 0 is signal 1."""
    blocked: int
    """Blocked signals, as a mask."""
    limits: tuple[tuple[int, int], ...]
    """Soft and hard limits, by the number of the resource."""

    @classmethod
    def ours(cls) -> Inherited:
        """Return that of the calling thread; none of it is changed, as `os.umask` would do."""
        found = {}
        with open("/proc/thread-self/status", "rb") as status:  # noqa: PTH123 - at each start of a process
            for line in status:
                name, _, value = line.partition(b":")
                found[name] = value
        return cls(
            int(found[b"Umask"], 8),
            int(found[b"SigIgn"], 16),
            int(found[b"SigBlk"], 16),
            tuple(resource.getrlimit(number) for number in range(_RESOURCES)),
        )


class Order(msgspec.Struct, frozen=True, array_like=True):
    """A request: fork a child that does what ``python -P -m ARGUMENTS`` would do.

    When its pid has been received, its environment is sent to the answers' socket, where only the
    child reads it. A child whose asker has gone, or does not wait any longer, ends there.
    """

    DESCRIPTORS: ClassVar = ("answers", "stdin", "stdout", "stderr", "lifeline", "folder")
    """What comes with it."""

    arguments: tuple[str, ...]
    inherited: Inherited
    forks: bool
    """Whether the child may ask for children itself."""
    end_signal: int
    """What the kernel sends to its process group when the asker ends."""


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """The fork server's answer: a pid; when the child has ended, its exit code too."""

    pid: int = 0
    code: int | None = None
    error: int = 0
    """Not 0: no child could be forked, because of this error of the system."""


class Forked:
    """A forked process, with the interface of `subprocess.Popen` that is needed here."""

    def __init__(
        self, pid: int, pidfd: int, answers: socket.socket, lifeline: Lifeline | None
    ) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._lifeline = lifeline
        """Held as long as we live."""
        self._pidfd = pidfd
        # A bare descriptor: a socket would warn if it is freed before we are, in a cycle.
        self._answers = answers.detach()
        os.set_blocking(self._answers, False)
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
        if answers >= 0 and _can_be_read(answers, deadline):
            with self._lock:
                self._hear()
        pidfd = self._pidfd
        if self.returncode is None and self._answers < 0 and pidfd >= 0:
            # The fork server has ended; the process may live on.
            if _can_be_read(pidfd, deadline):
                with self._lock:
                    self._ended(EXIT_UNKNOWN)
        return self.returncode

    def _hear(self) -> None:
        """Read the exit code; the lock is held."""
        if self._answers < 0:
            return
        try:
            data = _received(self._answers)
        except BlockingIOError:
            return
        descriptor, self._answers = self._answers, -1
        os.close(descriptor)
        if data:
            self._ended(msgspec.msgpack.decode(data, type=Answer).code)

    def _ended(self, code: int | None) -> None:
        """Note the exit code, unless another thread has; the lock is held."""
        if self.returncode is None:
            self.returncode = code
            descriptor, self._pidfd = self._pidfd, -1
            os.close(descriptor)
            if self._lifeline is not None:
                self._lifeline.close()

    def __del__(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
        if self._answers >= 0:
            os.close(self._answers)


def _received(answers: int) -> bytes:
    """Return an answer; empty: the fork server has ended.

    Raises:
        BlockingIOError: If there is none yet.
    """
    with contextlib.suppress(ConnectionResetError):
        return os.read(answers, _ANSWER_BYTES)
    # The child has ended without reading its environment: the kernel reports that first.
    return os.read(answers, _ANSWER_BYTES)


def _can_be_read(
    thing: socket.socket | int, deadline: float | None, *, unless: socket.socket | None = None
) -> bool:
    """Wait until there is something to read, or until the other socket has no peer any more."""
    timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
    poll = select.poll()
    poll.register(thing, select.POLLIN)
    if unless is not None:
        poll.register(unless, 0)  # no events: hang-up only
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
        self.pid = os.getppid() if process is None else process.pid
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
        if self._lifeline is not None:
            self._lifeline.close()  # the kernel kills it, even if we may not: we had another uid
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE_S)

    def forget(self) -> None:
        """Close our copies in a process forked from ours."""
        self.requests.close()
        if self._process is not None:
            self._process.returncode = 0  # or it would warn that its child runs


class _Ours:
    """The fork server that this process uses."""

    def __init__(self) -> None:
        self.client: _Client | None = None
        self.failures = 0
        """How many in a row have ended before they were ready."""
        self.lock = threading.Lock()


_ours = _Ours()


def available() -> bool:
    """Return whether processes are started by fork here."""
    return (
        sys.platform == "linux"
        and hasattr(os, "pidfd_open")
        and hasattr(signal, "pidfd_send_signal")
        and os.path.exists("/proc/thread-self/status")  # noqa: PTH110 - at each start of a process
        and os.environ.get(_SWITCH, "").strip() != "0"
    )


def server_pid() -> int | None:
    """Return the pid of the fork server that this process uses; None: it has none."""
    client = _ours.client
    return None if client is None else client.pid


def start(interpreter: str) -> None:
    """Start the fork server of this process, unless it has one.

    Raises:
        OSError: If the system has no process or descriptor left.
    """
    with _ours.lock:
        if _ours.client is not None:
            if _ours.client.look():
                return
            _ours.failures = 0 if _ours.client.is_ready else _ours.failures + 1
            _ours.client.end()
            _ours.client = None
        if available() and _ours.failures < _MOST_FAILURES:
            _ours.client = _started(interpreter)


def _started(interpreter: str) -> _Client:
    lifeline = Lifeline()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [interpreter, "-P", "-m", "messages.transport.forkserver", f"of {os.getpid()}"]
    shown = sum(len(name) + len(value) + 2 for name, value in os.environb.items()) + _MORE_BYTES
    environment = {
        name: value
        for name, value in os.environ.items()
        if _FIXED.fullmatch(name) or _SHARED.fullmatch(name)
    }
    with theirs, contextlib.ExitStack() as undo:
        undo.callback(ours.close)
        process = subprocess.Popen(
            command,
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=None if is_open(2) else subprocess.DEVNULL,
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
    lifeline: Lifeline | None,
    *,
    forks: bool,
    patient: bool,
) -> Forked | None:
    """Fork a child that does what ``python -P -m ARGUMENTS`` would do.

    Args:
        arguments: The module and its arguments.
        environment: The whole environment of the child.
        descriptors: Its standard input, output and error.
        lifeline: The line on which its process group depends; None: it depends on nobody, but is
            continued if it is stopped when we end.
        forks: Whether the child may ask for children itself.
        patient: Whether to wait for a fork server that is not ready yet.

    Returns:
        The child; None: there is no fork server, or none that is ready or able to.

    Raises:
        OSError: If the system has no descriptor left for us.
    """
    with _ours.lock:
        client = _ours.client
        if client is None or not client.look() or not (client.is_ready or patient):
            return None
    variables = b"".join(
        os.fsencode(name) + b"=" + os.fsencode(value) + b"\0" for name, value in environment.items()
    )
    with contextlib.ExitStack() as undo, contextlib.ExitStack() as done:
        answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        undo.callback(answers.close)
        done.callback(theirs.close)
        if len(variables) > answers.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - _OVERHEAD:
            return None
        folder = _folder()
        if folder is None:
            return None
        done.callback(os.close, folder)
        held = None
        if lifeline is None:
            lifeline = held = Lifeline()
            undo.callback(held.close)
            done.callback(held.pass_on)
            end_signal = signal.SIGCONT
        else:
            end_signal = signal.SIGKILL
        order = Order(tuple(arguments), Inherited.ours(), forks, end_signal)
        passed = [theirs.fileno(), *descriptors, lifeline.theirs, folder]
        try:
            socket.send_fds(
                client.requests, [msgspec.msgpack.encode(order)], passed, socket.MSG_DONTWAIT
            )
        except OSError as error:
            if error.errno not in _BUSY:
                _give_up(client)
            return None
        theirs.close()  # or we would not notice the end of the fork server
        pid, pidfd = _answered(client, answers)
        if not pid:
            return None
        undo.callback(os.close, pidfd)
        try:
            answers.send(variables)
        except OSError:  # it has died already
            return None
        undo.pop_all()
        return Forked(pid, pidfd, answers, held)


def _folder() -> int | None:
    """Return a descriptor of our folder, which may be deleted; None: we may not enter it."""
    try:
        return os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return None


def _answered(client: _Client, answers: socket.socket) -> tuple[int, int]:
    """Return pid and pidfd of the forked child; 0: there is none.

    Raises:
        OSError: If the system has no descriptor left for us.
    """
    patience_s = _PATIENCE_S if client.is_ready else _START_PATIENCE_S
    deadline = time.monotonic() + patience_s
    data, received = b"", array.array("i")
    if _can_be_read(answers, deadline, unless=client.requests):
        with contextlib.suppress(BlockingIOError, ConnectionError):
            # `socket.recv_fds` ignores the flags, so that others would inherit it.
            flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
            room = socket.CMSG_LEN(received.itemsize)
            data, passed, _, _ = answers.recvmsg(_ANSWER_BYTES, room, flags)
            for _, _, packed in passed:
                received.frombytes(packed)
        if not data and client.look():
            return 0, -1  # it lives, but has no descriptor left
    if not data:
        _give_up(client)
        return 0, -1
    client.is_ready = True
    answer = msgspec.msgpack.decode(data, type=Answer)
    if answer.error:
        return 0, -1
    if not received:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return answer.pid, received[0]


def _give_up(client: _Client) -> None:
    with _ours.lock:
        if _ours.client is client:
            client.end()
            _ours.client = None


def _identity() -> tuple[object, ...]:
    """Return what a child inherits from the fork server and we may have changed since.

    `adopt` calls this when the environment is still that of the fork server.
    """
    named = {name: value for name, value in os.environ.items() if _FIXED.fullmatch(name)}
    return (os.getpid(), os.getresuid(), os.getresgid(), os.getgroups(), named)


def _search_path() -> list[str]:
    given = os.environ.get("PYTHONPATH")
    return [_ROOT, *([given] if given else [])]


def is_open(descriptor: int) -> bool:
    """Return whether a descriptor is open."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


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
