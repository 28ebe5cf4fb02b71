"""The models of the service, and the shutdown dates of the retired ones, with their sources."""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from typing import NamedTuple

__all__ = ["RealtimeModel", "Retirement", "TranscriptionModel", "retirement_of"]


class RealtimeModel(StrEnum):
    """Models that hold a spoken conversation. Any other name is accepted wherever one of these is.

    ``GPT_REALTIME`` and ``GPT_REALTIME_MINI`` always name the current models.

    Example:
        ```python
        from rtvoice import Agent, RealtimeModel

        agent = Agent(model=RealtimeModel.GPT_REALTIME)
        ```
    """

    GPT_REALTIME_2_1 = "gpt-realtime-2.1"
    GPT_REALTIME_2_1_MINI = "gpt-realtime-2.1-mini"
    GPT_REALTIME_2 = "gpt-realtime-2"
    GPT_REALTIME_1_5 = "gpt-realtime-1.5"
    GPT_REALTIME = "gpt-realtime-2.1"
    GPT_REALTIME_MINI = "gpt-realtime-2.1-mini"


class TranscriptionModel(StrEnum):
    """Models that transcribe the user. Any other name is accepted wherever one of these is.

    ``GPT_LIVE_TRANSCRIBE`` and ``GPT_REALTIME_WHISPER`` work with push-to-talk only. Those with
    ``4O`` or ``WHISPER_1`` in their name are retired (`retirement_of`).

    Example:
        ```python
        from rtvoice import Agent, TranscriptionModel

        agent = Agent(transcription_model=TranscriptionModel.GPT_TRANSCRIBE)
        ```
    """

    GPT_TRANSCRIBE = "gpt-transcribe"
    GPT_LIVE_TRANSCRIBE = "gpt-live-transcribe"
    GPT_REALTIME_WHISPER = "gpt-realtime-whisper"
    GPT_4O_TRANSCRIBE = "gpt-4o-transcribe"
    GPT_4O_MINI_TRANSCRIBE = "gpt-4o-mini-transcribe"
    WHISPER_1 = "whisper-1"


class Retirement(NamedTuple):
    """When a model is shut down, and its replacement: ``model``, ``on`` (a date), ``successor``.

    Example:
        ```python
        from rtvoice.models import retirement_of

        retirement = retirement_of("gpt-realtime")
        if retirement is not None:
            print(retirement)
        ```
    """

    model: str
    on: date
    successor: str

    def __str__(self) -> str:
        verb = "is shut down" if date.today() < self.on else "was shut down"  # noqa: DTZ011 - a date, the time zone is irrelevant
        return f"the model {self.model} {verb} on {self.on.isoformat()}; use {self.successor}"


_BETA = date(2026, 5, 12)
"""End of the beta interface and of the models that need it.
https://platform.openai.com/docs/deprecations"""
_REALTIME = date(2027, 1, 20)
"""Source: docstring of ``model`` in ``RealtimeSessionCreateRequest`` of openai-python 3.57."""
_TRANSCRIPTION = date(2027, 2, 26)
"""Source: docstring of ``AudioTranscription.model`` in openai-python 3.57."""

_BIG, _MINI = RealtimeModel.GPT_REALTIME.value, RealtimeModel.GPT_REALTIME_MINI.value
_GONE = {
    "gpt-4o-realtime-preview": (_BETA, _BIG),
    "gpt-4o-realtime-preview-2024-10-01": (_BETA, _BIG),
    "gpt-4o-realtime-preview-2024-12-17": (_BETA, _BIG),
    "gpt-4o-realtime-preview-2025-06-03": (_BETA, _BIG),
    "gpt-4o-mini-realtime-preview": (_BETA, _MINI),
    "gpt-4o-mini-realtime-preview-2024-12-17": (_BETA, _MINI),
    "gpt-realtime": (_REALTIME, _BIG),
    "gpt-realtime-2025-08-28": (_REALTIME, _BIG),
    "gpt-realtime-mini": (_REALTIME, _MINI),
    "gpt-realtime-mini-2025-10-06": (_REALTIME, _MINI),
    "gpt-realtime-mini-2025-12-15": (_REALTIME, _MINI),
    "whisper-1": (_TRANSCRIPTION, "gpt-transcribe"),
    "gpt-4o-transcribe": (_TRANSCRIPTION, "gpt-transcribe"),
    "gpt-4o-transcribe-diarize": (_TRANSCRIPTION, "gpt-transcribe"),
    "gpt-4o-mini-transcribe": (_TRANSCRIPTION, "gpt-transcribe"),
    "gpt-4o-mini-transcribe-2025-03-20": (_TRANSCRIPTION, "gpt-transcribe"),
    "gpt-4o-mini-transcribe-2025-12-15": (_TRANSCRIPTION, "gpt-transcribe"),
}


def retirement_of(model: str) -> Retirement | None:
    """Return when a model is shut down; None: no date is known.

    Example:
        ```python
        from rtvoice import retirement_of

        print(retirement_of("whisper-1"))
        ```
    """
    found = _GONE.get(model)
    return Retirement(model, *found) if found else None
