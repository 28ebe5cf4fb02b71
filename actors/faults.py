"""Fault injection: faults that a component commits on command (`Settings.probes`).

The component commits them on its actor's thread. Signals come from outside and need no code here.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

if sys.platform != "win32":
    import resource

from messages import FAULTS, AssistantAudio, encode
from messages.transport.channel import Channel

__all__ = ["InjectedError", "commit"]

_TORN_BYTES = 1 << 20
_BLOCK_BYTES = 8 << 20
_BLOCKS = 1024


class FaultHost(Protocol):
    """What a fault needs of the process that commits it."""

    channel: Channel
    epoch: int
    armed: set[str]
    """Moments (``open``, ``close``) at which the actor raises the next time."""


class InjectedError(Exception):
    """Raised by a component on command."""


def commit(fault: str, host: FaultHost) -> None:
    """Commit a fault by its name (see `messages.FAULTS`).

    Raises:
        ValueError: no such fault.
        BaseException: whatever the fault is to raise.
    """
    if fault not in _FAULTS:
        raise ValueError(f"no fault is named {fault!r}; there are {', '.join(FAULTS)}")
    _FAULTS[fault](host)


def _raise(_: FaultHost) -> None:
    raise InjectedError("injected")


def _system_exit(_: FaultHost) -> None:
    raise SystemExit(3)


def _exit(_: FaultHost) -> None:
    os._exit(7)


def _segfault(_: FaultHost) -> None:
    ctypes.string_at(0)


def _hang(_: FaultHost) -> None:
    while True:
        time.sleep(3600)


def _hold_gil(_: FaultHost) -> None:
    """Sleep in C while holding the GIL: no thread of this process runs."""
    if sys.platform == "win32":
        ctypes.PyDLL("kernel32").Sleep(3_600_000)
    else:
        ctypes.PyDLL(None).sleep(3600)


def _exhaust_memory(_: FaultHost) -> None:
    """Allocate until it is refused; the memory is not touched, so the machine does not notice."""
    blocks: list[mmap.mmap] = []
    if sys.platform != "win32":
        with contextlib.suppress(OSError):  # refused
            while len(blocks) < _BLOCKS:
                blocks.append(mmap.mmap(-1, _BLOCK_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    bytearray(2 * _BLOCK_BYTES)
    raise MemoryError(f"there is no limit here: {len(blocks) * _BLOCK_BYTES >> 20} MiB were given")


def _raise_on_open(host: FaultHost) -> None:
    host.armed.add("open")
    raise InjectedError("injected; opening it again raises too")


def _raise_on_close(host: FaultHost) -> None:
    host.armed.add("close")
    raise InjectedError("injected; closing it raises too")


def _tear_frame(host: FaultHost) -> None:
    """Die in the middle of a long write."""
    frame = encode(AssistantAudio(bytes(_TORN_BYTES), "torn", "torn", 0), host.epoch)
    host.channel.connection.sendall(frame[: len(frame) // 2])
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def _fill_disk(_: FaultHost) -> None:
    """Make the system refuse that any file of this process grows, as a full disk does."""
    _limit_files(0)


def _free_disk(_: FaultHost) -> None:
    _limit_files(None)


def _limit_files(most: int | None) -> None:
    if sys.platform == "win32":
        raise InjectedError("the size of files cannot be limited on Windows")
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if most is None else most, hard))


def _break_connections(_: FaultHost) -> None:
    """Shut down each network connection of this process, as if the other side had."""
    for entry in list(Path("/dev/fd").iterdir()):
        with contextlib.suppress(OSError):  # no socket, not connected, or closed by now
            with socket.socket(fileno=os.dup(int(entry.name))) as connection:
                if connection.family in (socket.AF_INET, socket.AF_INET6):
                    connection.shutdown(socket.SHUT_RDWR)


_FAULTS: dict[str, Callable[[FaultHost], None]] = {
    "raise": _raise,
    "system-exit": _system_exit,
    "exit": _exit,
    "segfault": _segfault,
    "hang": _hang,
    "gil": _hold_gil,
    "memory": _exhaust_memory,
    "raise-on-open": _raise_on_open,
    "raise-on-close": _raise_on_close,
    "torn-frame": _tear_frame,
    "disk-full": _fill_disk,
    "disk-free": _free_disk,
    "disconnect": _break_connections,
}
assert _FAULTS.keys() == FAULTS.keys()
