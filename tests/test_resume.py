"""A conversation goes on when its supervisor is killed, and on another day from its journal."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from actors.history import messages_in
from actors.supervision import record
from messages import (
    AssistantItem,
    AudioLost,
    ComponentRestarted,
    Connected,
    InputLevel,
    Interrupted,
    Notice,
    PlaybackEnded,
    PlayedPosition,
    ProgramPlayout,
    SendText,
    SessionFailedError,
    SetMuted,
    SetVolume,
    SupervisorDiedError,
    SupervisorRestarted,
    ToolAnswer,
    ToolCall,
    Turn,
    UpdateSettings,
)
from messages.transport.spawning import is_stopped
from rtvoice import Agent, Tools
from supervisor import Session
from tests.conversation import Conversation, noise
from tests.fake_server import Connection, FakeServer
from tests.rig import TIMEOUT_S, until, wait_until_gone
from tests.scripted import TONE, Model, Script, gaps


def kill_supervisor(talk: Conversation, before: Callable[[], None] | None = None) -> None:
    """Kill the supervisor, and wait for the next one to have told that it goes on."""
    count = len(talk.of(SupervisorRestarted))
    pid = talk.session.started.pids["supervisor"]  # type: ignore[union-attr]
    if before is not None:  # it stands still meanwhile
        os.kill(pid, signal.SIGSTOP)
        until(lambda: is_stopped(pid), "it is not stopped", every_s=0.001)
        before()
    os.kill(pid, signal.SIGKILL)
    talk.wait_for(lambda: len(talk.of(SupervisorRestarted)) > count)


def told(connection: Connection) -> list[tuple[str, str]]:
    """Return the messages and outputs that a new session of the server was told."""
    found = []
    for event in connection.of("conversation.item.create"):
        item = event["item"]
        if item["type"] == "message":
            found.append((item["role"], item["content"][0].get("text", "")))
        else:
            found.append((item["type"], item.get("output", item.get("name", ""))))
    return found


def answered(talk: Conversation, number: int = 0) -> None:
    """Have a question and its answer heard to its end."""
    talk.connection.hear(f"question_{number}", f"Question {number}")
    talk.connection.say(f"Answer {number}", noise(100, number), item=f"answer_{number}")
    talk.expect(PlaybackEnded, lambda ended: ended.item_id == f"answer_{number}")


def test_the_next_supervisor_has_the_conversation_and_its_settings(server: FakeServer) -> None:
    with Conversation(server, InputLevel, greeting="Hello there") as talk:
        answered(talk)
        talk.session.send(SetMuted(True))
        talk.session.send(SetVolume(0.25))
        talk.session.send(UpdateSettings({"instructions": "Be a pirate."}))
        talk.session.confirm()
        before = talk.pids()

        kill_supervisor(talk)

        again = server.connection(1)
        again.expect("session.update", lambda e: "pirate" in str(e["session"]["instructions"]))
        server.wait_for(lambda: len(told(again)) >= 2)
        assert told(again) == [("user", "Question 0"), ("assistant", "Answer 0")]
        assert not again.of("response.create"), "nothing was owed, and there is no greeting"
        assert set(before.values()).isdisjoint(talk.pids().values())
        talk.speak(noise(200, 7))
        server.wait_for(lambda: len(again.audio) > 4_000)
        assert not any(again.audio), "it is still muted"
        (restarted,) = talk.of(SupervisorRestarted)
        assert restarted.cause == "killed by SIGKILL"
        assert restarted.items == 2
        assert restarted.pid == talk.session.started.pids["supervisor"]  # type: ignore[union-attr]
    assert [turn.text for turn in talk.of(Turn)] == ["Question 0", "Answer 0"]
    summary = talk.session.summary
    assert summary is not None
    assert summary.turns == 2


def test_an_answer_goes_on_where_it_was_heard_last(server: FakeServer) -> None:
    text = " ".join(f"word{number}" for number in range(40))
    with Conversation(server, PlayedPosition, output="null") as talk:
        talk.connection.hear("question", "Tell me")
        talk.connection.say(text, noise(4_000, 1), item="answer")
        talk.expect(PlayedPosition, lambda at: at.played_samples > 24_000)

        kill_supervisor(talk)

        again = server.connection(1)
        again.expect("response.create")
        (_, heard) = told(again)[1]
        assert text.startswith(heard)
        assert 9 <= len(heard.split()) <= 20, "a second of four was heard"
        assert talk.expect(Interrupted).text_heard == heard
        again.say("and the rest", noise(100, 2), item="rest")
        talk.expect(Turn, lambda turn: turn.item_id == "rest")


def test_a_question_without_an_answer_is_asked_again(server: FakeServer) -> None:
    with Conversation(server) as talk:
        answered(talk)
        talk.session.send(SendText("Who are you?", "typed"))
        talk.connection.expect("response.create")

        kill_supervisor(talk)

        again = server.connection(1)
        again.expect("response.create")
        assert told(again)[-1] == ("user", "Who are you?")
        again.say("Me", noise(100, 2), item="me")
        talk.expect(Turn, lambda turn: turn.item_id == "me")
    assert len([turn for turn in talk.of(Turn) if turn.text == "Who are you?"]) == 1
    assert len(again.of("response.create")) == 1


def test_a_tool_of_the_program_runs_once(server: FakeServer) -> None:
    tools, runs, go_on = Tools(), [], threading.Event()

    @tools.action("Looks.")
    def look() -> str:
        runs.append(time.monotonic())
        go_on.wait(TIMEOUT_S)
        return "seen"

    with Conversation(server, tools=tools) as talk:
        talk.connection.hear("question", "Look")
        talk.connection.call("look", "{}", call_id="call_1")
        until(lambda: runs, "it does not run")

        kill_supervisor(talk)
        go_on.set()

        talk.expect(ToolAnswer, lambda answer: answer.call_id == "call_1")
        again = server.connection(1)
        again.expect("response.create")
        assert ("function_call_output", "seen") in told(again)
        assert len(runs) == 1


def test_an_answer_of_a_tool_that_nobody_has_taken_is_not_lost(server: FakeServer) -> None:
    """It was sent to a supervisor that had stopped."""
    tools, go_on, done = Tools(), threading.Event(), threading.Event()
    runs = threading.Event()

    @tools.action("Looks.")
    def look() -> str:
        runs.set()
        go_on.wait(TIMEOUT_S)
        done.set()
        return "seen"

    def answer() -> None:
        go_on.set()
        done.wait(TIMEOUT_S)

    with Conversation(server, tools=tools) as talk:
        talk.connection.hear("question", "Look")
        talk.connection.call("look", "{}", call_id="call_1")
        assert runs.wait(TIMEOUT_S)

        kill_supervisor(talk, answer)

        again = server.connection(1)
        again.expect("response.create")
        assert ("function_call_output", "seen") in told(again)


def test_what_is_sent_again_after_a_supervisor_has_died_is_told_once(server: FakeServer) -> None:
    tools = Tools()

    @tools.action("Looks.")
    def look() -> str:
        return "seen"

    with Conversation(server, tools=tools) as talk:
        talk.connection.hear("question", "Look")
        talk.connection.call("look", "{}", call_id="call_1")
        talk.expect(ToolAnswer)
        for number in range(2):
            kill_supervisor(talk)
            again = server.connection(number + 1)
            again.hear(f"question_{number}", f"Question {number}")
            talk.expect(Turn, lambda turn, text=f"Question {number}": turn.text == text)

    assert [answer.call_id for answer in talk.of(ToolAnswer)] == ["call_1"]
    assert [call.call_id for call in talk.of(ToolCall)] == ["call_1"]
    assert len({turn.item_id for turn in talk.of(Turn)}) == len(talk.of(Turn)) == 3


def test_commands_that_were_not_confirmed_are_sent_again(server: FakeServer) -> None:
    with Conversation(server) as talk:

        def ask() -> None:
            talk.session.send(SetMuted(True))
            talk.session.send(SendText("Who are you?", "typed"))

        talk.expect(Connected)
        kill_supervisor(talk, ask)

        again = server.connection(1)
        again.expect("response.create")
        assert told(again) == [("user", "Who are you?")]
        talk.speak(noise(200, 7))
        server.wait_for(lambda: len(again.audio) > 4_000)
        assert not any(again.audio)


def test_sound_waits_for_the_next_supervisor_for_five_seconds(server: FakeServer) -> None:
    with Conversation(server) as talk:
        outbox = talk.session._outbox

        def speak() -> None:
            outbox.detach()
            for _ in range(8 * 25):
                outbox.put(encoded(bytes(1920)))

        kill_supervisor(talk, speak)

        lost = talk.expect(AudioLost, lambda lost: "no supervisor" in lost.reason)
        assert 2_900 <= lost.audio_ms <= 3_200


def encoded(pcm: bytes) -> bytes:
    from messages import ProgramCapture, encode

    return encode(ProgramCapture(pcm, 24_000, time.monotonic_ns()))


def test_an_output_that_only_the_server_was_sent_is_not_lost(
    server: FakeServer, tmp_path: Path
) -> None:
    """It went straight: through the supervisor, which stood still, had not even come the call."""
    runs, tools = tmp_path / "runs", tmp_path / "mytools.py"
    tools.write_text(
        "from rtvoice import Tools\n"
        "tools = Tools()\n"
        '@tools.action("Looks.")\n'
        "def look() -> str:\n"
        f"    with open({str(runs)!r}, 'a') as file: file.write('x')\n"
        "    return 'seen'\n"
    )
    with Conversation(server, named_tools=f"{tools}:tools") as talk:
        talk.connection.hear("question", "Look")
        talk.expect(Turn)

        def answer() -> None:
            talk.connection.call("look", "{}", call_id="call_1")
            is_output = "function_call_output"
            talk.connection.expect(
                "conversation.item.create", lambda event: event["item"]["type"] == is_output
            )

        kill_supervisor(talk, answer)

        again = server.connection(1)
        again.expect("response.create")
        assert ("function_call_output", "seen") in told(again)
        assert runs.read_text() == "x"


def test_outputs_that_history_had_not_read_yet_are_not_lost(server: FakeServer) -> None:
    tools, runs = Tools(), list[int]()

    @tools.action("Looks.")
    def look() -> str:
        runs.append(len(runs))
        return f"seen {len(runs)}"

    with Conversation(server, tools=tools) as talk:
        talk.connection.hear("question", "Look")
        talk.expect(Turn)
        os.kill(talk.pids()["history"], signal.SIGSTOP)
        for number in range(5):
            talk.connection.call("look", "{}", call_id=f"call_{number}", item=f"item_{number}")
            talk.expect(ToolAnswer, lambda answer, of=f"call_{number}": answer.call_id == of)

        kill_supervisor(talk)

        again = server.connection(1)
        again.expect("response.create")
        outputs = [text for kind, text in told(again) if kind == "function_call_output"]
        assert outputs == [f"seen {number}" for number in range(1, 6)]
        assert len(runs) == 5


def test_what_history_had_not_read_yet_is_not_lost(server: FakeServer) -> None:
    """Realtime has published and forgotten it: the supervisor, or history, had it when it died."""
    with Conversation(server, PlayedPosition, output="null") as talk:
        answered(talk)
        talk.connection.say("Once upon a time", noise(2_000, 1), item="story")
        talk.expect(Turn, lambda turn: turn.item_id == "story")
        talk.expect(PlayedPosition, lambda at: at.item_id == "story")
        os.kill(talk.pids()["history"], signal.SIGSTOP)
        talk.connection.hear("question", "Stop. Who are you?")  # before one word was heard
        talk.connection.say("Me", noise(100, 2), item="me")
        talk.expect(PlaybackEnded, lambda ended: ended.item_id == "me")

        kill_supervisor(talk)

        again = server.connection(1)
        talk.expect(Turn, lambda turn: turn.item_id == "me")
        server.wait_for(lambda: ("assistant", "Me") in told(again))
        assert told(again)[2:] == [("user", "Stop. Who are you?"), ("assistant", "Me")]
        assert not again.of("response.create"), "it was answered"
    assert [turn.item_id for turn in talk.of(Turn)][2:] == ["story", "question", "me"]


@pytest.mark.parametrize("how", ["absent", "damaged"])
def test_without_its_state_a_conversation_goes_on_from_the_journal(
    server: FakeServer, tmp_path: Path, how: str
) -> None:
    journal = tmp_path / "talk.journal"

    def spoil() -> None:
        state = tmp_path / "talk.journal.state"
        if how == "absent":
            state.unlink()
        else:
            state.write_bytes(state.read_bytes()[:-3])

    with Conversation(server, journal_path=str(journal)) as talk:
        answered(talk)
        talk.connection.hear("question", "And now?")
        talk.expect(Turn, lambda turn: turn.item_id == "question")

        kill_supervisor(talk, spoil)

        again = server.connection(1)
        again.expect("response.create")
        assert [text for _, text in told(again)] == ["Question 0", "Answer 0", "And now?"]
        talk.expect(Notice, lambda notice: "goes on from the journal alone" in notice.text)


def test_a_call_whose_outcome_nobody_knows_is_not_run_again(
    server: FakeServer, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    tools = tmp_path / "mytools.py"
    tools.write_text(
        "import pathlib, time\nfrom rtvoice import Tools\ntools = Tools()\n"
        '@tools.action("Looks.")\n'
        f"def look() -> str:\n    with open({str(runs)!r}, 'a') as file: file.write('x')\n"
        "    time.sleep(60)\n"
    )
    journal = tmp_path / "talk.journal"
    settings: dict[str, Any] = {"named_tools": f"{tools}:tools", "journal_path": str(journal)}
    with Conversation(server, **settings) as talk:
        talk.connection.hear("question", "Look")
        talk.connection.call("look", "{}", call_id="call_1")
        until(runs.exists, "it does not run")

        kill_supervisor(talk, (tmp_path / "talk.journal.state").unlink)

        again = server.connection(1)
        again.expect("response.create")
        (output,) = [text for kind, text in told(again) if kind == "function_call_output"]
        assert "outcome unknown" in output
        assert runs.read_text() == "x"


def test_a_supervisor_that_dies_too_often_ends_the_session(server: FakeServer) -> None:
    session = Session(server=server.url, input="silence", output="null", restarts=1).start()
    events = session.events(SupervisorRestarted)
    for _ in range(2):
        os.kill(session.started.pids["supervisor"], signal.SIGKILL)  # type: ignore[union-attr]
        events.get(TIMEOUT_S)

    with pytest.raises(SupervisorDiedError, match="2 times within 60 s"):
        session.wait(TIMEOUT_S)


def test_a_session_that_is_ending_is_not_begun_again(server: FakeServer) -> None:
    session = Session(server=server.url, input="silence", output="null").start()
    pid = session.started.pids["supervisor"]  # type: ignore[union-attr]
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.1, os.kill, (pid, signal.SIGKILL)).start()

    with pytest.raises(SupervisorDiedError, match="SIGKILL"):
        session.stop()


# -- whenever it happens ---------------------------------------------------------------------------


PARTS = (
    *("supervisor", "realtime", "connection") * 2,
    *("tools", "history", "speaker", "microphone", "recorder"),
)
"""What `break_it` chooses from. The first three are chosen twice as often as the others."""
LONG = [pytest.param("kept", seed, 20, marks=pytest.mark.long) for seed in range(1, 11)]


@pytest.mark.parametrize(("state", "seed", "kills"), [("kept", 0, 3), *LONG])
def test_nothing_is_lost_whenever_the_supervisor_is_killed(
    server: FakeServer, tmp_path: Path, state: str, seed: int, kills: int
) -> None:
    held_through_kills(server, tmp_path, state, seed, kills)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_lost_whatever_is_killed_whenever(
    server: FakeServer, tmp_path: Path, seed: int
) -> None:
    held_through_kills(server, tmp_path, "kept", seed, 20, parts=PARTS)


def test_without_its_state_what_was_set_is_lost(server: FakeServer, tmp_path: Path) -> None:
    """The check of the check: it does fail if the next supervisor does not find the record."""
    with pytest.raises(AssertionError):
        held_through_kills(server, tmp_path, "withheld", 0, 3)


def held_through_kills(
    server: FakeServer,
    tmp_path: Path,
    state: str,
    seed: int,
    kills: int,
    parts: Sequence[str] = ("supervisor",),
) -> None:
    """Hold a scripted conversation, kill parts of it at random moments, and check all of it.

    Args:
        server: The server.
        tmp_path: For its files.
        state: ``withheld``: the next supervisor does not find the record.
        seed: What the moments and the script depend on.
        kills: How often to kill.
        parts: What may be killed. If not only the supervisor, the sound that was recorded, and what
            each session of the server was told, are not checked.
    """
    alone = set(parts) == {"supervisor"}
    journal, recording = tmp_path / "talk.journal", tmp_path / "talk.wav"
    record = tmp_path / "talk.journal.state"
    chance, over = random.Random(seed), threading.Event()
    tools = Tools()
    runs: list[int] = []
    outages: list[tuple[int, int]] = []
    floors: list[int] = []

    @tools.action("Counts.")
    def count() -> str:
        runs.append(len(runs))
        return str(len(runs))

    def kill() -> None:
        floors.append(script.confirmed)
        began_ns = time.monotonic_ns()
        kill_supervisor(talk, record.unlink if state == "withheld" else None)
        outages.append((began_ns, time.monotonic_ns()))

    def break_it(part: str) -> None:
        if part == "supervisor":
            kill()
        elif part == "connection":
            server.connections[-1].drop()
        else:
            restarts = len(talk.of(ComponentRestarted))
            talk.session.inject(part, chance.choice(["SIGKILL", "raise"]))
            if chance.random() < 0.7:  # else more happens meanwhile
                talk.wait_for(lambda: len(talk.of(ComponentRestarted)) > restarts)

    def break_now_and_then() -> None:
        try:
            for _ in range(kills):
                time.sleep(chance.uniform(0.2, 1.6))  # the moment is what is random
                break_it(chance.choice(parts))
        finally:
            over.set()

    settings: dict[str, Any] = {
        "input": TONE,
        "greeting": "Welcome aboard",
        "journal_path": str(journal),
        "recording_path": str(recording),
    }
    with Conversation(server, PlayedPosition, tools=tools, restarts=10**6, **settings) as talk:
        model = Model(server, seed)
        script = Script(talk, model, random.Random(seed))
        model.start()
        talk.expect(Turn, lambda turn: turn.item_id.startswith("answer_greeting"))
        script.change()
        killer = threading.Thread(target=break_now_and_then, daemon=True)
        killer.start()
        while not over.is_set():
            script.step()
        killer.join()
        if not script.muted:
            script.mute()
        script.confirm()
        kill()
        script.ask()
        talk.expect(PlaybackEnded, lambda end: f"_{script.asked[-1]}_" in end.item_id)
        sessions = server.connections[:]
        server.wait_for(lambda: len(sessions[-1].audio) > 4_000)
        muted = bytes(sessions[-1].audio)
        script.mute()
        server.wait_for(lambda: any(sessions[-1].audio))
        model.over = True
        server.news()
        epoch_ns = talk.session.started.epoch_ns  # type: ignore[union-attr]

    is_set = f"not as set last: {script.changes[-1]}, volume {script.volume}"
    assert script.version(sessions[-1]) == len(script.changes), is_set
    if alone:
        told = [  # some are lost before they are told anything
            (script.version(made, first=True), floor)
            for made, floor in zip(sessions[1:], floors, strict=True)
            if made.of("session.update")
        ]
        older = [found for found, floor in told if found < floor]
        assert older == [], is_set
    assert not any(muted), is_set
    assert abs(max(array("h", played(talk)[-9_600:])) - 10_000 * script.volume) < 50, is_set
    turns = talk.of(Turn)
    heard = [turn.text for turn in turns if turn.role == "user" and turn.transcribed]
    assert heard == script.asked
    assert len({turn.item_id for turn in turns}) == len(turns)
    cut = {m.item_id for m in messages_in(journal) if isinstance(m, Interrupted)}
    if not alone:  # realtime may die when all that there is of an unfinished answer was heard
        items = [m for m in messages_in(journal) if isinstance(m, AssistantItem)]
        cut |= {m.item_id for m in items if m.status == "incomplete"}
    said = [turn.item_id for turn in turns if turn.role == "assistant"]
    answers = [item.split("_")[1] for item in said if item not in cut]
    again = {question for question in answers if answers.count(question) > 1}
    assert not again, [m for m in messages_in(journal) if any(each in str(m) for each in again)]
    assert len(runs) == sum(not said.startswith("spoken") for said in script.asked)
    assert model.greetings == 1
    assert len(talk.of(SupervisorRestarted)) == len(outages)
    if not alone:
        return
    refused = one_gap_each(gaps(recording), outages, script.muted_ns, epoch_ns)
    assert not refused, refused


def one_gap_each(
    found: list[tuple[int, int]],
    outages: list[tuple[int, int]],
    muted: list[tuple[int, int]],
    epoch_ns: int,
) -> list[str]:
    """Return what is wrong with the gaps of a recording: there is one for each outage, no longer.

    Args:
        found: The gaps, in samples.
        outages: When there was no supervisor.
        muted: When the microphone may have been muted; that is not looked at.
        epoch_ns: When the recording has begun.
    """
    wrong = []
    places = [((a - epoch_ns) / 1e6, (b - epoch_ns) / 1e6) for a, b in outages]
    unheard = [((a - epoch_ns) / 1e6, (b - epoch_ns) / 1e6) for a, b in muted]
    spans = [(first / 24, end / 24) for first, end in found[1:]]  # the first is the start
    spans = [span for span in spans if not any(meet(span, other) for other in unheard)]
    for began, ended in spans:
        outage = [place for place in places if meet((began, ended), place)]
        if len(outage) != 1 or ended - began > outage[0][1] - outage[0][0] + _BLOCKS_MS:
            near = [f"{a:.0f} to {b:.0f}" for a, b in places if abs(a - began) < 1000]
            wrong.append(f"{began:.0f} to {ended:.0f} ms; the outages: {', '.join(near)}")
    for place in places:
        count = sum(meet(place, span) for span in spans)
        if count > 1:
            wrong.append(f"{count} gaps in the outage {place}")
    return wrong


_BLOCKS_MS = 50
"""The block that is captured at the kill, and the one that is captured as the next one opens."""


def meet(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


# -- another day ----------------------------------------------------------------------------------


def held(server: FakeServer, journal: Path) -> None:
    """Hold a conversation that ends by the death of its program."""
    with Conversation(server, journal_path=str(journal), restarts=0) as talk:
        answered(talk)
        talk.session.send(SetVolume(0.25))
        talk.session.send(SetMuted(True))
        talk.connection.hear("question", "And now?")
        talk.expect(Turn, lambda turn: turn.item_id == "question")
        talk.session.confirm()
        os.kill(talk.session.started.pids["supervisor"], signal.SIGKILL)  # type: ignore[union-attr]
        with pytest.raises(SupervisorDiedError):
            talk.session.wait(TIMEOUT_S)
        with pytest.raises(SupervisorDiedError):
            talk.session.stop()


@pytest.mark.parametrize("state", ["kept", "absent"])
def test_another_session_goes_on_with_a_journal(
    server: FakeServer, tmp_path: Path, state: str
) -> None:
    journal = tmp_path / "talk.journal"
    try:
        held(server, journal)
    except SupervisorDiedError:
        pass
    assert (tmp_path / "talk.journal.state").stat().st_mode & 0o777 == 0o600
    if state == "absent":
        (tmp_path / "talk.journal.state").unlink()

    with Conversation(server, resume=str(journal), greeting="Hello") as talk:
        again = server.connection(1)
        again.expect("response.create")
        assert [text for _, text in told(again)] == ["Question 0", "Answer 0", "And now?"]
        again.say("Now this", noise(100, 2), item="this")
        talk.expect(Turn, lambda turn: turn.item_id == "this")
        assert len(again.of("response.create")) == 1
        talk.speak(noise(200, 7))
        server.wait_for(lambda: len(again.audio) > 4_000)
        assert any(again.audio) is (state == "absent")
    assert [turn.text for turn in talk.of(Turn)] == ["Now this"]
    assert not (tmp_path / "talk.journal.state").exists(), "it has ended in order"

    with Conversation(server, resume=str(journal)) as talk:
        server.wait_for(lambda: len(told(server.connection(2))) == 4)


PROGRAM = """
import sys
from messages import SetVolume
from supervisor import Session
session = Session(server=sys.argv[1], input="silence", output="null", journal_path=sys.argv[2])
session.start()
session.send(SetVolume(0.25))
session.confirm()
print(session.started.pids["supervisor"], flush=True)
session.wait()
"""


def test_the_state_is_kept_when_the_program_is_killed(server: FakeServer, tmp_path: Path) -> None:
    journal = tmp_path / "talk.journal"
    program = [sys.executable, "-c", PROGRAM, server.url, str(journal)]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        supervisor = int(running.stdout.readline())
        running.kill()
    wait_until_gone([supervisor], TIMEOUT_S)

    assert record.read(record.state_path(str(journal))) is not None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "no such file"),
        ("", "it is not a journal"),
        ("once upon a time\n", "it is not a journal"),
        ('28ccf14d {"what":"Journal","version":7}\n', "another version"),
    ],
)
def test_what_is_no_journal_is_refused_and_left_as_it_is(
    server: FakeServer, tmp_path: Path, text: str | None, why: str
) -> None:
    journal = tmp_path / "talk.journal"
    if text is not None:
        journal.write_text(text)

    with pytest.raises(SessionFailedError, match=f"cannot go on with the journal .*{why}"):
        Session(server=server.url, input="silence", output="null", resume=str(journal)).start()

    assert (journal.read_text() if journal.exists() else None) == text


def test_a_journal_of_a_session_that_still_runs_is_refused(
    server: FakeServer, tmp_path: Path
) -> None:
    journal = tmp_path / "talk.journal"
    with Conversation(server, journal_path=str(journal)) as talk:
        answered(talk)
        talk.session.confirm()
        with pytest.raises(SessionFailedError, match="another"):
            Session(server=server.url, input="silence", output="null", resume=str(journal)).start()

        kill_supervisor(talk)
        server.wait_for(lambda: len(told(server.connection(1))) == 2)


@pytest.mark.parametrize("kept", ["journal_path", "session_folder"])
def test_an_agent_has_the_turns_of_the_conversation_that_it_goes_on_with(
    server: FakeServer, tmp_path: Path, kept: str
) -> None:
    path = tmp_path / "talk"
    with Conversation(server, **{kept: str(path)}) as talk:
        answered(talk)

    agent = Agent(server=server.url, audio_input="silence", audio_output="null", resume=path)

    async def talk() -> list[str]:
        async with agent:
            turns = [turn.content for turn in agent.history]
            await agent.stop()
        return turns

    assert asyncio.run(talk()) == ["Question 0", "Answer 0"]


def played(talk: Conversation) -> bytes:
    return b"".join(chunk.pcm for chunk in talk.of(ProgramPlayout))
