"""Loads the user's agent by its name: ``module:attr`` or ``path/file.py:attr``."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

__all__ = ["AgentLoadError", "DescribedAgent", "load_agent"]

_ROOT = str(Path(__file__).resolve().parents[2])


class DescribedAgent(Protocol):
    """What the tools process needs of an `rtvoice.Agent`, which it must not import."""

    tools: Any

    def describe(self) -> dict[str, Any]:
        """Return fields of `messages.Settings` in plain values."""


class AgentLoadError(Exception):
    """The agent cannot be loaded; the text is one line that says why and what to do."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name = name
        self.problem = problem

    def __str__(self) -> str:
        return f"agent {self.name}: {self.problem}"


@lru_cache(maxsize=8)
def load_agent(name: str) -> DescribedAgent:
    """Import the module or file and return the agent in it.

    Raises:
        AgentLoadError: there is no such file, module or attribute, importing it raised, or what
            was found is no agent.
    """
    where, colon, attribute = name.rpartition(":")
    if not colon or not where or not attribute:
        raise AgentLoadError(name, "write it as module:attribute or path/file.py:attribute")
    _extend_path(str(Path.cwd()))
    module = _load_file(name, Path(where)) if where.endswith(".py") else _load_module(name, where)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise AgentLoadError(name, f"{where} has no {attribute!r}; {_near(module, part)}")
        found = getattr(found, part)
    if not _is_agent(found):
        raise AgentLoadError(name, _not_an_agent(attribute, found))
    return found  # type: ignore[no-any-return]


def _extend_path(folder: str) -> None:
    """Add a folder behind everything else, so that our modules and installed ones come first."""
    if folder not in sys.path:
        sys.path.append(folder)


def _load_file(name: str, path: Path) -> ModuleType:
    import importlib.util

    path = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - symbolic links stay as they are
    if not path.is_file():
        raise AgentLoadError(name, f"there is no file {path}")
    _extend_path(str(path.parent))
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    spec = importlib.util.find_spec(path.stem) if known is None and _is_name(path.stem) else None
    if spec is not None and spec.origin == str(path):
        return _load_module(name, path.stem)
    # The name of the file is somebody else's, or no name: the module gets one of its own.
    spec = importlib.util.spec_from_file_location(f"_rtvoice_agent_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where annotations that are text are looked up
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[spec.name]
        raise _import_raised(name, error) from error
    return module


def _is_name(stem: str) -> bool:
    return stem.isidentifier()


def _load_module(name: str, module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            raise AgentLoadError(
                name,
                f"there is no module {error.name} in {Path.cwd()} or among the installed "
                f"packages; for a file, write path/file.py:attribute",
            ) from None
        raise _import_raised(name, error) from error
    except BaseException as error:
        raise _import_raised(name, error) from error


def _import_raised(name: str, error: BaseException) -> AgentLoadError:
    if isinstance(error, SystemExit):
        what = f"it called sys.exit({error.code!r})"
    else:
        what = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
    return AgentLoadError(name, f"importing it failed: {what}{_place(error)}")


def _place(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f" ({error.filename}, line {error.lineno})"
    not_theirs = (_ROOT + os.sep, os.path.dirname(os.__file__), "<")  # noqa: PTH120
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(not_theirs)]
    return f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else ""


def _is_agent(found: object) -> bool:
    return (
        not isinstance(found, type)
        and callable(getattr(found, "describe", None))
        and hasattr(found, "tools")
    )


def _near(module: ModuleType, attribute: str) -> str:
    import difflib

    names = [name for name in vars(module) if not name.startswith("_")]
    agents = [name for name in names if _is_agent(getattr(module, name))]
    near = agents or difflib.get_close_matches(attribute, names, n=3, cutoff=0.5)
    if agents:
        return f"the agents in it are: {', '.join(agents)}"
    return f"near it are: {', '.join(near)}" if near else "there is no agent in it"


def _not_an_agent(attribute: str, found: object) -> str:
    if isinstance(found, type):
        return f"{attribute} is a class; name an rtvoice.Agent, such as agent = Agent(...)"
    if callable(found):
        return f"{attribute} is a function; name an rtvoice.Agent, such as agent = {attribute}()"
    return f"{attribute} is of type {type(found).__name__}, not an rtvoice.Agent"
