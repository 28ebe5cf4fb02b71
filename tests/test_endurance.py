"""Faults without end: many kills, all at once, no CPU left, everything stopped for a while.

A hundredth of each in the short suite, the whole with ``--long``.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from messages import (
    AudioLost,
    ComponentCrashed,
    ComponentRestarted,
    MessagesDropped,
    PlaybackEnded,
    ProgramCapture,
    SendText,
    ToolAnswer,
    Turn,
)
from tests.conversation import Conversation, Typed, noise
from tests.fake_server import FakeServer
from tests.rig import TIMEOUT_S, alive, until, wait_until_gone
from tests.test_command import needs_speech

COMPONENTS = ["microphone", "speaker", "realtime", "tools", "history", "recorder"]
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def long(count: int) -> object:
    return pytest.param(count, marks=pytest.mark.long)


@contextlib.contextmanager
def both_cores_burning() -> Iterator[None]:
    count = os.cpu_count() or 2
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def works(talk: Conversation, number: int) -> None:
    """Have every component do something, and see it."""
    mark, answer = noise(120, seed=2 * number), noise(200, seed=2 * number + 1)
    talk.speak(mark)
    talk.server.wait_for(lambda: any(mark in made.audio for made in talk.server.connections))
    talk.connection.hear(f"heard_{number}", f"Question {number}")
    talk.connection.call("get_current_time", "{}", call_id=f"call_{number}")
    talk.connection.say(f"Answer {number}", answer, item=f"said_{number}")
    talk.expect(ToolAnswer, lambda told: told.call_id == f"call_{number}")
    talk.expect(Turn, lambda turn: turn.item_id == f"said_{number}")
    talk.expect(PlaybackEnded, lambda ended: ended.item_id == f"said_{number}")
    talk.wait_for(lambda: answer in talk.played())


@needs_speech
@pytest.mark.parametrize("kills", [2, long(120)])
def test_every_question_is_answered_and_every_turn_there_once_whoever_is_killed(
    kills: int,
) -> None:
    chance = random.Random(kills)
    over = threading.Event()

    def kill() -> None:
        for _ in range(kills):
            threading.Event().wait(chance.uniform(0.3, 1.5))  # the moment is what is random
            talk.session.inject(chance.choice(COMPONENTS), "SIGKILL")
        over.set()

    asked = []
    with Typed() as talk:
        threading.Thread(target=kill, daemon=True).start()
        while not over.is_set():
            asked.append(f"question_{len(asked)}")
            talk.ask(asked[-1])
        talk.ask("last")

    turns = [told for told in talk.told if isinstance(told, Turn)]
    assert [turn.item_id for turn in turns if turn.role == "user"] == [*asked, "last"]
    assert len({turn.item_id for turn in turns}) == len(turns)
    assert len([told for told in talk.told if isinstance(told, ComponentCrashed)]) == kills


@needs_proc
@pytest.mark.parametrize("times", [1, long(50)])
def test_all_killed_at_once_come_back_and_are_never_more_than_they_were(
    server: FakeServer, times: int
) -> None:
    most, over = 0, threading.Event()

    def count() -> None:
        nonlocal most
        while not over.is_set():
            most = max(most, len(components_of(supervisor)))
            time.sleep(0.002)

    with Conversation(server) as talk:
        supervisor = talk.session.started.pids["supervisor"]  # type: ignore[union-attr]
        counter = threading.Thread(target=count)
        counter.start()
        try:
            works(talk, 0)
            for number in range(1, times + 1):
                before = len(talk.of(ComponentRestarted))
                for pid in talk.pids().values():
                    os.kill(pid, signal.SIGKILL)
                talk.wait_for(lambda before=before: len(talk.of(ComponentRestarted)) == before + 6)
                works(talk, number)
        finally:
            over.set()
            counter.join()

    assert most == len(COMPONENTS)


def components_of(supervisor: int) -> list[int]:
    """Return the living components of a session; the fork server may be their parent."""
    parents = {supervisor, int(Path(f"/proc/{supervisor}/stat").read_text().split()[3])}
    return [pid for parent in parents for pid in children(parent) if is_component(pid)]


def is_component(pid: int) -> bool:
    try:
        return b"\0actors\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def children(parent: int) -> list[int]:
    """Return the living child processes of a process."""
    pids = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in pids if alive(int(pid))]


@needs_proc
@pytest.mark.parametrize("seconds", [6, long(600)])
def test_audio_for_a_stopped_speaker_is_bounded_and_an_interruption_empties_it(
    server: FakeServer, seconds: int
) -> None:
    with Conversation(server, hang_s=3600) as talk:
        works(talk, 0)
        supervisor = talk.session.started.pids["supervisor"]  # type: ignore[union-attr]
        before = memory_mib(supervisor)
        talk.session.inject("speaker", "SIGSTOP")
        second = noise(1000, seed=1)
        talk.connection.say("Endless.", second * seconds, item="endless")
        talk.expect(Turn, lambda turn: turn.item_id == "endless")

        grown = memory_mib(supervisor) - before
        talk.connection.tell(
            "input_audio_buffer.speech_started", audio_start_ms=0, item_id="barge_in"
        )
        until(lambda: talk.session.status()["speaker"]["mailbox"] <= 20, "it is not emptied")
        talk.session.inject("speaker", "SIGCONT")

        works(talk, 1)
        assert grown < 8 + seconds * 48_000 * 1.5 / 2**20
        assert not talk.of(ComponentCrashed)


def memory_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def stopped(talk: Conversation, component: str) -> None:
    """Stop the process of a component, and wait until it stands."""
    talk.session.inject(component, "SIGSTOP")
    state = Path(f"/proc/{talk.pids()[component]}/stat")
    until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", "it was not stopped")


@needs_proc
@pytest.mark.parametrize("seconds", [8, long(800)])
def test_audio_for_a_stopped_component_is_dropped_and_counted_and_control_is_not(
    server: FakeServer, seconds: int
) -> None:
    with Conversation(server, hang_s=3600) as talk:
        works(talk, 0)
        stopped(talk, "microphone")
        stopped(talk, "realtime")
        block = noise(40, seed=1)
        for number in range(seconds * 25):
            talk.session.send(ProgramCapture(block, 24_000, time.monotonic_ns()))
            if number < 50:
                talk.session.send(SendText(f"Text {number}", f"text_{number}"))
        talk.expect(MessagesDropped)
        talk.session.inject("realtime", "SIGCONT")
        talk.session.inject("microphone", "SIGCONT")

        talk.wait_for(lambda: len([t for t in talk.of(Turn) if t.text.startswith("Text")]) == 50)
        works(talk, 1)
        summary = talk.session.stop()

    lost = [entry for entry in summary.lost if "ProgramCapture to microphone" in entry]
    assert lost[0].endswith("ms of sound)")
    drops = talk.of(MessagesDropped)
    assert {(drop.component, drop.message) for drop in drops} == {("microphone", "ProgramCapture")}
    count = sum(drop.count for drop in drops)
    assert sum(drop.audio_ms for drop in drops) == 40 * count
    # What comes faster than the supervisor reads is dropped, and reported, by the program.
    lost_ms = 40 * count + sum(loss.audio_ms for loss in talk.of(AudioLost))
    assert lost_ms >= 1000 * (seconds - 5) - 400, "five seconds are kept, and what is in flight"
    assert not talk.of(ComponentCrashed)


@pytest.mark.parametrize("rounds", [1, long(60)])
def test_with_both_cores_burning_nothing_is_taken_for_a_hang_and_kills_are_survived(
    server: FakeServer, rounds: int
) -> None:
    with both_cores_burning(), Conversation(server, hang_s=3.0) as talk:
        for number in range(rounds):
            killed = COMPONENTS[number % len(COMPONENTS)]
            talk.break_it(killed, "SIGKILL")
            works(talk, number)

        assert {crash.cause for crash in talk.of(ComponentCrashed)} == {"killed by SIGKILL"}


@pytest.mark.parametrize("seconds", [1.5, long(30)])
def test_after_everything_was_stopped_for_a_while_nothing_is_restarted(
    server: FakeServer, seconds: float
) -> None:
    with Conversation(server) as talk:
        works(talk, 0)
        supervisor = talk.session.started.pids["supervisor"]  # type: ignore[union-attr]
        everyone = [supervisor, *talk.pids().values()]

        for pid in everyone:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)  # as a laptop does whose lid is closed
        for pid in everyone:
            os.kill(pid, signal.SIGCONT)

        works(talk, 1)
        assert not talk.of(ComponentCrashed)


@needs_proc
@pytest.mark.parametrize("restarts", [10, long(1000)])
def test_the_supervisor_does_not_grow_with_restarts(server: FakeServer, restarts: int) -> None:
    with Conversation(server) as talk:
        supervisor = talk.session.started.pids["supervisor"]  # type: ignore[union-attr]
        for number in range(restarts + restarts // 10):
            if number == restarts // 10:
                before = memory_mib(supervisor)
            talk.break_it("history", "SIGKILL" if number % 10 == 0 else "raise")
            talk.connection.hear(f"heard_{number}", "Hello")
            talk.expect(Turn, lambda turn, n=number: turn.item_id == f"heard_{n}")
        grown = memory_mib(supervisor) - before
        pids = list(talk.pids().values())

    assert grown < 2.0
    wait_until_gone(pids, TIMEOUT_S)
