"""The session with the server: opening it, renewing it, swapping it for the standby session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actors.realtime import wire
from actors.realtime.core import errors
from actors.realtime.core.actions import ConnectAfter, Disconnect, Swap
from actors.realtime.core.answers import Answers
from actors.realtime.core.calls import Calls
from actors.realtime.core.configuration import Configuration
from actors.realtime.core.context import Context, LinkPhase
from actors.realtime.core.errors import Meaning
from actors.realtime.core.outage import Outage
from actors.realtime.core.recovery import Recovery
from actors.realtime.core.server_clock import SESSION_NS, ServerClock
from actors.realtime.core.state import Ask
from actors.realtime.core.successor import Prepared, Successor
from actors.realtime.core.user import User
from messages import AssistantAudio, Disconnected, FatalError, HistorySnapshot

__all__ = ["Link"]

_NS = 1_000_000_000
TOOLS_NS = 1 * _NS
"""Maximum wait for the first `ToolsAvailable`; after it, the session begins without tools."""
HANDSHAKE_NS = 10 * _NS
"""How long ``session.created`` and ``session.updated`` may take, each."""
AHEAD = 6
"""The standby session is begun when a sixth of the current session is left."""
RENEWED = "a new session has taken over before the server ended the old one"
STEADY_NS = 10 * _NS
"""A session that was live for this long was a good one: backing off starts from the shortest delay
again."""


class Link:
    """Connects, configures and recovers; after each loss again, until the outage is too long.

    Its parts: `Configuration`, `Recovery` (the replay of the conversation), `Outage` (the time
    without a session), `Successor` (the standby session) and `ServerClock`.
    """

    def __init__(
        self, context: Context, user: User, answers: Answers, calls: Calls, now: int
    ) -> None:
        self._context = context
        self._user = user
        self._answers = answers
        self._calls = calls
        self.clock = ServerClock()
        self.outage = Outage(context, now)
        self.configuration = Configuration(context)
        self._recovery = Recovery(context, user)
        self.successor = Successor(context, self.configuration, self._recovery)
        self._prepared: Prepared | None = None
        """The server session that is about to go live; None: the server has not begun one."""
        self.live_ns: int | None = None
        """Since when the session is live; None: it is not."""
        self._opened_ns = now
        self._phase_by = 0

    # -- the connection -----------------------------------------------------------------------

    def open(self, now: int) -> None:
        """Request the history, and connect meanwhile."""
        for was in self._context.saved.playing:
            if not was.complete:  # its session is lost, so no more of its audio will come
                self._context.publish(
                    AssistantAudio(b"", was.item_id, was.response_id, was.samples, last=True)
                )
        self._seek(0.0, self.outage.cause, now)

    def connected(self, now: int) -> None:
        """Record that the websocket is open."""
        self._prepared = None
        self._context.forget_ids()
        self.outage.connected()
        self._context.phase = LinkPhase.CONNECTED
        self._phase_by = now + HANDSHAKE_NS
        if not self._recovery.is_recent(now):  # while connecting, the history may have changed
            self._recovery.request(now)

    def connect_failed(self, status: int, code: str, text: str, now: int) -> None:
        """Record that connecting failed; retry after a delay, unless the error is fatal."""
        first = not self._context.saved.connected
        fatal = errors.handshake_is_fatal(status, code, text, first=first)
        if fatal is not None:
            self.fail(fatal, text)
            return
        self.outage.unreachable(text, now)
        self._seek(self.outage.backoff_s(now), text, now)

    def lost(self, code: int, reason: str, now: int) -> None:
        """Record that the websocket has closed; begin another session unless the error is fatal."""
        meaning, name = errors.close_meaning(code, reason)
        if meaning is Meaning.FATAL:
            self.fail(name)
            return
        cause = f"the connection ended ({code}{': ' + reason if reason else ''})"
        self._settle(cause, now)
        self._go_over(cause, now)

    def renew(self, reason: str, now: int) -> None:
        """End this session, and begin another one."""
        self._settle(reason, now)
        if not self.successor.is_ready:
            self._context.do(Disconnect(reason))
        self._go_over(reason, now)

    def fail(self, code: str, detail: str = "") -> None:
        """End the conversation because of a fatal error."""
        self._fail(errors.why_fatal(code, self._context.settings.model, detail))

    def _fail(self, reason: str) -> None:
        self._context.finished = True
        self._context.phase = LinkPhase.OFFLINE
        self.successor.drop(reason)
        self._context.do(Disconnect(reason))
        self._context.publish(FatalError(reason))

    def _seek(self, seconds: float, reason: str, now: int) -> None:
        self._context.phase = LinkPhase.OFFLINE
        self._recovery.request(now)
        self._context.do(ConnectAfter(seconds, reason))

    def _go_over(self, reason: str, now: int) -> None:
        """Swap the standby session in if it is ready; otherwise connect again."""
        if self.successor.is_ready:
            self._swap(reason)
            self._recovery.request(now)
        else:
            self.successor.drop(reason)
            self._seek(self.outage.backoff_s(now), reason, now)

    def _swap(self, reason: str) -> None:
        self._prepared = self.successor.take()
        self._context.do(Swap(reason))
        self._context.swap_ids()
        self._context.phase = LinkPhase.CREATED

    def _settle(self, cause: str, now: int) -> None:
        """Settle what belonged to the session that is gone."""
        was_live, self.live_ns = self.live_ns, None
        if was_live is not None:
            self.outage.begin(cause, now)
            self._context.publish(Disconnected(cause))
            if now - was_live >= STEADY_NS:
                self.outage.reset_backoff()
        self._answers.lost()

    # -- the beginning of a session -----------------------------------------------------------

    def session_created(self, event: wire.SessionCreated, now: int) -> None:
        """Record that the server has begun a session."""
        if self._context.phase is LinkPhase.CONNECTED:
            self._context.phase = LinkPhase.CREATED
            number = self._context.next_session()
            self._prepared = Prepared(number, now, self.clock.expires_ns(event, now))

    def session_updated(self, _: wire.SessionUpdated, now: int) -> None:
        """Record that the configuration is in force."""
        if self._context.phase is LinkPhase.CONFIGURING:
            self._go_live(now)

    def snapshot(self, message: HistorySnapshot, now: int, is_quiet: Callable[[int], bool]) -> None:
        """Handle the history: for the session that is beginning, or for the standby session.

        The latter is swapped in, if nothing is going on. ``is_quiet``: as in `tick`.
        """
        phase = self._context.phase
        if phase < LinkPhase.CONFIGURING and self._recovery.take(message):
            return
        items = self.successor.snapshot(message, now)
        if items is None or phase is not LinkPhase.LIVE or not is_quiet(now):
            return
        # Nothing is going on: each turn has been answered, or will not be.
        self._context.turns.answered()
        self.live_ns = None
        self.outage.begin(RENEWED, now)
        self._answers.lost()
        self._swap(RENEWED)
        self._recovery.history = items
        self._configure(now)

    def refused(self, refused: dict[str, Any] | None, param: str | None, now: int) -> None:
        """Continue without the parameters of the configuration that the server has refused."""
        if self.configuration.refused(refused, param):
            self._phase_by = now + HANDSHAKE_NS
        elif self._context.phase is LinkPhase.CONFIGURING:
            self._go_live(now)

    def _configure(self, now: int) -> None:
        """Send a new session its configuration and the conversation, without waiting for replies.

        The websocket keeps the order, so the items follow the configuration.
        """
        context = self._context
        prepared = self._prepared or Prepared(context.next_session(), now, now + SESSION_NS)
        context.session = prepared.number
        self._recovery.begin(prepared.history)
        is_configured = self.configuration.begin(prepared.configuration)
        self._recovery.send_items(prepared.items)
        context.phase = LinkPhase.CONFIGURING
        self._calls.restored(self._recovery.plan)
        self._phase_by = now + HANDSHAKE_NS
        self.successor.begin_at(
            prepared.expires_ns - (prepared.expires_ns - prepared.created_ns) // AHEAD
        )
        if is_configured:
            self._go_live(now)

    def _go_live(self, now: int) -> None:
        context, saved, plan = self._context, self._context.saved, self._recovery.plan
        context.phase = LinkPhase.LIVE
        self.live_ns = now
        context.log(
            "info",
            "a session with the server has begun",
            server=context.server,
            items=len(plan.items),
            ms=(now - self.outage.since_ns) // 1_000_000,
        )
        restored = self._recovery.is_complete()
        self.outage.end(len(plan.items), plan.missing, now, restored=restored)
        self._recovery.hand_over(now, is_swapped=self.outage.cause == RENEWED)
        greeting = context.settings.greeting
        if not saved.greeted and greeting:
            self._greet(greeting)
        saved.greeted = saved.connected = True

    def _greet(self, greeting: str) -> None:
        responses = self._context.responses
        if responses.owed is None:
            say = f"Say exactly this, and nothing else: {greeting}"
            responses.want(Ask(say, tools="none"))
        else:  # the program was faster: one response greets, and does what the program requested
            responses.want(Ask(extra=(f"Begin with exactly this sentence: {greeting}",)))

    # -- as time goes by ----------------------------------------------------------------------

    def tick(self, now: int, is_quiet: Callable[[int], bool]) -> None:
        """Do what is due.

        Args:
            now: The time.
            is_quiet: Returns whether nothing is going on, so that the sessions may be swapped.
        """
        if self._context.phase is LinkPhase.LIVE:
            self.successor.tick(now, is_quiet)
            return
        given_up_at, due = self.outage.given_up_at(), self._phase_deadline()
        if given_up_at is not None and now >= given_up_at:
            self._fail(self.outage.verdict())
            return
        if due is None or now < due:
            return
        if self._context.phase is LinkPhase.CONNECTED:
            self.outage.silent(now)
            self.renew("the server did not begin the session", now)
        elif self._context.phase is LinkPhase.CREATED:
            self._configure(now)
        elif self._context.phase is LinkPhase.CONFIGURING:
            self._context.log("warning", "the server has not confirmed the configuration")
            self._go_live(now)

    def deadline(self) -> int | None:
        """Return when `tick` has something to do; None: only after an event."""
        times = [self._phase_deadline()]
        if self._context.phase is not LinkPhase.LIVE:
            times.append(self.outage.given_up_at())
        return min((time for time in times if time is not None), default=None)

    def _phase_deadline(self) -> int | None:
        match self._context.phase:
            case LinkPhase.CONNECTED | LinkPhase.CONFIGURING:
                return self._phase_by
            case LinkPhase.CREATED:
                tools = self._opened_ns + TOOLS_NS if self._context.saved.tools is None else 0
                return max(self._recovery.deadline(), tools)
            case LinkPhase.LIVE:
                return self.successor.deadline()
            case _:
                return None
