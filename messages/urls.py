"""URLs of servers: what may be shown of one, and what is secret in it."""

from __future__ import annotations

import re
from urllib.parse import unquote, unquote_plus

__all__ = ["authority_of", "model_in", "secrets_of", "shown"]

_SECRET = re.compile(r"(?i)key|token|secret|passw|auth|sig|credential|^code$")
"""In the names of parameters that are secret."""


def shown(server: str) -> str:
    """Return a server as it may be shown and written: without password, query and fragment."""
    place = re.split(r"[?#]", server, maxsplit=1)[0]
    return re.sub(r"^([a-zA-Z][a-zA-Z0-9+.-]*://)?[^/]*@", r"\1", place)


def authority_of(url: str) -> tuple[str, str]:
    """Return user and password (``user:password``) and the host's name of a URL, in lower case."""
    authority = re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0]
    user, _, host = authority.rpartition("@")
    name = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
    return user, name.lower()


def secrets_of(url: str) -> tuple[str, ...]:
    """Return what is secret in a URL, the longest first: a password, keys in the query."""
    query = url.partition("#")[0].partition("?")[2]
    named = [part.partition("=") for part in query.split("&")]
    keys = [value for name, _, value in named if value and _SECRET.search(name)]
    user = authority_of(url)[0]
    _, _, password = user.partition(":")
    found = {*keys, *map(unquote_plus, keys), user, unquote(user), password, unquote(password)}
    return tuple(sorted(found - {""}, key=len, reverse=True))


def model_in(url: str) -> str | None:
    """Return the model that the query of a URL names; None: it names none."""
    query = url.partition("#")[0].partition("?")[2]
    named = dict(part.partition("=")[::2] for part in query.split("&"))
    return unquote_plus(named["model"]) if "model" in named else None
