"""The audio received, played and heard of each item."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from actors.realtime.core.playback import SILENT_SPEAKER_NS, Cut, PlaybackAccount, Spoken
from actors.realtime.core.state import Audible

NS = 1_000_000_000


def _item(received_ms: int, played_ms: float = 0, *, complete: bool = True) -> Spoken:
    samples = 24 * received_ms
    parts = [[0, samples]] if samples else []
    item = Spoken("a1", "r1", 1, received=samples, parts=parts)
    item.played, item.complete = int(played_ms * 24), complete
    return item


@given(st.lists(st.binary(max_size=9)))
def test_samples_are_whole_and_nothing_is_lost(pieces: list[bytes]) -> None:
    item = Spoken("a1", "r1", 1)
    out = b""

    for piece in pieces:
        pcm, first = item.take(piece, 0)
        assert first * 2 == len(out)
        out += pcm

    whole = b"".join(pieces)
    assert out == whole[: len(whole) & ~1]
    assert item.received == len(whole) // 2


@given(st.integers(0, 3000), st.floats(0, 5000), st.booleans())
def test_a_truncation_is_never_beyond_what_was_played_or_received(
    received: int, played: float, complete: bool
) -> None:
    item = _item(received, played, complete=complete)

    assert item.heard() <= min(item.played, item.received)
    for _, end in item.truncations():
        assert end <= played
        assert end <= received
        assert isinstance(end, int)


def test_what_was_wholly_heard_needs_no_truncation() -> None:
    assert _item(1000, 1000).truncations() == []
    assert _item(1000, 1000, complete=False).truncations() == [(0, 1000)]
    assert _item(0).truncations() == []


def test_each_part_is_truncated_by_its_own_clock() -> None:
    item = _item(1000)
    item.take(b"\0" * 48_000, 1)
    item.complete = True

    item.played = 24 * 400
    assert item.truncations() == [(0, 400), (1, 0)]
    item.played = 24 * 1300
    assert item.truncations() == [(1, 300)]
    item.played = 24 * 2000
    assert item.truncations() == []


def test_parts_that_come_in_turns_are_truncated_by_what_was_heard_of_each() -> None:
    item = Spoken("a1", "r1", 1)
    for part in (0, 1, 0):
        item.take(b"\0" * 4_800, part)

    item.played = 24 * 250

    assert item.truncations() == [(0, 150)]


def test_more_sound_means_that_the_item_was_not_complete() -> None:
    item = _item(1000, complete=True)

    item.take(b"\0\0", 1)

    assert not item.complete


def test_the_text_that_was_heard_ends_with_a_word() -> None:
    item = _item(1000)
    item.text = "one two three four"

    heard = []
    for played in (0, 100, 250, 450, 700, 1000):
        item.played = played * 24
        heard.append(item.estimate_heard())

    assert heard == ["", "", "one", "one two", "one two", "one two three four"]


@given(st.text(), st.integers(1, 1000), st.integers(0, 2000))
def test_the_text_that_was_heard_is_the_beginning_of_the_text(
    text: str, received: int, played: int
) -> None:
    item = _item(received, played)
    item.text = text

    assert text.startswith(item.estimate_heard())


def _queue(*item_ids: str) -> PlaybackAccount:
    playback = PlaybackAccount()
    for item_id in item_ids:
        item = playback.begin(item_id, "r1", 1)
        item.take(b"\0" * 48_000, 0)
        item.complete = True
    return playback


def _ends(cuts: list[Cut]) -> dict[str, int]:
    return {cut.item.item_id: end for cut in cuts for _, end in cut.truncations}


def test_a_flush_cuts_the_item_that_was_playing_and_those_after_it() -> None:
    playback = _queue("a1", "a2", "a3")

    playback.flush(playback.queue(), 0)
    cuts = playback.flushed("a2", 12_000)

    assert _ends(cuts) == {"a2": 500, "a3": 0}
    assert playback.queue() == []


def test_a_flush_of_silence_cuts_at_the_last_position() -> None:
    playback = _queue("a1", "a2")
    playback.position("a1", 2400, False, 0)

    playback.flush(playback.queue(), 0)

    assert _ends(playback.flushed("", 0)) == {"a1": 100, "a2": 0}


def test_an_answer_to_another_flush_is_no_position() -> None:
    playback = _queue("a1")

    playback.flush(playback.queue(), 0)

    assert _ends(playback.flushed("a9", 24_000)) == {"a1": 0}


def test_the_end_of_an_item_is_the_end_of_those_before_it() -> None:
    playback = _queue("a1", "a2", "a3")

    assert playback.position("a2", 24_000, True, 0)

    assert [item.item_id for item in playback.queue()] == ["a3"]
    assert not playback.position("a2", 24_000, True, 0)


def test_sound_counts_as_played_when_the_speaker_is_silent_for_too_long() -> None:
    playback = _queue("a1")
    playback.news(10 * NS)

    assert playback.drained_at() == 11 * NS + SILENT_SPEAKER_NS
    playback.give_up()

    assert playback.drained_at() is None


def test_more_sound_after_that_plays_again() -> None:
    playback = _queue("a1")
    playback.give_up()

    playback.items["a1"].take(b"\0\0", 0)

    assert playback.queue()


def test_what_another_process_was_playing_is_remembered() -> None:
    playback = PlaybackAccount([Audible("a1", "r1", 24_000, True), Audible("a2", "r1", 4800)])

    assert [item.item_id for item in playback.queue()] == ["a1", "a2"]
    playback.items["a1"].text = "one two"
    playback.items["a2"].text = "three four"
    playback.flush(playback.queue(), 0)
    cuts = playback.flushed("a1", 12_000)

    assert [cut.item.estimate_heard() for cut in cuts] == ["one", ""]


def test_of_what_another_process_was_playing_all_counts_as_heard_if_its_length_is_unknown() -> None:
    playback = PlaybackAccount([Audible("a2", "r1", 4800)])

    playback.items["a2"].text = "three four"
    playback.flush(playback.queue(), 0)
    cuts = playback.flushed("a2", 240)

    assert [cut.item.estimate_heard() for cut in cuts] == ["three four"]


def test_old_items_are_forgotten() -> None:
    playback = PlaybackAccount()

    for number in range(1000):
        playback.begin(f"a{number}", "r", 1)
        playback.mute([f"r{number}"])

    assert len(playback.items) <= 200
    assert len(playback.muted) <= 200


def test_the_id_of_an_item_of_a_lost_session_may_come_again() -> None:
    playback = PlaybackAccount([Audible("a1", "r1", 24_000, True)])

    assert playback.begin("a1", "r2", 1).received == 0


_moves = st.tuples(
    st.sampled_from(["sound", "begin", "played", "flush", "give up"]),
    st.sampled_from(["a1", "a2", "a3", "a4"]),
    st.integers(0, 2),
)


@given(st.lists(_moves, max_size=40))
@example([("sound", "a1", 1), ("played", "a1", 2), ("begin", "a3", 1), ("sound", "a1", 1)])
def test_what_waits_is_what_was_received_and_is_not_over_in_the_order_of_beginning(
    moves: list[tuple[str, str, int]],
) -> None:
    playback = PlaybackAccount([Audible("a2", "r1", 4800)])

    for what, item_id, number in moves:
        match what:
            case "sound":
                playback.begin(item_id, "r1", number).take(b"\0" * 96, 0)
            case "begin":
                playback.begin(item_id, "r1", number)
            case "played":
                playback.position(item_id, 24 * number, number == 2, NS)
            case "flush":
                playback.flush(playback.unflushed(), NS)
                playback.flushed(item_id, number)
            case "give up":
                playback.give_up()

        items = playback.items.values()
        assert playback.queue() == [i for i in items if i.received and not i.over]
