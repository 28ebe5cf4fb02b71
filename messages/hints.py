"""The commands that hints name: such as work with this Python, in this folder."""

from __future__ import annotations

import os
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

__all__ = ["install", "other_supervisor", "rtvoice"]

_ROOT = Path(__file__).resolve().parents[1]
_SUPERVISOR = _ROOT / "supervisor.py"
_SET_UP = ("--upgrade rtvoice", "pocketsphinx", "pyaudio", "pywebrtc-audio", "soundfile", "textual")
"""What ``./scripts/run --setup`` installs if it can."""


def rtvoice(arguments: str = "") -> str:
    """Return the command that runs rtvoice, with arguments."""
    return f"{_command()} {arguments}".strip()


def install(package: str) -> str:
    """Return the command that installs a package where this Python finds it."""
    script = _script()
    if script is not None and package in _SET_UP:
        return f"{script} --setup"
    pip = _found("pip")
    is_ours = pip is not None and _beside_us(pip) and sys.prefix != sys.base_prefix
    return f"{'pip' if is_ours else f'{_python()} -m pip'} install {package}"


def other_supervisor() -> Path | None:
    """Return the file of another module with the name ``supervisor``; None: it is our module."""
    spec = find_spec("supervisor")
    if spec is None:  # there is no module of that name: load ours by its file all the same
        return _SUPERVISOR.with_name("nothing")
    origin = Path(spec.origin) if spec.origin else _SUPERVISOR.with_name("nothing")
    return None if origin.resolve() == _SUPERVISOR else origin


def _command() -> str:
    script = _script()
    if script is not None:
        return script
    python = _python()
    ours = _found("rtvoice")  # pipx makes a link to it
    if os.sep in python and ours is not None and _beside_us(ours.resolve()):
        return "rtvoice"
    return f"{python} -m {'supervisor' if other_supervisor() is None else 'rtvoice'}"


def _script() -> str | None:
    """Return ``scripts/run`` as seen from this folder; None: it did not set up this Python."""
    script = _ROOT / "scripts" / "run"
    if not ((Path(sys.prefix) / "ready-run").is_file() and script.is_file()):
        return None
    try:
        here = Path.cwd() == _ROOT
    except OSError:  # the current folder was removed
        here = False
    return "./scripts/run" if here else shlex.quote(str(script))


def _python() -> str:
    """Return the shortest name of this Python."""
    for name in ("python", "python3"):
        found = _found(name)
        if found is not None and _beside_us(found) and found.samefile(sys.executable):
            return name
    return shlex.quote(sys.executable or "python")


def _found(program: str) -> Path | None:
    """Return the program that a shell would run; `shutil.which` would be a slow import."""
    suffix = ".exe" if sys.platform == "win32" else ""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = Path(folder, program + suffix)
        if path.is_file() and os.access(path, os.X_OK):
            return path
    return None


def _beside_us(program: Path) -> bool:
    """Return whether a program lies in the folder of this Python, which may be a link to another.

    An environment's Python is such a link, so that a comparison of the files is not enough.
    """
    return bool(sys.executable) and program.parent.samefile(Path(sys.executable).parent)
