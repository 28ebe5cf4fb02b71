"""Ids of items: ours where the server accepts them, its own where it refuses them."""

from __future__ import annotations

from typing import Any

import pytest

from actors.realtime import wire
from actors.realtime.core.item_ids import ItemIds
from messages import (
    ConversationItem,
    Interrupt,
    ItemPlaced,
    ItemRemoved,
    SendText,
    ServerError,
    ToolAnswer,
    output_item_id,
)
from tests.actors.realtime.core.bench import Bench

REFUSALS: list[dict[str, Any]] = [
    {"code": "invalid_value", "param": "item.id", "message": "no"},
    {"code": "invalid_value", "param": None, "message": "Invalid id: expected a UUID."},
    {"code": None, "param": None, "message": "item ID 'msg_t1' is not allowed here"},
]
OTHERS: list[dict[str, Any]] = [
    {"code": "item_create_duplicate_item_id", "param": "item.id", "message": "already exists"},
    {"code": "invalid_value", "param": "item.content[0].text", "message": "bad id"},
    {"code": "invalid_tool_call_id", "param": None, "message": "Tool call ID 'c1' not found."},
    {"code": "invalid_value", "param": None, "message": "previous_item_id does not exist"},
    {"code": "invalid_value", "param": None, "message": "the text is invalid"},
]
_CREATE = "conversation.item.create"


def _refuse(bench: Bench, number: int = -1, *, spare: bool = False, **error: Any) -> None:
    """The server refuses an item that was created."""
    sent = bench.spare.sent if spare else bench.sent
    event_id = [e for e in sent if e["type"] == _CREATE][number]["event_id"]
    given = REFUSALS[0] | error
    bench.server("error", spare=spare, error={"type": "invalid", **given, "event_id": event_id})


@pytest.mark.parametrize("error", REFUSALS)
def test_a_typed_text_whose_id_is_refused_is_sent_without_an_id(error: dict[str, Any]) -> None:
    bench = Bench().live().tell(SendText("Hello", "t1"))

    _refuse(bench, **error)

    first, again = bench.items()
    assert first["id"] == "msg_t1"
    assert again == {key: value for key, value in first.items() if key != "id"}
    bench.none(ServerError, ItemRemoved)


@pytest.mark.parametrize("error", OTHERS)
def test_an_item_that_is_refused_for_another_reason_is_not_sent_again(
    error: dict[str, Any],
) -> None:
    bench = Bench().live().tell(SendText("Hello", "t1"))

    _refuse(bench, **error)

    assert len(bench.items()) == 1


@pytest.mark.parametrize("error", REFUSALS)
def test_an_error_that_names_no_event_is_about_the_only_item_that_is_created(
    error: dict[str, Any],
) -> None:
    bench = Bench().live().tell(SendText("Hello", "t1"))

    bench.server("error", error={"type": "invalid", **error})

    assert [item.get("id") for item in bench.items()] == ["msg_t1", None]
    bench.none(ServerError, ItemRemoved)


def test_of_a_standby_session_too() -> None:
    bench = Bench(inactivity_timeout_s=None).live()
    bench.history = [ConversationItem("u1", "message", "user", "Hello")]
    for _ in range(100):
        bench.wait(60)
        if bench.spare.connects:
            break
    bench.connect(spare=True).snapshot()

    bench.server("error", spare=True, error={"type": "invalid", **REFUSALS[0]})

    assert [item.get("id") for item in bench.spare.items()] == ["msg_u1", None]


def test_an_item_without_an_id_is_given_up_by_an_error_that_names_no_event() -> None:
    bench = Bench().live().tell(SendText("Hello", "t1"))
    error = {"type": "invalid", **REFUSALS[0]}

    bench.server("error", error=error).server("error", error=error)

    assert len(bench.items()) == 2
    assert bench.one(ItemRemoved).item_id == "t1"


def test_an_error_that_names_no_event_is_about_none_of_two_items() -> None:
    bench = Bench().live().tell(SendText("Hello", "t1")).tell(SendText("And", "t2"))

    bench.server("error", error={"type": "invalid", **REFUSALS[0]})

    assert len(bench.items()) == 2
    assert bench.one(ServerError).text == "no"


@pytest.mark.parametrize("error", OTHERS)
def test_an_error_that_names_no_event_and_is_not_about_an_id_is_about_no_item(
    error: dict[str, Any],
) -> None:
    bench = Bench().live().tell(SendText("Hello", "t1"))

    bench.server("error", error={"type": "invalid", **error})

    assert len(bench.items()) == 1
    bench.none(ItemRemoved)


def test_an_item_that_is_refused_without_an_id_too_is_given_up() -> None:
    bench = Bench().live().tell(SendText("Hello", "t1"))

    _refuse(bench)
    _refuse(bench)

    assert len(bench.items()) == 2
    assert bench.one(ItemRemoved).item_id == "t1"


def test_the_answer_is_asked_for_again_as_the_first_has_not_seen_the_text() -> None:
    bench = Bench().live().tell(SendText("Hello", "t1"))
    _refuse(bench)
    bench.added("server_1", role="user")

    bench.server("response.created", response={"id": "r1"})
    bench.done("r1", "cancelled")

    assert len(bench.events("response.create")) == 2
    assert bench.event("response.cancel")["response_id"] == "r1"


def test_the_next_item_has_no_id_from_the_start() -> None:
    bench = Bench().live().tell(SendText("Hello", "t1"))
    _refuse(bench)
    bench.added("server_1", role="user")

    bench.tell(SendText("And?", "t2"))

    assert "id" not in bench.items()[-1]


def test_the_servers_id_is_known_as_ours_from_then_on() -> None:
    bench = Bench(inactivity_timeout_s=None).live().answer("r1", "a1")
    bench.tell(SendText("Hello", "t1"))
    _refuse(bench)

    bench.added("server_1", "a1", role="user")
    bench.added("u9", "server_1", role="user")
    bench.server("input_audio_buffer.committed", item_id="u9", previous_item_id="server_1")

    assert bench.core.unsent() == []
    assert bench.published[-1].previous_item_id == "t1"  # type: ignore[attr-defined]
    bench.none(ItemPlaced)


def test_speech_and_answers_are_not_taken_for_an_item_without_an_id() -> None:
    bench = Bench(inactivity_timeout_s=None).live().tell(SendText("Hello", "t1"))
    _refuse(bench)

    bench.speak("u1")
    bench.begin("r1", "a1")
    assert bench.core.unsent() == ["t1"]
    bench.added("server_1", role="user")

    assert bench.core.unsent() == []


def _restored(own: bool = True, told: bool = True) -> Bench:
    """A conversation of two messages, restored on a server that refuses ids.

    Args:
        own: Whether it refuses ours.
        told: Whether it has told its own.
    """
    bench = Bench(inactivity_timeout_s=None).live()
    bench.answer("r1", "a1", "one two three four", 4000)
    bench.lose()
    bench.history = [
        ConversationItem("u1", "message", "user", "Count"),
        ConversationItem("a1", "message", "assistant", "one two three four"),
    ]
    bench.configured()
    if own:
        _refuse(bench, 0)
        _refuse(bench, 1)
        if told:
            _tell(bench)
    bench.clear()
    return bench


def _tell(bench: Bench) -> None:
    bench.added("server_1", role="user").added("server_2", "server_1", role="assistant")


def test_a_restored_item_is_deleted_by_the_servers_id_and_put_behind_the_servers_id() -> None:
    bench = _restored()

    bench.tell(Interrupt()).flushed("a1", 2000)

    assert bench.event("conversation.item.delete")["item_id"] == "server_2"
    created = bench.event(_CREATE)
    assert created["previous_item_id"] == "server_1"
    assert "id" not in created["item"]


def test_a_restored_item_whose_id_is_not_known_yet_is_deleted_once_it_is() -> None:
    bench = _restored(told=False)
    bench.tell(Interrupt()).flushed("a1", 2000)
    assert bench.sent == []

    _tell(bench)

    assert bench.event("conversation.item.delete")["item_id"] == "server_2"
    created = bench.event(_CREATE)
    assert created["item"]["content"][0]["text"] == "one two"
    assert created["previous_item_id"] == "server_1"


def test_what_was_to_be_deleted_is_not_in_the_next_session() -> None:
    bench = _restored(told=False)
    bench.tell(Interrupt()).flushed("a1", 2000)

    bench.lose().clear_but_requests()
    bench.configured()
    _tell(bench)

    assert bench.events("conversation.item.delete") == []


@pytest.mark.parametrize("dies", [False, True])
def test_the_next_session_gets_all_items_without_ids_from_the_start(dies: bool) -> None:
    bench = _restored()
    bench.lose().wait(0.1)
    if dies:
        bench = bench.restarted()
    bench.clear_but_requests()

    bench.configured()

    assert [item.get("id") for item in bench.items()] == [None, None]


def test_an_output_sent_without_an_id_is_recognised_by_its_call() -> None:
    bench = Bench().live().begin().call("c1").call("c2", item_id="f2").done()
    bench.tell(ToolAnswer("c1", "clock", "12:00")).tell(ToolAnswer("c2", "clock", "13:00"))
    assert [item["id"] for item in bench.items()] == [output_item_id("c1"), output_item_id("c2")]

    _refuse(bench, 0)
    _refuse(bench, 1)
    for number, call_id in ((2, "c2"), (1, "c1")):
        item = {"id": f"server_{number}", "type": "function_call_output", "call_id": call_id}
        bench.server("conversation.item.added", item=item)

    theirs = bench.core._context._ids[False]._theirs
    assert theirs == {output_item_id("c2"): "server_2", output_item_id("c1"): "server_1"}
    assert "id" not in bench.items()[-1]
    bench.none(ServerError)


def test_a_standby_session_has_item_ids_of_its_own() -> None:
    bench = Bench(inactivity_timeout_s=None).live()
    hello = ConversationItem("u1", "message", "user", "Hello")
    bench.history = [hello, ConversationItem("a1", "message", "assistant", "one two")]
    for _ in range(100):
        bench.wait(60)
        if bench.spare.connects:
            break
    bench.connect(spare=True).snapshot()

    _refuse(bench, 0, spare=True)
    _refuse(bench, 1, spare=True)
    for number, role in ((1, "user"), (2, "assistant")):
        item = {"id": f"server_{number}", "type": "message", "role": role}
        bench.server("conversation.item.added", spare=True, item=item)
    bench.server("session.updated", spare=True, session={})
    bench.history[1] = ConversationItem("a1", "message", "assistant", "one", interrupted=True)
    bench.snapshot()

    assert [item.get("id") for item in bench.spare.items()[2:]] == [None, None]
    assert bench.swaps
    assert bench.event("conversation.item.delete")["item_id"] == "server_2"


def test_confirmed_items_are_forgotten() -> None:
    bench = Bench(inactivity_timeout_s=None).live()
    ids = bench.core._context._ids[False]

    for number in range(5):
        bench.tell(SendText("Hello", f"t{number}"))
        if number == 2:
            _refuse(bench)
        bench.added(f"server_{number}" if number > 1 else f"msg_t{number}", role="user")
        bench.answer(f"r{number}", f"a{number}").played(f"a{number}")

    assert not ids._created
    assert not ids._events
    assert not ids._nameless


def test_an_item_is_not_put_behind_one_whose_id_the_server_has_not_told_yet() -> None:
    ids = ItemIds(are_ours=False)
    output = {"id": "fco_1", "type": "function_call_output", "call_id": "call_1"}
    ids.sent(wire.ItemCreate(output, "event_1"))
    said = {"id": "msg_1", "type": "message", "role": "assistant"}

    event = ids.sent(wire.ItemCreate(said, "event_2", "fco_1"))

    assert isinstance(event, wire.ItemCreate)
    assert event.previous_item_id is None
