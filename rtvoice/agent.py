"""The agent: a description of a voice assistant, and the conversations that it holds."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from msgspec.structs import replace

from actors.tools.registry import Tools
from messages import (
    CreateResponse,
    EventError,
    Interrupt,
    Message,
    NotRunningError,
    ProgramCapture,
    RtvoiceError,
    SendImage,
    SendText,
    SetMuted,
    SetSpeed,
    SetVolume,
    StartTalking,
    StopTalking,
)
from rtvoice import checks
from rtvoice.description import Changes, Description, documented
from rtvoice.errors import AgentError

# Methods import these, which need asyncio, only when they run: the command describes an agent
# without running it, and the process of the hub stays free of asyncio.
if TYPE_CHECKING:
    from rtvoice.bus import EventBus, EventStream
    from rtvoice.prices import Usage
    from rtvoice.running import Run
    from rtvoice.views import ConversationHistory

__all__ = ["Agent", "Sent"]

_STOPPED = "the program asked"

E = TypeVar("E")
_DETAILS = Literal["auto", "low", "high"]


class Sent(Awaitable[None]):
    """The result of a command to a running agent. Await it to know that the command is safe.

    The command is sent at once. When the await returns, it takes effect even if a component or the
    supervisor crashes.

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


def _begin_to_import() -> None:
    """Start the fork server, which imports what a conversation needs while this program does."""
    from messages.transport.spawning import start_fork_server

    with contextlib.suppress(RtvoiceError, OSError):  # the start of the supervisor reports it
        start_fork_server()


class Agent(Description):
    """A voice assistant: its description, and the conversations that it holds.

    The description cannot be changed. An agent runs in a program, or under
    ``python -m supervisor FILE:agent``.

    Its methods are all that a program can do with a conversation; that makes the class long.

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

    Leaving the ``async with`` block waits until the conversation ends: the user says goodbye, the
    model calls the stop tool, nobody speaks for the inactivity timeout, the program calls `stop` or
    is cancelled (Ctrl-C), or the session fails, which raises. The body of the block runs during the
    conversation. If it raises or is cancelled, the conversation ends gracefully, without waiting.

    The conversation runs in separate processes. It never blocks the event loop, installs no signal
    handlers and prints nothing: log records reach `logging` under ``rtvoice``. Devices and tools
    that are given as objects run in this program; devices and components that are given by name
    run in separate processes. Each ``async with`` holds a new conversation. An agent holds one at a
    time; several agents can talk at once.
    """

    _bus: EventBus | None = None
    _run: Run | None = None
    _input_rate: int | None = None
    """Rate of the audio that the program publishes, in Hz; None: 24 kHz."""
    _placed: Mapping[str, Any] = MappingProxyType({})
    """Settings of the session that the host of a fleet sets."""

    # -- a conversation -----------------------------------------------------------------------

    async def __aenter__(self) -> Agent:
        """Start a conversation; return when every component is open.

        Raises:
            AgentError: There is no API key, an environment variable is not valid, or
                ``tool_choice`` names a tool that does not exist.
            SessionFailedError: A component cannot start; the reason says which and why.
            SupervisorDiedError: The supervisor ended without giving a reason.
            RuntimeError: This agent is already in a conversation.
        """
        if self._run is not None and not self._run.is_over:
            raise RuntimeError(
                "this agent is already in a conversation; make another Agent for a second one"
            )
        run, places = self._new_run()
        vars(self)["_run"] = run  # `__setattr__` refuses every name
        await run.start(places)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the end of the conversation; end it without waiting if the block has raised.

        Raises:
            SessionFailedError: The session has failed; the reason says why, and ``__cause__`` is
                the crash.
            SupervisorDiedError: The supervisor has died.
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
        """Hold a conversation until it ends, and return its history.

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
            AgentError: There is no API key, or an environment variable is not valid.
            SessionFailedError: The session could not start, or has failed. `history` still
                has the conversation.
            SupervisorDiedError: The supervisor has died. `history` still has the conversation.
        """
        async with self:
            pass
        return self.history

    def run_sync(self) -> ConversationHistory:
        """Hold a conversation as `run` does, in a program without an event loop.

        Ctrl-C ends it gracefully and is raised as `KeyboardInterrupt`; `history` has what was said.

        Raises:
            RuntimeError: An event loop is running here; use ``await agent.run()``.
            RtvoiceError: As `run` does.
        """
        import asyncio

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self.run())
        raise RuntimeError("an event loop is running here already: use await agent.run()")

    async def stop(self) -> ConversationHistory:
        """End the conversation gracefully, if one is running, and return its history.

        It can be called any number of times and takes at most 5 s. It does not raise the failure of
        a conversation, but returns what was said until then. Before the first conversation, the
        history is empty.
        """
        if self._run is not None:
            await self._run.stop(_STOPPED)
        return self.history

    @property
    def event_bus(self) -> EventBus:
        """The event bus, to subscribe and to publish: before, during and after a conversation.

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

            vars(self)["_bus"] = EventBus(self._publish, self._subscriptions_changed)
        assert self._bus is not None
        return self._bus

    @property
    def history(self) -> ConversationHistory:
        """The current conversation so far, or the last one."""
        from rtvoice.views import ConversationHistory

        return ConversationHistory() if self._run is None else self._run.history()

    @property
    def usage(self) -> Usage:
        """The tokens of the current or the last conversation, and their price in US dollars.

        It grows with each answer, and counts on across deaths of processes and with ``resume``.
        """
        from rtvoice.prices import Usage

        return Usage() if self._run is None else self._run.usage

    @property
    def ready(self) -> bool:
        """Whether every component is open and the server is connected, so that the user can speak.

        False before the start, after the end, and while a lost connection is being restored.
        """
        return self._run is not None and self._run.is_ready

    async def wait_ready(self, timeout_s: float | None = 30.0) -> None:
        """Wait until `ready`; for the readiness check of a service.

        Args:
            timeout_s: Seconds to wait at most; None: no limit.

        Raises:
            TimeoutError: The agent is not ready after ``timeout_s``.
            SessionFailedError: The session has failed before, for example because of a wrong key.
            NotRunningError: The agent was not started, or the conversation is over.
        """
        await self._running().wait_ready(timeout_s)

    async def status(self) -> dict[str, dict[str, Any]]:
        """Return the state of each component.

        Per component: ``pid``, ``state`` (``open``: it works), ``restarts``, ``mailbox`` (number of
        messages that wait), ``dropped`` (number of messages per type), ``handled`` (number of
        messages), ``memory_bytes`` (resident) and ``cpu_seconds`` (both None where the system does
        not report it), ``faltered`` (how often its sound was interrupted, see `SoundFaltered`).

        Raises:
            NotRunningError: The agent does not run.
            TimeoutError: The supervisor does not answer.
        """
        return await self._running().status()

    async def processes(self) -> dict[str, dict[str, Any]]:
        """Return what `status` returns, and pid, memory and CPU time of supervisor and sandbox.

        Raises:
            NotRunningError: The agent does not run.
            TimeoutError: The supervisor does not answer.
        """
        return await self._running().processes()

    @overload
    def events(self, *, max_queued: int = 10_000) -> EventStream[Any]: ...
    @overload
    def events(self, *kinds: type[E], max_queued: int = 10_000) -> EventStream[E]: ...
    def events(self, *kinds: type[Any], max_queued: int = 10_000) -> EventStream[Any]:
        """Return a stream of events: ``async for turn in agent.events(Turn)``.

        It begins now and ends with the current conversation; before a conversation, with the first
        one. After a conversation it is empty.

        Args:
            kinds: Classes of `rtvoice.events`; none: all events except those of the Realtime API.
            max_queued: Most events that may wait for the reader. When more arrive, the oldest is
                dropped and counted in ``dropped``.
        """
        from messages import Event
        from rtvoice.events import AgentEvent

        stream = self.event_bus.stream(kinds or (Event, AgentEvent), max_queued)
        if self._run is not None and self._run.is_over:
            stream.end()
        return stream

    # -- commands during a conversation -------------------------------------------------------

    def send_text(self, text: str) -> Sent:
        """Send a typed turn of the user. It interrupts the assistant, which then answers it.

        Args:
            text: The words of the user.

        Raises:
            AgentError: ``text`` is not a text, or is empty.
            NotRunningError: The agent does not run.
        """
        if not checks.of_type("text", text, str).strip():
            raise AgentError("text", "it is empty; give the words of the user")
        return self._send(SendText(text, os.urandom(16).hex()))

    def send_image(
        self,
        image: bytes | str | os.PathLike[str],
        text: str = "",
        *,
        detail: Literal["auto", "low", "high"] = "auto",
        respond: bool = True,
    ) -> Sent:
        """Send an image of the user to the model. If it is to be answered, it interrupts.

        Args:
            image: A PNG or JPEG file of at most 4 MiB: its content or its path.
            text: The words of the user about the image.
            detail: How closely the model looks: ``low`` costs fewest tokens; ``auto`` is ``high``.
            respond: Whether the model answers at once; if not, it takes the image into account in
                its next answer.

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
            AgentError: It is not a PNG or JPEG image, or is too large.
            NotRunningError: The agent does not run.
        """
        data, media_type = checks.checked_image("image", image)
        text = checks.of_type("text", text, str)
        detail = checks.of_type("detail", detail, _DETAILS)
        respond = checks.of_type("respond", respond, bool)
        message = SendImage(data, media_type, text, os.urandom(16).hex(), detail, respond)
        return self._send(message)

    def start_talking(self) -> Sent:
        """Begin a turn of the user (push-to-talk). It interrupts the assistant.

        The turn begins ``preroll_ms`` earlier than the call, so that the first word is complete.
        All audio until `stop_talking` belongs to it, even if components crash or the connection is
        lost.

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
            AgentError: Turn detection is switched on.
            NotRunningError: The agent does not run.
        """
        self._need_push_to_talk()
        return self._send(StartTalking(time.monotonic_ns()))

    def stop_talking(self, *, respond: bool = True) -> Sent:
        """End the turn of the user (push-to-talk). A turn of less than 100 ms is discarded.

        Args:
            respond: Whether the model answers at once. If not, it answers with a later turn, or
                when `CreateResponse` is published.

        Raises:
            AgentError: Turn detection is switched on.
            NotRunningError: The agent does not run.
        """
        self._need_push_to_talk()
        respond = checks.of_type("respond", respond, bool)
        return self._send(StopTalking(time.monotonic_ns(), respond))

    def _need_push_to_talk(self) -> None:
        if self._running().in_force.settings.turn_detection is not None:
            raise AgentError(
                "turn_detection",
                "the service detects when a turn begins and ends; for push-to-talk, make the "
                "agent with turn_detection=None, or call agent.update(turn_detection=None)",
            )

    def interrupt(self) -> Sent:
        """Interrupt the assistant: it stops speaking.

        Raises:
            NotRunningError: The agent does not run.
        """
        return self._send(Interrupt())

    def mute(self) -> Sent:
        """Mute the microphone until `unmute`; it stays muted if it crashes.

        Raises:
            NotRunningError: The agent does not run.
        """
        return self._send(SetMuted(True))

    def unmute(self) -> Sent:
        """Unmute the microphone.

        Raises:
            NotRunningError: The agent does not run.
        """
        return self._send(SetMuted(False))

    def set_volume(self, volume: float) -> Sent:
        """Set the volume of playback.

        Args:
            volume: From 0 to 1, as in `Agent`.

        Raises:
            AgentError: The volume is out of range.
            NotRunningError: The agent does not run.
        """
        return self._send(SetVolume(checks.setting("volume", volume, "volume")))

    def set_speed(self, speed: float) -> Sent:
        """Set the speed of speech, from the next answer on.

        Args:
            speed: As ``speech_speed`` in `Agent`.

        Raises:
            AgentError: The speed is out of range.
            NotRunningError: The agent does not run.
        """
        return self._send(SetSpeed(checks.setting("speed", speed, "speed")))

    @documented(Changes.__annotations__)
    def update(self, **changes: Unpack[Changes]) -> Sent:
        """Change settings of the current conversation, from the next answer on.

        Settings that are left out keep their values. The description of the agent does not change:
        the next conversation starts with it again. A parameter that cannot change during a
        conversation is refused.

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

        Args:
            tools: They replace the tools of the program; tools that were given by name stay.

        Raises:
            AgentError: A value is not valid, or cannot change during a conversation; the message
                says why.
            NotRunningError: The agent does not run.
        """
        valid = checks.checked_changes(changes)
        run = self._running()
        checks.warn_if_retired(valid.get("transcription_model"), stacklevel=3)
        run.change(valid)
        return Sent(run.confirm)

    # -- internals ----------------------------------------------------------------------------

    def _new_run(self) -> tuple[Run, dict[str, Any]]:
        """Return a run that is not started yet, and the values of its `PLACED` settings."""
        _begin_to_import()
        from actors.embedding.session import Session
        from rtvoice.in_force import InForce
        from rtvoice.running import PLACED, Run, prepare_logging, user_import_path

        server = self.server or checks.server_in(os.environ) or "openai"
        checks.need_key(server, self._api_key, os.environ)
        checks.make_folder("recording_output_path", self.recording_output_path)
        level = checks.log_level_in(os.environ)
        prepare_logging(level)
        settings = self._everywhere() | {
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
        if self._input_rate is not None:
            settings["program_input_rate"] = self._input_rate
        settings.update(self._placed)
        tools = self.tools if isinstance(self.tools, Tools) else Tools()
        if isinstance(self.tools, str):
            settings["named_tools"] = self.tools
        names = self._own_tool_names()  # read only now: tools may have been added since __init__
        used = {name: settings.get(name, "program") for name in ("input", "output")}
        in_force = InForce(
            replace(self._settings(server), **used), names, named=isinstance(self.tools, str)
        )

        def session(wire_names: tuple[str, ...]) -> Session:
            try:
                return Session(
                    api_key=self._api_key,
                    tools=tools,
                    **devices,
                    **settings,
                    wire_events=wire_names,
                )
            except TypeError as error:  # reads attributes of the device only now; they may raise
                raise AgentError("audio_output", str(error)) from error

        places = {
            **{name: settings.get(name) for name in PLACED},
            **{name.removesuffix("_device"): device for name, device in devices.items()},
            "tools": names,
        }
        return Run(session, self.event_bus, in_force), places

    def _running(self) -> Run:
        if self._run is None:
            raise NotRunningError("the agent does not run: enter it first, async with agent")
        return self._run

    def _send(self, message: Message) -> Sent:
        run = self._running()
        run.send(message)
        return Sent(run.confirm)

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

    def _fit(
        self, *, input_rate: int, placed: Mapping[str, Any] | None = None, **parameters: Any
    ) -> None:
        """Set parameters that the description leaves open; for `rtvoice.service`.

        Args:
            input_rate: The rate of what is passed to `_capture_at`.
            placed: Settings of the session that an agent has no parameters for.
            parameters: Values of parameters that are None so far.

        Raises:
            AgentError: The agent has a value already, or is in a conversation.
        """
        if self._run is not None:
            raise AgentError("agent", "it has held a conversation; make a new one for each caller")
        for name in parameters:
            if getattr(self, name) is not None:
                raise AgentError(name, "the service sets it for each caller; leave it out")
        found = {name: checks.checked(name, value) for name, value in parameters.items()}
        vars(self).update(found, _input_rate=input_rate, _placed=dict(placed or {}))

    def _kill(self) -> None:
        """Kill all processes of the conversation, if there is one; for the hosts of a fleet."""
        if self._run is not None:
            self._run.kill()

    def _capture_at(self, pieces: Sequence[bytes], rate: int) -> None:
        """Pass on captured audio of any rate; for `rtvoice.service`."""
        self._running().send_sound(ProgramCapture(b"", rate, time.monotonic_ns()), pieces)

    def _capture(self, pcm: bytes) -> None:
        if self.audio_input != "program":
            raise EventError(
                "InputAudioBufferAppendEvent: this agent has its own microphone; make it with "
                'audio_input="program" to publish captured audio'
            )
        self._send(ProgramCapture(pcm))
