"""The agent: who speaks, how, with which tools and through which devices; and its conversations."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Never, TypeVar, get_args, overload

import msgspec
from msgspec import UNSET, UnsetType

from actors.tools.registry import Tools
from messages import (
    BUILTIN_TOOLS,
    CreateResponse,
    EventError,
    Interrupt,
    Message,
    NotRunningError,
    ProgramCapture,
    RetentionRatio,
    SemanticVad,
    SendImage,
    SendText,
    ServerVad,
    SetMuted,
    SetSpeed,
    Settings,
    SetVolume,
    StartTalking,
    StopTalking,
    UpdateSettings,
    limits,
)
from rtvoice import checks
from rtvoice.errors import AgentError

if TYPE_CHECKING:
    from rtvoice.bus import EventBus, EventStream
    from rtvoice.running import Run
    from rtvoice.views import ConversationHistory

__all__ = ["Agent", "Sent"]

_DEFAULTS = Settings()
_STOPPED = "the program asked"

E = TypeVar("E")
Effort = Literal["minimal", "low", "medium", "high", "xhigh"]


class Sent(Awaitable[None]):
    """What a command to a running agent returns: it is on its way; awaited, it has arrived.

    Once it has arrived it is in force whatever component crashes next.

    Example:
        ```python
        import asyncio

        from rtvoice import Agent

        async def main() -> None:
            async with Agent(server="sandbox", audio_input="silence", audio_output="null") as agent:
                agent.set_volume(0.5)
                await agent.mute()
                await agent.stop()

        asyncio.run(main())
        ```
    """

    def __init__(self, arrived: Callable[[], Awaitable[object]]) -> None:
        self._arrived = arrived

    def __await__(self) -> Generator[Any, Any, None]:
        yield from self._arrived().__await__()


class Agent:
    """A voice assistant: a description, and the conversations that are held by it.

    As a description it cannot be changed. It is run by a program, or by
    ``python -m supervisor FILE:agent``.

    Example:
        ```python
        import asyncio

        from rtvoice import Agent, Tools

        tools = Tools()

        @tools.action("Say how warm it is in a city.")
        async def get_temperature(city: str) -> str:
            return "21 degrees"

        agent = Agent("You are a weather forecaster.", tools=tools)

        async def main() -> None:
            async with agent:
                pass  # until the user says goodbye, or nobody has spoken for a minute
            history = await agent.stop()
            for turn in history.conversation_turns:
                print(f"{turn.role}: {turn.content}")

        if __name__ == "__main__":
            asyncio.run(main())
        ```

    The ``async with`` block lasts until the conversation ends: the user says goodbye, the stop
    tool, the inactivity timeout, `stop`, a cancellation (Ctrl-C), or a failure, which is raised
    there. What is in the block runs meanwhile. If it raises or is cancelled, the conversation ends
    at once, in order.

    The conversation runs in processes of its own. It never blocks the event loop, installs no
    signal handlers and prints nothing: log records reach `logging` under ``rtvoice``. Devices and
    tools that are objects run in this program; devices and components that are names run in
    processes of their own. Each entry of the block is a conversation of its own, one at a time;
    several agents can talk at once.
    """

    __slots__ = (
        "__weakref__",
        "_api_key",
        "_bus",
        "_run",
        "audio_input",
        "audio_output",
        "builtin_tools",
        "components",
        "duplex",
        "greeting",
        "inactivity_timeout_s",
        "instructions",
        "interruption",
        "journal_path",
        "language",
        "max_output_tokens",
        "model",
        "noise_reduction",
        "output_hold_s",
        "output_modality",
        "parallel_tool_calls",
        "preroll_ms",
        "reasoning_effort",
        "recording_output_path",
        "server",
        "speech_speed",
        "start_timeout_s",
        "tool_choice",
        "tool_timeout_s",
        "tools",
        "transcription_delay",
        "transcription_keywords",
        "transcription_model",
        "transcription_prompt",
        "truncation",
        "turn_detection",
        "voice",
        "volume",
    )

    def __init__(
        self,
        instructions: str = "",
        model: str = _DEFAULTS.model,
        voice: str = _DEFAULTS.voice,
        speech_speed: float = 1.0,
        transcription_model: str | None = None,
        tools: Tools | str | None = None,
        recording_output_path: str | os.PathLike[str] | None = None,
        api_key: str | None = None,
        audio_input: object = None,
        audio_output: object = None,
        *,
        greeting: str | None = None,
        language: str | Sequence[str] | None = None,
        transcription_prompt: str | None = None,
        transcription_keywords: Sequence[str] = (),
        transcription_delay: Effort | None = None,
        inactivity_timeout_s: float | None = 60.0,
        turn_detection: ServerVad | SemanticVad | None = _DEFAULTS.turn_detection,
        interruption: Literal["immediate", "confirmed"] = "immediate",
        preroll_ms: int = 300,
        duplex: Literal["auto", "half", "full"] = "auto",
        noise_reduction: Literal["near_field", "far_field"] | None = None,
        output_modality: Literal["audio", "text"] = "audio",
        max_output_tokens: int | Literal["inf"] | None = None,
        tool_choice: str = "auto",
        parallel_tool_calls: bool | None = None,
        reasoning_effort: Effort | None = None,
        truncation: Literal["auto", "disabled"] | RetentionRatio = "auto",
        volume: float = 1.0,
        output_hold_s: float | None = _DEFAULTS.output_hold_s,
        builtin_tools: tuple[str, ...] = BUILTIN_TOOLS,
        tool_timeout_s: float = 60.0,
        start_timeout_s: float = _DEFAULTS.start_s,
        journal_path: str | os.PathLike[str] | None = None,
        server: str | None = None,
        components: Mapping[str, str] | None = None,
        **unknown: Never,
    ) -> None:
        """Describe an assistant.

        Args:
            instructions: what the model shall be and do.
            model: a Realtime model of the service (`RealtimeModel`, or any name). One that is
                retired warns (`FutureWarning`) with the date and its successor.
            voice: one of the service's voices (`AssistantVoice`), or the id of a custom one
                (``voice_…``); with a ``server`` of your own, any.
            speech_speed: 0.25-1.5, 1.0 is normal.
            transcription_model: what transcribes the user (`TranscriptionModel`, or any name);
                None: the user's turns have no text.
            tools: functions that the model may call. They run in this program; those of a name,
                ``module:attr`` or ``file.py:attr``, in the process of the tools.
            recording_output_path: a WAV file for both sides of the conversation, user left. Its
                folder is made if need be.
            api_key: for the service; None: ``OPENAI_API_KEY`` of the environment. Only the process
                that talks with the service is given it.
            audio_input: an object with ``start()``, ``stop()`` and ``stream_chunks()``
                (`rtvoice.audio.devices.AudioInputDevice`), or a name: ``default``, a device's index
                or part of its name, a WAV file, ``silence``, ``module:Class`` or ``file.py:Class``
                of such an object, ``program`` (what is published as `InputAudioBufferAppendEvent`).
                None: ``RTVOICE_INPUT`` of the environment, or the default microphone; without one,
                silence.
            audio_output: an object with ``start()``, ``stop()``, ``play_chunk(chunk)`` and
                ``clear_buffer()`` (`rtvoice.audio.devices.AudioOutputDevice`), or a name:
                ``default``, a device's index or part of its name, a WAV file, ``null``,
                ``module:Class`` or ``file.py:Class``. None: ``RTVOICE_OUTPUT`` of the environment,
                or the default loudspeaker; without one, nothing is heard.
            greeting: a sentence with which the assistant begins; None: the user begins.
            language: what the user speaks, in two letters (ISO 639-1), a hint for transcription;
                several with ``gpt-transcribe`` and ``gpt-live-transcribe``.
            transcription_prompt: what transcription has to expect: a text, or for ``whisper-1``
                words that occur.
            transcription_keywords: words and names that occur, for ``gpt-transcribe`` and
                ``gpt-live-transcribe``.
            transcription_delay: how long ``gpt-realtime-whisper`` waits before it writes down what
                it hears: ``minimal``, ``low``, ``medium``, ``high`` or ``xhigh``.
            inactivity_timeout_s: the conversation ends when nobody has spoken for so many seconds;
                None: never. Playback, tools and restarts are not silence; what the assistant says
                because of `ServerVad.idle_timeout_ms` is.
            turn_detection: how the service tells that the user has finished: `ServerVad`,
                `SemanticVad`; None: it does not, `start_talking` and `stop_talking` do.
            interruption: what the user's speech does while the assistant speaks. ``immediate``: it
                interrupts. ``confirmed``: the assistant pauses, and goes on from where it was
                unless there are 400 ms of speech, or a transcript; a cough destroys no answer.
            preroll_ms: how much sound from before `start_talking` belongs to the turn, 0-5000.
            duplex: whether the service hears the user while the assistant is heard: ``full``, or
                not, ``half``, so that it does not hear itself; then `interrupt` interrupts, and
                Enter in the console. ``auto``: ``half`` where both devices are sound cards and
                neither is called a headset or headphones.
            noise_reduction: at the service, before turn detection: ``near_field`` for a microphone
                close to the mouth, ``far_field`` for one of a room or a laptop, None: none.
            output_modality: ``audio``, or ``text``: the assistant writes and nothing is heard.
            max_output_tokens: of one answer, 1-4096, tool calls included; None or ``inf``: as many
                as the model gives.
            tool_choice: ``auto``, ``none``, ``required`` or the name of a tool: whether the first
                answer to a turn has to call a tool. What follows the tool's answer need not.
            parallel_tool_calls: whether the model may call several tools at once; only for models
                that reason. None: it may.
            reasoning_effort: ``minimal``, ``low``, ``medium``, ``high`` or ``xhigh``; only for
                models that reason. None: ``low``.
            truncation: what becomes of a conversation that grows too long for the model: ``auto``
                and `RetentionRatio` drop the oldest of it, with ``disabled`` answers fail.
            volume: of playback, 0.0-1.0, 1.0 is as it comes.
            output_hold_s: what the assistant says while there is no output device, because it was
                lost, waits for one so many seconds, 0-86400, and then counts as not heard. None:
                it waits for ever.
            builtin_tools: names of the built-in tools that the model may call, out of
                ``get_current_time``, ``adjust_volume``, ``change_assistant_response_speed`` and
                ``stop_assistant_run``; default: all.
            tool_timeout_s: after so many seconds, 0.1-86400, the model is told that a tool did not
                finish.
            start_timeout_s: each component has to be open within so many seconds, 0.1-3600; more
                where many agents start at once.
            journal_path: a file in which the conversation is kept; None: a temporary one.
            server: ``openai``, ``sandbox``, or a ws:// or wss:// URL; None: ``RTVOICE_SERVER`` of
                the environment, or the service.
            components: your own actors, name to ``module:Class``, each in a process of its own and
                started again when it crashes.
            unknown: nothing.

        Raises:
            AgentError: something is of the wrong type or out of range, or there is no such
                parameter.
        """
        checks.refuse_unknown(unknown, _PARAMETERS)
        given: dict[str, Any] = {
            "instructions": checks.checked_text("instructions", instructions),
            "model": checks.checked_model("model", model, stacklevel=3),
            "voice": checks.checked_name("voice", voice),
            "speech_speed": _speed("speech_speed", speech_speed),
            "transcription_model": checks.checked_optional(
                checks.checked_model, "transcription_model", transcription_model
            ),
            "tools": checks.checked_tools(tools),
            "recording_output_path": checks.checked_path(
                "recording_output_path", recording_output_path
            ),
            "_api_key": checks.checked_optional(checks.checked_name, "api_key", api_key),
            "audio_input": checks.checked_device("audio_input", audio_input),
            "audio_output": checks.checked_device("audio_output", audio_output),
            "greeting": checks.checked_optional(checks.checked_text, "greeting", greeting),
            "language": checks.checked_languages(language),
            "transcription_prompt": _optional_text("transcription_prompt", transcription_prompt),
            "transcription_keywords": checks.checked_words(
                "transcription_keywords", transcription_keywords
            ),
            "transcription_delay": checks.checked_optional(
                _effort, "transcription_delay", transcription_delay
            ),
            "inactivity_timeout_s": checks.checked_seconds(
                "inactivity_timeout_s", inactivity_timeout_s
            ),
            "turn_detection": checks.checked_turn_detection(turn_detection),
            "interruption": _interruption("interruption", interruption),
            "preroll_ms": checks.checked_whole("preroll_ms", preroll_ms),
            "duplex": _duplex("duplex", duplex),
            "noise_reduction": _noise_reduction("noise_reduction", noise_reduction),
            "output_modality": _modality("output_modality", output_modality),
            "max_output_tokens": checks.checked_max_tokens("max_output_tokens", max_output_tokens),
            "tool_choice": checks.checked_name("tool_choice", tool_choice),
            "parallel_tool_calls": checks.checked_optional(
                checks.checked_flag, "parallel_tool_calls", parallel_tool_calls
            ),
            "reasoning_effort": checks.checked_optional(
                _effort, "reasoning_effort", reasoning_effort
            ),
            "truncation": checks.checked_truncation("truncation", truncation),
            "volume": checks.checked_number("volume", volume, 0.0, 1.0),
            "builtin_tools": checks.checked_builtin_tools(builtin_tools),
            "output_hold_s": checks.checked_optional(_hold, "output_hold_s", output_hold_s),
            "tool_timeout_s": checks.checked_number(
                "tool_timeout_s", tool_timeout_s, 0.1, 86_400.0
            ),
            "start_timeout_s": checks.checked_number(
                "start_timeout_s", start_timeout_s, 0.1, 3600.0
            ),
            "journal_path": checks.checked_path("journal_path", journal_path),
            "server": checks.checked_server(server),
            "components": checks.checked_components(components),
            "_bus": None,
            "_run": None,
        }
        for name, value in given.items():
            object.__setattr__(self, name, value)
        checks.refuse_clash(self._own_tool_names(), self.builtin_tools)
        self._in_force(self.server or os.environ.get("RTVOICE_SERVER") or "openai")

    # -- a conversation -----------------------------------------------------------------------

    async def __aenter__(self) -> Agent:
        """Begin a conversation; return when every component is open.

        Raises:
            AgentError: there is no key, a variable of the environment makes no sense, or there is
                no such tool as is to be called.
            SessionFailedError: a component cannot start; the reason says which and why.
            SupervisorDiedError: the supervisor ended without a word.
            RuntimeError: this agent is in a conversation already.
        """
        if self._run is not None and not self._run.is_over:
            raise RuntimeError(
                "this agent is in a conversation; make another Agent for one at the same time"
            )
        run = self._new_run()
        object.__setattr__(self, "_run", run)
        await run.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the end of the conversation; end it at once if the block has raised.

        Raises:
            SessionFailedError: it has failed; the reason says why, ``__cause__`` how.
            SupervisorDiedError: the supervisor has died.
        """
        from asyncio import CancelledError

        run = self._run
        assert run is not None
        if error is None:
            await run.last()
        elif isinstance(error, CancelledError):
            await run.abandon("the program was cancelled")
        else:
            await run.abandon(f"the program raised {type(error).__name__}")

    async def run(self) -> ConversationHistory:
        """Hold a conversation to its end and return it.

        Example:
            ```python
            import asyncio

            from rtvoice import Agent

            async def main() -> None:
                history = await Agent(server="sandbox", inactivity_timeout_s=1).run()
                print(history.ended_because)

            asyncio.run(main())
            ```

        Raises:
            AgentError: there is no key, or a variable of the environment makes no sense.
            SessionFailedError: it could not start or has failed. `history` is there all the same.
            SupervisorDiedError: the supervisor has died. `history` is there all the same.
        """
        async with self:
            pass
        return self.history

    def run_sync(self) -> ConversationHistory:
        """Hold a conversation to its end and return it, in a program without an event loop.

        Ctrl-C ends it in order and is raised as `KeyboardInterrupt`; `history` is there then too.

        Raises:
            RuntimeError: there is an event loop: use ``await agent.run()``.
            RtvoiceError: as `run`.
        """
        import asyncio

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self.run())
        raise RuntimeError("there is an event loop here already: use await agent.run()")

    async def stop(self) -> ConversationHistory:
        """End the conversation in order, if it goes on, and return it; any number of times.

        It takes 5 s at most, and raises nothing of a conversation that has failed: what was said
        until then is returned. Before the first conversation, the history is empty.
        """
        if self._run is not None:
            await self._run.stop(_STOPPED)
        return self.history

    @property
    def event_bus(self) -> EventBus:
        """Where events are subscribed to and published: before, during and after a conversation.

        Example:
            ```python
            from rtvoice import Agent, InputAudioTranscriptionCompleted

            agent = Agent(transcription_model="gpt-transcribe")

            async def on_transcription(event: InputAudioTranscriptionCompleted) -> None:
                print(f"Transcribed: {event.transcript}")

            agent.event_bus.subscribe(InputAudioTranscriptionCompleted, on_transcription)
            ```
        """
        if self._bus is None:
            from rtvoice.bus import EventBus

            bus = EventBus(self._publish, self._subscriptions_changed)
            object.__setattr__(self, "_bus", bus)
        assert self._bus is not None
        return self._bus

    @property
    def history(self) -> ConversationHistory:
        """The conversation so far; of several, the last."""
        from rtvoice.views import ConversationHistory

        return ConversationHistory() if self._run is None else self._run.history()

    @property
    def ready(self) -> bool:
        """Whether the conversation can go on: all is open, and there is a session with the server.

        False before the start, after the end, and while a lost connection is made anew.
        """
        return self._run is not None and self._run.is_ready

    async def wait_ready(self, timeout_s: float | None = 30.0) -> None:
        """Wait until `ready`; for the readiness check of a service.

        Args:
            timeout_s: at most so long; None: for ever.

        Raises:
            TimeoutError: it takes longer.
            SessionFailedError: the conversation has failed before that, for a wrong key, say.
            NotRunningError: the agent was not started, or the conversation is over.
        """
        await self._running().wait_ready(timeout_s)

    async def status(self) -> dict[str, dict[str, Any]]:
        """Return how each component is.

        Per component: ``pid``, ``state`` (``open`` is well), ``restarts``, ``mailbox`` (messages
        that wait), ``dropped`` (per type), ``handled``, ``memory_bytes`` (resident; None where the
        system does not tell), ``faltered`` (how often its sound did, see `SoundFaltered`).

        Raises:
            NotRunningError: the agent does not run.
            TimeoutError: the supervisor does not answer.
        """
        return await self._running().status()

    @overload
    def events(self, *, max_queued: int = 10_000) -> EventStream[Any]: ...
    @overload
    def events(self, *kinds: type[E], max_queued: int = 10_000) -> EventStream[E]: ...
    def events(self, *kinds: type[Any], max_queued: int = 10_000) -> EventStream[Any]:
        """Return events as they come: ``async for turn in agent.events(Turn)``.

        It begins now and ends with the conversation, or with the next one if none goes on.

        Args:
            kinds: classes of `rtvoice.events`; none: everything but the events of the Realtime API.
            max_queued: events that may wait for the reader; past that the oldest is dropped and
                counted in ``dropped``.
        """
        from messages import Event
        from rtvoice.events import AgentEvent

        stream = self.event_bus.stream(kinds or (Event, AgentEvent), max_queued)
        if self._run is not None and self._run.is_over:
            stream.end()
        return stream

    # -- while it goes on ---------------------------------------------------------------------

    def send_text(self, text: str) -> Sent:
        """Say something for the user. It interrupts what is being said and is answered.

        Args:
            text: what the user is to have said.

        Raises:
            AgentError: it is no text, or empty.
            NotRunningError: the agent does not run.
        """
        checks.checked_name("text", text)
        return self._send(SendText(text, os.urandom(16).hex()))

    def send_image(
        self,
        image: bytes | str | os.PathLike[str],
        text: str = "",
        *,
        detail: Literal["auto", "low", "high"] = "auto",
        respond: bool = True,
    ) -> Sent:
        """Show the model an image, for the user. If it is answered, it interrupts as a text does.

        Args:
            image: a PNG or JPEG file of at most 4 MiB: its content or its path.
            text: what the user is to have said about it.
            detail: how closely the model looks: ``low`` costs fewest tokens; ``auto`` is ``high``.
            respond: whether it is answered; otherwise the next answer knows it.

        Example:
            ```python
            import asyncio
            from base64 import b64decode

            from rtvoice import Agent

            pixel = b64decode(
                "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmM"
                "IQAAAABJRU5ErkJggg=="
            )

            async def main() -> None:
                agent = Agent(server="sandbox", audio_input="silence", audio_output="null")
                async with agent:
                    await agent.send_image(pixel, "Which colour is this?")
                    await agent.stop()

            asyncio.run(main())
            ```

        Raises:
            AgentError: it is no such image, or too large.
            NotRunningError: the agent does not run.
        """
        data, media_type = checks.checked_image("image", image)
        text = checks.checked_text("text", text)
        how: Any = checks.checked_choice("detail", detail, ("auto", "low", "high"))
        respond = checks.checked_flag("respond", respond)
        message = SendImage(data, media_type, text, os.urandom(16).hex(), how, respond)
        return self._send(message)

    def start_talking(self) -> Sent:
        """Begin the user's turn, with push-to-talk; it interrupts what is being said.

        What was heard in the ``preroll_ms`` before belongs to the turn, so that no first word is
        lost. Until `stop_talking` all of it is heard, whatever crashes and however often the
        connection is lost.

        Example:
            ```python
            import asyncio

            from rtvoice import Agent

            async def main() -> None:
                agent = Agent(server="sandbox", audio_input="silence", turn_detection=None)
                async with agent:
                    agent.start_talking()
                    await asyncio.sleep(1)
                    agent.stop_talking()
                    await agent.stop()

            asyncio.run(main())
            ```

        Raises:
            AgentError: turn detection is switched on.
            NotRunningError: the agent does not run.
        """
        self._need_push_to_talk()
        return self._send(StartTalking(time.monotonic_ns()))

    def stop_talking(self, *, respond: bool = True) -> Sent:
        """End the user's turn, with push-to-talk. One of less than 100 ms is none.

        Args:
            respond: whether it is answered. Otherwise it is kept, and answered with a later turn or
                when `CreateResponse` is published.

        Raises:
            AgentError: turn detection is switched on.
            NotRunningError: the agent does not run.
        """
        self._need_push_to_talk()
        respond = checks.checked_flag("respond", respond)
        return self._send(StopTalking(time.monotonic_ns(), respond))

    def _need_push_to_talk(self) -> None:
        if self._running().in_force.turn_detection is not None:
            raise AgentError(
                "turn_detection",
                "the service tells when a turn begins and ends; to tell it yourself, make the "
                "agent with turn_detection=None, or call agent.update(turn_detection=None)",
            )

    def interrupt(self) -> Sent:
        """Have the assistant stop speaking.

        Raises:
            NotRunningError: the agent does not run.
        """
        return self._send(Interrupt())

    def mute(self) -> Sent:
        """Have nothing of the user heard until `unmute`; it stays so if the microphone crashes.

        Raises:
            NotRunningError: the agent does not run.
        """
        return self._send(SetMuted(True))

    def unmute(self) -> Sent:
        """Have the user heard again.

        Raises:
            NotRunningError: the agent does not run.
        """
        return self._send(SetMuted(False))

    def set_volume(self, volume: float) -> Sent:
        """Set the volume of playback.

        Args:
            volume: 0.0-1.0.

        Raises:
            AgentError: it is out of range.
            NotRunningError: the agent does not run.
        """
        return self._send(SetVolume(checks.checked_number("volume", volume, 0.0, 1.0)))

    def set_speed(self, speed: float) -> Sent:
        """Set the speed of speech, from the next answer on.

        Args:
            speed: 0.25-1.5, 1.0 is normal.

        Raises:
            AgentError: it is out of range.
            NotRunningError: the agent does not run.
        """
        return self._send(SetSpeed(_speed("speed", speed)))

    def update(
        self,
        *,
        instructions: str | UnsetType = UNSET,
        tools: Tools | UnsetType = UNSET,
        builtin_tools: tuple[str, ...] | UnsetType = UNSET,
        speech_speed: float | UnsetType = UNSET,
        volume: float | UnsetType = UNSET,
        voice: str | UnsetType = UNSET,
        transcription_model: str | UnsetType | None = UNSET,
        language: str | Sequence[str] | UnsetType | None = UNSET,
        transcription_prompt: str | UnsetType | None = UNSET,
        transcription_keywords: Sequence[str] | UnsetType = UNSET,
        transcription_delay: Effort | UnsetType | None = UNSET,
        turn_detection: ServerVad | SemanticVad | UnsetType | None = UNSET,
        interruption: Literal["immediate", "confirmed"] | UnsetType = UNSET,
        duplex: Literal["auto", "half", "full"] | UnsetType = UNSET,
        noise_reduction: Literal["near_field", "far_field"] | UnsetType | None = UNSET,
        output_modality: Literal["audio", "text"] | UnsetType = UNSET,
        max_output_tokens: int | Literal["inf"] | UnsetType | None = UNSET,
        tool_choice: str | UnsetType = UNSET,
        parallel_tool_calls: bool | UnsetType = UNSET,
        reasoning_effort: Effort | UnsetType = UNSET,
        truncation: Literal["auto", "disabled"] | RetentionRatio | UnsetType = UNSET,
        inactivity_timeout_s: float | UnsetType | None = UNSET,
        **fixed: Never,
    ) -> Sent:
        """Change the conversation that goes on, from the next answer on.

        The description stays as it is: the next conversation begins with that. What is left out
        stays as it is too. Units and ranges are those of `Agent`.

        Args:
            instructions: what the model shall be and do.
            tools: in place of those of the program; those given by a name stay.
            builtin_tools: names of those that the model may call.
            speech_speed: 0.25-1.5.
            volume: 0.0-1.0.
            voice: only until the assistant has been heard.
            transcription_model: None: the user is not transcribed any more.
            language: what the user speaks.
            transcription_prompt: what transcription has to expect.
            transcription_keywords: words and names that occur.
            transcription_delay: how long transcription waits.
            turn_detection: how the service tells that the user has finished; None: `stop_talking`.
            interruption: ``immediate`` or ``confirmed``.
            duplex: ``auto``, ``half`` or ``full``.
            noise_reduction: None: none.
            output_modality: ``audio`` or ``text``.
            max_output_tokens: of one answer.
            tool_choice: whether the first answer to a turn has to call a tool.
            parallel_tool_calls: whether the model may call several tools at once.
            reasoning_effort: of models that reason.
            truncation: what becomes of a conversation that grows too long.
            inactivity_timeout_s: seconds; None: never.
            fixed: everything else cannot change during a conversation, and is refused.

        Example:
            ```python
            import asyncio

            from rtvoice import Agent

            async def main() -> None:
                async with Agent(server="sandbox", audio_input="silence") as agent:
                    await agent.update(instructions="Answer in French.", speech_speed=0.8)
                    await agent.stop()

            asyncio.run(main())
            ```

        Raises:
            AgentError: a value is wrong, or this cannot change during a conversation, and why.
            NotRunningError: the agent does not run.
        """
        _refuse_fixed(fixed)
        run = self._running()
        changes = _changes(
            instructions=(checks.checked_text, instructions),
            voice=(checks.checked_name, voice),
            transcription_model=(_optional_model, transcription_model),
            language=(_language, language),
            transcription_prompt=(_optional_text, transcription_prompt),
            transcription_keywords=(checks.checked_words, transcription_keywords),
            transcription_delay=(_optional_effort, transcription_delay),
            turn_detection=(_turn_detection, turn_detection),
            interruption=(_interruption, interruption),
            duplex=(_duplex, duplex),
            noise_reduction=(_noise_reduction, noise_reduction),
            output_modality=(_modality, output_modality),
            max_output_tokens=(checks.checked_max_tokens, max_output_tokens),
            tool_choice=(checks.checked_name, tool_choice),
            parallel_tool_calls=(checks.checked_flag, parallel_tool_calls),
            reasoning_effort=(_effort, reasoning_effort),
            truncation=(checks.checked_truncation, truncation),
            inactivity_timeout_s=(checks.checked_seconds, inactivity_timeout_s),
        )
        speed = _changes(speech_speed=(_speed, speech_speed)).get("speech_speed")
        loudness = _changes(volume=(_volume, volume)).get("volume")
        own = None if tools is UNSET else checks.checked_own_tools(tools)
        builtin = None if builtin_tools is UNSET else checks.checked_builtin_tools(builtin_tools)
        run.refuse_clash(own, builtin)
        if "tool_choice" in changes and not isinstance(self.tools, str):
            names = run.tool_names(own, builtin)
            checks.refuse_unknown_tool(changes["tool_choice"], names)
        in_force = checks.checked_settings(msgspec.structs.replace(run.in_force, **changes), {})
        if in_force.voice != run.in_force.voice and run.has_spoken:
            _refuse_fixed({"voice": voice})
        run.in_force = in_force
        run.timeout_s = changes.get("inactivity_timeout_s", run.timeout_s)
        if changes:
            run.send(UpdateSettings(msgspec.to_builtins(changes)))
        if speed is not None:
            run.send(SetSpeed(speed))
        if loudness is not None:
            run.send(SetVolume(loudness))
        if own is not None or builtin is not None:
            run.set_tools(own, builtin)
        return Sent(run.status)

    # -- what it is ---------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Return the agent as fields of `messages.Settings`, in plain values.

        This is how a process that loads the agent by its name tells the others. Objects cannot be
        told, and the key is nobody else's business.

        Raises:
            AgentError: a device is given as an object, or the key is in the code.
        """
        for name in ("audio_input", "audio_output"):
            device = getattr(self, name)
            if not isinstance(device, str | None):
                raise AgentError(
                    name,
                    f"python -m supervisor cannot use an object ({type(device).__name__}), which "
                    f"would run in a program of yours (async with agent); give {name} as a name, "
                    f'such as "default", "talk.wav" or "module:attribute"',
                )
        if self._api_key is not None:
            raise AgentError(
                "api_key",
                "python -m supervisor takes the key from OPENAI_API_KEY (or a .env file); leave "
                "api_key out of the agent",
            )
        chosen = {"input": self.audio_input, "output": self.audio_output, "server": self.server}
        chosen = {name: value for name, value in chosen.items() if value is not None}
        return self._settings() | chosen

    def _settings(self) -> dict[str, Any]:
        """Return what is the same wherever it runs, as fields of `messages.Settings`."""
        settings = {
            "instructions": self.instructions,
            "model": self.model,
            "voice": self.voice,
            "speed": self.speech_speed,
            "language": self.language,
            "transcription_model": self.transcription_model,
            "greeting": self.greeting,
            "transcription_prompt": self.transcription_prompt,
            "transcription_keywords": list(self.transcription_keywords),
            "transcription_delay": self.transcription_delay,
            "turn_detection": msgspec.to_builtins(self.turn_detection),
            "interruption": self.interruption,
            "preroll_ms": self.preroll_ms,
            "duplex": self.duplex,
            "noise_reduction": self.noise_reduction,
            "output_modality": self.output_modality,
            "max_output_tokens": self.max_output_tokens,
            "tool_choice": self.tool_choice,
            "parallel_tool_calls": self.parallel_tool_calls,
            "reasoning_effort": self.reasoning_effort,
            "truncation": msgspec.to_builtins(self.truncation),
            "inactivity_timeout_s": self.inactivity_timeout_s,
            "volume": self.volume,
            "builtin_tools": list(self.builtin_tools),
            "output_hold_s": self.output_hold_s,
            "tool_timeout_s": self.tool_timeout_s,
            "start_s": self.start_timeout_s,
        }
        chosen = {
            "recording_path": self.recording_output_path,
            "journal_path": self.journal_path,
            "components": self.components or None,
        }
        return settings | {name: value for name, value in chosen.items() if value is not None}

    # -- inside -------------------------------------------------------------------------------

    def _in_force(self, server: str) -> Settings:
        """Return what the server is told, if it takes that.

        Raises:
            AgentError: it does not.
        """
        settings = msgspec.convert({**self._settings(), "server": server}, Settings)
        return checks.checked_settings(settings, {"speed": "speech_speed"})

    def _new_run(self) -> Run:
        from actors.embedding.session import Session
        from rtvoice.running import Run, prepare_logging, user_import_path

        server = self.server or checks.server_in(os.environ) or "openai"
        checks.need_key(server, self._api_key, os.environ)
        checks.make_folder("recording_output_path", self.recording_output_path)
        level = checks.log_level_in(os.environ)
        prepare_logging(level)
        settings = self._settings() | {
            "server": server,
            "log_level": level or "INFO",
            "import_path": user_import_path(),
        }
        devices: dict[str, Any] = {}
        for name in ("input", "output"):
            device = getattr(self, f"audio_{name}")
            if isinstance(device, str | None):
                settings[name] = device or checks.device_in(os.environ, name) or "auto"
            else:
                devices[f"{name}_device"] = device
        checks.refuse_clash(self._own_tool_names(), self.builtin_tools)  # some came later
        if not isinstance(self.tools, str):
            names = (*self._own_tool_names(), *self.builtin_tools)
            checks.refuse_unknown_tool(self.tool_choice, names)
        tools = self.tools if isinstance(self.tools, Tools) else Tools()
        if isinstance(self.tools, str):
            settings["named_tools"] = self.tools

        def session(wire_names: tuple[str, ...]) -> Session:
            try:
                return Session(
                    api_key=self._api_key,
                    tools=tools,
                    **devices,
                    **settings,
                    wire_events=wire_names,
                )
            except TypeError as error:  # a device of which only now is known what it is
                raise AgentError("audio_output", str(error)) from error

        places = {
            "server": server,
            "input": devices.get("input_device", settings.get("input")),
            "output": devices.get("output_device", settings.get("output")),
            "tools": self._own_tool_names(),
            "named_tools": settings.get("named_tools"),
            "builtin_tools": self.builtin_tools,
            "components": self.components,
        }
        in_force = self._in_force(server)
        return Run(session, self.event_bus, self.inactivity_timeout_s, places, in_force)

    def _own_tool_names(self) -> list[str]:
        return [tool.name for tool in self.tools] if isinstance(self.tools, Tools) else []

    def _running(self) -> Run:
        if self._run is None:
            raise NotRunningError("the agent does not run: enter it first, async with agent")
        return self._run

    def _send(self, message: Message) -> Sent:
        run = self._running()
        run.send(message)
        return Sent(run.status)

    def _subscriptions_changed(self) -> None:
        if self._run is not None:
            self._run.subscriptions_changed()

    def _publish(self, event: object) -> None:
        from rtvoice import events, publishing

        match event:
            case events.StopAgentCommand(reason):
                self._running().begin_to_stop(reason)
                self.event_bus.deliver(event)
            case events.ResponseCancelEvent() | events.OutputAudioBufferClearEvent():
                self.interrupt()
            case events.ResponseCreateEvent(response):
                self._send(CreateResponse(publishing.instructions_of(response)))
            case events.SessionUpdateEvent(session):
                self.update(**publishing.changes_of(session))
            case events.InputAudioBufferAppendEvent():
                self._capture(event.pcm)
            case events.ClientEvent() | events.ServerEvent() | events.AgentEvent():
                raise EventError(publishing.why_not(event))
            case Message():
                self._send(publishing.checked(event))
            case _:
                self._running().need()
                self.event_bus.deliver(event)

    def _capture(self, pcm: bytes) -> None:
        if self.audio_input != "program":
            raise EventError(
                "InputAudioBufferAppendEvent: this agent has a microphone of its own; make it with "
                'audio_input="program" to publish what it hears'
            )
        self._send(ProgramCapture(pcm))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            f"an Agent cannot be changed; make another one with {name}=..., or change the "
            f"conversation that goes on by agent.update(...)"
        )

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"an Agent cannot be changed; {name} stays")

    def __repr__(self) -> str:
        named = isinstance(self.tools, str)
        tools = f"tools={self.tools!r}" if named else f"{len(self._own_tool_names())} tools"
        return f"Agent({self.instructions[:40]!r}, model={self.model!r}, {tools})"

    # What __init__ sets through object.__setattr__:
    instructions: str
    model: str
    voice: str
    speech_speed: float
    transcription_model: str | None
    tools: Tools | str | None
    recording_output_path: str | None
    audio_input: object
    audio_output: object
    greeting: str | None
    language: str | tuple[str, ...] | None
    transcription_prompt: str | None
    transcription_keywords: tuple[str, ...]
    transcription_delay: str | None
    inactivity_timeout_s: float | None
    turn_detection: ServerVad | SemanticVad | None
    interruption: str
    preroll_ms: int
    duplex: str
    noise_reduction: str | None
    output_modality: str
    max_output_tokens: int | None
    tool_choice: str
    parallel_tool_calls: bool | None
    reasoning_effort: str | None
    truncation: str | RetentionRatio
    volume: float
    builtin_tools: tuple[str, ...]
    output_hold_s: float | None
    tool_timeout_s: float
    start_timeout_s: float
    journal_path: str | None
    server: str | None
    components: dict[str, str]
    _bus: EventBus | None
    _api_key: str | None
    _run: Run | None


# -- changes ---------------------------------------------------------------------------------------

_PARAMETERS = sorted({"api_key", *(name for name in Agent.__slots__ if name[0] != "_")})

_FIXED = {
    "model": "the service opens a session for one model",
    "voice": "the service does not change the voice of a session that has spoken",
    "greeting": "it was said at the beginning",
    "recording_output_path": "the recording has begun",
    "journal_path": "the journal has begun",
    "api_key": "the connection is made with it",
    "server": "the connection is made to it",
    "audio_input": "the device is open",
    "audio_output": "the device is open",
    "components": "components are started with the session",
    "output_hold_s": "the output device was opened with it",
    "tool_timeout_s": "the tools were started with it",
    "start_timeout_s": "it has started",
}


def _refuse_fixed(fixed: Mapping[str, object]) -> None:
    for name in fixed:
        if name in _FIXED:
            raise AgentError(
                name, f"it cannot change during a conversation ({_FIXED[name]}); make a new Agent"
            )
    checks.refuse_unknown(fixed, _PARAMETERS)


def _changes(**given: tuple[Callable[[str, Any], Any], Any]) -> dict[str, Any]:
    """Check what is given."""
    return {
        name: check(name, value) for name, (check, value) in given.items() if value is not UNSET
    }


def _optional_model(name: str, value: object) -> Any:
    return checks.checked_optional(checks.checked_model, name, value)


def _optional_text(name: str, value: object) -> Any:
    return checks.checked_optional(checks.checked_name, name, value)


def _language(_: str, value: object) -> str | tuple[str, ...] | None:
    return checks.checked_languages(value)


def _turn_detection(_: str, value: object) -> ServerVad | SemanticVad | None:
    return checks.checked_turn_detection(value)


def _hold(name: str, value: object) -> float:
    return checks.checked_number(name, value, 0.0, 86_400.0)


def _interruption(name: str, value: object) -> str:
    return checks.checked_choice(name, value, ("immediate", "confirmed"))


def _duplex(name: str, value: object) -> str:
    return checks.checked_choice(name, value, ("auto", "half", "full"))


def _noise_reduction(name: str, value: object) -> Any:
    return checks.checked_optional(_field, name, value)


def _field(name: str, value: object) -> str:
    return checks.checked_choice(name, value, ("near_field", "far_field"))


def _modality(name: str, value: object) -> str:
    return checks.checked_choice(name, value, ("audio", "text"))


def _effort(name: str, value: object) -> str:
    return checks.checked_choice(name, value, get_args(Effort))


def _optional_effort(name: str, value: object) -> Any:
    return checks.checked_optional(_effort, name, value)


def _speed(name: str, value: object) -> float:
    return checks.checked_number(name, value, *limits.SPEEDS)


def _volume(_: str, value: object) -> float:
    return checks.checked_number("volume", value, 0.0, 1.0)
