"""What may be shown of a URL, and which parts of it are secret."""

from __future__ import annotations

import pytest

from messages.errors import InvalidSettingError
from messages.urls import authority_of, secrets_of, shown
from messages.validation import checked


@pytest.mark.parametrize(
    ("server", "seen"),
    [
        ("openai", "openai"),
        ("ws://host/v1/realtime", "ws://host/v1/realtime"),
        ("wss://host:8443/v1?api-key=K&model=m", "wss://host:8443/v1"),
        ("wss://host?api-key=K", "wss://host"),
        ("wss://ada:K@host/v1#K", "wss://host/v1"),
        ("wss://ada:K@x@host/v1", "wss://host/v1"),
        ("ws://host/a@b", "ws://host/a@b"),
        ("ada:K@host/v1", "host/v1"),
        ("host?key=K", "host"),
    ],
)
def test_a_server_is_shown_without_what_may_be_secret(server: str, seen: str) -> None:
    assert shown(server) == seen


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("ws://host/v1?model=m&api-version=1&deployment=d", ()),
        ("ws://host/v1?api-key=abc&model=m", ("abc",)),
        ("ws://host/v1?model=m&access_token=a%2Bb", ("a%2Bb", "a+b")),
        ("ws://ada:pass@host/v1", ("ada:pass", "pass")),
        ("ws://host/v1?Signature=s1&password=p", ("s1", "p")),
        ("openai", ()),
    ],
)
def test_keys_and_passwords_are_secret(url: str, secrets: tuple[str, ...]) -> None:
    assert secrets_of(url) == secrets


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("ws://Host.example:80/v1", ("", "host.example")),
        ("ws://ada:p@w@host?x", ("ada:p@w", "host")),
        ("ws://[::1]:5/x", ("", "[::1]")),
        ("ws://a?@b", ("", "a")),
    ],
)
def test_the_authority_ends_before_path_and_query(url: str, authority: tuple[str, str]) -> None:
    assert authority_of(url) == authority


@pytest.mark.parametrize(
    "server",
    [
        "https://host/v1?api-key=CANARY",
        "https://ada:CANARY@host/v1",
        "host?api-key=CANARY",
        "ada:CANARY@host",
        "ws://host:99999/v1?api-key=CANARY",
        "ws://ada:CANARY@host/v1/live/sessions?api-key=CANARY",
        "ws://[host/v1?key=CANARY",
    ],
)
def test_a_server_that_is_not_valid_is_named_without_its_secrets(server: str) -> None:
    with pytest.raises(InvalidSettingError) as refused:
        checked("server", server)

    assert "CANARY" not in str(refused.value)
    assert "host" in str(refused.value)
