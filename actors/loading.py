"""Loads objects of the user by name, ``module:attr`` or ``file.py:attr``."""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from messages import UserError
from messages.paths import path_of_text, printable

__all__ = ["LoadError", "load", "prepare", "raised"]

_OURS = ("actors", "messages", "supervisor")
_ROOT = str(Path(__file__).resolve().parents[1])
_raised_ahead: dict[str, LoadError] = {}
"""By name, what `prepare` could not import."""


class LoadError(UserError):
    """Raised if a name cannot be loaded; ``problem`` says why and what to do, in one line."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name = name
        self.problem = problem

    def __str__(self) -> str:
        return f"{printable(self.name)}: {self.problem}"


def prepare(name: str) -> bool:
    """Import the module or file of a name ahead of `load`, which raises what was raised.

    Returns:
        Whether it could be imported.
    """
    try:
        _imported(name)
    except LoadError as error:
        _raised_ahead[name] = error
    return name not in _raised_ahead


def load(name: str, noun: str, fits: Callable[[object], bool]) -> Any:
    """Import a module or file and return an attribute of it.

    Args:
        name: ``module:attribute`` or ``path/file.py:attribute``.
        noun: The kind of object, such as ``agent``; used in the error, which lists those in the
            module.
        fits: Returns whether an object is of this kind.

    Raises:
        LoadError: If there is no such file, module or attribute, or if the import raises.
    """
    if (error := _raised_ahead.pop(name, None)) is not None:
        raise error
    module, where, attribute = _imported(name)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = _near(module, part, noun, fits)
            raise LoadError(name, f"{where} has no {attribute!r}; {near}")
        found = getattr(found, part)
    return found


def _imported(name: str) -> tuple[ModuleType, str, str]:
    """Return the module of a name, where it was found, and the name of the attribute."""
    where, colon, attribute = path_of_text(name).rpartition(":")
    if not colon or not where or not attribute:
        raise LoadError(name, "write it as module:attribute or path/file.py:attribute")
    _extend_path(str(Path.cwd()))
    module = _load_file(name, Path(where)) if where.endswith(".py") else _load_module(name, where)
    return module, where, attribute


def raised(error: BaseException) -> str:
    """Describe an exception of the user's code in one line, with its file and line number."""
    if isinstance(error, SystemExit):
        what = f"it called sys.exit({error.code!r})"
    elif isinstance(error, UserError):
        what = str(error)
    else:
        what = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
    return f"{what}{_place(error)}"


def _extend_path(folder: str) -> None:
    """Append a folder to ``sys.path``, so that our modules and installed ones have priority."""
    if folder not in sys.path:
        sys.path.append(folder)


def _load_file(name: str, path: Path) -> ModuleType:
    path = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - symbolic links stay as they are
    if not path.is_file():
        raise LoadError(name, f"there is no file {path}")
    _extend_path(str(path.parent))
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    spec = importlib.util.find_spec(path.stem) if known is None and _is_name(path.stem) else None
    if spec is not None and spec.origin == str(path):
        return _load_module(name, path.stem)
    # Another module has the name of the file, or it is not a valid name: use a name of ours.
    spec = importlib.util.spec_from_file_location(f"_rtvoice_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # string annotations are looked up there
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
            raise LoadError(
                name,
                f"there is no module {error.name} in {Path.cwd()} or among the installed "
                f"packages; for a file, write path/file.py:attribute",
            ) from None
        raise _import_raised(name, error) from error
    except BaseException as error:
        raise _import_raised(name, error) from error


def _import_raised(name: str, error: BaseException) -> LoadError:
    hidden = _hidden_by_ours(name, error)
    if hidden is not None:
        return LoadError(
            name,
            f"{hidden} has the name of a part of rtvoice ({hidden.stem}), which is imported in its "
            f"place: give it another name",
        )
    return LoadError(name, f"importing it failed: {raised(error)}")


def _hidden_by_ours(name: str, error: BaseException) -> Path | None:
    """Return the user's module that one of ours hides, if this is the reason of the error.

    In a component our modules come first on ``sys.path``, so that nothing can replace them.
    """
    if isinstance(error, AttributeError | ImportError):
        where = Path(path_of_text(name).rpartition(":")[0])
        folders = [where.parent, Path.cwd()] if where.suffix == ".py" else [Path.cwd()]
        for folder in folders:
            for ours in _OURS:
                for path in (folder / f"{ours}.py", folder / ours / "__init__.py"):
                    if f"'{ours}'" in str(error) and path.is_file():
                        return path if path.stem == ours else path.parent
    return None


def _place(error: BaseException) -> str:
    """Return the file and line of the last frame in the user's code."""
    if isinstance(error, SyntaxError):
        return f" ({error.filename}, line {error.lineno})"
    not_users = (_ROOT + os.sep, os.path.dirname(os.__file__), "<")  # noqa: PTH120
    frames = traceback.extract_tb(error.__traceback__)
    users = [frame for frame in frames if not frame.filename.startswith(not_users)]
    return f" ({users[-1].filename}, line {users[-1].lineno})" if users else ""


def _near(module: ModuleType, attribute: str, noun: str, fits: Callable[[object], bool]) -> str:
    """Return which fitting objects or similar names the module has, as part of a sentence."""
    import difflib

    names = [name for name in vars(module) if not name.startswith("_")]
    if fitting := [name for name in names if fits(getattr(module, name))]:
        return f"the {noun}s in it are: {', '.join(fitting)}"
    near = difflib.get_close_matches(attribute, names, n=3, cutoff=0.5)
    return f"similar names are: {', '.join(near)}" if near else f"there is no {noun} in it"
