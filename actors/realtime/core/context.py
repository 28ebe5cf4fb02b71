"""What the parts of the core share: the state, the outbox, and what they all look at."""

from __future__ import annotations

import collections
from enum import IntEnum
from typing import Any, Literal

from actors.realtime import wire
from actors.realtime.core.actions import Action, Publish, SendEvent, WriteLog
from actors.realtime.core.activity import Activity
from actors.realtime.core.capture import CaptureFeed
from actors.realtime.core.chain import Chain
from actors.realtime.core.playback import PlaybackAccount
from actors.realtime.core.responses import Responses
from actors.realtime.core.setup import Setup
from actors.realtime.core.state import Saved
from actors.realtime.core.turns import Turns
from messages import ItemPlaced, Message, Settings

__all__ = ["Context", "LinkPhase", "Recent"]

_REMEMBERED = 1000
_OUTPUTS = 20


class Recent(collections.OrderedDict[str, Any]):
    """A dictionary of the newest entries."""

    limit = _REMEMBERED

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        if len(self) > self.limit:
            self.popitem(last=False)


class LinkPhase(IntEnum):
    """How far the session is."""

    OFFLINE = 0
    CONNECTED = 1
    """``session.created`` is awaited."""
    CREATED = 2
    """History and tools are awaited."""
    CONFIGURING = 3
    """The server has been told everything; ``session.updated`` is awaited."""
    LIVE = 4


class Context:
    """What the parts of the core share, and the actions that they collect.

    It has more attributes than other classes because each thing that several parts use is one.
    """

    def __init__(self, setup: Setup, saved: Saved, server: str, now: int) -> None:
        self.setup = setup
        self.saved = saved
        self.server = server
        """As people are told of it."""
        self.responses = Responses(saved)
        self.playback = PlaybackAccount(saved.playing, now)
        self.capture = CaptureFeed()
        self.chain = Chain()
        self.turns = Turns(saved)
        self.activity = Activity(saved)
        self.session = 0
        """Number of the session with the server."""
        self._sessions = 0
        self._request_id = now // 1_000_000  # no request of an earlier process has it
        self.phase = LinkPhase.OFFLINE
        """How far the session with the server is."""
        self.finished = False
        """The conversation is over, or cannot go on."""
        self.flushed_ns = 0
        """When the speaker was told last to throw away everything it had been sent before."""
        self.done = Recent()
        """Ids of speech whose text has been told, and of calls that have been run."""
        self.outputs = Recent()
        """Of the calls answered last: (item id, output). History may not have them yet."""
        self.outputs.limit = _OUTPUTS
        self._actions: list[Action] = []
        self._numbers = 0
        self._intents = Recent()

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.setup.settings

    @property
    def told(self) -> bool:
        """Tell whether the server knows the conversation, so that it can be gone on with."""
        return self.phase >= LinkPhase.CONFIGURING

    def take(self) -> list[Action]:
        """Return the actions collected since the last call."""
        actions, self._actions = self._actions, []
        return actions

    def next_session(self) -> int:
        """Return the number of a new session with the server."""
        self._sessions += 1
        return self._sessions

    def request_id(self) -> int:
        """Return an id for a request to another component."""
        self._request_id += 1
        return self._request_id

    def do(self, action: Action) -> None:
        """Have something done."""
        self._actions.append(action)

    def publish(self, message: Message) -> None:
        """Have a message given to other components."""
        self._actions.append(Publish(message))

    def leave_out(self, item_id: str) -> None:
        """Tell history what stands before those that follow an item which it does not have."""
        for behind in self.chain.drop(item_id):
            known_as = self.chain.known_as(behind)
            self.publish(ItemPlaced(known_as, self.chain.previous(behind)))

    def send(self, event: wire.ClientEvent) -> None:
        """Have an event sent to the server."""
        self._actions.append(SendEvent(event))

    def update(self, changes: dict[str, Any], intent: str) -> None:
        """Have the session's configuration changed."""
        event_id = self.event_id(intent)
        self._intents[event_id] = (intent, changes)
        self.send(wire.SessionUpdate(changes, event_id))

    def event_id(self, intent: str) -> str:
        """Return an id for an event, to know by it what an error is about."""
        self._numbers += 1
        event_id = f"rtvoice_{self.session}_{self._numbers}"
        self._intents[event_id] = (intent, None)
        return event_id

    def intent(self, event_id: str | None) -> tuple[str, dict[str, Any] | None]:
        """Return what an event was for, and of an `update` its changes."""
        found: tuple[str, dict[str, Any] | None] = self._intents.get(event_id or "", ("", None))
        return found

    def log(
        self, level: Literal["debug", "info", "warning", "error"], text: str, **fields: Any
    ) -> None:
        """Have a log record written. Never what was said."""
        self._actions.append(WriteLog(level, text, fields))
