"""Misbehaviour on command, as a client meets it."""

from __future__ import annotations

import json
import socket
import time
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from rtvoice.sandbox.faults import GARBAGE
from rtvoice.sandbox.launch import start_sandbox
from rtvoice.testing import SandboxServer
from tests.sandbox.client import CLOCK, TIMEOUT_S, Client, said, silence, spoken

ASIDE = "conversation.item.input_audio_transcription"


@pytest.fixture(scope="module")
def url():
    with start_sandbox(0, 10, "--pace=0") as running:
        yield running.url


def faulty(url, *faults, **options):
    query = "&".join(f"misbehave={quote(fault)}" for fault in faults)
    return Client(f"{url}?{query}", **options)


def end_of(client):
    """Read until the connection ends; how it did."""
    try:
        while True:
            client.receive()
    except ConnectionClosed as closed:
        return closed


def command(client, fault, **fields):
    client.send("sandbox.misbehave", fault=fault, **fields)


# Ends.


def test_nothing_goes_wrong_by_itself(url):
    with Client(url) as client:
        assert said(client.ask("thank you")) == "You are welcome."


def test_a_connection_is_dropped_at_the_named_event(url):
    with faulty(url, "drop after response.created 2") as client:
        first = client.ask("thank you")
        client.send("response.create")
        end = end_of(client)

    assert first["status"] == "completed"
    assert end.rcvd is None
    assert client.kinds()[-1] == "response.created"
    assert client.kinds().count("response.created") == 2


def test_a_connection_is_dropped_before_the_named_event(url):
    with faulty(url, "drop before response.done") as client:
        client.type("thank you")
        client.send("response.create")
        end = end_of(client)

    assert end.rcvd is None
    assert "response.done" not in client.kinds()
    assert client.kinds()[-1] == "response.output_item.done"


def test_a_connection_is_dropped_when_the_client_sends_something(url):
    with faulty(url, "drop before conversation.item.create") as client:
        client.type("thank you")
        end = end_of(client)

    assert end.rcvd is None
    assert client.kinds() == ["session.created"]


def test_a_reset_is_one(url):
    with faulty(url, "reset after session.updated") as client:
        client.expect("session.created")
        client.send("session.update", session={"type": "realtime"})
        end = end_of(client)

    assert isinstance(end.__cause__, ConnectionResetError)


def test_a_connection_is_closed_with_a_code_and_a_reason(url):
    with faulty(url, "close 1011 keepalive ping timeout after response.created") as client:
        client.send("response.create")
        end = end_of(client)

    assert (end.rcvd.code, end.rcvd.reason) == (1011, "keepalive ping timeout")


def test_a_session_expires_when_it_is_told_to(url):
    with faulty(url, "expire after response.done") as client:
        client.ask("thank you")
        end = end_of(client)

    assert client.of("error")[0]["error"]["code"] == "session_expired"
    assert end.rcvd.code == 1001


def test_a_session_that_expires_soon_says_so_when_it_begins(url):
    with faulty(url, "expire 0.2") as client:
        left_s = client.receive()["session"]["expires_at"] - time.time()
        end = end_of(client)

    assert left_s < 2
    assert end.rcvd.code == 1001


# Silence.


def test_a_silent_server_answers_pings_and_nothing_else(url):
    with faulty(url, "silence before response.created") as client:
        client.type("thank you")
        client.expect("conversation.item.done")
        client.send("response.create")
        pong = client.socket.ping()
        answered = pong.wait(TIMEOUT_S)
        with pytest.raises(TimeoutError):
            client.socket.recv(0.3)

    assert answered


def test_a_silence_may_end(url):
    with faulty(url, "silence 0.3 after response.created") as client:
        began = time.monotonic()
        answer = client.ask("thank you")

    assert said(answer) == "You are welcome."
    assert time.monotonic() - began >= 0.3


def test_a_stalled_server_reads_nothing(url):
    with faulty(url, "stall after session.created", close_timeout=0) as client:
        client.expect("session.created")
        pong = client.socket.ping()
        raw = client.socket.socket
        raw.settimeout(1)
        with pytest.raises(TimeoutError):
            raw.sendall(bytes(64 * 1024 * 1024))

        assert not pong.is_set()


def test_a_stall_may_end(url):
    with faulty(url, "stall 0.3 after response.created") as client:
        began = time.monotonic()
        answer = client.ask("thank you")

    assert said(answer) == "You are welcome."
    assert time.monotonic() - began >= 0.3


def test_a_trickle_is_slow_and_whole(url):
    with faulty(url, "trickle 4000 after session.created") as client:
        client.expect("session.created")
        began = time.monotonic()
        client.send("session.update", session={"type": "realtime"})
        event = client.expect("session.updated")

    assert time.monotonic() - began >= len(json.dumps(event)) / 4000 * 0.7


# Wrong and strange frames.


@pytest.mark.parametrize("kind", sorted(set(GARBAGE) - {"frame", "utf8"}))
def test_garbage_comes_where_it_was_ordered_and_the_session_lives(url, kind):
    with faulty(url, f"garbage {kind} after response.output_audio.delta") as client:
        client.type("thank you")
        client.send("response.create")
        delta = client.expect("response.output_audio.delta")
        garbage = client.socket.recv()
        answer = client.expect("response.done")["response"]

    assert garbage == GARBAGE[kind](delta)
    assert answer["status"] == "completed"


def test_bytes_that_are_no_frame_end_the_connection(url):
    with faulty(url, "garbage frame after session.created") as client:
        end = end_of(client)

    assert end.sent.code == 1002


def test_text_that_is_no_utf_8_ends_the_connection(url):
    with faulty(url, "garbage utf8 after session.created") as client:
        end = end_of(client)

    assert end.sent.code == 1007


def test_a_frame_of_the_tests_own_is_sent(url):
    with faulty(url, 'send {"type": "hello", "after": 1} after session.created') as client:
        client.receive()

        assert client.receive() == {"type": "hello", "after": 1}


def test_an_error_is_sent_and_the_session_lives(url):
    with faulty(
        url, "error server_error The server had an error. after response.created"
    ) as client:
        answer = client.ask("thank you")
        (error,) = client.of("error")

    assert error["error"]["type"] == "server_error"
    assert error["error"]["message"] == "The server had an error."
    assert answer["status"] == "completed"


@pytest.mark.parametrize(
    "when", ["", " after response.created", " after response.output_audio.delta"]
)
def test_a_response_fails_with_a_code(url, when):
    with faulty(url, f"fail rate_limit_exceeded{when}") as client:
        failed = client.ask("tell me a story")
        after = client.ask("thank you")

    assert failed["status"] == "failed"
    assert failed["status_details"]["error"]["code"] == "rate_limit_exceeded"
    assert after["status"] == "completed"


def test_a_newer_service_has_more_than_one_knows(url):
    with faulty(url, "newer") as client:
        client.ask("thank you")

    assert all(
        "introduced_later" in each for each in client.received if "thought" not in each["type"]
    )
    assert client.of("response.thought.delta")
    assert {each["previous_item_id"] for each in client.of("conversation.item.added")} == {None}


def test_each_sentence_is_an_item_if_told_so(url):
    with faulty(url, "items") as client:
        answer = client.ask("hello")

    assert [each["content"][0]["transcript"].strip() for each in answer["output"]] == [
        "Hello.", "I am the sandbox.", "Say help to hear what I understand.",
    ]  # fmt: skip
    done = client.of("response.output_audio_transcript.done")
    assert [event["transcript"].strip() for event in done] == [
        each["content"][0]["transcript"].strip() for each in answer["output"]
    ]
    assert [event["output_index"] for event in done] == [0, 1, 2]
    assert len({event["item_id"] for event in done}) == 3


@pytest.mark.parametrize(
    ("fault", "item_id", "taken"),
    [
        ("ids", "t1", False),
        ("ids", "msg_" + 29 * "x", False),
        ("ids", "msg_1", True),
        ("ids own", "msg_1", False),
        ("ids own", None, True),
    ],
)
def test_a_strict_server_refuses_ids(url, fault, item_id, taken):
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hm"}]}
    with faulty(url, fault) as client:
        client.send("conversation.item.create", item={**item, "id": item_id} if item_id else item)
        if taken:
            client.expect("conversation.item.done")
        else:
            assert client.expect("error")["error"]["param"] == "item.id"


# Later, and in another order.


def test_a_latency_is_that_of_the_line_and_not_of_each_event(url):
    with faulty(url, "delay 0.4") as client:
        client.expect("session.created")
        began = time.monotonic()
        client.ask("count to twenty", output_modalities=["text"])
        took = time.monotonic() - began

    assert len(client.received) > 25
    assert 0.4 <= took < 0.4 * 25


def test_what_is_on_the_way_arrives_before_the_end(url):
    with faulty(url, "delay 0.3", "expire after response.done") as client:
        client.ask("thank you", output_modalities=["text"])
        end = end_of(client)

    assert client.kinds()[-1] == "error"
    assert end.rcvd.code == 1001


def test_an_event_comes_late_and_what_follows_it_after_it(url):
    with faulty(url, "delay 0.3 of response.output_item.done") as client:
        began = time.monotonic()
        client.ask("thank you")

    assert time.monotonic() - began >= 0.3
    assert client.kinds()[-2:] == ["response.output_item.done", "response.done"]


@pytest.mark.usefixtures("recogniser_installed")
def test_a_transcript_may_come_after_the_response(url):
    with faulty(url, f"delay response.done of {ASIDE}.delta") as client:
        client.configure(audio={"input": {"transcription": {"model": "gpt-transcribe"}}})
        client.hear(silence(600) + spoken("thank you") + silence(500))
        client.expect(f"{ASIDE}.completed")

    kinds = client.kinds()
    assert kinds.index("response.done") < kinds.index(f"{ASIDE}.delta")
    assert "".join(each["delta"] for each in client.of(f"{ASIDE}.delta")) == "thank you"


@pytest.mark.usefixtures("recogniser_installed")
def test_transcripts_may_come_in_the_wrong_order(url):
    with faulty(url, f"delay input_audio_buffer.cleared of {ASIDE}.completed 1") as client:
        client.configure(
            audio={"input": {"transcription": {"model": "whisper-1"}, "turn_detection": None}}
        )
        for words in ("hello", "goodbye"):
            client.hear(spoken(words))
            client.send("input_audio_buffer.commit")
            client.expect(f"{ASIDE}.delta")
        second = client.expect(f"{ASIDE}.completed")
        client.send("input_audio_buffer.clear")
        first = client.expect(f"{ASIDE}.completed")

    turns = [each["item_id"] for each in client.of("input_audio_buffer.committed")]
    assert [first["item_id"], second["item_id"]] == turns
    assert (first["transcript"], second["transcript"]) == ("hello", "goodbye")


def test_an_event_is_left_out(url):
    with faulty(url, "omit response.done 1") as client:
        client.type("thank you")
        client.send("response.create")
        client.expect("rate_limits.updated")
        client.ask("thank you")

    assert client.kinds().count("response.done") == 1
    assert client.kinds().count("response.created") == 2


def ends(client):
    wanted = ("conversation.item.done", "response.output_item.done", "rate_limits.updated")
    done = [each for each in client.kinds() if each in (*wanted, "response.done")]
    return tuple(done[1:])


def test_another_order_keeps_what_the_protocol_promises(url):
    orders = set()
    for seed in range(12):
        with faulty(url, f"reorder {seed}") as client:
            client.configure(output_modalities=["text"])
            answer = client.ask("what is your name")
            client.send("input_audio_buffer.clear")
            client.expect("input_audio_buffer.cleared")
        orders.add(ends(client))
        kinds = client.kinds()
        assert said(answer) == "My name is Sandbox."
        deltas = client.of("response.output_text.delta")
        assert "".join(each["delta"] for each in deltas) == "My name is Sandbox."
        assert kinds.index("response.created") < kinds.index("response.output_item.added")
        assert kinds.index("response.output_text.done") < kinds.index("response.output_item.done")
        assert kinds.index("response.output_item.done") < kinds.index("response.done")

    assert len(orders) > 2, orders


# The handshake.


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("refuse 401", 401, "invalid_api_key"),
        ("refuse 429", 429, "rate_limit_exceeded"),
        ("refuse 429 insufficient_quota", 429, "insufficient_quota"),
        ("refuse 503", 503, "server_error"),
    ],
)
def test_a_handshake_is_refused_as_the_service_does(url, fault, status, code):
    with pytest.raises(InvalidStatus) as refused, faulty(url, fault):
        pass

    response = refused.value.response
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/json"
    assert json.loads(response.body)["error"]["code"] == code


def test_a_handshake_is_dropped(url):
    with pytest.raises((InvalidMessage, ConnectionError, EOFError)), faulty(url, "refuse drop"):
        pass


def test_a_handshake_is_not_answered(url):
    with pytest.raises(TimeoutError), faulty(url, "refuse silence", open_timeout=0.3):
        pass


def test_a_misbehaviour_that_there_is_not_is_refused_in_words(url):
    with pytest.raises(HTTPError) as refused:
        urlopen(url.replace("ws:", "http:") + "?misbehave=explode", timeout=TIMEOUT_S)

    with refused.value as answer:
        assert answer.status == 400
        assert "Faults are: drop, reset" in answer.read().decode()


# The other ways to command it.


def test_an_event_commands_it_too(url):
    with Client(url) as client:
        client.expect("session.created")
        command(client, "drop after response.created")
        client.send("response.create")
        end_of(client)

    assert client.kinds() == ["session.created", "response.created"]


def test_an_event_that_commands_nothing_is_answered_with_an_error(url):
    with Client(url) as client:
        client.expect("session.created")
        command(client, "explode", event_id="mine")
        error = client.expect("error")["error"]

    assert (error["code"], error["param"], error["event_id"]) == ("invalid_value", "fault", "mine")


def test_text_that_has_the_word_in_it_commands_nothing(url):
    with Client(url) as client:
        assert said(client.ask('"sandbox.misbehave"')) == 'You said: "sandbox.misbehave"'


def test_the_command_line_has_it_for_every_connection():
    with start_sandbox(0, 10, "--misbehave=error server_error after session.created") as running:
        for _ in range(2):
            with Client(running.url) as client:
                assert client.expect("error")["error"]["code"] == "server_error"


def test_a_fault_for_the_next_connection_is_for_that_one_alone():
    with SandboxServer() as server:
        server.misbehave("close 1012 after session.created")
        with Client(server.url) as first:
            ended = end_of(first)
        with Client(server.url) as second:
            second.ask("thank you", output_modalities=["text"], tools=[CLOCK])

    assert ended.rcvd.code == 1012


def test_a_connection_that_is_over_is_not_commanded_any_more():
    with SandboxServer() as server:
        for _ in range(20):
            server.misbehave("drop after session.created")
            with Client(server.url) as client:
                assert end_of(client).rcvd is None


def test_refusals_are_counted_one_a_handshake():
    with SandboxServer() as server:
        server.misbehave("refuse 429", "refuse 503", "close 1012 after session.created")
        for status in (429, 503):
            with pytest.raises(InvalidStatus) as refused, Client(server.url):
                pass
            assert refused.value.response.status_code == status
        with Client(server.url) as client:
            assert end_of(client).rcvd.code == 1012


def test_a_client_that_goes_away_while_it_stalls_is_forgotten():
    with SandboxServer() as server:
        with Client(server.url) as client:
            client.expect("session.created")
            server.misbehave("stall 0.1")
            client.socket.socket.shutdown(socket.SHUT_RDWR)
        with Client(server.url) as other:
            assert said(other.ask("thank you", output_modalities=["text"])) == "You are welcome."
