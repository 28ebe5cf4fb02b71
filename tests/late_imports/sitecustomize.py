"""Delays what a component imports after it has opened, as a slow disk does; see the tests of it.

Python imports this in every process that has its folder in ``PYTHONPATH``. On the thread of the
actor each import takes 4 s, which is longer than a handler may; on each other thread the first one
does. The imports are written to the file that ``LATE_IMPORTS`` names.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

_DELAY_S = 4.0


class _LateImports:
    """An importer that finds nothing, and takes its time."""

    def __init__(self, component: str, log: str) -> None:
        self._component = component
        self._log = log
        self._is_open = False
        self._watches = False
        self._seen: set[str] = set()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        host = getattr(sys.modules.get("actors.host"), "Host", None)
        if host is not None and not self._watches:
            self._watches = True
            host.ready = self._then_open(host.ready)
        if not self._is_open:
            return
        thread = threading.current_thread().name
        key = name if thread == self._component else thread
        if key not in self._seen:
            self._seen.add(key)
            with open(self._log, "a", encoding="utf-8") as log:  # noqa: PTH123 - it imports nothing
                log.write(f"{self._component} {thread} {name}\n")
            time.sleep(_DELAY_S)

    def _then_open(self, ready: Callable[[Any], None]) -> Callable[[Any], None]:
        @functools.wraps(ready)
        def report(host: Any) -> None:
            self._is_open = True
            ready(host)

        return report


if "actors" in sys.orig_argv and "LATE_IMPORTS" in os.environ:
    sys.meta_path.insert(0, _LateImports(sys.orig_argv[-1], os.environ["LATE_IMPORTS"]))
