"""Traces: a tree for each turn, with the names of the semantic conventions, and without text."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import (
    error_attributes,
    gen_ai_attributes,
    server_attributes,
)
from opentelemetry.trace import NoOpTracerProvider, SpanKind, StatusCode

from messages import (
    ComponentCrashed,
    Event,
    Interrupted,
    Message,
    PlaybackEnded,
    PlaybackStarted,
    Reconnected,
    ResponseEnded,
    ResponseStarted,
    SessionStarted,
    Tokens,
    ToolAnswer,
    ToolCall,
    ToolSpan,
    ToolSpanRequest,
    Turn,
    UserSpeechStarted,
    UserSpeechStopped,
)
from rtvoice import Agent, Tools
from rtvoice.testing import SandboxServer
from rtvoice.tracing import CAPTURE_CONTENT, Trace, trace
from tests.loop import in_a_loop
from tests.rig import TIMEOUT_S

MODEL = "gpt-realtime-2.1-mini"
STANDARD = {
    value
    for module in (gen_ai_attributes, error_attributes, server_attributes)
    for value in vars(module).values()
    if isinstance(value, str)
}
OPERATIONS = {each.value for each in gen_ai_attributes.GenAiOperationNameValues}
PROVIDERS = {each.value for each in gen_ai_attributes.GenAiProviderNameValues}


class Recorder:
    """Traces an agent, and has the spans that were ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans() if span.name == name]

    def children(self, root: ReadableSpan) -> list[str]:
        """Return the names of the children of a span, in their order."""
        assert root.context
        mine = [s for s in self.spans() if s.parent and s.parent.span_id == root.context.span_id]
        return [span.name for span in sorted(mine, key=lambda span: span.start_time or 0)]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def tell(tracing: Trace, *events: Event) -> None:
    """Let events happen in a conversation that begins with them."""
    started = SessionStarted({}, "wss://api.openai.com/v1/realtime", "silence", "null")
    for event in (started, *events):
        tracing._take(event)


def traced(recorder: Recorder, *events: Event, agent: Agent | None = None) -> list[ReadableSpan]:
    """Trace events to the end of the conversation; return the roots."""
    with trace(agent or Agent(), "c0ffee", recorder.provider) as tracing:
        tell(tracing, *events)
    return recorder.named("turn")


SPOKEN = (UserSpeechStarted("u1", 0), UserSpeechStopped("u1", 24_000))
ANSWER = (
    ResponseStarted("r1"),
    ResponseEnded("r1", "completed", "", 100, 20, 64, Tokens(input_text=100, output_audio=20)),
    PlaybackStarted("a1", "r1", 40_000, 650),
    PlaybackEnded("a1", 1000),
)


# -- the tree ----------------------------------------------------------------------------------


def test_a_turn_is_a_trace_with_the_answers_and_calls_of_the_model(recorder: Recorder) -> None:
    (root,) = traced(
        recorder,
        *SPOKEN,
        ResponseStarted("r0"),
        ToolCall("call_1", "look", "{}"),
        ResponseEnded("r0", "completed"),
        ToolAnswer("call_1", "look", "21 degrees"),
        *ANSWER,
    )

    assert root.parent is None
    assert recorder.children(root) == [f"chat {MODEL}", "execute_tool look", f"chat {MODEL}"]
    assert root.attributes is not None
    assert root.attributes["rtvoice.response_seconds"] == 0.65
    assert {span.context.trace_id for span in recorder.spans() if span.context} == {
        root.context.trace_id if root.context else 0
    }


def test_each_turn_of_the_user_begins_a_trace(recorder: Recorder) -> None:
    roots = traced(
        recorder,
        *SPOKEN,
        *ANSWER,
        Turn("user", "late", "u1"),  # its transcript, which begins no turn
        Turn("user", "typed", "t1"),
        ResponseStarted("r2"),
        ResponseEnded("r2", "completed"),
        ResponseStarted("r3"),  # asked for by the program
        ResponseEnded("r3", "completed"),
    )

    assert [recorder.children(root) for root in roots] == [[f"chat {MODEL}"]] * 3
    assert len({root.context.trace_id for root in roots if root.context}) == 3


def test_an_answer_that_is_asked_for_again_belongs_to_the_same_turn(recorder: Recorder) -> None:
    (root,) = traced(
        recorder,
        *SPOKEN,
        ResponseStarted("r0"),
        ResponseEnded("r0", "failed", "rate_limit_exceeded"),
        *ANSWER,
    )

    failed = recorder.named(f"chat {MODEL}")[0]
    assert len(recorder.children(root)) == 2
    assert failed.status.status_code is StatusCode.ERROR
    assert (failed.attributes or {})["error.type"] == "rate_limit_exceeded"


def test_what_was_open_when_a_process_died_is_ended_as_lost(recorder: Recorder) -> None:
    traced(recorder, *SPOKEN, ResponseStarted("r1"), ToolCall("call_1", "look", "{}"))

    lost = [span for span in recorder.spans() if span.parent]
    assert [(span.attributes or {})["error.type"] for span in lost] == ["lost", "lost"]


def test_interruptions_and_crashes_are_events_of_their_turn(recorder: Recorder) -> None:
    crash = ComponentCrashed("speaker", 1, "raised ValueError: the secret words")
    first, second = traced(
        recorder,
        *SPOKEN,
        *ANSWER[:3],
        crash,
        Interrupted("a1", 300, "Hello"),
        Reconnected(True, 2, 900),  # between two turns
        UserSpeechStarted("u2", 90_000),
        UserSpeechStopped("u2", 100_000),
        ResponseStarted("r2"),
    )

    assert [event.name for event in first.events] == ["component_crashed", "interrupted"]
    assert dict(first.events[0].attributes or {}) == {
        "rtvoice.component": "speaker",
        "rtvoice.cause": "raised ValueError",
    }
    assert (first.events[1].attributes or {})["rtvoice.heard_ms"] == 300
    assert [event.name for event in second.events] == ["reconnected"]


# -- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("captures", ["", "true"])
def test_names_are_those_of_the_semantic_conventions(
    recorder: Recorder, captures: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CAPTURE_CONTENT, captures)
    traced(
        recorder,
        *SPOKEN,
        Turn("user", "how warm is it", "u1"),
        ToolCall("call_1", "look", "{}"),
        ToolAnswer("call_1", "look", "no", failed=True),
        *ANSWER,
        Turn("assistant", "21 degrees", "a1"),
    )

    found = {name for span in recorder.spans() for name in span.attributes or {}}
    assert {name for name in found if not name.startswith("rtvoice.")} <= STANDARD
    for span in recorder.spans():
        attributes = dict(span.attributes or {})
        assert attributes["gen_ai.conversation.id"] == "c0ffee"
        assert attributes.get("gen_ai.operation.name", "chat") in OPERATIONS
        assert attributes.get("gen_ai.provider.name", "openai") in PROVIDERS
    deprecated = {"gen_ai.system", "gen_ai.usage.prompt_tokens", "gen_ai.prompt"}
    assert not found & deprecated


def test_an_answer_has_model_server_and_tokens(recorder: Recorder) -> None:
    traced(recorder, *SPOKEN, *ANSWER)

    (chat,) = recorder.named(f"chat {MODEL}")
    assert chat.kind is SpanKind.CLIENT
    assert dict(chat.attributes or {}) == {
        "gen_ai.conversation.id": "c0ffee",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": MODEL,
        "gen_ai.output.type": "speech",
        "gen_ai.response.id": "r1",
        "gen_ai.response.finish_reasons": ("completed",),
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 64,
        "rtvoice.usage.input_text_tokens": 100,
        "rtvoice.usage.output_audio_tokens": 20,
        "server.address": "api.openai.com",
        "server.port": 443,
    }


# -- text --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "allowed"),
    [(None, False), ("false", False), ("EVENT_ONLY", False), ("true", True), ("SPAN_ONLY", True)],
)
def test_text_is_in_spans_only_if_the_standard_variable_allows_it(
    recorder: Recorder, value: str | None, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CAPTURE_CONTENT, raising=False)
    if value is not None:
        monkeypatch.setenv(CAPTURE_CONTENT, value)

    traced(
        recorder,
        Turn("user", "SECRET question", "t1"),
        ResponseStarted("r0"),
        ToolCall("call_1", "look", '{"what": "SECRET"}'),
        ToolAnswer("call_1", "look", "SECRET result"),
        ResponseStarted("r1"),
        Interrupted("a1", 300, "SECRET"),
        Turn("assistant", "SECRET answer", "a1"),
    )

    written = "".join(span.to_json() for span in recorder.spans())
    assert ("SECRET" in written) is allowed
    if allowed:
        assert written.count("SECRET") == 4


# -- agents ------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_early", [False, True])
def test_the_span_of_a_call_is_told_in_whatever_order_call_and_request_come(
    is_early: bool, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = list[Message]()
    monkeypatch.setattr(Agent, "_send", lambda _, message: sent.append(message))
    with trace(Agent(), provider=recorder.provider) as tracing:
        tell(tracing, ResponseStarted("r1"))
        if is_early:
            tracing._name_span(ToolSpanRequest("c1"))
        tracing._take(ToolCall("c1", "count", "{}"))
        if not is_early:
            tracing._name_span(ToolSpanRequest("c1"))

    (call,) = recorder.named("execute_tool count")
    assert call.context
    ids = f"{call.context.trace_id:032x}-{call.context.span_id:016x}"
    assert sent == [ToolSpan("c1", f"00-{ids}-{call.context.trace_flags:02x}")]


def test_without_an_sdk_nothing_is_subscribed_to() -> None:
    agent = Agent()

    trace(agent, provider=NoOpTracerProvider())

    assert not agent.event_bus.kinds


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer(pace=0, timeout_s=2 * TIMEOUT_S) as server:
        yield server


@pytest.mark.processes("history")
@in_a_loop
async def test_the_turns_of_a_conversation_are_traced(
    sandbox: SandboxServer, recorder: Recorder
) -> None:
    tools = Tools()

    @tools.action("Say how warm it is.")
    async def temperature() -> str:
        os.kill((await agent.status())["history"]["pid"], signal.SIGKILL)
        async for _ in agent.events(ComponentCrashed):
            break
        return "21 degrees"

    agent = Agent(server=sandbox.url, tools=tools, audio_input="silence", audio_output="null")
    sandbox.call("temperature")
    sandbox.say("It is 21 degrees.")
    with trace(agent, provider=recorder.provider):
        async with asyncio.timeout(4 * TIMEOUT_S), agent:
            for text in ("how warm is it", "what is your name"):
                heard = agent.events(PlaybackEnded)
                agent.send_text(text)
                await anext(aiter(heard))
            await agent.stop()

    first, second = recorder.named("turn")
    chat = f"chat {agent.model}"
    assert recorder.children(first) == [chat, "execute_tool temperature", chat]
    assert recorder.children(second) == [chat]
    assert "component_crashed" in [event.name for event in first.events]
    assert (first.end_time or 0) <= (second.start_time or 0)


BICYCLES = """
import json, sys
from pathlib import Path
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from rtvoice import Tools

HERE = Path(__file__).parent
provider = TracerProvider()
output = (HERE / "spans").open("w")
exporter = ConsoleSpanExporter(out=output, formatter=lambda span: span.to_json(None) + "\\n")
provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=3_600_000))
tracer = provider.get_tracer("shop")
from opentelemetry import trace
trace.set_tracer_provider(provider)
tools = Tools()

@tools.action("Count the bicycles.")
{define} count() -> int:
    with tracer.start_as_current_span("select"):
        return 7
"""


@pytest.mark.parametrize("define", ["def", "async def"])
@in_a_loop
async def test_spans_of_a_tool_in_the_tools_process_are_children_of_its_call(
    define: str, sandbox: SandboxServer, recorder: Recorder, tmp_path: Path
) -> None:
    module = tmp_path / "bicycles.py"
    module.write_text(BICYCLES.format(define=define))
    agent = Agent(
        server=sandbox.url,
        tools=f"{module}:tools",
        audio_input="silence",
        audio_output="null",
        builtin_tools=(),
    )

    await counted(agent, sandbox, recorder)

    (call,) = recorder.named("execute_tool count")
    (line,) = (tmp_path / "spans").read_text().splitlines()
    made = json.loads(line)
    assert call.context
    assert made["name"] == "select"
    assert made["context"]["trace_id"] == f"0x{call.context.trace_id:032x}"
    assert made["parent_id"] == f"0x{call.context.span_id:016x}"


@pytest.mark.parametrize("is_async", [False, True])
@in_a_loop
async def test_spans_of_a_tool_of_the_program_are_children_of_its_call(
    is_async: bool, sandbox: SandboxServer, recorder: Recorder
) -> None:
    tools = Tools()
    tracer = recorder.provider.get_tracer("shop")

    def select() -> int:
        with tracer.start_as_current_span("select"):
            return 7

    async def select_async() -> int:
        return select()

    tools.action("Count the bicycles.", name="count")(select_async if is_async else select)
    agent = Agent(server=sandbox.url, tools=tools, audio_input="silence", audio_output="null")

    await counted(agent, sandbox, recorder)

    (call,) = recorder.named("execute_tool count")
    assert recorder.children(call) == ["select"]


@in_a_loop
async def test_a_tools_process_imports_opentelemetry_only_for_a_program_that_traces(
    sandbox: SandboxServer, recorder: Recorder, tmp_path: Path
) -> None:
    module = tmp_path / "bicycles.py"
    module.write_text(
        "import sys\nfrom rtvoice import Tools\ntools = Tools()\n\n"
        "@tools.action('Count.')\ndef count() -> bool:\n"
        "    return any(name.startswith('opentelemetry') for name in sys.modules)\n"
    )
    imported = []
    for found in (None, recorder):
        agent = Agent(
            server=sandbox.url,
            tools=f"{module}:tools",
            audio_input="silence",
            audio_output="null",
        )
        agent.event_bus.subscribe(ToolAnswer, lambda answer: imported.append(answer.output))
        await counted(agent, sandbox, found)

    assert imported == ["false", "true"]


async def counted(agent: Agent, sandbox: SandboxServer, recorder: Recorder | None) -> None:
    """Hold a conversation in which the tool ``count`` is called; trace it, if there is where."""
    sandbox.call("count")
    sandbox.say("Seven.")
    async with asyncio.timeout(4 * TIMEOUT_S):
        with trace(agent, provider=recorder.provider if recorder else NoOpTracerProvider()):
            async with agent:
                heard = agent.events(PlaybackEnded)
                agent.send_text("how many bicycles do you have")
                await anext(aiter(heard))
                await agent.stop()
