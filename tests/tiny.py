"""Tiny components, for tests of the supervisor's policy."""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path
from typing import ClassVar

from actors.base import Actor, StartAnew
from messages import (
    CONTROL,
    AssistantAudio,
    CapturedAudio,
    FlushPlayback,
    InputLevel,
    Keep,
    Message,
    Newest,
    Notice,
    PlaybackFlushed,
    PlayedPosition,
    SendText,
    SetMuted,
    SoundFaltered,
    Turn,
)


class Echo(Actor):
    """Answers each `SendText` with a `Turn`; does to itself what a text starting with ! says."""

    accepts: ClassVar = {SendText: CONTROL, SetMuted: CONTROL}

    def opened(self) -> None:
        self.muted = self.saved(bool) or False
        self.count = 0

    def handle(self, message: Message) -> None:
        match message:
            case SetMuted(muted):
                self.muted = muted
                self.save(muted)
            case SendText("!raise"):
                raise ValueError("told to")
            case SendText("!exit"):
                os._exit(7)
            case SendText("!hang"):
                time.sleep(3600)
            case SendText("!gil"):  # C code that keeps the GIL for ages
                re.match(r"(a+)+$", "a" * 60 + "b")
            case SendText("!linger"):
                threading.Thread(target=self._linger, daemon=True).start()
            case SendText("!falter"):
                self.send(SoundFaltered("echo", "late", 3, 40))
            case SendText("!anew"):
                self.post(self._start_anew)
            case SendText("!muted"):
                self.send(Turn("assistant", str(self.muted), message.item_id))
            case SendText(text, item_id):
                self.send(Turn("assistant", text, item_id))

    def _start_anew(self) -> None:
        raise StartAnew("its device is back")

    def _linger(self) -> None:
        """Write in the name of this incarnation once the next one lives, then in its name."""
        while self.host.epoch == self._epoch:
            time.sleep(0.005)
        self.send(Turn("assistant", "late", "late"))
        self.host.send(Turn("assistant", "now", "now"), self.host.epoch)


class Herald(Echo):
    """Says something as soon as it is open."""

    def opened(self) -> None:
        super().opened()
        self.send(SendText("I am open", "herald"))


class Player(Actor):
    """Holds audio for ever; counts what it holds when it is flushed."""

    accepts: ClassVar = {AssistantAudio: Keep(900, held=True), FlushPlayback: CONTROL}

    def opened(self) -> None:
        self.held: list[Message] = []

    def handle(self, message: Message) -> None:
        if isinstance(message, AssistantAudio):
            self.hold(message)
            self.held.append(message)
        else:
            self.send(PlaybackFlushed("", len(self.held)))
            for held in self.held:
                self.done(held)
            self.held.clear()


class BadStart(Actor):
    """Cannot be opened."""

    def opened(self) -> None:
        raise OSError("no such device: plughw:9")


class RestlessStart(Echo):
    """Wants so many new processes before it is open."""

    wishes = 0

    def opened(self) -> None:
        super().opened()
        tries = Path(self.session.directory) / "tries"
        before = tries.stat().st_size if tries.exists() else 0
        tries.write_bytes(bytes(before + 1))
        if before < self.wishes:
            raise StartAnew("its device hung")


class RestlessOnce(RestlessStart):
    """Wants one."""

    wishes = 1


class RestlessTwice(RestlessStart):
    """Wants two."""

    wishes = 2


class DeadStart(Echo):
    """Dies whenever it is opened."""

    def opened(self) -> None:
        os._exit(9)


class EndlessStart(Echo):
    """Is never open."""

    def opened(self) -> None:
        time.sleep(3600)


class CrashLoop(Echo):
    """Opens, and dies at once."""

    def opened(self) -> None:
        super().opened()
        threading.Timer(0.005, os._exit, (9,)).start()


class Restless(Echo):
    """Wants a new process again and again, as long as its device does not work."""

    def opened(self) -> None:
        super().opened()
        self.after(0.001, self._start_anew)


class StuckStart(Echo):
    """Wants a new process while its opening hangs, after the first time."""

    def opened(self) -> None:
        super().opened()
        if self.session.first:
            self.after(0.001, self._start_anew)
        else:
            threading.Timer(0.05, self.crash, (StartAnew("it does not open"),)).start()
            time.sleep(3600)


class CrashLoopOfPings(Echo):
    """Lives long enough to be asked whether it is well, and dies."""

    def opened(self) -> None:
        super().opened()
        threading.Timer(0.3, os._exit, (9,)).start()


class CrashLoopOfTimers(Echo):
    """Does something by itself again and again, and dies."""

    def opened(self) -> None:
        super().opened()
        for moment in (0.001, 0.002, 0.003):
            self.after(moment, lambda: None)
        self.after(0.02, lambda: os._exit(9))


class CrashLoopOfSound(Actor):
    """Makes sound, and dies; until it has done so often enough."""

    accepts: ClassVar = {}

    def opened(self) -> None:
        lives = (self.saved(int) or 0) + 1
        self.save(lives)
        self.send(CapturedAudio(bytes(1920), 0, 0))
        if lives < 9:
            self.after(0.01, lambda: os._exit(9))
        else:
            self.send(Turn("assistant", "well", "well"))


class Gauge(Actor):
    """Says how loud the user is."""

    accepts: ClassVar = {InputLevel: Newest(1)}

    def handle(self, message: Message) -> None:
        assert isinstance(message, InputLevel)
        self.send(Notice(f"{message.peak_dbfs} dBFS"))


class Slow(Actor):
    """Keeps the newest three texts while it sleeps."""

    accepts: ClassVar = {SendText: Newest(3), AssistantAudio: Newest(2), PlayedPosition: Newest(1)}

    def handle(self, message: Message) -> None:
        if isinstance(message, SendText):
            if message.text == "!sleep":
                time.sleep(0.3)
            self.send(Turn("assistant", message.text, message.item_id))


class PoisonState(Echo):
    """Cannot be opened with the state that it saves."""

    def opened(self) -> None:
        super().opened()
        if self.muted:
            raise ValueError("this state is poison")


class DeafToStop(Echo):
    """Does not close."""

    def closed(self) -> None:
        time.sleep(3600)
