"""Cuts the sound of turns out of recordings, and mixes their two channels."""

from __future__ import annotations

import io
import wave
from array import array
from pathlib import Path

from messages import SAMPLE_RATE

__all__ = ["Recording", "as_wav"]

_FULL = 32_767


class Recording:
    """A recording: the user on the left channel, the assistant on the right.

    Args:
        path: The file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no recording of a session.
    """

    def __init__(self, path: Path) -> None:
        try:
            with wave.open(str(path), "rb") as file:
                form = (file.getnchannels(), file.getsampwidth(), file.getframerate())
                frames = file.readframes(file.getnframes())
        except (wave.Error, EOFError) as error:
            raise ValueError(f"{path} is no recording: {error}") from error
        if form != (2, 2, SAMPLE_RATE):
            raise ValueError(f"{path} is no recording of a session: {form}")
        self._both = array("h", frames)

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self._both) / 2 / SAMPLE_RATE

    def of(self, who: str, start_s: float = 0.0, end_s: float | None = None) -> bytes:
        """Return the sound of ``user`` or ``assistant``: 16-bit mono PCM at 24 kHz."""
        channel = 0 if who == "user" else 1
        start = int(max(0.0, start_s) * SAMPLE_RATE)
        end = len(self._both) // 2 if end_s is None else int(end_s * SAMPLE_RATE)
        return self._both[2 * start + channel : 2 * end : 2].tobytes()

    def mixed(self) -> bytes:
        """Return both channels in one: 16-bit mono PCM at 24 kHz."""
        left, right = self._both[0::2], self._both[1::2]
        both = zip(left, right, strict=True)
        return array("h", (max(-_FULL - 1, min(_FULL, a + b)) for a, b in both)).tobytes()


def as_wav(pcm: bytes) -> bytes:
    """Return sound (16-bit mono at 24 kHz) as the contents of a WAV file."""
    whole = io.BytesIO()
    with wave.open(whole, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(pcm)
    return whole.getvalue()
