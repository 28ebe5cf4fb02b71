"""The choice of server, devices and agent by the command, and its errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rtvoice.command import choice
from rtvoice.command.choice import Card, UsageError, choose, read_env_file
from rtvoice.command.cli import _parser

KEY = {"OPENAI_API_KEY": "sk-x"}
CARD = Card(input=True, output=True)
NO_CARD = Card(input=False, output=False)


def chosen(*arguments: str, card: Card = NO_CARD, env: dict[str, str] | None = None) -> Any:
    return choose(_parser().parse_args(arguments), env or {}, lambda: card)


def test_a_key_and_a_card_talk_with_the_service() -> None:
    found = chosen(card=CARD, env=KEY)

    assert (found.demo, found.server) == (False, "openai")
    assert found.defaults["input"] == found.defaults["output"] == "default"
    assert found.hints == ()


def test_a_card_without_a_key_talks_with_the_sandbox() -> None:
    found = chosen(card=CARD)

    assert (found.demo, found.server) == (False, "sandbox")
    assert "OPENAI_API_KEY" in found.hints[0]


@pytest.mark.parametrize("env", [{}, KEY, {"RTVOICE_SERVER": "sandbox"}])
def test_without_a_card_the_demo_runs_on_the_sandbox(env: dict[str, str]) -> None:
    found = chosen(env=env)

    assert (found.demo, found.server) == (True, "sandbox")
    assert "no sound card" in found.hints[0]


def test_a_card_with_one_direction_is_not_enough() -> None:
    assert chosen(card=Card(input=False, output=True), env=KEY).demo


def test_the_demo_says_that_the_key_is_not_used() -> None:
    assert any("key is not used" in hint for hint in chosen(env=KEY).hints)


def test_the_demo_can_be_asked_for() -> None:
    assert chosen("--demo", card=CARD, env=KEY).demo


@pytest.mark.parametrize(
    "arguments", [("--input", "x.wav"), ("--output", "y.wav"), ("assistant.py:agent",)]
)
def test_the_demo_has_its_own_devices_and_agent(arguments: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="the demo has its own"):
        chosen("--demo", *arguments)


def test_the_demo_never_talks_with_another_server() -> None:
    with pytest.raises(UsageError, match="not with openai"):
        chosen("--demo", "--server", "openai", env=KEY)


def test_devices_without_a_key_talk_with_the_sandbox() -> None:
    found = chosen("--input", "silence", "--output", "null")

    assert (found.demo, found.server) == (False, "sandbox")
    assert (found.given["input"], found.given["output"]) == ("silence", "null")


def test_what_is_missing_of_a_card_may_be_plugged_in_later() -> None:
    found = chosen("--input", "question.wav", card=Card(input=True, output=False))

    assert found.defaults["output"] == "auto"


def test_no_card_is_looked_for_when_both_devices_are_given() -> None:
    def look() -> Card:
        raise AssertionError("looked for a card")

    options = _parser().parse_args(["--input", "silence", "--output", "null"])

    assert not choose(options, {}, look).demo


def test_the_service_without_a_key_is_refused_with_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"set OPENAI_API_KEY.*--server sandbox"):
        chosen("--server", "openai", card=CARD)
    with pytest.raises(UsageError, match="needs a key"):
        chosen(card=CARD, env={"RTVOICE_SERVER": "openai", "OPENAI_API_KEY": " "})


def test_the_server_of_the_command_goes_before_that_of_the_environment() -> None:
    env = {"RTVOICE_SERVER": "ws://localhost:1"}

    assert chosen(card=CARD, env=env).server == "ws://localhost:1"
    assert chosen("--server", "sandbox", card=CARD, env=env).server == "sandbox"


def test_an_invalid_server_in_the_environment_is_named() -> None:
    with pytest.raises(UsageError, match="RTVOICE_SERVER: 'http://x' is not valid"):
        chosen(card=CARD, env={"RTVOICE_SERVER": "http://x"})


def test_the_demo_has_no_key() -> None:
    with pytest.raises(UsageError, match="leave --push-to-talk out"):
        chosen("--demo", "--push-to-talk")


def test_options_become_settings() -> None:
    found = chosen(
        *("agent.py:a", "--volume", "0.5", "--block-ms", "20", "--model", "m", "--voice", "v"),
        *("--speed", "1.2", "--language", "en", "--instructions", "i", "--greeting", "g"),
        *("--max-seconds", "9", "--inactivity-timeout", "0", "--record", "r.wav"),
        *("--noise-reduction", "far_field", "--reasoning-effort", "high", "--text-only"),
        *("--transcription-model", "t", "--interruption", "confirmed"),
        *("--push-to-talk", "--full-duplex"),
        *("--journal", "j", "--input", "i.wav", "--output", "o.wav", "--server", "sandbox"),
    )

    assert found.given == {
        "agent": "agent.py:a",
        "import_path": (str(Path.cwd()),),
        "volume": 0.5,
        "block_ms": 20,
        "model": "m",
        "voice": "v",
        "speed": 1.2,
        "language": "en",
        "transcription_model": "t",
        "interruption": "confirmed",
        "turn_detection": None,
        "duplex": "full",
        "noise_reduction": "far_field",
        "reasoning_effort": "high",
        "output_modality": "text",
        "instructions": "i",
        "greeting": "g",
        "max_seconds": 9.0,
        "inactivity_timeout_s": None,
        "recording_path": "r.wav",
        "journal_path": "j",
        "input": "i.wav",
        "output": "o.wav",
        "server": "sandbox",
    }


def test_a_retired_model_is_reported_with_its_successor() -> None:
    hints = chosen("--model", "gpt-realtime", "--input", "silence", "--output", "null").hints

    assert any("2027-01-20; use gpt-realtime-2.1" in hint for hint in hints)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--speed", "3"], "3 is out of range; give a number from 0.25 to 1.5"),
        (["--volume", "loud"], "'loud' is not valid; give a number from 0 to 1"),
        (["--block-ms", "5"], "5 is out of range; give a whole number from 10 to 100"),
        (["--max-seconds", "-1"], "-1 is out of range; give a number of seconds above 0"),
        (["--server", "localhost:80"], "'localhost:80' is not valid; give openai, sandbox"),
        (["--log-level", "LOUD"], "'LOUD' is not valid; give DEBUG, INFO"),
        (["--inputt", "x"], "there is no option --inputt; did you mean --input?"),
        (["--recrd=talk.wav"], "there is no option --recrd; did you mean --record?"),
        (["--zzz"], "there is no option --zzz;"),
        (["a.py:agent", "b.py:agent"], "'b.py:agent' is one argument too many"),
    ],
)
def test_a_wrong_option_is_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        _parser().parse_args(arguments)

    assert end.value.code == 2
    shown = capsys.readouterr().err
    assert words in shown
    assert shown.count("\n") == 1


def test_looking_for_a_card_takes_three_seconds_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    def look(timeout_s: float) -> tuple[bool, bool]:
        waited.append(timeout_s)
        return True, False

    monkeypatch.setattr(choice, "sound_card_present", look)

    assert choice.find_card() == Card(input=True, output=False)
    assert waited == [3.0]


def test_an_env_file_is_read_as_shells_write_it(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(
        "\ufeff# a comment\n"
        "PLAIN=value\n"
        "export EXPORTED = spaced out  # and a comment\n"
        "SINGLE='as # it is \\n'\n"
        'DOUBLE="line\\nbreak \\"quoted\\"" # comment\n'
        "EMPTY=\n"
        "HASH=a#b\n"
        "EQUALS=a=b==\n"
        "no assignment\n"
        "1BAD=x\n",
        encoding="utf-8",
    )

    assert read_env_file(path) == {
        "PLAIN": "value",
        "EXPORTED": "spaced out",
        "SINGLE": "as # it is \\n",
        "DOUBLE": 'line\nbreak "quoted"',
        "EMPTY": "",
        "HASH": "a#b",
        "EQUALS": "a=b==",
    }


def test_no_env_file_is_no_error(tmp_path: Path) -> None:
    assert read_env_file(tmp_path / ".env") == {}
    assert read_env_file(tmp_path) == {}
