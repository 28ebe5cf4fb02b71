"""The bars of the screen: the tabs at the top, and at the bottom the mode and what can be done."""

from __future__ import annotations

from collections.abc import Sequence

from rtvoice.console.rows import Row, cut, joined
from rtvoice.view import View

__all__ = ["CHOOSING", "PAGES", "TYPING", "command_keys", "keys_row", "said_row", "tab_row"]

PAGES = ("talk", "processes", "turn", "log")
Key = tuple[str, str]
"""A key, and what it does."""
TYPING: Sequence[Key] = (("Enter", "sends"), ("Esc", "leaves"), ("↑ ↓", "earlier"), ("/help", ""))
CHOOSING: Sequence[Key] = (("Enter", "unfolds"), ("Tab", "next"), ("Esc", "leaves"))


def tab_row(view: View, page: str, unread: int, width: int) -> Row:
    """Return the tabs of a narrow screen; a process that is down is named on its tab."""
    down = [each.name for each in view.processes.values() if each.state in ("down", "parked")]
    marks = {
        "processes": f" ✖ {down[0]}" if down else "",
        "log": f" ({unread})" if unread else "",
    }
    parts: list[Row] = []
    for number, name in enumerate(PAGES, 1):
        style = "badge" if name == page else "bad" if name == "processes" and down else ""
        parts.append(((f" {number} {name}{marks.get(name, '')} ", f"{style} @page({name})"),))
    return joined(parts, width, " ")


def command_keys(*, muted: bool, push_to_talk: bool) -> Sequence[Key]:
    """Return the keys that are commands, the most wanted first."""
    return (
        ("?", "help"),
        ("/", "type"),
        ("Enter", "talk" if push_to_talk else "interrupt"),
        ("m", "unmute" if muted else "mute"),
        ("k", "kill"),
        ("q", "quit"),
        ("s", "save"),
        ("d", "devices"),
        ("r", "drop"),
    )


def keys_row(keys: Sequence[Key], width: int, *, typing: bool = False, more: bool = False) -> Row:
    """Return the mode, and what keys do in it.

    Args:
        keys: The keys.
        width: Cells of the row.
        typing: Whether each key is text.
        more: Whether there is more below what is shown of the talk.
    """
    mode = _mode(typing=typing)
    parts: list[Row] = [((key, "key"), (f" {what}".rstrip(), "dim")) for key, what in keys]
    if more:
        parts.insert(0, (("End ↓ more below", "mark @end"),))
    return (*mode, *joined(parts, width - len(mode[0][0]) - 1))


def said_row(text: str, width: int, *, typing: bool, is_trouble: bool) -> Row:
    """Return the mode, and a sentence about what was just done."""
    mark = "! " if is_trouble else ""
    return cut((*_mode(typing=typing), (mark, "bad"), (text, "strong")), width)


def _mode(*, typing: bool) -> Row:
    return ((" TYPING " if typing else " KEYS ", "badge"), (" ", ""))
