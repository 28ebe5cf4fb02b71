"""Finds our module `supervisor`, even if another installed package has the same name.

The process manager Supervisor installs a package of that name too. Then ``python -m supervisor``
runs theirs, and our module is loaded from the file beside this package.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from messages.hints import other_supervisor

__all__ = ["supervisor"]

_FILE = Path(__file__).resolve().parents[1] / "supervisor.py"
_OTHER_NAME = "rtvoice_supervisor"
"""The name of our module in `sys.modules` if ``supervisor`` is another module."""


def supervisor() -> ModuleType:
    """Return our module `supervisor`."""
    if other_supervisor() is None:
        return importlib.import_module("supervisor")
    known = sys.modules.get(_OTHER_NAME)
    if known is not None:
        return known
    spec = importlib.util.spec_from_file_location(_OTHER_NAME, _FILE)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[_OTHER_NAME] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[_OTHER_NAME]
        raise
    return module
