"""What the Realtime API takes of `Settings`: ranges, and what depends on the model.

Sources: the types of openai-python 3.57 (``openai.types.realtime``) and
https://platform.openai.com/docs/guides/realtime-conversations. A model that is not known here is
taken to know everything; so is every voice of a server of one's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from messages.session import SemanticVad, ServerVad

if TYPE_CHECKING:
    from messages.session import Settings

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
"""With this begins the id of a custom voice."""
SPEEDS = (0.25, 1.5)

_OPENAI_SHAPED = ("openai", "sandbox")
_RANGES: dict[str, tuple[int, int]] = {"max_output_tokens": (1, 4096), "preroll_ms": (0, 5000)}
_VAD_RANGES: dict[str, tuple[float, float]] = {
    "threshold": (0, 1),
    "prefix_padding_ms": (0, 10_000),
    "silence_duration_ms": (0, 60_000),
    "idle_timeout_ms": (5000, 30_000),
}
_WITHOUT_REASONING = re.compile(r"gpt-realtime(-1\.5|-mini)?(-\d{4}-\d\d-\d\d)?|gpt-4o-.*")
_TRANSCRIBERS = re.compile(
    r"whisper-1|gpt-(live-)?transcribe|gpt-4o(-mini)?-transcribe.*|gpt-realtime-whisper"
)
_STREAMING = ("gpt-live-transcribe", "gpt-realtime-whisper")
"""They transcribe what the client commits, so they need turn detection to be off."""
_TAKEN_BY = {
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
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def reasons(model: str) -> bool:
    """Tell whether a model reasons, as far as is known."""
    return _WITHOUT_REASONING.fullmatch(model) is None


def problem(settings: Settings) -> tuple[str, str] | None:
    """Return a setting that the API would refuse, and a sentence that says why; None: none."""
    return next(_problems(settings), None)


def _problems(settings: Settings) -> Iterator[tuple[str, str]]:
    for name, (low, high) in {**_RANGES, "speed": SPEEDS}.items():
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:
            yield name, f"{value:g} is out of range; give a number from {low:g} to {high:g}"
    yield from _of_the_voice(settings)
    yield from _of_turn_detection(settings)
    yield from _of_tools(settings)
    yield from _of_transcription(settings)
    yield from _of_truncation(settings)


def _of_the_voice(settings: Settings) -> Iterator[tuple[str, str]]:
    voice = settings.voice
    if voice in VOICES or voice.startswith(CUSTOM_VOICE) or settings.server not in _OPENAI_SHAPED:
        return
    known = f"{', '.join(VOICES)}, or the id of a custom one ({CUSTOM_VOICE}…)"
    yield "voice", f"{voice!r} is no voice of the service; there are {known}"


def _of_turn_detection(settings: Settings) -> Iterator[tuple[str, str]]:
    vad = settings.turn_detection
    if isinstance(vad, ServerVad):
        for name, (low, high) in _VAD_RANGES.items():
            value = getattr(vad, name)
            if value is not None and not low <= value <= high:
                wrong = f"{name} is {value:g}; it must be from {low:g} to {high:g}"
                yield "turn_detection", wrong


def _of_tools(settings: Settings) -> Iterator[tuple[str, str]]:
    if _TOOL_NAME.fullmatch(settings.tool_choice) is None:
        wrong = f"{settings.tool_choice!r} is no choice"
        yield "tool_choice", f"{wrong}; give auto, none, required or the name of a tool"
    for name in ("reasoning_effort", "parallel_tool_calls"):
        if getattr(settings, name) is not None and not reasons(settings.model):
            wrong = f"only models that reason take it, and {settings.model} does not"
            yield name, f"{wrong}; leave it out, or choose another, such as gpt-realtime-2.1"


def _of_transcription(settings: Settings) -> Iterator[tuple[str, str]]:
    model = settings.transcription_model
    if model is None or _TRANSCRIBERS.fullmatch(model) is None:
        return
    if model in _STREAMING and isinstance(settings.turn_detection, ServerVad | SemanticVad):
        wrong = f"{model} transcribes only with push-to-talk (turn_detection=None)"
        yield "transcription_model", f"{wrong}; choose another, such as gpt-transcribe"
    for name, takers in _TAKEN_BY.items():
        value = getattr(settings, name)
        if not value or model in takers or (name == "language" and isinstance(value, str)):
            continue
        what = "several languages" if name == "language" else "it"
        yield name, f"{model} does not take {what}; {', '.join(takers[:2])} would"


def _of_truncation(settings: Settings) -> Iterator[tuple[str, str]]:
    truncation = settings.truncation
    if isinstance(truncation, str):
        return
    if not 0 <= truncation.ratio <= 1:
        yield "truncation", f"ratio is {truncation.ratio:g}; it must be from 0 to 1"
    if truncation.token_limit is not None and truncation.token_limit < 0:
        yield "truncation", f"token_limit is {truncation.token_limit}; it must be 0 or more"
