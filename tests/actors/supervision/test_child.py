"""A child with its real mailbox and accounting page; the test plays its processes."""

from __future__ import annotations

import heapq
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from actors.supervision.child import Child
from actors.supervision.hub import SessionStage
from actors.supervision.lifecycle import Phase
from actors.supervision.specs import ChildSpec
from messages import (
    CONTROL,
    CapturedAudio,
    ComponentCrashed,
    ComponentParked,
    Crashed,
    Hello,
    Init,
    Log,
    Message,
    Open,
    Ready,
    Room,
    Save,
    Say,
    SendText,
    SessionInfo,
    Settings,
    Stop,
    decode,
    encode,
    tag_of,
)
from messages.transport.mailbox import Suspect
from messages.transport.page import MAIL, Page, Slot
from messages.transport.saved import StateFile


class FakeLoop:
    """Timers on a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self.now

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (self.now + seconds, next(self._order), call))

    def pass_s(self, seconds: float) -> None:
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            self.now, _, call = heapq.heappop(self._timers)
            call()
        self.now = end


class FakeProcess:
    """A process of a component: does nothing that the test does not say."""

    forked = True

    def __init__(
        self,
        loop: FakeLoop,
        name: str,
        environment: dict[str, str],
        *,
        slot: Slot,
        loads: bool,
        read: Callable[[bytes], None],
        said: Callable[[str], None],
        ended: Callable[[Any], None],
    ) -> None:
        self.pid = 1
        self.loads = loads
        self.failure = self.trace = ""
        self.cause = "killed by SIGKILL"
        self.killed_from_outside, self.in_order = True, False
        self.connected = True
        self.epoch = 0
        self.inbox: list[bytes] = []
        self.runs = False
        """Whether an incarnation of its actor runs."""
        self.stopped = False
        self.state: bytes | None = None
        """What its actor was opened with."""
        self._handled = 0
        self._slot, self._read, self._ended = slot, read, ended

    # What the child asks of it.

    def write(self, frames: list[bytes]) -> None:
        for frame in frames:
            match decode(frame) if tag_of(frame) < 10 else None:
                case Init() if not self.loads:
                    pass
                case Init():
                    accepts = ((SendText.tag(), CONTROL), (Say.tag(), CONTROL))
                    self.says(Hello(self.pid, accepts, described=_NOTHING))
                case Open(incarnation, state=state):
                    self.state = state
                    self.epoch = incarnation & 255
                    self.inbox.clear()
                    self._handled, self.runs = 0, True
                    self.says(Ready())
                case Stop():
                    self.stopped = True
                case _:
                    self.inbox.append(frame)

    def kill(self, why: str = "") -> None:
        self.failure = self.failure or why

    def kill_later(self) -> None: ...

    def look(self) -> bool:
        return False

    def is_stopped(self) -> bool:
        return False

    def wait(self) -> None: ...

    # What the test has it do.

    def says(self, message: Message) -> None:
        self._read(encode(message, self.epoch))

    def begins(self) -> bytes:
        """Take the next message in hand."""
        self._slot.begin(MAIL, self._handled + 1)
        return self.inbox.pop(0)

    def handles(self) -> None:
        """Finish the message in hand."""
        self._handled += 1
        wants_room = self._slot.settle(MAIL, self._handled)
        self._slot.end()
        if wants_room:
            self.says(Room())

    def raises(self) -> None:
        self.runs = False
        self.says(Crashed("ValueError: no", "", "handle"))

    def ends(self) -> None:
        self.connected = self.runs = False
        self._ended(self)


_NOTHING: Any = b"\x80"


class FakeHub:
    """The hub of one child: collects what is told of it."""

    def __init__(self, folder: Path, linger_s: float = 0.0) -> None:
        self.loop = FakeLoop()
        self.settings = Settings()
        self.stage = SessionStage.STARTING
        self.wanted = ()
        self.directory = folder
        self.recorded = 0
        """How often the record was to be written."""
        self.dead: list[bytes] = []
        self.processes: list[FakeProcess] = []
        self.failed = ""
        self.loads = True
        """Whether later processes can import the component."""
        self.parked = False
        self.not_told_of_crash: list[object] = []
        """For each `ComponentCrashed`, the component that it is not sent to."""
        slot = Page(folder / "page", create=True).slot(0)

        def start(*arguments: Any, **calls: Any) -> FakeProcess:
            process = FakeProcess(*arguments, slot=slot, loads=self.loads, **calls)
            self.processes.append(process)
            return process

        spec = ChildSpec(name="echo", target="", window=3, linger_s=linger_s)
        self.child = Child(self, spec, slot, start)  # type: ignore[arg-type]
        self.child.launch()
        self.stage = SessionStage.RUNNING

    @property
    def process(self) -> FakeProcess:
        return self.processes[-1]

    def init_of(self, _: Child) -> Init:
        return Init("echo", "", "", 0)

    def session_info(self, *, first: bool) -> SessionInfo:
        return SessionInfo(epoch_ns=0, directory="", first=first)

    def environment_of(self, _: str) -> dict[str, str]:
        return {}

    def dead_letter(self, _: str, suspect: Suspect, reason: str) -> None:
        self.dead.append(suspect.frame)

    def open_next(self) -> None:
        self.loop.later(0, self.child.open)

    def fail(self, reason: str, component: str = "") -> None:
        self.failed = reason

    def state_changed(self) -> None:
        self.recorded += 1

    def register(self, _: Child) -> None: ...
    def child_open(self, _: Child) -> None: ...
    def child_closed(self) -> None: ...
    def publish(self, message: Message) -> None:
        self.parked |= isinstance(message, ComponentParked)

    def log(self, *_: str) -> None: ...
    def log_record(self, _: str, record: Log) -> None: ...
    def route(self, frame: bytes, source: object = None) -> None:
        if tag_of(frame) == ComponentCrashed.tag():
            self.not_told_of_crash.append(source)


ORDERS = st.lists(
    st.sampled_from(["send", "send", "begin", "handle", "handle", "raise", "end", "pass", "check"]),
    max_size=80,
)


def ids(frames: list[bytes]) -> list[str]:
    """Return which of the messages of `order` these are."""
    said = [decode(frame) for frame in frames]
    return [it.text for it in said if isinstance(it, Say | SendText)]


def order(number: int) -> bytes:
    """Return a message with a number: each second one may be begun again after a crash."""
    text = str(number)
    return encode(SendText(text, text) if number % 2 else Say(text))


@given(orders=ORDERS)
def test_each_accepted_message_is_handled_reported_dead_or_still_waiting(
    orders: list[str],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        hub = FakeHub(Path(folder))
        hub.loop.pass_s(0)
        sent = 0
        handled: list[bytes] = []
        in_hand: bytes | None = None
        for what in orders:
            process = hub.process
            can = process.connected and process.runs
            match what:
                case "send":
                    hub.child.put(order(sent))
                    sent += 1
                case "begin" if can and in_hand is None and process.inbox:
                    in_hand = process.begins()
                case "handle" if can and in_hand is not None:
                    handled.append(in_hand)
                    in_hand = None
                    process.handles()
                case "raise" if can and in_hand is not None:
                    in_hand = None
                    process.raises()
                case "end" if process.connected:
                    in_hand = None
                    process.ends()
                case "pass":
                    hub.loop.pass_s(31.0)
                case "check":
                    hub.child.check(hub.loop.time(), 1e9)

        told = ids(handled) + ids(hub.dead)
        hub.child.mailbox.settle(hub.child.slot)
        waiting = sum(hub.child.mailbox.unhandled().values())

        assert len(set(told)) == len(told), "handled and told dead, or twice"
        assert len(told) + waiting == sent
        assert ids(handled) == sorted(ids(handled), key=int)
        assert sum(process.connected for process in hub.processes) <= 1


def test_a_component_is_not_told_of_its_own_crash_since_that_would_count_as_progress(
    tmp_path: Path,
) -> None:
    hub = FakeHub(tmp_path)
    hub.loop.pass_s(0)

    hub.process.ends()

    assert hub.not_told_of_crash == [hub.child]


def test_what_is_sent_while_it_is_down_is_handled_by_the_next_process(tmp_path: Path) -> None:
    hub = FakeHub(tmp_path)
    hub.loop.pass_s(0)
    hub.process.ends()
    hub.process.ends()  # the second one too: the third has to wait
    hub.child.put(order(1))
    assert hub.child.phase is Phase.DOWN

    hub.loop.pass_s(1.0)

    assert ids(hub.process.inbox) == ["1"]


def test_the_next_process_has_what_was_saved_last_whether_the_hub_was_sent_it_or_not(
    tmp_path: Path,
) -> None:
    hub = FakeHub(tmp_path)
    hub.loop.pass_s(0)
    hub.process.says(Save(b"sent"))
    StateFile(tmp_path, "echo").write(b"written")

    hub.process.ends()
    hub.loop.pass_s(1.0)

    assert hub.process.state == b"written"
    assert hub.child.state == b"written"  # for the record, too
    assert hub.recorded == 2


def test_the_next_process_has_the_first_state_of_which_the_hub_was_sent_nothing(
    tmp_path: Path,
) -> None:
    hub = FakeHub(tmp_path)
    hub.loop.pass_s(0)
    StateFile(tmp_path, "echo").write(b"written")

    hub.process.ends()
    hub.loop.pass_s(1.0)

    assert hub.process.state == b"written"


def test_it_is_stopped_once_its_mail_is_sent(tmp_path: Path) -> None:
    hub = FakeHub(tmp_path)
    hub.loop.pass_s(0)
    for number in range(5):  # three may be in flight
        hub.child.put(order(number))
    hub.stage = SessionStage.ENDING
    hub.child.close()
    assert not hub.process.stopped

    for _ in range(5):
        hub.process.begins()
        hub.process.handles()

    assert hub.process.stopped
    hub.process.ends()
    assert hub.child.gone


def test_work_done_by_an_earlier_process_is_no_progress_of_one_that_dies_while_loading(
    tmp_path: Path,
) -> None:
    hub = FakeHub(tmp_path)
    hub.loop.pass_s(0)
    hub.child.put(order(1))
    hub.process.begins()
    hub.process.handles()
    hub.process.ends()

    hub.loads = False
    for _ in range(6):
        hub.process.ends()
        hub.loop.pass_s(2.0)
        if hub.child.phase is Phase.PARKED:
            break

    assert hub.parked


def test_sound_is_collected_for_one_that_lingers(tmp_path: Path) -> None:
    hub = FakeHub(tmp_path, linger_s=0.2)
    hub.loop.pass_s(0)
    hub.process.inbox.clear()

    for number in range(3):
        hub.child.put(encode(CapturedAudio(bytes(960), number * 480, 0)))
        hub.loop.pass_s(0.05)
    assert hub.process.inbox == []
    hub.loop.pass_s(0.06)
    assert len(hub.process.inbox) == 3
    hub.process.begins()
    hub.process.handles()
    hub.child.put(encode(CapturedAudio(bytes(960), 1440, 0)))
    hub.loop.pass_s(0.21)

    assert len(hub.process.inbox) == 3
