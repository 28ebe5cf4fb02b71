"""What keys, clicks and messages do on the console's screen."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from textual import events

from actors.devices.card.listing import SoundDevice
from messages import (
    AssistantItem,
    AssistantTranscript,
    ComponentCrashed,
    ComponentRestarted,
    Interrupt,
    Interrupted,
    Log,
    Notice,
    PlayedPosition,
    SendText,
    SetMuted,
    SetSpeed,
    SetVolume,
    SoundFaltered,
    StartTalking,
    StopSession,
    StopTalking,
    ToolAnswer,
    ToolCall,
    UseOutput,
    UserItem,
    UserSpeechStarted,
    UserSpeechStopped,
    UserTranscript,
    WireEvent,
)
from rtvoice.console.link import Over, Said
from rtvoice.view import PARTIAL_TRANSCRIPT, View
from tests.rtvoice.console.stage import Stage, run, stage

Test = Callable[..., Coroutine[Any, Any, None]]


def shown(test: Test) -> Callable[..., None]:
    """Run a test of the screen on an event loop."""

    @functools.wraps(test)
    def on_loop(*arguments: Any, **named: Any) -> None:
        run(test(*arguments, **named))

    return on_loop


def partial_transcript(text: str) -> WireEvent:
    data = msgspec.json.encode({"item_id": "u", "delta": text})
    return WireEvent(PARTIAL_TRANSCRIPT, "server", data)


# -- what is shown ----------------------------------------------------------------------------


@shown
async def test_partial_text_of_both_is_shown_as_it_comes() -> None:
    async with stage() as screen:
        screen.tell(UserSpeechStarted("u", 0))
        await screen.shows("HEARING YOU")
        screen.tell(partial_transcript("what ti"))
        await screen.shows("you        what ti …")

        screen.tell(
            UserSpeechStopped("u", 9),
            UserItem("u", None, "", spoken=True, transcript_expected=True),
            UserTranscript("u", "what time is it"),
            AssistantTranscript("a", "It is "),
        )
        await screen.shows("you        what time is it")
        await screen.shows("assistant  It is")


@shown
async def test_an_interruption_is_shown_where_it_happened() -> None:
    async with stage() as screen:
        screen.tell(
            AssistantItem("a", None, "r", "Once upon a time", "completed", 24_000),
            Interrupted("a", 500, "Once upon"),
        )

        await screen.shows("assistant  Once upon [interrupted] a time")


@shown
async def test_a_death_is_told_in_red_in_the_talk_and_counted() -> None:
    async with stage() as screen:
        screen.tell(ComponentCrashed("speaker", 13, "killed by SIGKILL"))
        await screen.shows("✖ speaker")

        screen.tell(ComponentRestarted("speaker", 99, "killed by SIGKILL", 12.0, 2, True))

        await screen.shows("! speaker crashed: killed by SIGKILL; back in 12 ms")
        await screen.shows("restarts 1")


@shown
async def test_underruns_are_counted_and_stand_not_between_the_words() -> None:
    async with stage() as screen:
        screen.tell(SoundFaltered("speaker", "late", 2), SoundFaltered("speaker", "late", 1))

        await screen.shows("underruns 3")
        assert not screen.has("faltered")


@shown
async def test_log_records_are_in_a_pane_of_their_own() -> None:
    async with stage() as screen:
        screen.tell(Log("WARNING", "a tool raised", component="tools"))
        await screen.shows("log (1)")
        assert not screen.has("a tool raised")

        await screen.press("l")
        await screen.shows("a tool raised")
        await screen.press("l")
        await screen.hides("a tool raised")
        assert not screen.has("log (1)")


@shown
async def test_the_earlier_talk_is_shown_when_a_conversation_goes_on() -> None:
    view = View()
    view.restore([UserItem("u", None, "hello again", spoken=False, transcript_expected=False)])

    async with stage(view=view) as screen:
        await screen.shows("you        hello again")


@shown
async def test_it_follows_the_end_only_where_the_end_is_shown() -> None:
    async with stage(size=(60, 16)) as screen:
        screen.tell(*(Notice(f"number {number}") for number in range(40)))
        await screen.shows("number 39")

        await screen.press("pageup")
        await screen.hides("number 39")
        screen.tell(Notice("number 40"))
        await screen.shows("End ↓ more below")
        assert not screen.has("number 40")

        await screen.press("end")
        await screen.shows("number 40")
        screen.tell(Notice("number 41"))
        await screen.shows("number 41")


@shown
async def test_a_page_that_was_away_still_follows_the_end() -> None:
    async with stage(size=(60, 16)) as screen:
        await screen.press("p")
        await screen.shows("mail")
        screen.tell(*(Notice(f"number {number}") for number in range(40)))
        await screen.press("p")

        await screen.shows("number 39")
        assert not screen.has("more below")


@pytest.mark.parametrize(
    ("size", "beside"), [((60, 16), False), ((80, 24), False), ((200, 50), True)]
)
@shown
async def test_the_panels_are_beside_the_talk_or_behind_keys(
    size: tuple[int, int], beside: bool
) -> None:
    async with stage(size=size) as screen:
        screen.tell(Notice("hello there"))
        await screen.shows("hello there")
        assert screen.has("mail") == beside

        await screen.press("p")
        await screen.shows("mail")
        assert screen.has("hello there") == beside
        await screen.press("w")
        await screen.shows("tokens in")


@shown
async def test_another_size_arranges_the_screen_anew() -> None:
    async with stage() as screen:
        await screen.resize(200, 50)
        await screen.shows("mail")
        await screen.resize(60, 16)
        await screen.hides("mail")
        await screen.shows("1 talk")


# -- the two modes ----------------------------------------------------------------------------


@shown
async def test_each_key_is_text_in_the_input_line_and_a_command_outside() -> None:
    async with stage() as screen:
        await screen.shows("KEYS")
        await screen.press("ctrl+t")
        await screen.shows("TYPING")
        await screen.enter("mqk? ")
        assert [type(each) for each in screen.asked.sent] == [SendText]
        assert screen.asked.sent[0].text == "mqk?"  # type: ignore[attr-defined]

        await screen.press("escape")
        await screen.shows("KEYS")
        await screen.press("m")
        assert screen.asked.sent[1] == SetMuted(True)
        await screen.shows("MUTED")


@shown
async def test_keys_that_come_at_once_belong_to_the_mode_that_they_were_pressed_in() -> None:
    async with stage() as screen:
        for key in ("ctrl+t", "m", "q", "enter", "escape", "m", "ctrl+t", "q", "enter"):
            screen.app.post_message(events.Key(key, key if len(key) == 1 else None))
        await screen.until(lambda: len(screen.asked.sent) == 3)

    assert set(screen.asked.lines) == {"mq", "q"}
    assert SetMuted(True) in screen.asked.sent


@shown
async def test_the_input_line_has_a_history_of_its_own() -> None:
    async with stage() as screen:
        await screen.press("ctrl+t")
        for line in ("one", "two"):
            await screen.enter(line)
        await screen.type("thr")

        await screen.press("up", "up")
        await screen.shows("one")
        await screen.press("down", "down", "e", "e", "enter")

        assert [each.text for each in screen.asked.sent] == ["one", "two", "three"]  # type: ignore[attr-defined]


@shown
async def test_all_lines_of_a_pasted_text_are_said_as_one() -> None:
    async with stage() as screen:
        screen.app.post_message(events.Paste("quit"))  # in the other mode it is no command
        await screen.press("ctrl+t")
        await screen.shows("TYPING")
        screen.app.post_message(events.Paste("one\n  two\r\n\x1b[31mthree\n"))
        await screen.shows("one two [31mthree")
        await screen.press("enter")

    assert screen.asked.lines == ["one two [31mthree"]
    assert len(screen.asked.sent) == 1


@shown
async def test_a_slash_command_is_never_sent_to_the_model() -> None:
    async with stage() as screen:
        await screen.enter("/volume 50")
        await screen.enter("/nonsens")
        await screen.shows("there is no command /nonsens")
        await screen.enter("/speed fast")
        await screen.shows("write a number, such as /speed 1.2")
        await screen.enter("/volume nan")
        await screen.shows("write a number, such as /volume 50")

    assert screen.asked.sent == [SetVolume(0.5)]


@pytest.mark.parametrize(
    ("keys", "sent"),
    [
        (["enter"], [Interrupt()]),
        (["m", "m"], [SetMuted(True), SetMuted(False)]),
        (["minus", "minus", "plus"], [SetVolume(0.9), SetVolume(0.8), SetVolume(0.9)]),
        (["right_square_bracket", "left_square_bracket"], [SetSpeed(1.1), SetSpeed(1.0)]),
        (["q"], [StopSession("the user quit")]),
        (["ctrl+q"], [StopSession("the user quit")]),
    ],
)
@shown
async def test_keys_are_commands(keys: list[str], sent: list[Any]) -> None:
    async with stage() as screen:
        await screen.press(*keys)

    assert screen.asked.sent == sent


@pytest.mark.parametrize("key", ["space", "enter"])
@shown
async def test_with_push_to_talk_space_and_enter_begin_and_end_a_turn(key: str) -> None:
    async with stage(push_to_talk=True) as screen:
        await screen.press(key)
        await screen.shows("listening: Space or Enter when you have finished")
        await screen.press(key)
        await screen.shows("heard")

    assert [type(each) for each in screen.asked.sent] == [StartTalking, StopTalking]


@shown
async def test_the_help_lists_the_keys_and_closes() -> None:
    async with stage() as screen:
        await screen.press("question_mark")
        await screen.shows("/kill PROCESS")
        await screen.press("escape")
        await screen.hides("/kill PROCESS")


@shown
async def test_the_help_fits_into_the_smallest_terminal_and_follows_its_size() -> None:
    async with stage(size=(60, 16)) as screen:
        await screen.press("question_mark")
        await screen.shows("↑ ↓ Esc closes")
        assert not screen.has("Esc           ")

        await screen.press("end")
        await screen.shows("stop typing")
        await screen.press("home")
        await screen.shows("keys and commands")

        await screen.resize(100, 40)
        await screen.shows("stop typing")
        assert screen.has("keys and commands")
        assert not screen.has("↑ ↓ Esc")


@shown
async def test_a_process_is_chosen_from_a_list() -> None:
    async with stage() as screen:
        await screen.press("k")
        await screen.shows("kill which process?")
        await screen.shows("speaker      13")

        await screen.press("down", "down", "enter")

        await screen.shows("speaker does not run at the moment")


@shown
async def test_another_sound_card_is_chosen_from_a_list() -> None:
    devices = [
        SoundDevice(0, "Webcam", "ALSA", 1, 0, 48_000),
        SoundDevice(1, "Box", "ALSA", 0, 2, 48_000),
    ]
    with patch("actors.devices.card.listing.list_devices", lambda: devices):
        async with stage() as screen:
            await screen.press("d")
            await screen.shows("output Box")

            await screen.press("down", "enter")

            await screen.shows("opening Box ...")

    assert screen.asked.sent == [UseOutput("Box")]


@shown
async def test_a_process_that_is_not_there_is_told_with_those_that_are() -> None:
    async with stage() as screen:
        await screen.enter("/kill ear")

        await screen.shows("there is no process 'ear'; there are recorder, history")


@shown
async def test_the_connection_is_dropped() -> None:
    async with stage() as screen:
        await screen.press("r")
        await screen.shows("the connection is dropped")

    assert screen.asked.injected == [("realtime", "disconnect")]


@shown
async def test_no_tool_call_is_chosen_any_more_on_another_page() -> None:
    async with stage() as screen:
        screen.tell(ToolCall("c", "weather", "{}"))
        await screen.shows("weather")
        await screen.press("tab")
        await screen.shows("Enter unfolds")
        await screen.press("w")
        await screen.shows("Enter interrupt")
        await screen.press("enter")

    assert screen.asked.sent == [Interrupt()]


@shown
async def test_a_tool_call_is_unfolded_by_key_and_by_click() -> None:
    async with stage() as screen:
        screen.tell(
            ToolCall("c", "weather", '{"city": "Paris"}'), ToolAnswer("c", "weather", "blue")
        )
        await screen.shows('▸ weather {"city": "Paris"} → blue')

        await screen.press("tab", "enter")
        await screen.shows("answer: blue")
        await screen.press("enter", "escape")
        await screen.hides("answer: blue")
        await screen.click("weather")
        await screen.shows("answer: blue")


@shown
async def test_a_click_turns_to_a_page() -> None:
    async with stage() as screen:
        await screen.click("processes")

        await screen.shows("mail")


@shown
async def test_the_transcript_is_saved_and_its_file_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with stage() as screen:
        screen.tell(UserItem("u", None, "hello", spoken=False, transcript_expected=False))
        await screen.shows("hello")
        await screen.press("s")
        await screen.shows("transcript saved: rtvoice-")

    assert _files(tmp_path) == [("you: hello\n", 0o600)]


@shown
async def test_a_second_ctrl_c_leaves() -> None:
    async with stage() as screen:
        await screen.press("ctrl+c")
        await screen.shows("ending; Ctrl-C again kills")
        await screen.press("ctrl+c")
        await screen.until(lambda: not screen.app.is_running)

    assert screen.asked.pressed == 2


@shown
async def test_the_screen_closes_when_the_session_is_over() -> None:
    async with stage() as screen:
        screen.link.put(Said("one moment"))
        await screen.shows("one moment")
        screen.link.put(Over())
        await screen.until(lambda: not screen.app.is_running)


@shown
async def test_the_heard_part_moves_on_with_the_playback() -> None:
    async with stage() as screen:
        screen.tell(
            AssistantItem("a", None, "r", "Once upon a time", "completed", 24_000),
            PlayedPosition("a", 12_000, 0),
        )
        await screen.shows("Once upon a time")
        await screen.until(lambda: _unheard(screen) == "n a time")


def _files(folder: Path) -> list[tuple[str, int]]:
    return [(path.read_text(), path.stat().st_mode & 0o777) for path in folder.iterdir()]


def _unheard(screen: Stage) -> str:
    pane = screen.app.query_one("#talk")
    rows = pane.rows  # type: ignore[attr-defined]
    return "".join(text for row in rows for text, style in row if style == "unheard")
