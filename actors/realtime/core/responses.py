"""The only sender of ``response.create``: one response at a time, each requested once.

The states are idle, asked (``response.create`` sent) and active. The server's voice activity
detection leads from idle to active without a request of ours. A response that is wanted while
another one is asked or active is owed; several owed responses are joined into one.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from actors.realtime.core.state import Answer, Ask, Saved

__all__ = ["MARK", "Active", "Asked", "Responses"]

_NS = 1_000_000_000
ANSWER_NS = 10 * _NS
"""How long a response may take to begin after it was requested or speech was committed."""
ACTIVE_ELSEWHERE_NS = 2 * _NS
"""Delay before the next request if the server reports an active response that we do not know."""
SILENCE_NS = 30 * _NS
"""If no event of the active response arrives for this long while another response is owed, the
active one counts as ended."""
LOST_NS = 120 * _NS
"""The same if no other response is owed: its ``response.done`` was lost."""
TRIES = 2
"""How often the same response is requested at most."""
MARK = "rtvoice"
"""Metadata key of a response: its value is the id of the event that requested it."""

_EARLIER = 20
"""How many of the newest requests are remembered, to match a refusal that arrives late."""
_JOINED = ("none", "", "auto")
"""Precedence of `Ask.tools` when two responses are joined. "none" first: a sentence to be spoken
must be spoken. "" before "auto": a turn has to call a tool even if outputs of others wait."""


class Active(msgspec.Struct):
    """The response that the server is generating."""

    response_id: str
    ask: Ask | None
    """The request that it fulfils; None: the server began it unasked."""
    news_ns: int
    """When its last event arrived."""
    begun: bool = False
    """Whether the response has audio or text."""
    call: bool = False
    """Whether the response has called a tool."""
    cancelled: bool = False
    """Whether ``response.cancel`` was sent, or is about to be."""
    interrupted: bool = False
    """Whether the response is cancelled because the user speaks."""
    seen: tuple[str, ...] = ()
    """Item ids of the turns that the model has seen: those it answers. Later ones stay open."""


class Asked(msgspec.Struct):
    """A ``response.create`` that was sent and whose response has not begun."""

    event_id: str
    ask: Ask
    sent_ns: int
    cancel: bool = False
    """Whether to cancel the response as soon as it begins: the user or program interrupted it."""
    unwanted: bool = False
    """Whether the program has interrupted the response, so that it is not requested again."""
    overtaken: bool = False
    """Whether a response that the server made unasked began first. The server may still refuse this
    request, or begin its response later."""
    missed: bool = False
    """Whether the unasked response cannot replace the requested one, because it has not seen the
    items that the request is about, or because the request insists (`Ask.insists`)."""

    def is_open(self) -> bool:
        """Return whether the request must be repeated if no response follows it."""
        if self.unwanted:
            return False
        return self.missed if self.overtaken else not self.cancel


class Responses:
    """Decides when ``response.create`` is sent. Times are ns."""

    def __init__(self, saved: Saved) -> None:
        self._saved = saved
        self.active: Active | None = None
        self.asked: Asked | None = None
        self._earlier: dict[str, Asked] = {}
        """The newest requests, by event id."""
        self.owed = saved.owed
        """The response to request as soon as that is possible; None: none."""
        self.not_before = 0
        """When the owed response may be requested at the earliest."""
        self.expected_until: int | None = None
        """Deadline for the server to answer committed speech unasked; after it, we request a
        response. None: no such response is expected."""
        self._marks = False
        """Whether this server has returned the metadata of a response, which contains `MARK`."""
        self.in_vain = False
        """Set when a response did not begin although it was requested `TRIES` times."""
        self.unseen: dict[str, None] = {}
        """Ids of items that the owed response is about and that the server has not confirmed."""

    def want(self, ask: Ask, about: Iterable[str] = ()) -> None:
        """Record that a response is owed.

        Args:
            ask: the response.
            about: ids of items, just sent, that the model must have seen for it.
        """
        self.owed = ask if self.owed is None else _joined(self.owed, ask)
        for item_id in about:
            self.unseen[item_id] = None

    def expect(self, now: int) -> None:
        """Record that the server is about to answer speech that was just committed."""
        self.expected_until = now + ANSWER_NS

    def seen(self, item_id: str) -> None:
        """Record that the server has added an item to the conversation."""
        self.unseen.pop(item_id, None)

    def next_ask(self, now: int) -> Ask | None:
        """Return the response that may be requested now. The caller sends it and calls `sent`."""
        if self.active is not None or self.asked is not None or self.expected_until is not None:
            return None
        if self.owed is None or now < self.not_before:
            return None
        return self.owed

    def sent(self, event_id: str, now: int) -> None:
        """Record that the owed response has been requested.

        Raises:
            RuntimeError: no response is owed, or another one is asked or active.
        """
        if self.owed is None or self.asked is not None or self.active is not None:
            raise RuntimeError("a second response was requested")
        self.asked = self._earlier[event_id] = Asked(event_id, self.owed, now)
        while len(self._earlier) > _EARLIER:
            del self._earlier[next(iter(self._earlier))]
        self.owed = None

    def created(self, response_id: str, mark: str | None, now: int) -> Active:
        """Record that a response has begun, whether we or the server caused it.

        Args:
            response_id: the id of the response.
            mark: the event id from its metadata; None: it has none, or the server drops metadata.
            now: the time.
        """
        asked, expected, self.expected_until = self.asked, self.expected_until, None
        self._marks = self._marks or mark is not None
        # Without marks it has to be guessed: a server that is about to answer speech begins that
        # response before the one that we requested.
        ours = expected is None
        if self._marks:
            ours = asked is not None and asked.event_id == mark
        if asked is not None and not ours:
            asked.overtaken = True
            asked.missed = bool(self.unseen) or asked.ask.insists
            asked = None
        else:
            self.asked = None
        self.active = Active(response_id, asked.ask if asked else None, now)
        if asked is not None and asked.cancel:
            self.active.cancelled = True
        owed = self.owed
        if asked is None and owed is not None and not owed.insists and not self.unseen:
            # The model has seen all items that the owed response is about: this one replaces it.
            self.active.ask, self.owed = owed, None
        self._saved.answer = None
        if not self.active.cancelled:
            ask = self.active.ask
            self._saved.answer = Answer(response_id, ask or Ask(), unasked=ask is None)
        return self.active

    def says(self, response_id: str, *, begun: bool = False, call: bool = False) -> Active | None:
        """Record that a response has audio or text, or calls a tool.

        Returns:
            The active response, if it is this one.
        """
        answer, active = self._saved.answer, self.active
        if answer is not None and answer.response_id == response_id:
            answer.begun, answer.call = answer.begun or begun, answer.call or call
        if active is None or active.response_id != response_id:
            return None
        active.begun, active.call = active.begun or begun, active.call or call
        return active

    def announces(self, response_id: str, *, announces: bool) -> None:
        """Record whether the last complete item of a response only announces what follows."""
        answer = self._saved.answer
        if answer is not None and answer.response_id == response_id:
            answer.announces = announces

    def cut_off(self, response_id: str) -> None:
        """Record that the end of a response was not heard, so that the next session resumes it."""
        if self._saved.answer is None:
            self._saved.answer = Answer(response_id, Ask(), begun=True)

    def drop_answer(self) -> None:
        """Forget the current response, so that no other session resumes it."""
        self._saved.answer = None

    def done(self, response_id: str) -> Active | None:
        """Record that a response has ended. Return it if it was the active one."""
        active, answer = self.active, self._saved.answer
        if answer is not None and answer.response_id == response_id:
            self._saved.answer = None
        if active is None or active.response_id != response_id:
            return None
        self.active = None
        self.not_before = 0
        if self.asked is not None and self.asked.overtaken and not self._marks:
            # Without marks there is no sure sign of what becomes of the request: do not wait.
            self._drop_asked()
        return active

    def refused(self, event_id: str | None, now: int) -> None:
        """Record that ``response.create`` was refused because a response is active."""
        asked, active = self.asked, self.active
        if asked is None and event_id is None and self.expected_until is not None and active:
            # Speech did not interrupt (`interrupt_response`), so the server cannot answer it yet.
            self.expected_until = None
            self.want(Ask())
        elif asked is not None and event_id in (None, asked.event_id):
            if self._drop_asked() and active is None:
                self.not_before = now + ACTIVE_ELSEWHERE_NS
        else:
            # The response that began was taken for the one of this request, but was another. It
            # may not have seen the items that this request is about.
            earlier = self._earlier.pop(event_id or "", None)
            if earlier is not None and not earlier.unwanted:
                self.want(earlier.ask)

    def _drop_asked(self) -> bool:
        """Forget the open request. Return whether its response is owed again."""
        asked, self.asked = self.asked, None
        if asked is None or not asked.is_open():
            return False
        self.want(asked.ask)
        return True

    def failed_to_ask(self, event_id: str | None) -> Ask | None:
        """Forget a ``response.create`` that was refused for another reason. Return its `Ask`."""
        asked = self.asked
        if asked is None or asked.event_id != event_id:
            return None
        self.asked = None
        return asked.ask

    def again(self, ask: Ask | None, not_before: int) -> bool:
        """Retry a failed response at ``not_before``. Return False after `TRIES` requests."""
        ask = ask or Ask()
        if ask.retries + 1 >= TRIES:
            return False
        self.want(msgspec.structs.replace(ask, retries=ask.retries + 1))
        self.not_before = not_before
        return True

    def cancel(self) -> str | None:
        """Interrupt for the program. Return the id of the response to cancel now, if any.

        A request whose response has no id yet is cancelled when the response begins.
        """
        if self.asked is not None:
            self.asked.cancel = self.asked.unwanted = True
        if self.active is None or self.active.cancelled:
            return None
        self.active.cancelled = True
        return self.active.response_id

    def withdraw(self) -> None:
        """Replace the open request: its response is cancelled when it begins, and owed again."""
        if self.asked is not None and self.asked.is_open() and not self.asked.overtaken:
            self.asked.cancel = True
            self.want(self.asked.ask)

    def interrupt(self) -> str | None:
        """Interrupt because the user speaks. Return the id of the response to cancel, if any."""
        if self.active is None or self.active.cancelled:
            return None
        self.active.cancelled = self.active.interrupted = True
        return self.active.response_id

    def lost(self) -> None:
        """Forget the state of a lost connection; a response that had not begun is owed."""
        self._drop_asked()
        self.asked = self.active = self.expected_until = None
        self.not_before = 0
        self.unseen.clear()

    def tick(self, now: int) -> list[str]:
        """Act on deadlines that have passed. Return log texts for what was done."""
        happened = []
        asked = self.asked
        if asked is not None and now >= asked.sent_ns + ANSWER_NS:
            self.asked = None
            if not asked.is_open():
                happened.append("a cancelled response never began")
            elif self.again(asked.ask, now):
                happened.append("the server has not begun a response; requesting it again")
            else:
                self.in_vain = True
                happened.append("the server does not begin a response")
        if self.expected_until is not None and now >= self.expected_until:
            self.expected_until = None
            if self.active is None and self.asked is None:
                self.want(Ask())
                happened.append("the server has not answered speech; requesting a response")
        given_up_at = self._given_up_at()
        if given_up_at is not None and now >= given_up_at:
            self.active = None
            happened.append("the active response sends no events; given up")
        return happened

    def _given_up_at(self) -> int | None:
        """Return when the active response counts as ended if no event of it arrives."""
        if self.active is None:
            return None
        return self.active.news_ns + (LOST_NS if self.owed is None else SILENCE_NS)

    def still_owed(self) -> Ask | None:
        """Return the response that the next process would have to request."""
        asked = self.asked
        return self.owed or (asked.ask if asked is not None and asked.is_open() else None)

    def busy(self) -> bool:
        """Return whether a response is active, asked, owed or expected."""
        return not (
            self.active is None
            and self.asked is None
            and self.owed is None
            and self.expected_until is None
        )

    def deadline(self) -> int | None:
        """Return when `tick` or `next_ask` has something to do; None: only after an event."""
        times = []
        if self.asked is not None:
            times.append(self.asked.sent_ns + ANSWER_NS)
        if self.expected_until is not None:
            times.append(self.expected_until)
        given_up_at = self._given_up_at()
        if given_up_at is not None:
            times.append(given_up_at)
        elif self.owed is not None and self.asked is None and self.expected_until is None:
            times.append(self.not_before)
        return min(times, default=None)


def _joined(earlier: Ask, later: Ask) -> Ask:
    """Return one response that fulfils two."""
    instructions = later.instructions
    differing: tuple[Ask, ...] = ()
    if earlier.instructions != later.instructions:
        # One replaces the session's instructions, so it would suppress the other: add both.
        instructions, differing = None, (earlier, later)
    own = [ask.instructions for ask in differing if ask.instructions is not None]
    return msgspec.structs.replace(
        later,
        instructions=instructions,
        extra=tuple(dict.fromkeys((*own, *earlier.extra, *later.extra))),
        tools=min(earlier.tools, later.tools, key=_JOINED.index),
        insists=earlier.insists or later.insists,
    )
