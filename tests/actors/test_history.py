"""History: item order, turns published once, and a journal that survives any damage."""

from __future__ import annotations

import errno
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import conversation
from actors.conversation import Conversation
from actors.history import History, Journal
from messages import (
    AssistantItem,
    Crashed,
    HistoryRequest,
    HistorySnapshot,
    Inject,
    Interrupted,
    ItemPlaced,
    ItemRemoved,
    Message,
    Notice,
    OutputReplaced,
    SentImage,
    ToolAnswer,
    ToolCall,
    Turn,
    UserItem,
    UserTranscript,
)
from tests.rig import Rig


def typed(item_id: str, previous: str | None, text: str = "") -> UserItem:
    return UserItem(item_id, previous, text or item_id, spoken=False, transcript_expected=False)


def spoken(item_id: str, previous: str | None, *, expected: bool = True) -> UserItem:
    return UserItem(item_id, previous, "", spoken=True, transcript_expected=expected)


def said(item_id: str, previous: str | None, text: str = "", status: str = "completed") -> Any:
    return AssistantItem(item_id, previous, "r", text or item_id, status, 24_000)


def conversation_of(*messages: Message, now: float = 0.0) -> Conversation:
    conversation = Conversation()
    for message in messages:
        conversation.apply(message, now)
    return conversation


def ids(conversation: Conversation) -> list[str]:
    return [item.item_id for item in conversation.items()]


def told(conversation: Conversation, now: float) -> list[str]:
    turns, _ = conversation.turns(now)
    for turn in turns:
        conversation.mark_published(turn.item_id)
    return [turn.item_id for turn in turns]


# -- order ------------------------------------------------------------------------------------

CHAIN: list[Message] = [
    typed("a", None),
    said("b", "a"),
    spoken("c", "b"),
    ToolCall("call", "tool", "{}", item_id="d", previous_item_id="c"),
    said("e", "d"),
    typed("f", "e"),
]


@given(st.permutations(CHAIN))
def test_the_order_is_that_of_the_chain_and_not_of_arrival(messages: list[Message]) -> None:
    assert ids(conversation_of(*messages)) == list("abcdef")


@given(st.permutations(CHAIN), st.data())
def test_what_comes_again_changes_nothing(messages: list[Message], data: st.DataObject) -> None:
    again = data.draw(st.lists(st.sampled_from(messages)))
    conversation = conversation_of(*messages)
    before = conversation.items()

    news = [message for message in again if conversation.apply(message, 1.0)]

    assert news == []
    assert conversation.items() == before


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.sampled_from([None, *"abcdefgh"])), max_size=30
    )
)
def test_every_item_has_one_place_whatever_is_published_about_it(
    links: list[tuple[str, str | None]],
) -> None:
    conversation = conversation_of(*(typed(item, previous) for item, previous in links))

    assert sorted(ids(conversation)) == sorted({item for item, _ in links})


def test_an_item_that_is_moved_leaves_no_circle_behind() -> None:
    """An output that was lost with the supervisor comes behind the answer to it at the server."""
    conversation = conversation_of(
        typed("a", None),
        ToolCall("call", "tool", "{}", item_id="b", previous_item_id="a"),
        said("d", "c"),
        ToolAnswer("call", "tool", "12:00", item_id="c"),
    )
    assert ids(conversation) == ["a", "b", "c", "d"]

    for message in (ItemPlaced("c", "d"), typed("e", "c"), typed("f", None)):
        conversation.apply(message, 0.0)

    assert ids(conversation) == ["a", "b", "d", "c", "e", "f"]
    assert told(conversation, 0.0) == ["a", "d", "e", "f"]


def test_an_output_is_never_before_its_call() -> None:
    answer = ToolAnswer("call", "tool", "12:00", item_id="c")

    conversation = conversation_of(
        typed("a", None), answer, ToolCall("call", "tool", "{}", "b", "a"), typed("d", "c")
    )

    assert ids(conversation) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("item_id", ["a", "b"])
def test_no_item_is_placed_behind_itself(item_id: str) -> None:
    conversation = conversation_of(
        typed("a", None), ItemPlaced(item_id, item_id), typed("b", "a"), ItemPlaced("b", "b")
    )

    assert told(conversation, 0.0) == ["a", "b"]


@given(st.permutations(CHAIN))
def test_turns_are_published_once_and_in_order(messages: list[Message]) -> None:
    conversation = Conversation()
    heard: list[str] = []

    for message in [*messages, UserTranscript("c", "what was said")]:
        conversation.apply(message, 0.0)
        heard += told(conversation, 0.0)

    assert heard == list("abcef")


def test_a_new_connections_first_item_comes_last() -> None:
    assert ids(conversation_of(typed("a", None), said("b", "a"), typed("c", None))) == list("abc")


def test_siblings_stand_as_they_became_known() -> None:
    first_branch = [typed("a", None), said("b", "a")]
    conversation = conversation_of(*first_branch, typed("c", "a"), said("d", "b"))

    assert ids(conversation) == list("abdc")


def test_a_removed_item_is_gone_and_those_behind_it_stay() -> None:
    conversation = conversation_of(*CHAIN, ItemRemoved("b", "never heard"))

    assert ids(conversation) == list("acdef")


def test_an_item_removed_before_it_is_known_stays_removed() -> None:
    conversation = conversation_of(ItemRemoved("b", "empty"), typed("a", None), said("b", "a"))

    assert ids(conversation) == ["a"]


def test_an_answer_stands_behind_its_call_and_before_what_follows() -> None:
    conversation = conversation_of(
        typed("a", None),
        ToolCall("c1", "x", "{}", item_id="b", previous_item_id="a"),
        ToolCall("c2", "y", "{}", item_id="c", previous_item_id="b"),
        ToolAnswer("c1", "x", "1", item_id="d"),
        ToolAnswer("c2", "y", "2", item_id="e"),
        ToolAnswer("c2", "y", "again", item_id="other"),
        said("f", "e"),
    )

    assert ids(conversation) == list("abcdef")
    assert [item.output for item in conversation.items()] == ["", "", "", "1", "2", ""]


def test_an_item_is_where_the_server_has_put_it() -> None:
    conversation = conversation_of(
        ToolCall("c1", "x", "{}", item_id="a"),
        typed("typed", "a"),
        ToolAnswer("c1", "x", "1", item_id="out"),
        typed("spoken", "a"),
        ItemPlaced("typed", "spoken"),
        ItemPlaced("out", "a"),
        ItemPlaced("spoken", "out"),
    )

    assert ids(conversation) == ["a", "out", "spoken", "typed"]


def test_an_output_may_be_placed_before_it_is_known() -> None:
    conversation = conversation_of(
        ToolCall("c1", "x", "{}", item_id="a"),
        typed("typed", "out"),
        ItemPlaced("out", "a"),
        ToolAnswer("c1", "x", "1", item_id="out"),
    )

    assert ids(conversation) == ["a", "out", "typed"]


def test_a_replaced_output_is_what_the_model_has_received() -> None:
    conversation = conversation_of(
        ToolCall("c1", "x", "{}", item_id="a"),
        ToolAnswer("c1", "x", "far too long", item_id="out"),
        OutputReplaced("c1", "too long"),
        OutputReplaced("cut off", "too long"),
    )

    assert [item.output for item in conversation.items()] == ["", "too long"]


def test_an_output_that_is_known_after_it_was_replaced_is_the_one_that_counts() -> None:
    """After a death of the supervisor tools give theirs again."""
    conversation = conversation_of(
        ToolCall("c1", "x", "{}", item_id="a"),
        OutputReplaced("c1", "too long"),
        ToolAnswer("c1", "x", "far too long", item_id="out"),
    )

    assert [item.output for item in conversation.items()] == ["", "too long"]


def test_an_answer_to_a_removed_call_is_gone_with_it() -> None:
    conversation = conversation_of(
        ToolCall("c1", "x", "{}", item_id="b"), ToolAnswer("c1", "x", "1"), ItemRemoved("b", "")
    )

    assert ids(conversation) == []


# -- what is remembered -----------------------------------------------------------------------


def test_of_an_interrupted_answer_only_what_was_heard_is_remembered() -> None:
    conversation = conversation_of(
        typed("a", None), said("b", "a", "one two three"), Interrupted("b", 400, "one")
    )

    item = conversation.items()[1]

    assert (item.text, item.interrupted, item.role) == ("one", True, "assistant")


def test_an_interruption_may_be_known_before_its_item() -> None:
    conversation = conversation_of(Interrupted("b", 0, ""), said("b", None, "never heard"))

    assert [(item.text, item.interrupted) for item in conversation.items()] == [("", True)]


def test_an_unfinished_answer_is_incomplete() -> None:
    conversation = conversation_of(said("b", None, "so f", "in_progress"))
    assert not conversation.items()[0].complete

    conversation.apply(said("b", None, "so far so good"), 0.0)
    conversation.apply(said("b", None, "so f", "in_progress"), 0.0)

    item = conversation.items()[0]
    assert (item.complete, item.text) == (True, "so far so good")


def test_a_transcript_may_come_before_its_item() -> None:
    conversation = conversation_of(UserTranscript("a", "hello"), spoken("a", None))

    assert conversation.items()[0].text == "hello"
    assert conversation.turns(0.0)[0] == [Turn("user", "hello", "a")]


# -- turns ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "turn"),
    [
        ([typed("a", None, "hi")], Turn("user", "hi", "a")),
        ([spoken("a", None, expected=False)], Turn("user", "", "a", transcribed=False)),
        ([spoken("a", None), UserTranscript("a", "hi")], Turn("user", "hi", "a")),
        ([spoken("a", None), UserTranscript("a", "")], Turn("user", "", "a")),
        (
            [spoken("a", None), UserTranscript("a", "", "too loud")],
            Turn("user", "", "a", transcribed=False),
        ),
        ([said("a", None, "hi")], Turn("assistant", "hi", "a")),
        ([said("a", None, "h", "incomplete")], Turn("assistant", "h", "a")),
    ],
)
def test_a_turn_is_published_when_its_text_is_known(messages: list[Message], turn: Turn) -> None:
    assert conversation_of(*messages).turns(0.0)[0] == [turn]


def test_an_answer_waits_for_the_transcript_of_its_question() -> None:
    conversation = conversation_of(spoken("a", None), said("b", "a"))

    assert conversation.turns(9.9) == ([], 10.0)
    assert told(conversation, 10.0) == ["a", "b"]


def test_a_late_transcript_is_kept_and_not_published() -> None:
    conversation = conversation_of(spoken("a", None), said("b", "a"))
    told(conversation, 10.0)

    conversation.apply(UserTranscript("a", "late"), 11.0)

    assert told(conversation, 12.0) == []
    assert conversation.items()[0].text == "late"


def test_an_unfinished_answer_holds_later_turns_up_but_not_for_ever() -> None:
    conversation = conversation_of(said("a", None, "so f", "in_progress"))
    assert conversation.turns(100.0) == ([], math.inf)
    conversation.apply(typed("b", "a"), 100.0)

    assert conversation.turns(100.0) == ([], 110.0)
    assert told(conversation, 110.0) == ["a", "b"]


def test_a_turn_waits_a_little_for_the_item_before_it() -> None:
    conversation = conversation_of(typed("b", "a"))
    assert conversation.turns(0.0) == ([], 1.0)

    conversation.apply(typed("a", None), 0.5)

    assert told(conversation, 0.5) == ["a", "b"]


def test_an_answer_of_which_nothing_came_is_no_turn() -> None:
    nothing = AssistantItem("a", None, "r", "", "incomplete", 0)

    assert conversation_of(nothing, typed("b", "a")).turns(0.0)[0] == [Turn("user", "b", "b")]


# -- the journal ------------------------------------------------------------------------------


def test_a_journal_is_lines_of_checksum_and_json(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "deep" / "journal")
    journal.append("Told", {"item_id": "ä\n"})
    journal.close()

    lines = (tmp_path / "deep" / "journal").read_bytes().splitlines()

    assert lines[0].endswith(b' {"what":"Journal","version":1}')
    assert lines[1][8:] == ' {"what":"Told","item_id":"ä\\n"}'.encode()


def test_what_is_cut_anywhere_is_read_up_to_the_cut_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    for number in range(4):
        journal.append("Told", {"item_id": f"item {number}"})
    journal.close()
    whole = path.read_bytes()

    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        journal = Journal(path)
        journal.append("Told", {"item_id": "new"})
        journal.close()
        again = Journal(path)
        again.close()

        kept = whole[:cut].count(b"\n")
        assert again.damaged == 0
        items = [record.get("item_id") for record in again.records]
        expected = [None, "item 0", "item 1", "item 2", "item 3"][: max(kept, 1)]
        assert items == [*expected, "new"]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_damaged_byte_costs_the_lines_around_it(place: int, change: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        journal = Journal(path)
        for number in range(10):
            journal.append("Told", {"item_id": f"item {number}"})
        journal.close()
        data = bytearray(path.read_bytes())
        data[place % len(data)] ^= change
        path.write_bytes(data)

        again = Journal(path)
        again.close()

    assert len(again.records) >= 9
    known = [f"item {number}" for number in range(10)]
    assert all(record.get("item_id", known[0]) in known for record in again.records)


# -- the actor --------------------------------------------------------------------------------


def rig_of(tmp_path: Path, *, first: bool = True, state: bytes | None = None, **given: Any) -> Rig:
    rig = Rig(History, tmp_path, **given)
    rig.session = msgspec.structs.replace(rig.session, first=first)
    rig.state = state
    return rig


def snapshot(rig: Rig) -> list[tuple[str, str]]:
    rig.tell(HistoryRequest(7))
    found = rig.expect(HistorySnapshot)
    assert found.request_id == 7
    return [(item.item_id, item.text) for item in found.items]


def test_turns_are_published_and_the_conversation_on_request(tmp_path: Path) -> None:
    with rig_of(tmp_path) as rig:
        rig.tell(spoken("a", None))
        rig.tell(said("b", "a", "hello"))
        rig.tell(UserTranscript("a", "hi"))

        assert rig.expect(Turn) == Turn("user", "hi", "a")
        assert rig.expect(Turn) == Turn("assistant", "hello", "b")
        assert snapshot(rig) == [("a", "hi"), ("b", "hello")]


def test_a_missing_transcript_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "TRANSCRIPT_S", 0.02)
    with rig_of(tmp_path) as rig:
        rig.tell(spoken("a", None))

        assert rig.expect(Turn) == Turn("user", "", "a", transcribed=False)


def test_the_end_of_the_session_waits_for_nothing(tmp_path: Path) -> None:
    with rig_of(tmp_path) as rig:
        rig.tell(spoken("a", None))
        rig.tell(said("b", "a", "hel", "in_progress"))
        rig.wait_handled(mail=2)
        rig.stop()

        assert [turn.item_id for turn in rig.take(Turn)] == ["a", "b"]


def test_a_raise_loses_nothing_and_publishes_nothing_twice(tmp_path: Path) -> None:
    with rig_of(tmp_path) as rig:
        rig.tell(typed("a", None, "one"))
        rig.tell(spoken("b", "a"))
        rig.tell(Inject("history", "raise"))
        rig.restart()

        rig.tell(typed("a", None, "one"))
        rig.tell(UserTranscript("b", "two"))

        assert rig.expect(Turn).item_id == "a"
        assert rig.expect(Turn).item_id == "b"
        assert snapshot(rig) == [("a", "one"), ("b", "two")]
        assert rig.take(Turn) == []


def test_a_death_loses_nothing_and_publishes_nothing_twice(tmp_path: Path) -> None:
    with rig_of(tmp_path) as rig:
        rig.tell(typed("a", None, "one"))
        rig.expect(Turn)
        rig.tell(said("b", "a", "tw", "in_progress"))
        rig.wait_handled(mail=2)

        with rig_of(tmp_path, first=False, state=rig.state) as again:
            again.tell(said("b", "a", "two"))

            assert again.expect(Turn) == Turn("assistant", "two", "b")
            assert snapshot(again) == [("a", "one"), ("b", "two")]
            assert again.take(Turn) == []


def test_after_the_death_of_the_supervisor_the_turns_are_published_again(tmp_path: Path) -> None:
    with rig_of(tmp_path) as rig:
        rig.tell(typed("a", None, "one"))
        rig.expect(Turn)
        rig.wait_handled(mail=1)

        again = rig_of(tmp_path, first=False, state=rig.state)
        again.session = msgspec.structs.replace(again.session, resumed="supervisor")
        with again:
            assert again.expect(Turn) == Turn("user", "one", "a")


def test_an_image_is_the_same_after_a_death(tmp_path: Path) -> None:
    shown = msgspec.structs.replace(
        typed("a", None), image=SentImage("/x/a.png", "image/png", "low", 7)
    )
    journal = tmp_path / "history.journal"
    with rig_of(tmp_path) as rig:
        rig.tell(shown)
        rig.expect(Turn)
        rig.wait_handled(mail=1)
        before = journal.read_bytes()

        with rig_of(tmp_path, first=False, state=rig.state) as again:
            again.tell(shown)  # as it was in hand when history died
            again.tell(HistoryRequest(1))
            (item,) = again.expect(HistorySnapshot).items

            assert item.image == shown.image
            assert journal.read_bytes() == before


def test_a_journal_is_rebuilt_from_every_cut(tmp_path: Path) -> None:
    """The state after a cut is that of the whole lines before it."""
    path = tmp_path / "journal"
    messages = [*CHAIN, UserTranscript("c", "three"), Interrupted("e", 100, "half")]
    journal = Journal(path)
    for message in messages:
        journal.append(type(message).__name__, msgspec.structs.asdict(message))
    journal.close()
    whole = path.read_bytes()
    lines = whole.count(b"\n")

    for cut in range(0, len(whole) + 1, 7):
        path.write_bytes(whole[:cut])
        journal = Journal(path)
        actor = _Rebuilt()
        History._rebuild(actor, journal)  # type: ignore[arg-type]
        journal.close()

        kept = max(0, min(lines, whole[:cut].count(b"\n")) - 1)
        assert actor._conversation.items() == conversation_of(*messages[:kept]).items()


class _Rebuilt:
    def __init__(self) -> None:
        self._conversation = Conversation()


def test_a_damaged_line_in_the_middle_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "history.journal"
    with rig_of(tmp_path) as rig:
        for item in ("a", "b", "c"):
            rig.tell(typed(item, None))
            rig.expect(Turn)
    path.write_bytes(path.read_bytes().replace(b'"item_id":"b","prev', b'"item_id":"x","prev'))

    with rig_of(tmp_path, first=False) as again:
        assert "1 damaged line" in again.expect(Notice).text
        assert [item for item, _ in snapshot(again)] == ["a", "c"]


def test_a_torn_line_is_cut_off_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "history.journal"
    with rig_of(tmp_path) as rig:
        rig.tell(typed("a", None))
        rig.expect(Turn)
    path.write_bytes(path.read_bytes() + b'1234abcd {"what":"UserI')

    with rig_of(tmp_path, first=False) as again:
        assert [item for item, _ in snapshot(again)] == ["a"]
        assert again.take(Notice) == []
        assert again.take(Turn) == []


def test_the_journal_of_an_earlier_session_is_moved_aside(tmp_path: Path) -> None:
    path = tmp_path / "talk.journal"
    path.write_text("precious\n")
    (tmp_path / "talk.journal.1").write_text("more precious\n")
    (tmp_path / "talk.journal.state").write_text("its record")

    with rig_of(tmp_path, journal_path=str(path)) as rig:
        assert snapshot(rig) == []
        (notice,) = rig.take(Notice)

    assert notice.text.endswith(f"it is kept as {path}.2.")
    assert (tmp_path / "talk.journal.1").read_text() == "more precious\n"
    assert (tmp_path / "talk.journal.2").read_text() == "precious\n"
    assert "precious" not in path.read_text()
    assert (tmp_path / "talk.journal.2.state").read_text() == "its record"
    assert not (tmp_path / "talk.journal.state").exists()


def test_a_journal_in_the_home_folder_is_written_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    with rig_of(tmp_path, journal_path="~/talk.journal"):
        assert (tmp_path / "home" / "talk.journal").is_file()

    assert not (tmp_path / "~").exists()


def test_a_journal_that_cannot_be_opened_says_where_and_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    rig = rig_of(tmp_path, journal_path=str(tmp_path / "file" / "journal"))
    rig.open = lambda: Rig.open(rig, wait=False)  # type: ignore[method-assign]

    with rig:
        crash = rig.expect(Crashed)

    assert "file/journal': a part of the path is a file, not a folder" in crash.error


def test_a_full_disk_is_reported_and_history_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def append(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with rig_of(tmp_path) as rig:
        monkeypatch.setattr(Journal, "append", append)
        rig.tell(typed("a", None))

        notice = rig.expect(Notice).text
        assert "the disk is full" in notice
        assert "goes on in memory" in notice
        assert rig.expect(Turn).item_id == "a"
        assert snapshot(rig) == [("a", "a")]
        assert rig.take(Notice) == []
