"""The server as a client meets it: a real process, a real socket."""

from __future__ import annotations

import base64
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from rtvoice.sandbox.launch import start_sandbox
from tests.sandbox.client import CLOCK, MS, TIMEOUT_S, Client, said, silence, spoken

QUESTION = "what time is it"
TRANSCRIBED = {"audio": {"input": {"transcription": {"model": "gpt-transcribe"}}}}


def turn(words, voice="en-us"):
    return silence(600) + spoken(words, voice) + silence(500)


def transcript_of(client):
    kind = "conversation.item.input_audio_transcription.completed"
    return client.expect(kind)["transcript"]


def scaled(pcm, db):
    return (np.frombuffer(pcm, "<i2") * 10 ** (db / 20)).astype("<i2").tobytes()


# Hearing.


@pytest.mark.usefixtures("recogniser_installed")
@pytest.mark.parametrize("cut", [40 * MS, 20 * MS + 222, 10**9], ids=["40ms", "odd", "whole"])
@pytest.mark.parametrize("db", [0, -12, -24])
def test_the_same_words_are_heard_however_they_are_cut_and_how_loud(client, cut, db):
    client.configure(**TRANSCRIBED)

    client.hear(scaled(turn(QUESTION), db), cut)

    assert transcript_of(client) == QUESTION


@pytest.mark.usefixtures("recogniser_installed")
def test_a_spoken_question_is_answered_with_a_tool_and_then_aloud(client):
    client.configure(tools=[CLOCK], **TRANSCRIBED)

    client.hear(turn(QUESTION))
    call = client.expect("response.done")["response"]["output"][0]
    item = {"type": "function_call_output", "call_id": call["call_id"], "output": "14:05:09"}
    client.send("conversation.item.create", item=item)
    answer = client.answer()

    assert call["name"] == "get_current_time"
    assert said(answer) == "It is 14:05 and 9 seconds."
    assert sum(len(event["delta"]) for event in client.of("response.output_audio.delta")) > 50_000


@pytest.mark.usefixtures("recogniser_installed")
def test_words_that_are_no_phrase_are_not_understood(client):
    client.configure(**TRANSCRIBED)

    client.hear(turn("the quick brown fox jumps over the lazy dog"))

    assert transcript_of(client) == ""
    assert said(client.expect("response.done")["response"]) == "Sorry, I did not understand that."


@pytest.mark.usefixtures("recogniser_installed")
def test_push_to_talk_with_commit_and_create_in_one_breath(client):
    client.configure(audio={"input": {"turn_detection": None}})

    client.hear(spoken("what is your name"))
    client.send("input_audio_buffer.commit")
    client.send("response.create")

    assert said(client.expect("response.done")["response"]) == "My name is Sandbox."


@pytest.mark.usefixtures("recogniser_installed")
def test_replayed_audio_is_heard(client):
    audio = base64.b64encode(spoken("thank you")).decode()
    content = [{"type": "input_audio", "audio": audio}]

    item = {"type": "message", "role": "user", "content": content}
    client.send("conversation.item.create", item=item)

    assert said(client.answer()) == "You are welcome."


# Speaking.


def test_speech_interrupts_the_story(client):
    client.type("tell me a story")
    client.send("response.create")
    item_id = client.expect("response.output_audio.delta")["item_id"]

    client.hear(turn("stop"))
    done = client.expect("response.done")["response"]

    heard = "".join(e["delta"] for e in client.of("response.output_audio_transcript.delta"))
    assert done["status"] == "cancelled"
    assert done["status_details"]["reason"] == "turn_detected"
    assert done["output"][0]["status"] == "incomplete"
    assert said(done) == heard
    client.expect("response.done")
    assert client.of("response.output_audio.delta")[-1]["item_id"] != item_id


def test_after_cancel_no_sound_comes_and_the_next_answer_does(client):
    client.type("count to twenty")
    client.send("response.create")
    first = client.expect("response.output_audio.delta")["response_id"]

    client.send("response.cancel", response_id=first)
    done = client.expect("response.done")["response"]
    cancelled_at = len(client.received)
    client.ask("thank you")

    assert done["status_details"]["reason"] == "client_cancelled"
    assert not any(event.get("response_id") == first for event in client.received[cancelled_at:])


def test_a_truncated_item_has_the_length_that_was_heard(client):
    client.ask("what is your name")
    item_id = client.of("response.output_item.done")[0]["item"]["id"]

    client.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=300)
    client.expect("conversation.item.truncated")
    client.send("conversation.item.retrieve", item_id=item_id)
    part = client.expect("conversation.item.retrieved")["item"]["content"][0]

    assert len(part["audio"]) == 300 * MS * 4 // 3
    assert part["transcript"] is None


def test_long_speech_is_sent_faster_than_it_sounds_but_not_all_at_once(client):
    client.type("Say: nothing")
    began = time.monotonic()
    client.answer(instructions=f"Say: {'one two three four five. ' * 3}")

    took = time.monotonic() - began
    sound_s = sum(len(e["delta"]) for e in client.of("response.output_audio.delta")) * 0.75 / 48_000
    assert sound_s > 3
    assert took > sound_s / 4 - 1


def test_the_speed_of_the_session_changes_the_length_of_the_speech(client):
    def length(speed):
        client.configure(audio={"output": {"speed": speed}})
        before = len(client.received)
        client.answer(instructions="Say: Once upon a time.")
        return sum(
            len(e["delta"]) for e in client.received[before:] if e["type"].endswith("audio.delta")
        )

    assert length(0.5) > 1.5 * length(1.0) > 1.5 * length(1.5)


@pytest.mark.parametrize("kind", ["audio/pcmu", "audio/pcma"])
def test_g711_output_has_a_third_of_the_samples_and_half_of_their_bytes(client, kind):
    client.configure(audio={"output": {"format": {"type": kind}}})
    client.ask("what is your name")
    coded = sum(len(event["delta"]) for event in client.of("response.output_audio.delta")) * 3 // 4

    client.configure(audio={"output": {"format": {"type": "audio/pcm", "rate": 24000}}})
    before = len(client.received)
    client.ask("what is your name")
    pcm = sum(
        len(event["delta"]) * 3 // 4
        for event in client.received[before:]
        if event["type"] == "response.output_audio.delta"
    )

    assert abs(pcm / coded - 6) < 0.05


# Connections.


def test_beta_clients_are_sent_an_error_and_closed(sandbox):
    with Client(sandbox.url, additional_headers={"OpenAI-Beta": "realtime=v1"}) as beta:
        error = beta.receive()["error"]
        with pytest.raises(ConnectionClosed) as closed:
            beta.receive()

    assert error["code"] == "beta_api_shape_disabled"
    assert closed.value.rcvd.code == 4000
    assert closed.value.rcvd.reason == "invalid_request_error.beta_api_shape_disabled"


def test_browsers_get_their_subprotocol(sandbox):
    offered = ["realtime", "openai-insecure-api-key.ek_1"]

    with Client(sandbox.url, subprotocols=offered) as browser:
        assert browser.socket.subprotocol == "realtime"
        assert browser.receive()["type"] == "session.created"


def test_the_model_is_the_one_of_the_url(sandbox):
    with Client(f"{sandbox.url}?model=gpt-realtime-2.1-mini") as client:
        assert client.receive()["session"]["model"] == "gpt-realtime-2.1-mini"


def test_intent_transcription_is_a_transcription_session(sandbox):
    with Client(f"{sandbox.url}?intent=transcription") as client:
        assert client.receive()["session"]["type"] == "transcription"


def test_another_path_is_not_found(sandbox):
    with pytest.raises(HTTPError) as refused:
        urlopen(
            sandbox.url.replace("ws:", "http:").replace("/realtime", "/chat"), timeout=TIMEOUT_S
        )

    with refused.value as answer:
        assert answer.status == 404
        assert "/v1/realtime" in answer.read().decode()


def test_bad_frames_do_not_end_the_session(client):
    for frame in ("nonsense", b"\x00\x01", "[]", '{"type": "x"}', "{" * 1000):
        client.socket.send(frame)
        assert client.receive()["type"] == "error"

    assert said(client.ask("thank you")) == "You are welcome."


def test_an_append_of_15_mib_passes(client):
    client.configure(audio={"input": {"turn_detection": None}})

    client.hear(bytes(15 * 1024 * 1024), cut=10**9)
    client.send("input_audio_buffer.clear")

    assert client.receive()["type"] == "input_audio_buffer.cleared"


def test_a_client_that_goes_away_in_the_middle_harms_nobody(sandbox):
    for _ in range(3):
        with Client(sandbox.url) as rude:
            rude.send("response.create", response={"instructions": "Say: a b c"})
            rude.socket.socket.shutdown(socket.SHUT_RDWR)

    with Client(sandbox.url) as client:
        assert said(client.ask("thank you")) == "You are welcome."


def test_fifty_sessions_at_once_are_all_answered(sandbox):
    def converse(number):
        with Client(sandbox.url) as client:
            client.configure(output_modalities=["text"])
            client.hear(silence(200))
            return said(client.ask(f"I am number {number}"))

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(converse, range(50)))

    assert answers == [f"You said: I am number {number}" for number in range(50)]


def test_a_session_ends_at_its_maximum_duration():
    with start_sandbox(0, 10, "--max-session=0.2") as short, Client(short.url) as client:
        error = client.expect("error")["error"]
        with pytest.raises(ConnectionClosed) as closed:
            client.receive()

    assert error["code"] == "session_expired"
    assert closed.value.rcvd.code == 1001


# Without what is optional.


@pytest.fixture(scope="module")
def bare():
    """A sandbox that can neither recognise nor speak words."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RTVOICE_SANDBOX_LISTEN", "none")
        patch.setenv("RTVOICE_SANDBOX_VOICE", "builtin")
        with start_sandbox(0, 10, "--pace=0") as running:
            yield running


def test_without_a_recogniser_speech_is_measured_and_nothing_is_guessed(bare):
    words = spoken("what time is it")
    with Client(bare.url) as client:
        client.configure(tools=[CLOCK], **TRANSCRIBED)
        client.hear(silence(600) + words + silence(500))
        failed = client.expect("conversation.item.input_audio_transcription.failed")
        done = client.expect("response.done")["response"]

    told = float(said(done).removeprefix("I heard ").removesuffix(" seconds of speech."))
    assert failed["error"]["code"] == "transcription_unavailable"
    assert abs(told - len(words) / 48_000) < 0.4


def test_without_a_voice_there_are_tones_as_long_as_the_text(bare):
    with Client(bare.url) as client:
        client.ask("count to twenty")

    sound = sum(len(event["delta"]) for event in client.of("response.output_audio.delta"))
    assert 5 < sound * 0.75 / 48_000 < 20
