"""Checks of settings that depend on each other: combinations that the Realtime API refuses.

Sources: the types of openai-python 3.57 (``openai.types.realtime``) and
https://platform.openai.com/docs/guides/realtime-conversations. Models that are not known here are
assumed to support everything, and a server of the user's own to support every voice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from messages.prices import Budget, price_of
from messages.settings import SPEEDS, SemanticVad, ServerVad
from messages.urls import model_in

if TYPE_CHECKING:
    from messages.settings import Settings

__all__ = ["SPEEDS", "VOICES", "problem", "reasons"]

VOICES = (
    "alloy",
    "ash",
    "ballad",
    "coral",
    "echo",
    "sage",
    "shimmer",
    "verse",
    "marin",
    "cedar",
)
CUSTOM_VOICE = "voice_"
"""Prefix of the ids of custom voices."""

_OPENAI_SHAPED = ("openai", "sandbox")
_WITHOUT_REASONING = re.compile(r"gpt-realtime(-1\.5|-mini)?(-\d{4}-\d\d-\d\d)?|gpt-4o-.*")
_TRANSCRIBERS = re.compile(
    r"whisper-1|gpt-(live-)?transcribe|gpt-4o(-mini)?-transcribe.*|gpt-realtime-whisper"
)
_STREAMING = ("gpt-live-transcribe", "gpt-realtime-whisper")
"""Models that transcribe only what the client commits, so that turn detection must be off."""
_SUPPORTED_BY = {
    "transcription_keywords": ("gpt-transcribe", "gpt-live-transcribe"),
    "language": ("gpt-transcribe", "gpt-live-transcribe"),
    "transcription_delay": ("gpt-realtime-whisper",),
    "transcription_prompt": (
        "gpt-transcribe",
        "gpt-live-transcribe",
        "whisper-1",
        "gpt-4o-transcribe",
        "gpt-4o-mini-transcribe",
        "gpt-4o-mini-transcribe-2025-03-20",
        "gpt-4o-mini-transcribe-2025-12-15",
    ),
}


def reasons(model: str) -> bool:
    """Return whether a model reasons; an unknown model counts as one that does."""
    return _WITHOUT_REASONING.fullmatch(model) is None


def problem(settings: Settings) -> tuple[str, str] | None:
    """Return the name of a setting that the API would refuse, and why; None: there is none."""
    return next(_problems(settings), None)


def _problems(settings: Settings) -> Iterator[tuple[str, str]]:
    yield from _of_the_voice(settings)
    yield from _of_reasoning(settings)
    yield from _of_transcription(settings)
    yield from _of_the_budget(settings)
    if settings.resume is not None and settings.journal_path is not None:
        yield "journal_path", "leave it out: the journal that resume names is continued"
    if settings.redact is not None and settings.recording_path is not None:
        yield "redact", "sound cannot be redacted: leave the recording out (stored='text')"


def _of_the_voice(settings: Settings) -> Iterator[tuple[str, str]]:
    voice = settings.voice
    if voice in VOICES or voice.startswith(CUSTOM_VOICE) or settings.server not in _OPENAI_SHAPED:
        return
    known = f"{', '.join(VOICES)}, or the id of a custom one ({CUSTOM_VOICE}…)"
    yield "voice", f"{voice!r} is not a valid voice of the service; give {known}"


def _of_the_budget(settings: Settings) -> Iterator[tuple[str, str]]:
    budget = settings.budget
    if not isinstance(budget, Budget) or budget.dollars is None:
        return
    model = model_in(settings.server) or settings.model
    if price_of(model, None, settings.prices) is None:
        wrong = f"the price of {model} is not known, so it cannot be in dollars"
        yield "budget", f"{wrong}; give prices={{{model!r}: (Price(...),)}}, or Budget(tokens=...)"


def _of_reasoning(settings: Settings) -> Iterator[tuple[str, str]]:
    for name in ("reasoning_effort", "parallel_tool_calls"):
        if getattr(settings, name) is not None and not reasons(settings.model):
            wrong = f"only models that reason support it, and {settings.model} does not"
            yield name, f"{wrong}; leave it out, or choose another, such as gpt-realtime-2.1"


def _of_transcription(settings: Settings) -> Iterator[tuple[str, str]]:
    model = settings.transcription_model
    if model is None or _TRANSCRIBERS.fullmatch(model) is None:
        return
    if model in _STREAMING and isinstance(settings.turn_detection, ServerVad | SemanticVad):
        wrong = f"{model} transcribes only with push-to-talk (turn_detection=None)"
        yield "transcription_model", f"{wrong}; choose another, such as gpt-transcribe"
    for name, models in _SUPPORTED_BY.items():
        value = getattr(settings, name)
        if not value or model in models or (name == "language" and isinstance(value, str)):
            continue
        what = "several languages" if name == "language" else "it"
        others = " or ".join(models[:2])
        yield name, f"{model} does not support {what}; leave it out, or choose {others}"
