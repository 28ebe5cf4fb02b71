"""What can be found out about a process from outside."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from messages.transport.spawning import waited_s
from tests.rig import until


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="only Linux tells")  # noqa: PTH110
def test_a_process_that_shares_its_processor_waits_for_it() -> None:
    spin = [sys.executable, "-c", "import os\nos.sched_setaffinity(0, {0})\nwhile True: pass"]
    both = [subprocess.Popen(spin) for _ in range(2)]
    try:
        until(lambda: all(waited_s(process.pid) > 0.1 for process in both), "nobody waited")
    finally:
        for process in both:
            process.kill()
            process.wait()


def test_of_a_process_that_is_gone_nothing_is_known() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()

    assert waited_s(process.pid) == 0.0
