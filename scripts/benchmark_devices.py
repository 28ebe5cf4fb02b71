"""Devices for the benchmark: microphones that stamp audio with the time, loudspeakers that log it.

One pair is paced by a clock, the other uses the sound card. The processes of the microphone and the
speaker load this module, so it imports nothing that they do not import anyway.
"""

from __future__ import annotations

import os
import struct
import time
from typing import Any

from actors.devices.base import Captured
from actors.devices.card.portaudio import PortAudioCapture, PortAudioPlayback
from actors.devices.playout import Playout
from actors.devices.silence import PacedCapture, PacedPlayback
from actors.devices.units import to_ns
from messages import Message

__all__ = [
    "BLOCK_MS",
    "PUT_LOG",
    "CardCapture",
    "CardPlayback",
    "LoggedCapture",
    "StampedCapture",
    "StampedPlayback",
    "stamp_of",
    "stamped",
]

_STAMP = struct.Struct("<4sQ")
_MAGIC = b"\x07stm"
_BLOCK_MS = 40
PUT_LOG = "RTVOICE_BENCHMARK_LOG"
BLOCK_MS = "RTVOICE_BENCHMARK_BLOCK_MS"
_PLAYED_BYTES = 960
"""Bytes of a block of the device: 20 ms."""


def stamped(length: int, made_ns: int = 0) -> bytes:
    """Return PCM with the time at which it was made (0: now) in each 20 ms."""
    made_ns = made_ns or time.monotonic_ns()
    block = _STAMP.pack(_MAGIC, made_ns).ljust(_PLAYED_BYTES, b"\0")
    return (block * (length // _PLAYED_BYTES + 1))[:length]


def stamp_of(pcm: bytes) -> int:
    """Return the time in the first stamp of PCM; 0: there is none."""
    place = pcm.find(_MAGIC)
    if not 0 <= place <= len(pcm) - _STAMP.size:
        return 0
    return int(_STAMP.unpack_from(pcm, place)[1])


def __getattr__(name: str) -> Any:
    """Return the ``tools`` of the conversation: only their process imports rtvoice."""
    if name != "tools":
        raise AttributeError(name)
    from rtvoice import Tools

    tools = Tools()

    @tools.action("says what time it is", name="get_current_time")
    def get_time() -> str:
        return "12:00"

    return tools


class StampedCapture(PacedCapture):
    """A microphone that delivers stamps."""

    name = "stamps"

    def __init__(self) -> None:
        super().__init__(24 * _BLOCK_MS)

    def _next(self, due: int) -> Captured:
        return Captured(b"", due - to_ns(self._block), due)

    def start(self, deliver: Any, failed: Any) -> None:
        """Start, with each block stamped with the time of its delivery."""
        length = 2 * self._block
        super().start(lambda block: deliver(block._replace(pcm=stamped(length))), failed)


class StampedPlayback(PacedPlayback):
    """A loudspeaker that logs each stamp and when it got it."""

    name = "stamps"

    def __init__(self) -> None:
        super().__init__()
        self._log = open(os.environ[PUT_LOG], "ab", buffering=0)  # noqa: SIM115, PTH123 - for life

    def _put(self, pcm: bytes, at_ns: int, *, contiguous: bool) -> None:
        if made := stamp_of(pcm):
            self._log.write(struct.pack("<QQ", made, time.monotonic_ns()))

    def flush(self, now_ns: int) -> list[Message]:
        """Log when the queue was cleared."""
        self._log.write(struct.pack("<QQ", 0, time.monotonic_ns()))
        return super().flush(now_ns)


class CardCapture(PortAudioCapture):
    """The card's microphone; each block is stamped with the time of its first sample in the air."""

    def __init__(self) -> None:
        super().__init__("mic", 24 * int(os.environ[BLOCK_MS]))

    def start(self, deliver: Any, failed: Any) -> None:
        """Start, with each block stamped."""

        def stamp(block: Captured) -> None:
            deliver(block._replace(pcm=stamped(len(block.pcm), block.first_ns)))

        super().start(stamp, failed)


class LoggedCapture(PortAudioCapture):
    """The card's microphone; logs when each block began in the air, and when it was delivered."""

    def __init__(self) -> None:
        super().__init__("mic", 24 * int(os.environ[BLOCK_MS]))
        self._log = open(os.environ[PUT_LOG], "ab", buffering=0)  # noqa: SIM115, PTH123 - for life

    def start(self, deliver: Any, failed: Any) -> None:
        """Start, with each block logged."""

        def log(block: Captured) -> None:
            self._log.write(struct.pack("<QQ", block.first_ns, block.captured_ns))
            deliver(block)

        super().start(log, failed)


class CardPlayback(PortAudioPlayback):
    """The card's loudspeaker; logs each stamp and when it will be in the air."""

    def __init__(self) -> None:
        super().__init__("speaker")
        self._log = open(os.environ[PUT_LOG], "ab", buffering=0)  # noqa: SIM115, PTH123 - for life

    def start(self, playout: Playout, failed: Any) -> None:
        """Start, with the stamps logged that the card pulls."""
        pull = playout.pull

        def noted(samples: int, at_ns: int) -> bytes:
            pcm = pull(samples, at_ns)
            if made := stamp_of(pcm):
                self._log.write(struct.pack("<QQ", made, at_ns))
            return pcm

        playout.pull = noted  # type: ignore[method-assign]
        super().start(playout, failed)
