"""`Session`: the interface below `Agent`, for programs with threads, in settings and messages."""

from __future__ import annotations

from actors.embedding.session import Session

__all__ = ["Session"]
