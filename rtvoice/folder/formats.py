"""A conversation as plain text, JSON or Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from rtvoice.folder.reading import Folder, Part
from rtvoice.folder.turns import Said, said_in
from rtvoice.view import Entry, View
from rtvoice.view.wrapping import printable

__all__ = [
    "as_json",
    "as_markdown",
    "as_text",
    "cut",
    "end_of",
    "line_of",
    "summary",
    "time_of",
    "words_of",
]


def as_text(folder: Folder) -> Iterator[str]:
    """Yield the lines of a conversation as text; times are since the start of the session.

    No line has control characters: whoever prints it has a terminal.
    """
    for part, view in folder.views():
        yield f"{part.started:%Y-%m-%d %H:%M:%S} UTC"
        for said in said_in(part, view):
            yield f"{_clock(said.entry.at_s)}  {line_of(said)}"
        yield from map(printable, summary(view))
        yield ""


def as_markdown(folder: Folder) -> Iterator[str]:
    """Yield the lines of a conversation as Markdown."""
    yield f"# {_escaped(folder.name)}"
    for part, view in folder.views():
        yield f"\n## {part.started:%Y-%m-%d %H:%M:%S} UTC\n"
        for said in said_in(part, view):
            yield f"{_marked(said)}\n"
        yield from (f"- {_escaped(line)}" for line in summary(view))


def as_json(folder: Folder) -> str:
    """Return a conversation as JSON: a list of sessions, each with its entries and sums."""
    return json.dumps([_plain(*each) for each in folder.views()], ensure_ascii=False, indent=2)


def line_of(said: Said) -> str:
    """Return an entry as one line, without control characters."""
    return printable(_line_of(said))


def _line_of(said: Said) -> str:
    entry = said.entry
    match entry.kind:
        case "user":
            return f"you: {words_of(entry)}"
        case "assistant":
            heard, unheard = cut(entry)
            after = f"  ({said.latency.heard_ms} ms)" if said.latency is not None else ""
            missed = f" [interrupted; not heard: {unheard.strip()}]" if unheard else ""
            return f"assistant: {heard.rstrip()}{missed}{end_of(entry)}{after}"
        case "tool":
            return f"tool {entry.text} {entry.arguments} -> {entry.output}{time_of(entry)}"
    return f"[{entry.text}]"


def cut(entry: Entry) -> tuple[str, str]:
    """Return what was heard of an answer, and what was not."""
    if entry.kind == "assistant" and entry.state == "interrupted":
        return entry.text[: entry.heard], entry.text[entry.heard :]
    return entry.text, ""


def end_of(entry: Entry) -> str:
    """Return what to say of an answer that has no end; empty: nothing."""
    return " [cut off]" if entry.state == "cut off" else ""


def words_of(entry: Entry) -> str:
    """Return what the user has said, or what there is instead of words."""
    image = "(an image) " if entry.image else ""
    silent = "(speech, not transcribed)" if entry.state == "failed" else "(nothing)"
    return f"{image}{entry.text or ('' if image else silent)}"


def time_of(entry: Entry) -> str:
    """Return how long a tool call took, in brackets; empty: not known."""
    return f" ({entry.seconds:.2f} s)" if entry.seconds is not None else ""


def summary(view: View) -> Iterator[str]:
    """Yield what there is to say of a session as a whole."""
    if view.summary is not None:
        yield f"ended after {view.summary.seconds:.0f} s: {view.summary.reason}"
        if view.summary.restarts:
            each = ", ".join(f"{name} {count}" for name, count in view.summary.restarts.items())
            yield f"restarts: {each}; lost: {'; '.join(view.summary.lost) or 'nothing'}"
    elif view.failure:
        yield f"failed: {view.failure}"
    if len(view.waits):
        yield (
            f"answered after {view.waits.percentile(50)} ms (median of {len(view.waits)}), "
            f"{view.waits.percentile(95)} ms (95 %)"
        )
    if view.tokens.total:
        price = f", {view.dollars:.4f} US dollars" if view.dollars is not None else ""
        yield f"{view.tokens.total} tokens{price}"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{seconds % 60:04.1f}"


def _marked(said: Said) -> str:
    entry = said.entry
    match entry.kind:
        case "user":
            return f"**You:** {_escaped(words_of(entry))}"
        case "assistant":
            heard, unheard = cut(entry)
            missed = f" ~~{_escaped(unheard.strip())}~~" if unheard.strip() else ""
            return f"**Assistant:** {_escaped(heard.rstrip())}{missed}{end_of(entry)}"
        case "tool":
            return f"> {_code(entry.text)} {_code(entry.arguments)} → {_code(entry.output)}"
    return f"*{_escaped(entry.text)}*"


def _escaped(text: str) -> str:
    """Return a text in one line, in which nothing is a mark of Markdown."""
    marks = "\\`*_{}[]<>#|~&"
    return "".join(f"\\{letter}" if letter in marks else letter for letter in printable(text))


def _code(text: str) -> str:
    """Return a text as a code span, whatever backticks it has."""
    runs = [len(run) for run in re.findall("`+", text)]
    fence = "`" * (max(runs, default=0) + 1)
    space = " " if runs else ""
    return f"{fence}{space}{printable(text) or ' '}{space}{fence}"


def _plain(part: Part, view: View) -> dict[str, Any]:
    return {
        "started": part.started.isoformat(),
        "recording": part.recording.name if part.recording is not None else None,
        "entries": [
            {
                **{name: getattr(said.entry, name) for name in said.entry.__struct_fields__},
                "start_s": said.start_s,
                "end_s": said.end_s,
                "latency": msgspec.to_builtins(said.latency),
            }
            for said in said_in(part, view)
        ],
        "counts": {name: getattr(view.counts, name) for name in view.counts.__struct_fields__},
        "tokens": msgspec.to_builtins(view.tokens),
        "dollars": view.dollars,
        "ended_because": view.summary.reason if view.summary is not None else view.failure or None,
    }
