"""Faults on command, for tests of what the supervisor does about them (`Settings.probes`)."""

from __future__ import annotations

import os
import time

__all__ = ["commit"]


class InjectedError(Exception):
    """What a component raises that is told to raise."""


def commit(fault: str) -> None:
    """Do what ``fault`` names, on the actor's thread.

    Raises:
        InjectedError: told to raise.
        ValueError: no such fault.
    """
    if fault == "raise":
        raise InjectedError("injected")
    if fault == "system-exit":
        raise SystemExit(3)
    if fault == "exit":
        os._exit(7)
    if fault == "hang":
        while True:
            time.sleep(3600)
    raise ValueError(f"no fault is named {fault!r}: raise, system-exit, exit, hang")
