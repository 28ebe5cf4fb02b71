#!/usr/bin/env python3
"""Inject a fault into a component of a running session, and see it recover.

In another terminal, start a session that accepts faults:

  python -m supervisor --probes

then:

  python scripts/inject.py speaker raise       its handler raises
  python scripts/inject.py microphone SIGKILL  a signal, from outside
  python scripts/inject.py --list              sessions, components and faults

exit codes: 0 it is open again (or it went on), 1 it did not recover in time, 2 wrong usage
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from messages import FAULTS, Inject, Status, StatusRequest, decode
from messages.exit_codes import EXIT_OK, EXIT_USAGE
from messages.hints import rtvoice
from messages.transport.channel import Channel

EXIT_DOWN = 1
"""The component is not open again after the fault."""
_NONE = f"no session accepts faults: start one with {rtvoice('--probes')}"
_NOTICED_S = 1.0
"""Time after which a component that still works has survived a fault such as a full disk."""
_SURVIVED = ("disk-full", "disk-free", "disconnect")
"""Faults with which a component goes on."""


class Probe:
    """A connection to the socket at which a session accepts faults."""

    def __init__(self, path: Path) -> None:
        self.pid = int(path.parent.name.split("-")[1])
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(5.0)
        connection.connect(str(path))
        self._channel = Channel(connection)
        self._call_ids = itertools.count(1)

    def status(self) -> dict[str, dict[str, Any]]:
        """Return the state of each component; see `messages.Status`."""
        self._channel.write(StatusRequest(next(self._call_ids)))
        answer = decode(self._channel.read())
        assert isinstance(answer, Status)
        return answer.components

    def inject(self, component: str, fault: str) -> None:
        """Inject a fault into a component."""
        self._channel.write(Inject(component, fault))


def sessions() -> list[Probe]:
    """Return the running sessions that accept faults, the newest first."""
    paths = sorted(
        Path(tempfile.gettempdir()).glob("rtvoice-*-*/probe"),
        key=lambda path: path.stat().st_mtime,
        reverse=True,
    )
    found = []
    for path in paths:
        with contextlib.suppress(OSError):  # the session has ended, or belongs to another user
            found.append(Probe(path))
    return found


def main() -> int:
    """Run the command line; return the exit code."""
    options = _parse()
    probes = [probe for probe in sessions() if options.session in (None, probe.pid)]
    if options.list:
        _list(probes)
        return EXIT_OK
    if not probes:
        return _usage(_NONE)
    if options.component is None or options.fault is None:
        return _usage("name a component and a fault; --list shows them")
    components = probes[0].status()
    if options.component not in components:
        names = ", ".join(components)
        return _usage(f"{options.component!r} is not a component; give one of {names}")
    if options.fault not in FAULTS and options.fault not in signal.Signals.__members__:
        faults = ", ".join(FAULTS)
        return _usage(f"{options.fault!r} is not a fault; give one of {faults}, or a signal name")
    return _break(probes[0], options.component, options.fault, options.timeout)


def _break(probe: Probe, component: str, fault: str, timeout_s: float) -> int:
    before = probe.status()[component]
    started = time.monotonic()
    probe.inject(component, fault)
    now = before
    while time.monotonic() - started < timeout_s:
        time.sleep(0.005)
        now = probe.status()[component]
        if now["restarts"] > before["restarts"]:
            ms = (time.monotonic() - started) * 1000
            process = f"process {before['pid']} -> {now['pid']}"
            if now["pid"] == before["pid"]:
                process = f"same process, {now['pid']}"
            print(f"{component}: {fault}; open again after {ms:.0f} ms ({process})")
            return EXIT_OK
        gone_on = now["state"] == "open" and now["incarnation"] == before["incarnation"]
        if gone_on and fault in _SURVIVED and time.monotonic() - started > _NOTICED_S:
            print(f"{component}: {fault}; it goes on ({now['pid']})")
            return EXIT_OK
    print(f"{component}: {fault}; after {timeout_s:g} s it is {now['state']}", file=sys.stderr)
    return EXIT_DOWN


def _list(probes: list[Probe]) -> None:
    for probe in probes:
        print(f"session of program {probe.pid}")
        for name, entry in probe.status().items():
            print(f"  {name:12} {entry['state']:8} process {entry['pid']}")
    if not probes:
        print(_NONE)
    print("faults")
    for name, text in FAULTS.items():
        print(f"  {name:15} {text}")
    print("  SIGKILL, ...    any signal")


def _usage(text: str) -> int:
    print(text, file=sys.stderr)
    return EXIT_USAGE


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("component", nargs="?", help="its name, such as speaker")
    add("fault", nargs="?", help="see --list")
    add("--list", action="store_true", help="show sessions, components and faults")
    add(
        "--session",
        type=int,
        metavar="PID",
        help="process id of the program of a session; else the newest",
    )
    add("--timeout", type=float, default=10.0, metavar="S", help="seconds to wait (10)")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (EOFError, OSError) as error:
        sys.exit(f"the session has ended meanwhile ({error})")
