"""The events of both sides, compared with the types of the openai package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.realtime import wire
from actors.realtime.core import restore
from actors.realtime.core.session import configuration, settings_update, speed_update, tools_update
from actors.realtime.pictures import Pictures
from messages import SendImage, Settings
from tests.actors.realtime.core.strategies import TOOLS, any_settings
from tests.actors.realtime.core.test_core_laws import Chaos, operations
from tests.referees import judge


def test_every_server_event_is_decoded_or_ignored_for_a_reason() -> None:
    known = set(judge("wire.py", "openai", "server").split())

    assert len(known) >= 46
    assert wire.DECODED | wire.IGNORED.keys() == known
    assert not wire.DECODED & wire.IGNORED.keys()
    assert all(wire.IGNORED.values())


def test_an_ignored_event_changes_nothing() -> None:
    for name in wire.IGNORED:
        event = wire.decode(json.dumps({"type": name, "odd": [{}]}))

        assert event == wire.UnknownEvent(name)


def _events_of_walks() -> list[dict[str, Any]]:
    """What the core sends while anything happens to it in any order."""
    sent: list[dict[str, Any]] = []

    class Walk(Chaos):
        def check(self) -> None:
            sent.extend(self.bench.sent)
            super().check()

    @settings(
        max_examples=60,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(st.lists(operations, min_size=20, max_size=60))
    def walk(steps: list[tuple[Any, ...]]) -> None:
        chaos = Walk()
        for step in steps:
            chaos.do(*step)

    walk()
    return sent


def _events_of_settings() -> list[dict[str, Any]]:
    """Every configuration of a session, and every change of one."""
    sent: list[dict[str, Any]] = []

    @settings(max_examples=300, deadline=None, database=None, derandomize=True)
    @given(any_settings, any_settings)
    def tell(old: Settings, new: Settings) -> None:
        for session in (
            configuration(old, 0.25, TOOLS),
            settings_update(old, new, TOOLS),
            tools_update(new, TOOLS),
            speed_update(1.5),
        ):
            if session is not None:
                event = wire.SessionUpdate(session, "event")
                sent.append(msgspec.json.decode(wire.encode(event)))

    tell()
    return sent


def _events_of_images(folder: Path) -> list[dict[str, Any]]:
    pictures = Pictures(folder)
    sent = []
    for media_type in ("image/png", "image/jpeg"):
        for detail in ("auto", "low", "high"):
            for text in ("", "What is it?"):
                message = SendImage(b"data", media_type, text, "i1", detail)  # type: ignore[arg-type]
                item = restore.text_item("i1", "user", text, pictures.keep(message))
                event = wire.ItemCreate(pictures.filled(item), "event")
                sent.append(msgspec.json.decode(wire.encode(event)))
    return sent


def test_every_event_we_send_is_one_that_the_openai_package_accepts(tmp_path: Path) -> None:
    wrong = [
        {"type": "response.create", "event_id": "e", "response": {"instruction": "odd"}},
        {"type": "session.update", "event_id": "e", "session": {"type": "realtime", "speed": 1}},
        {"type": "conversation.item.truncate", "item_id": "i", "audio_end_ms": "1"},
    ]
    events = [
        *wrong,
        *_events_of_walks(),
        *_events_of_settings(),
        *_events_of_images(tmp_path),
        *(
            msgspec.json.decode(wire.encode(event))
            for event in (wire.Commit("e"), wire.Clear("e"), wire.ItemDelete("i", "e"))
        ),
    ]

    lines = "".join(f"{msgspec.json.encode(event).decode()}\n" for event in events)
    refused = judge("wire.py", "openai", "client", given=lines).splitlines()

    assert {line.split()[0] for line in refused} == {"0", "1", "2"}, refused[:20]
    kinds = {event["type"] for event in events}
    assert kinds >= {
        "session.update",
        "input_audio_buffer.append",
        "conversation.item.create",
        "conversation.item.delete",
        "conversation.item.truncate",
        "response.create",
        "response.cancel",
        "input_audio_buffer.commit",
        "input_audio_buffer.clear",
    }
