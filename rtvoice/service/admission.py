"""Decides whether one more conversation fits: a table of places, without I/O, clock or await."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from rtvoice.service.errors import Busy, Draining

__all__ = ["Admission", "Cost", "Limits", "Load", "Place"]

State = Literal["reserved", "starting", "running"]

_START_FACTOR = 3.0
"""A starting conversation counts as this many: a start takes as much CPU as 4 s of speech."""
_SMOOTHING = 0.2
"""Weight of a new measurement in the moving average of what a conversation costs."""
_RETRY_S = {"sessions": 5.0, "cpu": 2.0, "memory": 5.0, "lag": 1.0, "tokens": 10.0}
"""What a refused caller is advised, by reason."""


class Limits(NamedTuple):
    """What a service may use."""

    cores: float
    """Usable cores."""
    parallel: int
    """How many conversations may start at once."""
    max_sessions: int | None = None
    cpu_limit: float | None = 0.75
    """Share of the cores; None: no limit."""
    lag_limit_ms: float | None = 50.0
    """Lag of the event loop; None: no limit."""
    tokens_per_minute: int | None = None


class Load(NamedTuple):
    """A measurement."""

    busy_cores: float = 0.0
    """Cores in use on this machine or in this container, by any program."""
    tree_cores: float = 0.0
    """Of these, by our process and those that it has started."""
    pss_mib: float = 0.0
    """Memory of these processes; what they share is counted once."""
    free_mib: float = math.inf
    """Memory that they may still take."""
    lag_ms: float = 0.0
    """Lag of the event loop: how much later than asked it calls."""
    tokens: int = 0
    """Tokens of the last minute."""
    tokens_left: int | None = None
    """Tokens that the server still grants in this minute; None: it has not said."""


class Cost(NamedTuple):
    """What one more conversation costs."""

    cores: float = 0.05
    """The first guess: both sides talk."""
    pss_mib: float = 46.0
    tokens_per_minute: float = 0.0


class Place:
    """A reserved place for one conversation; `release` gives it back."""

    def __init__(self, admission: Admission) -> None:
        self.state: State = "reserved"
        self._admission = admission

    def release(self) -> None:
        """Give the place back. Later calls do nothing."""
        self._admission.forget(self)


class Admission:
    """The places of a service. All calls are made on one thread.

    `take` says yes and reserves in the same call, so that two callers never get one place.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.cost = Cost()
        self.load = Load()
        self.draining = False
        self._places: set[Place] = set()
        self._unmeasured = 0
        """How many places were taken since the load was measured last."""
        self._idle_mib = 0.0
        """Memory of the program without a conversation; 0: not measured yet."""

    def take(self) -> Place:
        """Reserve a place.

        Raises:
            Busy: There is none.
            Draining: No new conversation is taken.
        """
        if self.draining:
            raise Draining
        if (reason := self.shortage()) is not None:
            raise Busy(reason, _RETRY_S[reason])
        place = Place(self)
        self._places.add(place)
        self._unmeasured += 1
        return place

    def forget(self, place: Place) -> None:
        """Free a place."""
        if place in self._places:
            self._places.discard(place)
            if place.state != "running" and self._unmeasured:
                self._unmeasured -= 1

    def count(self, state: State | None = None) -> int:
        """Return how many places are taken, of those in a state or of all."""
        return sum(1 for place in self._places if state in (None, place.state))

    def shortage(self) -> str | None:
        """Return what is too short for one more conversation; None: it fits."""
        limits, load, cost = self.limits, self.load, self.cost
        if limits.max_sessions is not None and len(self._places) >= limits.max_sessions:
            return "sessions"
        if limits.lag_limit_ms is not None and load.lag_ms > limits.lag_limit_ms:
            return "lag"
        if limits.cpu_limit is not None:
            if self._cores_with_one_more() > limits.cpu_limit * limits.cores:
                return "cpu"
        if (self._unmeasured + 1) * cost.pss_mib > load.free_mib:
            return "memory"
        return "tokens" if self._lacks_tokens() else None

    def _cores_with_one_more(self) -> float:
        """Return the cores in use once one more starts: as measured or as expected, the larger."""
        running = self.count("running")
        coming = len(self._places) - running + 1
        fresh = self._unmeasured + 1
        expected = running + self._weight(coming)
        return max(
            expected * self.cost.cores, self.load.busy_cores + self._weight(fresh) * self.cost.cores
        )

    def _weight(self, coming: int) -> float:
        """Return how much those that are not running yet count: only some start at once."""
        return coming + (_START_FACTOR - 1) * min(coming, self.limits.parallel)

    def _lacks_tokens(self) -> bool:
        need = self.cost.tokens_per_minute
        most, load = self.limits.tokens_per_minute, self.load
        if most is not None and load.tokens + max(need, 1) > most:
            return True
        return load.tokens_left is not None and load.tokens_left < max(need, 1)

    def measured(self, load: Load) -> None:
        """Take a measurement, and what a conversation costs from it."""
        self.load = load
        running = self.count("running")
        is_steady = running == len(self._places)
        self._unmeasured = len(self._places) - running
        knows_pss = load.pss_mib > 0
        if not self._places and knows_pss:
            self._idle_mib = load.pss_mib
        elif is_steady and running:
            cost, pss_mib = self.cost, self.cost.pss_mib
            if knows_pss:
                each_mib = max(0.0, load.pss_mib - self._idle_mib) / running
                pss_mib = _mean(pss_mib, each_mib)
            self.cost = Cost(
                _mean(cost.cores, load.tree_cores / running),
                pss_mib,
                _mean(cost.tokens_per_minute, load.tokens / running),
            )

    @property
    def capacity(self) -> int:
        """How many conversations fit by count and CPU, as far as is known."""
        limits = self.limits
        most = math.inf if limits.max_sessions is None else float(limits.max_sessions)
        if limits.cpu_limit is not None:
            most = min(most, limits.cpu_limit * limits.cores / max(self.cost.cores, 0.001))
        if self.load.free_mib < math.inf:
            fits = self.load.free_mib / max(self.cost.pss_mib, 1.0)
            most = min(most, len(self._places) + fits)
        return int(most) if most < math.inf else -1


def _mean(before: float, now: float) -> float:
    return before + _SMOOTHING * (now - before)
