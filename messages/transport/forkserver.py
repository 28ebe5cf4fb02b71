"""The fork server: a process that has imported what children need, and forks them on request.

It has one thread, and nothing that a child must not have: no user code, no sound device and no
secret. The environment of a child, which may hold the key, is read by the child alone.

A request is a datagram: the arguments of ``python -m``, and descriptors. The answer goes to the
socket that came with it: pid and pidfd at once, and the exit code when the child has ended. In
between, whoever has asked sends the environment to the child, through the same socket.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import ctypes
import errno
import fcntl
import gc
import importlib
import os
import resource
import runpy
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from messages.transport.fork_protocol import (
    FOLDER,
    LIFELINE,
    MAX_BYTES,
    REQUESTS,
    Answer,
    Inherited,
    Order,
    Stage,
)
from messages.transport.forking import adopt
from messages.transport.lifeline import arm

__all__ = ["ForkServer", "main"]

_FREE = REQUESTS + 1
"""From here on descriptors are moved before the child gives them their numbers."""
_PYTHONS = {signal.SIGPIPE, signal.SIGXFSZ}
"""Signals that each interpreter ignores."""


class ForkServer:
    """Forks children for those who hold the other end of a requests socket."""

    def __init__(self, requests: socket.socket, stages: list[Stage]) -> None:
        self._stages = stages
        """What is not imported yet, in the order in which a session needs it."""
        self._owner = requests
        self._children: dict[int, socket.socket] = {}
        """By pid: where the exit code goes."""
        self._selector = selectors.DefaultSelector()
        self._selector.register(requests, selectors.EVENT_READ, self._serve)
        self._woken, waker = socket.socketpair()
        self._sockets = [self._woken, waker]
        for end in self._sockets:
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker.fileno())
        self._selector.register(self._woken, selectors.EVENT_READ, lambda _: self._reap())

    def run(self) -> NoReturn:
        """Serve requests, and import what will be needed while there are none."""
        while True:
            for key, _ in self._selector.select(0 if self._stages else None):
                key.data(key.fileobj)
            if self._stages:
                self._load(self._stages.pop(0))
                if not self._stages:
                    self._say_ready()

    def _say_ready(self) -> None:
        with contextlib.suppress(OSError):
            self._owner.send(b"ready")

    def _load(self, stage: Stage) -> None:
        for name in stage.modules:
            module, _, function = name.partition(":")
            try:
                found = importlib.import_module(module)
                if function:
                    getattr(found, function)()
            except Exception:  # noqa: BLE001 - the child meets it too, and reports it
                traceback.print_exc()

    def _load_for(self, arguments: tuple[str, ...]) -> None:
        """Import what a child needs, before others that are not needed yet."""
        for stage in [stage for stage in self._stages if stage.is_for(arguments)]:
            self._stages.remove(stage)
            self._load(stage)
            if not self._stages:
                self._say_ready()

    def _serve(self, requests: socket.socket) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(requests, MAX_BYTES, len(Order.DESCRIPTORS))
        except OSError:
            data, descriptors = b"", []
        if not data:  # a supervisor has ended
            self._selector.unregister(requests)
            requests.close()
            return
        if len(descriptors) < len(Order.DESCRIPTORS):  # we have no more; the asker sees the end
            for descriptor in descriptors:
                os.close(descriptor)
            return
        order = msgspec.msgpack.decode(data, type=Order)
        self._load_for(order.arguments)
        answers = socket.socket(fileno=descriptors[0])
        try:
            self._fork(order, answers, descriptors[1:])
        except OSError as error:
            _answer(answers, Answer(error=error.errno or errno.EAGAIN))
            answers.close()
        for descriptor in descriptors[1:]:
            os.close(descriptor)

    def _fork(self, order: Order, answers: socket.socket, descriptors: list[int]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            if _threads() > 1:
                raise OSError(errno.EDEADLK, "a module has started a thread")
            gc.freeze()  # or a collection in the child would copy all pages
            pid = os.fork()
            if pid == 0:
                self._be_child(order, answers, theirs, descriptors)
            try:
                # Here, not in the child, which might be stopped before it gets so far.
                os.setpgid(pid, pid)
                with contextlib.suppress(EOFError):  # the child sees it too
                    arm(descriptors[LIFELINE], pid, order.end_signal)
                pidfd = os.pidfd_open(pid)
            except OSError:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise
            self._children[pid] = answers
            _answer(answers, Answer(pid), pidfd)
            os.close(pidfd)
            if order.forks:
                undo.pop_all()
                self._selector.register(ours, selectors.EVENT_READ, self._serve)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        while self._children:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            # As long as it is not reaped, no other group can have its number.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(ended.si_pid, signal.SIGKILL)
            _, status = os.waitpid(ended.si_pid, 0)
            if (answers := self._children.pop(ended.si_pid, None)) is not None:
                _answer(answers, Answer(ended.si_pid, os.waitstatus_to_exitcode(status)))
                answers.close()

    # -- the child ----------------------------------------------------------------------------

    def _be_child(
        self, order: Order, answers: socket.socket, requests: socket.socket, descriptors: list[int]
    ) -> NoReturn:
        code: Any = 1
        try:
            self._let_go()
            variables = _receive(answers)
            if not variables:  # whoever has asked for us has ended, or waits no longer
                os._exit(1)
            _inherit(order.inherited)
            _take(descriptors, answers, requests if order.forks else None)
            _resemble(order, variables)
            runpy.run_module(order.arguments[0], run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = end.code
        except BaseException:  # noqa: BLE001 - as the interpreter would
            traceback.print_exc()
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)  # noqa: T201 - as the interpreter would
            code = 1
        threading._shutdown()  # type: ignore[attr-defined] # noqa: SLF001 - as the interpreter would
        atexit._run_exitfuncs()  # noqa: SLF001 - as the interpreter would
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit((code or 0) & 0xFF)

    def _let_go(self) -> None:
        """Release what belongs to the fork server."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        for connection in (*self._sockets, *self._children.values()):
            connection.close()
        self._selector.close()


def _receive(answers: socket.socket) -> bytes:
    """Wait for the environment; it is as the kernel has it: ``NAME=VALUE`` and a zero each."""
    with contextlib.suppress(ConnectionError):
        return answers.recv(MAX_BYTES)
    return b""


def _take(descriptors: list[int], answers: socket.socket, requests: socket.socket | None) -> None:
    """Give the descriptors of a request their numbers, and close all others."""
    kept = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _FREE) for number in descriptors]
    if requests is not None:
        kept.append(fcntl.fcntl(requests.detach(), fcntl.F_DUPFD_CLOEXEC, _FREE))
    answers.detach()
    for number, descriptor in enumerate(kept):
        os.dup2(descriptor, number, inheritable=number <= 2)
    for left in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 - numbers, not paths
        if left >= len(kept):
            with contextlib.suppress(OSError):  # that of the listing itself
                os.close(left)
    if requests is not None:
        adopt(REQUESTS)


def _resemble(order: Order, variables: bytes) -> None:
    """Make this process what ``python -m`` would have made it."""
    os.fchdir(FOLDER)
    os.close(FOLDER)
    zone = os.environb.get(b"TZ")
    os.environb.clear()
    for variable in variables.split(b"\0")[:-1]:
        name, _, value = variable.partition(b"=")
        os.environb[name] = value
    if zone != os.environb.get(b"TZ"):
        time.tzset()
    sys.argv = list(order.arguments)
    sys.orig_argv[3:] = order.arguments
    command = [os.fsencode(argument) for argument in sys.orig_argv]
    with contextlib.suppress(OSError):  # it is only for show
        _show(command, variables)
        Path("/proc/self/comm").write_bytes(command[-1].lstrip(b"-")[:15])
    gc.enable()


def _inherit(inherited: Inherited) -> None:
    os.umask(inherited.umask)
    for number in signal.valid_signals() - _PYTHONS - {signal.SIGKILL, signal.SIGSTOP}:
        ignored = bool(inherited.ignored >> (number - 1) & 1)
        if ignored != (signal.getsignal(number) is signal.SIG_IGN):
            signal.signal(number, signal.SIG_IGN if ignored else _default(number))
    blocked = {n for n in signal.valid_signals() if inherited.blocked >> (n - 1) & 1}
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    for which, limits in enumerate(inherited.limits):
        if resource.getrlimit(which) != limits:
            with contextlib.suppress(OSError, ValueError):  # not permitted
                resource.setrlimit(which, limits)


def _default(number: int) -> Any:
    return signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL


def _show(command: list[bytes], variables: bytes) -> None:
    """Have ``/proc/PID/cmdline`` and ``environ``, and so `ps`, show this process as it is.

    The kernel shows the memory in which it has put them at the start (proc(5), /proc/PID/stat,
    fields 48 to 51).
    """
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    arguments, arguments_end, environment, environment_end = map(int, fields[45:49])
    _overwrite(arguments, arguments_end, b"\0".join(command))
    _overwrite(environment, environment_end, variables)


def _overwrite(start: int, end: int, text: bytes) -> None:
    """Write text to memory, filled up with zeros; what there is no room for is left out."""
    room = end - start
    if start <= 0 or room <= 0:
        return  # this kernel does not tell where it is
    ctypes.memmove(start, text[: room - 1].ljust(room, b"\0"), room)


def _threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def _answer(answers: socket.socket, answer: Answer, *descriptors: int) -> None:
    passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    with contextlib.suppress(OSError):  # whoever has asked for it has ended
        answers.sendmsg([msgspec.msgpack.encode(answer)], passed if descriptors else [])


def main() -> None:
    """Run the fork server: its requests come to its standard input."""
    requests = socket.socket(fileno=os.dup(0))
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.chdir("/")  # or our folder could not be unmounted
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # one or two for each child
    gc.disable()
    data = requests.recv(MAX_BYTES)
    if data:
        ForkServer(requests, msgspec.msgpack.decode(data, type=list[Stage])).run()


if __name__ == "__main__":
    main()
