"""The page as an ASGI application: who is let in, and what is sent to the browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import rtvoice.web
from messages.errors import ConfigurationError
from rtvoice import Agent
from rtvoice.service import CallInfo, Service
from rtvoice.web import Page
from rtvoice.web.doors import Doors
from tests.loop import in_a_loop

NAMED = r"[\"'](?:\./|static/)?([\w-]+\.(?:js|css|svg))[\"']"
STATIC = Path(rtvoice.web.__file__).with_name("static")


def page_of(**options: Any) -> Page:
    def make_agent(call: CallInfo) -> Agent:
        return Agent("canary instructions", api_key="sk-canary")

    return Page(Service(make_agent, view="all"), **{"key": "secret", **options})


async def ask(
    page: Page, target: str, *, host: str = "127.0.0.1:8080", kind: str = "http", **scope: Any
) -> tuple[int, dict[str, str], str]:
    """Return status, headers and body of an answer."""
    path, _, query = target.partition("?")
    sent: list[dict[str, Any]] = []
    told = [{"type": "websocket.connect"}, *[{"type": "websocket.disconnect"}] * 2]

    async def receive() -> dict[str, Any]:
        return told.pop(0)

    async def send(event: Any) -> None:
        sent.append(event)

    about = {"type": kind, "path": path, "query_string": query.encode(), "method": "GET"}
    headers = [(b"host", host.encode())]
    extensions = {"websocket.http.response": {}}
    await page({**about, "headers": headers, "extensions": extensions, **scope}, receive, send)
    start, *rest = sent
    body = b"".join(event.get("body", b"") for event in rest).decode()
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], found, body


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("/?key=secret", "127.0.0.1:8080", 200),
        ("/?key=secret", "localhost:8080", 200),
        ("/", "127.0.0.1:8080", 403),
        ("/?key=", "127.0.0.1:8080", 403),
        ("/?key=secre", "127.0.0.1:8080", 403),
        ("/?key=secret%ff", "127.0.0.1:8080", 403),
        ("/?key=secret", "rebound.example:8080", 403),
        ("/?key=secret", "127.0.0.1.rebound.example", 403),
        ("/?key=secret", "", 403),
        ("/?key=secret", "<script>", 403),
        ("/ready", "127.0.0.1:8080", 403),
        ("/ready?key=secret", "127.0.0.1:8080", 200),
        ("/static/app.js", "127.0.0.1:8080", 200),
        ("/static/../page.py", "127.0.0.1:8080", 404),
        ("/static/", "127.0.0.1:8080", 404),
        ("/metrics?key=secret", "127.0.0.1:8080", 404),
        ("/sessions?key=secret", "127.0.0.1:8080", 404),
    ],
)
@in_a_loop
async def test_only_who_knows_the_key_and_the_name_is_let_in(
    target: str, host: str, status: int
) -> None:
    page = page_of(hosts=("127.0.0.1", "localhost"))

    found, headers, body = await ask(page, target, host=host)

    assert found == status
    assert "<script>" not in body
    assert headers["x-content-type-options"] == "nosniff"
    assert "canary" not in body


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("/talk", "127.0.0.1", 403),
        ("/talk?key=wrong", "127.0.0.1", 403),
        ("/talk?key=secret", "rebound.example", 403),
        ("/twilio?key=secret", "127.0.0.1", 404),
    ],
)
@in_a_loop
async def test_a_socket_needs_the_key_too(target: str, host: str, status: int) -> None:
    found, _, body = await ask(page_of(hosts=["127.0.0.1"]), target, host=host, kind="websocket")

    assert found == status
    assert body.strip()


@in_a_loop
async def test_a_page_of_another_origin_may_not_call_even_with_the_key() -> None:
    headers = [(b"host", b"127.0.0.1:8080"), (b"origin", b"http://127.0.0.1:9090")]

    status, _, body = await ask(page_of(), "/talk?key=secret", kind="websocket", headers=headers)

    assert (status, body) == (403, "pages of this origin may not call\n")


@in_a_loop
async def test_the_page_may_load_nothing_from_elsewhere() -> None:
    _, headers, body = await ask(page_of(), "/?key=secret", host="talk.example")
    policy = headers["content-security-policy"]

    assert "default-src 'self';" in policy
    assert "connect-src 'self' ws://talk.example wss://talk.example;" in policy
    assert "unsafe" not in policy
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert not re.search(r"<script(?! type=\"module\" src)|<style| style=| on\w+=", body)


def test_no_file_of_the_page_names_another_origin() -> None:
    named = [
        (path.name, address)
        for path in STATIC.iterdir()
        for address in re.findall(r"https?://[^\s\"'`]+", path.read_text(encoding="utf-8"))
    ]

    assert {address for _, address in named} <= {"http://www.w3.org/2000/svg", "http://127.0.0.1,"}


def test_every_file_that_the_page_loads_is_there() -> None:
    names = {path.name for path in STATIC.iterdir()}
    loaded = {
        name for path in STATIC.iterdir() for name in re.findall(NAMED, path.read_text("utf-8"))
    }

    assert loaded == names - {"index.html", "refused.html"}


@in_a_loop
async def test_notes_are_shown_as_text() -> None:
    _, _, body = await ask(page_of(notes=["<b>There is no key</b>"]), "/?key=secret")

    assert "<p>&lt;b&gt;There is no key&lt;/b&gt;</p>" in body


@in_a_loop
async def test_a_page_that_is_mounted_serves_its_files_below_that_place() -> None:
    page = page_of(key=None)
    mounted = {"root_path": "/voice"}

    moved = await ask(page, "/voice?a=b", **mounted)
    whole = await ask(page, "/voice/", **mounted)
    file = await ask(page, "/voice/static/app.js", **mounted)

    assert (moved[0], moved[1]["location"]) == (307, "/voice/?a=b")
    assert whole[0] == file[0] == 200
    assert file[1]["content-type"] == "text/javascript; charset=utf-8"


@in_a_loop
async def test_it_says_why_a_caller_would_be_refused() -> None:
    service = Service(lambda _: Agent(), view="talk", max_sessions=1, cpu_limit=None)
    page = Page(service)

    async def readiness() -> dict[str, Any]:
        found: dict[str, Any] = json.loads((await ask(page, "/ready"))[2])
        return found

    free = await readiness()
    place = await service._desk.admit()
    full = await readiness()
    place.release()
    await service.drain()

    assert free == {"ready": True, "text": ""}
    text = "All places of the service are taken. Try again later."
    assert full == {"ready": False, "text": text}
    assert (await readiness())["text"] == "The program is ending; start it again."


def test_a_service_that_shows_no_view_has_no_page() -> None:
    with pytest.raises(ConfigurationError, match='view="talk"'):
        Page(Service(lambda _: Agent()))


def test_a_key_that_is_no_text_in_utf_8_is_not_the_key() -> None:
    doors = Doors("schlüssel", ())

    assert doors.why_not({"host": "a"}, {"key": "schlüssel"}) == ""
    assert doors.why_not({"host": "a"}, {"key": "schl\udcfcssel"})
