"""Public clients of the Realtime API, as judges: OpenAI's own libraries, and livekit's.

They have an environment of their own (scripts/setup.sh), since they would choose the versions of
what rtvoice needs; each judgement is a program that runs there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

__all__ = ["judge"]

_PROGRAMS = Path(__file__).parent / "sandbox" / "referees"
_PYTHON = Path(sys.prefix, "referees", "Scripts" if os.name == "nt" else "bin", "python")
_FIND = "import sys, importlib.util; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"


def judge(program: str, package: str, *arguments: str | Path, given: str | None = None) -> str:
    """Run a program of the judges and return what it prints; skips the test without the package."""
    done = subprocess.run(
        [_python_with(package), _PROGRAMS / program, *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _python_with(package: str) -> Path:
    for python in (_PYTHON, Path(sys.executable)):
        if python.exists() and subprocess.run([python, "-c", _FIND, package]).returncode == 0:
            return python
    pytest.skip(f"no public client to judge by: {package} is not installed")
