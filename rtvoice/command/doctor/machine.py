"""Checks of Python, of the packages, and of files that hide them."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from messages.hints import install, other_supervisor, rtvoice
from messages.transport.forking import available
from rtvoice import __version__
from rtvoice.command.doctor.result import Result, ok, problem, warning
from rtvoice.sandbox.speak import INSTALL as INSTALL_VOICE

__all__ = ["names", "packages", "python", "sandbox_extras"]

_NEWEST = (3, 14)
"""The newest version of Python with which rtvoice is tested."""
_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?:\s*>=\s*(?P<version>[\d.]+))?")
_OURS = ("actors", "messages", "rtvoice")


def python() -> Iterator[Result]:
    """Check the version of Python."""
    text = (
        f"{platform.python_implementation()} {platform.python_version()} on {platform.system()} "
        f"({platform.machine()}); processes are {'forked' if available() else 'not forked'}"
    )
    if sys.version_info[:2] > _NEWEST:
        newest = ".".join(map(str, _NEWEST))
        yield warning("python", f"{text}; rtvoice is tested with 3.11 to {newest}")
    else:
        yield ok("python", text)


def packages() -> Iterator[Result]:
    """Check the installed packages against the requirements of rtvoice."""
    found, wrong = [f"rtvoice {__version__}"], []
    try:
        required = importlib.metadata.requires("rtvoice") or []
    except importlib.metadata.PackageNotFoundError:
        yield warning("packages", f"{found[0]} is not installed; it runs from a folder")
        return
    for line in required:
        match = _REQUIREMENT.match(line)
        if match is None or re.search(r"extra == .(dev|referees)", line):
            continue
        have, want = _version(match["name"]), match["version"] or "0"
        if have and _numbers(have) >= _numbers(want):
            found.append(f"{match['name']} {have}")
        elif have or "extra ==" not in line:
            wrong.append(f"{match['name']} {have or 'is missing'}, {want} or later is needed")
    if wrong:
        yield problem("packages", f"{'; '.join(wrong)}: {install('--upgrade rtvoice')}")
    else:
        yield ok("packages", ", ".join(found))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def names() -> Iterator[Result]:
    """Look for files in this folder that a program would import in place of packages."""
    folder = Path.cwd()
    if folder == Path(__file__).resolve().parents[3]:
        yield ok("names", "this is the folder of rtvoice itself")
        return
    other = other_supervisor()
    if other is not None:
        yield warning(
            "names",
            f"python -m supervisor runs another package ({other.parent}): run {rtvoice()} instead",
        )
    hiding = [path.name for name in _wanted() for path in _sources(folder, name)]
    if hiding:
        yield warning(
            "names",
            f"{', '.join(sorted(hiding))} in this folder would be imported by a program of yours "
            f"in place of what rtvoice needs: give it another name",
        )
    else:
        yield ok("names", "no file in this folder has the name of a package that is needed")


def _wanted() -> set[str]:
    needed = ("msgspec", "numpy", "pyaudio", "pykka", "soundfile", "structlog", "websockets")
    return {*_OURS, *needed, *sys.stdlib_module_names}


def _sources(folder: Path, name: str) -> Iterator[Path]:
    for path in (folder / f"{name}.py", folder / name / "__init__.py"):
        if path.is_file():
            yield path if path.suffix == ".py" and path.stem == name else path.parent


def sandbox_extras() -> Iterator[Result]:
    """Check whether the sandbox can hear and speak."""
    missing = []
    if find_spec("pocketsphinx") is None:
        missing.append(f"it does not understand speech ({install('pocketsphinx')})")
    if shutil.which("espeak-ng") is None:
        missing.append(f"it beeps instead of speaking ({INSTALL_VOICE})")
    if missing:
        yield warning("sandbox", f"{', and '.join(missing)}; it understands typed text")
    else:
        yield ok("sandbox", "it hears (pocketsphinx) and speaks (espeak-ng)")
