from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

from rtvoice.service.load import Cgroup, Processes, available_mib, busy_seconds, usable_cores

MIB = 1024 * 1024


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)


def test_the_tightest_limit_of_all_cgroups_counts(tmp_path: Path) -> None:
    write(tmp_path / "pod", cpu_max="150000 100000\n", memory_max=f"{500 * MIB}\n")
    write(tmp_path / "pod", memory_current=f"{300 * MIB}\n", cpu_stat="usage_usec 2500000\nx 1\n")
    write(tmp_path / "pod" / "main", cpu_max="max 100000\n", memory_max="max\n")
    cgroup = Cgroup(tmp_path, "/pod/main")

    assert cgroup.cores == 1.5
    assert cgroup.free_mib == 200
    assert cgroup.busy_seconds == 2.5
    assert usable_cores(cgroup) <= 1.5


def test_what_the_kernel_can_take_back_is_free(tmp_path: Path) -> None:
    write(tmp_path, memory_max=f"{500 * MIB}", memory_current=f"{490 * MIB}")
    write(tmp_path, memory_stat=f"anon 1\ninactive_file {100 * MIB}\n")

    assert Cgroup(tmp_path, "/").free_mib == 110


def test_without_cgroups_nothing_is_limited_by_them(tmp_path: Path) -> None:
    cgroup = Cgroup(tmp_path / "nothing", "/")

    assert (cgroup.cores, cgroup.free_mib, cgroup.busy_seconds) == (math.inf, math.inf, None)
    assert usable_cores(cgroup) == len(os.sched_getaffinity(0))


def run(folder: Path, pid: int, parent: int, ticks: int = 100, began: int = 7) -> None:
    """Write what the kernel says of a process."""
    fields = f"{pid} (a) b) S {parent} " + "0 " * 9 + f"{ticks} " + "0 " * 7 + f"{began} 0\n"
    write(folder / str(pid), stat=fields)
    (folder / str(pid) / "smaps_rollup").write_text("x\nPss:      2048 kB\n")


def test_processes_are_counted_with_all_that_they_have_started(tmp_path: Path) -> None:
    for pid, parent in ((10, 1), (11, 10), (12, 11), (20, 1)):
        run(tmp_path, pid, parent)
    processes = Processes(10, tmp_path)
    processes.cores()
    for pid, parent in ((10, 1), (11, 10), (12, 11), (20, 1)):
        run(tmp_path, pid, parent, ticks=200)

    assert processes.cores() > 0
    assert processes.pss_mib() == 6


def test_processes_count_when_the_one_that_has_started_them_has_ended(tmp_path: Path) -> None:
    for pid, parent in ((10, 1), (11, 10), (12, 11), (13, 11), (20, 1)):
        run(tmp_path, pid, parent)
    processes = Processes(10, tmp_path)
    processes.cores()
    shutil.rmtree(tmp_path / "11")  # a fork server
    run(tmp_path, 12, 1)
    run(tmp_path, 13, 1, began=9)  # another program's, with the same id
    run(tmp_path, 14, 12)

    for _ in range(2):
        processes.cores()
        assert processes.pss_mib() == 6  # of 10, 12 and 14


def test_memory_of_a_process_is_measured_more_and_more_seldom(tmp_path: Path) -> None:
    run(tmp_path, 10, 1)
    processes = Processes(10, tmp_path)
    measured = []
    for second in range(100):
        processes.cores()
        smaps = tmp_path / "10" / "smaps_rollup"
        smaps.write_text(f"Pss:      {(second + 1) * 1024} kB\n")
        if processes.pss_mib(now=float(second)) == second + 1:
            measured.append(second)
    run(tmp_path, 11, 10)
    processes.cores()
    smaps.write_text("Pss:      1024 kB\n")

    assert measured == [0, 1, 3, 7, 15, 31, 61, 91]
    assert processes.pss_mib(now=100.0) == 92 + 2  # what is new is measured at once
    assert processes.pss_mib() == 1 + 2


def test_this_machine_can_be_measured() -> None:
    processes = Processes()
    processes.cores()

    assert processes.pss_mib() > 5
    assert 0 < available_mib() < math.inf
    assert busy_seconds() > 0
