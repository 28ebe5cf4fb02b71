"""The tools component: announces the tools, runs the model's calls and answers each of them."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from functools import partial
from types import ModuleType
from typing import Any, ClassVar

import msgspec

from actors.base import Actor
from actors.lease import LeaseLostError, lease_of
from actors.loading import prepare
from actors.tools.builtin import Effect, builtin_tools
from actors.tools.executor import Executor, ToolOutcome
from actors.tools.loading import load_agent, load_tools
from actors.tools.registry import Tool, ToolArgumentsError, ToolDefinitionError, Tools
from messages import (
    CONTROL,
    DIRECT,
    AskToRun,
    MayRun,
    Message,
    ProgramToolAnswer,
    ProgramToolCall,
    ProgramToolCancel,
    SetSpeed,
    SetTools,
    SetVolume,
    SpeedChanged,
    ToolCall,
    ToolsAvailable,
    ToolSpan,
    ToolSpanRequest,
    ToolSpec,
    decode,
    tag_of,
    tool_answer,
)

__all__ = ["ToolExecutor"]

_MAX_RUNNING = 64
"""Most calls at the same time; a further call is answered with an error."""
_MAX_ANSWERED = 64
"""Number of answered calls whose ids are kept, to recognize a call that is delivered twice."""
_LEAST_OUTPUTS, _OUTPUT_CHARS = 3, 262_144
"""The outputs of these calls are kept up to this length together, but no fewer than this number."""
_MAX_RUNS = 2
"""How often a call of an idempotent tool is started if its process dies each time."""
_SPAN_S = 0.25
"""How long a call waits for the program to say which span it runs in; then it runs in none."""
_INTERRUPTED = "outcome unknown: the tool was interrupted"


class _Output(msgspec.Struct, frozen=True):
    """The answer to a call."""

    output: str
    failed: bool
    name: str = ""
    """The tool."""


class _InFlight(msgspec.Struct):
    """A call that is not answered yet, or whose answer only realtime has been told."""

    name: str
    arguments: str
    runs: int = 0
    """How often it was started."""
    item_id: str = ""
    previous_item_id: str | None = None
    recorded: bool = False
    """Whether the program has recorded it (`Settings.asks_to_run`)."""
    answer: _Output | None = None
    """Its answer, kept until the call has come through the supervisor; None: there is none yet."""


_LOST = _Output("outcome unknown: the output of the call was lost", True)
"""Stands for an output that is not kept any more."""


class _ToolsState(msgspec.Struct):
    """The state that survives a crash."""

    calls: dict[str, _InFlight] = msgspec.field(default_factory=dict)
    answered: list[str] = msgspec.field(default_factory=list)
    outputs: dict[str, _Output] = msgspec.field(default_factory=dict)
    """Of the newest answers, by call id."""
    speed: float | None = None
    program_tools: tuple[ToolSpec, ...] | None = None
    """The program's tools as last set; None: those of the settings."""
    builtin_tools: tuple[str, ...] | None = None
    volume: float | None = None
    resumed: bool = False
    """Whether a supervisor has died in this session, perhaps before it had delivered an answer."""


class ToolExecutor(Actor):
    """Runs tools: receives `ToolCall` from realtime and sends `ToolAnswer`.

    A call runs on its own thread or on an event loop, not on the actor's thread, and continues if
    this actor raises. If the process dies, an idempotent tool is run again; for other tools, the
    answer says that the outcome is unknown. If the process dies between sending an answer and
    saving that it was sent, the call is answered twice; receivers recognize this by the
    ``call_id``.
    """

    accepts: ClassVar = {
        ToolCall: DIRECT,
        ProgramToolAnswer: DIRECT,
        SpeedChanged: CONTROL,
        SetVolume: CONTROL,
        SetTools: CONTROL,
        MayRun: CONTROL,
        ToolSpan: CONTROL,
    }

    @classmethod
    def describe(cls, agent: str | None) -> Mapping[str, Any]:
        """Load the user's agent and return the settings that it describes.

        Raises:
            AgentLoadError: If it cannot be loaded.
        """
        return load_agent(agent).describe() if agent is not None else {}

    @classmethod
    def prepare(cls, names: Iterable[str]) -> None:
        for name in filter(prepare, names):
            _import_for(load_tools(name))

    def opened(self) -> None:
        self._state = self.saved(_ToolsState) or _ToolsState()
        self._speed = self.settings.speed if self._state.speed is None else self._state.speed
        self._volume = self.settings.volume if self._state.volume is None else self._state.volume
        self._builtin = self._enabled_builtin_tools()
        self._own = self._named_tools()
        if self._state.program_tools is None:
            self._program = _by_name(self.settings.program_tools)
            self._refuse_equal_names()
        else:  # set during the session: name clashes can only be logged now
            self._take_program_tools()
        _import_for(self._own)
        self._lease = lease_of(self.settings.lease_path)
        if "executor" not in self.keep:
            self.keep["executor"] = Executor()
        self._executor: Executor = self.keep["executor"]
        self._executor.notify = lambda: self.post(self._take_outcomes)
        self._executor.tell = self._answer_ahead
        self._early: set[str] = set()
        """Calls that have come straight, and not through the supervisor yet."""
        self._spanless: set[str] = set()
        """The calls that wait for the program to say which span they run in."""
        self._spans = self._imported_spans()
        self._announce()
        if self.session.resumed:
            self._state.resumed = True
            self._save()
        if self.session.resumed == "supervisor":
            for call_id, last in self._state.outputs.items():
                self.send_through(tool_answer(call_id, last.name, last.output, last.failed))
        self._take_outcomes()
        self._resume()

    def handle(self, message: Message) -> None:
        match message:
            case ToolCall():
                self._call(message)
            case ProgramToolAnswer(call_id, output, failed, in_order):
                if call_id in self._state.calls:
                    self._answer(call_id, output, failed=failed, in_order=in_order)
            case MayRun(call_id, was_run):
                self._run(call_id, was_run=was_run)
            case SpeedChanged(speed):
                self._set_speed(speed)
            case SetVolume(volume):
                self._set_volume(volume)
            case SetTools():
                self._set_tools(message)
            case ToolSpan(call_id, traceparent):
                self._start(call_id, traceparent)

    def closed(self) -> None:
        if self._spans is not None:
            self._spans.flush()

    def _imported_spans(self) -> ModuleType | None:
        """Return `actors.tools.spans`, if the program makes traces; no handler may import it."""
        if not (self._own and self.is_wanted(ToolSpanRequest)):
            return None
        return importlib.import_module("actors.tools.spans")

    # -- the set of tools ---------------------------------------------------------------------

    def _enabled_builtin_tools(self) -> dict[str, Tool]:
        built_in = builtin_tools(lambda: self._speed, lambda: self._volume)
        tools = {tool.name: tool for tool in built_in}
        wanted = self._state.builtin_tools
        wanted = self.settings.builtin_tools if wanted is None else wanted
        for name in wanted:
            if name not in tools:
                raise ToolDefinitionError(name, f"is not built in; there are {', '.join(tools)}")
        return {name: tools[name] for name in tools if name in wanted}

    def _named_tools(self) -> Tools:
        """Load the tools that the settings name, of the agent and others, and return them."""
        tools = Tools()
        if self.settings.agent is not None:
            found: Tools | str | None = load_agent(self.settings.agent).tools
            tools.include(load_tools(found) if isinstance(found, str) else found or Tools())
        if self.settings.named_tools is not None:
            tools.include(load_tools(self.settings.named_tools))
        return tools

    def _refuse_equal_names(self) -> None:
        if both := sorted(set(self._program) & {tool.name for tool in self._own}):
            raise ToolDefinitionError(both[0], "the agent and the program both have such a tool")
        own = {tool.name for tool in self._own} | set(self._program)
        if both := sorted(own & set(self._builtin)):
            raise ToolDefinitionError(
                both[0],
                "a built-in tool has this name: give yours another, or leave the built-in one out "
                "of builtin_tools",
            )

    def _announce(self) -> None:
        self.send(ToolsAvailable(self._specs()))
        self.log.info(
            "tools available",
            in_the_program=", ".join(self._program),
            in_this_process=", ".join(tool.name for tool in self._own),
            built_in=", ".join(self._builtin),
        )

    def _set_tools(self, message: SetTools) -> None:
        """Change the tools that the model may call; calls under way continue."""
        if message.builtin_tools is not None:
            self._state.builtin_tools = message.builtin_tools
            self._builtin = self._enabled_builtin_tools()
        if message.program_tools is not None:
            self._state.program_tools = message.program_tools
        self._save()  # before `ToolsAvailable`: what was announced must survive a crash
        self._take_program_tools()
        self._announce()

    def _take_program_tools(self) -> None:
        """Use the program's tools whose names are not taken; log an error for the others."""
        specs = self._state.program_tools
        specs = self.settings.program_tools if specs is None else specs
        taken = {tool.name for tool in self._own} | set(self._builtin)
        for spec in specs:
            if spec.name in taken:
                self.log.error("a tool of this name is there already", tool=spec.name)
        self._program = _by_name(tuple(spec for spec in specs if spec.name not in taken))

    def _specs(self) -> tuple[ToolSpec, ...]:
        """Return the descriptions of all tools."""
        specs = [tool.spec for tools in (self._builtin.values(), self._own) for tool in tools]
        return (*specs, *self._program.values())

    # -- calls --------------------------------------------------------------------------------

    def came_again(self, frame: bytes) -> None:
        if tag_of(frame) == ToolCall.tag():
            message = decode(frame)
            assert isinstance(message, ToolCall)
            self._tell_early(message.call_id)

    def _tell_early(self, call_id: str) -> None:
        """Answer a call through the supervisor, by which it has come now, if it ran before that."""
        self._early.discard(call_id)
        call = self._state.calls.get(call_id)
        if call is not None and (answer := call.answer) is not None:
            self._answer(call_id, answer.output, failed=answer.failed, in_order=True)

    def _call(self, call: ToolCall) -> None:
        call_id, name = call.call_id, call.name
        if not self.is_ahead:
            self._tell_early(call_id)
        if call_id in self._state.calls or call_id in self._state.answered:
            self.log.debug("a tool call came twice", call_id=call_id, tool=name)
            if self._state.resumed and call_id not in self._state.calls:
                last = self._state.outputs.get(call_id, _LOST)
                self.send_through(tool_answer(call_id, name, last.output, last.failed))
            return
        if self.is_ahead:
            self._early.add(call_id)
        self._state.calls[call_id] = _InFlight(
            name, call.arguments, item_id=call.item_id, previous_item_id=call.previous_item_id
        )
        if len(self._state.calls) > _MAX_RUNNING:
            self._answer(call_id, f"{name} was not run: too many tools are running", failed=True)
            return
        self._begin(call_id)

    def _begin(self, call_id: str) -> None:
        """Start a call that is listed as in flight, or have it recorded first."""
        call = self._state.calls[call_id]
        if self._lease is not None and not self._lease.is_good:
            self._answer(call_id, f"{call.name} was not run: {LeaseLostError()}", failed=True)
            return
        if self._is_to_be_recorded(call):
            self._save()
            self.send(
                AskToRun(call_id, call.name, call.arguments, call.item_id, call.previous_item_id)
            )
            self._watch(call_id, self.settings.tool_timeout_s)
            return
        if builtin := self._builtin.get(call.name):
            self._run_builtin(call_id, builtin, call.arguments)
        elif call.name in self._own or call.name in self._program:
            self._spanless.add(call_id)
            if self.is_wanted(ToolSpanRequest):
                self._save()
                self.send(ToolSpanRequest(call_id))
                self.after(_SPAN_S, lambda: self._start(call_id))
            else:
                self._start(call_id)
        else:
            known = ", ".join(spec.name for spec in self._specs()) or "none"
            self._answer(call_id, f"no tool is named {call.name}; there are: {known}", failed=True)

    def _is_to_be_recorded(self, call: _InFlight) -> bool:
        """Return whether the program has to record a call before it is run."""
        if not self.settings.asks_to_run or call.recorded or call.name in self._builtin:
            return False
        if (own := self._own.get(call.name)) is not None:
            return not own.idempotent
        return call.name in self._program

    def _run(self, call_id: str, *, was_run: bool) -> None:
        """Run a call that was recorded; one that was begun elsewhere is not run again."""
        call = self._state.calls.get(call_id)
        if call is None or call.answer is not None:  # it is answered, or will be
            return
        if was_run and not call.runs:
            self._answer(call_id, _INTERRUPTED, failed=True, in_order=True)
        elif not call.recorded:
            call.recorded = True
            self._begin(call_id)

    def _start(self, call_id: str, traceparent: str = "") -> None:
        """Start a call, here or in the program, once its span is known or was waited for."""
        call = self._state.calls.get(call_id)
        if call is None or call_id not in self._spanless:  # answered, or started, meanwhile
            return
        self._spanless.discard(call_id)
        call.runs += 1
        self._save()
        if self.host.orphaned:  # perhaps that was not saved any more: then the next process runs it
            return
        self._watch(call_id, self.settings.tool_timeout_s)
        if own := self._own.get(call.name):
            enter = None
            if traceparent and self._spans is not None:
                enter = partial(self._spans.attach, traceparent)
            self._executor.start(call_id, own, call.arguments, enter)
        else:  # the program runs a call only once even if it is sent twice
            self.send(ProgramToolCall(call_id, call.name, call.arguments, traceparent))

    def _run_builtin(self, call_id: str, tool: Tool, arguments: str) -> None:
        """Run a built-in tool on the actor's thread: it does not block, and may have an effect."""
        try:
            _, named = tool.bind(arguments)
        except ToolArgumentsError as error:
            self._answer(call_id, str(error), failed=True)
            return
        result = tool.function(**named)
        has_effect = isinstance(result, Effect)
        if isinstance(result, Effect):
            self.send(result.message)
            if isinstance(result.message, SetSpeed):
                self._set_speed(result.message.speed)
            elif isinstance(result.message, SetVolume):
                self._set_volume(result.message.volume)
            result = result.output
        self._answer(call_id, result, in_order=has_effect)

    def _take_outcomes(self) -> None:
        for message in self._executor.sent():
            self.send(message)
        for outcome in self._executor.finished():
            call = self._state.calls.get(outcome.call_id)
            if call is None:
                continue
            self._log_failure(call.name, outcome)
            self._answer(
                outcome.call_id, outcome.output, failed=outcome.failed, in_order=outcome.in_order
            )

    def _log_failure(self, name: str, outcome: ToolOutcome) -> None:
        if outcome.trace:
            self.log.info("a tool raised", tool=name, traceback=outcome.trace)

    def _answer_ahead(self, name: str, outcome: ToolOutcome) -> bool:
        """Give realtime an answer straight; on the tool's thread.

        If this process dies, or gives the call up, before the answer is sent through the
        supervisor, another one is: realtime keeps to the first, and tells the others.
        """
        return self.send_past(tool_answer(outcome.call_id, name, outcome.output, outcome.failed))

    def _answer(
        self, call_id: str, output: str, *, failed: bool = False, in_order: bool = False
    ) -> None:
        """Answer a call.

        Args:
            call_id: The call.
            output: What the model is told.
            failed: Whether the tool has failed.
            in_order: Whether it goes through the supervisor alone: it must not overtake others,
                among them another answer to the call, or was sent straight already.
        """
        call = self._state.calls[call_id]
        answer = tool_answer(call_id, call.name, output, failed)
        if call_id in self._early:  # only realtime may be told before the call is known to all
            if call.answer is None:
                if not in_order:
                    self.send_past(answer)
                call.answer = _Output(output, failed, call.name)
                self._save()
            return
        del self._state.calls[call_id]
        # First send, then save: two answers after a crash are better than none.
        if in_order:
            self.send_through(answer)
        else:
            self.send(answer)
        self._state.answered = [*self._state.answered, call_id][-_MAX_ANSWERED:]
        self._state.outputs[call_id] = _Output(output, failed, call.name)
        self._forget_outputs()
        self._save()

    def _forget_outputs(self) -> None:
        """Forget outputs, oldest first: of calls whose ids are forgotten, and what is too long."""
        outputs, answered = self._state.outputs, self._state.answered
        chars = sum(len(each.output) for each in outputs.values())
        for call_id in list(outputs):
            is_known = call_id in answered
            if is_known and (chars <= _OUTPUT_CHARS or len(outputs) <= _LEAST_OUTPUTS):
                return
            chars -= len(outputs.pop(call_id).output)

    def _watch(self, call_id: str, seconds: float) -> None:
        def give_up() -> None:
            if call_id in self._state.calls:
                name = self._state.calls[call_id].name
                limit = f"{self.settings.tool_timeout_s:g} s"
                text = f"{name} failed: it did not finish within {limit}"
                self._answer(call_id, text, failed=True, in_order=True)
                self._executor.give_up(call_id)
                if name in self._program:
                    self.send(ProgramToolCancel(call_id))

        self.after(max(0.0, seconds), give_up)

    # -- after a crash ------------------------------------------------------------------------

    def _resume(self) -> None:
        """Continue the calls that an earlier incarnation had started."""
        for call_id, call in list(self._state.calls.items()):
            age_s = self._executor.age_s(call_id)
            if (answer := call.answer) is not None:
                self._answer(call_id, answer.output, failed=answer.failed)
            elif self.session.resumed == "journal":  # who knows how long ago
                self._answer(call_id, _INTERRUPTED, failed=True, in_order=True)
            elif age_s is not None:  # only the actor raised; the call still runs
                self._watch(call_id, self.settings.tool_timeout_s - age_s)
            elif self._is_to_be_recorded(call) or call.name in self._program:
                self._begin(call_id)  # again: the call or its answer may have been lost
            elif self._may_run_again(call):
                self._begin(call_id)
            else:
                self._answer(call_id, _INTERRUPTED, failed=True, in_order=True)

    def _may_run_again(self, call: _InFlight) -> bool:
        tool = self._own.get(call.name) or self._builtin.get(call.name)
        may_repeat = tool is not None and tool.idempotent and call.runs < _MAX_RUNS
        return may_repeat or not call.runs

    # -- state --------------------------------------------------------------------------------

    def _set_speed(self, speed: float) -> None:
        self._speed = self._state.speed = speed
        self._save()

    def _set_volume(self, volume: float) -> None:
        self._volume = self._state.volume = volume
        self._save()

    def _save(self) -> None:
        self.save(self._state)


def _import_for(tools: Tools) -> None:
    """Import what the tools need to run; it would delay the first call."""
    if any(tool.is_async for tool in tools):
        import asyncio  # noqa: F401


def _by_name(specs: tuple[ToolSpec, ...]) -> dict[str, ToolSpec]:
    return {spec.name: spec for spec in specs}
