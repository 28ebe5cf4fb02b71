"""Each component is broken in a running conversation, in three ways, and *works again*."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from messages import CapturedAudio, DeadLetter, PlaybackEnded, ToolAnswer, Turn
from tests.conversation import Conversation, noise, wav_channels
from tests.fake_server import FakeServer

FAULTS = ["raise", "SIGKILL", "SIGSTOP"]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


def test_a_broken_microphone_is_heard_again(server: FakeServer) -> None:
    with Conversation(server) as talk:
        for number, fault in enumerate(FAULTS):
            talk.break_it("microphone", fault)
            mark = noise(200, seed=number)

            talk.speak(mark)

            server.wait_for(lambda mark=mark: mark in server.connections[0].audio)
        assert len(server.connections) == 1


def test_a_broken_speaker_plays_what_comes_after_once(server: FakeServer) -> None:
    with Conversation(server) as talk:
        for number, fault in enumerate(FAULTS):
            talk.break_it("speaker", fault)
            mark = noise(300, seed=number)

            talk.connection.say("Hello.", mark, item=f"item_{number}")

            talk.wait_for(lambda mark=mark: mark in talk.played())
            assert talk.played().count(mark[:480]) == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_speech_goes_on_when_the_speaker_breaks_in_the_middle_of_it(
    server: FakeServer, fault: str
) -> None:
    with Conversation(server) as talk:
        speech = [noise(100, seed=number) for number in range(20)]
        talk.connection.say("A long story.", b"".join(speech), item="item_1")
        talk.wait_for(lambda: speech[4] in talk.played())

        talk.break_it("speaker", fault)

        talk.wait_for(lambda: speech[-1] in talk.played())
        played = talk.played()
        missing = [number for number, part in enumerate(speech) if part not in played]
        assert len(missing) <= 5, f"lost {missing}"
        assert all(played.count(part[:480]) <= 2 for part in speech)


def test_a_broken_connection_component_is_in_the_conversation_again(server: FakeServer) -> None:
    with Conversation(server) as talk:
        talk.connection.hear("user_1", "My name is Ada.")
        talk.connection.say("Hello Ada.", noise(100, seed=99), item="answer_1")
        talk.wait_for(lambda: len(talk.of(Turn)) == 2)

        talk.break_it("realtime", "raise")
        mark = noise(200, seed=0)
        talk.speak(mark)
        server.wait_for(lambda: mark in server.connections[0].audio)
        assert len(server.connections) == 1, "a raise keeps the socket"

        for number, fault in ((1, "SIGKILL"), (2, "SIGSTOP")):
            talk.break_it("realtime", fault)
            connection = server.connection(number)
            connection.expect("conversation.item.create", lambda e: e["item"]["id"] == "answer_1")
            mark = noise(200, seed=number)
            talk.speak(mark)
            server.wait_for(lambda mark=mark, c=connection: mark in c.audio)
            texts = [
                (event["item"]["role"], event["item"]["content"][0]["text"])
                for event in connection.of("conversation.item.create")
            ]
            assert texts == [("user", "My name is Ada."), ("assistant", "Hello Ada.")]
        assert len(talk.of(Turn)) == 2, "nothing is told twice"


def test_broken_tools_answer_each_call_once(server: FakeServer) -> None:
    with Conversation(server) as talk:
        for number, fault in enumerate(["none", *FAULTS]):
            if fault != "none":
                talk.break_it("tools", fault)

            talk.connection.call("get_current_time", "{}", call_id=f"call_{number}")

            talk.expect(ToolAnswer, lambda answer, n=number: answer.call_id == f"call_{n}")
        talk.connection.expect(
            "conversation.item.create", lambda e: e["item"].get("call_id") == "call_3"
        )
        answered = [
            event["item"]["call_id"]
            for event in talk.connection.of("conversation.item.create")
            if event["item"]["type"] == "function_call_output"
        ]
        assert answered == [f"call_{number}" for number in range(4)]


def test_a_broken_history_has_every_turn_once_and_in_order(server: FakeServer) -> None:
    with Conversation(server) as talk:
        expected = []
        for number, fault in enumerate(["none", *FAULTS]):
            if fault != "none":
                talk.break_it("history", fault)
            talk.connection.hear(f"user_{number}", f"Question {number}")
            talk.connection.say(f"Answer {number}", noise(40, seed=number), item=f"answer_{number}")
            expected += [("user", f"Question {number}"), ("assistant", f"Answer {number}")]
            talk.wait_for(lambda n=number: len(talk.of(Turn)) == 2 * n + 2)
            talk.expect(PlaybackEnded, lambda end, n=number: end.item_id == f"answer_{n}")

        assert [(turn.role, turn.text) for turn in talk.of(Turn)] == expected
        talk.connection.drop()
        replayed = server.connection(1)
        replayed.expect("conversation.item.create", lambda e: e["item"]["id"] == "answer_3")
        ids = [event["item"]["id"] for event in replayed.of("conversation.item.create")]
        assert ids == [f"{who}_{n}" for n in range(4) for who in ("user", "answer")]


def test_a_broken_recorder_has_known_audio_at_its_time(server: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "recording.wav"
    marks = []
    with Conversation(server, CapturedAudio, recording_path=str(path)) as talk:
        for number, fault in enumerate(FAULTS):
            talk.break_it("recorder", fault)
            marks.append(noise(80, seed=number))
            talk.speak(marks[-1])
        server.wait_for(lambda: marks[-1] in server.connections[0].audio)
        blocks = talk.of(CapturedAudio)
        assert {letter.message for letter in talk.of(DeadLetter)} == {"Inject"}

    left, _ = wav_channels(path)
    for mark in marks:
        block = next(block for block in blocks if mark[:1000] in block.pcm)
        expected = block.first_sample + block.pcm.index(mark[:1000]) // 2
        assert left.index(mark) // 2 == expected
