"""Components that harm whoever trusts them, for tests of the supervisor."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from actors.base import Actor
from messages import CONTROL, DeadLetter, Message, SendText, SetVolume, Turn
from tests.tiny import Echo


class Watchdog(Actor):
    """Wants to know of dead letters, and is opened once."""

    accepts: ClassVar = {DeadLetter: CONTROL, SetVolume: CONTROL}

    def opened(self) -> None:
        if not self.session.first:
            raise OSError("never again")


class DescribesAList(Echo):
    """Describes itself with what is no mapping."""

    @classmethod
    def describe(cls, agent: str | None) -> Mapping[str, Any]:
        return ["speed", 1.0]  # type: ignore[return-value]


class Own(Message, frozen=True, array_like=True, tag=200):
    """A message of a user's own, which the supervisor does not know."""

    text: str


class TakesItsOwn(Actor):
    """Answers messages of a user's own."""

    accepts: ClassVar = {Own: CONTROL}

    def handle(self, message: Message) -> None:
        assert isinstance(message, Own)
        self.send(Turn("assistant", message.text, "own"))


class Logs(Echo):
    """Logs what it is told, or more than anybody reads."""

    def handle(self, message: Message) -> None:
        match message:
            case SendText("!long"):
                for _ in range(60):
                    self.log.info("x" * 1_000_000, field="y" * 1_000_000)
            case SendText("!flood", item_id):
                for number in range(6000):
                    self.log.info("x" * 8000)
                    if number % 1000 == 0:
                        self.send(Turn("assistant", str(number), f"{item_id} {number}"))
                (Path(os.environ["RTVOICE_TEST_DIR"]) / "flooded").touch()
            case SendText("!tell", item_id):
                for number in range(60):
                    self.send(Turn("assistant", "x" * 1_000_000, f"{item_id} {number}"))
            case SendText("!print"):  # as a program does that a tool has started
                sys.stderr.write("Fatal Python error: none of ours\n" + "frame\n" * 10_000)
                sys.stderr.write("and on\n")
                sys.stderr.flush()
            case SendText(text):
                self.log.info(text)
        super().handle(message)
