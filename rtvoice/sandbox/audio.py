"""Conversion between the audio formats of a session and the sandbox's own, int16 at 24 kHz."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from rtvoice.sandbox.errors import RefusedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BYTES_PER_MS", "RATE", "Decoder", "Encoder", "to_pcm"]

RATE: Final = 24_000
BYTES_PER_MS: Final = 48

_G711_RATE: Final = 8_000


class Decoder:
    """Converts a stream in a session's input format to int16 little-endian mono at 24 kHz.

    Args:
        audio_format: The `format` of `session.audio.input`.
    """

    def __init__(self, audio_format: dict[str, Any]) -> None:
        self._law = _law(audio_format)
        if self._law:
            from actors.devices.sound.resample import Resampler

            self._resampler = Resampler(_G711_RATE, RATE)

    def decode(self, data: bytes, param: str = "audio") -> bytes:
        """Convert a block.

        Raises:
            RefusedError: PCM has an odd number of bytes.
        """
        if not self._law:
            if len(data) % 2:
                raise RefusedError(
                    f"Invalid '{param}'. Expected 16-bit samples, but got {len(data)} bytes, "
                    "which is an odd number.",
                    code="invalid_value",
                    param=param,
                )
            return data
        import numpy as np

        samples = _expansion(self._law)[np.frombuffer(data, np.uint8)]
        return to_pcm(self._resampler.process(samples))

    def rest(self) -> bytes:
        """Return what the resampler still holds at the end of the stream."""
        return to_pcm(self._resampler.flush()) if self._law else b""


class Encoder:
    """Converts a stream of int16 at 24 kHz to a session's output format.

    Args:
        audio_format: The `format` of `session.audio.output`.
    """

    def __init__(self, audio_format: dict[str, Any]) -> None:
        self._law = _law(audio_format)
        if self._law:
            from actors.devices.sound.resample import Resampler

            self._resampler = Resampler(RATE, _G711_RATE)

    def encode(self, pcm: bytes) -> bytes:
        if not self._law:
            return pcm
        import numpy as np

        samples = self._resampler.process(np.frombuffer(pcm, "<i2").astype(np.float32))
        return _compressed(samples, self._law)

    def rest(self) -> bytes:
        """Return what the resampler still holds at the end of the stream."""
        return _compressed(self._resampler.flush(), self._law) if self._law else b""


def to_pcm(samples: NDArray[np.float32]) -> bytes:
    """Convert float samples in the range of int16 to int16 little-endian."""
    import numpy as np

    return np.clip(np.rint(samples), -32768, 32767).astype("<i2").tobytes()


def _law(audio_format: dict[str, Any]) -> str:
    return {"audio/pcmu": "u", "audio/pcma": "a"}.get(audio_format["type"], "")


def _compressed(samples: NDArray[np.float32], law: str) -> bytes:
    """Return the G.711 code that is nearest to each sample."""
    import numpy as np

    levels, codes = _ladder(law)
    above = np.clip(np.searchsorted(levels, samples), 1, len(levels) - 1)
    nearer_below = samples - levels[above - 1] < levels[above] - samples
    return codes[above - nearer_below].tobytes()


@lru_cache(maxsize=2)
def _ladder(law: str) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    import numpy as np

    expansion = _expansion(law)
    order = np.argsort(expansion, kind="stable")
    return expansion[order], order.astype(np.uint8)


@lru_cache(maxsize=2)
def _expansion(law: str) -> NDArray[np.float32]:
    """Return the values of the 256 codes of ITU-T G.711 (https://www.itu.int/rec/T-REC-G.711)."""
    import numpy as np

    codes = np.arange(256)
    if law == "u":
        bits = ~codes & 0xFF
        size = (((bits & 0x0F) << 3) + 0x84 << ((bits & 0x70) >> 4)) - 0x84
        negative = (bits & 0x80) != 0
    else:
        bits = codes ^ 0x55
        segment = (bits & 0x70) >> 4
        step = ((bits & 0x0F) << 4) + 8
        size = np.where(segment == 0, step, (step + 0x100) << np.maximum(segment - 1, 0))
        negative = (bits & 0x80) == 0
    return np.where(negative, -size, size).astype(np.float32)
