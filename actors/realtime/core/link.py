"""The session with the server: how it is begun, begun again, and told what was said before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actors.realtime import wire
from actors.realtime.core import errors, restore, session
from actors.realtime.core.actions import ConnectAfter, Disconnect, Swap
from actors.realtime.core.answers import Answers
from actors.realtime.core.calls import Calls
from actors.realtime.core.context import Context, Phase
from actors.realtime.core.errors import Meaning
from actors.realtime.core.playback import Spoken
from actors.realtime.core.state import Ask
from actors.realtime.core.successor import Prepared, Successor
from actors.realtime.core.user import User
from messages import (
    SAMPLE_RATE,
    AssistantAudio,
    AssistantItem,
    Connected,
    ConversationItem,
    Disconnected,
    FatalError,
    HistoryRequest,
    HistorySnapshot,
    ItemPlaced,
    ItemRemoved,
    Notice,
    Reconnected,
    ReplayCapture,
)

__all__ = ["Link"]

_NS = 1_000_000_000
_MS = 1_000_000
HISTORY_NS = 2 * _NS
"""How long the history is waited for; then it goes on without."""
TOOLS_NS = 1 * _NS
"""How long the first tools are waited for."""
HANDSHAKE_NS = 10 * _NS
"""How long ``session.created`` and ``session.updated`` may take."""
SESSION_NS = 60 * 60 * _NS
"""How long a session lasts if the server does not say (documented: 60 minutes)."""
SHORTEST_NS, LONGEST_NS = 1 * _NS, 24 * 3600 * _NS
"""What the server says is believed within these limits: a clock may be wrong."""
SAME_NS = 2 * _NS
"""If the clocks differ by no more, ours is taken: the server's is known to the second only."""
AHEAD = 6
"""The next session is begun when a sixth of the present one is left."""
REHEAR = SAMPLE_RATE
"""What the server hears again, in samples, when a session is swapped in: speech may just begin."""
RENEWED = "a new session has taken over before the server ended the old one"
STEADY_NS = 10 * _NS
"""A session that has lived so long was a good one: the next back-off starts anew."""
BACKOFF_S = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)
MAX_REFUSALS = 8


class Link:
    """Connects, configures, restores; after each loss again, and never gives up."""

    def __init__(
        self, context: Context, user: User, answers: Answers, calls: Calls, now: int
    ) -> None:
        self._context = context
        self._user = user
        self._answers = answers
        self._calls = calls
        self.live_ns: int | None = None
        """Since when the session is live."""
        self._phase_by = 0
        self._opened_ns = self._outage_ns = now
        self._cause = "realtime was started again" if context.saved.connected else ""
        self._outage_told = False
        self.trouble = "it did not begin a session"
        """Why there is no connection, as far as it is known."""
        self._failures = 0
        self._request_id = 0
        self._requested_ns = 0
        self._history: tuple[ConversationItem, ...] | None = None
        self._plan = restore.Plan()
        self._refusals = 0
        self._told_tools: object = None
        self._told_speed = 0.0
        self._told_settings = context.settings
        self._prepared: Prepared | None = None
        """The session that is about to begin, if it was told something before."""
        self._unix_ns: int | None = None
        """What the server's clock shows, minus the clock that everything else is told by."""
        self.successor = Successor(context, self._configuration, self._plan_from)

    # -- the connection -----------------------------------------------------------------------

    def open(self, now: int) -> None:
        """Ask for the history, and connect meanwhile."""
        for was in self._context.saved.playing:
            if not was.complete:  # no more of it will come
                self._context.publish(
                    AssistantAudio(b"", was.item_id, was.response_id, was.samples, last=True)
                )
        self._seek(0.0, self._cause, now)

    def wall_clock(self, unix_ns: int, server_ns: int | None, now: int) -> None:
        """Take note of what time it is, to know what the server's ``expires_at`` means.

        It is told by the server's clock, of which ours may differ.
        """
        if server_ns is not None and abs(server_ns - unix_ns) > SAME_NS:
            unix_ns = server_ns
        self._unix_ns = unix_ns - now

    def connected(self, now: int) -> None:
        """Take note that the websocket is open."""
        self._prepared = None
        self._context.phase = Phase.CONNECTED
        self._phase_by = now + HANDSHAKE_NS
        if now - self._requested_ns > _NS:  # what it says may be old
            self._request_history(now)

    def connect_failed(self, status: int, code: str, text: str, now: int) -> None:
        """Take note that there is no websocket."""
        first = not self._context.saved.connected
        fatal = errors.handshake_is_fatal(status, code, text, first=first)
        if fatal is not None:
            self.fail(fatal, text)
            return
        self.trouble = text
        if not self._outage_told:
            self._outage_told = True
            notice = f"cannot reach {self._context.server}: {text}; trying again"
            self._context.publish(Notice(notice))
        self._connect_again(text, now)

    def lost(self, code: int, reason: str, now: int) -> None:
        """Take note that the websocket has ended."""
        meaning, name = errors.close_meaning(code, reason)
        if meaning is Meaning.FATAL:
            self.fail(name)
            return
        cause = f"the connection ended ({code}{': ' + reason if reason else ''})"
        self._settle(cause, now)
        self._go_over(cause, now)

    def renew(self, reason: str, now: int) -> None:
        """Give this session up for a new one."""
        self._settle(reason, now)
        if not self.successor.is_ready:
            self._context.do(Disconnect(reason))
        self._go_over(reason, now)

    def fail(self, code: str, detail: str = "") -> None:
        """Give up: going on is pointless."""
        reason = errors.why_fatal(code, self._context.settings.model, detail)
        self._context.finished = True
        self._context.phase = Phase.OFFLINE
        self.successor.drop(reason)
        self._context.do(Disconnect(reason))
        self._context.publish(FatalError(reason))

    def _seek(self, seconds: float, reason: str, now: int) -> None:
        self._context.phase = Phase.OFFLINE
        self._request_history(now)
        self._context.do(ConnectAfter(seconds, reason))

    def _go_over(self, reason: str, now: int) -> None:
        """Go over to the next session if it is ready; if not, connect again."""
        if self.successor.is_ready:
            self._swap(reason, now)
            self._request_history(now)
        else:
            self.successor.drop(reason)
            self._connect_again(reason, now)

    def _swap(self, reason: str, now: int) -> None:
        self._prepared = self.successor.take()
        self._context.do(Swap(reason))
        self._context.phase = Phase.CREATED

    def _connect_again(self, reason: str, now: int) -> None:
        delay = BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
        self._failures += 1
        jitter = 0.75 + now // 1000 % 1000 / 2000  # the clock's last digits are random enough
        self._seek(delay * jitter, reason, now)

    def _settle(self, cause: str, now: int) -> None:
        """Settle what belonged to the session that is gone."""
        was_live, self.live_ns = self.live_ns, None
        if was_live is not None:
            self._outage_ns, self._cause = now, cause
            self._context.publish(Disconnected(cause))
            if now - was_live >= STEADY_NS:
                self._failures = 0
        self._answers.lost()

    # -- the beginning of a session -----------------------------------------------------------

    def session_created(self, event: wire.SessionCreated, now: int) -> None:
        """Take note that the server has begun a session."""
        if self._context.phase is Phase.CONNECTED:
            self._context.phase = Phase.CREATED
            number = self._context.next_session()
            self._prepared = Prepared(number, now, self.expires_ns(event, now))

    def expires_ns(self, event: object, now: int) -> int:
        """Return when the server ends a session that it has just created."""
        at = event.expires_at() if isinstance(event, wire.SessionCreated) else None
        if at is not None and self._unix_ns is not None:
            left = at * _NS - self._unix_ns - now
            if SHORTEST_NS <= left <= LONGEST_NS:
                return now + int(left)
        return now + SESSION_NS

    def session_updated(self, _: wire.SessionUpdated, now: int) -> None:
        """Take note that the configuration is in force."""
        if self._context.phase is Phase.CONFIGURING:
            self._go_live(now)

    def snapshot(self, message: HistorySnapshot, now: int, is_quiet: Callable[[int], bool]) -> None:
        """Take the history. ``is_quiet``: as in `tick`."""
        if message.request_id == self._request_id and self._context.phase < Phase.CONFIGURING:
            self._history = message.items
            return
        items = self.successor.snapshot(message, now)
        if items is None or self._context.phase is not Phase.LIVE or not is_quiet(now):
            return
        # Nothing is under way: what was said has its answer, or gets none.
        self._context.turns.answered()
        self.live_ns, self._outage_ns, self._cause = None, now, RENEWED
        self._answers.lost()
        self._swap(RENEWED, now)
        self._history = items
        self._configure(now)

    def refused(self, refused: dict[str, Any] | None, param: str | None, now: int) -> None:
        """Do without what the server does not want of the configuration.

        A session without instructions and tools would be no use, so the rest is sent again.
        """
        if refused is None:
            refused = self._configuration()
        self._refusals += 1
        left = session.without(refused, param)
        if left is not None and self._refusals <= MAX_REFUSALS:
            self._context.update(left, "configure")
            self._phase_by = now + HANDSHAKE_NS
            self._context.publish(Notice(f"the server refuses {param}; going on without it"))
        elif self._context.phase is Phase.CONFIGURING:
            self._go_live(now)

    def refused_speed(self) -> bool:
        """Try a refused speed again after the answer under way. Return False if that is no use."""
        if self._context.responses.active is None or self._refusals > MAX_REFUSALS:
            return False
        self._refusals += 1
        self._told_speed = 0.0
        return True

    def _request_history(self, now: int) -> None:
        self._history = None
        self._request_id = self._context.request_id()
        self._requested_ns = now
        self._context.publish(HistoryRequest(self._request_id))

    def _configuration(self) -> dict[str, Any]:
        saved = self._context.saved
        return session.configuration(self._context.settings, saved.speed, saved.tools or ())

    def _configure(self, now: int) -> None:
        """Tell a new session everything: it is one ordered stream, nothing is waited for."""
        context, saved = self._context, self._context.saved
        prepared = self._prepared or Prepared(context.next_session(), now, now + SESSION_NS)
        if self._history is None:
            context.log("warning", "the history has not answered; going on without its news")
            self._history = prepared.history
        context.session = prepared.number
        speech = self._user.speech_from()
        self._plan = self._plan_from(self._history, speech)
        self._refusals = 0
        self._told_tools, self._told_speed = saved.tools, saved.speed
        self._told_settings = context.settings
        configuration = self._configuration()
        is_configured = prepared.configuration == configuration
        if not is_configured:
            context.update(configuration, "configure")
        self._repair_history()
        self._replay(prepared)
        self._context.phase = Phase.CONFIGURING
        self._calls.restored(self._plan)
        self._phase_by = now + HANDSHAKE_NS
        self.successor.begin_at(
            prepared.expires_ns - (prepared.expires_ns - prepared.created_ns) // AHEAD
        )
        if is_configured:
            self._go_live(now)

    def _plan_from(
        self, history: tuple[ConversationItem, ...] | None, speech_from: int | None = None
    ) -> restore.Plan:
        """Return how a new session takes the conversation up, which history may be behind of."""
        context = self._context
        heard = {
            item.item_id: item.text_heard
            for item in context.playback.items.values()
            if item.text_heard is not None
        }
        sound, since = self._user.hearing.remembered, context.capture.since
        known = restore.Known(context.outputs, heard, sound, since)
        plan = restore.plan(history or (), context.saved, speech_from, known)
        context.turns.have_text(plan.transcribed)
        return plan

    def _repair_history(self) -> None:
        """Tell history how things that the lost session left open have ended."""
        again = [turn.item_id for turn in self._plan.again]
        for item_id in again:
            self._context.publish(ItemRemoved(item_id, "the server is sent this speech again"))
        known = {item.item_id for item in self._history or () if item.text}
        self._user.texts_lost({*again, *known})
        self._end_items()

    def _end_items(self) -> None:
        before = None
        for item in self._history or ():
            known = self._context.playback.items.get(item.item_id)
            if known is not None and len(known.text) < len(item.text):
                known.text = item.text
            spoken = item.kind == "message" and item.role == "assistant"
            cut_off = spoken and not item.complete and not item.interrupted
            if cut_off and (not known.ended if known else self._context.session == 1):
                self._end_item(known or Spoken(item.item_id, "", session=0), item.text, before)
            before = item.item_id

    def _end_item(self, item: Spoken, text: str, before: str | None) -> None:
        item.ended = True
        self._context.publish(
            AssistantItem(item.item_id, before, item.response_id, text, "incomplete", item.received)
        )

    def _replay(self, prepared: Prepared) -> None:
        context, plan = self._context, self._plan
        self._user.leave_out_doubts()
        context.chain.restart(plan.aliases)
        left_out = {turn.item_id for turn in plan.again}
        kept = [item.item_id for item in self._history or () if item.item_id not in left_out]
        for item in plan.items[: plan.remembered]:
            context.chain.note(item["id"])
        context.chain.join(kept[-1] if kept else None)
        for item in plan.items[plan.remembered :]:
            context.chain.note(item["id"])
            if item["type"] == "function_call_output":  # or history has it elsewhere
                known_as = context.chain.known_as(item["id"])
                context.publish(ItemPlaced(known_as, context.chain.previous(item["id"])))
        self._user.typed.place(kept)
        for event in restore.difference(prepared.items, plan.items, context.event_id):
            context.send(event)

    def _go_live(self, now: int) -> None:
        context, saved = self._context, self._context.saved
        self._context.phase = Phase.LIVE
        self.live_ns = now
        context.log(
            "info",
            "a session with the server has begun",
            server=context.server,
            items=len(self._plan.items),
            ms=(now - self._outage_ns) // _MS,
        )
        self._tell_reconnected(now)
        if self._plan.given_up:
            context.publish(Notice(restore.GIVEN_UP))
        context.turns.restored(self._plan)
        heard_from = self._user.restored(self._plan, now)
        if heard_from is None:
            context.capture.idle()
        else:
            self._hear_again(heard_from, now)
        if self._plan.ask is not None:
            context.responses.want(self._plan.ask)
        context.responses.drop_answer()
        greeting = context.settings.greeting
        if not saved.greeted and greeting:
            self._greet(greeting)
        saved.greeted = saved.connected = True

    def _greet(self, greeting: str) -> None:
        responses = self._context.responses
        if responses.owed is None:
            say = f"Say exactly this, and nothing else: {greeting}"
            responses.want(Ask(say, tools="none"))
        else:  # the program was faster: what it has asked gets its answer, too
            responses.want(Ask(extra=(f"Begin with exactly this sentence: {greeting}",)))

    def _hear_again(self, from_sample: int, now: int) -> None:
        context, request_id = self._context, self._context.request_id()
        if self._cause == RENEWED:  # the old session has heard everything up to now
            from_sample = max(from_sample, context.capture.timeline.next_sample - REHEAR)
        has_speech = self._plan.hears_speech
        context.capture.restart(from_sample, request_id, now, has_speech=has_speech)
        context.publish(ReplayCapture(from_sample, request_id))

    def _tell_reconnected(self, now: int) -> None:
        context, saved = self._context, self._context.saved
        gap_ns = now - self._outage_ns
        if saved.connected:
            count, missing = len(self._plan.items), self._plan.missing
            restored = self._history is not None and not missing
            context.publish(Reconnected(restored, count, gap_ns // _MS, self._cause, missing))
            context.activity.leave_out(gap_ns, now)
        else:
            context.activity.begins(now)
            context.publish(Connected(context.server))
            if self._outage_told:
                context.publish(Notice(f"connected to {context.server}"))
        self._outage_told = False

    # -- as time goes by ----------------------------------------------------------------------

    def tick(self, now: int, is_quiet: Callable[[int], bool]) -> None:
        """Do what is due. ``is_quiet``: whether nothing is going on, so that it may be renewed."""
        if self._context.phase is Phase.LIVE:
            self.successor.tick(now, is_quiet)
            return
        due = self.deadline()
        if due is None or now < due:
            return
        if self._context.phase is Phase.CONNECTED:
            self.renew("the server did not begin the session", now)
        elif self._context.phase is Phase.CREATED:
            self._configure(now)
        elif self._context.phase is Phase.CONFIGURING:
            self._context.log("warning", "the server has not confirmed the configuration")
            self._go_live(now)

    def follow(self) -> None:
        """Tell a live session what has changed: at any time, but speed between two answers."""
        context, saved = self._context, self._context.saved
        between = context.responses.active is None and context.responses.asked is None
        if self._told_speed != saved.speed and between:
            self._told_speed = saved.speed
            context.update(session.speed_update(saved.speed), "speed")
        if self._told_tools != saved.tools:
            self._told_tools = saved.tools
            context.update(session.tools_update(context.settings, saved.tools or ()), "tools")
        if self._told_settings is not context.settings:
            tools = saved.tools or ()
            changes = session.settings_update(self._told_settings, context.settings, tools)
            self._told_settings = context.settings
            if changes is not None:
                context.update(changes, "settings")

    def deadline(self) -> int | None:
        """Return when `tick` has something to do."""
        match self._context.phase:
            case Phase.CONNECTED | Phase.CONFIGURING:
                return self._phase_by
            case Phase.CREATED:
                history = self._requested_ns + HISTORY_NS if self._history is None else 0
                tools = self._opened_ns + TOOLS_NS if self._context.saved.tools is None else 0
                return max(history, tools)
            case Phase.LIVE:
                return self.successor.deadline()
            case _:
                return None
