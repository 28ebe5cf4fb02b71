"""Who may open the page: the secret in its address, and the names of the host. Without I/O."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping

__all__ = ["Doors", "is_host"]

_NO_KEY = (
    "This page opens only with its whole address, which ends in ?key=…: the program has printed it "
    "when it started."
)
_OTHER_HOST = "This page is not served under the name %s; use the address that was printed."

_HOST = re.compile(r"[A-Za-z0-9.\-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")


def is_host(text: str) -> bool:
    """Return whether a text may be the header ``Host``."""
    return _HOST.fullmatch(text) is not None


class Doors:
    """Admits requests that have the key, and address the host by one of its names.

    Args:
        key: The secret in the address; None: everybody may come in.
        hosts: Names of the host, without a port; empty: all. A page of another site that points its
            own name to this machine (DNS rebinding) is refused by them.
    """

    def __init__(self, key: str | None, hosts: Iterable[str]) -> None:
        self._key = key
        self._hosts = {name.lower() for name in hosts}

    def why_not(self, headers: Mapping[str, str], query: Mapping[str, str]) -> str:
        """Return why a request is refused; empty: it is let in."""
        host = headers.get("host", "")
        if not is_host(host) or (self._hosts and _name_of(host) not in self._hosts):
            return _OTHER_HOST % (host[:100] or "(none)")
        if self._key is not None and not _same(self._key, query.get("key", "")):
            return _NO_KEY
        return ""


def _name_of(host: str) -> str:
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    return name.lower()


def _same(one: str, other: str) -> bool:
    """Compare in a time that does not depend on where they differ."""
    return hmac.compare_digest(one.encode(), other.encode(errors="surrogatepass"))
