"""The embedding interface below `Agent`: a session for threads, with settings and messages."""

from __future__ import annotations

from actors.embedding.session import Session

__all__ = ["Session"]
