"""What happens in a session, in one sentence for the person at the screen."""

from __future__ import annotations

from messages import (
    AudioLost,
    BudgetUsed,
    ComponentCrashed,
    ComponentParked,
    ComponentRestarted,
    DeadLetter,
    DeviceChanged,
    DeviceLost,
    Message,
    MessagesDropped,
    Notice,
    Reconnected,
    ServerError,
    SessionStarted,
    SupervisorRestarted,
)

__all__ = ["count_of", "length_of", "sentence", "server_of", "short"]

_SHORT = 120


def sentence(message: Message) -> tuple[str, bool]:
    """Return what has happened, as a phrase, and whether something went wrong.

    Empty: nothing to say. Turns, tool calls, interruptions and underruns are shown otherwise.
    """
    match message:
        case ComponentCrashed(component=component, cause=cause):
            return f"{component} crashed: {cause}", True
        case ComponentRestarted(crashed=False):  # `DeviceChanged` is shown instead
            return "", False
        case DeviceLost(component=component, device=device, reason=reason):
            return f"{component} lost: {device}: {reason}", True
        case DeviceChanged():
            return _device(message), False
        case ComponentRestarted(component=component, cause=cause, ms=ms):
            return f"{component} crashed: {cause}; back in {ms:.0f} ms", True
        case SupervisorRestarted(cause=cause, ms=ms):
            return f"the supervisor died: {cause}; back in {ms:.0f} ms", True
        case ComponentParked(component=component, cause=cause, retry_s=retry_s):
            return f"{component} keeps crashing: {cause}; next try in {retry_s:g} s", True
        case DeadLetter(component=component, message=name, reason=reason):
            return f"lost: {name} for {component} ({reason})", True
        case MessagesDropped(component=component, message=name, count=count, audio_ms=audio_ms):
            sound = f", {length_of(audio_ms)} of sound" if audio_ms else ""
            return f"lost: {count} {name} for {component} (mailbox full{sound})", True
        case AudioLost(component=component, audio_ms=audio_ms, reason=reason):
            return f"lost: {length_of(audio_ms)} of sound at the {component} ({reason})", True
        case Reconnected():
            return _reconnected(message), True
        case ServerError(code="bad_frame", text=text):
            return text, True
        case ServerError(code=code, text=text):
            return f"the server refused something: {text or code}", True
        case BudgetUsed(percent):
            return f"{percent} % of the budget is used", False
        case Notice(text=text):
            return text, False
    return "", False


def _device(changed: DeviceChanged) -> str:
    text = f"{changed.component}: {changed.using}"
    if changed.reason:
        text += f", for now, in place of {changed.wanted} ({changed.reason})"
    return text


def _reconnected(message: Reconnected) -> str:
    text = f"reconnected after {message.gap_ms} ms"
    if message.cause:
        text += f" ({message.cause})"
    if message.state_restored:
        text += f", the conversation of {count_of(message.items, 'item')} restored"
    elif message.missing:
        text += f", {count_of(message.items, 'item')} of the conversation restored"
        text += f"; {count_of(message.missing, 'turn')} of the user could not be: no transcript"
    return text


def server_of(started: SessionStarted) -> str:
    """Return the server of a session, as it is named to the user."""
    return "the sandbox" if started.sandbox else started.server or "the OpenAI service"


def length_of(ms: int) -> str:
    """Return a length of time, in the unit that suits it."""
    return f"{ms / 1000:.1f} s" if ms >= 100 else f"{ms} ms"


def short(text: str) -> str:
    """Return a text in one line, of limited length."""
    text = " ".join(text.split())
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 1]}…"


def count_of(number: int, thing: str) -> str:
    """Return a number of things, with the plural."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
