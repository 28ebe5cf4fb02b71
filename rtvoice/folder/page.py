"""A conversation as one HTML file: the talk, each answer's waterfall, the sound of each turn."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import escape

from rtvoice.folder.formats import cut, end_of, summary, time_of, words_of
from rtvoice.folder.reading import Folder, Part
from rtvoice.folder.sound import Recording, as_wav
from rtvoice.folder.turns import Said, said_in
from rtvoice.view import Latency, View

__all__ = ["as_page"]

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 46rem; padding: 0 1rem; }
h1 { font-size: 1.25rem; } h2 { font-size: 1rem; opacity: .75; }
article { display: grid; grid-template-columns: 4.5rem 1fr; gap: 0 1rem; margin: .75rem 0; }
time { opacity: .75; font-variant-numeric: tabular-nums; }
.user p { font-weight: 600; } p { margin: 0; overflow-wrap: anywhere; }
.tool, .notice, .trouble { font-size: .875rem; } .trouble p::before { content: "! "; }
del { opacity: .7; } audio { height: 2rem; margin-top: .25rem; max-width: 100%; }
details pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.fall { display: flex; gap: 1px; height: .5rem; margin-top: .5rem; }
.fall span { background: currentColor; min-width: 2px; opacity: .35; }
.fall span:nth-child(2) { opacity: .6; } .fall span:last-child { opacity: 1; }
.steps { font-size: .75rem; opacity: .75; }
footer { margin: 1rem 0 2rem; font-size: .875rem; }
"""


def as_page(folder: Folder) -> Iterator[str]:
    """Yield the pieces of the HTML file; it needs no other file and no network."""
    title = escape(folder.name)
    yield (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>\n"
    )
    longest = max((wait.heard_ms for wait in _waits(folder)), default=0)
    for part, view in folder.views():
        yield from _part(part, view, longest)
    yield "</body></html>\n"


def _waits(folder: Folder) -> Iterator[Latency]:
    for part, view in folder.views():
        yield from (said.latency for said in said_in(part, view) if said.latency is not None)


def _part(part: Part, view: View, longest_ms: int) -> Iterator[str]:
    recording = _recording(part)
    yield f"<section><h2>{part.started:%Y-%m-%d %H:%M:%S} UTC</h2>\n"
    for said in said_in(part, view):
        yield _article(said, recording, longest_ms)
    yield f"<footer>{'<br>'.join(escape(line) for line in summary(view))}</footer></section>\n"


def _recording(part: Part) -> Recording | None:
    if part.recording is None:
        return None
    try:
        return Recording(part.recording)
    except (OSError, ValueError):
        return None


def _article(said: Said, recording: Recording | None, longest_ms: int) -> str:
    entry = said.entry
    who = {"user": "You", "assistant": "Assistant", "tool": "Tool"}.get(entry.kind, "")
    return (
        f'<article class="{entry.kind}"><time>{entry.at_s:.1f} s<br>{who}</time>'
        f"<div>{_words(said)}{_fall(said.latency, longest_ms)}{_sound(said, recording)}</div>"
        "</article>\n"
    )


def _words(said: Said) -> str:
    entry = said.entry
    if entry.kind == "tool":
        return (
            f"<details><summary>{escape(entry.text)}{time_of(entry)}</summary>"
            f"<pre>{escape(entry.arguments)}\n→ {escape(entry.output)}</pre></details>"
        )
    if entry.kind == "user":
        return f"<p>{escape(words_of(entry))}</p>"
    heard, unheard = cut(entry)
    missed = f'<del title="not heard">{escape(unheard)}</del>' if unheard else ""
    return f"<p>{escape(heard)}{missed}{end_of(entry)}</p>"


def _fall(latency: Latency | None, longest_ms: int) -> str:
    """Return the waterfall of an answer; all have the same scale."""
    if latency is None or not longest_ms:
        return ""
    ends = [("committed", latency.committed_ms), ("first audio", latency.received_ms)]
    known = [(name, end) for name, end in ends if end is not None]
    bars, begun = [], 0
    for end in (*(each for _, each in known), latency.heard_ms):
        end = max(end, begun)  # noqa: PLW2901 - speech may be heard while it is committed
        bars.append(f'<span style="width:{100 * (end - begun) / longest_ms:.1f}%"></span>')
        begun = end
    steps = ", ".join(f"{name} after {end} ms" for name, end in (*known, ("heard", begun)))
    return f'<div class="fall">{"".join(bars)}</div><p class="steps">{steps}</p>'


def _sound(said: Said, recording: Recording | None) -> str:
    if recording is None or said.start_s is None or said.end_s is None:
        return ""
    pcm = recording.of(said.entry.kind, said.start_s, said.end_s)
    if not pcm:
        return ""
    data = base64.b64encode(as_wav(pcm)).decode()
    return f'<audio controls preload="metadata" src="data:audio/wav;base64,{data}"></audio>'
