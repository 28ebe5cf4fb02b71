"""The table of settings (`messages.settings`): everything derived from it agrees with it."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import msgspec
import pytest

from actors.realtime.core.session import settings_update
from messages import LEVELS, Settings, UpdateSettings, validation
from messages.errors import InvalidSettingError
from messages.settings import COMPONENTS, SETTINGS
from rtvoice import Agent, AgentError, RetentionRatio, SemanticVad
from rtvoice.checks import PARAMETERS
from rtvoice.command.choice import fields_given
from rtvoice.command.cli import _parser
from rtvoice.description import Changes, Description
from rtvoice.publishing import changes_of
from supervisor import SPECS, Session

REFERENCE = (Path(__file__).resolve().parents[2] / "docs/reference.md").read_text(encoding="utf-8")
DEFAULTS = {field.name: field for field in msgspec.structs.fields(Settings)}
SIGNATURE = {
    name: parameter
    for name, parameter in inspect.signature(Agent.__init__).parameters.items()
    if name not in ("self", "unknown")
}
OWN = {"tools", "api_key"}
"""Parameters of an agent that are no settings of a session."""
NOT_GIVEN = {"audio_input", "audio_output", "server", "components", "prices"}
"""Parameters whose default None leaves the setting to the environment, or to its own default."""


def default_of(name: str) -> object:
    field = DEFAULTS[name]
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def text_for(name: str) -> str:
    """Return a text that stands for a value of a setting: its last choice, its highest number."""
    *_, last = re.split("[-{},]", validation.metavar(name).removesuffix("}"))
    return last or {"language": "de", "tool_choice": "none"}.get(name, "7")


# -- the table itself ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_setting_is_in_the_table_with_a_sentence(name: str) -> None:
    kind = DEFAULTS[name].type

    assert get_origin(kind) is Annotated
    assert get_args(kind)[-1] is SETTINGS[name]
    assert SETTINGS[name].text.endswith(".")
    assert validation.checked(name, default_of(name)) == default_of(name)


def test_the_names_that_components_cannot_have_are_those_of_ours() -> None:
    others = {"hub", "program", "sandbox", "supervisor"}

    assert set(COMPONENTS) == {*others, *(spec.name for spec in SPECS)}


def test_the_log_levels_are_those_of_log_records() -> None:
    assert validation.allowed("log_level").replace(" or ", ", ").split(", ") == list(LEVELS)


# -- the agent -------------------------------------------------------------------------------------


def test_an_agent_has_a_parameter_and_an_attribute_for_each_setting_that_names_one() -> None:
    assert SIGNATURE.keys() - OWN == PARAMETERS.keys()
    assert Description.__annotations__.keys() - {"_api_key", "tools"} == PARAMETERS.keys()


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_default_of_a_parameter_is_that_of_the_setting(name: str) -> None:
    expected = None if name in NOT_GIVEN else default_of(PARAMETERS[name])

    assert SIGNATURE[name].default == expected


def test_what_may_change_are_the_parameters_that_a_message_changes() -> None:
    changing = {name for name, setting in PARAMETERS.items() if SETTINGS[setting].changed_by}

    assert Changes.__annotations__.keys() == changing | {"tools"}


DEVICES = {"audio_input", "audio_output"}
"""A parameter takes objects too, a change only names."""


@pytest.mark.parametrize("name", sorted(Changes.__annotations__.keys() - {"tools"} - DEVICES))
def test_a_change_has_the_type_of_its_parameter(name: str) -> None:
    can_unset = SETTINGS[PARAMETERS[name]].can_unset
    expected = SIGNATURE[name].annotation

    changed = Changes.__annotations__[name].__forward_arg__

    assert changed == (expected if can_unset else expected.removesuffix(" | None"))


@pytest.mark.parametrize("name", [*PARAMETERS])
def test_what_cannot_change_says_why(name: str) -> None:
    setting = SETTINGS[PARAMETERS[name]]

    assert setting.changed_by or setting.fixed


# -- the command -----------------------------------------------------------------------------------

OPTIONS = {name: setting for name, setting in SETTINGS.items() if setting.option is not None}


@pytest.mark.parametrize("name", sorted(OPTIONS.keys() - {"server"}))
def test_an_option_gives_its_setting(name: str) -> None:
    option = OPTIONS[name].option
    assert option is not None
    flag_only = option.value is not msgspec.UNSET
    arguments = [option.flag] if flag_only else [option.flag, text_for(name)]

    given = fields_given(_parser().parse_args(arguments))

    expected = option.value if flag_only else validation.parsed(name, text_for(name))
    assert given == {name: expected}


def test_what_is_not_given_is_no_setting() -> None:
    assert fields_given(_parser().parse_args([])) == {}


# -- the Realtime API ------------------------------------------------------------------------------

IN_SESSION = {
    name: setting
    for name, setting in SETTINGS.items()
    if setting.session_field and setting.changed_by is UpdateSettings
}
VALUES: dict[str, Any] = {
    "voice": "voice_1234",
    "truncation": RetentionRatio(0.8, 5000),
    "turn_detection": SemanticVad("low"),
    "transcription_model": "own",
    "transcription_keywords": ("Rhine",),
    "parallel_tool_calls": False,
}


@pytest.mark.parametrize("name", IN_SESSION)
def test_a_setting_is_sent_in_its_field_and_understood_by_the_sandbox(name: str) -> None:
    value = VALUES[name] if name in VALUES else validation.parsed(name, text_for(name))
    before = Settings(transcription_model="gpt-transcribe")

    update = settings_update(before, msgspec.structs.replace(before, **{name: value}), ())

    assert update is not None
    told: Any = update
    for key in IN_SESSION[name].session_field.split("."):
        told = told[key]
    changes = changes_of(update)
    assert validation.checked(name, changes[IN_SESSION[name].parameter or name]) == value


# -- the documents ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETTINGS)
def test_the_reference_has_the_sentence_of_the_table(name: str) -> None:
    words = validation.description(name).replace("``", "`")

    assert re.search(rf"^\| `{name}: .*` \| {re.escape(words)} \|$", REFERENCE, re.MULTILINE)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_is_described_where_it_is_taken(name: str) -> None:
    assert f"\n    {name}: " in (Agent.__init__.__doc__ or "")
    if name in Changes.__annotations__:
        assert f"\n    {name}: " in (Agent.update.__doc__ or "")


# -- one check -------------------------------------------------------------------------------------


def problem_of(name: str, value: object) -> str:
    with pytest.raises(InvalidSettingError) as refusal:
        Session(**{name: value})
    assert refusal.value.name == name
    return refusal.value.problem


WRONG = {
    "bytes": b"",
    "below": -1.0,
    "above": 1e9,
    "surrogate": "\ud800",
    "signs": "?!",
    "object": object(),
}


@pytest.mark.parametrize("parameter", sorted(PARAMETERS.keys() - {"audio_input", "audio_output"}))
@pytest.mark.parametrize("what", WRONG)
def test_an_agent_and_a_session_say_the_same_of_a_wrong_value(parameter: str, what: str) -> None:
    value = WRONG[what]
    try:
        validation.checked(PARAMETERS[parameter], value)
    except InvalidSettingError as error:
        expected = error.problem
    else:
        return  # it is right

    with pytest.raises(AgentError) as refusal:
        Agent(**{parameter: value})  # type: ignore[arg-type]

    assert (refusal.value.name, refusal.value.problem) == (parameter, expected)
    assert problem_of(PARAMETERS[parameter], value) == expected


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("speed", 9, "9"),
        ("volume", "loud", "loud"),
        ("block_ms", 5, "5"),
        ("max_seconds", -1, "-1"),
        ("inactivity_timeout_s", -3, "-3"),
        ("interruption", "maybe", "maybe"),
        ("reasoning_effort", "huge", "huge"),
        ("language", "english", "english"),
        ("server", "http://x", "http://x"),
        ("model", " ", " "),
    ],
)
def test_the_command_says_the_same_of_a_wrong_value(
    name: str, value: object, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flag = getattr(SETTINGS[name].option, "flag", "")

    with pytest.raises(SystemExit):
        _parser().parse_args([flag, text])

    told = capsys.readouterr().err
    assert told == f"rtvoice: {flag}: {problem_of(name, value)}\n"


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("muted", 1, "1 is not valid; give True or False"),
        ("program_tools", 3, "3 is not valid; give a list"),
        ("memory_limit_mib", 3, "3 is out of range; give a whole number of MiB, at least 64, or"),
        ("instructions", b"x", "a value of type bytes is not valid; give a text"),
        ("truncation", {"type": "retention_ratio"}, "ratio: it is missing; give a number from 0"),
        ("memory_limit_mib", 10**30, "1000000000000000000000000000000 is out of range"),
        ("preroll_ms", -(10**5000), "-1.79769e+308 is not valid; give a whole number from 0 to"),
        ("named_tools", 10**5000, "1.79769e+308 is not valid; give a text or None"),
        ("model", {}, "a value of type dict is not valid; give a text that is not empty"),
        ("duplex", 200 * "x", f"'{79 * 'x'}… is not valid; give auto, half or full"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_sentence_says_what_is_given_and_what_to_give(
    name: str, value: object, problem: str
) -> None:
    assert problem_of(name, value).startswith(problem)
