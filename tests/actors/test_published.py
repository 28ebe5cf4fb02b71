"""What realtime has published of the conversation is read by the next history."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from actors.history import History
from actors.published import PublishedChanges, published_changes, sent_outputs
from messages import OutputReplaced, SessionInfo, ToolAnswer, Turn, UserItem, UserTranscript
from tests.rig import Rig


@pytest.fixture
def session(tmp_path: Path) -> SessionInfo:
    return SessionInfo(epoch_ns=0, directory=str(tmp_path))


def transcripts(first: int, end: int) -> list[UserTranscript]:
    return [UserTranscript(f"u{number}", "so it goes " * 20) for number in range(first, end)]


def test_the_newest_changes_are_kept_in_order(session: SessionInfo) -> None:
    kept = PublishedChanges(session)
    for change in transcripts(0, 1_000):
        kept.put(change)
        kept.write()

    found = list(published_changes(session))

    assert found == transcripts(1_000 - len(found), 1_000)
    assert 100 <= len(found) <= 500


def test_outputs_push_out_nothing_else(session: SessionInfo) -> None:
    kept = PublishedChanges(session)
    answers = [ToolAnswer(f"c{number}", "look", "x" * 40_000) for number in range(5)]
    replaced = OutputReplaced("c0", "too long")
    for change in (*transcripts(0, 1), *answers, replaced, *transcripts(1, 2)):
        kept.put(change)
        kept.write()

    assert list(sent_outputs(session)) == [*answers, replaced]
    assert list(published_changes(session)) == [*transcripts(0, 2), *answers, replaced]


def test_the_next_process_goes_on_and_a_new_session_begins(session: SessionInfo) -> None:
    again = msgspec.structs.replace(session, first=False)
    for number, which in enumerate((session, again)):
        kept = PublishedChanges(which)
        kept.put(transcripts(number, number + 1)[0])
        kept.write()

    assert list(published_changes(session)) == transcripts(0, 2)
    PublishedChanges(session)
    assert list(published_changes(session)) == []


def test_what_is_torn_ends_the_file(session: SessionInfo) -> None:
    kept = PublishedChanges(session)
    for change in transcripts(0, 3):
        kept.put(change)
        kept.write()
    path = session.file("realtime.published")
    path.write_bytes(path.read_bytes()[:-5])

    assert list(published_changes(session)) == transcripts(0, 2)


def test_history_has_what_was_published_before_the_supervisor_died(tmp_path: Path) -> None:
    with Rig(History, tmp_path) as rig:
        rig.tell(UserItem("u1", None, "", True, True, 0, 0))
        rig.wait_handled(mail=1)
        session = rig.session
    kept = PublishedChanges(session)
    for change in (UserItem("u1", None, "", True, True, 0, 0), UserTranscript("u1", "Hello")):
        kept.put(change)
        kept.write()
    rig = Rig(History, tmp_path)
    rig.session = msgspec.structs.replace(session, first=False, resumed="supervisor")

    with rig:
        assert rig.expect(Turn).text == "Hello"
