"""The world: its parts, the messages between them, and a record of what happened."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from actors.conversation import ITEM_MESSAGES
from messages import (
    AssistantAudio,
    ConversationOver,
    FatalError,
    FlushPlayback,
    HistoryRequest,
    Message,
    PausePlayback,
    ReplayCapture,
    ResumePlayback,
    Settings,
    ToolCall,
    ToolsAvailable,
    UserItem,
    UserSpeechStarted,
)
from tests.actors.realtime.core.world.clock import MS, Clock
from tests.actors.realtime.core.world.history import History
from tests.actors.realtime.core.world.microphone import Microphone
from tests.actors.realtime.core.world.model import GREETING
from tests.actors.realtime.core.world.process import Process
from tests.actors.realtime.core.world.speaker import Loudspeaker
from tests.actors.realtime.core.world.tools import LOOKUP, Tools
from tests.actors.realtime.core.world.user import User

__all__ = ["World"]

_CHANGES = 30
"""Number of the newest changes that the next history reads after a death of the supervisor."""


class World:
    """Everything, on one clock.

    Args:
        seed: of all that is left to chance.
        session_s: how long a session of the server lives.
        is_rough: whether servers fail and are vague, and everybody is slow, now and then.
        settings: of the conversation.
    """

    def __init__(
        self, seed: int = 0, session_s: float = 3600.0, *, is_rough: bool = False, **settings: Any
    ) -> None:
        self.random = random.Random(seed)
        self.is_rough = is_rough
        self.marks = not (is_rough and self.random.random() < 0.2)
        """Whether servers return the metadata of a response."""
        self.accepted_ids: Any = "own" if seed % 5 == 4 and not is_rough else "prefixes"
        """Which ids of items the servers accept."""
        self.session_s = session_s
        self.settings = Settings(
            inactivity_timeout_s=None,
            transcription_model="gpt-transcribe",
            greeting=GREETING,
            **settings,
        )
        self.told: list[Message] = []
        """The messages that the core has published, except audio."""
        self.greetings = self.failures = self.unheard = 0
        """How often a server has greeted, failed to answer, understood nothing."""
        self.asked_for: set[str] = set()
        """Of the notices of the program, those on their way to a server, or that were."""
        self.noticed: set[str] = set()
        """Of these, what a server was asked to say."""
        self.interrupted: set[str] = set()
        """Of these, what somebody has interrupted on its way."""
        self.supervisors = 1
        """Number of supervisors so far."""
        self._fuse = 0
        """Number of messages until the supervisor dies; 0: it does not die."""
        self.clock = Clock()
        self.user = User(self)
        self.speaker = Loudspeaker(self)
        self.microphone = Microphone(self)
        self.history = History(self)
        self.tools = Tools(self)
        self.process = Process(self)
        self.process.begin()
        self.process.tell(ToolsAvailable((LOOKUP,)))
        self.microphone.begin()

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.run(seconds)

    def settle(self, seconds: float = 40.0) -> None:
        """Let time pass until nothing more happens."""
        self.run(seconds)
        while self.process.core.phase.name != "LIVE" and self.is_rough and seconds < 60:
            seconds += 1  # a session was just about to be renewed
            self.run(1.0)
        self.history.tell_turns()
        assert not self.process.core._context.responses.busy(), "an answer is still owed"
        assert not self.speaker.queue, "something is not played"
        assert self.process.core.phase.name == "LIVE"

    # -- the supervisor -----------------------------------------------------------------------

    def kill(self) -> None:
        """Kill the supervisor, and with it everything, when a few more messages are on their way.

        Another one goes on.
        """
        self._fuse = self.random.randrange(1, 12)

    def burn(self) -> None:
        """Record that a message is on its way."""
        self._fuse -= 1
        if self._fuse == 0:
            self.clock.after_ns(self.random.choice([0, MS // 4, 3 * MS // 4, 8 * MS]), self._die)

    def _die(self) -> None:
        self.supervisors += 1
        self.process.orphan()
        self.clock.after(self.random.choice([0.0, 0.005, 0.02]), self._go_on)

    def _go_on(self) -> None:
        self.speaker.die()
        self.history.die([*self.process.changes[-_CHANGES:], *self.process.outputs])
        self.tools.die()
        self.process.die("supervisor")

    def while_it_lives(self, do: Callable[[], None]) -> Callable[[], None]:
        """Return what is done unless the supervisor, which was to pass it on, has died by then."""
        supervisor = self.supervisors

        def unless_dead() -> None:
            if self.supervisors == supervisor:
                do()

        return unless_dead

    # -- what passes between its parts --------------------------------------------------------

    def publish(self, message: Message) -> None:
        """Deliver a message of the core to the components that accept it."""
        self.burn()

        def after_ns(delay: int, do: Callable[[], None]) -> None:
            self.clock.after_ns(delay, self.while_it_lives(do))

        if isinstance(message, ITEM_MESSAGES):
            after_ns(MS, lambda: self.history.remember(message))
        match message:
            case AssistantAudio():
                after_ns(MS, lambda: self.speaker.take(message))
            case FlushPlayback():
                after_ns(MS, lambda: self.speaker.flush(message))
            case PausePlayback() | ResumePlayback():
                paused = isinstance(message, PausePlayback)
                after_ns(MS, lambda: self.speaker.pause(paused=paused))
            case ReplayCapture():
                after_ns(MS, lambda: self.microphone.replay(message))
            case HistoryRequest():
                after_ns(MS, lambda: self.history.snapshot(message))
            case ToolCall():
                self.tools.work(message)
            case UserSpeechStarted() | UserItem(spoken=False):
                self.interrupt_notices()
            case FatalError() | ConversationOver():
                raise AssertionError(message)
        if not isinstance(message, AssistantAudio):
            self.told.append(message)

    def asked(self, event: dict[str, Any]) -> None:
        """Record that a sentence is on its way to a server in a ``response.create``."""
        self.asked_for |= self._notices_in(event)

    def arrived(self, event: dict[str, Any]) -> None:
        """Check an event at the moment at which a server receives it."""
        if event["type"] == "conversation.item.truncate":
            heard = self.speaker.played.get(event["item_id"], 0)
            assert event["audio_end_ms"] * 24 <= heard + 24, (event, heard)
        self.noticed |= self._notices_in(event)

    def interrupt_notices(self) -> None:
        """Record an interruption: sentences on their way may never be said."""
        self.interrupted |= self.asked_for - self.noticed

    def _notices_in(self, event: dict[str, Any]) -> set[str]:
        told = event.get("response", {}).get("instructions") or ""
        return {notice for notice in self.user.notices if f'"{notice}"' in told}

    # -- what happened ------------------------------------------------------------------------

    def of(self, kind: type[Any]) -> list[Any]:
        """Return the messages of this type that the core has published."""
        return [message for message in self.told if isinstance(message, kind)]
