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
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

import msgspec

from messages.transport.fork_protocol import ANSWER_BYTES, STAGES, Answer, Inherited, Order
from messages.transport.forked import Forked, can_be_read
from messages.transport.lifeline import Lifeline, arm

__all__ = ["adopt", "available", "fork", "is_open", "server_pid", "start"]

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
_MORE_BYTES = 4096
_MOST_BYTES = 100_000
"""The kernel allows 128 KiB for one variable."""


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
        """Whether the fork server has said that its imports are done."""
        self.pid = os.getppid() if process is None else process.pid
        self._process = process
        """None: the fork server belongs to the program that has started us."""
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


def start(interpreter: str, environment: Mapping[str, str]) -> None:
    """Start the fork server of this process, unless it has one.

    Args:
        interpreter: The Python to start it with.
        environment: That of this process, with our packages first in ``PYTHONPATH``. The fork
            server gets those of its variables that are known not to be secrets.

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
            _ours.client = _started(interpreter, environment)


def _started(interpreter: str, environment: Mapping[str, str]) -> _Client:
    lifeline = Lifeline()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [interpreter, "-P", "-m", "messages.transport.forkserver", f"of {os.getpid()}"]
    shown = len(_joined(environment)) + _MORE_BYTES
    shared = {
        name: value
        for name, value in environment.items()
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
                **shared,
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
        forks: Whether the child may itself request children.
        patient: Whether to wait for a fork server that is not ready yet.

    Returns:
        The child; None: there is no fork server, or none that is ready or able to.

    Raises:
        OSError: If the system has no descriptor left for us.
    """
    client = _usable(patient=patient)
    if client is None:
        return None
    variables = _joined(environment)
    with contextlib.ExitStack() as undo:
        held, end_signal = None, signal.SIGKILL
        if lifeline is None:
            lifeline = held = Lifeline()
            undo.callback(held.close)
            end_signal = signal.SIGCONT
        order = Order(tuple(arguments), Inherited.ours(), forks, end_signal)
        answers = _asked(client, order, [*descriptors, lifeline.theirs], len(variables))
        if answers is None:
            return None
        undo.callback(answers.close)
        pid, pidfd = _answered(client, answers)
        if not pid:
            return None
        undo.callback(os.close, pidfd)
        try:
            answers.send(variables)
        except OSError:  # it has died already
            return None
        if held is not None:
            held.pass_on()
        undo.pop_all()
        return Forked(pid, pidfd, answers, held)


def _usable(*, patient: bool) -> _Client | None:
    """Return our fork server; None: there is none, or it is not ready and we are not patient."""
    with _ours.lock:
        client = _ours.client
        if client is None or not client.look() or not (client.is_ready or patient):
            return None
        return client


def _joined(environment: Mapping[str, str]) -> bytes:
    """Return an environment as the kernel has it: ``NAME=VALUE`` and a zero for each variable."""
    return b"".join(
        os.fsencode(name) + b"=" + os.fsencode(value) + b"\0" for name, value in environment.items()
    )


def _asked(
    client: _Client, order: Order, descriptors: Sequence[int], environment_bytes: int
) -> socket.socket | None:
    """Send a request, and return the socket to which the answers come.

    Args:
        client: Whom to ask.
        order: The request.
        descriptors: `Order.DESCRIPTORS` but for the first and the last, which are ours.
        environment_bytes: Length of the environment, which is to be sent to this socket.

    Returns:
        The socket; None: the request could not be sent, or the environment would be too long.

    Raises:
        OSError: If the system has no descriptor left for us.
    """
    with contextlib.ExitStack() as undo, contextlib.ExitStack() as done:
        answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        undo.callback(answers.close)
        done.callback(theirs.close)  # or we would not notice the end of the fork server
        if environment_bytes > answers.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - _OVERHEAD:
            return None
        folder = _folder()
        if folder is None:
            return None
        done.callback(os.close, folder)
        passed = [theirs.fileno(), *descriptors, folder]
        try:
            socket.send_fds(
                client.requests, [msgspec.msgpack.encode(order)], passed, socket.MSG_DONTWAIT
            )
        except OSError as error:
            if error.errno not in _BUSY:
                _give_up(client)
            return None
        undo.pop_all()
        return answers


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
    if can_be_read(answers, deadline, unless=client.requests):
        with contextlib.suppress(BlockingIOError, ConnectionError):
            # `socket.recv_fds` ignores the flags, so that others would inherit it.
            flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
            room = socket.CMSG_LEN(received.itemsize)
            data, passed, _, _ = answers.recvmsg(ANSWER_BYTES, room, flags)
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
