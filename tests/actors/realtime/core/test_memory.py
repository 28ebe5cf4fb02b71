"""The memory of the core is bounded, however long a conversation lasts."""

from __future__ import annotations

import pytest

from actors.realtime.core import capture, chain, context, playback
from scripts.benchmark_core import memory_kib


def test_memory_is_flat_once_everything_that_is_remembered_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With small limits, so that it is full soon."""
    monkeypatch.setattr(chain, "_REMEMBERED", 10)
    monkeypatch.setattr(context.Recent, "limit", 10)
    monkeypatch.setattr(capture, "MEMORY", 24_000)
    monkeypatch.setattr(playback, "_ITEMS", 10)

    sizes = memory_kib(500)

    assert max(sizes[3:]) - min(sizes[3:]) < 12, sizes


@pytest.mark.long
@pytest.mark.timeout(900)
def test_memory_is_flat_over_ten_thousand_turns() -> None:
    sizes = memory_kib(10_000)

    assert max(sizes[2:]) - min(sizes[2:]) < 64, sizes
