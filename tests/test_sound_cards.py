"""Sound cards that go away and come back during a conversation, on a real PortAudio.

A virtual card is a sound server of its own (`tests.cards`). The one of the test is the machine's;
a second one is a headset: its devices are listed while its server runs. What is asserted is what
the other side hears, the events, and that nobody else is restarted; times are logged.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from messages import (
    ComponentCrashed,
    ComponentRestarted,
    DeviceChanged,
    DeviceLost,
    Interrupted,
    PlaybackEnded,
    UseInput,
    UseOutput,
)
from tests.cards import Card, chirp, is_in, likeness, real_card
from tests.conversation import Conversation
from tests.fake_server import FakeServer
from tests.rig import until

# PortAudio is given one device in a process.
pytestmark = [
    real_card,
    pytest.mark.usefixtures("on_threads"),
    pytest.mark.processes("microphone", "speaker"),
]
pytest.importorskip("pyaudio")

USER, ASSISTANT = chirp(), chirp(low=3500.0, high=600.0)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    made = Card()
    for name, value in made.variables.items():
        monkeypatch.setenv(name, value)
    yield made
    made.close()


@pytest.fixture
def headset(card: Card) -> Iterator[Card]:
    made = Card()
    card.add_devices_of(made, "headset")
    yield made
    made.close()


class Call:
    """A conversation through sound cards."""

    def __init__(self, talk: Conversation) -> None:
        self.talk = talk
        self._pids = talk.pids()
        self._answers = 0

    def hears_the_user(self, card: Card, sink: str = "room") -> None:
        """Assert that what is said into a card's microphone reaches the server."""
        audio = self.talk.connection.audio
        start = len(audio)
        until(lambda: len(audio) > start + 9600, "nothing is captured")
        for _ in range(4):  # what is said while a device is opened is lost
            start = len(audio)
            card.play(USER, sink)
            until(lambda: len(audio) > start + 2 * len(USER), "nothing is captured")  # noqa: B023
            if is_in(audio[start:], USER):
                return
        raise AssertionError("the user is not heard")

    def is_heard(self, card: Card) -> None:
        """Assert that what the assistant says comes out of a card."""
        self._answers += 1
        item = f"answer_{self._answers}"
        with card.listening() as heard:
            self.talk.connection.say("Hello.", ASSISTANT, item=item)
            self.talk.expect(PlaybackEnded, lambda ended: ended.item_id == item)
            until(lambda: is_in(heard, ASSISTANT), "the assistant is not heard", every_s=0.2)

    def changes(self, component: str) -> list[tuple[str, str]]:
        """Return which devices were wanted and used."""
        told = self.talk.of(DeviceChanged)
        return [(it.wanted, it.using) for it in told if it.component == component]

    def expect_change(self, component: str, using: str, after: int = 0) -> DeviceChanged:
        """Wait for a change, and return it."""

        def found() -> list[DeviceChanged]:
            told = [it for it in self.talk.of(DeviceChanged) if it.component == component]
            return [it for it in told[after:] if it.using == using]

        self.talk.wait_for(lambda: bool(found()), 60)
        return found()[0]

    def only_these_changed(self, *components: str) -> None:
        """Assert that nobody crashed, and that nobody else has a new process."""
        assert not self.talk.of(ComponentCrashed)
        now = self.talk.pids()
        assert {name for name in now if now[name] != self._pids[name]} == set(components)


Report = Callable[[str, float], None]


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Report:
    def note(what: str, since: float) -> None:
        seconds = time.monotonic() - since
        record_property(what, f"{seconds:.2f}")
        print(f"{what}: {seconds:.2f} s")

    return note


def call(server: FakeServer, **settings: Any) -> Conversation:
    return Conversation(server, hang_s=3.0, **settings)


@pytest.mark.long
def test_a_sound_server_that_is_killed_and_comes_back_is_talked_through_again(
    server: FakeServer, card: Card, report: Report
) -> None:
    with call(server, input="default", output="default") as talk:
        it = Call(talk)
        it.hears_the_user(card)

        killed = time.monotonic()
        card.kill()
        for component in ("microphone", "speaker"):
            talk.expect(DeviceLost, lambda lost, c=component: lost.component == c)  # type: ignore[misc]
            report(f"{component} noticed", killed)
        it.expect_change("microphone", "silence")
        it.expect_change("speaker", "null")
        said = chirp(3.0)
        talk.connection.say("Meanwhile.", said, item="meanwhile")
        card.revive()
        back = time.monotonic()

        with card.listening() as heard:
            it.expect_change("microphone", "default")
            it.expect_change("speaker", "default")
            report("returned", back)
            until(lambda: is_in(heard, said[-24_000:]), "what waited is not heard", every_s=0.2)
        it.hears_the_user(card)
        it.is_heard(card)
        it.only_these_changed("microphone", "speaker")
        assert not [told for told in talk.of(ComponentRestarted) if told.crashed]
        assert len(server.connections) == 1


def test_a_chosen_device_that_is_unplugged_is_replaced_and_used_again_when_it_is_back(
    server: FakeServer, card: Card, headset: Card, report: Report
) -> None:
    with call(server, input="headset_mic", output="headset_s") as talk:
        it = Call(talk)
        it.hears_the_user(headset)
        it.is_heard(headset)

        unplugged = time.monotonic()
        headset.kill()
        changed = it.expect_change("microphone", "default")
        it.expect_change("speaker", "default")
        report("replaced", unplugged)
        it.hears_the_user(card)
        it.is_heard(card)

        plugged = time.monotonic()
        headset.revive()
        it.expect_change("microphone", "headset_mic")
        it.expect_change("speaker", "headset_speaker")
        report("returned", plugged)
        it.hears_the_user(headset)
        it.is_heard(headset)

        assert changed.reason == "it is not there"
        assert it.changes("speaker") == [
            ("headset_speaker", "default"),
            ("headset_speaker", "headset_speaker"),
        ]
        it.only_these_changed("microphone", "speaker")


def test_what_a_lost_output_had_not_played_is_played_by_the_next_one(
    server: FakeServer, card: Card, headset: Card
) -> None:
    answer = chirp(3.0)
    with call(server, input="silence", output="headset_speaker") as talk:
        it = Call(talk)
        with card.listening() as second:
            with headset.listening() as first:
                talk.connection.say("A story.", answer, item="story")
                until(lambda: is_in(first, answer[:24_000]), "it does not begin", every_s=0.2)
                headset.kill()
            talk.expect(PlaybackEnded)
            until(lambda: is_in(second, answer[-24_000:]), "it does not go on", every_s=0.2)

        lost = samples_between(bytes(first), bytes(second), answer)
        assert lost < 0.5  # a busy machine may spoil a piece or two
        it.only_these_changed("speaker")


def test_another_device_can_be_chosen_in_the_middle_of_an_answer(
    server: FakeServer, card: Card, headset: Card
) -> None:
    answer = chirp(4.0)
    with call(server, input="default", output="default") as talk:
        it = Call(talk)
        it.hears_the_user(card)
        with headset.listening() as second:
            with card.listening() as first:
                talk.connection.say("A story.", answer, item="story")
                until(lambda: is_in(first, answer[:24_000]), "it does not begin", every_s=0.2)
                talk.session.send(UseOutput("headset_speaker"))
                it.expect_change("speaker", "headset_speaker")
            talk.session.send(UseInput("headset_mic"))
            it.expect_change("microphone", "headset_mic")
            talk.expect(PlaybackEnded)
            until(lambda: is_in(second, answer[-24_000:]), "it does not go on", every_s=0.2)

        assert samples_between(bytes(first), bytes(second), answer) < 0.5
        it.hears_the_user(headset)
        it.only_these_changed("microphone", "speaker")
        assert not [told for told in talk.of(ComponentRestarted) if told.crashed]

        talk.break_it("microphone", "SIGKILL")
        it.hears_the_user(headset)


def samples_between(first: bytes, second: bytes, answer: bytes) -> float:
    """Return how many seconds of an answer are in neither of two recordings."""
    heard = sum(
        likeness(first, piece) > 0.7 or likeness(second, piece) > 0.7
        for piece in (answer[at : at + 4800] for at in range(0, len(answer), 4800))
    )
    return 0.1 * (len(answer) // 4800 - heard)


@pytest.mark.long
def test_a_sound_server_that_freezes_is_noticed_and_used_again(
    server: FakeServer, card: Card, report: Report
) -> None:
    with call(server, input="default", output="default") as talk:
        it = Call(talk)
        it.hears_the_user(card)

        frozen = time.monotonic()
        card.signal(signal.SIGSTOP)
        for component in ("microphone", "speaker"):
            talk.expect(DeviceLost, lambda lost, c=component: lost.component == c)  # type: ignore[misc]
            report(f"{component} noticed", frozen)
        it.expect_change("microphone", "silence")
        it.expect_change("speaker", "null")
        report("went on", frozen)
        card.signal(signal.SIGCONT)
        thawed = time.monotonic()

        it.expect_change("microphone", "default")
        it.expect_change("speaker", "default")
        report("returned", thawed)
        it.hears_the_user(card)
        it.is_heard(card)
        it.only_these_changed("microphone", "speaker")


@pytest.mark.long
def test_a_device_that_is_plugged_in_later_is_found(
    server: FakeServer, card: Card, report: Report
) -> None:
    card.kill()
    with call(server, input="auto", output="auto") as talk:
        it = Call(talk)
        plugged = time.monotonic()
        card.revive()

        it.expect_change("microphone", "default")
        it.expect_change("speaker", "default")
        report("found", plugged)

        it.hears_the_user(card)
        it.is_heard(card)
        it.only_these_changed("microphone", "speaker")


@pytest.mark.long
def test_sound_moves_with_the_default_of_a_sound_server(server: FakeServer, card: Card) -> None:
    with call(server, input="silence", output="default") as talk:
        it = Call(talk)
        it.is_heard(card)

        card.pactl("load-module", "module-null-sink", "sink_name=other", "norewinds=1")
        card.pactl("set-default-sink", "other")

        with card.listening("other.monitor") as heard:
            talk.connection.say("Hello.", ASSISTANT, item="moved")
            talk.expect(PlaybackEnded, lambda ended: ended.item_id == "moved")
            until(lambda: is_in(heard, ASSISTANT), "it has not moved", every_s=0.2)
        it.only_these_changed()


@pytest.mark.long
def test_a_real_microphone_that_delivers_only_zeros_is_reopened_once(
    server: FakeServer, card: Card
) -> None:
    with call(server, input="mic", output="null") as talk:  # nobody speaks in the room
        it = Call(talk)

        lost = talk.expect(DeviceLost)
        it.expect_change("microphone", "mic")
        until(lambda: len(talk.connection.audio) > 10 * 48_000, "nothing is captured")

        assert lost.reason == "it delivers nothing but zeros"
        assert len(talk.of(DeviceLost)) == 1
        it.hears_the_user(card)
        it.only_these_changed("microphone")


@pytest.mark.long
def test_what_no_output_could_play_counts_as_not_heard(server: FakeServer, card: Card) -> None:
    with call(server, input="silence", output="default", output_hold_s=1.0) as talk:
        it = Call(talk)
        it.is_heard(card)
        card.kill()
        it.expect_change("speaker", "null")

        talk.connection.say("Nobody hears this.", ASSISTANT, item="unheard")

        told = talk.expect(Interrupted, lambda cut: cut.item_id == "unheard")
        cut = talk.connection.expect("conversation.item.truncate")
        card.revive()
        it.expect_change("speaker", "default")
        assert (told.heard_ms, told.text_heard) == (0, "")
        assert (cut["item_id"], cut["audio_end_ms"]) == ("unheard", 0)
        it.is_heard(card)
        it.only_these_changed("speaker")


@pytest.mark.long
def test_a_chosen_device_for_which_the_sound_server_puts_another_is_used_again_when_it_is_back(
    server: FakeServer, card: Card, report: Report
) -> None:
    card.plug_in("extra")
    with call(server, input="extra", output="null") as talk:
        it = Call(talk)
        it.hears_the_user(card, "extra")

        unplugged = time.monotonic()
        card.unplug("extra")
        it.expect_change("microphone", "default")
        report("noticed", unplugged)
        it.hears_the_user(card)
        card.plug_in("extra")
        it.expect_change("microphone", "extra")

        it.hears_the_user(card, "extra")
        it.only_these_changed("microphone")
