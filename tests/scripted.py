"""A scripted conversation: a model that answers, a user who talks over it and changes settings.

`Model` is the server's side on a `FakeServer`; `Script` is the user, and remembers what must have
come of it; `Tone` is a sound card that hears the same loud sound all the time, so that each gap in
a recording of it can be seen.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from array import array
from pathlib import Path

from websockets.exceptions import ConnectionClosed

from actors.devices.base import Captured
from actors.devices.silence import PacedCapture
from actors.devices.units import to_ns
from messages import (
    PlayedPosition,
    SendText,
    SetMuted,
    SetSpeed,
    SetVolume,
    Turn,
    UpdateSettings,
)
from tests.conversation import Conversation, wav_channels
from tests.fake_server import Connection, FakeServer, Json

__all__ = ["TONE", "Model", "Script", "Tone", "configured", "gaps"]

_BLOCK = 480
"""Samples in 20 ms."""
_UNMUTED_NS = 1_000_000_000
"""How long it may take until a microphone is heard whose unmuting is confirmed."""
_LOUD = array("h", [1000]).tobytes()
TONE = f"{Path(__file__).resolve()}:Tone"
"""The setting ``input`` for it."""


class Tone(PacedCapture):
    """A microphone that hears a loud sound all the time; what it hears while it is down is lost."""

    name = "tone"

    def __init__(self) -> None:
        super().__init__(_BLOCK)

    def _next(self, due: int) -> Captured:
        return Captured(_LOUD * _BLOCK, due - to_ns(_BLOCK), due)


class Model(threading.Thread):
    """Answers each question once for each request: with a call of ``count``, then in speech."""

    def __init__(self, server: FakeServer, seed: int = 0) -> None:
        super().__init__(daemon=True)
        self.over = False
        self.greetings = 0
        """How often it was asked to speak first."""
        self._server = server
        self._chance = random.Random(seed)
        self._answered: dict[Connection, int] = {}
        self._heard: list[tuple[Connection, int, str]] = []
        """What it has heard: where, behind how many events of the client, and what."""
        self._open: dict[Connection, str] = {}
        """The answer that it has not finished."""
        self._count = 0
        self._lock = threading.RLock()

    def run(self) -> None:
        while not self.over:
            with contextlib.suppress(AssertionError):  # nothing has come for a while
                self._server.wait_for(lambda: self.over or self._asked() is not None)
            connection = self._asked()
            if connection is not None and not self.over:
                with self._lock, contextlib.suppress(ConnectionClosed):  # its client has died
                    self._answered[connection] = self._answered.get(connection, 0) + 1
                    self._answer(connection)

    def hear(self, text: str) -> None:
        """Hear the user, who talks over the answer, and answer that unasked, as a server does."""
        with self._lock:
            connection = self._server.connections[-1]
            if not connection.audio:
                return  # a server hears nobody before it was told the conversation
            self._count += 1
            with contextlib.suppress(ConnectionClosed):  # the user has to say it again
                connection.hear(f"{text}_{self._count}", text)
                self._heard.append((connection, len(connection.events), text))
                self._cancel(connection)
                self._say(connection, text)

    def _asked(self) -> Connection | None:
        asked = (
            made
            for made in self._server.connections
            if len(made.of("response.create")) > self._answered.get(made, 0)
        )
        return next(asked, None)

    def _answer(self, connection: Connection) -> None:
        question = self._last_question(connection)
        call_id = f"call_{question}"
        items = [event["item"] for event in connection.of("conversation.item.create")]
        called = any(item.get("call_id") == call_id and "output" in item for item in items)
        if not question:
            self.greetings += 1
            self._say(connection, "greeting", whole=True)
        elif called or question.startswith("spoken"):
            self._say(connection, question)
        else:
            connection.call("count", "{}", call_id=call_id)

    def _last_question(self, connection: Connection) -> str:
        found = {
            place: event["item"]["content"][0]["text"]
            for place, event in enumerate(connection.events)
            if event["type"] == "conversation.item.create" and event["item"].get("role") == "user"
        }
        heard = [(place - 0.5, text) for made, place, text in self._heard if made is connection]
        return max([*found.items(), *heard], default=(0, ""))[1]

    def _say(self, connection: Connection, question: str, *, whole: bool = False) -> None:
        """Answer in speech; some answers are not finished when the user talks over them."""
        self._count += 1
        item, ms = f"answer_{question}_{self._count}", 300
        if question.startswith("long"):
            ms = 1500
            whole = whole or self._chance.random() < 0.7
        else:
            whole = True
        pcm = array("h", [10_000]).tobytes() * 24 * ms
        connection.say(f"All there is to say about {question}", pcm, item=item, done=whole)
        if not whole:
            self._open[connection] = item

    def _cancel(self, connection: Connection) -> None:
        """End the answer that the user has talked over, as a server does."""
        item = self._open.pop(connection, "")
        if item:
            ids: Json = {
                "id": f"resp_{item}",
                "object": "realtime.response",
                "output": [],
                "usage": None,
            }
            connection.tell("response.done", response={**ids, "status": "cancelled"})


class Script:
    """A user who asks, talks over answers and changes settings, one after the other, at random."""

    def __init__(self, talk: Conversation, model: Model, chance: random.Random) -> None:
        self.asked: list[str] = []
        """What was typed and said, in order."""
        self.muted_ns: list[tuple[int, int]] = []
        """When the microphone may have been muted."""
        self.changes: list[tuple[float, str]] = []
        """Each speed that was set, with the instructions."""
        self.confirmed = 0
        """How many of them are confirmed."""
        self.volume = 1.0
        self.muted = False
        self._talk = talk
        self._model = model
        self._chance = chance
        self._muted_since_ns = 0

    def step(self) -> None:
        """Do one thing."""
        things = [self.ask, self.talk_over, self.change]
        self._chance.choice([*things, *things, *things, self.mute])()

    def ask(self) -> None:
        """Type a question, and wait until its answer was said."""
        question = f"question{len(self.asked)}"
        self._type(question)
        self._expect_answer(question)
        time.sleep(0.1)  # nobody asks faster

    def talk_over(self) -> None:
        """Type a question, and talk over its answer."""
        question = f"long{len(self.asked)}"
        self._type(question)
        self._talk.expect(PlayedPosition, lambda at: at.item_id.startswith(f"answer_{question}_"))
        said = f"spoken{len(self.asked)}"
        self.asked.append(said)
        while not self._was_heard(said):
            self._model.hear(said)
            with contextlib.suppress(AssertionError):  # the connection was lost meanwhile
                self._talk.wait_for(lambda: self._was_heard(said), 2.0)
        self._expect_answer(said)

    def change(self) -> None:
        """Change speed, instructions and volume."""
        number = len(self.changes) + 1
        self.volume = round(self._chance.uniform(0.3, 1.0), 2)
        self.changes.append((round(0.5 + number / 1000, 3), f"Rule {number}."))
        speed, instructions = self.changes[-1]
        self._talk.session.send(SetVolume(self.volume))
        self._talk.session.send(SetSpeed(speed))
        self._talk.session.send(UpdateSettings({"instructions": instructions}))
        if self._chance.random() < 0.7:
            self._talk.session.confirm(20.0)
            self.confirmed = number

    def mute(self) -> None:
        """Mute the microphone, or unmute it."""
        self.muted = not self.muted
        if self.muted:
            self._muted_since_ns = time.monotonic_ns()
        self._talk.session.send(SetMuted(self.muted))
        if not self.muted:
            self._talk.session.confirm(20.0)
            self.muted_ns.append((self._muted_since_ns, time.monotonic_ns() + _UNMUTED_NS))

    def confirm(self) -> None:
        """Wait until all changes are safe."""
        self._talk.session.confirm(20.0)
        self.confirmed = len(self.changes)

    def version(self, connection: Connection, *, first: bool = False) -> int:
        """Return which of the changes a session of the server is configured with; 0: none.

        Args:
            connection: The session.
            first: Whether to look at its first configuration, not at the latest.
        """
        found = configured(connection, 1 if first else None)
        speed, text = found["audio"]["output"]["speed"], found.get("instructions", "")
        speeds = [number for number, change in enumerate(self.changes, 1) if change[0] == speed]
        texts = [number for number, change in enumerate(self.changes, 1) if change[1] in text]
        return min(max(speeds, default=0), max(texts, default=0))

    def _type(self, question: str) -> None:
        self.asked.append(question)
        self._talk.session.send(SendText(question, question))

    def _expect_answer(self, question: str) -> None:
        self._talk.expect(
            Turn, lambda turn: turn.item_id.startswith(f"answer_{question}_") and bool(turn.text)
        )

    def _was_heard(self, said: str) -> bool:
        return any(turn.text == said for turn in self._talk.of(Turn))


def configured(connection: Connection, updates: int | None = None) -> Json:
    """Return the configuration of a server's session: what its first updates have set, or all."""
    found: Json = {}
    for event in connection.of("session.update")[:updates]:
        _merge(found, event["session"])
    return found


def _merge(into: Json, more: Json) -> None:
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = value


def gaps(recording: Path) -> list[tuple[int, int]]:
    """Return the gaps in what was captured, as first samples and ends."""
    left, _ = wav_channels(recording)
    blocks = [any(left[at : at + 2 * 24]) for at in range(0, len(left), 2 * 24)]  # 1 ms each
    found: list[tuple[int, int]] = []
    for number, sounds in enumerate(blocks):
        if sounds:
            continue
        if found and found[-1][1] == number * 24:
            found[-1] = (found[-1][0], (number + 1) * 24)
        else:
            found.append((number * 24, (number + 1) * 24))
    return found
