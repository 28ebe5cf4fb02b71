"""`rtvoice.testing`: the sandbox in a test's own process."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from itertools import islice

import pytest

from messages import Reconnected, SendText, Turn
from rtvoice.testing import FaultError, SandboxServer, sandbox
from supervisor import Session
from tests.rig import TIMEOUT_S
from tests.sandbox.client import CLOCK, Client, said

__all__ = ["sandbox"]


def ask(server, text="whatever", **response):
    with Client(server.url) as client:
        client.configure(output_modalities=["text"], tools=[CLOCK])
        return client.ask(text, **response)


def test_a_test_says_what_is_answered(sandbox):
    sandbox.say("Forty-two.")

    assert said(ask(sandbox)) == "Forty-two."
    assert said(ask(sandbox, "thank you")) == "You are welcome."


def test_a_test_has_a_tool_called(sandbox):
    sandbox.call("get_current_time", zone="UTC")

    (call,) = ask(sandbox)["output"]

    assert (call["name"], call["arguments"]) == ("get_current_time", '{"zone": "UTC"}')


def test_a_test_has_several_tools_called_at_once(sandbox):
    sandbox.call_all(("get_current_time", {"zone": "UTC"}), ("get_weather", {}))

    calls = ask(sandbox)["output"]

    assert [call["name"] for call in calls] == ["get_current_time", "get_weather"]


def test_a_test_sees_what_was_received_and_sent(sandbox):
    ask(sandbox, "one two")

    item = sandbox.expect("conversation.item.create")["item"]
    assert item["content"][0]["text"] == "one two"
    assert sandbox.expect("response.done")["response"]["status"] == "completed"
    assert [event["type"] for event in sandbox.received] == [
        "session.update", "conversation.item.create", "response.create",
    ]  # fmt: skip
    assert sandbox.sent[0]["type"] == "session.created"
    assert sandbox.connections == 1


def test_each_event_is_expected_once(sandbox):
    ask(sandbox, "first")
    ask(sandbox, "second")

    texts = [
        sandbox.expect("conversation.item.create")["item"]["content"][0]["text"] for _ in range(2)
    ]

    assert texts == ["first", "second"]


def test_an_event_is_waited_for(sandbox):
    asking = threading.Timer(0.1, ask, (sandbox, "later"))
    asking.start()

    event = sandbox.expect(
        "conversation.item.create", lambda event: event["item"]["role"] == "user"
    )

    assert event["item"]["content"][0]["text"] == "later"
    asking.join()


def test_a_missing_event_is_reported_with_those_that_came(sandbox):
    ask(sandbox)

    with pytest.raises(AssertionError) as failed:
        sandbox.expect("input_audio_buffer.commit", timeout_s=0.05)

    assert str(failed.value).startswith("no input_audio_buffer.commit within 0.05 s. What came: ")
    assert "response.create, response.created" in str(failed.value)


def test_an_unknown_event_is_not_waited_for(sandbox):
    with pytest.raises(ValueError, match=r"no event 'response\.creat'"):
        sandbox.expect("response.creat")


def test_a_test_commands_a_connection_that_is_open(sandbox):
    with Client(sandbox.url) as client:
        client.expect("session.created")
        sandbox.say("Yes.")
        sandbox.misbehave("error server_error", "omit response.done")
        client.send("response.create")
        client.expect("rate_limits.updated")

    assert client.kinds()[1] == "error"
    assert "response.done" not in client.kinds()


def test_an_unknown_misbehaviour_is_refused(sandbox):
    with pytest.raises(FaultError, match="'explode' is not a valid fault"):
        sandbox.misbehave("explode")


def test_a_server_that_does_not_run_says_so():
    server = SandboxServer()

    with pytest.raises(RuntimeError, match="use it in a `with` statement"):
        server.say("hello")


def test_nothing_is_left_of_a_server_that_was_closed():
    before = set(threading.enumerate())
    with SandboxServer() as server:
        url = server.url
        with Client(url) as client:
            client.ask("thank you")

    server.close()
    with pytest.raises(ConnectionRefusedError):
        Client(url).__enter__()
    for thread in set(threading.enumerate()) - before:
        thread.join(TIMEOUT_S)  # that of a keepalive ends a moment after its connection
    assert set(threading.enumerate()) <= before


def test_servers_are_independent():
    with SandboxServer() as one, SandboxServer() as other:
        one.say("I am the one.")
        other.say("I am the other.")

        assert [said(ask(one)), said(ask(other))] == ["I am the one.", "I am the other."]


def test_a_session_is_tested_with_it(sandbox):
    sandbox.say("It is sunny.")
    with Session(server=sandbox.url, input="silence", output="null") as session:
        events = session.events(Turn)
        session.send(SendText("how is the weather", "text-1"))
        turns = [(turn.role, turn.text) for turn in islice(events, 2)]

    assert turns == [("user", "how is the weather"), ("assistant", "It is sunny.")]
    assert sandbox.of("session.update")[0]["session"]["type"] == "realtime"
    assert len(sandbox.audio) > 0


@pytest.mark.usefixtures("on_threads")
def test_a_session_survives_a_connection_that_drops_in_an_answer(sandbox):
    sandbox.say("One, two, three, four.")
    sandbox.misbehave("drop after response.output_audio.delta 2")
    with Session(server=sandbox.url, input="silence", output="null") as session:
        events = session.events(Reconnected)
        session.send(SendText("count", "text-1"))
        (reconnected,) = islice(events, 1)
        sandbox.expect("response.done")

    assert reconnected.state_restored
    assert sandbox.connections == 2


def test_it_needs_no_pytest():
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "from rtvoice.testing import SandboxServer\n"
        "with SandboxServer() as server: print(server.url)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.startswith("ws://127.0.0.1:")


def test_it_starts_quickly():
    taken = []
    for _ in range(3):
        began = time.monotonic()
        with SandboxServer():
            taken.append(time.monotonic() - began)

    assert min(taken) < 2.0  # 10 ms on an idle machine
