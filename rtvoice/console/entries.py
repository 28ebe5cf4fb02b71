"""One entry of the talk as rows of the screen."""

from __future__ import annotations

import json

from rtvoice.console.rows import Row, Span, cut, paragraph
from rtvoice.view import Entry
from rtvoice.view.wrapping import printable, shortened

__all__ = ["plain_lines", "rows_of"]

_WHO = {"user": "you", "assistant": "assistant", "tool": "tool", "notice": "", "trouble": ""}
_GUTTER = 11
"""Cells for who speaks."""
_CUT_OFF = "[cut off]"


def rows_of(entry: Entry, width: int, *, unfolded: bool = False, chosen: bool = False) -> list[Row]:
    """Return the rows of an entry.

    Args:
        entry: The entry.
        width: Cells of a row.
        unfolded: Of a tool call: whether arguments and answer are shown as a whole.
        chosen: Whether it is marked as the one that Enter unfolds.
    """
    if entry.kind == "tool":
        return _tool(entry, width, unfolded=unfolded, chosen=chosen)
    if entry.kind in ("notice", "trouble"):
        mark = ("! ", "bad") if entry.kind == "trouble" else ("· ", "dim")
        style = "bad" if entry.kind == "trouble" else "dim"
        return paragraph([(entry.text, style)], width, (mark,), (("  ", ""),))
    label = f"{_WHO[entry.kind]:<{_GUTTER}}"
    spans = _user(entry) if entry.kind == "user" else _assistant(entry)
    return paragraph(spans, width, ((label, entry.kind),), ((" " * _GUTTER, ""),))


def _user(entry: Entry) -> list[Span]:
    spans: list[Span] = [("[an image] ", "dim")] if entry.image else []
    if entry.text:
        style = "partial" if entry.state == "partial" else ""
        spans.append((entry.text, style))
    if entry.state == "partial":
        spans.append((" …" if entry.text else "…", "dim"))
    elif entry.state == "failed" and not entry.text:
        spans.append(("(speech, not transcribed)", "dim"))
    elif not spans:
        spans.append(("(nothing)", "dim"))
    return spans


def _assistant(entry: Entry) -> list[Span]:
    heard, unheard = entry.text[: entry.heard], entry.text[entry.heard :]
    spans: list[Span] = [(heard, "")] if heard else []
    if entry.state == "interrupted":
        space = " " if heard and not heard.endswith(" ") else ""
        spans.append((f"{space}[interrupted]", "mark"))
        if unheard.strip():
            spans += [(" ", ""), (unheard.lstrip(), "struck")]
        return spans
    if unheard:
        spans.append((unheard, "unheard"))
    if entry.state == "cut off":
        spans.append((f" {_CUT_OFF}" if spans else _CUT_OFF, "mark"))
    return spans or [("…", "dim")]


def _tool(entry: Entry, width: int, *, unfolded: bool, chosen: bool) -> list[Row]:
    click = f"@unfold({entry.id})"
    label: Span = (f"{'tool':<{_GUTTER}}", f"tool {click}")
    name = f"{'▾' if unfolded else '▸'} {printable(entry.text)}"
    head: Span = (name, f"tool {click}{' chosen' if chosen else ''}")
    failed = entry.state == "failed"
    took = "runs" if entry.state == "partial" else "failed" if failed else ""
    if entry.seconds is not None:
        took = f"{took} {_seconds(entry.seconds)}".strip()
    end: Row = ((f"  {took}", "bad" if failed else "dim"),) if took else ()
    if not unfolded:
        room = max(width - _GUTTER - len(name) - len(took) - 4, 0)
        return [cut((label, head, (_summary(entry, room), click), *end), width)]
    rest: Row = ((" " * (_GUTTER + 2), ""),)
    rows: list[Row] = [cut((label, head, *end), width)]
    for what, text in (("arguments", _pretty(entry.arguments)), ("answer", _pretty(entry.output))):
        rows += paragraph([(f"{what}: ", "dim"), (text or "none", "")], width, rest, rest)
    return rows


def _summary(entry: Entry, room: int) -> str:
    """Return arguments and answer in one line; the answer gets at least half of it."""
    given = " ".join(entry.arguments.split())
    given = "" if given in ("", "{}") else f" {given}"
    answer = f" → {' '.join(entry.output.split())}" if entry.output else ""
    given = shortened(printable(given), max(room - len(answer), room // 2))
    return given + shortened(printable(answer), max(room - len(given), 0))


def _pretty(text: str) -> str:
    """Return JSON with its lines indented, and other text as it is."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return json.dumps(value, indent=2, ensure_ascii=False) if value != {} else ""


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def plain_lines(entry: Entry) -> list[str]:
    """Return an entry as lines of a file, as long as they are, without control characters."""
    return [printable(line) for line in _plain_lines(entry)]


def _plain_lines(entry: Entry) -> list[str]:
    words = "".join(text for text, style in _spans(entry) if style != "struck")
    unheard = "".join(text for text, style in _spans(entry) if style == "struck")
    who = {"user": "you: ", "assistant": "assistant: "}.get(entry.kind, "")
    if entry.kind == "tool":
        answer = f": {entry.output}" if entry.output else ""
        return [f"[tool {entry.text} {entry.arguments}{answer}]"]
    if not who:
        return [f"[{entry.text}]"]
    lines = [f"{who}{words.strip()}"]
    if unheard:
        lines.append(f"[not heard: {unheard}]")
    return lines


def _spans(entry: Entry) -> list[Span]:
    return _user(entry) if entry.kind == "user" else _assistant(entry)
