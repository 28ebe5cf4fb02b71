"""rtvoice: voice agents on the OpenAI Realtime API, one supervised process per component.

import asyncio

from rtvoice import Agent

asyncio.run(Agent("You are a pirate.").run())
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from rtvoice.agent import *
    from rtvoice.audio.devices import *
    from rtvoice.bus import *
    from rtvoice.errors import *
    from rtvoice.events import *
    from rtvoice.models import *
    from rtvoice.prices import *
    from rtvoice.session import *
    from rtvoice.tools import *
    from rtvoice.views import *

__version__ = "0.1.0"

_HOMES = (
    "agent",
    "errors",
    "tools",
    "models",
    "prices",
    "views",
    "audio.devices",
    "events",
    "bus",
    "session",
)
"""Modules whose ``__all__`` are the public names; those that import fast come first."""


def _refuse_others() -> None:
    """Raise if another file is imported in place of a package of ours.

    A script's folder comes first on ``sys.path``, and ``messages.py`` is a likely name. The errors
    that follow would not lead to the cause. Components need no such check: their path has our
    folder first.
    """
    from pathlib import PurePath

    ours = PurePath(__file__).parent.parent
    for name in ("actors", "messages"):  # `supervisor` is not checked: `rtvoice.hub` finds ours
        spec = find_spec(name)
        origin = PurePath(spec.origin) if spec is not None and spec.origin else None
        if origin is not None and ours not in (origin.parent, origin.parent.parent):
            raise ImportError(
                f"{origin} has the name of a part of rtvoice ({name}) and is imported in its "
                f"place: give it another name",
                name=name,
                path=str(origin),
            )


_refuse_others()


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import rtvoice` is fast."""
    if name == "__all__":
        return sorted({"__version__", *(each for home in _homes() for each in home.__all__)})
    # `from rtvoice import checks` asks here first, before the module of that name is imported.
    is_module = name.islower() and find_spec(f"{__name__}.{name}") is not None
    if not name.startswith("_") and not is_module:
        for home in _homes():
            if name in home.__all__:
                value = globals()[name] = getattr(home, name)
                return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _homes() -> Iterator[ModuleType]:
    return (import_module(f"{__name__}.{home}") for home in _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
