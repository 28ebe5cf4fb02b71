"""The agent: who speaks, how, with which tools and through which devices; and its conversations."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from actors.tools.registry import Tools
from messages import (
    CreateResponse,
    EventError,
    Interrupt,
    Message,
    NotRunningError,
    ProgramCapture,
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

if TYPE_CHECKING:
    from rtvoice.bus import EventBus, EventStream
    from rtvoice.running import Run
    from rtvoice.views import ConversationHistory

__all__ = ["Agent", "Sent"]

_STOPPED = "the program asked"

E = TypeVar("E")
_DETAILS = Literal["auto", "low", "high"]


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


class Agent(Description):
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

    _bus: EventBus | None = None
    _run: Run | None = None

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
        run, places = self._new_run()
        vars(self)["_run"] = run
        await run.start(places)
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

            vars(self)["_bus"] = EventBus(self._publish, self._subscriptions_changed)
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
        if not checks.of_type("text", text, str).strip():
            raise AgentError("text", "it is empty; give what the user is to have said")
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
        text = checks.of_type("text", text, str)
        detail = checks.of_type("detail", detail, _DETAILS)
        respond = checks.of_type("respond", respond, bool)
        message = SendImage(data, media_type, text, os.urandom(16).hex(), detail, respond)
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
        respond = checks.of_type("respond", respond, bool)
        return self._send(StopTalking(time.monotonic_ns(), respond))

    def _need_push_to_talk(self) -> None:
        if self._running().in_force.settings.turn_detection is not None:
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
            volume: as `Agent` takes it.

        Raises:
            AgentError: it is out of range.
            NotRunningError: the agent does not run.
        """
        return self._send(SetVolume(checks.setting("volume", volume, "volume")))

    def set_speed(self, speed: float) -> Sent:
        """Set the speed of speech, from the next answer on.

        Args:
            speed: as `Agent` takes its ``speech_speed``.

        Raises:
            AgentError: it is out of range.
            NotRunningError: the agent does not run.
        """
        return self._send(SetSpeed(checks.setting("speed", speed, "speed")))

    @documented(Changes.__annotations__)
    def update(self, **changes: Unpack[Changes]) -> Sent:
        """Change the conversation that goes on, from the next answer on.

        The description stays as it is: the next conversation begins with that. What is left out
        stays as it is too. Everything else cannot change during a conversation, and is refused.

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
            tools: in place of those of the program; those given by a name stay.

        Raises:
            AgentError: a value is wrong, or this cannot change during a conversation, and why.
            NotRunningError: the agent does not run.
        """
        valid = checks.checked_changes(changes)
        run = self._running()
        checks.warn_if_retired(valid.get("transcription_model"), stacklevel=3)
        run.change(valid)
        return Sent(run.status)

    # -- inside -------------------------------------------------------------------------------

    def _new_run(self) -> tuple[Run, dict[str, Any]]:
        """Return a run, not yet started, and where what it consists of will run."""
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
        tools = self.tools if isinstance(self.tools, Tools) else Tools()
        if isinstance(self.tools, str):
            settings["named_tools"] = self.tools
        names = self._own_tool_names()  # some may have come later
        in_force = InForce(self._settings(server), names, named=isinstance(self.tools, str))

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
