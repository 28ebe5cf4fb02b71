"""The process around the core under test: its mailbox, timer, connections and saved state."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from actors.conversation import ITEM_MESSAGES
from actors.realtime import wire
from actors.realtime.core.actions import (
    ConnectAfter,
    Disconnect,
    KeepOutput,
    Publish,
    SaveState,
    SendEvent,
    Swap,
    WriteLog,
)
from actors.realtime.core.core import Core
from actors.realtime.core.state import Saved
from actors.realtime.pictures import Pictures
from messages import CapturedAudio, Message, OutputReplaced, SendImage, SessionInfo, ToolAnswer
from tests.actors.realtime.core.world.clock import MS, NS
from tests.actors.realtime.core.world.line import Line

if TYPE_CHECKING:
    from tests.actors.realtime.core.world.world import World

__all__ = ["Process"]

_PICTURES = Pictures(Path(tempfile.mkdtemp(prefix="rtvoice-world-")))
atexit.register(shutil.rmtree, _PICTURES._folder, ignore_errors=True)


class Process:
    """Does for the core what the actor does: its mailbox, its timer, its connections, its state.

    It is killed and started again (`die`), and its connections break (`drop`). When the supervisor
    dies, what it does until it notices reaches nobody but the server (`orphan`).
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock = world.clock
        self.lines: dict[bool, Line] = {}
        """The connections that are open, by whether they are spare ones."""
        self.all_lines: list[Line] = []
        """All connections so far."""
        self.deaths = 0
        self.changes: list[Message] = []
        """The changes of the conversation that the next history is to know of."""
        self.outputs: list[ToolAnswer | OutputReplaced] = []
        """The outputs among them, which the next process is to know of too."""
        self._is_orphan = False
        self._offline_until = 0
        self._timer_ns: int | None = None
        self._saved = b""
        self._epoch = 0
        self._dead = False
        self._mail: list[Callable[[Core, int], None]] = []
        self._last_mail: Message | None = None
        self._info = SessionInfo(epoch_ns=self.clock.began, directory="", server_url="ws://x")
        self.core = Core(world.settings, self._info, None, self.clock.now)

    def begin(self) -> None:
        self.tell_core(lambda core, now: core.opened(now))

    # -- its mailbox --------------------------------------------------------------------------

    def tell(self, message: Message, *, is_kept: bool = False) -> None:
        """A message for the core, through its mailbox.

        Args:
            message: The message.
            is_kept: Whether it is delivered even if the supervisor dies: commands of the program.
        """
        if not isinstance(message, CapturedAudio):
            self.world.burn()
        supervisor = self.world.supervisors

        def hand_over(core: Core, now: int) -> None:
            if is_kept or self.world.supervisors == supervisor:
                self._hand_over(core, message, now)

        self.clock.after_ns(MS // 2, lambda: self._deliver(message, hand_over))

    def tell_core(self, what: Callable[[Core, int], None]) -> None:
        if self._dead:  # its mail waits
            self._mail.append(what)
            return
        what(self.core, self.clock.now)
        self._perform()

    def _deliver(self, message: Message, hand_over: Callable[[Core, int], None]) -> None:
        if self._is_orphan:  # the next one gets it
            self._mail.append(hand_over)
            return
        if not self._dead:
            self._last_mail = message
        self.tell_core(hand_over)

    def _hand_over(self, core: Core, message: Message, now: int) -> None:
        if isinstance(message, SendImage):
            core.image(message, _PICTURES.keep(message), now)
            core.tick(now)
        elif core.message(message, now):
            core.tick(now)

    # -- what the core wants done -------------------------------------------------------------

    def _perform(self) -> None:
        for action in self.core.take():
            match action:
                case SendEvent(event, spare):
                    if spare in self.lines:
                        self._send(event, self.lines[spare])
                case Publish() | SaveState() | KeepOutput() if self._is_orphan:
                    pass
                case Publish(message):
                    if isinstance(message, ToolAnswer | OutputReplaced):
                        self.outputs.append(message)
                    elif isinstance(message, ITEM_MESSAGES):
                        self.changes.append(message)
                    self.world.publish(message)
                case KeepOutput(answer):
                    self.outputs.append(answer)
                case SaveState(state):
                    self._saved = bytes(state)
                case ConnectAfter(seconds, _, spare):
                    self._close(spare=spare)
                    epoch = self._epoch
                    self.clock.after(
                        seconds + 0.05, lambda s=spare, e=epoch: self._connect(e, spare=s)
                    )
                case Disconnect(_, spare):
                    self._close(spare=spare)
                case Swap():
                    self._close(spare=False)
                    self.lines[False] = self.lines.pop(True)
                    self.lines[False].spare = False
                case WriteLog():
                    pass
        self._set_timer()

    def _send(self, event: wire.ClientEvent, line: Line) -> None:
        if isinstance(event, wire.ItemCreate):
            event.item = _PICTURES.filled(event.item)
        data = wire.encode(event)
        line.send(data)
        if isinstance(event, wire.ResponseCreate):
            self.world.asked(msgspec.json.decode(data))

    def _set_timer(self) -> None:
        due = self.core.next_deadline(self.clock.now)
        if due is not None and (self._timer_ns is None or due < self._timer_ns):
            self._timer_ns = due
            self.clock.after_ns(due - self.clock.now, lambda: self._tick(due))

    def _tick(self, due: int) -> None:
        if self._timer_ns == due and not self._dead:
            self._timer_ns = None
            self.tell_core(lambda core, now: core.tick(now))

    def _connect(self, epoch: int, *, spare: bool) -> None:
        if epoch != self._epoch:
            return
        fails = spare and self.world.is_rough and self.world.random.random() < 0.5
        if self.clock.now < self._offline_until or fails:
            self.tell_core(lambda core, now: core.connect_failed(0, "", "down", now, spare=spare))
            return
        self.tell_core(lambda core, now: core.connected(now, now, spare=spare))
        self.lines[spare] = Line(self.world, spare=spare)
        self.all_lines.append(self.lines[spare])

    def _close(self, *, spare: bool) -> None:
        line = self.lines.pop(spare, None)
        if line is not None:
            line.is_open = False

    # -- what happens to it -------------------------------------------------------------------

    def drop(self, offline_s: float = 0.0) -> None:
        """Break its connections, and let no attempt to connect succeed for some seconds."""
        self._offline_until = self.clock.now + int(offline_s * NS)
        for line in list(self.lines.values()):
            line.drop(1006)

    def orphan(self) -> None:
        """Leave it alone with the server: the supervisor has died."""
        self._is_orphan = True

    def die(self, resumed: Literal["", "supervisor"] = "") -> None:
        """Kill it, and open a new one."""
        self._is_orphan = False
        self.deaths += 1
        self._epoch += 1
        for spare in (False, True):
            self._close(spare=spare)
        self._timer_ns = None
        saved = msgspec.msgpack.decode(self._saved, type=Saved) if self._saved else None
        info = msgspec.structs.replace(self._info, first=False, resumed=resumed)
        self._dead = True
        self.clock.after(0.2, lambda epoch=self._epoch: self._live_again(epoch, info, saved))

    def _live_again(self, epoch: int, info: SessionInfo, saved: Saved | None) -> None:
        if epoch != self._epoch or self._is_orphan:
            return  # it was killed again
        self._dead = False
        self.core = Core(self.world.settings, info, saved, self.clock.now, self.outputs)
        self.begin()
        mail, self._mail = self._mail, []
        last = self._last_mail
        if last is not None and last.attempts > 1:  # it was not known whether it was handled
            self.tell_core(lambda core, now: self._hand_over(core, last, now))
        for what in mail:
            self.tell_core(what)
