"""Exit codes of the command and of the supervisor's process."""

from __future__ import annotations

__all__ = ["EXIT_BUG", "EXIT_FAILED", "EXIT_KILLED", "EXIT_OK", "EXIT_USAGE"]

EXIT_OK = 0
EXIT_USAGE = 2
"""Wrong usage, or a session that cannot start."""
EXIT_FAILED = 3
"""The session has started and failed later."""
EXIT_BUG = 70
"""An error of ours; ``EX_SOFTWARE`` of sysexits.h."""
EXIT_KILLED = 130
"""Killed by Ctrl-C: 128 + SIGINT, as shells show it."""
