"""Devices of your own: where the user's voice comes from and where the assistant's goes.

PCM is 16-bit little-endian mono, 24 kHz unless an input device's ``sample_rate`` says otherwise.
Methods may be plain functions or coroutines.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

__all__ = ["AudioInputDevice", "AudioOutputDevice"]


class AudioInputDevice(ABC):
    """A source of the user's voice."""

    @abstractmethod
    async def start(self) -> None:
        """Begin to capture."""

    @abstractmethod
    async def stop(self) -> None:
        """Release the device."""

    @abstractmethod
    def stream_chunks(self) -> AsyncIterator[bytes]:
        """Yield what is captured, in chunks of any size; the end is the end of the input."""

    @property
    @abstractmethod
    def is_active(self) -> bool:
        """Whether it captures now."""


class AudioOutputDevice(ABC):
    """Where the assistant is heard.

    Optional, used when there: ``played_ms`` (a number or a method: how much of everything that was
    given to `play_chunk` has been heard, in milliseconds; without it the clock is taken).
    """

    @abstractmethod
    async def start(self) -> None:
        """Get ready to play."""

    @abstractmethod
    async def stop(self) -> None:
        """Release the device."""

    @abstractmethod
    async def play_chunk(self, chunk: bytes) -> None:
        """Play after what was given before; called at most 200 ms ahead of real time."""

    @abstractmethod
    async def clear_buffer(self) -> None:
        """Forget what is not played yet, and be silent: the assistant was interrupted."""
