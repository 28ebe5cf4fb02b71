"""The single writer of ``response.create``: one answer at a time, each asked for once.

Idle, asked (create sent), active; the server's voice activity detection goes from idle to active
without us. What is wanted while that is not possible is owed, and owed once however often it is
wanted.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from actors.realtime.core.state import Answer, Ask, Saved

__all__ = ["MARK", "Active", "Asked", "Responses"]

_NS = 1_000_000_000
ANSWER_NS = 10 * _NS
"""How long an answer may take to begin."""
ACTIVE_ELSEWHERE_NS = 2 * _NS
"""When to ask again if the server says an answer is active that we have not seen."""
SILENCE_NS = 30 * _NS
"""An active answer of which nothing was heard for so long is given up, if another is wanted."""
LOST_NS = 120 * _NS
"""After so long it is in any case: the server has not told its end."""
TRIES = 2
MARK = "rtvoice"
"""The key in the metadata of an answer under which it carries the id of our event."""

_EARLIER = 20
_JOINED = ("none", "", "auto")
"""Of two answers that become one, the earlier of these is the `Ask.tools`: what is to be said is
said, and a turn calls a tool even if outputs of others are waiting."""


class Active(msgspec.Struct):
    """The answer that the server is generating."""

    response_id: str
    ask: Ask | None
    """As it was asked for; None: the server made it by itself."""
    news_ns: int
    begun: bool = False
    call: bool = False
    cancelled: bool = False
    interrupted: bool = False
    """It is cancelled because the user speaks."""
    seen: tuple[str, ...] = ()
    """Item ids of the turns that it answers; what is said later it has not seen."""


class Asked(msgspec.Struct):
    """A ``response.create`` that has no answer yet."""

    event_id: str
    ask: Ask
    sent_ns: int
    cancel: bool = False
    """To be cancelled as soon as it begins: the user or the program has interrupted it."""
    unwanted: bool = False
    """The program has interrupted it, so that it is not asked for again."""
    overtaken: bool = False
    """The server's own answer began meanwhile; what becomes of this one is to come."""
    missed: bool = False
    """That answer has not seen what this one is about, or does not say it."""

    def is_open(self) -> bool:
        """Tell whether it has to be asked for again if it comes to nothing."""
        if self.unwanted:
            return False
        return self.missed if self.overtaken else not self.cancel


class Responses:
    """Decides when an answer is asked for. Times are ns."""

    def __init__(self, saved: Saved) -> None:
        self._saved = saved
        self.active: Active | None = None
        self.asked: Asked | None = None
        self._earlier: dict[str, Asked] = {}
        """What was asked for last, by event id."""
        self.owed = saved.owed
        self.not_before = 0
        self.expected_until: int | None = None
        """The server is about to answer speech by itself; past this time we ask."""
        self._marks = False
        """Whether the server is known to give back the mark of an answer (its metadata)."""
        self.in_vain = False
        """Set when an answer was asked for as often as makes sense, and did not begin."""
        self.unseen: dict[str, None] = {}
        """Items that the owed answer is about and that the server has not confirmed."""

    def want(self, ask: Ask, about: Iterable[str] = ()) -> None:
        """Want an answer, about items that were just sent."""
        self.owed = ask if self.owed is None else _joined(self.owed, ask)
        for item_id in about:
            self.unseen[item_id] = None

    def expect(self, now: int) -> None:
        """Take note that the server answers speech that was just committed."""
        self.expected_until = now + ANSWER_NS

    def seen(self, item_id: str) -> None:
        """Take note that the server has put an item into the conversation."""
        self.unseen.pop(item_id, None)

    def next_ask(self, now: int) -> Ask | None:
        """Return what may be asked for now: call `sent` once it is."""
        if self.active is not None or self.asked is not None or self.expected_until is not None:
            return None
        if self.owed is None or now < self.not_before:
            return None
        return self.owed

    def sent(self, event_id: str, now: int) -> None:
        """Take note that what is owed has been asked for."""
        if self.owed is None or self.asked is not None or self.active is not None:
            raise RuntimeError("a second answer was asked for")
        self.asked = self._earlier[event_id] = Asked(event_id, self.owed, now)
        while len(self._earlier) > _EARLIER:
            del self._earlier[next(iter(self._earlier))]
        self.owed = None

    def created(self, response_id: str, mark: str | None, now: int) -> Active:
        """Take note that an answer has begun, whoever asked for it.

        Args:
            response_id: of the answer.
            mark: the event id that we gave it as metadata, if the server gives that back.
            now: the time.
        """
        asked, expected, self.expected_until = self.asked, self.expected_until, None
        self._marks = self._marks or mark is not None
        ours = expected is None  # the server answers speech, and begins that first
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
            # The model has seen everything that we wanted to ask about.
            self.active.ask, self.owed = owed, None
        self._saved.answer = None
        if not self.active.cancelled:
            ask = self.active.ask
            self._saved.answer = Answer(response_id, ask or Ask(), unasked=ask is None)
        return self.active

    def says(self, response_id: str, *, begun: bool = False, call: bool = False) -> Active | None:
        """Record that an answer has sound or text, or calls a tool.

        Returns:
            The active answer, if it is this one.
        """
        answer, active = self._saved.answer, self.active
        if answer is not None and answer.response_id == response_id:
            answer.begun, answer.call = answer.begun or begun, answer.call or call
        if active is None or active.response_id != response_id:
            return None
        active.begun, active.call = active.begun or begun, active.call or call
        return active

    def announces(self, response_id: str, *, announces: bool) -> None:
        """Record whether the last whole item of an answer only says what is to come."""
        answer = self._saved.answer
        if answer is not None and answer.response_id == response_id:
            answer.announces = announces

    def drop_answer(self) -> None:
        """Do not resume the current answer in another session."""
        self._saved.answer = None

    def done(self, response_id: str) -> Active | None:
        """Take note that an answer has ended. Return it, if it was the active one."""
        active, answer = self.active, self._saved.answer
        if answer is not None and answer.response_id == response_id:
            self._saved.answer = None
        if active is None or active.response_id != response_id:
            return None
        self.active = None
        self.not_before = 0
        if self.asked is not None and self.asked.overtaken and not self._marks:
            self._drop_asked()  # nobody will tell what became of it
        return active

    def refused(self, event_id: str | None, now: int) -> None:
        """Take note that ``response.create`` was refused because an answer is active."""
        asked, active = self.asked, self.active
        if asked is None and event_id is None and self.expected_until is not None and active:
            # Speech did not interrupt (`interrupt_response`), so the server cannot answer it yet.
            self.expected_until = None
            self.want(Ask())
        elif asked is not None and event_id in (None, asked.event_id):
            if self._drop_asked() and active is None:
                self.not_before = now + ACTIVE_ELSEWHERE_NS
        else:
            # It was another that began when we thought it was this one. What this one was about
            # may not have been seen.
            earlier = self._earlier.pop(event_id or "", None)
            if earlier is not None and not earlier.unwanted:
                self.want(earlier.ask)

    def _drop_asked(self) -> bool:
        """Forget what was asked for. Return whether it is owed again."""
        asked, self.asked = self.asked, None
        if asked is None or not asked.is_open():
            return False
        self.want(asked.ask)
        return True

    def failed_to_ask(self, event_id: str | None) -> Ask | None:
        """Take note that ``response.create`` was refused for another reason."""
        asked = self.asked
        if asked is None or asked.event_id != event_id:
            return None
        self.asked = None
        return asked.ask

    def again(self, ask: Ask | None, not_before: int) -> bool:
        """Ask once more what failed, not before then. Return False if that was done already."""
        ask = ask or Ask()
        if ask.retries + 1 >= TRIES:
            return False
        self.want(msgspec.structs.replace(ask, retries=ask.retries + 1))
        self.not_before = not_before
        return True

    def cancel(self) -> str | None:
        """Return the id of the answer that has to be cancelled now, if there is one."""
        if self.asked is not None:
            self.asked.cancel = self.asked.unwanted = True
        if self.active is None or self.active.cancelled:
            return None
        self.active.cancelled = True
        return self.active.response_id

    def withdraw(self) -> None:
        """Have what was asked for and has not begun cancelled when it does; it is owed again."""
        if self.asked is not None and self.asked.is_open() and not self.asked.overtaken:
            self.asked.cancel = True
            self.want(self.asked.ask)

    def interrupt(self) -> str | None:
        """Return the id of the answer that has to be cancelled as the user speaks, if any."""
        if self.active is None or self.active.cancelled:
            return None
        self.active.cancelled = self.active.interrupted = True
        return self.active.response_id

    def lost(self) -> None:
        """Forget what belonged to the connection; what had not begun is owed."""
        self._drop_asked()
        self.asked = self.active = self.expected_until = None
        self.not_before = 0
        self.unseen.clear()

    def tick(self, now: int) -> list[str]:
        """Do what is due. Return what happened, for the log."""
        happened = []
        asked = self.asked
        if asked is not None and now >= asked.sent_ns + ANSWER_NS:
            self.asked = None
            if not asked.is_open():
                happened.append("a cancelled answer never began")
            elif self.again(asked.ask, now):
                happened.append("the server has not begun an answer, asking again")
            else:
                self.in_vain = True
                happened.append("the server does not answer")
        if self.expected_until is not None and now >= self.expected_until:
            self.expected_until = None
            if self.active is None and self.asked is None:
                self.want(Ask())
                happened.append("the server has not answered speech, asking")
        given_up_at = self._given_up_at()
        if given_up_at is not None and now >= given_up_at:
            self.active = None
            happened.append("nothing was heard of the answer under way, given up")
        return happened

    def _given_up_at(self) -> int | None:
        """Return when the active answer counts as over unless there is a sign of life."""
        if self.active is None:
            return None
        return self.active.news_ns + (LOST_NS if self.owed is None else SILENCE_NS)

    def still_owed(self) -> Ask | None:
        """Return the answer that the next process would have to ask for."""
        asked = self.asked
        return self.owed or (asked.ask if asked is not None and asked.is_open() else None)

    def busy(self) -> bool:
        """Tell whether an answer is being generated, asked for or owed."""
        return not (
            self.active is None
            and self.asked is None
            and self.owed is None
            and self.expected_until is None
        )

    def deadline(self) -> int | None:
        """Return when `tick` or `next_ask` should be called next."""
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
    """Return the one answer that is asked for in place of two."""
    instructions = later.instructions
    told: tuple[Ask, ...] = ()
    if earlier.instructions != later.instructions:  # it has to fulfil both
        instructions, told = None, (earlier, later)
    own = [ask.instructions for ask in told if ask.instructions is not None]
    return msgspec.structs.replace(
        later,
        instructions=instructions,
        extra=tuple(dict.fromkeys((*own, *earlier.extra, *later.extra))),
        tools=min(earlier.tools, later.tools, key=_JOINED.index),
        insists=earlier.insists or later.insists,
    )
