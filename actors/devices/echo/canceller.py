"""The echo canceller of the microphone: reference, alignment, engines and guard in one call.

It imports numpy and the engine (`pywebrtc-audio`, AEC3 of WebRTC), so import it only when echo is
to be cancelled, and while the component opens. One instance is used on one thread, and is made anew
rather than reset.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pywebrtc_audio import AudioProcessor

from actors.devices.echo.alignment import Alignment, Ring
from actors.devices.echo.choice import why_not_with
from actors.devices.echo.double_talk import DoubleTalk
from actors.devices.echo.guard import FRAME, Guard, Verdict
from messages import SAMPLE_RATE, EchoState, Settings

__all__ = ["EchoCanceller"]

Samples = NDArray[np.int16]

_ENGINE_BLOCK = SAMPLE_RATE // 100
"""The engine works on blocks of 10 ms; a shorter one it would pad with zeros."""
_NOISE_BLOCKS = 20
_NOISE_RMS = 800
_LOOK_NS = 500_000_000
"""How often it is checked which loudspeaker is in use."""


class EchoCanceller:
    """Takes the loudspeaker's echo out of captured audio.

    Args:
        ring: What the loudspeaker plays.
        settings: The settings of the session.
        lead_ms: By how much the reference was ahead in an earlier process; 0: not known.
    """

    def __init__(self, ring: Ring, settings: Settings, lead_ms: int = 0) -> None:
        self._ring = ring
        self._settings = settings
        self._alignment = Alignment(ring, lead_ms)
        self._guard = Guard(anew=lead_ms > 0)
        self._engine = _engine()
        self._double_talk = DoubleTalk(_lag())
        self.lag = self._double_talk.lag
        """Samples by which the output is later than the input."""
        self._held = np.zeros(self.lag, np.int16)
        """The end of the input that is not returned yet where nothing is to be cancelled: the
        output is as late then as that of the engine."""
        self._unjudged = tuple(np.zeros(0, np.int16) for _ in range(3))
        """The end of microphone, reference and output, too short for the guard."""
        self._why_off = ""
        """Why nothing is to be cancelled with the loudspeaker in use; empty: it is."""
        self._looked_ns = 0

    @property
    def plays(self) -> bool:
        """Whether the loudspeaker plays, or its echo may still come."""
        return not self._why_off and self._guard.plays

    @property
    def lead_ms(self) -> int:
        """By how much the reference is ahead of its echo, at least."""
        return self._alignment.lead_ms

    @property
    def account(self) -> dict[str, int]:
        """What became of the reference: blocks, late ones, moves; and by how much it leads now."""
        names = ("blocks", "late", "moves", "lead_ms")
        return {name: getattr(self._alignment, name) for name in names}

    def state(self, from_sample: int) -> EchoState:
        """Return the present state, which holds from a sample on."""
        if self._why_off:
            return EchoState("off", reason=self._why_off, from_sample=from_sample)
        guard, delay_ms = self._guard, self._guard.lag_ms
        if delay_ms is not None:
            delay_ms -= self._alignment.lead_ms
        erle_db = round(guard.erle_db, 1)
        reason = ""
        if guard.verdict is Verdict.FAILED:
            reason = f"only {max(erle_db, 0.0):.0f} dB of it are taken away"
        return EchoState(guard.verdict.value, erle_db, delay_ms, reason, from_sample)

    def is_ready(self, pcm: bytes, now_ns: int, *, again: bool = False) -> bool:
        """Return whether the reference of the next block is there, or will not come.

        Args:
            pcm: The block.
            now_ns: The time.
            again: Whether this is a repeated call for the same block.
        """
        return self._alignment.is_ready(len(pcm) // 2, now_ns, again=again)

    def process(self, pcm: bytes, first_ns: int, now_ns: int, *, lost: bool = False) -> bytes:
        """Return a captured block without the echo, later by `lag`.

        Args:
            pcm: int16 little-endian mono, 24 kHz; a multiple of 10 ms.
            first_ns: When its first sample was captured.
            now_ns: The time.
            lost: Whether audio is missing before the block.
        """
        self._look(now_ns)
        heard = np.frombuffer(pcm, "<i2").astype(np.int16)
        reference, moved = self._alignment.take(first_ns, len(heard), now_ns, lost=lost)
        held = np.concatenate((self._held, heard))
        output, self._held = held[: len(heard)], held[len(heard) :]
        if self._why_off:
            return output.astype("<i2", copy=False).tobytes()
        if moved:
            # It would search for the echo at its old place for seconds; a new one needs 0.3 s.
            self._engine = _engine()
            self._guard.relearn()
            self._double_talk.forget()
        cleaned = self._engine.process(heard, reference)
        before = self._guard.lost
        # The engine is judged, and not what is made of its output: that has more of the user.
        self._judge(heard, reference, cleaned)
        if self._guard.lost != before:
            self._engine = _engine()
            self._double_talk.distrust()
        guard = self._guard
        output = self._double_talk.process(
            heard, reference, cleaned, guard.lag_ms, plays=guard.plays
        )
        return output.astype("<i2", copy=False).tobytes()

    def _look(self, now_ns: int) -> None:
        """Follow a change of the loudspeaker."""
        if now_ns - self._looked_ns < _LOOK_NS:
            return
        self._looked_ns = now_ns
        why_off = why_not_with(self._settings, self._ring.device)
        if self._why_off and not why_off:
            self._engine, self._guard = _engine(), Guard()
            self._double_talk.forget()
        self._why_off = why_off

    def _judge(self, *streams: Samples) -> None:
        joined = [np.concatenate(pair) for pair in zip(self._unjudged, streams, strict=True)]
        whole = len(joined[0]) // FRAME * FRAME
        for at in range(0, whole, FRAME):
            microphone, reference, output = (each[at : at + FRAME] for each in joined)
            self._guard.judge(microphone, reference, output)
        self._unjudged = tuple(each[whole:] for each in joined)


def _engine() -> AudioProcessor:
    # No noise suppression and no gain control: both were measured to let more echo through.
    return AudioProcessor(sample_rate=SAMPLE_RATE, echo_cancellation=True)


def _lag() -> int:
    """Measure by how many samples the engine is late: with noise, and nothing played."""
    engine, nothing = _engine(), np.zeros(_ENGINE_BLOCK, np.int16)
    size = _ENGINE_BLOCK * _NOISE_BLOCKS
    noise = (np.random.default_rng(5).standard_normal(size) * _NOISE_RMS).astype(np.int16)
    parts = [
        engine.process(noise[at : at + _ENGINE_BLOCK], nothing)
        for at in range(0, size, _ENGINE_BLOCK)
    ]
    heard = np.fft.rfft(np.concatenate(parts).astype(np.float64), 2 * size)
    match = np.fft.irfft(heard * np.conj(np.fft.rfft(noise.astype(np.float64), 2 * size)), 2 * size)
    return int(match[: size // 2].argmax())
