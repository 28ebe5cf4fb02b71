"""The server's URL, and the headers that authorise us."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote

from messages import Settings
from messages.urls import authority_of

__all__ = ["KEY_VARIABLE", "OPENAI_URL", "Address", "address_of", "is_local"]

OPENAI_URL = "wss://api.openai.com/v1/realtime"
KEY_VARIABLE = "OPENAI_API_KEY"
_AZURE = (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com")
"""Hosts that expect an API key in the header ``api-key``; as a bearer they accept only a token.

https://learn.microsoft.com/azure/ai-foundry/openai/how-to/realtime-audio-websockets
"""


class Address(NamedTuple):
    """The URL and headers to connect with."""

    url: str
    headers: dict[str, str]
    wrong_key: str
    """The code (see `errors`) if the key is missing or malformed; empty: it is neither."""
    keeps_key: bool
    """Whether the key is withheld, because the connection is not encrypted."""


def address_of(settings: Settings, key: str, url: str = "") -> Address:
    """Return the address to connect to.

    Args:
        settings: The settings of the session.
        key: The API key; empty: there is none.
        url: The URL of the sandbox, if that is the server; empty: the settings name the server.
    """
    url = url or (OPENAI_URL if settings.server == "openai" else settings.server)
    if "model=" not in url.partition("?")[2]:
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
        return {}  # `websockets` sends the user and password of the URL in the same header
    is_token = len(parts := key.split(".")) == 3 and all(parts)  # a JSON Web Token
    if host.endswith(_AZURE) and not is_token:
        return {"api-key": key}
    return {"Authorization": f"Bearer {key}"}


def is_local(url: str) -> bool:
    """Return whether a URL names this machine."""
    _, host = authority_of(url)
    is_number = host.replace(".", "").isdigit()
    return host in ("localhost", "[::1]") or (is_number and host.startswith("127."))
