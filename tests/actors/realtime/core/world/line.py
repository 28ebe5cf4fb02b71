"""A connection, and the server at its other end: a session of the sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from actors.realtime import wire
from actors.realtime.core.core import Core
from rtvoice.sandbox.conversation import Recognition
from rtvoice.sandbox.responses import ResponseOutcome
from rtvoice.sandbox.script import Script
from rtvoice.sandbox.session import Listen, Respond, ServerSession, SpeechRequest
from tests.actors.realtime.core.world.clock import MS, NS, RATE
from tests.actors.realtime.core.world.model import GREETING, answer_to
from tests.actors.realtime.core.world.sound import understood

if TYPE_CHECKING:
    from tests.actors.realtime.core.world.world import World

__all__ = ["Line"]


class Line:
    """A connection to a server of its own, with a delay each way."""

    def __init__(self, world: World, *, spare: bool) -> None:
        self.world = world
        self.clock = world.clock
        self.spare = spare
        self.is_open = True
        self.delay = int(world.random.uniform(5, 60) * MS)
        self.is_terse = world.random.random() < 0.2
        """Whether the server announces items once and under the old name, as some do."""
        self.tells_order = world.random.random() < 0.7
        """Whether events name the preceding item; those of some servers do not."""
        self.splits = world.random.random() < 0.3
        """Whether a long answer has two items."""
        self.is_rough = world.is_rough
        self.is_vague = self.is_rough and world.random.random() < 0.2
        """Whether errors lack the id of the event that caused them."""
        self.script = Script()
        life_s = world.session_s
        self.session = ServerSession(
            "m", expires_at=int(self.clock.now / NS + life_s), script=self.script
        )
        self.session.accepted_ids = world.accepted_ids
        self.refused: list[dict[str, Any]] = []
        self.sent: list[dict[str, Any]] = []
        self._waiting: list[str] = []
        self._active = False
        """Whether the client has received the beginning of the active response."""
        self.session.open()
        self.flush()
        self.clock.after(life_s, self.expire)

    # -- on the way ---------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        assert not (self._active and b'"response.create"' in data), "one answer is active already"
        self.clock.after_ns(self.delay, lambda: self.receive(data))

    def receive(self, data: bytes) -> None:
        if self.is_open:
            self.world.arrived(msgspec.json.decode(data))
            self.session.receive(data.decode())
            self.flush()

    def flush(self) -> None:
        for event in self.session.take_events():
            if self.is_terse and event["type"] == "conversation.item.done":
                continue
            if self.is_terse and event["type"] == "conversation.item.added":
                event["type"] = "conversation.item.created"
            if not self.tells_order:
                event.pop("previous_item_id", None)
            self.sent.append(event)
            if event["type"] == "error":
                self.refused.append(event["error"])
                if self.is_vague:
                    event = {**event, "error": {**event["error"], "event_id": None}}
            if event["type"] == "response.created" and not self.world.marks:
                event = {**event, "response": {**event["response"], "metadata": None}}
            data = msgspec.json.encode(event)
            self.clock.after_ns(self.delay, lambda data=data: self.arrive(data))
        for work in self.session.take_work():
            self.do(work)

    def arrive(self, data: bytes) -> None:
        if self.is_open:
            event = wire.decode(data)
            assert not isinstance(event, wire.BadFrame), event
            if isinstance(event, wire.ResponseCreated | wire.ResponseDone):
                self._active = isinstance(event, wire.ResponseCreated)

            def take(core: Core, now: int) -> None:
                if core.server_event(event, now, spare=self.spare):
                    core.tick(now)

            self.world.process.tell_core(take)

    def drop(self, code: int, reason: str = "") -> None:
        """End the connection, and report that to the core."""
        if self.is_open:
            self.is_open = False
            self.world.process.tell_core(
                lambda core, now: core.lost(code, reason, now, spare=self.spare)
            )

    def expire(self) -> None:
        if self.is_open:
            self.session.expire(60)
            self.flush()
            self.clock.after_ns(self.delay, lambda: self.drop(1001, "maximum duration"))

    # -- what the server does -----------------------------------------------------------------

    def do(self, work: Listen | Respond) -> None:
        seconds = self.world.random.uniform(0.1, 0.8)
        if isinstance(work, Listen):
            if self.is_rough and self.world.random.random() < 0.1:
                seconds = self.world.random.uniform(1, 9)
            self.clock.after(seconds, lambda: self.hear(work))
        else:
            self.clock.after(seconds / 3, lambda: self.think(work.response_id))

    def hear(self, work: Listen) -> None:
        text = understood(work.pcm)
        lost = self.is_rough and self.world.random.random() < 0.1
        self.world.unheard += lost
        self.session.heard(work.item_id, Recognition(1.0, None if lost else text))
        self.flush()
        waiting, self._waiting = self._waiting, []
        for response_id in waiting:
            self.think(response_id)

    def think(self, response_id: str) -> None:
        if not self.is_open:
            return
        if self.session.unheard(response_id):
            self._waiting.append(response_id)
            return
        if self.is_rough and self.world.random.random() < 0.05:
            self.fail(response_id)
            return
        response = self.session._responses.get(response_id)
        if response is not None:
            answer = answer_to(response.context, response.settings["own_instructions"])
            if answer is not None:
                self.script.answers.append(answer)
            if GREETING in (response.settings["own_instructions"] or ""):
                self.world.greetings += 1
        speech = self.session.think(response_id)
        self.script.answers.clear()
        self.flush()
        if speech is not None:
            self.speak(response_id, speech, speech.text.split(" "))

    def fail(self, response_id: str) -> None:
        """Have a response fail, or end it as incomplete."""
        response = self.session._responses.get(response_id)
        if response is not None:
            self.world.failures += 1
            outcomes = [
                ResponseOutcome.failed("server_error"),
                ResponseOutcome.failed("rate_limit_exceeded"),
            ]
            outcomes += [
                ResponseOutcome.failed("odd"),
                ResponseOutcome.incomplete("content_filter"),
            ]
            self.session._close(response, self.world.random.choice(outcomes))
            self.flush()

    def speak(self, response_id: str, speech: SpeechRequest, words: list[str]) -> None:
        """Speak a word every 60 ms that takes 250 ms to say."""
        if not self.is_open:
            return
        if self.is_rough and self.world.random.random() < 0.005:
            self.fail(response_id)
            return
        if not words:
            self.session.finish(response_id)
            self.flush()
            return
        more = len(words) > 1
        if self.splits and len(words) == 8:
            self.session.begin_item(response_id)
        said = words[0] + (" " if more else "")
        going = self.session.speak(response_id, [said], bytes(2 * RATE // 4))
        self.flush()
        if going:
            self.clock.after(0.06, lambda: self.speak(response_id, speech, words[1:]))
