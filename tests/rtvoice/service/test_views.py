"""What a caller with a view is sent, and what such a caller may ask for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rtvoice import Agent
from rtvoice.service import CallInfo, Service
from rtvoice.testing import SandboxServer
from tests.listening import sandbox
from tests.loop import in_a_loop
from tests.rig import TIMEOUT_S
from tests.rtvoice.service.stage import Caller, serving

__all__ = ["sandbox"]

SECRETS = ("sk-canary-key", "canary instructions", "canary prompt")


def service_for(sandbox: SandboxServer, **options: Any) -> Service:
    """Return a service without limits that depend on this machine."""

    def make_agent(call: CallInfo) -> Agent:
        return Agent(
            "Answer by these canary instructions.",
            server=sandbox.url,
            api_key="sk-canary-key",
            inactivity_timeout_s=None,
            transcription_model="gpt-transcribe",
            transcription_prompt="a canary prompt",
        )

    return Service(make_agent, **{"cpu_limit": None, "lag_limit_ms": None, **options})


class Viewer:
    """A caller with a view, and what it sees: its frames, folded."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    @property
    def frames(self) -> list[dict[str, Any]]:
        return [told for told in self.caller.told if told["type"] == "view"]

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The talk as it is shown."""
        shown: list[dict[str, Any]] = []
        for frame in self.frames:
            if frame.get("whole"):
                shown = []
            shown = [each for each in shown if each["id"] not in frame.get("removed", ())]
            for entry in frame.get("entries", ()):
                shown = [each for each in shown if each["id"] != entry["id"]]
                ids = [each["id"] for each in shown]
                at = ids.index(entry["after"]) + 1 if entry["after"] in ids else len(shown)
                shown.insert(at, entry)
        return shown

    def section(self, name: str) -> Any:
        """The newest state of a section; None: it was never sent."""
        return next((frame[name] for frame in reversed(self.frames) if name in frame), None)

    async def until(self, condition: Any) -> None:
        """Wait until what is seen fulfils a condition."""

        def look() -> bool:
            return bool(condition(self)) or self.caller.code is not None

        news = self.caller._news
        async with news, asyncio.timeout(3 * TIMEOUT_S):
            await news.wait_for(look)
        assert condition(self), f"closed: {self.caller.code} {self.caller.reason}"

    async def phase(self, phase: str) -> None:
        await self.until(lambda view: (view.section("state") or {}).get("phase") == phase)

    async def send(self, **frame: Any) -> None:
        await self.caller.socket.send(json.dumps(frame))


@contextlib.asynccontextmanager
async def viewing(sandbox: SandboxServer, scope: str) -> AsyncIterator[Viewer]:
    """Serve callers a view, and call."""
    async with (
        serving(service_for(sandbox, view=scope)) as stage,
        stage.caller() as caller,
    ):
        await caller.hello(view=True)
        yield Viewer(caller)


@in_a_loop
async def test_a_caller_sees_what_was_heard_of_each_answer(sandbox: SandboxServer) -> None:
    async with viewing(sandbox, "all") as view:
        await view.phase("listening")
        await view.send(type="say", text="what is your name")
        answer = {"kind": "assistant", "text": "My name is Sandbox.", "heard": 19}
        await view.until(lambda view: any(answer.items() <= e.items() for e in view.entries))

    assert view.caller.told[0]["view"] == "all"
    assert view.frames[0]["whole"] is True
    assert [frame.get("whole") for frame in view.frames[1:]] == [None] * len(view.frames[1:])
    assert [(each["kind"], each["text"]) for each in view.entries] == [
        ("user", "what is your name"),
        ("assistant", "My name is Sandbox."),
    ]
    phases = [frame["state"]["phase"] for frame in view.frames if "state" in frame]
    assert phases[0] == "starting"
    assert {"thinking", "speaking"} <= set(phases)
    assert {each["name"] for each in view.section("processes")} >= {"speaker", "supervisor"}
    events = [event["event"] for frame in view.frames for event in frame.get("events", ())]
    assert {"session_started", "turn", "playback_ended"} <= set(events)


@in_a_loop
async def test_neither_key_nor_instructions_are_sent(sandbox: SandboxServer) -> None:
    async with viewing(sandbox, "all") as view:
        await view.phase("listening")
        await view.send(type="say", text="what is your name")
        await view.until(lambda view: any(each["kind"] == "assistant" for each in view.entries))
        await view.send(type="stop")
        await view.caller.closed()

    assert len(view.frames) > 3
    assert [secret for secret in SECRETS if secret in json.dumps(view.caller.told)] == []


@in_a_loop
async def test_a_stranger_sees_the_talk_and_nothing_else(sandbox: SandboxServer) -> None:
    sandbox.call("get_current_time")
    async with viewing(sandbox, "talk") as view:
        await view.phase("listening")
        await view.send(type="say", text="what time is it")
        await view.until(lambda view: any(each.get("heard") for each in view.entries))
        await view.send(type="kill", component="speaker")
        end = await view.caller.closed()

    sections = {name for frame in view.frames for name in frame}
    assert sections <= {"type", "whole", "entries", "removed", "state", "levels", "session"}
    assert {each["kind"] for each in view.entries} == {"user", "assistant"}
    assert "server" not in view.section("session")
    assert end == (1008, "this service lets no caller kill components")


@in_a_loop
async def test_a_view_that_the_service_does_not_show_is_refused(sandbox: SandboxServer) -> None:
    async with serving(service_for(sandbox)) as stage, stage.caller() as caller:
        await caller.socket.send('{"rate": 24000, "view": true}')
        end = await caller.closed()

    assert end == (1008, 'this service shows no view; leave "view" out of the hello')


@in_a_loop
async def test_memory_of_every_process_is_seen_also_of_the_supervisor(
    sandbox: SandboxServer,
) -> None:
    def measured(view: Viewer) -> set[str]:
        frames = [each for frame in view.frames for each in frame.get("processes", ())]
        return {each["name"] for each in frames if each.get("memory_bytes")}

    async with viewing(sandbox, "all") as view:
        await view.until(lambda view: {"speaker", "supervisor"} <= measured(view))


@in_a_loop
async def test_a_component_that_a_caller_kills_comes_back(sandbox: SandboxServer) -> None:
    def is_back(view: Viewer) -> bool:
        rows = {each["name"]: each for each in view.section("processes")}
        return bool(rows["speaker"].get("restarts") == 1 and rows["speaker"]["state"] == "up")

    async with viewing(sandbox, "all") as view:
        await view.phase("listening")
        await view.send(type="kill", component="speaker")
        await view.until(is_back)
        await view.send(type="kill", component="nobody")
        refused = await view.caller.expect("refused")
        await view.send(type="say", text="what is your name")
        await view.caller.hears(9600)

    assert refused["text"] == "there is no process nobody"


def image(side: int) -> bytes:
    """Return a PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(3 * side) for _ in range(side)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@in_a_loop
async def test_an_image_is_shown_to_the_model(sandbox: SandboxServer) -> None:
    data = image(8)
    async with viewing(sandbox, "talk") as view:
        await view.phase("listening")
        await view.send(type="image", bytes=len(data), text="What is this?")
        await view.caller.socket.send(data)
        await view.until(lambda view: any(each.get("image") for each in view.entries))
        await view.send(type="image", bytes=4)
        await view.caller.socket.send(b"GIF8")
        refused = await view.caller.expect("refused")

    assert "neither PNG nor JPEG" in refused["text"]
    shown = [e for e in sandbox.of("conversation.item.create") if "input_image" in json.dumps(e)]
    assert len(shown) == 1


@in_a_loop
async def test_mute_volume_speed_and_interruption_do_what_they_say(sandbox: SandboxServer) -> None:
    async with viewing(sandbox, "talk") as view:
        await view.phase("listening")
        await view.send(type="mute", muted=True)
        await view.phase("muted")
        await view.send(type="mute", muted=False)
        await view.send(type="volume", volume=0.5)
        await view.send(type="speed", speed=1.2)
        changed = {"muted": False, "volume": 0.5, "speed": 1.2}
        await view.until(lambda view: changed.items() <= view.section("state").items())
        await view.send(type="volume", volume=7)
        refused = await view.caller.expect("refused")
        await view.send(type="say", text="tell me a story")
        await view.caller.hears(9600)
        await view.send(type="interrupt")
        await view.until(lambda v: any(each.get("state") == "interrupted" for each in v.entries))

    assert refused["text"].startswith("volume: 7")


WRONG: list[tuple[list[str | bytes], int, str]] = [
    (['{"type": "sing"}'], 1007, 'unknown "type" of a frame; allowed: played, say, '),
    (['{"type": "say"}'], 1007, "a frame say is not valid: Object missing required field text"),
    (['{"type": "say", "text": ""}'], 1007, "a frame say is not valid: "),
    (['{"type": "say", "text": "a", "to": "b"}'], 1007, "a frame say is not valid: "),
    (['{"type": "mute", "muted": "yes"}'], 1007, "a frame mute is not valid: "),
    (['{"type": "volume", "volume": "loud"}'], 1007, "a frame volume is not valid: "),
    (['{"type": "image", "bytes": 5000000}'], 1007, "a frame image is not valid: "),
    (
        ['{"type": "image", "bytes": 3}', b"abcd"],
        1007,
        "an image of 3 bytes was announced, and one of 4 came",
    ),
    (
        ['{"type": "image", "bytes": 3}', '{"type": "interrupt"}'],
        1007,
        "the image of 3 bytes must follow its announcement at once",
    ),
]


@pytest.mark.parametrize(("frames", "code", "says"), WRONG)
@in_a_loop
async def test_a_frame_that_is_no_command_ends_the_call_with_a_sentence(
    sandbox: SandboxServer, frames: list[str | bytes], code: int, says: str
) -> None:
    async with (
        serving(service_for(sandbox, view="all")) as stage,
        stage.caller() as caller,
    ):
        await caller.hello(view=True)
        for frame in frames:
            await caller.socket.send(frame)
        end = await caller.closed()

    assert end[0] == code
    assert end[1].startswith(says)


@in_a_loop
async def test_a_caller_whose_page_is_loaded_again_goes_on_and_sees_all_of_it(
    sandbox: SandboxServer,
) -> None:
    async with serving(service_for(sandbox, view="all")) as stage:
        async with stage.caller() as caller:
            hello = await caller.hello(view=True)
            view = Viewer(caller)
            await view.phase("listening")
            await view.send(type="say", text="what is your name")
            await view.until(lambda view: any(each.get("heard") for each in view.entries))
            await caller.socket.close(1001)
            await stage.state("lost")
        async with stage.caller() as again:
            back = await again.hello(view=True, token=hello["token"])
            seen = Viewer(again)
            await seen.until(lambda view: view.frames)
            await seen.send(type="stop")
            end = await again.closed()

    assert back["resumed"]
    assert [each["kind"] for each in seen.frames[0]["entries"]][:2] == ["user", "assistant"]
    assert end[0] == 1000
    assert seen.section("state")["phase"] == "ended"


@in_a_loop
async def test_a_start_that_fails_is_seen_with_its_whole_sentence(sandbox: SandboxServer) -> None:
    def make_agent(call: CallInfo) -> Agent:
        missing = "a_module_with_a_name_so_long_that_no_close_frame_could_carry_the_sentence"
        return Agent(server=sandbox.url, tools=f"{missing}:tools")

    service = Service(make_agent, cpu_limit=None, lag_limit_ms=None, view="talk")
    async with serving(service) as stage, stage.caller() as caller:
        await caller.hello(view=True)
        end = await caller.closed()

    state = Viewer(caller).section("state")
    assert end[0] == 1011
    assert state["phase"] == "failed"
    assert "so_long_that_no_close_frame_could_carry_the_sentence" in state["failure"]
    assert len(state["failure"]) > 125


@in_a_loop
async def test_an_answer_is_interrupted_when_another_socket_takes_over(
    sandbox: SandboxServer,
) -> None:
    async with (
        serving(service_for(sandbox, view="talk")) as stage,
        stage.caller() as caller,
        stage.caller() as again,
    ):
        hello = await caller.hello(view=True)
        view = Viewer(caller)
        await view.phase("listening")
        await view.send(type="say", text="tell me a story")
        await caller.hears(9600)
        await again.hello(view=True, token=hello["token"])
        newer = Viewer(again)
        await newer.until(lambda view: any(e.get("state") == "interrupted" for e in view.entries))
        await newer.phase("listening")
