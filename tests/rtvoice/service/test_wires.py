"""The protocols of callers' sockets, without sockets."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rtvoice.service.call import Kept
from rtvoice.service.frames import BadFrameError, HungUp, Wire
from rtvoice.service.line import Line
from rtvoice.service.socket import Closed, Socket
from rtvoice.service.talk import Talk
from rtvoice.service.tokens import Journals, Token
from rtvoice.service.twilio import Twilio
from tests.loop import in_a_loop
from tests.rig import TIMEOUT_S

START = '{"event": "start", "streamSid": "MZ1", "start": {}}'


def played(ms: float, clears: int = 0) -> str:
    return json.dumps({"type": "played", "ms": ms, "clears": clears})


def test_what_was_played_counts_over_interruptions() -> None:
    talk = Talk()
    talk.greeted('{"rate": 8000}')
    heard = [talk.played_ms]
    talk.sound(bytes(8000))  # 500 ms
    talk.received(played(200))
    heard.append(talk.played_ms)
    told = talk.clear()
    talk.sound(bytes(1600))
    talk.received(played(450))  # it was sent before the caller knew of the interruption
    heard.append(talk.played_ms)
    talk.received(played(70, 1))
    heard.append(talk.played_ms)
    talk.received(played(9999, 1))
    heard.append(talk.played_ms)

    assert heard == [None, 200, 200, 270, 300]
    assert [json.loads(text) for text in told] == [{"type": "clear", "clears": 1}]


def test_marks_tell_what_the_telephone_has_played() -> None:
    line = Twilio()
    line.greeted(START)
    mark = line.sound(bytes(1600))[1]
    line.sound(bytes(1600))
    assert (line.played_ms, line.is_playing) == (0, True)
    line.received(mark)
    assert line.played_ms == 100
    line.clear()
    line.received('{"event": "mark", "mark": {"name": "2"}}')  # a clear returns it

    assert (line.played_ms, line.is_playing) == (100, False)
    line.sound(bytes(1600))
    assert line.received('{"event": "mark", "mark": {"name": "3"}}') is None
    assert line.played_ms == 200  # what was cleared does not count
    assert line.received('{"event": "stop", "stop": {}}') == HungUp()
    assert line.received('{"event": "dtmf", "dtmf": {"digit": "1"}}') is None


def test_a_parameter_of_the_stream_does_not_replace_the_ids_of_the_provider() -> None:
    own = {"callSid": "forged", "streamSid": "forged", "shop": "7"}
    start = {"streamSid": "MZ1", "callSid": "CA1", "customParameters": own}

    hello = Twilio().greeted(json.dumps({"event": "start", "start": start}))

    assert hello is not None
    assert hello.parameters == {"callSid": "CA1", "streamSid": "MZ1", "shop": "7"}


def test_sound_of_the_telephone_goes_both_ways() -> None:
    line = Twilio()
    line.greeted(START)
    frame = json.loads(line.sound(np.full(160, 1000, "<i2").tobytes())[0])
    back = line.received(json.dumps(frame))

    assert frame["streamSid"] == "MZ1"
    assert len(base64.b64decode(frame["media"]["payload"])) == 160
    assert isinstance(back, bytes)
    assert abs(int(np.frombuffer(back, "<i2")[0]) - 1000) < 64


NAMES = st.sampled_from(
    [
        *("event", "start", "media", "mark", "stop", "name", "payload", "streamSid"),
        *("mediaFormat", "customParameters", "callSid", "sampleRate"),
        *("type", "played", "ms", "clears", "rate", "token", "parameters"),
    ]
)
JSON = st.recursive(
    NAMES | st.text() | st.integers() | st.floats() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=8,
)


@pytest.mark.parametrize("make", [Talk, Twilio])
@given(frame=st.binary() | st.text() | JSON.map(json.dumps))
@example(frame='{"event": "start", "start": 5}')
@example(frame='{"event": "media", "media": {"payload": "\u00e9"}}')
def test_whatever_comes_is_understood_or_refused(make: Any, frame: bytes | str) -> None:
    wire: Wire = make()
    refusals = []
    for call in (wire.greeted, wire.received):
        try:
            call(frame)
        except BadFrameError as error:
            refusals.append(error)

    assert all(1000 < error.code < 1015 for error in refusals)
    assert all(10 < len(error.text.encode()) <= 123 for error in refusals)  # a close frame's most


def test_of_what_is_said_early_the_newest_five_seconds_are_kept() -> None:
    kept = Kept(8000)
    for number in range(600):
        kept.add(bytes([number % 256]) * 160)  # 10 ms

    whole = b"".join(kept.take())
    assert len(whole) == 5 * 16_000
    assert whole[-1] == 599 % 256
    assert kept.take() == []


class _Socket:
    def __init__(self) -> None:
        self.frames: list[Any] = []

    async def send(self, frames: Any) -> None:
        self.frames += frames


@in_a_loop
async def test_a_line_counts_what_was_heard_over_all_its_sockets() -> None:
    line, first, second = Line(8000), _Socket(), _Socket()
    talk, again = Talk(), Talk()
    talk.sample_rate = again.sample_rate = 8000
    line.attach(first, talk)  # type: ignore[arg-type]
    await line.play_chunk(bytes(1600))
    assert line.played_ms is None
    talk.received(played(60))
    assert line.played_ms == 60
    line.detach()
    await line.clear_buffer()
    line.attach(second, again)  # type: ignore[arg-type]
    assert line.played_ms == 100  # what the first had not played is not heard any more
    await line.play_chunk(bytes(1600))
    again.received(played(50))

    assert line.played_ms == 150


@in_a_loop
async def test_sound_waits_a_moment_for_a_caller_who_was_lost() -> None:
    line, again = Line(8000), _Socket()
    line.attach(_Socket(), Talk())  # type: ignore[arg-type]
    line.detach()
    playing = asyncio.ensure_future(line.play_chunk(b"\1\0" * 80))
    await asyncio.sleep(0)
    line.attach(again, Talk())  # type: ignore[arg-type]
    await asyncio.wait_for(playing, TIMEOUT_S)

    assert again.frames == [b"\1\0" * 80]


@pytest.mark.parametrize(
    ("event", "lost"),
    [
        ({"code": 1000, "reason": ""}, False),
        ({"code": 1001, "reason": ""}, False),  # the page was left
        ({"code": 1005, "reason": ""}, False),  # a close frame without a code
        ({"code": 1009, "reason": ""}, False),
        ({"code": 1005}, True),  # uvicorn's way to say that there was no close frame
        ({"code": 1006}, True),
        ({"code": 1011, "reason": "keepalive ping timeout"}, True),
    ],
)
@in_a_loop
async def test_a_socket_is_lost_if_nobody_has_closed_it(event: dict[str, Any], lost: bool) -> None:
    async def receive() -> Any:
        return {"type": "websocket.disconnect", **event}

    async def send(_: Any) -> None: ...

    with pytest.raises(Closed) as closed:
        await Socket({}, receive, send).frame()

    assert closed.value.lost is lost


@in_a_loop
async def test_a_server_that_cannot_refuse_with_a_status_closes_with_1013() -> None:
    sent: list[Any] = []

    async def send(event: Any) -> None:
        sent.append(event)

    async def receive() -> Any: ...

    await Socket({}, receive, send).refuse(503, "full")

    assert sent == [{"type": "websocket.close", "code": 1013, "reason": "full"}]


@in_a_loop
async def test_a_long_reason_is_cut_to_what_a_close_frame_takes() -> None:
    sent: list[Any] = []

    async def send(event: Any) -> None:
        sent.append(event)

    async def receive() -> Any: ...

    await Socket({}, receive, send).close(1011, "x" + "ü" * 100)

    assert sent == [{"type": "websocket.close", "code": 1011, "reason": "x" + "ü" * 59}]


def test_the_folder_of_journals_may_be_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert Journals("~/shop", 60).path("a") == tmp_path / "shop" / "a.jsonl"
    assert (tmp_path / "shop").is_dir()


def test_a_token_is_found_for_as_long_as_promised(tmp_path: Path) -> None:
    journals, token = Journals(tmp_path / "new", 60), Token("0123456789abcdef")
    journals.open("0123456789abcdef", token)
    assert journals.find(token.text) is None  # nothing was said yet
    journals.path("0123456789abcdef").write_text("")

    assert journals.find(token.text) == "0123456789abcdef"
    assert journals.find(token.text + "x") is None
    assert Journals(tmp_path / "new", -1).find(token.text) is None
    assert (
        token.text.partition(".")[2] not in (tmp_path / "new" / "0123456789abcdef.call").read_text()
    )
    journals.close("0123456789abcdef")
    assert journals.find(token.text) is None


def test_a_token_leads_to_no_other_folder(tmp_path: Path) -> None:
    elsewhere = str(tmp_path / "0123456789abcdef")
    journals, token = Journals(tmp_path / "new", 60), Token(elsewhere)
    journals.open(elsewhere, token)
    journals.path(elsewhere).write_text("")

    assert "." not in elsewhere
    assert (tmp_path / "0123456789abcdef.call").exists()
    assert journals.find(token.text) is None
