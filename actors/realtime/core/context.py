"""The context that the parts of the core share: their state, and the actions to return."""

from __future__ import annotations

import collections
from collections.abc import Iterable
from enum import IntEnum
from typing import Any, Literal

from actors.realtime import wire
from actors.realtime.core.actions import Action, Publish, SendEvent, WriteLog
from actors.realtime.core.activity import Activity
from actors.realtime.core.capture import CaptureFeed
from actors.realtime.core.chain import Chain
from actors.realtime.core.item_ids import ItemIds
from actors.realtime.core.latency import Latency
from actors.realtime.core.playback import PlaybackAccount
from actors.realtime.core.responses import Responses
from actors.realtime.core.setup import Setup
from actors.realtime.core.state import Saved
from actors.realtime.core.turns import Turns
from messages import ItemPlaced, Message, OutputReplaced, Settings, ToolAnswer

__all__ = ["Context", "LinkPhase", "Recent"]

_REMEMBERED = 1000
_OUTPUTS = 64
"""How many outputs of tool calls are remembered until history has them."""


class Recent(collections.OrderedDict[str, Any]):
    """A dictionary that keeps only its newest entries."""

    limit = _REMEMBERED
    """Maximum number of entries."""

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        if len(self) > self.limit:
            self.popitem(last=False)


class LinkPhase(IntEnum):
    """The steps in which a session with the server becomes live."""

    OFFLINE = 0
    CONNECTED = 1
    """Waiting for ``session.created``."""
    CREATED = 2
    """Waiting for history and tools."""
    CONFIGURING = 3
    """Configuration and items are sent; waiting for ``session.updated``."""
    LIVE = 4


_BY_CAUTION = ("", "supervisor", "journal", "abandoned")
"""What a conversation can be resumed from, the least cautious first."""


class Context:
    """The state that the parts of the core share, and the actions that they collect.

    It has more attributes than other classes, because everything that several parts use is here.
    """

    def __init__(
        self, setup: Setup, saved: Saved, server: str, now: int, epoch_ns: int = 0
    ) -> None:
        self.setup = setup
        self.saved = saved
        self.server = server
        """The server's address without its query, for messages to the user."""
        self.responses = Responses(saved)
        self.playback = PlaybackAccount(saved.playing, now)
        self.capture = CaptureFeed()
        self.chain = Chain()
        self._ids = [ItemIds(are_ours=not saved.refuses_ids) for _ in range(2)]
        """Of the session, and of the standby session."""
        self.turns = Turns(saved)
        self.activity = Activity(saved)
        self.latency = Latency(saved, epoch_ns)
        self.session = 0
        """Number of the current server session, from 1 in this process; 0: none yet."""
        self._sessions = 0
        # The milliseconds of the clock are above every id that an earlier process used, so that a
        # late answer to one of its requests matches none of ours.
        self._request_id = now // 1_000_000
        self.phase = LinkPhase.OFFLINE
        """The step that the current server session has reached."""
        self.is_reborn = False
        """Whether an earlier process has died, and this process has no session yet."""
        self.finished = False
        """Whether the conversation is over, or cannot continue."""
        self.flushed_ns = 0
        """Time of the last `FlushPlayback`; the speaker discards audio dated before it."""
        self.audio_ns = 0
        """Time of the last `AssistantAudio`; the next flush is dated later."""
        self.done = Recent()
        """Ids of speech whose transcript was published, and of calls that were run."""
        self.outputs = Recent()
        """(item id, output) of the newest answered calls, by call id. History may lack them yet."""
        self.outputs.limit = _OUTPUTS
        self._actions: list[Action] = []
        self._numbers = 0
        self._intents = Recent()

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.setup.settings

    @property
    def has_conversation(self) -> bool:
        """Whether the session was sent the conversation so far, so that items can be added."""
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
        """Return a new id for a request to another component."""
        self._request_id += 1
        return self._request_id

    def do(self, action: Action) -> None:
        """Add an action for the shell."""
        self._actions.append(action)

    def publish(self, message: Message, *, ahead: bool = False) -> None:
        """Publish a message to the other components; see `Publish`."""
        self._actions.append(Publish(message, ahead))

    @property
    def resumes(self) -> bool:
        """Whether an earlier conversation goes on that was not replayed to the server yet.

        If there is a saved state, it may lack items that history has.
        """
        return bool(self.saved.resumed)

    def resume(self, resumed: Literal["supervisor", "journal", "abandoned"]) -> None:
        """Record that an earlier conversation goes on; see `Saved.resumed`.

        If no session was told the conversation since it was resumed before, the more cautious of
        both counts.
        """
        self.saved.resumed = max(self.saved.resumed, resumed, key=_BY_CAUTION.index)

    def know_outputs(self, outputs: Iterable[ToolAnswer | OutputReplaced]) -> None:
        """Take over the outputs that an earlier process has sent."""
        for message in outputs:
            item_id, _ = self.outputs.get(message.call_id, ("", ""))
            if isinstance(message, ToolAnswer):
                item_id = message.item_id
            self.outputs[message.call_id] = (item_id, message.output)

    def restored(self) -> None:
        """Record that the server has the conversation that history has."""
        self.is_reborn, self.saved.resumed = False, ""

    def leave_out(self, item_id: str) -> None:
        """Publish the new place of the items that follow an item which history lacks."""
        for behind in self.chain.drop(item_id):
            known_as = self.chain.known_as(behind)
            self.publish(ItemPlaced(known_as, self.chain.previous(behind)))

    def send(self, event: wire.ClientEvent, *, spare: bool = False) -> None:
        """Send an event to the server."""
        self._actions.append(SendEvent(self._ids[spare].sent(event), spare))

    def forget_ids(self, *, spare: bool = False) -> None:
        """Begin the ids of the items of a new connection."""
        are_ours = all(ids.are_ours for ids in self._ids)  # the same server, most likely
        self._ids[spare] = ItemIds(are_ours=are_ours)

    def swap_ids(self) -> None:
        """Take over the ids of the standby session."""
        self._ids.reverse()

    def with_our_ids(self, event: object, *, spare: bool) -> object:
        """Return an event of the server with our ids of items."""
        return self._ids[spare].received(event, _nothing if spare else self._is_known)

    def has_no_id(self, item_id: str) -> bool:
        """Return whether an item that was sent cannot be named at the server yet."""
        return self._ids[False].is_unknown(item_id)

    def _is_known(self, item_id: str) -> bool:
        return item_id in self.chain or item_id in self.playback.items

    def attributed(self, error: wire.ErrorBody, *, spare: bool = False) -> wire.ErrorBody:
        """Return an error with the id of its event, if that can be found out."""
        return self._ids[spare].attributed(error)

    def created_again(self, error: wire.ErrorBody, *, spare: bool = False) -> bool:
        """Create an item without an id, if the server refuses the id of the item.

        Returns:
            Whether the server has refused the id.
        """
        intent, _ = self.intent(error.event_id)
        again = self._ids[spare].refused(error, self.event_id(intent))
        if again is None:
            return False
        self.saved.refuses_ids = True
        self.log("info", "the server refuses our id of an item", intent=intent.partition(" ")[0])
        self._actions.append(SendEvent(again, spare))
        if not spare:
            self.responses.withdraw()  # what was asked for would not know of the item
        return True

    def update(self, changes: dict[str, Any], intent: str) -> None:
        """Send ``session.update``.

        Args:
            changes: the session object of the update.
            intent: what the update is for; an error about it is then handled accordingly.
        """
        event_id = self.event_id(intent)
        self._intents[event_id] = (intent, changes)
        self.send(wire.SessionUpdate(changes, event_id))

    def event_id(self, intent: str) -> str:
        """Return a new id for an event, and remember its intent: errors name the id."""
        self._numbers += 1
        event_id = f"rtvoice_{self.session}_{self._numbers}"
        self._intents[event_id] = (intent, None)
        return event_id

    def intent(self, event_id: str | None) -> tuple[str, dict[str, Any] | None]:
        """Return the intent of an event and, if it is an `update`, its changes."""
        found: tuple[str, dict[str, Any] | None] = self._intents.get(event_id or "", ("", None))
        return found

    def log(
        self, level: Literal["debug", "info", "warning", "error"], text: str, **fields: Any
    ) -> None:
        """Write a log record. It must never contain what was said."""
        self._actions.append(WriteLog(level, text, fields))


def _nothing(_: str) -> bool:
    return False
