"""Interfaces of your own audio devices: a source of the user's voice, a sink of the assistant's.

Audio is 16-bit little-endian mono PCM at 24 kHz, unless the device has a ``sample_rate`` (an
attribute, in Hz, 8000-192000); rtvoice then converts. Every method may be a coroutine function,
which runs on the event loop of your program, or a plain function, which runs on a thread of its own
and may block.

If a method raises, the conversation goes on: the event `DeviceFailed` is published, and the device
is stopped and started again after 0.5, 1, 2, 5, 10 and then every 30 seconds.

A device can also be given by name, ``"module:Class"`` or ``"file.py:Class"``. Then it runs in the
process of the microphone or the speaker, which is restarted when the device raises.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

__all__ = ["AudioInputDevice", "AudioOutputDevice"]


class AudioInputDevice(ABC):
    """A source of the user's voice.

    Example:
        ```python
        class Line(AudioInputDevice):
            sample_rate = 8000

            def __init__(self, websocket):
                self._websocket = websocket

            async def start(self) -> None:
                pass

            async def stop(self) -> None:
                await self._websocket.close()

            async def stream_chunks(self) -> AsyncIterator[bytes]:
                async for message in self._websocket:
                    yield message

        ```
    """

    _active: bool = False
    """The value of `is_active`: rtvoice sets it to True after `start` and to False after `stop`,
    unless the device sets it itself."""

    @abstractmethod
    async def start(self) -> None:
        """Begin to capture. It may be called again after `stop`."""

    @abstractmethod
    async def stop(self) -> None:
        """Release the device. It is also called after `start` has raised."""

    @abstractmethod
    def stream_chunks(self) -> AsyncIterator[bytes]:
        """Yield captured audio as it arrives, in chunks of any size. The end ends the input.

        It is an async generator, a coroutine function that returns an async iterator, a generator,
        or a function that returns an iterable; ``next`` of the latter two may block. A chunk is a
        bytes-like object or an array of 16-bit integers. A sample may be split between two chunks.
        A source that is faster than real time is slowed down; nothing is lost. If it yields nothing
        for half a second, silence is sent instead.
        """

    @property
    def is_active(self) -> bool:
        """Whether the device captures. If it is false and no chunk arrives, the input has ended.

        By default it is true between `start` and `stop`; a device may override it.
        """
        return self._active


class AudioOutputDevice(ABC):
    """A sink of the assistant's voice.

    Optional members:

    - ``sample_rate``: the rate of the chunks for `play_chunk`, in Hz, 8000-192000.
    - ``played_ms``: a number or a method: how many milliseconds of all chunks have been heard.
      Audio that `clear_buffer` has discarded may be included or not. It decides where an
      interrupted answer is truncated in the conversation; without it, elapsed time does.
    - ``is_playing``: a boolean or a method: while it is true, the assistant counts as speaking.
    - ``set_volume(level)``: called with 0.0-1.0 at the start and at each change. The device then
      scales the audio itself, and gets it at full volume.

    Example:
        ```python
        class Line(AudioOutputDevice):
            sample_rate = 8000

            def __init__(self, websocket):
                self._websocket = websocket

            async def start(self) -> None:
                pass

            async def stop(self) -> None:
                pass

            async def play_chunk(self, chunk: bytes) -> None:
                await self._websocket.send(chunk)

            async def clear_buffer(self) -> None:
                await self._websocket.send('{"event": "clear"}')
        ```
    """

    @abstractmethod
    async def start(self) -> None:
        """Prepare to play. It may be called again after `stop`."""

    @abstractmethod
    async def stop(self) -> None:
        """Release the device. It is also called after `start` has raised."""

    @abstractmethod
    async def play_chunk(self, chunk: bytes) -> None:
        """Play a chunk after the previous ones; it has at most 100 ms.

        It comes at most 200 ms ahead of real time. The method may return at once, or after the
        chunk has been played.
        """

    @abstractmethod
    async def clear_buffer(self) -> None:
        """Discard audio that is not played yet, at once: the assistant was interrupted or pauses.

        After a pause (``interruption="confirmed"``), `play_chunk` gets the discarded audio again.
        If a call of `play_chunk` takes longer than 100 ms, this is called while it still runs.
        """
