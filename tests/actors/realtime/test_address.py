"""The address of the server, and the header with the key."""

from __future__ import annotations

import pytest

from actors.realtime.address import address_of
from messages import Settings

KEY = "0123456789abcdef"
TOKEN = "eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "host", ["me.openai.azure.com", "ME.services.ai.azure.com", "me.cognitiveservices.azure.com"]
)
@pytest.mark.parametrize(
    ("key", "headers"),
    [(KEY, {"api-key": KEY}), (TOKEN, {"Authorization": f"Bearer {TOKEN}"})],
)
def test_azure_gets_a_key_as_api_key_and_a_token_as_bearer(
    host: str, key: str, headers: dict[str, str]
) -> None:
    url = f"wss://{host}/openai/v1/realtime?model=mine"

    address = address_of(Settings(server=url), key)

    assert (address.url, address.headers) == (url, headers)


@pytest.mark.parametrize("key", [KEY, TOKEN])
@pytest.mark.parametrize(
    "server", ["openai", "wss://example.org/v1", "wss://openai.azure.com.example.org/v1"]
)
def test_other_servers_get_key_and_token_as_bearer(server: str, key: str) -> None:
    address = address_of(Settings(server=server), key)

    assert address.headers == {"Authorization": f"Bearer {key}"}


def test_a_user_in_the_url_replaces_the_key() -> None:
    address = address_of(Settings(server="wss://ada:password@example.org/v1"), KEY)

    assert address.headers == {}


def test_azure_gets_no_key_without_encryption() -> None:
    address = address_of(Settings(server="ws://me.openai.azure.com/v1"), KEY)

    assert address.headers == {}
    assert address.keeps_key
