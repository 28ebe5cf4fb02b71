"""G.711, to and from the samples that the sandbox works with."""

from __future__ import annotations

import numpy as np
import pytest

from rtvoice.sandbox.audio import Decoder, Encoder
from rtvoice.sandbox.errors import RefusedError

LAWS = ["audio/pcmu", "audio/pcma"]
PCM = {"type": "audio/pcm", "rate": 24000}


def tone(amplitude=8000):
    return (amplitude * np.sin(2 * np.pi * 440 * np.arange(24000) / 24000)).astype("<i2")


@pytest.mark.parametrize("law", LAWS)
def test_a_tone_survives_the_way_there_and_back(law):
    encoder, decoder = Encoder({"type": law}), Decoder({"type": law})

    coded = encoder.encode(tone().tobytes()) + encoder.rest()
    back = np.frombuffer(decoder.decode(coded) + decoder.rest(), "<i2")

    assert len(coded) == 8000
    error = np.std(back.astype(float) - tone()) / np.std(tone().astype(float))
    assert 20 * np.log10(error) < -35


# Values from the tables of the recommendation: the largest, the smallest, and silence.
@pytest.mark.parametrize(
    ("law", "code", "value"),
    [
        ("audio/pcmu", 0x00, -32124),
        ("audio/pcmu", 0x80, 32124),
        ("audio/pcmu", 0xFF, 0),
        ("audio/pcma", 0x2A, -32256),
        ("audio/pcma", 0xAA, 32256),
        ("audio/pcma", 0xD5, 8),
    ],
)
def test_codes_have_the_values_of_the_standard(law, code, value):
    decoder = Decoder({"type": law})

    steady = np.frombuffer(decoder.decode(bytes([code]) * 800), "<i2")

    assert abs(int(steady[1200]) - value) <= 1


@pytest.mark.parametrize("law", LAWS)
def test_blocks_do_not_matter(law):
    whole, parts = Encoder({"type": law}), Encoder({"type": law})
    pcm = tone().tobytes()

    cut = b"".join(parts.encode(pcm[at : at + 1000]) for at in range(0, len(pcm), 1000))

    assert cut == whole.encode(pcm)


def test_pcm_passes_unchanged():
    pcm = tone().tobytes()

    assert Decoder(PCM).decode(pcm) == pcm
    assert Encoder(PCM).encode(pcm) + Encoder(PCM).rest() == pcm


def test_half_a_sample_is_refused():
    with pytest.raises(RefusedError, match="odd number"):
        Decoder(PCM).decode(b"abc")
