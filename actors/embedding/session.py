"""A session in a program: it starts the supervisor's process and talks with it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from actors.embedding.stream import EventStream, Listener
from actors.supervision.specs import SPECS
from messages import (
    FAULTS,
    ComponentCrashed,
    ComponentCrashedError,
    ConfigurationError,
    Event,
    FrameError,
    Inject,
    Log,
    Message,
    RtvoiceError,
    SessionEnded,
    SessionFailed,
    SessionFailedError,
    SessionStarted,
    SetTools,
    StartSession,
    Status,
    StatusRequest,
    StopSession,
    Subscribe,
    SupervisorDiedError,
    decode,
    encode,
    level_of,
    message_types,
)
from messages.transport.channel import Channel
from messages.transport.spawning import environment_with_us, spawn
from messages.validation import checked_settings

if TYPE_CHECKING:
    from actors.embedding.hosting import Hosting, InputDevice, OutputDevice, ToolSet

__all__ = ["Session"]


class Session:
    """A conversation embedded in a program, under a supervisor in a process of its own.

    It installs no signal handlers, prints nothing (log records reach ``logging`` under
    ``rtvoice.COMPONENT``) and never blocks an event loop: one thread reads, one writes.

        with Session(server="sandbox", input="question.wav", output="null") as session:
            for event in session.events(Turn):
                print(event.role, event.text)

    In asyncio: ``async with Session(...) as session`` and ``async for event in session.events()``.
    """

    _QUEUED = 10_000

    def __init__(
        self,
        *,
        api_key: str | None = None,
        input_device: InputDevice | None = None,
        output_device: OutputDevice | None = None,
        tools: ToolSet | str | None = None,
        **settings: Any,
    ) -> None:
        """Describe a session; nothing is started yet.

        Args:
            api_key: For the service; None: ``OPENAI_API_KEY`` of the environment.
            input_device: An object of the program as the microphone, instead of ``input``.
            output_device: An object of the program as the loudspeaker, instead of ``output``.
            tools: Functions of the program that the model may call; a name, ``module:attr`` or
                ``file.py:attr``, has the tools process load them.
            settings: Fields of `messages.Settings`.

        Raises:
            ConfigurationError: a setting is unknown or out of range.
        """
        if isinstance(tools, str):
            settings["named_tools"], tools = tools, None
        self._hosting: Hosting | None = None
        if any(thing is not None for thing in (input_device, output_device, tools)):
            from actors.embedding.hosting import Hosting

            self._hosting = Hosting(
                self.send, input_device=input_device, output_device=output_device, tools=tools
            )
            settings |= msgspec.to_builtins(self._hosting.settings)
        valid = checked_settings(settings)
        self._settings = {name: msgspec.to_builtins(getattr(valid, name)) for name in settings}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._api_key = api_key
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._streams: list[Listener] = []
        self._crashes: dict[str, ComponentCrashed] = {}
        """The last crash of each component."""
        self._answers: dict[int, queue.SimpleQueue[Status | None]] = {}
        self._call_ids = itertools.count(1)
        self._started = threading.Event()
        self._over = threading.Event()
        self._failure: RtvoiceError | None = None
        self._killed = False
        self.started: SessionStarted | None = None
        """Process ids and devices, once the session runs."""
        self.summary: SessionEnded | None = None
        """What was done and lost, once the session has ended."""

    # -- life ---------------------------------------------------------------------------------

    def start(self, timeout_s: float | None = None) -> Session:
        """Start the processes and return when every component is open.

        Args:
            timeout_s: At most so long; None: 30 s, or twice ``start_s`` if that is more.

        Raises:
            SessionFailedError: a component cannot start; the reason says which and why.
            SupervisorDiedError: the supervisor ended without a word.
        """
        if self._process is not None:
            raise RuntimeError("a session is started once; make a new one")
        if timeout_s is None:
            timeout_s = max(30.0, 2 * checked_settings(self._settings).start_s)
        environment = environment_with_us(os.environ)
        if self._api_key is not None:
            environment["RTVOICE_API_KEY"] = self._api_key
        self._process, ours = spawn(["rtvoice", "--peer"], environment)
        if self._killed:  # while it was spawned
            self.kill()
        self._channel = Channel(ours)
        if self._hosting is not None:  # before the first message, which may be for it
            self._hosting.prepare(self._loop)
        with contextlib.suppress(OSError):  # it has ended; the reader says so
            self._channel.write(StartSession(self._settings, self._wanted()))
        for target in (self._read, self._write):
            threading.Thread(target=target, name=f"rtvoice-{target.__name__}", daemon=True).start()
        if not self._started.wait(timeout_s):
            self._failure = SessionFailedError(f"not started within {timeout_s:g} s")
            self.kill()
        if self._failure is not None:
            raise self._failure
        if self._hosting is not None:
            self._hosting.start()
        return self

    def stop(self, reason: str = "the program asked", timeout_s: float = 10.0) -> SessionEnded:
        """End the session in order; again: return the same summary.

        Raises:
            SessionFailedError: it has failed before; ``reason`` says why.
            SupervisorDiedError: the supervisor ended without a summary.
        """
        if self._process is None:
            raise RuntimeError("the session was never started")
        if not self._over.is_set():
            self.send(StopSession(reason))
            if not self._over.wait(timeout_s):
                self.kill()
                self._over.wait()
        if self.summary is None:
            raise self._failure or SupervisorDiedError("the supervisor ended without a summary")
        return self.summary

    def wait(self, timeout_s: float | None = None) -> SessionEnded:
        """Wait until the session ends by itself.

        Raises:
            SessionFailedError: it failed.
            TimeoutError: it still runs.
        """
        if not self._over.wait(timeout_s):
            raise TimeoutError(f"the session still runs after {timeout_s} s")
        if self._failure is not None:
            raise self._failure
        return self.stop()

    def kill(self) -> None:
        """End the supervisor at once, or as soon as it is spawned; its children end with it."""
        self._killed = True
        if self._process is not None:
            self._process.kill()

    # -- talk ---------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Say something to the components that accept it (`SendText`, `SetMuted`, …).

        Raises:
            TypeError: a field is of a type that cannot be sent.
        """
        self._outgoing.put(encode(message))

    def inject(self, component: str, fault: str) -> None:
        """Break a component, to see that the session goes on; needs ``probes=True``.

        Args:
            component: Its name, such as ``speaker``.
            fault: One of `messages.FAULTS`, or the name of a signal, such as ``SIGKILL``.

        Raises:
            ConfigurationError: the session does not take faults.
            ValueError: there is no such fault, or no such component.
        """
        if not self._settings.get("probes"):
            raise ConfigurationError("faults are injected into a Session(probes=True, ...) only")
        if fault not in FAULTS and fault not in signal.Signals.__members__:
            raise ValueError(
                f"no fault is named {fault!r}; there are {', '.join(FAULTS)}, and the signals"
            )
        names = [spec.name for spec in SPECS] + list(self._settings.get("components", ()))
        if component not in names:
            raise ValueError(f"no component is named {component!r}; there are {', '.join(names)}")
        self.send(Inject(component, fault))

    def events(self, *kinds: type[Message]) -> EventStream:
        """Return a stream of events of these types; none given: all domain events."""
        stream = EventStream(kinds or (Event,), self._QUEUED, self._forget)
        self.listen(stream)
        return stream

    def listen(self, listener: Listener) -> None:
        """Tell a listener what it wants, from now on, and None at the end of the session."""
        with self._lock:
            self._streams.append(listener)
            ended = self._over.is_set()
        if ended:
            listener.put(None)
        else:
            self.subscribe()

    def subscribe(self) -> None:
        """Have the supervisor tell what the listeners want now."""
        if self._process is not None:
            self.send(Subscribe(self._wanted()))

    def set_tools(
        self, tools: ToolSet | None = None, *, builtin_tools: Sequence[str] | None = None
    ) -> None:
        """Change what the model may call, from its next answer on.

        Args:
            tools: Functions of the program, in place of those it had; None: as before.
            builtin_tools: Names of the built-in tools; None: as before.
        """
        specs = None
        if tools is not None:
            if self._hosting is None or self._hosting.set_tools(tools) is False:
                raise ConfigurationError(
                    "tools: the session was started without tools of the program; "
                    "start it with a set of them, which may be empty"
                )
            specs = tools.specs()
        self.send(SetTools(specs, None if builtin_tools is None else tuple(builtin_tools)))

    async def status_async(self, timeout_s: float = 5.0) -> dict[str, dict[str, Any]]:
        """Do what `status` does, without blocking the event loop."""
        return await _off_loop(lambda: self.status(timeout_s))

    def status(self, timeout_s: float = 5.0) -> dict[str, dict[str, Any]]:
        """Return pid, state, restarts, mailbox, memory of each component.

        Raises:
            TimeoutError: the supervisor does not answer.
            SupervisorDiedError: the session is over.
        """
        call_id = next(self._call_ids)
        answer = self._answers[call_id] = queue.SimpleQueue()
        if self._over.is_set():
            raise SupervisorDiedError("the session is over")
        self.send(StatusRequest(call_id))
        try:
            status = answer.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError(f"no status within {timeout_s:g} s") from None
        finally:
            del self._answers[call_id]
        if status is None:
            raise SupervisorDiedError("the session is over")
        return status.components

    def __enter__(self) -> Session:
        try:
            return self.start()
        except KeyboardInterrupt:  # as in `__aenter__`
            self.kill()
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(*((RtvoiceError,) if kind is not None else ())):
            self.stop()

    async def __aenter__(self) -> Session:
        self._loop = asyncio.get_running_loop()
        try:
            return await _off_loop(self.start)
        except asyncio.CancelledError:  # nobody will leave what was never entered
            self.kill()
            raise

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await _off_loop(partial(self.__exit__, kind, *_))

    # -- threads ------------------------------------------------------------------------------

    def _wanted(self) -> tuple[int, ...]:
        kinds: set[type[Message]] = {Event, Status, Log}
        with self._lock:
            for stream in self._streams:
                kinds.update(stream.kinds)
        if self._hosting is not None:
            kinds.update(self._hosting.wants)
        wanted = tuple(kinds)
        return tuple(tag for tag, kind in message_types().items() if issubclass(kind, wanted))

    def _forget(self, stream: Listener) -> None:
        with self._lock, contextlib.suppress(ValueError):  # closed before
            self._streams.remove(stream)

    def _write(self) -> None:
        while (frame := self._outgoing.get()) is not None:
            try:
                self._channel.write_frame(frame)
            except OSError:
                return  # the reader sees the end too, and says so

    def _read(self) -> None:
        try:
            while True:
                self._take(decode(self._channel.read()))
        except EOFError:
            pass
        except FrameError as error:
            self._failure = self._failure or SupervisorDiedError(str(error))
            self.kill()
        except Exception as error:  # noqa: BLE001 - of the program's: a filter of its logging, say
            why = f"the program could not take what it was told: {type(error).__name__}: {error}"
            self._failure = self._failure or SessionFailedError(why)
            self._failure.__cause__ = error
            self.kill()
        self._end()

    def _take(self, message: Message) -> None:
        match message:
            case SessionStarted():
                self.started = message
                self._started.set()
            case ComponentCrashed(component):
                self._crashes[component] = message
            case SessionFailed(reason, component):
                self._failure = SessionFailedError(reason, component)
                if (crash := self._crashes.get(component)) is not None:
                    self._failure.__cause__ = ComponentCrashedError(
                        component, crash.cause, crash.traceback
                    )
            case SessionEnded():
                self.summary = message
            case Status(call_id):
                if call_id in self._answers:
                    self._answers[call_id].put(message)
                return
            case Log():
                _log(message)
        if self._hosting is not None and isinstance(message, self._hosting.wants):
            self._hosting.told(message)
        with self._lock:
            streams = [stream for stream in self._streams if isinstance(message, stream.kinds)]
        for stream in streams:
            stream.put(message)

    def _end(self) -> None:
        assert self._process is not None
        code = self._process.wait()
        if self.summary is None and self._failure is None:
            self._failure = SupervisorDiedError(f"the supervisor has ended with code {code}")
        self._channel.close()
        self._outgoing.put(None)
        if self._hosting is not None:
            self._hosting.stop(2.0)
        self._over.set()
        self._started.set()
        for answer in list(self._answers.values()):
            answer.put(None)
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            stream.put(None)


_Result = TypeVar("_Result")


async def _off_loop(call: Callable[[], _Result]) -> _Result:
    """Run a call that waits, on a thread of its own: the program's executor may be busy."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Result] = loop.create_future()

    def settle(result: _Result | None, error: BaseException | None) -> None:
        if future.done():  # cancelled meanwhile
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        try:
            result, error = call(), None
        except BaseException as failure:  # noqa: BLE001 - raised again where it is awaited
            result, error = None, failure
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="rtvoice-start-stop", daemon=True).start()
    return await future


def _log(record: Log) -> None:
    logger = logging.getLogger(f"rtvoice.{record.component}")
    level = level_of(record.level)
    if logger.isEnabledFor(level):
        fields = {key: msgspec.msgpack.decode(value) for key, value in record.fields.items()}
        extra = " ".join(f"{key}={value!r}" for key, value in fields.items())
        logger.log(level, "%s", f"{record.text} {extra}".rstrip())
