"""Recorded sessions with the real service, where there are some: JSON lines, both directions."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

__all__ = ["needs_recordings", "received", "recorded", "recordings"]

_BESIDE = Path(__file__).parents[2] / "shared" / "recordings"
_NAMED = os.environ.get("RTVOICE_RECORDINGS", "")
FOLDER = Path(_NAMED) if _NAMED else _BESIDE

needs_recordings = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="there are no recordings (RTVOICE_RECORDINGS names their folder)"
)


def recordings() -> list[str]:
    """The names of the recordings that there are."""
    return sorted(path.stem for path in FOLDER.glob("*.jsonl"))


def recorded(name: str) -> list[tuple[str, dict[str, Any]]]:
    """What went by: ("sent" by the client or "received" from the server, the event)."""
    lines = (FOLDER / f"{name}.jsonl").read_text().splitlines()
    return [(record["direction"], record["data"]) for record in map(json.loads, lines)]


def received(name: str) -> list[dict[str, Any]]:
    """The server's events of a recording, but for the first, which begins the session."""
    events = [event for direction, event in recorded(name) if direction == "received"]
    assert events[0]["type"] == "session.created"
    return events[1:]
