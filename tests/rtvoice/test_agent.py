"""Agent: a frozen description, its checks, and the settings that it makes."""

from __future__ import annotations

import asyncio
import enum
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import rtvoice
from actors.tools.registry import Tools as RegistryTools
from messages import BUILTIN_TOOLS, RetentionRatio, SemanticVad, ServerVad, Settings, limits
from rtvoice import Agent, AgentError, RtvoiceError, ToolDefinitionError, Tools
from rtvoice.checks import checked_image, refuse_unknown_tool

ROOT = Path(__file__).resolve().parents[2]


def test_an_agent_with_nothing_given_describes_the_default_settings() -> None:
    described = Agent().describe()

    assert msgspec.convert(described, Settings) == Settings()
    assert "input" not in described
    assert "server" not in described


def test_everything_given_is_described_in_plain_values() -> None:
    class Voice(enum.Enum):
        CEDAR = "cedar"

    described = Agent(
        "be brief",
        "some-model",
        Voice.CEDAR,  # type: ignore[arg-type]
        1.2,
        "gpt-transcribe",
        Tools(),
        Path("talk.wav"),
        audio_input=3,
        audio_output=Path("out.wav"),
        greeting="Hello!",
        language=["DE", "en"],
        transcription_prompt="Rivers.",
        transcription_keywords=["Rhine"],
        interruption="confirmed",
        duplex="full",
        noise_reduction="far_field",
        output_modality="text",
        max_output_tokens=200,
        tool_choice="required",
        parallel_tool_calls=False,
        reasoning_effort="high",
        truncation=RetentionRatio(0.8, 5000),
        inactivity_timeout_s=None,
        turn_detection=SemanticVad("low"),
        volume=0.5,
        output_hold_s=0,
        builtin_tools=("stop_assistant_run", "get_current_time"),
        tool_timeout_s=5,
        journal_path="talk.journal",
        server="wss://example.org/v1/realtime",
    ).describe()

    assert msgspec.convert(msgspec.msgpack.decode(msgspec.msgpack.encode(described)), Settings) == (
        Settings(
            instructions="be brief",
            model="some-model",
            voice="cedar",
            speed=1.2,
            transcription_model="gpt-transcribe",
            recording_path="talk.wav",
            input="3",
            output="out.wav",
            greeting="Hello!",
            language=("de", "en"),
            transcription_prompt="Rivers.",
            transcription_keywords=("Rhine",),
            interruption="confirmed",
            duplex="full",
            noise_reduction="far_field",
            output_modality="text",
            max_output_tokens=200,
            tool_choice="required",
            parallel_tool_calls=False,
            reasoning_effort="high",
            truncation=RetentionRatio(0.8, 5000),
            inactivity_timeout_s=None,
            turn_detection=SemanticVad("low"),
            volume=0.5,
            output_hold_s=0.0,
            builtin_tools=("get_current_time", "stop_assistant_run"),
            tool_timeout_s=5.0,
            journal_path="talk.journal",
            server="wss://example.org/v1/realtime",
        )
    )


class _Line:
    """A device, both ways, with a sample rate."""

    def __init__(self, sample_rate: object) -> None:
        self.sample_rate = sample_rate

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def stream_chunks(self) -> None: ...
    def play_chunk(self, chunk: bytes) -> None: ...
    def clear_buffer(self) -> None: ...


def _clashing() -> Tools:
    tools = Tools()
    tools.action("Turn it up.", name="adjust_volume")(lambda: None)
    return tools


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"instructions": 3}, "instructions: 3 is not valid; give a text"),
        ({"model": " "}, "model: ' ' is not valid; give a text that is not empty"),
        ({"voice": None}, "voice: None is not valid; give a text that is not empty"),
        ({"speech_speed": 2}, "speech_speed: 2 is out of range; give a number from 0.25 to 1.5"),
        ({"speech_speed": "fast"}, "'fast' is not valid; give a number from 0.25 to 1.5"),
        ({"speech_speed": True}, "True is not valid; give a number"),
        ({"speech_speed": float("nan")}, "out of range"),
        ({"volume": 1.5}, "volume: 1.5 is out of range; give a number from 0 to 1"),
        ({"tools": [print]}, "tools: give an rtvoice.Tools, or the name of one, not a valu"),
        ({"recording_output_path": 7}, "recording_output_path: 7 is not valid; give a path"),
        ({"audio_input": True}, "audio_input: give a device's name or index"),
        ({"language": "english"}, "language: 'english' is not a valid language code"),
        ({"inactivity_timeout_s": 0}, "seconds above 0, or None for never"),
        ({"turn_detection": "server_vad"}, "'server_vad' is not valid; give rtvoice.ServerVad("),
        ({"turn_detection": ServerVad(threshold=2)}, "threshold: 2 is out of range; give a nu"),
        ({"turn_detection": ServerVad(threshold="high")}, "threshold: 'high' is not valid; give a"),
        (
            {"turn_detection": ServerVad(idle_timeout_ms=1)},
            "1 is out of range; give a whole number",
        ),
        ({"turn_detection": SemanticVad("soon")}, "turn_detection: eagerness: 'soon' is not val"),
        ({"voice": "fable"}, "'fable' is not a valid voice of the service; give alloy, ash, b"),
        ({"interruption": "maybe"}, "'maybe' is not valid; give immediate, confirmed or None"),
        ({"output_hold_s": -1}, "-1 is out of range; give a number from 0 to 86400"),
        ({"duplex": "both"}, "'both' is not valid; give auto, half or full"),
        ({"noise_reduction": "near"}, "'near' is not valid; give near_field, far_field or None"),
        ({"output_modality": "both"}, "'both' is not valid; give audio or text"),
        ({"max_output_tokens": 5000}, "5000 is out of range; give a whole number from 1 to"),
        ({"max_output_tokens": 1.5}, "1.5 is not valid; give a whole number from 1"),
        ({"tool_choice": "my tool"}, "not valid; give auto, none, required or the name of a tool"),
        ({"parallel_tool_calls": 1}, "1 is not valid; give True, False or None"),
        ({"reasoning_effort": "huge"}, "'huge' is not valid; give minimal, low, medium, high, xh"),
        (
            {"reasoning_effort": "low", "model": "gpt-realtime-1.5"},
            "reasoning_effort: only models that reason support it, and gpt-realtime-1.5 does not",
        ),
        (
            {"parallel_tool_calls": True, "model": "gpt-realtime-1.5"},
            "parallel_tool_calls: only models that reason support it",
        ),
        ({"truncation": "never"}, "'never' is not valid; give auto, disabled or an rtvoice.R"),
        ({"truncation": RetentionRatio(2)}, "truncation: ratio: 2 is out of range; give a nu"),
        (
            {"transcription_model": "gpt-live-transcribe"},
            "gpt-live-transcribe transcribes only with push-to-talk (turn_detection=None); choose",
        ),
        (
            {"transcription_model": "own", "transcription_keywords": "Rhine"},
            "transcription_keywords: 'Rhine' is not valid; give a list of texts",
        ),
        (
            {"transcription_model": "gpt-transcribe", "transcription_delay": "low"},
            "transcription_delay: gpt-transcribe does not support it; leave it out, or choose",
        ),
        ({"language": ["en", "german"]}, "language: 'german' is not a valid language code"),
        ({"output_modalities": ["text"]}, "did you mean output_modality?"),
        ({"builtin_tools": ("get_weather",)}, "'get_weather' is not a built-in tool; give names"),
        (
            {"builtin_tools": "get_current_time"},
            "'get_current_time' is not valid; give names from",
        ),
        ({"server": "http://x"}, "server: 'http://x' is not valid; give openai, sandbox"),
        ({"components": {"mood": "app"}}, "components: 'mood': 'app' is not a valid component"),
        ({"audio_input": object()}, "of type object has no start(), stop(), stream_chunks()"),
        ({"audio_output": object()}, "has no start(), stop(), play_chunk(), clear_buffer()"),
        ({"instruction": "x"}, "instruction: an Agent has no such parameter; did you mean instruc"),
        ({"system_prompt": "x"}, "did you mean instructions?"),
        ({"audio_output": _Line("fast")}, "the sample_rate of _Line is 'fast'; it must be a numb"),
        ({"audio_input": _Line(7999)}, "the sample_rate of _Line is 7999; it must be a number fro"),
        ({"instructions": "\ud800"}, "instructions: the text is not valid Unicode"),
        (
            {"tools": "tools.py"},
            "tools: 'tools.py' is not a valid name; write module:attribute or",
        ),
        ({"tools": _clashing()}, "'adjust_volume' is the name of a built-in tool too: give yours"),
        ({"components": {"speaker": "app:Mine"}}, "'speaker' is not a valid name of a component"),
        ({"components": {"": "app:Mine"}}, "'' is not a valid name of a component"),
        ({"mcp_servers": []}, "no such parameter; write a tool that does it, with @tools.action"),
        ({"qqq": 1}, "qqq: an Agent has no such parameter; there are: api_key, audio_input, "),
    ],
)
def test_an_invalid_agent_is_refused_with_advice(given: dict[str, object], words: str) -> None:
    with pytest.raises(AgentError) as refusal:
        Agent(**given)  # type: ignore[arg-type]

    assert words in str(refusal.value)


def test_a_tool_may_stand_for_a_built_in_one_that_is_switched_off() -> None:
    agent = Agent(tools=_clashing(), builtin_tools=("get_current_time",))

    assert agent.builtin_tools == ("get_current_time",)


def test_a_time_may_be_any_number_of_seconds() -> None:
    assert Agent(inactivity_timeout_s=10**400).inactivity_timeout_s == sys.float_info.max


def test_tools_may_be_a_name() -> None:
    agent = Agent(tools="tools.py:tools")

    assert agent.tools == "tools.py:tools"
    assert "tools='tools.py:tools'" in repr(agent)


def test_an_agent_cannot_be_changed() -> None:
    agent = Agent("a")

    with pytest.raises(AttributeError, match="make another one with voice="):
        agent.voice = "cedar"
    with pytest.raises(AttributeError):
        agent.colour = "blue"  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        del agent.voice


def test_objects_cannot_be_sent_to_another_process() -> None:
    class Phone:
        def start(self) -> None: ...
        def stop(self) -> None: ...
        def stream_chunks(self) -> None: ...
        def play_chunk(self, chunk: bytes) -> None: ...
        def clear_buffer(self) -> None: ...

    with pytest.raises(AgentError, match=r"audio_input: .*object \(Phone\).*give audio_input as a"):
        Agent(audio_input=Phone()).describe()
    with pytest.raises(AgentError, match="give audio_output as a name"):
        Agent(audio_output=Phone()).describe()


def test_components_of_ones_own_are_described() -> None:
    assert Agent(components={"mood": "app:Mood"}).describe()["components"] == {"mood": "app:Mood"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"model": "gpt-realtime"},
            "is shut down on 2027-01-20; use gpt-realtime-2.1",
        ),
        (
            {"model": "gpt-4o-mini-realtime-preview-2024-12-17"},
            "2026-05-12; use gpt-realtime-2.1",
        ),
        ({"transcription_model": "whisper-1"}, "2027-02-26; use gpt-transcribe"),
    ],
)
def test_a_retired_model_is_taken_with_a_warning(given: dict[str, str], words: str) -> None:
    with pytest.warns(FutureWarning, match=words) as warned:
        Agent(**given)  # type: ignore[arg-type]

    assert warned[0].filename == __file__


def test_an_unknown_model_is_accepted() -> None:
    assert Agent(model="gpt-realtime-9").model == "gpt-realtime-9"


def test_the_key_is_neither_sent_nor_shown() -> None:
    agent = Agent(api_key="sk-canary")

    assert "canary" not in repr(agent)
    with pytest.raises(AgentError, match="OPENAI_API_KEY") as refusal:
        agent.describe()
    assert "canary" not in str(refusal.value)


def test_the_built_in_assistant_is_an_agent_like_any_other() -> None:
    from rtvoice.command.assistant import ASSISTANT

    settings = msgspec.convert(ASSISTANT.describe(), Settings)

    assert settings.transcription_model == "gpt-transcribe"
    assert settings.builtin_tools == BUILTIN_TOOLS
    assert settings.turn_detection == ServerVad()


def test_the_package_exports_what_all_names() -> None:
    assert set(rtvoice.__all__) <= set(dir(rtvoice))
    assert rtvoice.Tools is RegistryTools
    assert rtvoice.__version__
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        rtvoice.Nothing  # noqa: B018


def test_type_checkers_see_the_names_that_the_package_exports() -> None:
    source = Path(rtvoice.__file__).read_text(encoding="utf-8")

    assert set(re.findall(r"from rtvoice\.(\S+) import \*", source)) == set(rtvoice._HOMES)
    for home in rtvoice._HOMES:
        module = importlib.import_module(f"rtvoice.{home}")
        for name in module.__all__:
            assert getattr(rtvoice, name) is getattr(module, name), name


def test_every_error_that_a_program_gets_has_the_one_base() -> None:
    public = [getattr(rtvoice, name) for name in rtvoice.__all__]
    errors = [one for one in public if isinstance(one, type) and issubclass(one, Exception)]

    assert ToolDefinitionError in errors
    assert all(issubclass(error, RtvoiceError) for error in errors)


def test_importing_an_agent_imports_nothing_heavy() -> None:
    code = (
        "import sys; from rtvoice import Agent, Tools; "
        "print([name for name in ('asyncio', 'numpy', 'structlog', 'supervisor', 'pykka') "
        "if name in sys.modules])"
    )

    found = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert found.stdout.strip() == "[]"


PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (5, "image: give a PNG or JPEG file, as bytes or a path, not a value of type int"),
        (b"GIF89a", "image: it is neither PNG nor JPEG, and the service takes no others"),
        (b"", "image: it is neither PNG nor JPEG"),
        ("nowhere.png", "image: nowhere.png cannot be read: No such file or directory"),
        (PNG + bytes(5 * 2**20), "image: it has 5.0 MiB; make it smaller, 4 MiB at most"),
    ],
)
def test_data_that_is_not_an_image_is_refused(image: object, words: str) -> None:
    with pytest.raises(AgentError) as refusal:
        Agent().send_image(image)  # type: ignore[arg-type]

    assert words in str(refusal.value)


def test_an_image_is_known_by_its_beginning(tmp_path: Path) -> None:
    file = tmp_path / "photo.png"  # whatever it is called
    file.write_bytes(b"\xff\xd8\xff\xe0")

    assert checked_image("image", file) == (b"\xff\xd8\xff\xe0", "image/jpeg")
    assert checked_image("image", bytearray(PNG)) == (PNG, "image/png")


@pytest.mark.parametrize("voice", [*limits.VOICES, "voice_1234"])
def test_every_voice_of_the_service_and_a_custom_one_are_taken(voice: str) -> None:
    assert Agent(voice=voice).voice == voice


def test_a_server_of_ones_own_may_have_other_voices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Agent(voice="bella", server="ws://127.0.0.1:1/v1/realtime").voice == "bella"
    monkeypatch.setenv("RTVOICE_SERVER", "ws://127.0.0.1:1/v1/realtime")
    assert Agent(voice="bella").voice == "bella"


@pytest.mark.parametrize("model", ["gpt-realtime-2.1", "gpt-realtime-2", "some-model"])
def test_models_that_reason_and_unknown_ones_take_an_effort(model: str) -> None:
    assert Agent(model=model, reasoning_effort="high").reasoning_effort == "high"


def test_no_limit_has_two_names() -> None:
    assert Agent(max_output_tokens="inf").max_output_tokens is None
    assert Agent(max_output_tokens=None).max_output_tokens is None


def test_the_voices_are_those_of_the_service() -> None:
    assert {voice.value for voice in rtvoice.AssistantVoice} == set(limits.VOICES)


def test_a_tool_that_has_to_be_called_has_to_be_there() -> None:
    tools = Tools()
    agent = Agent(tools=tools, tool_choice="clock", builtin_tools=(), server="sandbox")
    with pytest.raises(AgentError, match="tool_choice: there is no tool 'clock'"):
        asyncio.run(agent.run())

    tools.action("Tell the time.", name="clock")(lambda: "12:00")  # it may come later

    refuse_unknown_tool(agent.tool_choice, [tool.name for tool in tools])
