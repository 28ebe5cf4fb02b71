"""Estimates of the token counts in the `usage` of responses and transcriptions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from rtvoice.sandbox.conversation import ServerItem

__all__ = ["audio_tokens", "response_usage", "text_tokens", "transcription_usage"]

# Rules of thumb for the service: 10 tokens per second of the user's audio, 20 per second of the
# assistant's, one token per four characters of text.
_USER_HZ: Final = 10
_ASSISTANT_HZ: Final = 20
_RATE: Final = 24_000
_CHARACTERS: Final = 4
_CACHE_STEP: Final = 64
_IMAGE: Final = {"low": 85}
_LARGE_IMAGE: Final = 765


def text_tokens(text: str) -> int:
    return -(-len(text) // _CHARACTERS)


def audio_tokens(samples: int, *, of_user: bool = False) -> int:
    return -(-samples * (_USER_HZ if of_user else _ASSISTANT_HZ) // _RATE)


def response_usage(
    instructions: str, context: Iterable[ServerItem], said: str, samples: int, cached: int
) -> dict[str, Any]:
    """Return the `usage` of a response.

    Args:
        instructions: The instructions of the response.
        context: Its input items.
        said: Its text, transcript or arguments.
        samples: Length of its audio, in samples at 24 kHz.
        cached: Input tokens of the response before, of which the service caches a prefix.
    """
    text_in, audio_in, image_in = text_tokens(instructions), 0, 0
    for item in context:
        text_in += text_tokens(item.arguments + item.output)
        for part in item.content:
            if part.kind == "input_image":
                image_in += _IMAGE.get(part.image["detail"], _LARGE_IMAGE)
                continue
            spoken = part.kind == "input_audio"
            audio_in += audio_tokens(part.samples, of_user=spoken)
            text_in += 0 if spoken else text_tokens(part.text or part.transcript or "")
    cached = min(cached, text_in) // _CACHE_STEP * _CACHE_STEP
    text_out, audio_out = text_tokens(said), audio_tokens(samples)
    tokens_in = text_in + audio_in + image_in
    return {
        "total_tokens": tokens_in + text_out + audio_out,
        "input_tokens": tokens_in,
        "output_tokens": text_out + audio_out,
        "input_token_details": {
            "text_tokens": text_in,
            "audio_tokens": audio_in,
            "image_tokens": image_in,
            "cached_tokens": cached,
            "cached_tokens_details": {
                "text_tokens": cached,
                "audio_tokens": 0,
                "image_tokens": 0,
            },
        },
        "output_token_details": {"text_tokens": text_out, "audio_tokens": audio_out},
    }


def transcription_usage(model: str | None, samples: int, transcript: str) -> dict[str, Any]:
    """Return the `usage` of a transcription: whisper is billed by time, other models by tokens."""
    if model is None or "whisper" in model:
        return {"type": "duration", "seconds": -(-samples // _RATE)}
    audio, text = audio_tokens(samples, of_user=True), text_tokens(transcript)
    return {
        "type": "tokens",
        "total_tokens": audio + text,
        "input_tokens": audio,
        "input_token_details": {"text_tokens": 0, "audio_tokens": audio},
        "output_tokens": text,
    }
