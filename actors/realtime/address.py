"""Where the server is, and what is shown to it at the door."""

from __future__ import annotations

from typing import NamedTuple

from messages import Settings
from messages.urls import authority_of

__all__ = ["KEY_VARIABLE", "OPENAI_URL", "Address", "address_of", "is_local"]

OPENAI_URL = "wss://api.openai.com/v1/realtime"
KEY_VARIABLE = "OPENAI_API_KEY"
_AZURE = (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com")
"""Hosts that take a key in a header of its own, and as a bearer only the token of an identity.

https://learn.microsoft.com/azure/ai-foundry/openai/how-to/realtime-audio-websockets
"""


class Address(NamedTuple):
    """What is needed to connect."""

    url: str
    headers: dict[str, str]
    wrong_key: str
    """The code (see `errors`) of what can be seen to be wrong with the key; empty: nothing."""
    keeps_key: bool
    """Whether the key is not sent, because the connection would not be encrypted."""


def address_of(settings: Settings, key: str, url: str = "") -> Address:
    """Return where to connect to.

    Args:
        settings: of the session.
        key: of the service; empty: there is none.
        url: where the sandbox listens, if it is what is talked with.
    """
    url = url or (OPENAI_URL if settings.server == "openai" else settings.server)
    if "model=" not in url.partition("?")[2]:
        from urllib.parse import quote

        url += ("&" if "?" in url else "?") + f"model={quote(settings.model, safe='')}"
    if not key:
        return Address(url, {}, "missing_api_key" if url.startswith(OPENAI_URL) else "", False)
    if settings.server == "sandbox":
        return Address(url, {}, "", False)
    if not url.startswith("wss:") and not is_local(url):
        return Address(url, {}, "", True)
    plain = key.isascii() and key.isprintable() and " " not in key
    wrong = "" if plain else "malformed_api_key"
    return Address(url, _headers(url, key), wrong, False)


def _headers(url: str, key: str) -> dict[str, str]:
    user, host = authority_of(url)
    if user:
        return {}  # it is the one who is authorised: the header of both has the same name
    is_token = len(parts := key.split(".")) == 3 and all(parts)  # a JSON Web Token
    if host.endswith(_AZURE) and not is_token:
        return {"api-key": key}
    return {"Authorization": f"Bearer {key}"}


def is_local(url: str) -> bool:
    """Return whether a URL names this machine."""
    _, host = authority_of(url)
    is_number = host.replace(".", "").isdigit()
    return host in ("localhost", "[::1]") or (is_number and host.startswith("127."))
