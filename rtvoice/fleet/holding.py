"""The conversations that a host holds: their leases, and their journals on the way to the store.

Two threads, each with a connection of its own: nothing that is written may delay a renewal.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from actors.lease import Lease
from messages import AskToRun
from messages.exit_codes import EXIT_BUG
from rtvoice.fleet.store import Fenced, Store, StoreError

__all__ = ["SAFE", "Held", "Holding"]

_logger = logging.getLogger("rtvoice.fleet")

SAFE = 0.8
"""Share of a lease after which the owner stops by itself, counted from before the last renewal was
asked for: its clock and that of the store may differ in speed, not by a fifth."""
_BEGUN = "ToolBegun"
"""The kind of the line that says that a tool call is about to be run; history passes it over."""
_SHIP_S = 0.05
"""Interval in which what was written to the journals is taken to the store."""


class _Batch(NamedTuple):
    """Lines for the store."""

    lines: list[bytes]
    size: int
    """How many bytes of the journal these are."""
    begun: str
    """The id of the tool call that is recorded; empty: none is."""


class Held:
    """A conversation that this host holds.

    Args:
        session_id: Its id.
        epoch: That of the lease.
        folder: A folder of its own, on this machine.
        records: The lines of the journal that are in the store, and in the file.
    """

    def __init__(
        self, session_id: str, epoch: int, folder: Path, records: Sequence[bytes] = ()
    ) -> None:
        self.session_id = session_id
        self.epoch = epoch
        self.folder = folder
        self.journal = folder / "journal"
        self.lease = Lease(folder / "lease", create=True)
        self.until_ns = 0
        """``time.monotonic_ns()`` until which the lease is good."""
        self.records = len(records)
        """How many lines are in the store."""
        self.begun_before = frozenset(_begun_in(records))
        """Ids of the tool calls that an earlier host has begun."""
        self._begun: set[str] = set()
        """Ids of those that this host has recorded."""
        self.is_over = False
        """Whether it is not held any more: its end is in the store, or its lease is lost."""
        self._shipping = threading.Lock()
        self._batch: _Batch | None = None
        """What is being written to the store. It may be there although that has failed, so the same
        is written again before anything else is."""
        self._read = self.journal.stat().st_size if self.journal.exists() else 0
        self._state = b""

    def extend(self, until_ns: int) -> None:
        """Let it send until then; 0: nothing any more."""
        self.until_ns = until_ns
        self.lease.extend(until_ns)

    def ship(self, store: Store, call: AskToRun | None = None) -> None:
        """Take to the store what was written since the last time.

        Args:
            store: The store.
            call: A call of a tool to record, whether the journal has it yet or not.

        Raises:
            Fenced: The lease is lost.
            StoreError: The store cannot be reached; the next time takes this too.
        """
        with self._shipping:
            self._append(store)
            lines, size = self._new_lines()
            begun = ""
            if call is not None and call.call_id not in self._begun | self.begun_before:
                fields = {name: getattr(call, name) for name in call.__struct_fields__}
                begun = call.call_id
                lines += [_line("ToolCall", fields), _line(_BEGUN, {"call_id": begun})]
            self._batch = _Batch(lines, size, begun)
            self._append(store)
            state = self._read_state()
            if state and state != self._state:
                store.save(self.session_id, self.epoch, state)
                self._state = state

    def _append(self, store: Store) -> None:
        """Write the batch; with an error it stays."""
        if (batch := self._batch) is None:
            return
        if batch.lines:
            store.append(self.session_id, self.epoch, self.records + 1, batch.lines)
        self.records += len(batch.lines)
        self._read += batch.size
        if batch.begun:
            self._begun.add(batch.begun)
        self._batch = None

    def _new_lines(self) -> tuple[list[bytes], int]:
        """Return the whole lines of the journal that are not in the store, and their size."""
        try:
            with self.journal.open("rb") as file:
                file.seek(self._read)
                data = file.read()
        except FileNotFoundError:
            return [], 0
        size = data.rfind(b"\n") + 1
        return data[:size].split(b"\n")[:-1], size

    def _read_state(self) -> bytes:
        with contextlib.suppress(OSError):
            return self.journal.with_name("journal.state").read_bytes()
        return b""


def _line(what: str, fields: Mapping[str, Any]) -> bytes:
    """Return a line as `actors.history.Journal` writes them."""
    text = msgspec.json.encode({"what": what, **fields})
    return b"%08x %s" % (zlib.crc32(text), text)


def _begun_in(records: Iterable[bytes]) -> Iterator[str]:
    """Yield the ids of the tool calls that were begun."""
    for line in records:
        if _BEGUN.encode() in line:
            with contextlib.suppress(msgspec.DecodeError, KeyError, TypeError):
                record = msgspec.json.decode(line.partition(b" ")[2])
                if record["what"] == _BEGUN:
                    yield record["call_id"]


class Holding:
    """Renews the leases of a host, and takes journals to the store.

    Args:
        open_store: Opens a connection to the store.
        owner: This process.
        ttl_s: How long a lease is.
        lost: Called on a thread for each conversation whose lease is lost.
    """

    def __init__(
        self,
        open_store: Callable[[], Store],
        owner: str,
        ttl_s: float,
        lost: Callable[[Held], None],
    ) -> None:
        self.owner = owner
        self._open_store = open_store
        self._ttl_s = ttl_s
        self._on_lost = lost
        self._held: dict[str, Held] = {}
        self._expected: set[str] = set()
        """Those that are being taken."""
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._is_cut_off = False
        """Whether it was logged that the store cannot be reached."""
        self._threads = [
            threading.Thread(target=self._run, args=(work, wait_s), name=name, daemon=True)
            for name, work, wait_s in (
                ("leases", self._renew, ttl_s / 5),
                ("journals", self._ship, min(_SHIP_S, ttl_s / 10)),
            )
        ]

    def start(self) -> None:
        """Begin to renew and to ship."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Renew nothing any more."""
        self._over.set()
        for thread in self._threads:
            thread.join(self._ttl_s)

    def good_until(self, asked_ns: int) -> int:
        """Return until when a lease is good that was asked for at a time."""
        return asked_ns + int(SAFE * self._ttl_s * 1e9)

    def add(self, held: Held, asked_ns: int) -> None:
        """Hold a conversation whose lease was asked for at a time (``time.monotonic_ns()``)."""
        held.extend(self.good_until(asked_ns))
        with self._lock:
            self._held[held.session_id] = held

    def expect(self, session_id: str) -> None:
        """Let a conversation be this host's in the store that is not held yet."""
        with self._lock:
            self._expected.add(session_id)

    def expect_no_more(self, session_id: str) -> None:
        """Expect a conversation no longer: it is held by now, or not this host's."""
        with self._lock:
            self._expected.discard(session_id)

    def remove(self, held: Held) -> None:
        """Hold a conversation no longer."""
        held.is_over = True
        held.extend(0)
        with self._lock:
            if self._held.get(held.session_id) is held:
                del self._held[held.session_id]

    @property
    def all(self) -> list[Held]:
        """The conversations that are held."""
        with self._lock:
            return list(self._held.values())

    def lose(self, held: Held) -> None:
        """Give up a conversation that somebody else may hold."""
        if not held.is_over:
            self.remove(held)
            _logger.warning("the lease of conversation %s is lost", held.session_id)
            self._on_lost(held)

    def _run(self, work: Callable[[Store], None], wait_s: float) -> None:
        store: Store | None = None
        while not self._over.wait(wait_s):
            try:
                store = store or self._open_store()
                work(store)
            except StoreError as error:
                self._unreachable(error)
            except Exception:
                # Without this thread nothing is renewed or kept: the host dies, others go on.
                _logger.exception("the thread %s has failed", threading.current_thread().name)
                os._exit(EXIT_BUG)
            self.look()
        if store is not None:
            store.close()

    def _reachable(self) -> None:
        if self._is_cut_off:
            self._is_cut_off = False
            _logger.warning("the store can be reached again")

    def _unreachable(self, error: StoreError) -> None:
        if not self._is_cut_off:
            self._is_cut_off = True
            _logger.warning("the store cannot be reached: %s", error)

    def _renew(self, store: Store) -> None:
        held, asked_ns = self.all, time.monotonic_ns()
        if not held:
            return
        renewed = store.renew(self.owner, self._ttl_s)
        self._reachable()
        for each in held:
            if renewed.get(each.session_id) == each.epoch:
                if not each.is_over:
                    each.extend(self.good_until(asked_ns))
            else:
                self.lose(each)
        with self._lock:
            known = self._held.keys() | self._expected
        for session_id in renewed.keys() - known:
            # It was acquired, and the answer of the store was lost: others shall have it.
            store.release(session_id, renewed[session_id])

    def _ship(self, store: Store) -> None:
        failed = 0
        for held in self.all:
            if held.is_over:
                continue
            try:
                held.ship(store)
            except Fenced:
                self.lose(held)
            except OSError as error:
                _logger.error("the journal of %s cannot be read: %s", held.session_id, error)
                self.lose(held)
            except StoreError:
                failed += 1
                if failed > 1:  # it is not the one conversation that the store refuses
                    raise

    def look(self) -> None:
        """Give up what could not be renewed in time; nothing is sent since then."""
        now_ns = time.monotonic_ns()
        for held in self.all:
            if now_ns > held.until_ns:
                self.lose(held)
