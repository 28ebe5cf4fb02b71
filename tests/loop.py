"""Tests that are coroutines."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

from tests.rig import TIMEOUT_S

__all__ = ["in_a_loop"]


def in_a_loop(
    test: Callable[..., Coroutine[Any, Any, None]], limit_s: float = 6 * TIMEOUT_S
) -> Callable[..., None]:
    """Run a test on an event loop of its own; after the limit it is cancelled, and cleans up."""

    @functools.wraps(test)
    def run(*args: Any, **named: Any) -> None:
        async def limited() -> None:
            async with asyncio.timeout(limit_s):
                await test(*args, **named)

        asyncio.run(limited())

    return run
