"""``rtvoice fleet status``, ``drain``, ``move`` and ``stop``: what an operator asks a fleet."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from textwrap import fill
from typing import Any

import msgspec

from messages import ConfigurationError, RtvoiceError
from messages.exit_codes import EXIT_KILLED, EXIT_OK
from messages.hints import rtvoice
from rtvoice.command.parser import Parser
from rtvoice.command.printing import OutputError, writing_to
from rtvoice.command.serve import complain, say
from rtvoice.fleet.engine import EngineError, Fleet
from rtvoice.fleet.opening import open_store
from rtvoice.fleet.owner import is_dead, is_here, pid_of
from rtvoice.fleet.store import FRESH_S, HostRow, SessionRow, StoreError

__all__ = ["ORDERS", "end_hosts", "obey"]

_DRAIN_HELP = (
    "Empty hosts: each moves its conversations to others at pauses in speech, and ends. It is "
    "started again with what is installed then: so a fleet is upgraded."
)
_LOOK_S = 0.2
_MOVE_S = 60.0
_BACK_S = 60.0
"""How long a host that was drained may take until it is there again."""


def obey(argv: Sequence[str]) -> int:
    """Run one of `ORDERS`; return the exit code."""
    add_options, order, text = ORDERS[argv[0]]
    parser = Parser(prog=rtvoice(f"fleet {argv[0]}"), description=fill(text, 100))
    parser.add_argument("--store", required=True, metavar="URL", help="the store of the fleet")
    add_options(parser)
    options = parser.parse_args(argv[1:])
    try:
        fleet = Fleet(open_store(options.store, makes=False))
        try:
            asyncio.run(order(fleet, options))
        finally:
            fleet.store.close()
    except (RtvoiceError, OutputError) as error:
        return complain(str(error))
    except KeyboardInterrupt:
        return EXIT_KILLED
    return EXIT_OK


async def _hosts(fleet: Fleet) -> list[HostRow]:
    return await asyncio.to_thread(fleet.store.hosts)


async def _session(fleet: Fleet, session_id: str) -> SessionRow:
    """Return a conversation that has not ended.

    Raises:
        ConfigurationError: There is none, or it has ended.
    """
    row = await fleet.status(session_id)
    if row is None:
        raise ConfigurationError(f"there is no conversation {session_id}")
    if row.ended is not None:
        raise ConfigurationError(f"conversation {session_id} has ended: {row.ended}")
    return row


# -- status -----------------------------------------------------------------------------------


def _status_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sessions", action="store_true", help="list each conversation too")
    parser.add_argument("--json", action="store_true", help="all of it, as JSON")


async def _status(fleet: Fleet, options: argparse.Namespace) -> None:
    hosts = await _hosts(fleet)
    rows = await asyncio.to_thread(fleet.store.live)
    write = writing_to(sys.stdout)
    if options.json:
        found = {
            "hosts": [{**msgspec.to_builtins(each), "state": _state(each)} for each in hosts],
            "sessions": [_described(row, hosts) for row in rows],
        }
        write(msgspec.json.format(msgspec.json.encode(found)).decode() + "\n")
        return
    if hosts:
        head = ("host", "url", "conversations", "state", "reported")
        lines = [
            (each.name, each.url, str(each.sessions), _state(each), f"{each.age_s:.1f} s ago")
            for each in hosts
        ]
        write(_table(head, lines))
    else:
        write("no host has reported itself\n")
    held = sum(row.is_held for row in rows)
    write(f"{held} conversations are held, {len(rows) - held} are between two hosts\n")
    if options.sessions and rows:
        described = [_described(row, hosts) for row in rows]
        held_by = [(d["id"], d["host"] or "-", str(d["epoch"]), d["state"]) for d in described]
        write(_table(("conversation", "host", "epoch", "state"), held_by))


def _state(host: HostRow) -> str:
    if is_dead(host.owner):
        return "dead"
    if host.age_s > FRESH_S:
        return "silent"
    return "draining" if host.draining else "running" if host.room else "full"


def _described(row: SessionRow, hosts: Sequence[HostRow]) -> dict[str, Any]:
    url = next((each.url for each in hosts if each.owner == row.owner), None)
    return {
        "id": row.id,
        "host": row.host,
        "url": url if row.is_held else None,
        "epoch": row.epoch,
        "state": "held" if row.is_held else "between two hosts",
    }


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
    if sys.stdout.isatty():
        lines[0] = f"\x1b[1m{lines[0]}\x1b[0m"
    return "".join(f"{line}\n" for line in lines)


# -- drain ------------------------------------------------------------------------------------


def _drain_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("hosts", nargs="*", metavar="HOST", help="their names")
    parser.add_argument(
        "--all", action="store_true", help="all, one after the other, each once the last is back"
    )


async def _drain(fleet: Fleet, options: argparse.Namespace) -> None:
    known = {each.name: each for each in await _hosts(fleet)}
    if options.all == bool(options.hosts):
        raise ConfigurationError("name hosts, or give --all for each after the other")
    names = list(known) if options.all else options.hosts
    for name in names:
        if name not in known:
            there = ", ".join(known) or "none"
            raise ConfigurationError(f"there is no host {name}; there are: {there}")
    write = writing_to(sys.stdout)
    for name in names:
        await _drain_one(fleet, known[name], write)
        if options.all:
            await _wait_until_back(fleet, name)
            write(f"{name} is back\n")


async def _drain_one(fleet: Fleet, host: HostRow, write: Callable[[str], None]) -> None:
    others = [each for each in await fleet.hosts() if each.name != host.name and each.room]
    if not others and host.sessions:
        say(f"no other host has a place: conversations of {host.name} go on to their end there")
    await fleet.drain(host)
    left = -1
    while (now := await _same(fleet, host)) is not None:
        if now.sessions != left:
            left = now.sessions
            write(f"{host.name} drains: {left} conversations\n")
        await asyncio.sleep(_LOOK_S)
    write(f"{host.name} is empty and has ended\n")


async def _same(fleet: Fleet, host: HostRow) -> HostRow | None:
    """Return what a host has reported last; None: it has ended."""
    if is_dead(host.owner):
        return None
    hosts = await _hosts(fleet)
    now = next((each for each in hosts if each.owner == host.owner), None)
    if is_here(host.owner):  # it is forgotten a moment before its process ends
        return now or msgspec.structs.replace(host, sessions=0)
    return now if now is not None and now.age_s < FRESH_S else None


async def _wait_until_back(fleet: Fleet, name: str) -> None:
    """Wait until a host is there again.

    Raises:
        EngineError: It takes too long; the other hosts should stay.
    """
    until = time.monotonic() + _BACK_S
    while not any(each.name == name for each in await fleet.hosts()):
        if time.monotonic() > until:
            raise EngineError(
                f"{name} does not come back within {_BACK_S:g} s; the other hosts are not drained"
            )
        await asyncio.sleep(_LOOK_S)


async def end_hosts(fleet: Fleet, names: Sequence[str], *, at_once: bool) -> None:
    """Let hosts go on until their conversations have ended; then they end.

    Args:
        fleet: The fleet.
        names: Those of the hosts.
        at_once: Whether to end the conversations that there are.
    """
    going = [each for each in await _hosts(fleet) if each.name in names]
    for host in going:
        for _ in range(2 if at_once else 1):
            await _tell_to_end(fleet, host)
    left = -1
    while True:
        now = [row for each in going if (row := await _same(fleet, each)) is not None]
        if not now:
            return
        if (count := sum(each.sessions for each in now)) != left and count:
            say(f"draining: {count} conversations on {len(now)} hosts")
        left = count
        await asyncio.sleep(_LOOK_S)


async def _tell_to_end(fleet: Fleet, host: HostRow) -> None:
    if await _same(fleet, host) is None:
        return
    try:
        await fleet.drain(host, to_end=True)
    except EngineError as error:
        say(str(error))
        if is_here(host.owner) and not is_dead(host.owner):
            say(f"{host.name} is killed")
            with contextlib.suppress(OSError):
                os.kill(pid_of(host.owner), signal.SIGKILL)


# -- one conversation -------------------------------------------------------------------------


def _id_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="the conversation")


async def _move(fleet: Fleet, options: argparse.Namespace) -> None:
    row = await _session(fleet, options.id)
    if not await fleet.move(options.id):
        raise EngineError(f"conversation {options.id} is between two hosts; try again")
    until = time.monotonic() + _MOVE_S
    while (await _session(fleet, options.id)).epoch == row.epoch:
        if time.monotonic() > until:
            raise EngineError(f"no host has taken conversation {options.id} so far")
        await asyncio.sleep(_LOOK_S)
    moved = await _session(fleet, options.id)
    writing_to(sys.stdout)(f"conversation {options.id} goes on at {moved.host}\n")


async def _stop(fleet: Fleet, options: argparse.Namespace) -> None:
    await _session(fleet, options.id)
    if not await fleet.stop(options.id):
        raise EngineError(f"conversation {options.id} is between two hosts; try again")
    until = time.monotonic() + _MOVE_S
    while (row := await fleet.status(options.id)) is not None and row.ended is None:
        if time.monotonic() > until:
            raise StoreError(f"conversation {options.id} has not ended so far")
        await asyncio.sleep(_LOOK_S)
    writing_to(sys.stdout)(f"conversation {options.id} has ended\n")


_AddOptions = Callable[[argparse.ArgumentParser], None]
_Order = Callable[[Fleet, argparse.Namespace], Coroutine[Any, Any, None]]
ORDERS: dict[str, tuple[_AddOptions, _Order, str]] = {
    "status": (_status_options, _status, "Show the hosts of a fleet, and what they hold."),
    "drain": (
        _drain_options,
        _drain,
        _DRAIN_HELP,
    ),
    "move": (_id_option, _move, "Move a conversation to another host, at a pause in speech."),
    "stop": (_id_option, _stop, "End a conversation in order."),
}
"""What a first argument may be: its options, what it does, its help."""
