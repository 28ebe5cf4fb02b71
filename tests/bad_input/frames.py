"""Wrong events of a server, and wrong calls of tools."""

from __future__ import annotations

import base64
import json
import re

from messages import AssistantAudio, ToolAnswer
from tests.bad_input.rows import Outcome, World, row

_BYTES = 20 << 20


def _goes_on(text: str) -> Outcome:
    return Outcome(text, None)


@row("A frame that is not JSON, or not UTF-8")
def not_json(world: World) -> Outcome:
    return _goes_on(world.talk().raw('{"type": "response.done"', b"\xff\xfe\x00", b""))


@row("JSON that is not an object, or has no type")
def not_an_object(world: World) -> Outcome:
    return _goes_on(world.talk().raw('["response.done"]', "null", '{"type": 5}', '{"id": "x"}'))


@row("JSON that is nested 100 000 deep")
def nested(world: World) -> Outcome:
    deep = "[" * 100_000 + "]" * 100_000
    return _goes_on(world.talk().raw(f'{{"type": "unheard.of", "x": {deep}}}'))


@row("An event of an unknown type")
def unknown(world: World) -> Outcome:
    return _goes_on(world.talk().raw('{"type": "unheard.of", "value": [1, {"a": null}]}'))


@row("A known event without a required field")
def missing(world: World) -> Outcome:
    return _goes_on(world.talk().raw('{"type": "response.done"}'))


@row("A known event with a required field of the wrong type")
def wrong_type(world: World) -> Outcome:
    return _goes_on(world.talk().raw('{"type": "conversation.item.added", "item": 7}'))


def _answered(world: World, text: str, **response: object) -> Outcome:
    """Return what the user sees of an answer with these fields at its end."""
    talk, item = world.talk(), f"item_{abs(hash(text))}"
    connection = talk.server.connections[0]

    def speak() -> None:
        connection.say(text, bytes(480), item=item, done=False)
        ended = {"id": f"resp_{item}", "status": "completed", **response}
        connection.send_raw(json.dumps({"type": "response.done", "response": ended}))

    seen = talk.seen_of(speak)
    return _goes_on(re.sub(r"(?m)^assistant: .*\n", "", seen))


@row("A known event with another field of the wrong type")
def wrong_and_not_needed(world: World) -> Outcome:
    wrong = {"status_details": "unimplemented", "usage": {"input_tokens": -1}}
    return _answered(world, "Well", **wrong)


@row("Half a surrogate pair in a text")
def half_a_pair(world: World) -> Outcome:
    return _answered(world, "Party", output=[{"content": [{"transcript": "party \ud83d"}]}])


@row("A text with joiners (U+200C in Persian, U+200D in an emoji)")
def joiners(world: World) -> Outcome:
    talk, text = (
        world.talk(),
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f469\u200d\U0001f680",
    )
    connection = talk.server.connections[0]
    return _goes_on(talk.seen_of(lambda: connection.say(text, bytes(480), item="item_joined")))


@row("A number out of all bounds")
def out_of_bounds(world: World) -> Outcome:
    kind = "input_audio_buffer.speech_started"
    return _goes_on(
        world.talk().raw(
            f'{{"type": "{kind}", "item_id": "item_far", "audio_start_ms": 1e300}}',
            '{"type": "input_audio_buffer.speech_stopped", "item_id": "item_far"}',
        )
    )


@row("The id of a call that another call has, or none")
def call_id_again(world: World) -> Outcome:
    talk = world.talk()
    connection = talk.server.connections[0]
    before = len(talk.sitting.of(ToolAnswer))

    def call() -> None:
        for number, call_id in enumerate(("call_again", "call_again", "", "")):
            connection.call("add", f'{{"a": {number}, "b": 1}}', call_id=call_id, item=f"i{number}")

    text = talk.seen_of(call, lambda: len(talk.sitting.of(ToolAnswer)) - before >= 4)
    return _goes_on(text)


def _delta(item: str, audio: object) -> str:
    ids = {"response_id": f"resp_{item}", "item_id": item, "output_index": 0, "content_index": 0}
    return json.dumps({"type": "response.output_audio.delta", "delta": audio, **ids})


@row("Audio that is not base64")
def not_base64(world: World) -> Outcome:
    return _goes_on(world.talk().raw(_delta("item_base64", "!!!!")))


def _sound(world: World, item: str) -> bytes:
    told = world.talk().sitting.of(AssistantAudio)
    return b"".join(audio.pcm for audio in told if audio.item_id == item)


def _spoken(world: World, item: str, *parts: bytes) -> Outcome:
    """Return what the user sees of an answer whose sound comes in these parts."""
    talk, size = world.talk(), sum(map(len, parts))
    connection = talk.server.connections[0]

    def speak() -> None:
        connection.say(item, b"", item=item, done=False)
        for part in parts:
            connection.send_raw(_delta(item, base64.b64encode(part).decode()))
        connection.finish(item, item=item)

    text = talk.seen_of(speak, lambda: len(_sound(world, item)) >= size)
    return _goes_on(text.replace(f"assistant: {item}\n", ""))


@row("Audio of an odd number of bytes")
def odd(world: World) -> Outcome:
    sound = bytes(range(1, 11))

    outcome = _spoken(world, "item_odd", sound[:5], sound[5:])

    assert _sound(world, "item_odd") == sound, "no byte is lost, and none comes twice"
    return outcome


@row("An event of 20 MB")
def huge(world: World) -> Outcome:
    sound = bytes(_BYTES * 3 // 4)

    outcome = _spoken(world, "item_huge", sound)

    assert _sound(world, "item_huge") == sound
    return outcome


def _error(world: World, **body: object) -> Outcome:
    talk = world.talk()
    body = {"type": "invalid_request_error", "param": None, "event_id": None, **body}
    return _goes_on(talk.seen_of(lambda: talk.server.connections[0].tell("error", error=body)))


@row("An unknown error of the server")
def unknown_error(world: World) -> Outcome:
    return _error(world, code="never_heard_of", message="The moon is in the wrong phase.")


@row("An event of before general availability")
def beta(world: World) -> Outcome:
    return _goes_on(world.talk().raw('{"type": "response.audio.delta", "delta": "AAAA"}'))


@row("An error that is a text")
def text_as_error(world: World) -> Outcome:
    raw = '{"type": "error", "error": "The quota of the gateway is used up."}'
    return _goes_on(world.talk().raw(raw))


@row("rate_limit_exceeded, as an event")
def rate_limit(world: World) -> Outcome:
    return _error(world, code="rate_limit_exceeded", message="Rate limit reached: 3 per minute.")


@row("A setting that the server refuses")
def refused_setting(world: World) -> Outcome:
    event_id = world.talk().server.connections[0].of("session.update")[0]["event_id"]
    return _error(
        world,
        code="invalid_value",
        message="Invalid value: 'nobody'.",
        param="session.audio.output.voice",
        event_id=event_id,
    )


def _call(world: World, name: str, arguments: str) -> Outcome:
    talk, call_id = world.talk(), f"call_{name}"
    connection = talk.server.connections[0]

    text = talk.seen_of(
        lambda: connection.call(name, arguments, call_id=call_id),
        lambda: any(answer.call_id == call_id for answer in talk.sitting.of(ToolAnswer)),
    )

    told = connection.expect(
        "conversation.item.create", lambda event: event["item"].get("call_id") == call_id
    )
    answer = told["item"]["output"]
    assert answer in text or answer[:100] in text, "the model is told what the user sees"
    return _goes_on(text)


@row("A call of a tool that does not exist")
def unknown_tool(world: World) -> Outcome:
    return _call(world, "open_the_door", "{}")


@row("A tool's argument of the wrong type")
def wrong_argument(world: World) -> Outcome:
    return _call(world, "add", '{"a": 1, "b": "two"}')


@row("A tool's arguments that are not JSON")
def arguments_not_json(world: World) -> Outcome:
    return _call(world, "adjust_volume", '{"level": ')


@row("A tool that raises")
def tool_raises(world: World) -> Outcome:
    return _call(world, "divide", '{"a": 1, "b": 0}')
