"""Images: kept in files, replaced by references in messages, inserted when they are sent."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from actors.realtime.core.restore import MAX_IMAGES, plan, text_item
from actors.realtime.core.state import Saved, TypedTurn
from actors.realtime.pictures import GONE, Pictures
from messages import (
    ConversationItem,
    FlushPlayback,
    ItemRemoved,
    SendImage,
    SentImage,
    ServerError,
    UserItem,
)
from tests.actors.realtime.core.bench import Bench

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
IMAGE = SentImage("/tmp/i1.png", "image/png", "low", 264)
REFERENCE = {
    "type": "input_image",
    "image_url": "file:image/png:/tmp/i1.png",
    "detail": "low",
}


def message(item_id: str = "i1", **fields: Any) -> SendImage:
    return SendImage(PNG, "image/png", **{"text": "What is it?", "item_id": item_id, **fields})


# -- files -----------------------------------------------------------------------------------------


def test_an_image_is_kept_and_read_again_on_its_way(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path / "images")

    image = pictures.keep(message(detail="high"))
    item = Pictures(tmp_path / "images").filled(text_item("i1", "user", "What is it?", image))

    assert image == SentImage(str(tmp_path / "images" / "i1.png"), "image/png", "high", len(PNG))
    assert item["content"] == [
        {"type": "input_text", "text": "What is it?"},
        {
            "type": "input_image",
            "image_url": f"data:image/png;base64,{base64.b64encode(PNG).decode()}",
            "detail": "high",
        },
    ]


def test_an_image_whose_file_is_gone_is_replaced_by_a_text(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path)
    image = pictures.keep(message())
    Path(image.path).unlink()

    item = pictures.filled(text_item("i1", "user", "", image))

    assert item["content"] == [{"type": "input_text", "text": GONE}]


def test_no_name_leads_out_of_the_folder(tmp_path: Path) -> None:
    image = Pictures(tmp_path / "images").keep(message("../../x"))

    assert Path(image.path).parent == tmp_path / "images"


def test_items_without_images_stay_what_they_are(tmp_path: Path) -> None:
    item = text_item("i1", "user", "Hello")

    assert Pictures(tmp_path).filled(item) is item


# -- in a conversation -----------------------------------------------------------------------------


def show(bench: Bench, sent: SendImage) -> None:
    bench.core.image(sent, IMAGE, bench.now)
    bench.core.tick(bench.now)
    bench.collect()


def test_an_image_is_a_turn_that_is_answered() -> None:
    bench = Bench().live()

    show(bench, message())

    assert [item["content"] for item in bench.items()] == [
        [{"type": "input_text", "text": "What is it?"}, REFERENCE]
    ]
    assert bench.one(UserItem).image == IMAGE
    assert len(bench.events("response.create")) == 1


def test_an_image_without_words_has_none() -> None:
    bench = Bench().live()

    show(bench, message(text=""))

    assert bench.items()[0]["content"] == [REFERENCE]


def test_an_image_that_is_not_to_be_answered_interrupts_nothing() -> None:
    bench = Bench().live().begin().say()

    show(bench, message(respond=False))
    bench.end_item().done().wait(5)

    assert len(bench.items()) == 1
    bench.none(FlushPlayback)
    assert bench.events("response.create") == []


def test_the_same_image_twice_is_sent_once() -> None:
    bench = Bench().live()

    show(bench, message())
    show(bench, message())

    assert len(bench.items()) == 1


def test_an_image_that_the_server_did_not_confirm_is_sent_again() -> None:
    bench = Bench().live()
    show(bench, message())

    other = bench.restarted()
    other.configured()

    assert other.items()[0]["content"][1] == REFERENCE
    assert len(other.events("response.create")) == 1


def test_an_image_of_the_history_is_shown_again() -> None:
    bench = Bench().live()
    bench.history = [ConversationItem("i1", "message", "user", "", image=IMAGE)]

    bench.lose().clear_but_requests()
    bench.configured()

    assert [item["content"] for item in bench.items()] == [[REFERENCE]]


def test_what_the_server_refuses_leaves_the_history() -> None:
    bench = Bench().live()
    show(bench, message())

    bench.error("invalid_value", "conversation.item.create", param="item.content[1].image_url")

    assert bench.one(ItemRemoved).item_id == "i1"
    assert bench.one(ServerError).code == "invalid_value"
    assert bench.core.saved.texts == []


def test_no_response_is_requested_to_a_refused_image() -> None:
    bench = Bench().live()
    show(bench, message())

    bench.error("invalid_value", "conversation.item.create", param="item.content[1].image_url")
    bench.server("input_audio_buffer.speech_started", item_id="u1", audio_start_ms=0)
    bench.stop_speaking().answer("r1", "a1")  # the server answers that by itself
    bench.server("response.created", response={"id": "r2", "status": "in_progress"})
    bench.done("r2").wait(20)

    assert len(bench.events("response.create")) == 1


def test_only_the_last_images_are_shown_again() -> None:
    history = [
        ConversationItem(f"i{number}", "message", "user", f"{number}", image=IMAGE)
        for number in range(MAX_IMAGES + 2)
    ]

    items = plan(history, Saved(texts=[TypedTurn("t", "t", image=IMAGE)]), None).items

    contents = [item["content"][1] for item in items]
    gone = {"type": "input_text", "text": GONE}
    assert contents == [gone] * 3 + [REFERENCE] * MAX_IMAGES
