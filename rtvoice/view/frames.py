"""A view for a screen elsewhere, as plain data: the whole state, and then what has changed."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Any

import msgspec

from messages import Event, Message
from rtvoice.view.state import Entry
from rtvoice.view.view import View

__all__ = ["Frames"]

_ENTRIES = 500
"""So many entries, the newest, are in the whole state."""
_EVENTS = 500
"""So many events, the newest, are kept for the whole state."""
_TALK = ("user", "assistant")


class Frames:
    """Turns a `View` into data for a screen elsewhere. It has no clock and no output.

    ``entries`` are new or changed entries, in their order, each with ``after``, the id of the entry
    before it (empty: it is the first); ``removed`` are ids of entries that are gone. The other keys
    are sections, each there if it has changed: ``state``, ``levels``, ``session``, and with
    ``inside`` also ``processes``, ``latency``, ``counts``, ``network``, ``usage`` and ``events``
    (those that are new). Fields with their default value are left out of entries and processes.

    Args:
        view: What is shown.
        inside: Whether tools, processes, latency, cost and events are shown too.
    """

    def __init__(self, view: View, *, inside: bool) -> None:
        self._view = view
        self._inside = inside
        self._sent: dict[str, Any] = {}
        """The sections as they were given last."""
        self._events: collections.deque[dict[str, Any]] = collections.deque(maxlen=_EVENTS)
        self._new: list[dict[str, Any]] = []

    def note(self, message: Message, now_s: float) -> None:
        """Take a message for the list of events, if it is one."""
        if self._inside and isinstance(message, Event):
            fields = msgspec.to_builtins(msgspec.structs.asdict(message))
            name = message.event or type(message).__name__
            event = {"event": name, "t": round(now_s, 3), "fields": fields}
            self._events.append(event)
            self._new = [*self._new[1 - _EVENTS :], event]

    def whole(self) -> dict[str, Any]:
        """Return the whole state; from now on `changes` returns what differs from it."""
        self._view.changes()
        self._new = []
        self._sent = dict(self._sections())
        shown = list(self._entries())[-_ENTRIES:]
        frame = {"whole": True, "entries": [_described(*each) for each in shown], **self._sent}
        return {**frame, "events": list(self._events)} if self._inside else frame

    def changes(self, *, levels: bool = True) -> dict[str, Any]:
        """Return what has changed; empty: nothing has.

        Args:
            levels: Whether the levels count as a change.
        """
        frame: dict[str, Any] = {}
        changed, removed = self._view.changes()
        if changed:
            ids = {entry.id for _, entry in changed}
            found = [_described(*each) for each in self._entries() if each[1].id in ids]
            frame |= {"entries": found} if found else {}
        if removed:
            frame["removed"] = removed
        for name, section in self._sections():
            if section != self._sent.get(name) and (levels or name != "levels"):
                frame[name] = self._sent[name] = section
        if self._new:
            frame["events"], self._new = self._new, []
        return frame

    def _entries(self) -> Iterator[tuple[str, Entry]]:
        """Yield the entries that are shown, each with the id of the one before it."""
        before = ""
        for entry in self._view.entries:
            if self._inside or entry.kind in _TALK:
                yield before, entry
                before = entry.id

    def _sections(self) -> Iterator[tuple[str, Any]]:
        view = self._view
        yield "state", _state(view)
        yield "levels", {"input": round(view.input_dbfs), "output": round(view.output_dbfs)}
        yield "session", _session(view, inside=self._inside)
        if not self._inside:
            return
        yield "processes", [msgspec.to_builtins(each) for each in view.processes.values()]
        waits = view.waits
        yield (
            "latency",
            {
                "last": None if waits.last is None else msgspec.structs.asdict(waits.last),
                "p50": waits.percentile(50),
                "p95": waits.percentile(95),
                "answers": len(waits),
            },
        )
        yield "counts", msgspec.structs.asdict(view.counts)
        echo = view.echo
        known = None if echo is None else {"state": echo.state, "erle_db": round(echo.erle_db)}
        yield "network", {"round_trip_ms": view.round_trip_ms, "echo": known}
        yield (
            "usage",
            {
                "tokens": msgspec.to_builtins(view.tokens),
                "dollars": view.dollars,
                "budget_percent": view.budget_percent,
            },
        )


def _described(after: str, entry: Entry) -> dict[str, Any]:
    return {"after": after, **msgspec.to_builtins(entry)}


def _state(view: View) -> dict[str, Any]:
    ended = view.summary.reason if view.summary is not None else ""
    return {
        "phase": view.phase,
        "muted": view.muted,
        "volume": view.volume,
        "speed": view.speed,
        "listens_while_speaking": view.listens_while_speaking,
        "failure": view.failure,
        "ended": ended,
    }


def _session(view: View, *, inside: bool) -> dict[str, Any]:
    started = view.started
    if started is None:
        return {}
    shown: dict[str, Any] = {"push_to_talk": started.push_to_talk, "sandbox": started.sandbox}
    if started.sandbox:
        from rtvoice.sandbox.phrases import printed_list

        shown["phrases"] = list(printed_list())
    return {**shown, "server": started.server} if inside else shown
