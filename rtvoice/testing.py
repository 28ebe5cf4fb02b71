"""A Realtime server in the test's process, to test a voice agent without a key.

    from rtvoice.testing import sandbox  # in conftest.py: a pytest fixture

    def test_the_agent_greets(sandbox):
        with Session(server=sandbox.url, greeting="Hello!", input="silence", output="null"):
            sandbox.expect("response.create")

Without pytest, use the context manager `SandboxServer`. docs/sandbox.md has the details.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from rtvoice.sandbox.brain import RequestedCall, SpokenAnswer, ToolCalls
from rtvoice.sandbox.faults import CLIENT_EVENTS, SERVER_EVENTS, Event, FaultError, parse_fault
from rtvoice.sandbox.listen import RecogniserPool
from rtvoice.sandbox.server import PATH, Sandbox, listen_on
from rtvoice.sandbox.speak import choose_voice

__all__ = ["Event", "FaultError", "SandboxServer", "speech"]

T = TypeVar("T")

_START_S: Final = 30.0
_STOP_S: Final = 5.0
_SHOWN: Final = 20


class SandboxServer:
    """A Realtime server on a free local port, which runs while its `with` block does.

    It runs on its own thread; its methods may be called from any other thread. Connect to it by
    `Session(server=server.url)`, or with OpenAI's library by `OpenAI(base_url=server.http_url)`.

    Args:
        pace: Speed at which it sends speech, as a multiple of real time; 0: as fast as possible.
        max_session_s: Time after which it ends a session, in seconds.
        timeout_s: Time that `expect` and `wait_for` wait by default, in seconds.

    Attributes:
        url: `ws://127.0.0.1:PORT/v1/realtime`.
        http_url: `http://127.0.0.1:PORT/v1`.
        events: All events of clients and server, as dicts, in the order sent. Audio is base64.
    """

    # One class with many attributes: what it was made with, its thread and loop, and its record.

    def __init__(
        self, *, pace: float = 4.0, max_session_s: float = 3600.0, timeout_s: float = 10.0
    ) -> None:
        self.url = ""
        self.http_url = ""
        self.events: list[Event] = []
        self._pace = pace
        self._max_session_s = max_session_s
        self._timeout_s = timeout_s
        self._news = threading.Condition()
        self._expected: set[int] = set()
        self._connections = 0
        self._audio = bytearray()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="rtvoice sandbox", daemon=True)
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._sandbox: Sandbox | None = None
        self._end = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._started.wait(_START_S):
            raise TimeoutError(f"the sandbox did not listen within {_START_S:g} s")
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all sessions and the server. Later calls do nothing."""
        if self._loop is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_STOP_S)

    # The record.

    @property
    def received(self) -> list[Event]:
        """The events that clients have sent so far, in order."""
        return [event for event in self.events if event["type"] not in SERVER_EVENTS]

    @property
    def sent(self) -> list[Event]:
        """The events that the server has sent so far, in order."""
        return [event for event in self.events if event["type"] in SERVER_EVENTS]

    @property
    def audio(self) -> bytes:
        """All audio that clients have appended, in the format that they have set."""
        return bytes(self._audio)

    @property
    def connections(self) -> int:
        """How many connections clients have made."""
        return self._connections

    def of(self, kind: str) -> list[Event]:
        """Return the events of a type so far, in order."""
        return [event for event in self.events if event["type"] == kind]

    def expect(
        self,
        kind: str,
        where: Callable[[Event], bool] = lambda _: True,
        *,
        timeout_s: float | None = None,
    ) -> Event:
        """Wait for an event of a type, from a client or from the server, and return it.

        Each event is returned once: a second call waits for the second event.

        Args:
            kind: The type, such as `conversation.item.truncate` or `response.done`.
            where: A condition that the event must meet too.
            timeout_s: Seconds to wait; None: the `timeout_s` of the server.

        Raises:
            AssertionError: No such event came in time; the message lists the events that came.
            ValueError: There is no such type.
        """
        if kind not in CLIENT_EVENTS and kind not in SERVER_EVENTS:
            raise ValueError(f"there is no event {kind!r}")
        found: list[Event] = []

        def has_come() -> bool:
            for event in self.of(kind):
                if id(event) not in self._expected and where(event):
                    found.append(event)
                    return True
            return False

        self.wait_for(has_come, f"no {kind}", timeout_s=timeout_s)
        self._expected.add(id(found[0]))
        return found[0]

    def wait_for(
        self,
        condition: Callable[[], object],
        otherwise: str = "it did not come true",
        *,
        timeout_s: float | None = None,
    ) -> None:
        """Wait until a condition is true. It is checked at each event.

        Raises:
            AssertionError: It was not true in time; the message is `otherwise` and the events that
                came.
        """
        limit = self._timeout_s if timeout_s is None else timeout_s
        with self._news:
            if not self._news.wait_for(condition, limit):
                kinds = [event["type"] for event in self.events]
                shown = ", ".join(_counted(kinds)[-_SHOWN:]) or "nothing"
                raise AssertionError(f"{otherwise} within {limit:g} s. What came: {shown}")

    # Instructions to the server.

    def say(self, text: str) -> None:
        """Set the next answer, whatever the user says."""
        self._script.answers.append(SpokenAnswer(text))

    def call(self, tool: str, **arguments: Any) -> None:
        """Make the next answer a call of this tool."""
        self.call_all((tool, arguments))

    def call_all(self, *calls: tuple[str, Mapping[str, Any]]) -> None:
        """Make the next answer several tool calls at once; each is a tool and its arguments."""
        self._script.answers.append(
            ToolCalls(
                tuple(RequestedCall(tool, json.dumps(dict(arguments))) for tool, arguments in calls)
            )
        )

    def hear(self, text: str) -> None:
        """Set the transcript of the next spoken turn, whatever its audio is."""
        self._script.hearings.append(text)

    def misbehave(self, *faults: str) -> None:
        """Inject faults into a connection, such as `drop after response.created`.

        The connection is the newest open one or, if none is open, the next one. docs/sandbox.md
        lists the faults.

        Raises:
            FaultError: There is no such fault.
        """
        for fault in [parse_fault(each) for each in faults]:
            self._do(self._running.command(fault))

    # The thread.

    @property
    def _running(self) -> Sandbox:
        if self._sandbox is None or not self._thread.is_alive():
            raise RuntimeError("the sandbox is not running: use it in a `with` statement")
        return self._sandbox

    @property
    def _script(self) -> Any:
        return self._running.script

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(self._timeout_s)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - `__enter__` raises it
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        listener = RecogniserPool()
        self._sandbox = Sandbox(
            listener,
            choose_voice(),
            pace=self._pace,
            max_session_s=self._max_session_s,
            watch=self._saw,
        )
        async with await listen_on(self._sandbox, host="127.0.0.1", port=0) as server:
            port = server.sockets[0].getsockname()[1]
            self.url = f"ws://127.0.0.1:{port}{PATH}"
            self.http_url = f"http://127.0.0.1:{port}{PATH.removesuffix('/realtime')}"
            self._started.set()
            await self._end.wait()
        await listener.close()

    def _saw(self, connection: int, event: Event) -> None:
        with self._news:
            self._connections = max(self._connections, connection)
            self.events.append(event)
            if event["type"] == "input_audio_buffer.append":
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    self._audio += base64.b64decode(event["audio"])
            self._news.notify_all()


def speech(text: str) -> bytes:
    """Return a spoken text: int16 little-endian mono, 24 kHz, with silence before and after it.

    Raises:
        FileNotFoundError: espeak-ng is not installed.
    """
    from actors.devices.sound.resample import resample

    program = shutil.which("espeak-ng")
    if program is None:
        raise FileNotFoundError("espeak-ng is not installed: apt-get install espeak-ng")
    wav = subprocess.run(
        [program, "-v", "en-us", "-s", "165", "--stdin", "--stdout"],
        input=text.encode(),
        capture_output=True,
        check=True,
    ).stdout
    pcm = wav[44:]
    return bytes(28_800) + resample(pcm[: len(pcm) // 2 * 2], 22_050, 24_000) + bytes(38_400)


def _counted(kinds: list[str]) -> list[str]:
    """Return the list with each run of equal names as one entry with its count."""
    counted: list[tuple[str, int]] = []
    for kind in kinds:
        if counted and counted[-1][0] == kind:
            counted[-1] = (kind, counted[-1][1] + 1)
        else:
            counted.append((kind, 1))
    return [kind if number == 1 else f"{kind} ({number})" for kind, number in counted]


try:
    import pytest
except ModuleNotFoundError:
    pass  # only the fixture needs pytest
else:
    __all__ += ["sandbox"]

    @pytest.fixture
    def sandbox() -> Iterator[SandboxServer]:
        """Provide a test with its own sandbox."""
        with SandboxServer() as server:
            yield server
