"""What is done about the errors of the server, by the table of `errors`."""

from __future__ import annotations

from actors.realtime import wire
from actors.realtime.core import errors
from actors.realtime.core.answers import Answers, retry_delay
from actors.realtime.core.calls import Calls
from actors.realtime.core.context import Context, Phase, Recent
from actors.realtime.core.errors import Meaning
from actors.realtime.core.link import Link
from actors.realtime.core.restore import OUTPUT
from actors.realtime.core.typed import TYPED
from actors.realtime.core.user import User
from messages import ServerError

__all__ = ["ServerErrors"]

_NS = 1_000_000_000
SAME_ERRORS = 5
"""So many times the same error in a row, without an answer in between: a new session may help."""
SAME_ERROR_NS = 5 * _NS
"""The same error is reported to the program at most once in this time."""


class ServerErrors:
    """Acts on each error; only fatal ones end the conversation."""

    def __init__(
        self, context: Context, user: User, answers: Answers, calls: Calls, link: Link
    ) -> None:
        self._context = context
        self._user = user
        self._answers = answers
        self._calls = calls
        self._link = link
        self._reported = Recent()
        """When each error was reported to the program last."""
        self._last, self._in_a_row = "", 0
        """The error that came last, of those against which a new session may help."""

    def bad_frame(self, frame: wire.BadFrame, now: int) -> None:
        """Report what the server has sent and is no event."""
        self._context.log("info", "a frame is not understood", reason=frame.reason)
        self._report(wire.ErrorBody(code="bad_frame", message=frame.reason), now)

    def answer_ended(self, response: wire.Response, now: int, *, failed: bool) -> None:
        """Act on why an answer has ended. ``failed``: for good, it is not asked for once more."""
        details = response.status_details
        error = details.error if details else None
        fatal = errors.fatal_code(error)
        if failed and fatal is not None:
            self._link.fail(fatal)
        elif failed:
            self._report(error, now)
        if response.status == "completed":
            self._in_a_row = 0
        elif response.status == "failed":
            self._count(error, now)

    def refused(self, event: wire.ErrorEvent, now: int) -> None:
        """Act on a refusal of something that the server was sent."""
        context, error = self._context, event.error
        code = errors.code_of(error)
        intent, _ = context.intent(error.event_id)
        if intent == "commit" or (not intent and code == "input_audio_buffer_commit_empty"):
            self._user.talking.refused()
        match errors.meaning(error):
            case Meaning.FATAL:
                self._link.fail(errors.fatal_code(error) or code)
            case Meaning.EXPIRED:
                self._link.renew("the server has ended the session", now)
            case Meaning.NOT_ACTIVE:
                active = context.responses.active
                if active is not None and active.cancelled:
                    context.responses.done(active.response_id)
            case Meaning.HARMLESS:
                context.log("debug", "the server finds something unnecessary", code=code)
            case Meaning.ACTIVE:
                context.responses.refused(error.event_id, now)
                context.log("debug", "an answer is active already")
            case meaning:
                context.log("info", "the server refuses something", code=code, intent=intent)
                self._do_without(error, meaning, now)
                self._count(error, now)

    def _do_without(self, error: wire.ErrorBody, meaning: Meaning, now: int) -> None:
        """Go on without what was refused or, where that may help, send it again."""
        context = self._context
        intent, changes = context.intent(error.event_id)
        param = error.param or ""
        if intent.startswith(TYPED):
            self._user.typed.refused(intent.removeprefix(TYPED))
        if intent == "speed" and self._link.configuration.refused_speed():
            return
        if intent.startswith(OUTPUT) and error.code != "invalid_tool_call_id":
            call_id, reason = intent.removeprefix(OUTPUT), error.message or errors.code_of(error)
            if self._calls.refused(call_id, reason, retry_delay(meaning), now):
                return
        if intent in ("configure", "settings") or (
            not intent and context.phase is Phase.CONFIGURING and param.startswith("session")
        ):
            self._link.refused(changes, param, now)
        ask = context.responses.failed_to_ask(error.event_id)
        if ask is not None:
            delay = retry_delay(meaning)
            if delay is not None and context.responses.again(ask, now + delay):
                return
            self._answers.answered("")
        self._report(error, now)

    def _count(self, error: wire.ErrorBody | None, now: int) -> None:
        """Begin a new session when the same error comes again and again."""
        if errors.meaning(error) not in (Meaning.TRANSIENT, Meaning.UNKNOWN):
            return
        name = errors.code_of(error) or (error.message if error else None) or ""
        self._in_a_row = self._in_a_row + 1 if name == self._last else 1
        self._last = name
        if self._in_a_row >= SAME_ERRORS and self._context.phase is Phase.LIVE:
            self._in_a_row = 0
            what = errors.code_of(error) or "an error"
            self._link.renew(f"the server reported {what} {SAME_ERRORS} times in a row", now)

    def _report(self, error: wire.ErrorBody | None, now: int) -> None:
        """Report an error to the program."""
        code = errors.code_of(error)
        param = (error.param if error else None) or ""
        key = f"{code} {param or (error and error.message)}"
        if now < self._reported.get(key, -SAME_ERROR_NS) + SAME_ERROR_NS:
            return
        self._reported[key] = now
        text = (error.message if error else None) or "the server gave no reason"
        self._context.publish(ServerError(code, text, param))
