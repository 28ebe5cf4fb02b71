"""The handling of the server's errors, by the table in `errors`."""

from __future__ import annotations

from actors.realtime import wire
from actors.realtime.core import errors
from actors.realtime.core.answers import Answers, retry_delay
from actors.realtime.core.calls import Calls
from actors.realtime.core.context import Context, LinkPhase, Recent
from actors.realtime.core.errors import Meaning
from actors.realtime.core.link import Link
from actors.realtime.core.restore import OUTPUT
from actors.realtime.core.typed import TYPED
from actors.realtime.core.user import User
from messages import Notice, ServerError

__all__ = ["ServerErrors"]

_NS = 1_000_000_000
SAME_ERRORS = 5
"""After the same error this often in a row, without a completed answer, the session is renewed."""
SAME_ERROR_NS = 5 * _NS
"""Minimum time between two publications of the same error."""


class ServerErrors:
    """Handles the errors of the server; only fatal ones end the conversation."""

    def __init__(
        self, context: Context, user: User, answers: Answers, calls: Calls, link: Link
    ) -> None:
        self._context = context
        self._user = user
        self._answers = answers
        self._calls = calls
        self._link = link
        self._published = Recent()
        """When each error was last published, in ns, by code and parameter or text."""
        self._left_out = Recent()
        """The wrong fields that were published, as ``event field``."""
        self._notified_beta = False
        self._last, self._in_a_row = "", 0
        """The last error that a new session may cure, and how often it came in a row."""

    def bad_frame(self, frame: wire.BadFrame, now: int) -> None:
        """Publish that a frame is not a valid event."""
        self._context.log("info", "a frame is not a valid event", reason=frame.reason)
        self._publish(wire.ErrorBody(code="bad_frame", message=frame.reason), now)

    def left_out(self, event: wire.PartialEvent) -> None:
        """Publish, once for each field, that a field with a wrong value was left out."""
        name = wire.name_of(event)
        for field in event.left_out:
            if f"{name} {field}" not in self._left_out:
                self._left_out[f"{name} {field}"] = True
                self._context.log("warning", "a field was left out", event=name, field=field)
                text = f"the server sent {name} with a wrong {field}; going on without that field"
                self._context.publish(Notice(text))

    def unknown(self, event: wire.UnknownEvent, _: int) -> None:
        """Publish, once, that the server uses the protocol of before general availability."""
        if event.type in wire.BETA and not self._notified_beta:
            self._notified_beta = True
            self._context.log("error", "the server speaks the beta protocol", event=event.type)
            self._context.publish(Notice(errors.beta_protocol(self._context.server)))

    def answer_ended(self, response: wire.Response, now: int, *, failed: bool) -> None:
        """Handle the error of a response that has ended. ``failed``: whether it is not retried."""
        details = response.status_details
        error = details.error if details else None
        fatal = errors.fatal_code(error)
        if failed and fatal is not None:
            self._link.fail(fatal)
        elif failed:
            self._publish(error, now)
        if response.status == "completed":
            self._in_a_row = 0
        elif response.status == "failed":
            self._count(error, now)

    def refused(self, event: wire.ErrorEvent, now: int) -> None:
        """Handle an ``error`` event: the server refuses an event that it was sent."""
        context = self._context
        error = context.attributed(event.error)
        code = errors.code_of(error)
        if context.created_again(error):
            return
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
                context.log("debug", "the server refuses an unnecessary event", code=code)
            case Meaning.ACTIVE:
                context.responses.refused(error.event_id, now)
                context.log("debug", "a response is active already")
            case meaning:
                context.log("info", "the server refuses an event", code=code, intent=intent)
                self._do_without(error, meaning, now)
                self._count(error, now)

    def _do_without(self, error: wire.ErrorBody, meaning: Meaning, now: int) -> None:
        """Send the refused event again where that may help, or continue without it."""
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
            not intent and context.phase is LinkPhase.CONFIGURING and param.startswith("session")
        ):
            self._link.refused(changes, param, now)
        ask = context.responses.failed_to_ask(error.event_id)
        if ask is not None:
            delay = retry_delay(meaning)
            if delay is not None and context.responses.again(ask, now + delay):
                return
            self._answers.answered("")
        self._publish(error, now)

    def _count(self, error: wire.ErrorBody | None, now: int) -> None:
        """Renew the session after the same error many times in a row."""
        if errors.meaning(error) not in (Meaning.TRANSIENT, Meaning.UNKNOWN):
            return
        name = errors.code_of(error) or (error.message if error else None) or ""
        self._in_a_row = self._in_a_row + 1 if name == self._last else 1
        self._last = name
        if self._in_a_row >= SAME_ERRORS and self._context.phase is LinkPhase.LIVE:
            self._in_a_row = 0
            what = errors.code_of(error) or "an error"
            self._link.renew(f"the server reported {what} {SAME_ERRORS} times in a row", now)

    def _publish(self, error: wire.ErrorBody | None, now: int) -> None:
        """Publish an error, unless the same one was published a moment ago."""
        code = errors.code_of(error)
        param = (error.param if error else None) or ""
        key = f"{code} {param or (error and error.message)}"
        if now < self._published.get(key, -SAME_ERROR_NS) + SAME_ERROR_NS:
            return
        self._published[key] = now
        text = (error.message if error else None) or "the server gave no reason"
        self._context.publish(ServerError(code, text, param))
