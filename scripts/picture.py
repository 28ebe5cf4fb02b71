"""Draw a conversation as a picture, on one timeline, from its recording and its events.

python -m supervisor --demo --events demo.jsonl
python scripts/picture.py demo.jsonl rtvoice-demo/recording.wav docs/conversation.svg
"""

from __future__ import annotations

import argparse
import json
import sys
import wave
from array import array
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

WIDTH, LANE, LEFT, TOP = 1100, 70, 90, 34
COLUMNS = WIDTH - LEFT - 20
USER, ASSISTANT, ACCENT, GREY = "#2f6fb2", "#2d8a57", "#c0392b", "#777"


def peaks(samples: array[int]) -> list[float]:
    """Return the peak of each column of the picture, 0-1."""
    step = max(1, len(samples) // COLUMNS)
    return [
        max(map(abs, samples[start : start + step])) / 32768
        for start in range(0, len(samples) - step, step)
    ]


def waveform(values: list[float], middle: float, colour: str) -> str:
    """Return the waveform of one side as an SVG polygon."""
    upper = [f"{LEFT + x},{middle - value * LANE / 2:.1f}" for x, value in enumerate(values)]
    lower = [f"{LEFT + x},{middle + value * LANE / 2:.1f}" for x, value in enumerate(values)]
    return f'<polygon fill="{colour}" points="{" ".join(upper + lower[::-1])}"/>'


def marks(events: list[dict[str, Any]]) -> Iterator[tuple[float, str, str]]:
    """Yield second, colour and text of each event that gets a line in the picture."""
    for event in events:
        match event["event"]:
            case "turn" if event["role"] == "user":
                yield event["t"], USER, f"“{event['text']}”"
            case "tool_call":
                yield event["t"], GREY, event["name"]
            case "interrupted":
                yield event["t"], ACCENT, f"interrupted after {event['heard_ms'] / 1000:.1f} s"
            case "component_restarted":
                text = f"{event['component']} killed, back in {event['ms']:.0f} ms"
                yield event["t"], ACCENT, text


def draw(events: list[dict[str, Any]], recording: Path) -> str:
    """Return the picture as SVG."""
    with wave.open(str(recording)) as file:
        samples = array("h", file.readframes(file.getnframes()))
        seconds = file.getnframes() / file.getframerate()
    user, assistant = TOP + LANE / 2, TOP + LANE * 1.6
    rows = 5
    height = assistant + LANE / 2 + 18 + 16 * rows + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}">',
        '<g font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="white"/>',
        f'<text x="8" y="{user + 4}" fill="{USER}">user</text>',
        f'<text x="8" y="{assistant + 4}" fill="{ASSISTANT}">assistant</text>',
        waveform(peaks(samples[0::2]), user, USER),
        waveform(peaks(samples[1::2]), assistant, ASSISTANT),
    ]
    scale = COLUMNS / seconds
    base = assistant + LANE / 2 + 14
    for number, (second, colour, text) in enumerate(marks(events)):
        x, y = LEFT + second * scale, base + 16 * (number % rows)
        anchor = "end" if x > WIDTH * 0.8 else "start"
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{y:.0f}" stroke="{colour}" '
            f'stroke-width="0.7" stroke-dasharray="3 3"/>'
            f'<text x="{x:.1f}" y="{y:.0f}" fill="{colour}" text-anchor="{anchor}">'
            f"{escape(text)}</text>"
        )
    parts += [
        f'<text x="{LEFT + t * scale:.1f}" y="{height - 8:.0f}" fill="{GREY}">{t} s</text>'
        for t in range(0, int(seconds) + 1, 5)
    ]
    return "\n".join([*parts, "</g></svg>", ""])


def main() -> None:
    """Draw the picture of the files that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("events", type=Path, help="the file of --events")
    parser.add_argument("recording", type=Path, help="the file of --record")
    parser.add_argument("picture", type=Path, help="the SVG file to write")
    given = parser.parse_args()
    try:
        events = [json.loads(line) for line in given.events.read_text("utf-8").splitlines()]
        given.picture.write_text(draw(events, given.recording), encoding="utf-8")
    except (OSError, ValueError, wave.Error) as error:
        sys.exit(f"no picture: {error}")


if __name__ == "__main__":
    main()
