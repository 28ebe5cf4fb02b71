"""What the console makes of the state: rows of text."""

from __future__ import annotations

import pytest

from messages import EchoState, SoundFaltered, Tokens, UsageUpdated
from rtvoice.console.commands import COMMANDS, KEYS, CommandError, help_lines, parsed
from rtvoice.console.entries import plain_lines, rows_of
from rtvoice.console.panels import process_rows, state_rows, turn_rows
from rtvoice.console.rows import Row, row_width, text_of
from rtvoice.console.talk import Talk
from rtvoice.view import Entry, Latency, Process, View


def texts(rows: list[Row]) -> list[str]:
    return [text_of(row).rstrip() for row in rows]


def styled(rows: list[Row], style: str) -> str:
    """Return what has a style."""
    return "".join(text for row in rows for text, names in row if style in names.split())


# -- the talk ---------------------------------------------------------------------------------


def test_user_and_assistant_stand_apart_and_words_are_whole() -> None:
    rows = rows_of(Entry("a", "assistant", "Once upon a time there was a lighthouse", 39), 30)

    assert texts(rows) == [
        "assistant  Once upon a time",
        "           there was a",
        "           lighthouse",
    ]
    assert texts(rows_of(Entry("u", "user", "hi"), 30)) == ["you        hi"]


def test_what_is_not_heard_yet_is_dim() -> None:
    rows = rows_of(Entry("a", "assistant", "Once upon a time", 4, "partial"), 60)

    assert styled(rows, "unheard") == " upon a time"
    assert styled(rows, "struck") == ""


def test_after_an_interruption_what_was_not_heard_is_struck_and_the_place_is_named() -> None:
    rows = rows_of(Entry("a", "assistant", "Once upon a time", 9, "interrupted"), 60)

    assert texts(rows) == ["assistant  Once upon [interrupted] a time"]
    assert styled(rows, "struck") == "a time"


@pytest.mark.parametrize(
    ("entry", "shown"),
    [
        (Entry("u", "user", "", state="partial", spoken=True), "you        …"),
        (Entry("u", "user", "what ti", state="partial", spoken=True), "you        what ti …"),
        (
            Entry("u", "user", "", state="failed", spoken=True),
            "you        (speech, not transcribed)",
        ),
        (Entry("u", "user", "this?", image=True), "you        [an image] this?"),
        (Entry("a", "assistant", "", state="partial"), "assistant  …"),
        (Entry("a", "assistant", "Well", 4, "cut off"), "assistant  Well [cut off]"),
        (Entry("n", "notice", "noisy"), "· noisy"),
        (Entry("n", "trouble", "lost"), "! lost"),
    ],
)
def test_each_state_of_an_entry_is_told_in_words(entry: Entry, shown: str) -> None:
    assert texts(rows_of(entry, 60)) == [shown]


TOOL = Entry(
    "c", "tool", "weather", arguments='{"city": "Paris"}', output='{"sky": "blue"}', seconds=0.21
)


def test_a_tool_call_is_one_line_with_arguments_answer_and_time() -> None:
    assert texts(rows_of(TOOL, 80)) == [
        'tool       ▸ weather {"city": "Paris"} → {"sky": "blue"}  210 ms'
    ]
    (narrow,) = rows_of(TOOL, 40)
    assert row_width(narrow) <= 40
    assert text_of(narrow).endswith("210 ms")


def test_an_unfolded_tool_call_shows_all_of_it() -> None:
    assert texts(rows_of(TOOL, 60, unfolded=True)) == [
        "tool       ▾ weather  210 ms",
        "             arguments: {",
        '               "city": "Paris"',
        "             }",
        "             answer: {",
        '               "sky": "blue"',
        "             }",
    ]


def test_text_of_a_model_cannot_steer_the_terminal() -> None:
    for entry in (Entry("a", "assistant", "a\x1b[2Jb", 9), Entry("c", "tool", "t", output="\x07")):
        assert not any("\x1b" in text or "\x07" in text for text in texts(rows_of(entry, 60)))


def test_a_saved_transcript_says_what_was_not_heard() -> None:
    lines = plain_lines(Entry("a", "assistant", "Once upon a time", 9, "interrupted"))

    assert lines == ["assistant: Once upon [interrupted]", "[not heard: a time]"]


def test_a_saved_transcript_has_no_control_characters() -> None:
    for entry in (
        Entry("a", "assistant", "a\x1b[2Jb", 9),
        Entry("c", "tool", "t", output="\x9b1m"),
    ):
        assert all(line.isprintable() for line in plain_lines(entry))


def test_only_what_has_changed_is_wrapped_again() -> None:
    view = View()
    view.note("one", 0.0)
    view.note("two", 0.0)
    talk = Talk(view)

    assert talk.update(40)
    assert not talk.update(40)
    assert talk.update(30)
    assert texts(talk.rows) == ["· one", "· two"]


# -- the panels -------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_state_fits_into_two_rows(width: int) -> None:
    view = View()
    view.take(EchoState("failed", 6.0), 0.0)
    view.take(SoundFaltered("speaker", "late", 3), 0.0)

    first, second = rows = state_rows(view, width)

    assert all(row_width(row) <= width for row in rows)
    assert text_of(first).startswith("STARTING")
    assert "no echo cancelling" in text_of(first)
    assert "underruns 3" in text_of(second)
    assert "vol 100%" in text_of(second)


def test_a_meter_shows_its_level_without_colour() -> None:
    view = View()
    view.input_dbfs = -30.0

    assert "mic █████·····" in text_of(state_rows(view, 80)[0])


def test_a_process_that_died_is_seen_dead_for_a_second_and_then_back() -> None:
    view = View()
    view.processes["speaker"] = Process(
        "speaker", 8, "up", 1, 12.3, died_s=5.0, cause="killed by SIGKILL"
    )

    def row(now_s: float) -> str:
        return text_of(process_rows(view, 80, now_s)[1])

    assert row(5.1).startswith("✖ speaker     killed by SIGKILL")
    assert row(6.5).startswith("✔ speaker     back in 12 ms")
    assert row(60.0).startswith("● speaker     up · back in 12 ms")
    assert "back in 12 ms" in text_of(process_rows(view, 60, 60.0)[1])


@pytest.mark.parametrize("width", [60, 80])
def test_a_process_has_restarts_memory_cpu_and_mailbox(width: int) -> None:
    view = View()
    view.processes["speaker"] = Process(
        "speaker", 8, "up", 3, memory_bytes=25 << 20, cpu=0.023, mailbox=4, device="USB headset"
    )

    text = text_of(process_rows(view, width, 0.0)[1])

    assert text.split()[-4:] == ["3", "25.0", "2.3%", "4"]
    assert "USB" in text
    assert row_width(process_rows(view, width, 0.0)[1]) <= width


def test_the_last_turn_is_a_waterfall_whose_steps_add_up() -> None:
    view = View()
    view.waits.add(Latency("a", 700, 200, 600))

    rows = texts(turn_rows(view, 60, None))

    assert [row.split()[-2:] for row in rows[:3]] == [["200", "ms"], ["400", "ms"], ["100", "ms"]]
    assert "700 ms" in rows[3]
    assert rows[4] == "p50 700 ms · p95 700 ms · 1 answer"
    begins = [row.index("█") for row in rows[:3]]
    assert begins == sorted(begins)


def test_tokens_are_shown_by_kind_and_money_with_its_budget() -> None:
    view = View()
    tokens = Tokens(input_text=100, cached_text=64, input_audio=7, output_audio=20)
    view.take(UsageUpdated("r", tokens, 0.0123), 0.0)

    rows = texts(turn_rows(view, 80, budget=0.5))

    assert rows[-3:] == [
        "tokens in  text 100 (64 cached) · audio 7",
        "tokens out audio 20",
        "cost       $0.0123 of $0.5 (2%)",
    ]


# -- the commands -----------------------------------------------------------------------------


def test_a_slash_command_is_taken_apart() -> None:
    assert parsed("/kill speaker") == ("kill", "speaker")
    assert parsed("/MUTE ") == ("mute", "")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("/kil speaker", "there is no command /kil; did you mean /kill?"),
        ("/vol 50", "there is no command /vol; did you mean /volume?"),
        ("/xyzzy", "there is no command /xyzzy; /help lists them"),
        ("/mute now", "/mute takes nothing behind it"),
    ],
)
def test_a_wrong_command_is_told_with_the_nearest(line: str, told: str) -> None:
    with pytest.raises(CommandError, match=told.replace("?", r"\?")):
        parsed(line)


def test_each_command_has_a_key_and_a_line_in_the_help() -> None:
    keys = [key for command in COMMANDS for key in command.keys]

    assert len(keys) == len(set(keys)) == len(KEYS)
    slashes = [slash.split()[0] for _, slash, _ in help_lines() if slash]
    assert slashes == [f"/{command.name}" for command in COMMANDS]
