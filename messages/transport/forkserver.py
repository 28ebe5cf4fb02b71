"""The fork server: a process that has imported what children need, and forks them on request.

It has one thread, and nothing that a child must not have: no user code, no sound device and no
secret. The environment of a child, which may hold the key, is read by the child alone.

A request is a datagram: the arguments of ``python -m``, and descriptors. The answer goes to the
socket that came with it: pid and pidfd at once, and the exit code when the child has ended.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import gc
import importlib
import os
import runpy
import selectors
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from messages.transport import forking
from messages.transport.forking import MAX_BYTES, Answer, Order, Stage
from messages.transport.lifeline import arm

__all__ = ["ForkServer", "main"]

_FREE = 100
"""Descriptors are moved here before the child gives them their numbers."""


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
            pidfd = os.pidfd_open(pid)
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
            answers = self._children.pop(ended.si_pid)
            _answer(answers, Answer(ended.si_pid, os.waitstatus_to_exitcode(status)))
            answers.close()

    # -- the child ----------------------------------------------------------------------------

    def _be_child(
        self, order: Order, answers: socket.socket, requests: socket.socket, descriptors: list[int]
    ) -> NoReturn:
        code: Any = 1
        try:
            self._let_go()
            environment = msgspec.msgpack.decode(answers.recv(MAX_BYTES), type=dict[bytes, bytes])
            folder = _take(descriptors, answers, requests if order.forks else None)
            os.setpgid(0, 0)
            arm(forking.LIFELINE, os.getpid())
            _resemble(order, environment, folder)
            runpy.run_module(order.arguments[0], run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = end.code
        except EOFError:  # whoever has asked for it has ended
            os._exit(1)
        except BaseException:  # noqa: BLE001 - as the interpreter would
            traceback.print_exc()
        if isinstance(code, str):
            sys.stderr.write(f"{code}\n")
            code = 1
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code or 0)

    def _let_go(self) -> None:
        """Release what belongs to the fork server."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        for connection in (*self._sockets, *self._children.values()):
            connection.close()
        self._selector.close()


def _take(descriptors: list[int], answers: socket.socket, requests: socket.socket | None) -> int:
    """Give the descriptors of a request their numbers, and close all others.

    Returns:
        The descriptor of the folder.
    """
    kept = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _FREE) for number in descriptors]
    if requests is not None:
        kept.append(fcntl.fcntl(requests.detach(), fcntl.F_DUPFD_CLOEXEC, _FREE))
    answers.detach()
    for number, descriptor in enumerate(kept):
        os.dup2(descriptor, number, inheritable=number <= 2)
    os.closerange(len(kept), os.sysconf("SC_OPEN_MAX"))
    if requests is not None:
        forking.adopt(forking.REQUESTS)
    return forking.FOLDER


def _resemble(order: Order, environment: dict[bytes, bytes], folder: int) -> None:
    """Make this process what ``python -m`` would have made it."""
    os.fchdir(folder)
    os.close(folder)
    os.umask(order.umask)
    os.environb.clear()
    os.environb.update(environment)
    sys.argv = list(order.arguments)
    command = [*Path("/proc/self/cmdline").read_bytes().split(b"\0")[:3]]
    command += [argument.encode() for argument in order.arguments]
    _show(command, environment)
    Path("/proc/self/comm").write_bytes(order.arguments[-1].lstrip("-").encode()[:15])
    gc.enable()


def _show(command: list[bytes], environment: dict[bytes, bytes]) -> None:
    """Have ``/proc/PID/cmdline`` and ``environ``, and so `ps`, show this process as it is.

    The kernel shows the memory in which it has put them at the start (proc(5), /proc/PID/stat,
    fields 48 to 51).
    """
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    arguments, arguments_end, variables, variables_end = map(int, fields[45:49])
    _overwrite(arguments, arguments_end, b"\0".join(command))
    shown = b"\0".join(name + b"=" + value for name, value in environment.items())
    _overwrite(variables, variables_end, shown)


def _overwrite(start: int, end: int, text: bytes) -> None:
    """Write text to memory, filled up with zeros; what there is no room for is left out."""
    room = end - start
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
    gc.disable()
    data = requests.recv(MAX_BYTES)
    if data:
        ForkServer(requests, msgspec.msgpack.decode(data, type=list[Stage])).run()


if __name__ == "__main__":
    main()
