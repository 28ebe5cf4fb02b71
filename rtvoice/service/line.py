"""The caller as an audio device of the agent: outlives the sockets of the caller."""

from __future__ import annotations

import asyncio
import contextlib

from rtvoice.audio.devices import AudioOutputDevice
from rtvoice.service.frames import Wire
from rtvoice.service.socket import Socket

__all__ = ["Line"]

_HELD_S = 8.0
"""How long sound waits for a caller who was lost; after 10 s the device would count as stuck."""


class Line(AudioOutputDevice):
    """The loudspeaker of a caller, at the other end of a socket that may be replaced.

    What `play_chunk` gets is the sound as it was decoded from the speaker's message, its only copy
    on the way from the channel to the ASGI server. (A telephone's is coded as mu-law and base64.)

    Args:
        sample_rate: The caller's rate, in Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._socket: Socket | None = None
        self._wire: Wire | None = None
        self._attached = asyncio.Event()
        self._before_ms = 0.0
        """Sound given to earlier sockets."""
        self._given_ms = 0.0
        """Sound given to this socket, without what was cleared."""
        self._reported = False
        """Whether an earlier socket has said how much was heard."""

    def attach(self, socket: Socket, wire: Wire) -> None:
        """Use this socket from now on."""
        if self._wire is not None and self._wire.played_ms is not None:
            self._reported = True
        self._before_ms += self._given_ms
        self._given_ms = 0.0
        self._socket, self._wire = socket, wire
        self._attached.set()

    def detach(self) -> None:
        """Let sound wait: the socket has ended."""
        self._attached.clear()
        self._socket = None

    @property
    def played_ms(self) -> float | None:
        """How much of all sound was heard; None: the caller has never said."""
        played = self._wire.played_ms if self._wire is not None else None
        if played is None:
            return self._before_ms if self._reported else None
        return self._before_ms + played

    @property
    def is_playing(self) -> bool:
        """Whether the caller still hears sound, as far as the protocol says."""
        return self._socket is not None and self._wire is not None and self._wire.is_playing

    async def start(self) -> None:
        """Do nothing: the socket is open."""

    async def stop(self) -> None:
        """Do nothing: whoever has opened the socket closes it."""

    async def play_chunk(self, chunk: bytes) -> None:
        """Send sound; of a lost caller, wait a moment, and then give it up."""
        if not self._attached.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._attached.wait(), _HELD_S)
        if self._socket is None or self._wire is None:
            return
        self._given_ms += len(chunk) / 2 / self.sample_rate * 1000
        await self._socket.send(self._wire.sound(chunk))

    async def clear_buffer(self) -> None:
        """Tell the caller to discard what is not played yet."""
        if self._socket is None or self._wire is None:
            return
        frames = self._wire.clear()
        if self._wire.played_ms is not None:
            self._given_ms = self._wire.played_ms
        await self._socket.send(frames)
