"""The actor and its host: handling, accounting, crashing, restarting."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from actors.base import Actor
from messages import (
    CONTROL,
    AssistantAudio,
    AssistantTranscript,
    Crashed,
    Inject,
    Keep,
    Message,
    Save,
    SendText,
    SetMuted,
    SetVolume,
    Wanted,
)
from messages.transport.page import HELD, LOCAL, MAIL
from messages.transport.saved import StateFile, read_state
from tests.actors.process import ProcessRig
from tests.rig import TIMEOUT_S, Rig, until
from tests.tiny import DeafToStop


class Echo(Actor):
    """Answers what it is told; keeps what it is given to keep."""

    accepts: ClassVar = {SetVolume: CONTROL, SendText: CONTROL, AssistantAudio: Keep(60, held=True)}
    closings: ClassVar[list[str]] = []

    def opened(self) -> None:
        self.volume = self.saved(float) or 0.0
        self.waiting: list[Message] = []
        self.keep.setdefault("first", object())

    def handle(self, message: Message) -> None:
        match message:
            case SetVolume(volume):
                self.save(volume, recorded=volume < 1)
                self.send(SetVolume(volume))
            case SendText("raise"):
                raise ValueError("told to")
            case SendText("volume"):
                self.send(SetVolume(self.volume))
            case SendText("kept"):
                self.send(SendText(str(id(self.keep["first"])), ""))
            case SendText("done"):
                self.done(self.waiting.pop(0))
            case SendText("transcript"):
                self.send(AssistantTranscript("a", "hello"))
            case SendText("later"):
                self.after(0.01, lambda: self.send(SendText("now", "")))
            case SendText("save"):
                self.save(0.75)
            case SendText("save later"):
                self.after(0.01, lambda: self.save(0.25))
            case SendText("thread"):
                threading.Thread(target=lambda: self.post(self._posted)).start()
            case AssistantAudio():
                self.hold(message)
                self.waiting.append(message)

    def _posted(self) -> None:
        self.send(SendText(threading.current_thread().name, ""))

    def closed(self) -> None:
        self.closings.append("closed")


def test_a_message_is_handled_and_counted(tmp_path: Path) -> None:
    with Rig(Echo, tmp_path) as rig:
        rig.tell(SetVolume(0.5))

        assert rig.expect(SetVolume).volume == 0.5
        rig.wait_handled(mail=1)
        assert rig.slot.in_hand() is None


def test_state_saved_reaches_the_next_incarnation(tmp_path: Path) -> None:
    with Rig(Echo, tmp_path) as rig:
        rig.tell(SetVolume(0.5))
        rig.tell(SendText("raise", ""))

        rig.restart()
        rig.tell(SendText("volume", ""))

        rig.expect(SetVolume)
        assert rig.expect(SetVolume).volume == 0.5


def test_state_saved_lies_in_a_file_of_the_session_too(tmp_path: Path) -> None:
    with Rig(Echo, tmp_path) as rig:
        rig.tell(SetVolume(0.5))
        saved = rig.wait_state(bool)

        assert read_state(tmp_path, "echo") == saved


def test_what_is_not_for_the_record_is_not_sent_and_survives_a_death(tmp_path: Path) -> None:
    with ProcessRig(Echo, tmp_path) as rig:
        rig.tell(SetVolume(0.5))
        rig.tell(SetVolume(1.0))
        rig.wait_handled(mail=2)
        until(lambda: rig.sent_state is not None, "nothing was sent for the record")

        rig.kill()
        assert rig.sent_state == msgspec.msgpack.encode(0.5)
        rig.reborn()
        rig.tell(SendText("volume", ""))

        rig.expect(SetVolume)
        rig.expect(SetVolume)
        assert rig.expect(SetVolume).volume == 1.0


def test_the_state_that_follows_from_a_command_is_sent_before_that_is_done(tmp_path: Path) -> None:
    """The record keeps a command until it is done, and from then on the state."""
    with ProcessRig(Echo, tmp_path) as rig:
        rig.tell(SendText("save", ""))
        rig.wait_handled(mail=1)
        rig.kill()

        assert rig.sent_state == msgspec.msgpack.encode(0.75)


def test_state_that_no_command_has_changed_is_sent_for_the_record_soon_or_with_what_is_sent(
    tmp_path: Path,
) -> None:
    with Rig(Echo, tmp_path) as rig:
        rig.tell(SendText("save later", ""))
        until(lambda: rig.sent_state == msgspec.msgpack.encode(0.25), "it was not sent")
        assert rig.state == rig.sent_state


def test_what_somebody_waits_for_is_sent_before_the_state(tmp_path: Path) -> None:
    with Rig(Echo, tmp_path) as rig:
        rig.tell(SetVolume(0.5))
        rig.wait_handled(mail=1)
        rig.stop()

        assert rig.received.index(SetVolume) < rig.received.index(Save)


def test_a_message_on_demand_is_sent_while_somebody_wants_it(tmp_path: Path) -> None:
    with Rig(Echo, tmp_path) as rig:
        rig.tell(SendText("transcript", ""))
        rig.expect(AssistantTranscript)

        rig.tell(Wanted(()))
        rig.tell(SendText("transcript", ""))
        rig.wait_handled(mail=3)
        rig.stop()

        assert rig.take(AssistantTranscript) == []


def test_a_process_whose_supervisor_has_died_leaves_the_file_to_the_next_one(
    tmp_path: Path,
) -> None:
    rig = Rig(Echo, tmp_path)
    rig.host.session, rig.host.name = rig.session, "echo"
    rig.host.save(b"in time", 1)
    rig.channel.close()
    rig.host.ready()  # cannot be sent
    rig.host.save(b"late", 1)
    rig.host.close()

    assert read_state(tmp_path, "echo") == b"in time"


class Doomed(Actor):
    """Collects what it sends, and is killed where its state or its accounts have just changed."""

    collects = True
    accepts: ClassVar = {SetVolume: CONTROL, AssistantAudio: Keep(60, held=True)}

    def handle(self, message: Message) -> None:
        self.send(SendText("sent", ""))
        match message:
            case SetVolume(volume):
                write = StateFile.write

                def write_and_die(file: StateFile, state: bytes) -> bool:
                    write(file, state)
                    os.kill(os.getpid(), signal.SIGKILL)
                    return True

                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(StateFile, "write", write_and_die)
                    self.save(volume)
            case AssistantAudio():
                self.hold(message)
                self.done(message)
                os.kill(os.getpid(), signal.SIGKILL)


def test_what_was_sent_before_a_save_is_not_lost_when_the_process_dies_after_it(
    tmp_path: Path,
) -> None:
    with ProcessRig(Doomed, tmp_path) as rig:
        rig.tell(SetVolume(0.5))

        assert rig.expect(SendText).text == "sent"
        rig.wait_state(lambda state: state == msgspec.msgpack.encode(0.5))


def test_what_was_sent_before_a_held_message_was_done_is_not_lost_when_the_process_dies_after_it(
    tmp_path: Path,
) -> None:
    with ProcessRig(Doomed, tmp_path) as rig:
        rig.tell(AssistantAudio(b"", "a", "r", 0))

        assert rig.expect(SendText).text == "sent"
        rig.wait_handled(held=1)


def test_what_is_kept_survives_a_raise(tmp_path: Path) -> None:
    with Rig(Echo, tmp_path) as rig:
        rig.tell(SendText("kept", ""))
        before = rig.expect(SendText).text
        rig.tell(SendText("raise", ""))

        rig.restart()
        rig.tell(SendText("kept", ""))

        assert rig.expect(SendText).text == before


def test_a_raise_is_reported_and_leaves_its_message_in_hand(tmp_path: Path) -> None:
    with Rig(Echo, tmp_path) as rig:
        rig.tell(SetVolume(0.1))
        rig.tell(SendText("raise", ""))

        crash = rig.expect(Crashed)

        assert crash.error == "ValueError: told to"
        assert "in handle" in crash.traceback
        assert rig.slot.handled(MAIL) == 1
        assert rig.slot.in_hand() == (MAIL, 2)


def test_closed_runs_after_a_raise(tmp_path: Path) -> None:
    Echo.closings.clear()
    with Rig(Echo, tmp_path) as rig:
        rig.tell(SendText("raise", ""))
        rig.expect(Crashed)

        assert Echo.closings == ["closed"]


def test_system_exit_is_a_crash_and_not_the_end_of_the_process(tmp_path: Path) -> None:
    with Rig(Echo, tmp_path) as rig:
        rig.tell(Inject("echo", "system-exit"))

        rig.restart()
        rig.tell(SetVolume(0.7))

        assert rig.expect(SetVolume).volume == 0.7


def test_a_held_message_counts_when_it_is_done(tmp_path: Path) -> None:
    with Rig(Echo, tmp_path) as rig:
        rig.tell(AssistantAudio(b"", "i", "r", 0))
        rig.tell(AssistantAudio(b"", "i", "r", 0))
        rig.tell(SetVolume(0.1))
        rig.wait_handled(mail=1)
        assert rig.slot.handled(HELD) == 0

        rig.tell(SendText("done", ""))

        rig.wait_handled(mail=2, held=1)
        assert rig.slot.in_hand() is None


def test_a_message_without_the_held_rule_cannot_be_held(tmp_path: Path) -> None:
    class Holder(Echo):
        def handle(self, message: Message) -> None:
            self.hold(message)

    globals()["Holder"] = Holder
    Holder.__qualname__ = "Holder"
    with Rig(Holder, tmp_path) as rig:
        rig.tell(SetMuted(True))
        rig.tell(SetVolume(1.0))

        assert "cannot be held" in rig.expect(Crashed).error


def test_a_timer_runs_on_time_and_a_post_runs_on_the_actors_thread(tmp_path: Path) -> None:
    with Rig(Echo, tmp_path) as rig:
        rig.tell(SendText("later", ""))
        assert rig.expect(SendText).text == "now"

        rig.tell(SendText("thread", ""))

        assert rig.expect(SendText).text == "echo"


class Watcher(Actor):
    """Passes on what it reads from a socket of the test, and does with it what it is told."""

    accepts: ClassVar = {SendText: CONTROL, SetVolume: CONTROL}
    ours: ClassVar[socket.socket]

    once: ClassVar = False
    """Whether only the first incarnation watches."""

    def opened(self) -> None:
        if not (self.once and self.resumed):
            self.watch(self.ours, self._ready)

    def handle(self, message: Message) -> None:
        match message:
            case SendText("both"):
                self.watch(self.ours, self._ready, write=True)
            case SendText("enough"):
                self.unwatch(self.ours)
                self.unwatch(self.ours)  # is harmless
            case SendText("break"):
                self.ours.close()
            case SetVolume():
                self.send(message)

    def _ready(self) -> None:
        try:
            data = self.ours.recv(100)
        except BlockingIOError:
            self.watch(self.ours, self._ready)
            self.send(SendText("writable", ""))
            return
        if data == b"raise":
            raise ValueError("told to")
        self.send(SendText(f"{data.decode()} {threading.current_thread().name}", ""))


@pytest.fixture
def theirs() -> Iterator[socket.socket]:
    Watcher.ours, theirs = socket.socketpair()
    Watcher.ours.setblocking(False)
    with Watcher.ours, theirs:
        yield theirs


def test_a_watched_source_is_read_on_the_actors_thread(
    theirs: socket.socket, tmp_path: Path
) -> None:
    with Rig(Watcher, tmp_path) as rig:
        theirs.send(b"one")
        assert rig.expect(SendText).text == "one watcher"
        theirs.send(b"two")

        assert rig.expect(SendText).text == "two watcher"
        until(lambda: rig.slot.handled(LOCAL) == 2, "its calls are not accounted for")


def test_a_watched_source_is_waited_for_until_it_can_be_written_to(
    theirs: socket.socket, tmp_path: Path
) -> None:
    with Rig(Watcher, tmp_path) as rig:
        rig.tell(SendText("both", ""))

        assert rig.expect(SendText).text == "writable"


def test_a_source_is_not_read_after_the_watch_has_ended(
    theirs: socket.socket, tmp_path: Path
) -> None:
    with Rig(Watcher, tmp_path) as rig:
        rig.tell(SendText("enough", ""))
        rig.wait_handled(mail=1)
        theirs.send(b"one")
        rig.tell(SetVolume(0.5))

        rig.expect(SetVolume)
        assert rig.take(SendText) == []


def test_after_a_raise_only_the_next_incarnation_watches(
    theirs: socket.socket, tmp_path: Path
) -> None:
    with Rig(Watcher, tmp_path) as rig:
        theirs.send(b"raise")
        assert "told to" in rig.expect(Crashed).error
        theirs.send(b"one")
        rig.open()

        assert rig.expect(SendText).text == "one watcher"


def test_after_a_raise_nothing_is_watched_that_the_next_incarnation_does_not_watch(
    theirs: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watcher, "once", True)
    with Rig(Watcher, tmp_path) as rig:
        theirs.send(b"raise")
        rig.expect(Crashed)
        theirs.send(b"one")
        rig.open()
        rig.tell(SetVolume(0.5))

        rig.expect(SetVolume)
        assert rig.take(SendText) == []


class Jealous(Actor):
    """Watches two sockets until one of them can be read."""

    ours: ClassVar[list[socket.socket]]

    def opened(self) -> None:
        for each in self.ours:
            self.watch(each, self._ready)

    def _ready(self) -> None:
        for each in self.ours:
            self.unwatch(each)
        self.send(SendText("ready", ""))
        self.after(0.05, lambda: self.send(SendText("later", "")))


def test_a_source_that_is_ready_is_not_read_if_the_one_before_has_ended_its_watch(
    tmp_path: Path,
) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    Jealous.ours = [ours for ours, _ in pairs]
    for _, theirs in pairs:
        theirs.send(b"one")
    with Rig(Jealous, tmp_path) as rig:
        rig.expect(SendText, lambda message: message.text == "later")

        assert [message.text for message in rig.take(SendText)] == ["ready"]
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


def test_a_watched_source_that_is_closed_is_a_crash(theirs: socket.socket, tmp_path: Path) -> None:
    with Rig(Watcher, tmp_path) as rig:
        rig.tell(SendText("break", ""))

        assert rig.expect(Crashed).during == "handle"


def test_an_actor_that_was_not_asked_to_takes_no_faults(tmp_path: Path) -> None:
    rig = Rig(Echo, tmp_path)
    rig.probes = False
    with rig:
        rig.tell(Inject("echo", "raise"))
        rig.tell(SetVolume(0.5))

        assert rig.expect(SetVolume) == SetVolume(0.5)
        assert not rig.take(Crashed)


def test_a_process_whose_channel_has_ended_ends_though_its_actor_does_not_close(
    tmp_path: Path,
) -> None:
    with ProcessRig(DeafToStop, tmp_path) as rig:
        rig.channel.close()

        assert rig.process.wait(TIMEOUT_S) == 1
