"""What components send each other straight, ahead of the supervisor."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from actors.base import Actor
from actors.devices.playout import Playout
from actors.microphone import Microphone
from actors.speaker import Speaker
from messages import (
    DIRECT,
    AskToPass,
    AssistantAudio,
    CapturedAudio,
    ComponentCrashed,
    FlushPlayback,
    Keep,
    MayPass,
    Message,
    PausePlayback,
    PlaybackFlushed,
    PlaybackPaused,
    PlayedAudio,
    PlayedPosition,
    ProgramCapture,
    ProgramFlush,
    ProgramFlushed,
    ProgramPlayout,
    ReplayCapture,
    ResumePlayback,
    Room,
    SendText,
    SetVolume,
    ToolCall,
    decode,
    encode,
)
from messages.transport.direct import DirectInbox, DirectSender
from messages.transport.page import MAIL
from tests.actors.process import ProcessRig
from tests.conversation import noise
from tests.rig import TIMEOUT_S, Rig, until


class Told(Actor):
    """Says which calls it was given, and raises at one of them."""

    accepts: ClassVar = {ToolCall: DIRECT}

    def handle(self, message: Message) -> None:
        assert isinstance(message, ToolCall)
        self.send(SendText(message.call_id, "ahead" if self.is_ahead else ""))
        if message.name == "raise":
            raise ValueError("told to")


class Collecting(Told):
    """The same, but it collects what it sends."""

    collects = True


class Ear(Actor):
    """Says which blocks it was given."""

    accepts: ClassVar = {CapturedAudio: Keep(30, direct=True)}

    def can_take_ahead(self, message: Message) -> bool:
        assert isinstance(message, CapturedAudio)
        return message.first_sample > 0

    def handle(self, message: Message) -> None:
        assert isinstance(message, CapturedAudio)
        self.send(SendText(str(message.first_sample), "ahead" if self.is_ahead else ""))


class Teller(Actor):
    """Sends an answer that somebody waits for."""

    accepts: ClassVar = {SendText: DIRECT}

    def handle(self, message: Message) -> None:
        self.send(FlushPlayback("now", 1))


class Both(Actor):
    """Sends an ordinary message, and after it one ahead."""

    collects = True
    accepts: ClassVar = {SendText: DIRECT}

    def handle(self, message: Message) -> None:
        self.send(SendText("first", ""))
        self.send_ahead(CapturedAudio(b"ab", 0, 0))


class Caller(Actor):
    """Flushes, in a posted call, and takes the answer before it says the rest."""

    collects = True
    accepts: ClassVar = {SendText: DIRECT, SetVolume: DIRECT}
    answered: ClassVar = threading.Event()

    def handle(self, message: Message) -> None:
        match message:
            case SendText():
                self.post(self._flush)
            case SetVolume():
                self.send(SetVolume(0.5))

    def _flush(self) -> None:
        self.send(FlushPlayback("now", 1))
        assert self.answered.wait(TIMEOUT_S)
        self.take_straight()
        self.send(SendText("rest", ""))


def straight(rig: Rig, message: Message) -> None:
    """Send a message as another component does."""
    sender = DirectSender(rig.page_path)
    assert sender.send(encode(message))
    sender.close()


@pytest.fixture
def ears(tmp_path: Path) -> Iterator[list[DirectInbox]]:
    made: list[DirectInbox] = []
    yield made
    for inbox in made:
        inbox.close()


# -- the actor ------------------------------------------------------------------------------------


def test_what_has_come_straight_is_not_handled_again(tmp_path: Path) -> None:
    with Rig(Told, tmp_path) as rig:
        straight(rig, ToolCall("a", "t", "{}"))
        assert rig.expect(SendText).item_id == "ahead"

        rig.tell(ToolCall("a", "t", "{}"))
        rig.tell(ToolCall("b", "t", "{}"))

        assert rig.expect(SendText).text == "b"
        rig.wait_handled(mail=2)


def test_sound_that_has_come_straight_is_handled_again_only_if_it_was_refused(
    tmp_path: Path,
) -> None:
    with Rig(Ear, tmp_path) as rig:
        for first in (0, 1):
            straight(rig, CapturedAudio(b"ab", first, 0))
        assert rig.expect(SendText) == SendText("1", "ahead")

        for first in (0, 1, 2):
            rig.tell(CapturedAudio(b"ab", first, 0))

        assert [rig.expect(SendText).text for _ in range(2)] == ["0", "2"]
        rig.wait_handled(mail=3)


def test_what_comes_straight_after_it_has_come_is_not_handled_again(tmp_path: Path) -> None:
    with Rig(Told, tmp_path) as rig:
        rig.tell(ToolCall("a", "t", "{}"))
        assert rig.expect(SendText).text == "a"

        straight(rig, ToolCall("a", "t", "{}"))
        straight(rig, ToolCall("b", "t", "{}"))

        assert rig.expect(SendText).text == "b"


def test_after_a_raise_what_had_come_straight_is_handled_when_it_comes_again(
    tmp_path: Path,
) -> None:
    with Rig(Told, tmp_path) as rig:
        straight(rig, ToolCall("a", "raise", "{}"))
        rig.restart()
        assert rig.expect(SendText).item_id == "ahead"

        rig.tell(ToolCall("a", "raise", "{}"))

        assert rig.expect(SendText).item_id == ""


def test_a_message_that_somebody_waits_for_goes_both_ways(
    tmp_path: Path, ears: list[DirectInbox]
) -> None:
    with Rig(Teller, tmp_path) as rig:
        ears.append(DirectInbox(rig.page_path, [FlushPlayback.tag()]))

        rig.tell(SendText("go", ""))

        assert rig.expect(FlushPlayback).sent_ns == 1
        frame = ears[0].take()
        assert frame is not None
        assert decode(frame) == FlushPlayback("now", 1)


def test_an_answer_that_is_there_is_taken_before_the_rest_is_done(tmp_path: Path) -> None:
    Caller.answered.clear()
    with Rig(Caller, tmp_path) as rig:
        straight(rig, SendText("go", ""))
        straight(rig, SetVolume(0.0))
        Caller.answered.set()

        rig.expect(SendText)

        assert rig.received[-3:] == [FlushPlayback, SetVolume, SendText]


@pytest.mark.parametrize("answered", [False, True])
def test_the_receiver_is_let_run_unless_it_has_answered(
    tmp_path: Path, ears: list[DirectInbox], monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    runs = list[str]()
    monkeypatch.setattr("actors.host.let_others_run", lambda: runs.append("let run"))
    with Rig(Teller, tmp_path) as rig:
        ears.append(DirectInbox(rig.page_path, [FlushPlayback.tag()]))
        if answered:
            monkeypatch.setattr(DirectInbox, "has_news", lambda *_: True)

        rig.tell(SendText("go", ""))
        rig.expect(FlushPlayback)

        assert runs == ([] if answered else ["let run"])


def test_what_comes_straight_can_be_waited_for_a_moment(tmp_path: Path) -> None:
    sender, base = DirectSender(tmp_path / "page-1"), tmp_path / "page-1"
    inbox = DirectInbox(base, [SetVolume.tag()])
    assert not inbox.has_news(0.001)
    later = threading.Timer(0.01, sender.send, [encode(SetVolume(0.5))])
    later.start()

    assert inbox.has_news(TIMEOUT_S)
    assert inbox.take() is not None
    later.join()
    inbox.close()
    assert not inbox.has_news(TIMEOUT_S)
    sender.close()


def test_what_was_sent_before_does_not_wait_with_what_is_sent_ahead(
    tmp_path: Path, ears: list[DirectInbox]
) -> None:
    with Rig(Both, tmp_path) as rig:
        ears.append(DirectInbox(rig.page_path, [CapturedAudio.tag()]))

        rig.tell(SendText("go", ""))

        rig.expect(CapturedAudio)
        assert rig.received[-2:] == [SendText, CapturedAudio]


# -- the speaker ----------------------------------------------------------------------------------


def audio(samples: int, first: int = 0, *, item: str = "a", sent_ns: int = 1) -> AssistantAudio:
    pcm = array("h", [1000] * samples).tobytes()
    return AssistantAudio(pcm, item, "r", first, sent_ns=sent_ns)


def last(item: str, samples: int, sent_ns: int = 1) -> AssistantAudio:
    return AssistantAudio(b"", item, "r", samples, last=True, sent_ns=sent_ns)


def heard(rig: Rig, *items: str) -> int:
    played = [it for it in rig.take(PlayedAudio) if not items or it.item_id in items]
    return sum(len(it.pcm) for it in played) // 2


def test_sound_that_comes_straight_is_played_once_and_stays_the_supervisors_until_then(
    tmp_path: Path,
) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        straight(rig, audio(4_800))
        rig.expect(PlayedPosition)
        assert rig.slot.handled(1) == 0

        rig.tell(audio(4_800))
        rig.tell(last("a", 4_800))

        rig.expect(PlayedPosition, lambda position: position.finished)
        rig.wait_handled(held=2)
        assert heard(rig) == 4_800


def test_sound_that_comes_straight_waits_for_what_is_missing_before_it(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        straight(rig, audio(2_400, 2_400))
        rig.tell(audio(2_400))
        rig.expect(PlayedPosition)
        straight(rig, audio(2_400, item="b"))
        rig.tell(audio(2_400, 2_400))
        rig.tell(last("a", 4_800))
        rig.tell(audio(2_400, item="b"))
        rig.tell(last("b", 2_400))

        ends = [rig.expect(PlayedPosition, lambda it: it.finished) for _ in range(2)]

        assert [(end.item_id, end.played_samples) for end in ends] == [("a", 4_800), ("b", 2_400)]
        assert heard(rig) == 7_200


def test_a_flush_that_overtakes_sound_discards_it_and_spares_what_is_later(
    tmp_path: Path,
) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        rig.tell(audio(24_000, sent_ns=10))
        rig.expect(PlayedPosition)
        straight(rig, FlushPlayback("now", 20))
        cut = rig.expect(PlaybackFlushed)
        rig.tell(audio(24_000, 24_000, sent_ns=11))
        rig.tell(last("a", 48_000, sent_ns=11))
        rig.tell(FlushPlayback("now", 20))

        rig.tell(audio(2_400, item="b", sent_ns=20))
        rig.tell(last("b", 2_400, sent_ns=20))

        assert (cut.item_id, cut.flush_ns) == ("a", 20)
        assert rig.expect(PlayedPosition, lambda it: it.finished).item_id == "b"
        assert heard(rig, "b") == 2_400
        assert rig.take(PlaybackFlushed) == []


def test_a_pause_that_a_flush_has_overtaken_pauses_nothing(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        rig.tell(audio(24_000, sent_ns=10))
        straight(rig, FlushPlayback("now", 20))
        rig.expect(PlaybackFlushed)

        rig.tell(PausePlayback(15))
        rig.tell(audio(2_400, item="b", sent_ns=20))
        rig.tell(last("b", 2_400, sent_ns=20))

        assert rig.expect(PlayedPosition, lambda it: it.finished).item_id == "b"


def test_a_resumption_that_a_pause_has_overtaken_resumes_nothing(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        rig.tell(audio(24_000))
        rig.tell(PausePlayback(10))
        rig.expect(PlaybackPaused)
        straight(rig, PausePlayback(30))

        rig.tell(ResumePlayback(20))
        rig.tell(PausePlayback(30))
        rig.wait_handled(mail=3)

        playout = rig.host.keep["playout"]
        assert isinstance(playout, Playout)
        assert playout.paused


def test_a_flush_at_the_end_of_an_answer_tells_that_it_was_heard_to_its_end(
    tmp_path: Path, ears: list[DirectInbox]
) -> None:
    """The answer to the flush may overtake the position that says so."""
    with Rig(Speaker, tmp_path, output="program") as rig:
        rig.tell(audio(4_800))
        rig.tell(last("a", 4_800))
        rig.expect(ProgramPlayout)
        rig.tell(FlushPlayback("now", 20))
        flush = rig.expect(ProgramFlush)

        rig.tell(ProgramFlushed(flush.number, 4_800, time.monotonic_ns()))

        flushed = rig.expect(PlaybackFlushed)
        assert (flushed.item_id, flushed.played_samples) == ("a", 4_800)
        assert rig.expect(PlayedPosition, lambda it: it.finished).item_id == "a"


# -- the microphone -------------------------------------------------------------------------------


def captured(inbox: DirectInbox, blocks: list[CapturedAudio]) -> list[CapturedAudio]:
    """Add the blocks that have come straight to the list, and return it."""
    while (frame := inbox.take()) is not None:
        block = decode(frame)
        assert isinstance(block, CapturedAudio)
        blocks.append(block)
    return blocks


def listening(rig: Rig, ears: list[DirectInbox]) -> DirectInbox:
    """Receive captured sound straight, from now on."""
    ears.append(DirectInbox(rig.page_path, [CapturedAudio.tag()]))
    return ears[0]


class Captured:
    """The blocks that a microphone has sent: straight, and through the supervisor."""

    def __init__(self, rig: Rig, ears: list[DirectInbox]) -> None:
        self.straight: list[CapturedAudio] = []
        self.through: list[CapturedAudio] = []
        self._rig, self._inbox = rig, listening(rig, ears)

    def wait_until_held_back(self) -> None:
        """Wait until five blocks have come straight, and not through the supervisor."""
        until(lambda: self._held_back() >= 5, "none is held back", every_s=0.001)

    def wait_for(self, blocks: int) -> None:
        """Wait until this many more blocks have come straight."""
        count = len(self.straight) + blocks
        until(lambda: self._look() >= count, "no more comes straight", every_s=0.001)

    def _held_back(self) -> int:
        self._look()
        known = self.through[-1].first_sample if self.through else -1
        return sum(block.first_sample > known for block in self.straight)

    def _look(self) -> int:
        self.through += self._rig.take(CapturedAudio)
        return len(captured(self._inbox, self.straight))


def test_captured_sound_goes_straight_and_through_the_supervisor_later(
    tmp_path: Path, ears: list[DirectInbox]
) -> None:
    rig = Rig(Microphone, tmp_path, input="silence", block_ms=20)
    sound = Captured(rig, ears)
    with rig:
        sound.wait_until_held_back()
        held = sound.straight[-5:]
        sound.wait_for(30)

    anchor, first = sound.through[:2]
    assert anchor.first_sample < sound.straight[0].first_sample, "it has to anchor the others"
    assert first == sound.straight[0]
    assert [block for block in sound.through if block in held] == held


@pytest.mark.parametrize(
    "message", [ReplayCapture(0, 1), ComponentCrashed("realtime", 1, "killed by SIGKILL")]
)
def test_after_a_replay_or_a_crash_of_realtime_no_sound_is_held_back_as_it_may_be_refused(
    tmp_path: Path, ears: list[DirectInbox], message: Message
) -> None:
    rig = Rig(Microphone, tmp_path, input="silence", block_ms=20)
    sound = Captured(rig, ears)
    with rig:
        sound.wait_until_held_back()
        held = sound.straight[-1]
        rig.tell(message)
        rig.wait_handled(mail=1)
        sound.wait_for(12)

    assert held in sound.through
    assert sound.straight[-5] in sound.through


def test_after_sound_that_did_not_go_straight_none_is_held_back(
    tmp_path: Path, ears: list[DirectInbox]
) -> None:
    rig = Rig(Microphone, tmp_path, input="silence", block_ms=20)
    sound = Captured(rig, ears)
    with rig:
        sound.wait_until_held_back()
        ears.pop().close()
        rig.expect(CapturedAudio, lambda it: it.first_sample > sound.straight[-1].first_sample)
        sound = Captured(rig, ears)
        sound.wait_for(12)

    assert sound.straight[-5] in sound.through


def test_captured_sound_goes_through_the_supervisor_at_once_if_others_wait_for_it(
    tmp_path: Path, ears: list[DirectInbox]
) -> None:
    rig = Rig(Microphone, tmp_path, input="silence", block_ms=20)
    rig.wanted = (CapturedAudio.tag(),)
    inbox, blocks = listening(rig, ears), []
    with rig:
        rig.expect(CapturedAudio)
        for _ in range(5):
            newest = rig.expect(CapturedAudio)
            captured(inbox, blocks)
            assert newest in blocks
            assert blocks[-1].first_sample - newest.first_sample <= 960


def test_sound_that_was_held_back_when_the_process_died_is_sent_by_the_next_one(
    tmp_path: Path, ears: list[DirectInbox]
) -> None:
    rig = ProcessRig(Microphone, tmp_path, input="silence", block_ms=20)
    sound = Captured(rig, ears)
    with rig:
        sound.wait_until_held_back()
        rig.kill()
        sound.wait_for(0)
        rig.reborn()
        again = rig.expect(CapturedAudio)

    assert _end(again) == _end(sound.straight[-1])
    known = _end(sound.through[-1]) if sound.through else again.first_sample
    assert again.first_sample == known, "neither a hole nor anything twice"


def _end(block: CapturedAudio) -> int:
    return block.first_sample + len(block.pcm) // 2


class Reached:
    """The way straight to a component that takes everything at once."""

    def send(self, frame: bytes) -> bool:
        return True

    def close(self) -> None:
        pass


def test_of_a_burst_no_more_is_held_back_than_the_next_process_can_send(tmp_path: Path) -> None:
    with Rig(Microphone, tmp_path, input="program", block_ms=40) as rig:
        assert rig.host._direct_sender is not None
        rig.host._direct_sender.close()
        rig.host._direct_sender = Reached()  # type: ignore[assignment]
        rig.tell(ProgramCapture(noise(3_000, 1), 24_000, time.monotonic_ns() - 3_000_000_000))

        until(lambda: rig.host.keep["line"].next >= 72_000, "it is not captured", every_s=0.001)

        kept = rig.host.keep["line"].next - 24_000
        rig.expect(CapturedAudio, lambda it: it.first_sample + 960 >= kept, timeout_s=0.1)


# -- the program's sound --------------------------------------------------------------------------


def piece(number: int, value: int) -> ProgramCapture:
    """Return a block of the program's sound, 20 ms, which its value tells from others."""
    return ProgramCapture(array("h", [value] * 480).tobytes(), number=number)


def values(rig: Rig, count: int) -> list[int]:
    """Return what was captured, without silence: the values of the next blocks."""
    found: list[int] = []
    while len(found) < count:
        found += [block[0] for block in [array("h", rig.expect(CapturedAudio).pcm)] if block[0]]
    return found


def test_the_programs_sound_is_captured_once_whichever_way_it_comes(tmp_path: Path) -> None:
    with Rig(Microphone, tmp_path, input="program", block_ms=20) as rig:
        straight(rig, piece(1, 10))
        straight(rig, piece(2, 20))
        assert values(rig, 2) == [10, 20]

        for number in (1, 2, 3):
            rig.tell(piece(number, 10 * number))
        straight(rig, piece(4, 40))
        rig.tell(piece(4, 40))
        rig.tell(piece(5, 50))

        assert values(rig, 3) == [30, 40, 50]
        rig.wait_handled(mail=5)


def test_the_programs_sound_does_not_overtake_what_is_missing(tmp_path: Path) -> None:
    with Rig(Microphone, tmp_path, input="program", block_ms=20) as rig:
        straight(rig, piece(2, 20))
        rig.tell(piece(1, 10))
        rig.tell(piece(2, 20))

        assert values(rig, 2) == [10, 20]


def test_the_next_process_knows_which_sound_of_the_program_was_captured(tmp_path: Path) -> None:
    rig = ProcessRig(Microphone, tmp_path, input="program", block_ms=20)
    with rig:
        straight(rig, piece(1, 10))
        assert values(rig, 1) == [10]
        rig.kill()
        rig.reborn()

        rig.tell(piece(1, 10))
        rig.tell(piece(2, 20))

        assert values(rig, 1) == [20]


# -- what is for the program ----------------------------------------------------------------------

FOR_PROGRAM = [ProgramPlayout.tag(), ProgramFlush.tag()]


def pass_on(rig: Rig) -> None:
    """Answer the speaker's last question, as a program does that reads on its loop."""
    rig.tell(MayPass(rig.take(AskToPass)[-1].number))
    rig.tell(SetVolume(0.5))
    rig.wait_state(lambda state: b"\xcb?\xe0" in state)  # 0.5: what came before is handled too


def test_the_speaker_asks_and_then_passes_the_supervisor(
    tmp_path: Path, ears: list[DirectInbox]
) -> None:
    with Rig(Speaker, tmp_path, output="program") as rig:
        ears.append(DirectInbox(rig.page_path, FOR_PROGRAM))
        pass_on(rig)

        rig.tell(audio(2_400))
        program: list[Message] = []
        until(lambda: told(ears[0], program), "nothing comes straight", every_s=0.001)
        rig.tell(FlushPlayback("now", 20))
        until(lambda: len(told(ears[0], program)) > 1, "no flush comes", every_s=0.001)

        assert [type(message) for message in program] == [ProgramPlayout, ProgramFlush]
        assert rig.take(ProgramPlayout) == []
        assert rig.take(ProgramFlush) == []


def test_before_the_answer_everything_for_the_program_goes_through_the_supervisor(
    tmp_path: Path, ears: list[DirectInbox]
) -> None:
    with Rig(Speaker, tmp_path, output="program") as rig:
        ears.append(DirectInbox(rig.page_path, FOR_PROGRAM))
        first = rig.expect(AskToPass)
        rig.tell(audio(2_400))
        rig.expect(ProgramPlayout)
        assert rig.take(AskToPass) == [], "one question is enough"

        rig.tell(MayPass(first.number))  # the answer to the question before the sound
        second = rig.expect(AskToPass)
        rig.tell(FlushPlayback("now", 20))
        rig.expect(ProgramFlush)

        assert first != second
        assert told(ears[0], []) == []


def test_an_answer_to_another_question_does_not_count(
    tmp_path: Path, ears: list[DirectInbox]
) -> None:
    """A process that has died may have asked it."""
    with Rig(Speaker, tmp_path, output="program") as rig:
        ears.append(DirectInbox(rig.page_path, FOR_PROGRAM))
        rig.tell(MayPass(rig.expect(AskToPass).number - 1))

        rig.tell(audio(2_400))

        rig.expect(ProgramPlayout)
        assert told(ears[0], []) == []


def test_a_program_that_does_not_read_is_sent_everything_in_order_through_the_supervisor(
    tmp_path: Path, ears: list[DirectInbox]
) -> None:
    """After what went straight, nothing does until the program has said that it has the rest."""
    with Rig(Speaker, tmp_path, output="program") as rig:
        ears.append(DirectInbox(rig.page_path, FOR_PROGRAM))
        pass_on(rig)
        for first in range(0, 96_000, 2_400):
            rig.tell(audio(2_400, first=first))
        past = rig.expect(ProgramPlayout)
        later = rig.expect(ProgramPlayout)
        program = told(ears[0], [])

        ends = [
            message.first_sample + len(message.pcm) // 2
            for message in [*program, past]
            if isinstance(message, ProgramPlayout)
        ]
        assert len(ends) > 5, "the program's socket was full at once"
        assert past.first_sample == ends[-2], "nothing is missing"
        assert later.first_sample == ends[-1]
        pass_on(rig)
        until(lambda: told(ears[0], program), "it never passes again", every_s=0.001)


def told(inbox: DirectInbox, messages: list[Message]) -> list[Message]:
    """Add what has come straight to the list, and return it."""
    messages += [decode(frame) for frame in iter(inbox.take, None) if frame is not None]
    return messages


def test_what_a_component_wants_too_goes_through_the_supervisor(
    tmp_path: Path, ears: list[DirectInbox]
) -> None:
    rig = Rig(Speaker, tmp_path, output="program")
    rig.wanted = (ProgramPlayout.tag(),)
    with rig:
        ears.append(DirectInbox(rig.page_path, FOR_PROGRAM))
        pass_on(rig)

        rig.tell(audio(2_400))

        rig.expect(ProgramPlayout)
        assert told(ears[0], []) == []
        assert rig.take(AskToPass) == []


def test_the_last_position_of_sound_that_stops_in_an_item_is_told(tmp_path: Path) -> None:
    """More often than four times a second it is told only where playback rests."""
    with Rig(Speaker, tmp_path, output="null") as rig:
        rig.tell(audio(12_000))

        assert rig.expect(PlayedPosition, lambda it: it.played_samples == 12_000)
        told_at = [it.at_ns for it in rig.take(PlayedPosition)]
        assert len(told_at) < 4


def test_a_paused_position_is_told(tmp_path: Path) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        rig.tell(audio(24_000))
        first = rig.expect(PlayedPosition)
        rig.take(PlayedAudio)
        rig.expect(PlayedAudio)  # a tenth of a second later

        rig.tell(PausePlayback(5))
        paused = rig.expect(PlaybackPaused)

        rig.expect(PlayedPosition, lambda it: it.played_samples // 24 >= paused.heard_ms)
        assert first.played_samples // 24 < paused.heard_ms


def test_the_first_position_of_an_item_does_not_overtake_the_last_of_the_one_before(
    tmp_path: Path, ears: list[DirectInbox]
) -> None:
    with Rig(Speaker, tmp_path, output="null") as rig:
        ears.append(DirectInbox(rig.page_path, [PlayedPosition.tag()]))
        rig.tell(audio(2_400))
        rig.tell(last("a", 2_400))
        rig.tell(audio(16_800, item="b"))
        rig.tell(last("b", 16_800))
        through: list[PlayedPosition] = []
        while not through or through[-1].item_id != "b" or not through[-1].finished:
            through.append(rig.expect(PlayedPosition))

        past = [it for it in told(ears[0], []) if isinstance(it, PlayedPosition)]
        of_b = [it for it in through if it.item_id == "b"]
        assert {it.item_id for it in past} == {"b"}, "nothing went past the supervisor"
        assert not of_b[0].finished
        assert of_b[0].at_ns < min(it.at_ns for it in past)


def test_a_copy_that_is_passed_over_makes_room_in_the_mailbox(
    tmp_path: Path,
) -> None:
    with Rig(Collecting, tmp_path) as rig:
        straight(rig, ToolCall("a", "t", "{}"))
        rig.expect(SendText)
        rig.slot.wake_at(MAIL, 1)

        rig.tell(ToolCall("a", "t", "{}"))

        until(lambda: Room in rig.received, "the supervisor is not told")
