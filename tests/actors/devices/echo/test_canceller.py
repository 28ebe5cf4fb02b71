"""The whole chain: a mapped ring, the alignment, the engine (AEC3) and the guard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from actors.devices.card.reference import ReferenceReader, ReferenceWriter
from messages import EchoState, Settings
from tests.actors.devices.echo.rooms import RATE, Floats, Room, Samples, level_db, pcm16, talk

pytest.importorskip("pywebrtc_audio")
from actors.devices.echo.canceller import EchoCanceller

BLOCK, SLOT = 480, 240
AHEAD_NS, LATE_NS = 80_000_000, 20_000_000
START_NS = 10**12
SECONDS = 6.0
ROOM = Room(delay_ms=40)


class Chain:
    """A loudspeaker that is told 80 ms ahead, and a microphone, on one clock."""

    def __init__(self, folder: Path, device: str = "Built-in", **settings: object) -> None:
        self.folder = folder
        self.writer = ReferenceWriter(folder, device)
        self.canceller = EchoCanceller(ReferenceReader(folder), Settings(**settings))  # type: ignore[arg-type]
        self.states: list[EchoState] = []
        self.written = 0

    def run(
        self,
        played: Floats,
        heard: Floats,
        block: int = BLOCK,
        lost: tuple[int, ...] = (),
        late_from: int = 10**9,
    ) -> Samples:
        """Play and capture it all.

        Blocks in ``lost`` begin after a gap of 40 ms; from block ``late_from`` on the loudspeaker
        is told only 20 ms ahead.
        """
        sound, microphone, out = pcm16(played), pcm16(heard), []
        self.write(np.zeros(AHEAD_NS * RATE // 10**9, np.int16), -AHEAD_NS)
        for at in range(0, len(microphone) - block + 1, block):
            ahead_ns = LATE_NS if at // block >= late_from else AHEAD_NS
            ahead = ahead_ns * RATE // 10**9
            while self.written < min(at + block + ahead, len(sound)):
                part = sound[self.written : self.written + SLOT]
                self.write(part, self.written * 10**9 // RATE)
                self.written += len(part)
            if at // block - 1 in lost or at // block in lost:
                continue
            first_ns = START_NS + at * 10**9 // RATE
            pcm, now_ns = microphone[at : at + block].tobytes(), first_ns + block * 10**9 // RATE
            self.canceller.is_ready(pcm, now_ns)
            pcm = self.canceller.process(pcm, first_ns, now_ns, lost=at // block - 2 in lost)
            out.append(np.frombuffer(pcm, "<i2"))
            state = self.canceller.state(at)
            if not self.states or state.state != self.states[-1].state:
                self.states.append(state)
        return np.concatenate(out)

    def write(self, part: Samples, at_ns: int) -> None:
        for at in range(0, len(part), SLOT):
            piece = part[at : at + SLOT]
            self.writer.write(piece.tobytes(), START_NS + at_ns + at * 10**9 // RATE)


@pytest.fixture(scope="module")
def played() -> Floats:
    return talk(1, SECONDS)


@pytest.mark.parametrize("block", [240, 480, 960])
def test_the_echo_is_taken_out_and_the_guard_says_so(
    tmp_path: Path, played: Floats, block: int
) -> None:
    heard, chain = ROOM.heard(played), Chain(tmp_path)

    cleaned = chain.run(played, heard, block)

    assert level_db(pcm16(heard), 3, 6) - level_db(cleaned, 3, 6) >= 20
    assert [state.state for state in chain.states] == ["learning", "cancelled"]
    assert chain.states[1].from_sample <= 1.5 * RATE
    state = chain.canceller.state(7)
    assert state.erle_db >= 20
    assert state.delay_ms == pytest.approx(40, abs=10)
    assert state.from_sample == 7


def test_the_user_alone_passes_unchanged_later_by_the_lag(tmp_path: Path) -> None:
    near, chain = talk(2, 2.0), Chain(tmp_path)

    cleaned = chain.run(np.zeros_like(near), near).astype(float)

    original = pcm16(near).astype(float)
    size = 2 * len(original)
    spectrum = np.fft.rfft(cleaned, size) * np.conj(np.fft.rfft(original, size))
    match = np.fft.irfft(spectrum, size) / (np.linalg.norm(cleaned) * np.linalg.norm(original))
    assert 0 < chain.canceller.lag <= 20 * RATE // 1000
    assert match.argmax() == pytest.approx(chain.canceller.lag, abs=8)
    assert match.max() > 0.9  # the engine's filter bank turns phases a little
    assert chain.canceller.state(0).state == "learning"


def test_after_a_gap_it_cancels_again_soon(tmp_path: Path, played: Floats) -> None:
    heard, chain = ROOM.heard(played), Chain(tmp_path)

    cleaned = chain.run(played, heard, lost=(150,))

    assert [state.state for state in chain.states] == [
        *("learning", "cancelled", "learning", "cancelled")
    ]
    assert chain.states[3].from_sample - chain.states[2].from_sample <= 1.5 * RATE
    assert level_db(pcm16(heard), 4, 6) - level_db(cleaned, 4, 5.9) >= 20


def test_a_reference_that_comes_late_is_cancelled_again_soon(
    tmp_path: Path, played: Floats
) -> None:
    heard, chain = ROOM.heard(played), Chain(tmp_path)

    cleaned = chain.run(played, heard, late_from=100)

    assert chain.canceller.account["moves"] == 1
    assert chain.canceller.lead_ms < 20
    assert [state.state for state in chain.states] == [
        *("learning", "cancelled", "learning", "cancelled")
    ]
    assert chain.states[3].from_sample - chain.states[2].from_sample <= 0.8 * RATE
    assert level_db(pcm16(heard), 2.5, 3.5) - level_db(cleaned, 2.5, 3.5) >= 18


def test_with_a_headset_it_passes_everything_with_the_same_lag(
    tmp_path: Path, played: Floats
) -> None:
    chain = Chain(tmp_path, device="AirPods")

    cleaned = chain.run(played[:RATE], played[:RATE])

    lag = chain.canceller.lag
    assert cleaned[lag:].tolist() == pcm16(played)[: RATE - lag].tolist()
    assert chain.states == [EchoState("off", reason="AirPods is a headset")]


def test_it_follows_a_change_from_a_headset_to_a_loudspeaker(
    tmp_path: Path, played: Floats
) -> None:
    chain = Chain(tmp_path, device="AirPods")
    chain.run(played[:BLOCK], played[:BLOCK])

    chain.writer = ReferenceWriter(tmp_path, "Built-in")
    chain.written = 0
    chain.run(played, ROOM.heard(played))

    assert [state.state for state in chain.states] == ["off", "learning", "cancelled"]


class Greedy:
    """An engine that takes the user away with the echo."""

    def process(self, heard: Samples, _: Samples) -> Samples:
        return heard // 100


def test_the_user_is_heard_though_the_engine_takes_him_away(tmp_path: Path) -> None:
    played = talk(1, 10.0)
    near = np.concatenate((np.zeros(8 * RATE), talk(2, 2.0)))
    heard, chain = ROOM.heard(played, near), Chain(tmp_path)
    chain.canceller._engine = Greedy()

    cleaned = chain.run(played, heard)

    assert level_db(cleaned, 8, 10) >= level_db(pcm16(near), 8, 10) - 6
    assert level_db(cleaned, 2, 4) <= level_db(pcm16(heard), 2, 4) - 35
    assert [state.state for state in chain.states] == ["learning", "cancelled"]
