"""Measures the load: CPU and memory of our processes, of the machine or container, loop lag.

It reads /proc and the files of cgroup v2. Where there are none (not Linux), nothing is limited by
them.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import math
import os
import time
from pathlib import Path
from typing import NamedTuple

__all__ = ["Cgroup", "Lag", "Processes", "available_mib", "busy_seconds", "usable_cores"]

_MIB = 1024 * 1024
_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_LOOK_S = 0.1
"""Interval at which the lag of the loop is measured."""
_KEPT = 20
"""Number of measurements of the lag whose largest counts: two seconds."""
_MOST_OLD_S = 30.0
"""Memory of a process is measured after 1, 2, 4, ... seconds, and then at this interval: it takes
the kernel half a millisecond, and a process that is up grows slowly."""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


class Cgroup:
    """The limits of the cgroups (v2) that this process is in.

    Args:
        root: Where the file system of cgroups is mounted.
        path: Our cgroup, as in /proc/self/cgroup; None: read it there.
    """

    def __init__(self, root: Path = Path("/sys/fs/cgroup"), path: str | None = None) -> None:
        if path is None:
            lines = _read(Path("/proc/self/cgroup")).splitlines()
            path = next((line[3:] for line in lines if line.startswith("0::")), "/")
        folder = root / path.strip("/")
        self._folders = [folder, *(each for each in folder.parents if each.is_relative_to(root))]

    @property
    def cores(self) -> float:
        """How many cores the quota allows; infinite: there is none."""
        return min(
            (_quota(_read(folder / "cpu.max")) for folder in self._folders), default=math.inf
        )

    @property
    def free_mib(self) -> float:
        """How much memory may still be taken; infinite: there is no limit."""
        return min(map(_room_mib, self._folders))

    @property
    def busy_seconds(self) -> float | None:
        """CPU-seconds that the cgroup with a quota has used so far; None: none has one."""
        for folder in self._folders:
            if _quota(_read(folder / "cpu.max")) < math.inf:
                for line in _read(folder / "cpu.stat").splitlines():
                    name, _, value = line.partition(" ")
                    if name == "usage_usec":
                        return int(value) / 1e6
        return None


def _quota(text: str) -> float:
    quota, _, period = text.strip().partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else math.inf


def _room_mib(folder: Path) -> float:
    most, used = _read(folder / "memory.max").strip(), _read(folder / "memory.current").strip()
    if not (most.isdigit() and used.isdigit()):
        return math.inf
    reclaimable = 0
    for line in _read(folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file":
            reclaimable = int(value)
    return (int(most) - int(used) + reclaimable) / _MIB


def usable_cores(cgroup: Cgroup) -> float:
    """Return how many cores this process may use."""
    try:
        mine = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        mine = os.cpu_count() or 1
    return min(float(mine), cgroup.cores)


def available_mib(proc: Path = Path("/proc")) -> float:
    """Return the memory that the machine can still give; infinite: unknown."""
    for line in _read(proc / "meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    return math.inf


def busy_seconds(proc: Path = Path("/proc")) -> float:
    """Return the CPU-seconds that the machine has used so far."""
    first = _read(proc / "stat").partition("\n")[0].split()
    if not first or first[0] != "cpu":
        return 0.0
    user, nice, system, _idle, _wait, *others = map(int, first[1:9])
    return (user + nice + system + sum(others)) / _TICK


class _Memory(NamedTuple):
    kib: int
    due: float
    """When it is measured again."""
    pause_s: float
    """How long that was after it had been measured."""


class Processes:
    """This process and all that it has started: their CPU and memory.

    A process that was found once still counts when its parent has ended: the conversations of a
    fork server that was killed go on.
    """

    def __init__(self, pid: int | None = None, proc: Path = Path("/proc")) -> None:
        self._pid = os.getpid() if pid is None else pid
        self._proc = proc
        self._before: dict[int, float] = {}
        self._began: dict[int, str] = {}
        """When each process was started, since the kernel gives a process id again."""
        self._read_at = 0.0
        self._memory: dict[tuple[int, str], _Memory] = {}
        """By process id and start, what was measured last."""

    def cores(self) -> float:
        """Return the cores used since the last call; of processes that both calls have found."""
        now, used = time.monotonic(), self._seconds()
        spent = sum(s - self._before.get(pid, s) for pid, s in used.items())
        passed, self._read_at, self._before = now - self._read_at, now, used
        return max(0.0, spent) / passed if passed > 0 else 0.0

    def pss_mib(self, *, now: float | None = None) -> float:
        """Return the memory of what the last call of `cores` has found, as PSS; 0: unknown.

        Args:
            now: ``time.monotonic()``: only what is due then is measured anew; None: everything.
        """
        before, self._memory = self._memory, {}
        for pid in self._before:
            key = (pid, self._began.get(pid, ""))
            memory = before.get(key)
            if memory is None or now is None or memory.due <= now:
                pause_s = 1.0 if memory is None else min(2 * memory.pause_s, _MOST_OLD_S)
                memory = _Memory(self._pss_kib(pid), (now or 0.0) + pause_s, pause_s)
            self._memory[key] = memory
        return sum(memory.kib for memory in self._memory.values()) / 1024

    def _pss_kib(self, pid: int) -> int:
        for line in _read(self._proc / str(pid) / "smaps_rollup").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
        return 0

    def _seconds(self) -> dict[int, float]:
        """Return the CPU-seconds of our process and its descendants, by process id."""
        children: dict[int, list[int]] = collections.defaultdict(list)
        seconds: dict[int, float] = {}
        began: dict[int, str] = {}
        with contextlib.suppress(OSError):
            for name in os.listdir(self._proc):  # noqa: PTH208 - hundreds of them, each second
                if name.isdigit():
                    fields = _read(self._proc / name / "stat").rpartition(")")[2].split()
                    if len(fields) > 19:
                        children[int(fields[1])].append(int(name))
                        seconds[int(name)] = (int(fields[11]) + int(fields[12])) / _TICK
                        began[int(name)] = fields[19]
        ours, found = [self._pid], {}
        ours += [pid for pid, at in self._began.items() if began.get(pid) == at]
        while ours:
            pid = ours.pop()
            if pid not in found:
                found[pid] = seconds.get(pid, 0.0)
                ours += children[pid]
        self._began = {pid: began[pid] for pid in found if pid in began}
        return found


class Lag:
    """The lag of an event loop: how much later than asked it makes a call."""

    def __init__(self) -> None:
        self._found: collections.deque[float] = collections.deque(maxlen=_KEPT)

    @property
    def ms(self) -> float:
        """The largest of the last two seconds."""
        return 1000 * max(self._found, default=0.0)

    async def measure(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LOOK_S
            await asyncio.sleep(_LOOK_S)
            self._found.append(max(0.0, loop.time() - due))
