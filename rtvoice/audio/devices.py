"""Devices of your own: where the user's voice comes from and where the assistant's goes.

Audio is PCM of 16 bits, little-endian, one channel, at 24 kHz unless the device has a
``sample_rate`` (an attribute, in Hz, 8000-192000); rtvoice converts. Every method may be a
coroutine, which
runs on the event loop of your program, or a plain function, which runs on a thread of its own and
may block.

A method that raises ends nothing: the program is told (`DeviceFailed`), the conversation goes on,
and the device is stopped and started again after 0.5, 1, 2, 5, 10 and then every 30 seconds.

A device can also be given by its name, ``"module:Class"`` or ``"file.py:Class"``: then it runs in
the process of the microphone or the speaker, which is started again when the device raises.
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
    """What `is_active` returns; set by rtvoice at the end of `start` and of `stop`, unless the
    device sets it itself."""

    @abstractmethod
    async def start(self) -> None:
        """Begin to capture. May be called again after `stop`."""

    @abstractmethod
    async def stop(self) -> None:
        """Release the device; called also when `start` has raised."""

    @abstractmethod
    def stream_chunks(self) -> AsyncIterator[bytes]:
        """Yield what is captured, as it comes, in chunks of any size; the end is that of the input.

        An async generator, a coroutine that returns an async iterator, or a generator or an
        iterable, whose ``next`` may block. A chunk is bytes or anything like it, or an array of
        16-bit integers. It may end in the middle of a sample, which goes on in the next chunk. A
        source that is faster than real time is made to wait; nothing of it is lost. One that
        delivers nothing for half a second is silent.
        """

    @property
    def is_active(self) -> bool:
        """Whether it captures. When it turns false and no chunk comes, the input has ended.

        It need not be written: it is true between `start` and `stop`, unless the class says
        otherwise.
        """
        return self._active


class AudioOutputDevice(ABC):
    """Where the assistant is heard.

    Optional, used when there:

    - ``sample_rate``: in Hz, 8000-192000, of what `play_chunk` is given.
    - ``played_ms``: a number or a method: how much of everything that was given to `play_chunk` has
      been heard, in milliseconds; what `clear_buffer` has dropped may count or not. Without it the
      clock is taken. An interrupted answer is cut off in the conversation where it was heard.
    - ``is_playing``: true or false, or a method: while it is true, the assistant is not taken to
      have finished.
    - ``set_volume(level)``: called with 0.0-1.0 at the start and at each change; the device scales
      then, and is given everything at full volume.

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
        """Get ready to play. May be called again after `stop`."""

    @abstractmethod
    async def stop(self) -> None:
        """Release the device; called also when `start` has raised."""

    @abstractmethod
    async def play_chunk(self, chunk: bytes) -> None:
        """Play after what was given before: 100 ms or less, at most 200 ms ahead of real time.

        It may return at once, or when it has played.
        """

    @abstractmethod
    async def clear_buffer(self) -> None:
        """Forget what is not played yet, and be silent: the assistant was interrupted, or pauses.

        What it says after a pause (``interruption="confirmed"``) begins with what was forgotten.
        When `play_chunk` takes longer than 100 ms, this is called while it still runs.
        """
