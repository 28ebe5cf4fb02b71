"""Underruns and overruns: summed by reason, reported at most once a second."""

from __future__ import annotations

from actors.devices.faltering import Faltering
from messages import SoundFaltered

S = 1_000_000_000


def test_an_underrun_is_reported_at_once_and_later_ones_summed_for_a_second() -> None:
    faltering = Faltering("speaker")
    faltering.note("late", 1, 30_000_000)
    first = faltering.report(5 * S)
    faltering.note("late", 2, 20_000_000)
    faltering.note("late", 1, 40_000_000)

    early, due = faltering.report(6 * S - 1), faltering.report(6 * S)

    assert first == [SoundFaltered("speaker", "late", 1, 30)]
    assert early == []
    assert due == [SoundFaltered("speaker", "late", 3, 60)]


def test_each_reason_has_its_own_report() -> None:
    faltering = Faltering("speaker")
    faltering.note("late", 1)
    faltering.note("busy", 2)

    assert [report.reason for report in faltering.report(0)] == ["late", "busy"]


def test_without_underruns_nothing_is_reported() -> None:
    faltering = Faltering("speaker")
    faltering.note("late", 0)

    assert faltering.report(0) == []
    assert not faltering.has_unreported()


def test_at_the_end_the_rest_is_reported() -> None:
    faltering = Faltering("speaker")
    faltering.note("late", 1)
    faltering.report(0)
    faltering.note("late", 1)

    assert faltering.has_unreported()
    assert len(faltering.report(1, at_once=True)) == 1


def test_underruns_and_overruns_are_reported_in_a_sentence() -> None:
    assert SoundFaltered("microphone", "busy", 1).text == "once at the microphone (busy)"
    assert (
        SoundFaltered("speaker", "late", 3, 240).text
        == "3 times at the speaker (late, 240 ms of silence)"
    )
