"""A component whose import takes long."""

from __future__ import annotations

import time

from tests.tiny import Echo

__all__ = ["Echo"]

time.sleep(0.5)  # what is tested is that others wait for it
