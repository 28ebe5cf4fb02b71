"""A session in a program: starts the supervisor process and exchanges messages with it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import logging
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from actors.devices.units import block_samples
from actors.embedding.loop_end import LoopEnd, can_watch, running_loop
from actors.embedding.outbox import Outbox
from actors.embedding.session_folder import SessionFolder, refuse_beside_a_folder
from actors.embedding.stream import EventStream, Listener
from actors.embedding.supervisor_process import SupervisorProcess
from actors.supervision.specs import SPECS
from messages import (
    FAULTS,
    SAMPLE_RATE,
    AskToPass,
    ComponentCrashed,
    ComponentCrashedError,
    ConfigurationError,
    Confirmed,
    Event,
    FrameError,
    Inject,
    Log,
    MayPass,
    Message,
    ProgramCapture,
    ProgramToolAnswer,
    RtvoiceError,
    SessionEnded,
    SessionEnding,
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
    ToolAnswer,
    ToolCall,
    Turn,
    Wanted,
    encode,
    level_of,
    message_types,
)
from messages.transport.spawning import ending
from messages.validation import checked_settings

if TYPE_CHECKING:
    from actors.embedding.direct_end import DirectEnd
    from actors.embedding.hosting import Hosting, InputDevice, OutputDevice, ToolSet

__all__ = ["Session"]

_REMEMBERED = 1000
"""Number of turns and calls that are remembered, to recognise one that comes twice."""


class Session:
    """A conversation embedded in a program; its supervisor runs in another process.

    It installs no signal handlers, prints nothing (log records reach ``logging`` under
    ``rtvoice.COMPONENT``) and never blocks an event loop. In asyncio, the loop itself reads from
    the supervisor and writes to it; without a loop, and during calls that block, threads do.

        with Session(server="sandbox", input="question.wav", output="null") as session:
            for event in session.events(Turn):
                print(event.role, event.text)

    In asyncio: ``async with Session(...) as session`` and ``async for event in session.events()``.

    It has more attributes than other classes: it is used by any thread, and each is one thing that
    somebody waits for.
    """

    _QUEUED = 10_000

    def __init__(
        self,
        *,
        api_key: str | None = None,
        input_device: InputDevice | None = None,
        output_device: OutputDevice | None = None,
        tools: ToolSet | str | None = None,
        restarts: int = 3,
        defaults: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        """Describe a session; nothing is started yet.

        Args:
            api_key: The key for the service; None: ``OPENAI_API_KEY`` of the environment.
            input_device: An object of the program to use as the microphone, instead of ``input``.
            output_device: An object of the program to use as the loudspeaker, instead of
                ``output``.
            tools: Functions of the program that the model may call. With a name, ``module:attr`` or
                ``file.py:attr``, the tools process loads them.
            restarts: How many times within a minute a supervisor that dies is replaced; the
                conversation goes on in the next one.
            defaults: Fields of `messages.Settings` that are used where neither ``settings`` nor the
                agent that they name has a value.
            settings: Fields of `messages.Settings`.

        Raises:
            ConfigurationError: If a setting is unknown or out of range.
        """
        if isinstance(tools, str):
            settings["named_tools"], tools = tools, None
        self._outbox = Outbox()
        self._hosting: Hosting | None = None
        if any(thing is not None for thing in (input_device, output_device, tools)):
            from actors.embedding.hosting import Hosting

            self._hosting = Hosting(
                self.send,
                input_device=input_device,
                output_device=output_device,
                tools=tools,
                commands=self._outbox.commands,
                send_past=lambda message: self._outbox.send_past(encode(message)),
            )
            settings |= msgspec.to_builtins(self._hosting.settings)
        self._folder = SessionFolder.of({**(defaults or {}), **settings})
        if self._folder is not None:
            refuse_beside_a_folder(settings)
            settings |= self._folder.settings
        self._settings = _plain(settings)
        self._defaults = _plain(defaults or {})
        checked_settings({**self._defaults, **self._settings})
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context = contextvars.Context()
        """That of whoever has started the session; log records may be marked from it."""
        self._supervisor = SupervisorProcess(self._order, self._outbox, api_key, restarts)
        self._is_ending = False
        self._taking = threading.RLock()
        """Held while a message is handled, and while loop and thread relieve each other."""
        self._loop_reads = False
        """Whether the loop reads and writes, or is about to; False: threads do."""
        self._watch: LoopEnd | None = None
        """Where the loop reads and writes; None: it does not, or not yet."""
        self._direct: DirectEnd | None = None
        """Where messages come straight; None: as for `_watch`."""
        self._asked_to_pass = 0
        """Number of the last `AskToPass`; 0: none has come."""
        self._blocking = 0
        """Number of calls under way that may block the loop."""
        self._passed_on: dict[tuple[type[Message], str], None] = {}
        """Ids of the newest turns and calls."""
        self._lock = threading.Lock()
        self._streams: list[Listener] = []
        self._crashes: dict[str, ComponentCrashed] = {}
        """The last crash of each component."""
        self._answers: dict[int, queue.SimpleQueue[Status | None]] = {}
        self._call_ids = itertools.count(1)
        self._started = threading.Event()
        self._over = threading.Event()
        self._failure: RtvoiceError | None = None
        self.started: SessionStarted | None = None
        """Process ids and devices; None until the session runs."""
        self.summary: SessionEnded | None = None
        """Summary of the session, with its losses; None until it has ended."""

    # -- life ---------------------------------------------------------------------------------

    def start(self, timeout_s: float | None = None) -> Session:
        """Start the processes and return when every component is open.

        Args:
            timeout_s: How long to wait at most; None: 30 s, or twice ``start_s`` if that is more.

        Raises:
            SessionFailedError: If a component cannot start; the reason says which and why.
            SupervisorDiedError: If the supervisor ended without giving a reason.
        """
        if self._supervisor.pid is not None:
            raise RuntimeError("a session is started once; make a new one")
        settings = checked_settings({**self._defaults, **self._settings})
        if timeout_s is None:
            timeout_s = max(30.0, 2 * settings.start_s)
        self._context = contextvars.copy_context()
        if self._folder is not None and (events := self._folder.open()) is not None:
            self.listen(events)
        self._supervisor.start()
        if self._hosting is not None:  # before any message can arrive for it
            self._hosting.prepare(self._loop, block_samples(settings) / SAMPLE_RATE)
        self._start_threads(None)
        if not self._started.wait(timeout_s):
            self._failure = SessionFailedError(f"not started within {timeout_s:g} s")
            self.kill()
        if self._failure is not None:
            raise self._failure
        if self._hosting is not None:
            self._hosting.start()
        return self

    @property
    def exit_code(self) -> int | None:
        """Exit code of the supervisor: 0, 2 (the session could not start) or 3 (it has failed).

        None: it runs. Another code: it has died.
        """
        return self._supervisor.exit_code if self._over.is_set() else None

    def stop(self, reason: str = "the program asked", timeout_s: float = 10.0) -> SessionEnded:
        """End the session in order; a second call returns the same summary.

        Args:
            reason: The reason, for the log and the summary.
            timeout_s: How long to wait before the supervisor is killed.

        Raises:
            SessionFailedError: If the session has failed before; ``reason`` says why.
            SupervisorDiedError: If the supervisor ended without a summary.
        """
        if self._supervisor.pid is None:
            raise RuntimeError("the session was never started")
        if not self._over.is_set():
            self.send(StopSession(reason))
            with self.blocking():
                if not self._over.wait(timeout_s):
                    self.kill()
                    self._over.wait()
        if self.summary is None:
            raise self._failure or SupervisorDiedError("the supervisor ended without a summary")
        return self.summary

    def wait(self, timeout_s: float | None = None) -> SessionEnded:
        """Wait until the session ends by itself, and return its summary.

        Args:
            timeout_s: How long to wait at most, in seconds; None: without limit.

        Raises:
            SessionFailedError: If the session failed.
            TimeoutError: If it still runs.
        """
        with self.blocking():
            over = self._over.wait(timeout_s)
        if not over:
            raise TimeoutError(f"the session still runs after {timeout_s} s")
        if self._failure is not None:
            raise self._failure
        return self.stop()

    def kill(self) -> None:
        """Kill the supervisor, also one that is being spawned; its children end with it."""
        self._supervisor.kill()
        with self._taking:
            self._leave_loop()  # it may be closed before it notices the end

    @contextlib.contextmanager
    def blocking(self) -> Iterator[None]:
        """Have threads read and write meanwhile: the caller waits, and may block the loop."""
        with self._taking:
            self._blocking += 1
            self._leave_loop()
        try:
            yield
        finally:
            with self._taking:
                self._blocking -= 1

    # -- messages -----------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Send a message to the components that accept its type (`SendText`, `SetMuted`, …).

        Raises:
            TypeError: If a field has a type that cannot be sent.
        """
        if isinstance(message, StopSession):
            self._is_ending = True
        if isinstance(message, ProgramCapture):
            self._outbox.put_sound(message, (message.pcm,))
        else:
            in_order = isinstance(message, ProgramToolAnswer) and message.in_order
            self._outbox.put(encode(message), straight=not in_order)
        self._serve()

    def send_sound(self, message: ProgramCapture, pieces: Sequence[bytes]) -> None:
        """Send captured sound, which is copied once: from its pieces into the frame.

        Args:
            message: What there is to say of it; its ``pcm`` is not used.
            pieces: What this field is to be.
        """
        self._outbox.put_sound(message, pieces)
        self._serve()

    def _serve(self) -> None:
        """Have threads read and write if the loop does not any more."""
        if self._loop_reads and not self._may_loop_read():
            with self._taking:
                self._leave_loop()

    def inject(self, component: str, fault: str) -> None:
        """Inject a fault into a component, to test that the session survives it.

        The session must have been made with ``probes=True``.

        Args:
            component: Its name, such as ``speaker``.
            fault: One of `messages.FAULTS`, or the name of a signal, such as ``SIGKILL``.

        Raises:
            ConfigurationError: If the session was made without ``probes=True``.
            ValueError: If there is no such fault or component.
        """
        if not self._settings.get("probes"):
            raise ConfigurationError("faults can only be injected into Session(probes=True, ...)")
        if fault not in FAULTS and fault not in signal.Signals.__members__:
            raise ValueError(
                f"no fault is named {fault!r}; there are {', '.join(FAULTS)}, and signal names"
            )
        names = [spec.name for spec in SPECS] + list(self._settings.get("components", ()))
        if component not in names:
            raise ValueError(f"no component is named {component!r}; there are {', '.join(names)}")
        self.send(Inject(component, fault))

    def events(self, *kinds: type[Message]) -> EventStream:
        """Return a stream of events of these types; without arguments, of all domain events."""
        stream = EventStream(kinds or (Event,), self._QUEUED, self._forget, self._waiting)
        self.listen(stream)
        return stream

    def listen(self, listener: Listener) -> None:
        """Add a listener; it gets the messages of its types, and None at the session's end."""
        with self._lock:
            self._streams.append(listener)
            ended = self._over.is_set()
        if ended:
            listener.put(None)
        else:
            self.subscribe()

    def subscribe(self) -> None:
        """Subscribe to the message types that the listeners want now."""
        if self._supervisor.pid is not None:
            self.send(Subscribe(self._wanted()))

    def set_tools(
        self, tools: ToolSet | None = None, *, builtin_tools: Sequence[str] | None = None
    ) -> None:
        """Change the tools that the model may call, from its next answer on.

        Args:
            tools: Functions of the program, which replace its earlier ones; None: no change.
            builtin_tools: Names of the built-in tools to use; None: no change.

        Raises:
            ConfigurationError: If the session was started without tools of the program.
        """
        specs = None
        if tools is not None:
            if self._hosting is None or self._hosting.set_tools(tools) is False:
                raise ConfigurationError(
                    "tools: the session was started without tools of the program; "
                    "start it with tools=Tools(), even if that is empty"
                )
            specs = tools.specs()
        self.send(SetTools(specs, None if builtin_tools is None else tuple(builtin_tools)))

    def confirm(self, timeout_s: float = 5.0) -> None:
        """Wait until what was sent before is safe, whichever process dies.

        Args:
            timeout_s: How long to wait at most.

        Raises:
            TimeoutError: If the supervisor does not answer in time.
            SupervisorDiedError: If the session is over.
        """
        with self.blocking():
            confirmed = self._outbox.wait_confirmed(timeout_s)
        if not confirmed:
            if self._over.is_set():
                raise SupervisorDiedError("the session is over")
            raise TimeoutError(f"the supervisor has not confirmed within {timeout_s:g} s")

    async def confirm_async(self, timeout_s: float = 5.0) -> None:
        """Do the same as `confirm`, without blocking the event loop."""
        await _off_loop(lambda: self.confirm(timeout_s))

    async def status_async(self, timeout_s: float = 5.0) -> dict[str, dict[str, Any]]:
        """Return the same as `status`, without blocking the event loop."""
        return await _off_loop(lambda: self.status(timeout_s))

    def status(self, timeout_s: float = 5.0) -> dict[str, dict[str, Any]]:
        """Return pid, state, restarts, mailbox and memory of each component.

        Raises:
            TimeoutError: If the supervisor does not answer in time.
            SupervisorDiedError: If the session is over.
        """
        return self._status(timeout_s).components

    def processes(self, timeout_s: float = 5.0) -> dict[str, dict[str, Any]]:
        """Return what `status` returns, and pid, memory and CPU time of supervisor and sandbox.

        Raises:
            TimeoutError: If the supervisor does not answer in time.
            SupervisorDiedError: If the session is over.
        """
        status = self._status(timeout_s)
        return {**status.components, **status.others}

    async def processes_async(self, timeout_s: float = 5.0) -> dict[str, dict[str, Any]]:
        """Return the same as `processes`, without blocking the event loop."""
        return await _off_loop(lambda: self.processes(timeout_s))

    def _status(self, timeout_s: float) -> Status:
        call_id = next(self._call_ids)
        answer = self._answers[call_id] = queue.SimpleQueue()
        if self._over.is_set():
            raise SupervisorDiedError("the session is over")
        self.send(StatusRequest(call_id))
        try:
            with self.blocking():
                status = answer.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError(f"no status within {timeout_s:g} s") from None
        finally:
            del self._answers[call_id]
        if status is None:
            raise SupervisorDiedError("the session is over")
        return status

    def __enter__(self) -> Session:
        try:
            return self.start()
        except KeyboardInterrupt:  # `__exit__` is not called then
            self.kill()
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(*((RtvoiceError,) if kind is not None else ())):
            self.stop()

    async def __aenter__(self) -> Session:
        self._loop = asyncio.get_running_loop()
        try:
            return await _off_loop(self.start)
        except asyncio.CancelledError:  # `__aexit__` is not called then
            self.kill()
            raise

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await _off_loop(partial(self.__exit__, kind, *_))

    # -- reading and writing ------------------------------------------------------------------

    def _start_threads(self, problem: Exception | None) -> None:
        reading = partial(self._read, problem)
        for name, target in (("read", reading), ("write", self._outbox.run)):
            run = partial(self._context.copy().run, target)
            threading.Thread(target=run, name=f"rtvoice-{name}", daemon=True).start()

    def _read(self, problem: Exception | None) -> None:
        """Take the messages of the supervisors until the loop does, or the session is over.

        Args:
            problem: The exception with which reading on the loop has ended; None: there is none.
        """
        try:
            if problem is not None and not isinstance(problem, EOFError | FrameError):
                raise problem
            for message in self._supervisor.messages(self._may_resume, problem):
                with self._taking:
                    self._take(message)
                    if self._hand_over():
                        return
        except Exception as error:  # noqa: BLE001 - of the program's code, such as a log filter
            why = f"the program failed to handle a message: {type(error).__name__}: {error}"
            self._failure = self._failure or SessionFailedError(why)
            self._failure.__cause__ = error
            self._supervisor.kill()
            self._supervisor.wait()
        self._end()

    def _hand_over(self) -> bool:
        """Let the loop read from now on, and return True, if it can; on the reading thread."""
        if self._loop is None or self._blocking or not self._started.is_set():
            return False
        if self._over.is_set() or not self._may_loop_read():
            return False
        try:
            self._loop.call_soon_threadsafe(self._join_loop)
        except RuntimeError:  # it was closed meanwhile
            return False
        self._loop_reads = True
        return True

    def _may_loop_read(self) -> bool:
        return self._loop is not None and can_watch(self._loop)

    def _join_loop(self) -> None:
        """Begin to read and write on the loop."""
        with self._taking:
            if not self._loop_reads or self._watch is not None or self._loop is None:
                return  # a call that blocks has begun meanwhile
            try:
                watch = self._supervisor.watch(self._loop, self._readable)
            except (NotImplementedError, OSError) as error:
                if isinstance(error, NotImplementedError):
                    self._loop = None  # it cannot watch sockets: threads do it all the time
                self._leave_loop()
                return
            tags = self._hosting.direct_tags if self._hosting is not None else ()
            self._direct = self._supervisor.direct(self._loop, tags, self._readable_directly)
            self._watch = watch
            self._outbox.join(self._watch, self._direct)
            self._let_pass()
            self._take_arrived(reads=False)  # what the thread has read and not taken

    def _let_pass(self) -> None:
        """Answer the last `AskToPass`, if messages can come straight."""
        if self._asked_to_pass and self._direct is not None and self._direct.receives:
            self.send(MayPass(self._asked_to_pass))

    def _leave_loop(self, problem: Exception | None = None) -> None:
        """Read and write on threads, if the loop does; with the lock held."""
        if not self._loop_reads:
            return
        self._loop_reads = False
        self._outbox.leave()
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.leave()
        direct, self._direct = self._direct, None
        if direct is not None:
            direct.leave()
            try:
                for message in direct.drain():
                    self._take(message)
            except Exception as error:  # noqa: BLE001 - `_read` distinguishes them
                problem = problem or error
            direct.close()
        self._start_threads(problem)

    def _is_watching(self) -> bool:
        return self._watch is not None

    def _readable(self) -> None:
        self._take_arrived(reads=True)

    def _readable_directly(self) -> None:
        self._take_arrived(reads=False)

    def _take_arrived(self, *, reads: bool) -> None:
        """Take what has arrived, on the loop's thread."""
        with self._taking:
            direct = self._direct
            if direct is None:
                return
            try:
                for message in self._supervisor.arrived(reads=reads, direct=direct):
                    self._take(message)
                    if not self._is_watching():  # what was called blocks: a thread takes the rest
                        return
            except Exception as error:  # noqa: BLE001 - `_read` distinguishes them
                self._leave_loop(error)

    def _waiting(self) -> contextlib.AbstractContextManager[None]:
        """Return the context for waiting for an event: only on the loop's thread does it block."""
        on_loop = self._loop is not None and running_loop() is self._loop
        return self.blocking() if on_loop or not self._may_loop_read() else contextlib.nullcontext()

    # -- messages of the supervisor -----------------------------------------------------------

    def _order(self, directory: str, resumed: bool) -> StartSession:
        """Return the first message to a supervisor."""
        return StartSession(self._settings, self._wanted(), directory, self._defaults, resumed)

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
        with self._lock, contextlib.suppress(ValueError):  # it was closed before
            self._streams.remove(stream)

    def _may_resume(self) -> bool:
        """Return whether a supervisor that has died is to be replaced."""
        is_over = self.summary is not None or self._failure is not None or self._is_ending
        return self._started.is_set() and not is_over

    def _take(self, message: Message) -> None:
        match message:
            case SessionStarted():
                self.started = message
                self._started.set()
                message = self._supervisor.restarted(message) or message
            case Confirmed(number):
                self._outbox.confirmed(number)
                return
            case AskToPass(number):
                self._asked_to_pass = number
                self._let_pass()
                return
            case Wanted(tags):
                self._outbox.wanted = frozenset(tags)
                return
            case SessionEnding():
                self._is_ending = True
            case Turn(item_id=its_id) | ToolCall(call_id=its_id) | ToolAnswer(call_id=its_id):
                # After a death of the supervisor, some are published again.
                if (known := (type(message), its_id)) in self._passed_on:
                    return
                self._passed_on[known] = None
                if len(self._passed_on) > _REMEMBERED:
                    del self._passed_on[next(iter(self._passed_on))]
            case ComponentCrashed(component):
                self._crashes[component] = message
                if component == "microphone":
                    self._outbox.doubt()
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
            case Log("CRITICAL", text, component="supervisor"):
                self._supervisor.bug = text
                _log(message)
            case Log():
                _log(message)
        self._deliver(message)

    def _deliver(self, message: Message) -> None:
        if self._hosting is not None and isinstance(message, self._hosting.wants):
            self._hosting.receive(message)
        with self._lock:
            streams = [stream for stream in self._streams if isinstance(message, stream.kinds)]
        for stream in streams:
            stream.put(message)

    def _end(self) -> None:
        if self.summary is None and self._failure is None:
            self._failure = self._supervisor.failure or SupervisorDiedError(
                f"the supervisor has ended: {ending(self._supervisor.exit_code)}"
            )
        self._outbox.close()
        self._supervisor.clean_up()
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


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as plain values.

    Raises:
        ConfigurationError: If one is unknown or out of range.
    """
    valid = checked_settings(settings)
    return {name: msgspec.to_builtins(getattr(valid, name)) for name in settings}


_Result = TypeVar("_Result")


async def _off_loop(call: Callable[[], _Result]) -> _Result:
    """Run a blocking call on a new thread; the loop's default executor may be busy."""
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

    in_context = partial(contextvars.copy_context().run, run)
    threading.Thread(target=in_context, name="rtvoice-start-stop", daemon=True).start()
    return await future


def _log(record: Log) -> None:
    logger = logging.getLogger(f"rtvoice.{record.component}")
    level = level_of(record.level)
    if logger.isEnabledFor(level):
        fields = {key: msgspec.msgpack.decode(value) for key, value in record.fields.items()}
        extra = " ".join(f"{key}={value!r}" for key, value in fields.items())
        text = f"{record.text} {extra}".rstrip()
        logger.log(level, "%s", text, extra={"fields": fields})
