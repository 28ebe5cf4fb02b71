"""The meaning of the server's errors: one table of codes."""

from __future__ import annotations

from enum import Enum

from actors.realtime.wire import ErrorBody

__all__ = [
    "Meaning",
    "beta_protocol",
    "close_meaning",
    "code_of",
    "fatal_code",
    "handshake_is_fatal",
    "known_codes",
    "meaning",
    "why_fatal",
]


class Meaning(Enum):
    """The action that an error requires."""

    HARMLESS = "do nothing"
    ACTIVE = "a response is active: request ours again when it is done"
    NOT_ACTIVE = "no response is active: the one that we know, if any, is over"
    EXPIRED = "begin a new session"
    TRANSIENT = "retry once"
    RATE = "retry once, after a longer delay"
    FATAL = "end the conversation"
    REPORT = "publish it to the program"
    UNKNOWN = "publish it to the program; if it is repeated, begin a new session"


_KEY = "the server refuses the API key: check OPENAI_API_KEY (https://platform.openai.com/api-keys)"
_MONEY = (
    "the account has no credit left: see https://platform.openai.com/settings/organization/billing"
)
_SHAPE = "the server does not accept the GA Realtime protocol: check its URL"
_PLACE = "the service is not available in this country or region"
_ACCOUNT = "the account is deactivated: see https://platform.openai.com/settings/organization"
_MODEL = (
    "the server does not know the model {model!r}, or this key may not use it: choose another model"
)

_FATAL = {
    "invalid_api_key": _KEY,
    "invalid_authentication": _KEY,
    "authentication_error": _KEY,
    "account_deactivated": _ACCOUNT,
    "insufficient_quota": _MONEY,
    "credit_balance_exhausted": _MONEY,
    "billing_hard_limit_reached": _MONEY,
    "billing_not_active": _MONEY,
    "beta_api_shape_disabled": _SHAPE,
    "unsupported_country_region_territory": _PLACE,
    "missing_api_key": (
        "OPENAI_API_KEY is not set: create a key at https://platform.openai.com/api-keys, "
        "or talk to the sandbox instead"
    ),
    "invalid_url": "the server's address is not a ws:// or wss:// URL",
    "malformed_api_key": (
        "the key in OPENAI_API_KEY has characters that no key has, such as a line break, a space "
        "or a typographic quotation mark: copy it again"
    ),
    "model_not_found": _MODEL,
    "invalid_model": _MODEL,
}

_FATAL_AT_FIRST = {
    "no_realtime_api": (
        "nothing at the server's address speaks the Realtime API (HTTP 404 or a redirect); "
        "its path usually is /v1/realtime"
    ),
    "no_tls": (
        "the server at this address does not use TLS: give its address with ws:// instead of wss://"
    ),
    "untrusted_certificate": (
        "{detail}: if the server is your own, name its certificate in SSL_CERT_FILE; if not, "
        "somebody may be intercepting the connection"
    ),
}
"""Fatal if no connection to this server has ever succeeded. After one, they may be
temporary."""

_TABLE = {
    "response_cancel_not_active": Meaning.NOT_ACTIVE,
    "conversation_already_has_active_response": Meaning.ACTIVE,
    "input_audio_buffer_commit_empty": Meaning.HARMLESS,
    "item_truncate_invalid_item_id": Meaning.HARMLESS,
    "item_delete_invalid_item_id": Meaning.HARMLESS,
    "item_create_duplicate_item_id": Meaning.HARMLESS,
    "item_retrieve_invalid_item_id": Meaning.HARMLESS,
    "unsupported_content_type": Meaning.HARMLESS,
    "session_expired": Meaning.EXPIRED,
    "rate_limit_exceeded": Meaning.RATE,
    "rate_limit_error": Meaning.RATE,
    "server_error": Meaning.TRANSIENT,
    "internal_error": Meaning.TRANSIENT,
    # Mistakes of ours or of the program: a new session would refuse them too.
    "array_above_max_length": Meaning.REPORT,
    "cannot_update_voice": Meaning.REPORT,
    "invalid_tool_call_id": Meaning.REPORT,
    "invalid_type": Meaning.REPORT,
    "invalid_value": Meaning.REPORT,
    "invalid_json": Meaning.REPORT,
    "item_create_invalid_previous_item_id": Meaning.REPORT,
    "missing_required_parameter": Meaning.REPORT,
    "object_above_max_properties": Meaning.REPORT,
    "string_above_max_length": Meaning.REPORT,
    "unknown_parameter": Meaning.REPORT,
}
"""The meanings by code or, if the code is unknown, by type. `_FATAL` has precedence."""

_HARMLESS_TEXTS = ("already shorter than", "Only model output audio")
"""Parts of messages about truncations that are unnecessary; these errors have no code."""

_PROTOCOL_CLOSE = 4000
"""Close code of a server that refuses the protocol; its reason is ``<type>.<code>``."""


def known_codes() -> dict[str, Meaning]:
    """Return the meanings of all codes of ``error`` events and failed responses."""
    return {**_TABLE, **dict.fromkeys(_FATAL, Meaning.FATAL)}


def code_of(error: ErrorBody | None) -> str:
    """Return the code of an error or, if it has none, its type; empty if it has neither."""
    if error is None:
        return ""
    return str(error.code or error.type or "")


def fatal_code(error: ErrorBody | None) -> str | None:
    """Return the code or type that makes an error fatal; None: it is not fatal."""
    names = (str(error.code), str(error.type)) if error else ()
    return next((name for name in names if name in _FATAL), None)


def meaning(error: ErrorBody | None) -> Meaning:
    """Return the action that an error requires."""
    if error is None:
        return Meaning.UNKNOWN
    if fatal_code(error) is not None:
        return Meaning.FATAL
    for name in (error.code, error.type):
        if name is not None and (found := _TABLE.get(str(name))) is not None:
            return found
    if any(text in (error.message or "") for text in _HARMLESS_TEXTS):
        return Meaning.HARMLESS
    return Meaning.UNKNOWN


def why_fatal(code: str, model: str, detail: str = "") -> str:
    """Return the message to the user for a fatal code: what is wrong and what to do."""
    return {**_FATAL, **_FATAL_AT_FIRST}[code].format(model=model, detail=detail)


def beta_protocol(server: str) -> str:
    """Return the sentence about a server whose events have the names of before GA."""
    return (
        f"{server} uses the event names of before general availability (response.audio.delta, …): "
        "nothing that it says can be heard; update the server, or give its URL of the present API"
    )


def close_meaning(code: int, reason: str) -> tuple[Meaning, str]:
    """Return the action that a closed connection requires, and the code of its error.

    Args:
        code: the close code of the websocket.
        reason: the close reason, often ``<type>.<code>``.
    """
    name = reason.rpartition(".")[2]
    if code == _PROTOCOL_CLOSE:
        return Meaning.FATAL, name if name in _FATAL else "beta_api_shape_disabled"
    if name in _FATAL:
        return Meaning.FATAL, name
    return Meaning.TRANSIENT, name


def handshake_is_fatal(status: int, code: str, text: str, *, first: bool = False) -> str | None:
    """Return the fatal code of a refused handshake; None: it may succeed later.

    Args:
        status: HTTP status; 0: there was no HTTP response.
        code: code of the error in the body, or our own code for what failed before HTTP.
        text: message of the error.
        first: whether no connection to this server has ever succeeded.
    """
    if code in _FATAL:
        return code
    if status == 401:
        return "invalid_api_key"
    if status == 403:
        return "invalid_api_key"
    if status in (400, 404) and "model" in f"{code} {text}".lower():
        return "model_not_found"
    if first and code in _FATAL_AT_FIRST:
        return code
    if first and (status == 404 or 300 <= status < 400):
        return "no_realtime_api"
    return None
