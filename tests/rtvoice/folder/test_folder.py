"""The folder of a session: what is kept, and what can be done with it afterwards."""

from __future__ import annotations

import base64
import html.parser
import io
import json
import os
import shutil
import stat
import sys
import time
import wave
from array import array
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.embedding.event_file import event_line
from actors.history import Journal
from messages import (
    AssistantItem,
    AssistantTranscript,
    ConfigurationError,
    Event,
    Interrupt,
    Interrupted,
    Message,
    PlaybackEnded,
    PlaybackStarted,
    PlayedPosition,
    SendText,
    SessionStarted,
    ToolAnswer,
    ToolCall,
    Turn,
    UserSpeechStarted,
    UserSpeechStopped,
)
from rtvoice.command.cli import run
from rtvoice.folder import Folder
from rtvoice.folder.formats import as_markdown, as_text
from rtvoice.folder.page import as_page
from rtvoice.folder.sound import Recording
from rtvoice.folder.turns import said_in
from supervisor import Session
from tests.rig import TIMEOUT_S

QUIET: dict[str, Any] = {
    "server": "sandbox",
    "input": "silence",
    "output": "null",
    "inactivity_timeout_s": None,
}
REDACTION = """
def hide(text):
    return text.replace("volume", "******")

def fails(text):
    raise ValueError(text)
"""


def converse(folder: Path, **settings: Any) -> list[Event]:
    """Hold a conversation with a tool call and an interruption; return its events."""
    return held(Session(**QUIET, **{"session_folder": str(folder), **settings}))


def held(session: Session) -> list[Event]:
    events: list[Event] = []
    with session:
        stream = session.events(Event, PlayedPosition, AssistantTranscript)

        def wait_for(kind: type[Any]) -> None:
            end_s = time.monotonic() + TIMEOUT_S
            for event in stream:
                events.append(event)
                if isinstance(event, kind):
                    return
                assert time.monotonic() < end_s, kind
            raise AssertionError(f"the session ends without {kind.__name__}")

        session.send(SendText("set the volume to fifty percent", "u1"))
        wait_for(ToolAnswer)
        wait_for(PlaybackEnded)
        session.send(SendText("tell me a story", "u2"))
        wait_for(PlaybackStarted)
        wait_for(PlayedPosition)
        session.send(Interrupt())
        wait_for(Interrupted)
        session.stop()
        events.extend(stream)
    return events


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept") / "talk"
    converse(folder)
    return folder


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["show", *arguments]) == 0
    return capsys.readouterr().out


# -- what is kept ---------------------------------------------------------------------------------


def test_a_folder_has_journal_recording_and_events_for_their_owner_alone(kept: Path) -> None:
    assert {path.name for path in kept.iterdir()} == {"journal", "recording.wav", "events.jsonl"}
    modes = {stat.S_IMODE(path.stat().st_mode) for path in kept.iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("stored", "names"), [("nothing", None), ("text", {"journal", "events.jsonl"})]
)
def test_what_is_kept_is_a_setting(tmp_path: Path, stored: str, names: set[str] | None) -> None:
    folder = tmp_path / "talk"

    converse(folder, stored=stored)

    found = {path.name for path in folder.iterdir()} if folder.exists() else None
    assert found == names


def test_no_text_reaches_the_disk_before_it_was_redacted(tmp_path: Path) -> None:
    (tmp_path / "redaction.py").write_text(REDACTION)
    folder = tmp_path / "talk"

    converse(folder, stored="text", redact=f"{tmp_path}/redaction.py:hide")

    for path in folder.iterdir():
        assert b"volume to" not in path.read_bytes()
        assert b"******" in path.read_bytes()
    assert not (folder / "journal.state").exists()
    (entry,) = [each for each in view_of(folder).entries if each.state == "interrupted"]
    assert 0 < entry.heard < len(entry.text)


def test_a_redaction_that_fails_keeps_no_text(tmp_path: Path) -> None:
    (tmp_path / "redaction.py").write_text(REDACTION)
    folder = tmp_path / "talk"

    converse(folder, stored="text", redact=f"{tmp_path}/redaction.py:fails")

    assert b"tell me" not in b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"the redaction function failed" in (folder / "journal").read_bytes()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"redact": "x:y"}, "sound cannot be redacted"),
        ({"journal_path": "j"}, "journal_path: leave it out"),
        ({"recording_path": "r.wav"}, "recording_path: leave it out"),
        ({"session_folder": " "}, "a path, or None"),
        ({"stored": "everything"}, "stored"),
    ],
)
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Session(**{**QUIET, "session_folder": str(tmp_path / "talk"), **settings})


def test_a_folder_with_a_conversation_is_not_overwritten(kept: Path) -> None:
    before = (kept / "journal").read_bytes()

    with pytest.raises(ConfigurationError, match="has a conversation already"):
        Session(**QUIET, session_folder=str(kept))

    assert (kept / "journal").read_bytes() == before


def test_a_folder_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match="a part of the path is a file"):
        Session(**QUIET, session_folder=str(tmp_path / "file" / "talk")).start()


def test_a_redaction_function_that_is_not_there_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = ["--session", str(tmp_path / "talk"), "--store", "text"]

    assert run([*_options(), *kept, "--redact", "not_there:hide"]) == 2

    error = capsys.readouterr().err
    assert error.startswith("rtvoice: redact: not_there:hide: there is no module not_there")
    assert error.count("\n") == 1
    assert not (tmp_path / "talk").exists()


# -- going on -------------------------------------------------------------------------------------


def test_a_conversation_goes_on_in_its_folder(kept: Path, tmp_path: Path) -> None:
    copy = tmp_path / "talk"
    copy.mkdir()
    for path in kept.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    entries = len(view_of(copy).entries)

    code = run(["resume", str(copy), *_options(), "--max-seconds", "0.5"])

    folder = Folder(copy)
    assert code == 0
    assert [part.recording and part.recording.name for part in folder.parts] == [
        "recording.wav",
        "recording-2.wav",
    ]
    assert len(view_of(copy).entries) == entries
    assert (copy / "journal").read_bytes().startswith((kept / "journal").read_bytes())


def test_a_conversation_that_is_being_held_is_neither_resumed_nor_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "talk"
    with Session(**QUIET, session_folder=str(folder)):
        assert run(["resume", str(folder), *_options()]) == 2
        assert "is still being held" in capsys.readouterr().err
        assert run(["show", str(folder), "--purge"]) == 2
        assert "is still being held" in capsys.readouterr().err

    assert len(Folder(folder).parts) == 1
    assert {path.name for path in folder.iterdir()} == {"journal", "recording.wav", "events.jsonl"}


def test_a_conversation_goes_on_after_a_line_that_was_not_written_to_its_end(
    kept: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "talk"
    shutil.copytree(kept, folder)
    with (folder / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "tu')

    with Session(**QUIET, resume=str(folder)) as session:
        session.stop()

    assert [len(part.events) > 1 for part in Folder(folder).parts] == [True, True]


def _options() -> list[str]:
    return ["--input", "silence", "--output", "null", "--server", "sandbox"]


@pytest.mark.parametrize("command", ["show", "replay", "resume"])
def test_what_is_no_folder_of_a_session_is_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run([command, str(tmp_path)]) == 2
    assert "it is no folder of a session" in capsys.readouterr().err


# -- showing --------------------------------------------------------------------------------------


def view_of(folder: Path) -> Any:
    return next(view for _, view in Folder(folder).views())


def test_it_is_shown_as_text(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, str(kept))

    assert "you: set the volume to fifty percent" in text
    assert "tool adjust_volume" in text
    assert "[interrupted; not heard: " in text
    assert "ended after" in text


def test_it_is_shown_as_markdown_in_which_text_is_no_mark(tmp_path: Path) -> None:
    folder = written(tmp_path, (0.1, Turn("user", "2 * 3 <b>_x_</b> [a](b)", "u1")))

    lines = "\n".join(as_markdown(folder))

    assert r"**You:** 2 \* 3 \<b\>\_x\_\</b\> \[a\](b)" in lines


def test_text_of_a_model_cannot_steer_the_terminal_that_it_is_shown_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(
        tmp_path,
        (0.1, Turn("user", "one\ntwo \x1b[2J", "u1")),
        (0.2, ToolCall("c1", "t", '{"a": "``"}')),
        (0.3, ToolAnswer("c1", "t", "\x9b31m ```\n")),
        samples=100,
    )

    texts = [shown(capsys, str(folder.path), "--format", form) for form in ("text", "markdown")]
    run(["replay", str(folder.path), "--output", "null"])
    for text in (*texts, capsys.readouterr().out):
        assert all(line.isprintable() for line in text.split("\n"))
        assert "one two" in text
    assert "```` " in texts[1]


def begun(tmp_path: Path, *kept: Message) -> Folder:
    """Return a folder with the begin of an answer, and these messages in its journal."""
    folder = written(tmp_path, (0.1, PlaybackStarted("a1", "r1", 0, 200, 50, 150)))
    journal = Journal(folder.journal)
    for message in kept:
        journal.append(type(message).__name__, msgspec.structs.asdict(message))
    journal.close()
    return folder


def test_the_answer_that_the_death_of_the_program_cut_off_is_in_the_journal(
    tmp_path: Path,
) -> None:
    answer = AssistantItem("a1", None, "r1", "Once upon a time", "in_progress", 9)

    folder = begun(tmp_path, answer, Interrupted("a1", 100, "Once upon"))

    assert "assistant: Once upon" in "\n".join(as_text(folder))


@pytest.mark.parametrize("form", [as_text, as_markdown, as_page])
def test_an_answer_without_an_end_is_shown_as_cut_off(tmp_path: Path, form: Any) -> None:
    folder = begun(tmp_path, AssistantItem("a1", None, "r1", "Once upon", "in_progress", 9))

    assert "Once upon [cut off]" in "\n".join(form(folder))


def test_it_is_shown_as_json(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (session,) = json.loads(shown(capsys, str(kept), "--format", "json"))

    kinds = [entry["kind"] for entry in session["entries"]]
    assert kinds.count("user") == 2
    assert "tool" in kinds
    assert session["tokens"]


class _Sounds(html.parser.HTMLParser):
    """Collects the sounds of a page, and what would be loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.sounds: list[bytes] = []
        self.elsewhere: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href") and value is not None:
                head, _, data = value.partition(";base64,")
                if head != "data:audio/wav":
                    self.elsewhere.append(value)
                self.sounds.append(base64.b64decode(data))


def test_a_page_has_the_sound_of_each_turn_and_needs_nothing_else(
    kept: Path, tmp_path: Path
) -> None:
    page = tmp_path / "talk.html"

    assert run(["show", str(kept), "--format", "html", "--to", str(page)]) == 0

    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    parser = _Sounds()
    parser.feed(page.read_text("utf-8"))
    assert parser.elsewhere == []
    assert len(parser.sounds) == 2  # both answers; what was typed has none
    for sound in parser.sounds:
        with wave.open(io.BytesIO(sound)) as file:
            assert max(array("h", file.readframes(file.getnframes()))) > 1000


def test_what_was_said_is_cut_out_where_it_was_said_and_heard(tmp_path: Path) -> None:
    folder = written(
        tmp_path,
        (0.2, UserSpeechStarted("u1", 2_400)),
        (0.4, UserSpeechStopped("u1", 4_800)),
        (0.5, PlaybackStarted("a1", "r1", 9_600, 200, 50, 150)),
        (0.6, Turn("user", "hi", "u1")),
        (0.7, Interrupted("a1", 100, "Hel")),
        (0.7, Turn("assistant", "Hello <you>", "a1")),
        samples=12_000,
    )

    (part, view), *_ = folder.views()
    user, assistant = said_in(part, view)
    assert part.recording is not None
    sound = Recording(part.recording)
    assert array("h", sound.of("user", user.start_s or 0, user.end_s))[0] == 2_400
    assert len(sound.of("user", user.start_s or 0, user.end_s)) == 2 * 2_400
    assert array("h", sound.of("assistant", assistant.start_s or 0, assistant.end_s))[0] == -9_600
    assert (assistant.entry.heard, assistant.entry.state) == (3, "interrupted")
    assert assistant.latency is not None

    page = "".join(as_page(folder))
    assert "Hel<del" in page
    assert "lo &lt;you&gt;" in page
    assert ">committed after 50 ms, first audio after 150 ms, heard after 200 ms<" in page


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="names of files are Unicode there")
@pytest.mark.parametrize("form", ["text", "json", "markdown", "html"])
def test_the_name_of_a_folder_may_be_no_text(tmp_path: Path, form: str) -> None:
    folder = written(tmp_path, (0.1, Turn("user", "hello", "u1"))).path
    folder = folder.rename(tmp_path / os.fsdecode(b"talk \xff"))
    page = tmp_path / "page"

    assert run(["show", str(folder), "--format", form, "--to", str(page)]) == 0
    assert "hello" in page.read_text("utf-8")


def test_damaged_lines_are_passed_over_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path, (0.1, Turn("user", "hello", "u1")))
    with (folder.path / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "turn", "t": 1}\n{"event": "of another version", "t": 2}\n[]\n{"ev')

    assert "you: hello" in shown(capsys, str(folder.path))
    assert Folder(folder.path).damaged == 4


def test_a_session_is_passed_over_whose_first_line_is_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path, (0.1, Turn("user", "hello", "u1"))).path
    head, rest = (folder / "events.jsonl").read_bytes().split(b"\n", 1)
    damaged = head[:9] + b"\n" + rest
    (folder / "events.jsonl").write_bytes(damaged)

    assert run(["show", str(folder)]) == 2
    assert "it has no line with which a session begins" in capsys.readouterr().err

    (folder / "events.jsonl").write_bytes(damaged + head + b"\n")  # it was resumed
    assert shown(capsys, str(folder)) == "2026-01-02 03:04:05 UTC\n\n"
    assert Folder(folder).damaged == 3


def test_the_folder_of_another_version_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path)
    events = folder.path / "events.jsonl"
    events.write_bytes(events.read_bytes().replace(b'"version": 1', b'"version": 9'))

    with pytest.raises(Exception, match="another version of rtvoice"):
        Folder(folder.path)


def test_purged_means_that_nothing_is_left_but_what_others_have_put_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path, samples=100)
    (folder.path / "journal.images").mkdir()
    (folder.path / "journal.images" / "a.png").write_bytes(b"x")
    (folder.path / "mine.txt").write_text("mine")

    assert "mine.txt" in shown(capsys, str(folder.path), "--purge")
    assert os.listdir(folder.path) == ["mine.txt"]  # noqa: PTH208


@pytest.mark.parametrize("path", ["link", "."])
def test_a_folder_is_purged_by_whatever_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path).path
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder if path == "." else tmp_path)

    assert shown(capsys, path, "--purge") == f"removed: {path}\n"

    assert not folder.exists()


def written(tmp_path: Path, *events: tuple[float, Event], samples: int = 0) -> Folder:
    """Return a folder with these events and a recording whose samples are numbered."""
    path = tmp_path / "written"
    path.mkdir()
    head = {
        "event": "session",
        "version": 1,
        "started": "2026-01-02T03:04:05.678+00:00",
        "clock_ns": 0,
        "recording": "recording.wav" if samples else None,
    }
    started = SessionStarted({}, "", "", "", epoch_ns=0)
    lines = [event_line(event, t) for t, event in ((0.0, started), *events)]
    (path / "events.jsonl").write_bytes(json.dumps(head).encode() + b"\n" + b"".join(lines))
    if samples:
        with wave.open(str(path / "recording.wav"), "wb") as file:
            file.setnchannels(2)
            file.setsampwidth(2)
            file.setframerate(24_000)
            numbers = [number for at in range(samples) for number in (at, -at)]
            file.writeframes(array("h", numbers).tobytes())
    return Folder(path)


# -- playing --------------------------------------------------------------------------------------


def test_a_replay_is_the_recording_with_what_was_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path, (0.1, Turn("user", "hello", "u1")), samples=6_000)
    played = tmp_path / "played.wav"

    assert run(["replay", str(folder.path), "--output", str(played)]) == 0

    assert "you: hello" in capsys.readouterr().out
    with wave.open(str(played)) as file:
        assert file.getnframes() >= 6_000


def test_a_replay_to_the_sandbox_says_what_the_user_has_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path, samples=6_000)
    events = tmp_path / "again.jsonl"

    code = run(
        [
            *("replay", str(folder.path), "--output", "null", "--sandbox"),
            *("--events", str(events), "--max-seconds", "1"),
        ]
    )

    assert code == 0
    assert b"user.wav" in events.read_bytes()


def test_an_option_that_a_replay_does_not_have_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path, samples=100)
    with pytest.raises(SystemExit):
        run(["replay", str(folder.path), "--events", "x"])
    assert "there is no option --events" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["show", "talk", "--formt", "json"], "there is no option --formt; did you mean --format?"),
        (["replay", "talk", "--sandbx"], "there is no option --sandbx; did you mean --sandbox?"),
        (["show"], "the following arguments are required: FOLDER"),
        (["resume"], "the following arguments are required: FOLDER"),
    ],
)
def test_wrong_usage_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(arguments)

    assert caught.value.code == 2
    assert capsys.readouterr().err == f"rtvoice: {sentence}\n"


@pytest.mark.parametrize("mistyped", ["shwo", "repaly"])
def test_a_mistyped_command_is_named_with_the_nearest(
    capsys: pytest.CaptureFixture[str], mistyped: str
) -> None:
    assert run([mistyped, "talk"]) == 2
    meant = {"shwo": "show", "repaly": "replay"}[mistyped]
    assert f"there is no command {mistyped!r}; did you mean {meant}?" in capsys.readouterr().err
