"""Each component is broken in a running conversation, in every possible way, and *works again*.

Being alive is never enough: audio made after the fault must arrive, a call must be answered, a turn
must be published. Processes are forked and, for one fault or with ``--long`` for all, not forked.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from actors.realtime.core.restore import wire_id
from messages import (
    AudioLost,
    CapturedAudio,
    ComponentCrashed,
    DeadLetter,
    Notice,
    PlaybackEnded,
    Reconnected,
    SendText,
    ToolAnswer,
    Turn,
)
from messages.transport import forking, spawning
from tests.conversation import Conversation, Typed, noise, wav_channels
from tests.fake_server import FakeServer
from tests.messages.transport.test_forking import start_server
from tests.rig import until
from tests.test_command import needs_speech

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
RAISED = ["raise", "system-exit", "raise-on-open", "raise-on-close"]
"""These leave the process, and with it the websocket."""
DIED = ["exit", "segfault", "memory", "torn-frame", "SIGKILL"]
HUNG = ["hang", "gil", "SIGSTOP"]
FAULTS = [*RAISED, *DIED, *HUNG]
both_ways = pytest.mark.parametrize(
    "faults",
    [
        pytest.param(("fork", FAULTS), id="forked"),
        pytest.param(("popen", ["SIGKILL"]), id="not forked"),
        pytest.param(("popen", FAULTS), id="not forked, all", marks=pytest.mark.long),
    ],
    indirect=True,
)


@pytest.fixture
def faults(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Return the faults to try, and see that processes are started in the way that is asked for."""
    way, chosen = request.param
    popen = mock.Mock(wraps=spawning._popen)
    monkeypatch.setattr(spawning, "_popen", popen)
    monkeypatch.setenv("RTVOICE_FORK", "0" if way == "popen" else "")
    can_fork = forking.available()
    if can_fork:
        start_server()
    yield chosen
    assert popen.called != can_fork


# What is broken has a process, what goes on meanwhile needs none.
pytestmark = pytest.mark.usefixtures("on_threads")


@both_ways
@pytest.mark.processes("microphone")
def test_a_broken_microphone_is_heard_again(server: FakeServer, faults: list[str]) -> None:
    with Conversation(server) as talk:
        for number, fault in enumerate(faults):
            talk.break_it("microphone", fault)
            mark = noise(200, seed=number)

            talk.speak(mark)

            server.connection(0)
            server.wait_for(lambda mark=mark: mark in server.connections[0].audio)
        assert len(server.connections) == 1


@both_ways
@pytest.mark.processes("speaker")
def test_a_broken_speaker_plays_what_comes_after_once(
    server: FakeServer, faults: list[str]
) -> None:
    with Conversation(server) as talk:
        for number, fault in enumerate(faults):
            talk.break_it("speaker", fault)
            mark = noise(300, seed=number)

            talk.connection.say("Hello.", mark, item=f"item_{number}")

            talk.wait_for(lambda mark=mark: mark in talk.played())
            assert talk.played().count(mark[:480]) == 1


@pytest.mark.processes("speaker")
def test_speech_goes_on_when_the_speaker_breaks_in_the_middle_of_it(server: FakeServer) -> None:
    with Conversation(server) as talk:
        for story, fault in enumerate(["raise", "SIGKILL", "SIGSTOP"]):
            speech = [noise(100, seed=20 * story + number) for number in range(20)]
            talk.connection.say("A long story.", b"".join(speech), item=f"item_{story}")
            talk.wait_for(lambda part=speech[4]: part in talk.played())

            talk.break_it("speaker", fault)

            talk.wait_for(lambda part=speech[-1]: part in talk.played())
            played = talk.played()
            missing = [number for number, part in enumerate(speech) if part not in played]
            assert len(missing) <= 5, f"{fault} lost {missing}"
            assert all(played.count(part[:480]) <= 2 for part in speech)


@both_ways
@pytest.mark.processes("realtime")
def test_a_broken_connection_component_is_in_the_conversation_again(
    server: FakeServer, faults: list[str]
) -> None:
    with Conversation(server) as talk:
        talk.connection.hear("user_1", "My name is Ada.")
        talk.connection.say("Hello Ada.", noise(100, seed=99), item="answer_1")
        talk.wait_for(lambda: len(talk.of(Turn)) == 2)

        for number, fault in enumerate(fault for fault in RAISED[:2] if fault in faults):
            talk.break_it("realtime", fault)
            mark = noise(200, seed=number)
            talk.speak(mark)
            server.wait_for(lambda mark=mark: mark in server.connections[0].audio)
        assert len(server.connections) == 1, "a raise keeps the socket"

        for number, fault in enumerate(
            (fault for fault in [*DIED, *HUNG] if fault in faults), start=1
        ):
            talk.break_it("realtime", fault)
            connection = server.connection(number)
            connection.expect(
                "conversation.item.create", lambda e: e["item"]["id"] == wire_id("answer_1")
            )
            mark = noise(200, seed=10 + number)
            talk.speak(mark)
            server.wait_for(lambda mark=mark, c=connection: mark in c.audio)
            texts = [
                (event["item"]["role"], event["item"]["content"][0]["text"])
                for event in connection.of("conversation.item.create")
            ]
            assert texts == [("user", "My name is Ada."), ("assistant", "Hello Ada.")]
        assert len(talk.of(Turn)) == 2, "nothing is told twice"


@pytest.mark.processes("realtime")
def test_a_connection_component_that_fails_as_it_starts_or_ends_is_there_again(
    server: FakeServer,
) -> None:
    with Conversation(server) as talk:
        for number, fault in enumerate(RAISED[2:]):
            talk.break_it("realtime", fault)
            mark = noise(200, seed=number)

            talk.speak(mark)

            server.wait_for(lambda m=mark: any(m in made.audio for made in server.connections))


@both_ways
@pytest.mark.processes("tools")
def test_broken_tools_answer_each_call_once(server: FakeServer, faults: list[str]) -> None:
    with Conversation(server) as talk:
        for number, fault in enumerate(["none", *faults]):
            if fault != "none":
                talk.break_it("tools", fault)

            talk.connection.call("get_current_time", "{}", call_id=f"call_{number}")

            talk.expect(ToolAnswer, lambda answer, n=number: answer.call_id == f"call_{n}")
        last = f"call_{len(faults)}"
        talk.connection.expect(
            "conversation.item.create", lambda e: e["item"].get("call_id") == last
        )
        answered = [
            event["item"]["call_id"]
            for event in talk.connection.of("conversation.item.create")
            if event["item"]["type"] == "function_call_output"
        ]
        assert answered == [f"call_{number}" for number in range(len(faults) + 1)]


@both_ways
@pytest.mark.processes("history")
def test_a_broken_history_has_every_turn_once_and_in_order(
    server: FakeServer, faults: list[str]
) -> None:
    with Conversation(server) as talk:
        expected = []
        for number, fault in enumerate(["none", *faults]):
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
        last = wire_id(f"answer_{len(faults)}")
        replayed.expect("conversation.item.create", lambda e: e["item"]["id"] == last)
        ids = [event["item"]["id"] for event in replayed.of("conversation.item.create")]
        told = [f"{who}_{n}" for n in range(len(faults) + 1) for who in ("user", "answer")]
        assert ids == [wire_id(item_id) for item_id in told]


@both_ways
@pytest.mark.processes("recorder")
def test_a_broken_recorder_has_known_audio_at_its_time(
    server: FakeServer, tmp_path: Path, faults: list[str]
) -> None:
    path = tmp_path / "recording.wav"
    marks = []
    with Conversation(server, CapturedAudio, recording_path=str(path)) as talk:
        for number, fault in enumerate(faults):
            talk.break_it("recorder", fault)
            marks.append(noise(80, seed=number))
            talk.speak(marks[-1])
            # Written: a block that is in hand when a signal comes is lost, and that is told.
            until(lambda mark=marks[-1]: mark in wav_channels(path)[0], "it is not recorded")
        blocks = talk.of(CapturedAudio)
        lost = [letter.message for letter in talk.of(DeadLetter)]
        assert ("Inject" in lost) == (faults == FAULTS)
        assert set(lost) <= {"Inject", "CapturedAudio"}
        assert lost.count("CapturedAudio") <= len({"SIGKILL", "SIGSTOP"} & {*faults})

    left, _ = wav_channels(path)
    for mark in marks:
        block = next(block for block in blocks if mark[:1000] in block.pcm)
        expected = block.first_sample + block.pcm.index(mark[:1000]) // 2
        assert left.index(mark) // 2 == expected


@pytest.mark.processes("recorder")
def test_a_crash_is_published_with_its_cause_and_the_place_where_it_happened(
    server: FakeServer,
) -> None:
    causes = (
        ("raise", "raised InjectedError: injected", "in _raise"),
        ("segfault", "killed by SIGSEGV", "in _segfault"),
        ("hang", "hung for ", "in _hang"),
        ("gil", "hung for ", "in _hold_gil"),
        ("memory", "raised MemoryError; its process may use 512 MiB", "in _exhaust_memory"),
    )
    with Conversation(server) as talk:
        for number, (fault, cause, place) in enumerate(causes):
            talk.break_it("recorder", fault)

            talk.wait_for(lambda number=number: len(talk.of(ComponentCrashed)) > number)
            crash = talk.of(ComponentCrashed)[number]
            assert crash.cause.startswith(cause)
            assert place in crash.traceback


@pytest.mark.processes("tools")
def test_what_is_lost_is_published_and_listed_at_the_end(server: FakeServer) -> None:
    with Conversation(server) as talk:
        talk.break_it("tools", "exit")
        letter = talk.expect(DeadLetter)
        summary = talk.session.stop()

    assert (letter.component, letter.message) == ("tools", "Inject")
    assert letter.about == "component=tools fault=exit"
    assert summary.lost == ("Inject component=tools fault=exit to tools (exited with code 7)",)


# -- the world around it ----------------------------------------------------------------------


@pytest.mark.processes("recorder")
def test_a_full_disk_costs_the_recording_a_hole_that_is_published(
    server: FakeServer, tmp_path: Path
) -> None:
    path = tmp_path / "recording.wav"
    before, hole, after = (noise(80, seed=number) for number in range(3))
    with Conversation(server, recording_path=str(path)) as talk:
        heard = talk.connection.audio
        talk.speak(before)
        server.wait_for(lambda: before in heard)
        until(lambda: before in wav_channels(path)[0], "it is not recorded")
        talk.session.inject("recorder", "disk-full")
        talk.speak(hole)
        talk.expect(Notice, lambda notice: "has a hole" in notice.text)
        talk.session.inject("recorder", "disk-free")
        talk.speak(after)
        lost = talk.expect(AudioLost)

        summary = talk.session.stop()

    left, _ = wav_channels(path)
    assert before in left
    assert after in left
    assert hole not in left
    assert lost.component == "recorder"
    assert lost.audio_ms >= 80
    assert not talk.of(ComponentCrashed)
    assert summary.lost[0].startswith(f"{lost.audio_ms} ms of sound at the recorder")


@pytest.mark.processes("history")
def test_a_full_disk_costs_no_turn(server: FakeServer) -> None:
    with Conversation(server) as talk:
        talk.session.inject("history", "disk-full")
        talk.session.status()  # now it is in the mailbox, before the questions

        for number in range(3):
            talk.connection.hear(f"user_{number}", f"Question {number}")

        talk.wait_for(lambda: len(talk.of(Turn)) == 3)
        talk.expect(Notice, lambda notice: "journal cannot be written" in notice.text)


@pytest.mark.parametrize("refused", [0, 2])
@pytest.mark.parametrize("how", ["drop", "reset", "leave"])
def test_a_lost_connection_is_made_again_with_the_conversation(
    server: FakeServer, how: str, refused: int
) -> None:
    with Conversation(server) as talk:
        talk.connection.hear("user_1", "My name is Ada.")
        talk.expect(Turn)
        server.refuse = refused

        getattr(talk.connection, how)()

        told = talk.expect(Reconnected)
        connection = server.connection(1)
        connection.expect(
            "conversation.item.create", lambda e: e["item"]["id"] == wire_id("user_1")
        )
        mark = noise(200, seed=1)
        talk.speak(mark)
        server.wait_for(lambda: mark in connection.audio)
        assert (told.state_restored, told.items) == (True, 1)
        assert len(talk.of(Turn)) == 1
        assert not talk.of(ComponentCrashed)


@pytest.mark.processes
@needs_speech
def test_a_server_that_dies_or_stops_is_talked_with_again() -> None:
    with Typed() as talk:
        talk.ask("before")
        sandbox = talk.session.started.pids["sandbox"]  # type: ignore[union-attr]

        os.kill(sandbox, signal.SIGSTOP)
        talk.session.send(SendText("hello", "meanwhile"))
        time.sleep(2.0)  # it takes what we say, and does not answer
        os.kill(sandbox, signal.SIGCONT)
        talk.ask("after a stop")
        os.kill(sandbox, signal.SIGKILL)

        talk.ask("after its death")
        users = [t for t in talk.told if isinstance(t, Turn) and t.role == "user"]
        expected = ["before", "meanwhile", "after a stop", "after its death"]
        assert [turn.item_id for turn in users] == expected


# -- the other direction ----------------------------------------------------------------------


@pytest.mark.processes("speaker")
def test_what_the_user_says_has_no_gap_when_the_speaker_breaks(server: FakeServer) -> None:
    with Conversation(server) as talk:
        heard = talk.connection.audio
        faults, seeds = ["raise", "SIGKILL"], itertools.count()
        while faults:
            said = noise(1600, seed=next(seeds))
            speaking = threading.Thread(target=talk.speak, args=(said,))
            speaking.start()
            server.wait_for(lambda said=said: said[:9600] in heard)

            talk.break_it("speaker", faults[0])

            speaking.join()
            server.wait_for(lambda said=said: said[-9600:] in heard)
            if talk.held_up_s < 0.25:  # else the machine itself has made a pause: once more
                assert said in heard, f"{faults[0]}, and held up for {talk.held_up_s:.2f} s"
                del faults[0]


@pytest.mark.processes("microphone")
def test_what_the_assistant_says_has_no_gap_when_the_microphone_breaks(server: FakeServer) -> None:
    with Conversation(server) as talk:
        for number, fault in enumerate(["raise", "SIGKILL"]):
            said = noise(1600, seed=number)
            talk.connection.say("A story.", said, item=f"item_{number}")
            talk.wait_for(lambda said=said: said[:9600] in talk.played())

            talk.break_it("microphone", fault)

            talk.wait_for(lambda said=said: said[-9600:] in talk.played())
            assert said in talk.played()
