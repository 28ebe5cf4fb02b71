"""Voice activity detection: where speech begins and ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtvoice.sandbox.vad import SpeechDetector, Started, Stopped, speech_span

MS = 24


def server_vad(**changes):
    base = {"threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 200}
    return {"type": "server_vad", **base, **changes}


def silence(ms):
    return np.zeros(ms * MS, np.int16)


def voice(ms, level=0.3, seed=0):
    """Something like speech: noise in syllables of 150 ms, the gaps 20 dB down."""
    noise = np.random.default_rng(seed).normal(0, level * 32768 / 3, ms * MS)
    syllable = 0.1 + 0.9 * (np.sin(np.pi * np.arange(ms * MS) / (150 * MS)) ** 2)
    return np.clip(noise * syllable, -32768, 32767).astype(np.int16)


def detect(samples, cut=960, **changes):
    detector = SpeechDetector(server_vad(**changes))
    pcm = samples.astype("<i2").tobytes()
    return [
        change
        for at in range(0, len(pcm), 2 * cut)
        for change in detector.feed(pcm[at : at + 2 * cut])
    ]


def in_ms(changes):
    return [(type(change), change.at / MS) for change in changes]


def near(value, expected):
    return abs(value - expected) <= 60


def test_speech_has_a_start_with_its_prefix_and_an_end_with_its_silence():
    sound = np.concatenate([silence(1000), voice(1000), silence(1000)])

    (first, start), (second, end) = in_ms(detect(sound))

    assert (first, second) == (Started, Stopped)
    assert near(start, 1000 - 300)
    assert near(end, 2000 + 200)


@pytest.mark.parametrize("silence_ms", [100, 500, 900])
def test_the_silence_that_ends_a_turn_is_as_long_as_asked(silence_ms):
    sound = np.concatenate([silence(500), voice(600), silence(1500)])

    changes = in_ms(detect(sound, silence_duration_ms=silence_ms))

    assert near(changes[1][1], 1100 + silence_ms)


def test_without_silence_speech_does_not_end():
    changes = detect(np.concatenate([silence(500), voice(900)]))

    assert [type(change) for change in changes] == [Started]


def test_a_pause_shorter_than_the_silence_is_part_of_the_turn():
    sound = np.concatenate([silence(500), voice(500), silence(300), voice(500), silence(900)])

    assert len(detect(sound, silence_duration_ms=500)) == 2
    assert len(detect(sound, silence_duration_ms=200)) == 4


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 9000), min_size=1, max_size=30))
def test_how_the_audio_is_cut_does_not_matter(cuts):
    sound = np.concatenate([silence(400), voice(700), silence(600), voice(300), silence(500)])
    detector, at, found = SpeechDetector(server_vad()), 0, []

    for count in [*cuts, len(sound)]:
        found += detector.feed(sound[at : at + count].tobytes())
        at += count

    assert found == detect(sound)


@pytest.mark.parametrize("gain_db", [6, 0, -12, -24])
def test_how_loud_it_is_does_not_matter(gain_db):
    sound = np.concatenate([silence(800), voice(900), silence(800)]) * 10 ** (gain_db / 20)

    (_, start), (_, end) = in_ms(detect(np.clip(sound, -32768, 32767)))

    assert near(start, 500)
    assert near(end, 1900)


@pytest.mark.parametrize("room_db", [-70, -50, -40])
def test_a_noisy_room_is_not_speech_and_hides_none(room_db):
    sound = np.concatenate([silence(1500), voice(1000), silence(1000)]).astype(float)
    sound += np.random.default_rng(1).normal(0, 32768 * 10 ** (room_db / 20), len(sound))

    (_, start), (_, end) = in_ms(detect(np.clip(sound, -32768, 32767)))

    assert near(start, 1200)
    assert near(end, 2700)


def test_a_click_is_not_speech():
    sound = silence(2000)
    sound[24000:24240] = 20000

    assert detect(sound) == []


def test_a_click_in_the_silence_does_not_prolong_the_turn():
    sound = np.concatenate([silence(500), voice(600), silence(1000)])
    sound[1200 * MS : 1208 * MS] = 20000

    assert near(in_ms(detect(sound))[1][1], 1300)


def test_noise_that_stays_becomes_the_room():
    fan = np.random.default_rng(2).normal(0, 32768 * 10 ** (-30 / 20), 6000 * MS)

    changes = detect(np.concatenate([silence(500), fan]))

    assert [type(change) for change in changes] == [Started, Stopped]
    assert in_ms(changes)[1][1] < 5500


def test_a_higher_threshold_wants_louder_speech():
    murmur = np.concatenate([silence(500), voice(800, level=0.006), silence(500)])

    assert detect(murmur, threshold=0.1)
    assert not detect(murmur, threshold=0.9)


def test_speech_from_the_first_sample_on_is_speech():
    changes = in_ms(detect(np.concatenate([voice(800), silence(600)])))

    assert [kind for kind, _ in changes] == [Started, Stopped]
    assert near(changes[1][1], 1000)


@pytest.mark.parametrize(("eagerness", "silence_ms"), [("high", 400), ("auto", 600), ("low", 1000)])
def test_semantic_vad_waits_by_its_eagerness(eagerness, silence_ms):
    detector = SpeechDetector({"type": "semantic_vad", "eagerness": eagerness})
    sound = np.concatenate([silence(500), voice(600), silence(1500)])

    changes = in_ms(detector.feed(sound.tobytes()))

    assert near(changes[1][1], 1100 + silence_ms)


def test_positions_count_from_where_the_stream_is():
    detector = SpeechDetector(server_vad(), position=100_000)

    changes = detector.feed(np.concatenate([silence(1000), voice(500)]).tobytes())

    assert near((changes[0].at - 100_000) / MS, 700)


def test_reset_forgets_the_speech_that_has_begun():
    detector = SpeechDetector(server_vad())
    detector.feed(np.concatenate([silence(500), voice(500)]).tobytes())

    detector.reset()

    assert not detector.speaking
    assert detector.feed(silence(1000).tobytes()) == []


def test_the_span_of_speech_in_a_segment():
    segment = np.concatenate([silence(300), voice(700), silence(200)])

    first, end = speech_span(segment)

    assert near(first / MS, 300)
    assert near(end / MS, 1000)


@pytest.mark.parametrize("segment", [silence(500), silence(0)])
def test_silence_has_no_speech_in_it(segment):
    assert speech_span(segment) == (0, 0)
