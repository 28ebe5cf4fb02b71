"""The table of error codes, and the action for each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from actors.realtime.core.errors import Meaning, known_codes
from actors.realtime.core.server_errors import SAME_ERRORS
from actors.realtime.wire import BETA
from messages import FatalError, Notice, SendText, ServerError
from tests.actors.realtime.core.bench import Bench

RELIABILITY = Path(__file__).parents[4] / "docs" / "reliability.md"


def _codes(*meanings: Meaning) -> list[str]:
    return sorted(code for code, meaning in known_codes().items() if meaning in meanings)


def _asking() -> Bench:
    """A session that has just asked for an answer."""
    bench = Bench(inactivity_timeout_s=None).live().tell(SendText("Hello", "t1"))
    assert len(bench.events("response.create")) == 1
    return bench


def _goes_on(bench: Bench) -> None:
    bench.none(FatalError)
    assert bench.connects == bench.disconnects == []
    assert bench.core.phase.name == "LIVE"


@pytest.mark.parametrize("code", _codes(Meaning.HARMLESS, Meaning.NOT_ACTIVE))
def test_harmless_errors_are_not_published(code: str) -> None:
    bench = Bench().live()

    for _ in range(SAME_ERRORS + 1):
        bench.error(code)

    bench.none(ServerError)
    assert bench.sent == []
    _goes_on(bench)


@pytest.mark.parametrize("code", _codes(Meaning.NOT_ACTIVE))
def test_an_answer_that_is_not_active_any_more_does_not_keep_the_next_waiting(code: str) -> None:
    bench = Bench().live().begin().tell(SendText("Hello", "t1")).flushed("", 0)
    assert bench.events("response.create") == []

    bench.error(code, "response.cancel")

    assert len(bench.events("response.create")) == 1


@pytest.mark.parametrize("code", _codes(Meaning.ACTIVE))
def test_an_answer_refused_because_one_is_active_is_asked_for_when_that_is_done(code: str) -> None:
    bench = _asking()
    bench.begin("r1", "a1")  # the server's own, which we have not seen when we asked
    bench.error(code, "response.create")
    assert len(bench.events("response.create")) == 1

    bench.say().end_item().done("r1")

    assert len(bench.events("response.create")) == 2
    bench.none(ServerError)
    _goes_on(bench)


@pytest.mark.parametrize("code", _codes(Meaning.TRANSIENT, Meaning.RATE))
def test_a_temporary_error_is_retried_once_and_then_published(code: str) -> None:
    bench = _asking().error(code, "response.create")
    assert len(bench.events("response.create")) == 1
    bench.none(ServerError)

    bench.wait(0.6 if known_codes()[code] is Meaning.TRANSIENT else 3.1)
    assert len(bench.events("response.create")) == 2
    bench.error(code, "response.create").wait(10)

    assert len(bench.events("response.create")) == 2
    assert bench.one(ServerError)
    _goes_on(bench)


@pytest.mark.parametrize("code", _codes(Meaning.EXPIRED))
def test_an_expired_session_is_followed_by_a_new_one_at_once(code: str) -> None:
    bench = Bench().live().error(code)

    assert bench.disconnects
    assert bench.connects == [0.0]
    bench.none(ServerError, FatalError)


@pytest.mark.parametrize("code", _codes(Meaning.EXPIRED))
def test_sessions_that_expire_as_soon_as_they_have_begun_are_tried_ever_less_often(
    code: str,
) -> None:
    bench = Bench().live()

    for _ in range(8):
        bench.error(code).configured()

    first, *others, last = bench.connects
    assert first == 0.0
    assert others == sorted(others)
    assert last > 2


@pytest.mark.parametrize("code", _codes(Meaning.FATAL))
def test_fatal_errors_end_the_conversation_with_advice(code: str) -> None:
    bench = Bench(model="gpt-x").live().error(code)

    reason = bench.one(FatalError).reason
    assert len(reason.split()) > 5
    assert "{" not in reason
    assert bench.disconnects
    assert bench.wait(60).connects == []


@pytest.mark.parametrize("code", _codes(Meaning.REPORT))
def test_our_own_mistakes_are_only_published(code: str) -> None:
    bench = Bench().live()

    for _ in range(SAME_ERRORS + 1):
        bench.error(code, param="item.id")

    assert bench.one(ServerError) == ServerError(code, "no", "item.id")
    _goes_on(bench)


@pytest.mark.parametrize("code", [*_codes(Meaning.REPORT), "odd", None])
def test_a_permanently_refused_response_does_not_block_others(code: str | None) -> None:
    bench = _asking().error(code, "response.create")

    assert bench.one(ServerError)
    bench.tell(SendText("Once more", "t2"))

    assert len(bench.events("response.create")) == 2
    _goes_on(bench)


@pytest.mark.parametrize("code", ["server_error", "odd", None])
def test_the_same_error_five_times_in_a_row_leads_to_a_new_session(code: str | None) -> None:
    bench = Bench().live()

    for _ in range(SAME_ERRORS - 1):
        bench.error(code)
    _goes_on(bench)
    bench.error(code)

    assert SAME_ERRORS == 5
    assert bench.disconnects
    assert len(bench.connects) == 1


@pytest.mark.parametrize("between", ["answer", "another error"])
def test_the_same_error_with_another_in_between_does_not(between: str) -> None:
    bench = Bench().live()

    for number in range(2 * SAME_ERRORS):
        bench.error("odd")
        if between == "answer":
            bench.speak(f"u{number}").answer(f"r{number}", f"a{number}")
        else:
            bench.error("even")

    _goes_on(bench)


def test_the_same_failure_of_five_answers_in_a_row_leads_to_a_new_session() -> None:
    bench = Bench(inactivity_timeout_s=None).live()

    for number in range(SAME_ERRORS):
        bench.server("response.created", response={"id": f"r{number}"})
        details = {"type": "failed", "error": {"type": "odd_error", "code": "odd"}}
        bench.done(f"r{number}", "failed", status_details=details)

    assert bench.disconnects


def test_an_unknown_error_is_published_once_in_five_seconds() -> None:
    bench = Bench().live()

    for _ in range(3):
        bench.error("odd", param="item.id")
    assert bench.one(ServerError) == ServerError("odd", "no", "item.id")
    bench.wait(5.1).error("odd", param="item.id")

    assert len(bench.all(ServerError)) == 2


def test_the_documentation_has_every_code_with_what_is_done() -> None:
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \| (.+) \|$", RELIABILITY.read_text(), re.MULTILINE)
    told = {code: what for codes, what in rows for code in re.findall(r"`(\w+)`", codes)}

    assert set(known_codes()) <= set(told)
    for meaning in Meaning:
        assert len({told[code] for code in _codes(meaning)}) <= 1, meaning


@pytest.mark.parametrize("name", sorted(BETA))
def test_a_server_of_before_general_availability_is_named_once(name: str) -> None:
    bench = Bench(inactivity_timeout_s=None).live()

    for delta in ("Hel", "lo"):
        bench.server(name, response_id="r1", item_id="a1", delta=delta)

    notice = bench.one(Notice)
    assert "ws://test/v1" in notice.text
    assert "general availability" in notice.text
    _goes_on(bench)
