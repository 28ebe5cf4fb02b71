"""The widgets of the console: rows of text, the talk, the input line, and lists over the screen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.geometry import Region
from textual.screen import ModalScreen
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Input

from rtvoice.console.rows import Row, row_width
from rtvoice.console.talk import Talk
from rtvoice.view import View
from rtvoice.view.wrapping import printable, width_of

__all__ = ["Choice", "InputLine", "Pane", "TalkPane"]

_STYLES = {
    "strong": Style(bold=True),
    "dim": Style(dim=True),
    "user": Style(color="cyan", bold=True),
    "assistant": Style(color="green", bold=True),
    "partial": Style(italic=True),
    "unheard": Style(dim=True),
    "struck": Style(dim=True, strike=True),
    "mark": Style(color="yellow", bold=True),
    "tool": Style(color="magenta"),
    "chosen": Style(reverse=True),
    "good": Style(color="green"),
    "warn": Style(color="yellow"),
    "bad": Style(color="red", bold=True),
    "badge": Style(reverse=True, bold=True),
    "key": Style(bold=True),
    "title": Style(bold=True, underline=True),
}
"""Colours are those of the terminal; no two things differ by colour alone."""


@lru_cache(maxsize=256)
def _style(names: str) -> Style:
    """Return the style of a piece of text; what a click on it does is no style."""
    style = Style.null()
    for name in names.split():
        style += _STYLES.get(name, Style.null())
    return style


class Pane(Widget):
    """Rows of text that scroll, and follow the end as long as the end is shown.

    It draws its rows itself, and only those that have changed: a label for each would cost a
    layout with every word that comes.

    Args:
        on_click: Called with what a click on a row does, as in `rtvoice.console.rows.Span`.
        follows: Whether new rows at the end are scrolled to.
    """

    ALLOW_SELECT = False

    def __init__(
        self,
        on_click: Callable[[str], None],
        *,
        name: str,
        follows: bool = False,
    ) -> None:
        super().__init__(id=name)
        self._act = on_click
        self._follows = follows
        self.rows: Sequence[Row] = ()
        self.top = 0
        """Index of the first row that is shown."""
        self.is_at_end = True
        """Whether the last row is shown, or was when the pane was shown last."""
        self._shown: list[Row] = []

    @property
    def _last_top(self) -> int:
        return max(len(self.rows) - self.size.height, 0)

    def show(self, rows: Sequence[Row]) -> None:
        """Show other rows; what is scrolled to stays, unless the end is."""
        self.rows = rows
        follow = self._follows and self.is_at_end
        self._move_to(self._last_top if follow else self.top)

    def _move_to(self, top: int) -> None:
        self.top = min(max(top, 0), self._last_top)
        if self.size.height:
            self.is_at_end = self.top == self._last_top
        self._draw()

    def _draw(self) -> None:
        """Redraw the rows that differ from what is on the screen."""
        height, width = self.size.height, self.size.width
        visible = list(self.rows[self.top : self.top + height])
        visible += [()] * (height - len(visible))
        if len(self._shown) != height:
            self._shown = visible
            self.refresh()
            return
        changed = [y for y in range(height) if visible[y] != self._shown[y]]
        self._shown = visible
        if changed:
            self.refresh(*(Region(0, y, width, 1) for y in changed))

    def render_line(self, y: int) -> Strip:
        """Return a row of the screen."""
        row = self._shown[y] if y < len(self._shown) else ()
        segments = [Segment(text, _style(style)) for text, style in row]
        width = self.size.width
        return Strip(segments, row_width(row)).adjust_cell_length(width, Style.null())

    def scroll_rows(self, count: int) -> None:
        """Scroll down by so many rows; a negative number: up."""
        self._move_to(self.top + count)

    def reveal(self, first: int, count: int) -> None:
        """Scroll so that these rows are shown."""
        height = self.size.height
        if first < self.top or count > height:
            self.scroll_rows(first - self.top)
        elif first + count > self.top + height:
            self.scroll_rows(first + count - self.top - height)

    # -- events -------------------------------------------------------------------------------

    def on_resize(self, _: events.Resize) -> None:
        """Draw everything; the end stays in sight."""
        self._shown = []
        self.show(self.rows)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Scroll with the wheel."""
        event.stop()
        self.scroll_rows(-3)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Scroll with the wheel."""
        event.stop()
        self.scroll_rows(3)

    def on_click(self, event: events.Click) -> None:
        """Do what a click on this place does."""
        if event.y >= len(self._shown):
            return
        at = 0
        for text, style in self._shown[event.y]:
            at += width_of(text)
            if event.x < at:
                for name in style.split():
                    if name.startswith("@"):
                        self._act(name[1:])
                return


class TalkPane(Pane):
    """The talk, and the tool call in it that Enter unfolds."""

    def __init__(self, on_click: Callable[[str], None], view: View) -> None:
        super().__init__(on_click, name="talk", follows=True)
        self._talk = Talk(view)

    @property
    def chosen(self) -> str:
        """Id of the tool call that Enter unfolds; empty: none."""
        return self._talk.chosen

    def update(self) -> None:
        """Show what has changed in the talk."""
        width = self.size.width
        if width and self._talk.update(width - 1):
            self.show(self._talk.rows)

    def unfold(self, entry_id: str) -> None:
        """Show a tool call as a whole, or fold it again."""
        self._talk.unfold(entry_id)
        self.show(self._talk.rows)

    def unfold_chosen(self) -> None:
        """Show the chosen tool call as a whole, or fold it again."""
        self.unfold(self.chosen)
        self.reveal(*self._talk.place_of(self.chosen))

    def choose(self, step: int) -> None:
        """Choose the tool call before or after the chosen one; if none is, the newest."""
        self._talk.choose(step)
        self.show(self._talk.rows)
        self.reveal(*self._talk.place_of(self.chosen))

    def leave_choice(self) -> None:
        """Choose no tool call any more."""
        self._talk.leave()
        self.show(self._talk.rows)


class InputLine(Input):
    """The input line: Enter sends, up and down are its earlier lines."""

    def __init__(self, send: Callable[[str], None]) -> None:
        super().__init__(id="input", compact=True, select_on_focus=False)
        self._send = send
        self._history: list[str] = []
        self._at = 0
        self._draft = ""

    def on_key(self, event: events.Key) -> None:
        """Take the keys that mean something else than in other input lines."""
        match event.key:
            case "enter":
                self._enter()
            case "up" | "down":
                self._browse(-1 if event.key == "up" else 1)
            case _:
                return
        event.stop()
        event.prevent_default()

    def on_paste(self, event: events.Paste) -> None:
        """Insert a text that is pasted, all its lines as one: other input lines take the first."""
        event.stop()
        event.prevent_default()
        self.replace(" ".join(printable(event.text, lines=True).split()), *self.selection)

    def _enter(self) -> None:
        text, self.value = self.value.strip(), ""
        if text and (not self._history or self._history[-1] != text):
            self._history.append(text)
        self._at, self._draft = len(self._history), ""
        if text:
            self._send(text)

    def _browse(self, step: int) -> None:
        if self._at == len(self._history):
            self._draft = self.value
        self._at = min(max(self._at + step, 0), len(self._history))
        is_draft = self._at == len(self._history)
        self.value = self._draft if is_draft else self._history[self._at]
        self.cursor_position = len(self.value)


class Choice(ModalScreen[str | None]):
    """A list over the screen, of which one is chosen; Esc closes it.

    Args:
        title: What is chosen.
        text: Returns the rows between title and choices, such as a table of keys, for a number of
            cells.
        choices: Value and text of each; none: there is nothing to choose.
    """

    BINDINGS: ClassVar = []
    CSS = """
    Choice { align: center middle; background: transparent; }
    Choice > Vertical { border: round ansi_default; padding: 0 1; }
    """

    def __init__(
        self,
        title: str,
        text: Callable[[int], Sequence[Row]] = lambda _: (),
        choices: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__()
        self._title = title
        self._text = text
        self._choices = choices
        self._at = 0
        self._box = Vertical()
        self._pane = Pane(self._clicked, name="choice")
        self._foot = Pane(self._clicked, name="choice-foot")

    def compose(self) -> ComposeResult:
        """Return the widgets."""
        with self._box:
            yield self._pane
            yield self._foot

    def on_mount(self) -> None:
        """Show the rows."""
        self._arrange()

    def on_resize(self, _: events.Resize) -> None:
        """Fit into the terminal again."""
        self._arrange()

    def _arrange(self) -> None:
        """Be as large as the rows, if the terminal is; how to close it is always in sight."""
        screen = self.app.size
        rows = self._rows()
        height = max(min(len(rows), screen.height - 3), 1)
        closes = "Enter, or the number · Esc closes" if self._choices else "Esc closes"
        keys = f"↑ ↓ {closes}" if self._choices or height < len(rows) else closes
        self._box.styles.width = min(max(*map(row_width, rows), width_of(keys)) + 4, screen.width)
        self._box.styles.height = height + 3
        self._pane.styles.height = height
        self._foot.styles.height = 1
        self._pane.show(rows)
        self._foot.show([((keys, "dim"),)])

    def _rows(self) -> list[Row]:
        rows: list[Row] = [((self._title, "title"),), *self._text(self.app.size.width - 4)]
        for number, (_, text) in enumerate(self._choices):
            style = f"@{number}" + (" chosen" if number == self._at else "")
            mark = ">" if number == self._at else " "
            key = str(number + 1) if number < 9 else " "
            rows.append(((f"{mark} {key}  {text}", style),))
        return rows

    def _clicked(self, name: str) -> None:
        self.dismiss(self._choices[int(name)][0])

    def press(self, key: str) -> None:
        """Move, choose or close."""
        match key:
            case "up" | "down" if self._choices:
                step = -1 if key == "up" else 1
                self._at = (self._at + step) % len(self._choices)
                rows = self._rows()
                self._pane.show(rows)
                self._pane.reveal(len(rows) - len(self._choices) + self._at, 1)
            case "up" | "down" | "pageup" | "pagedown":
                step = 1 if key in ("up", "down") else self._pane.size.height - 1
                self._pane.scroll_rows(step if key.endswith("down") else -step)
            case "home" | "end":
                end = len(self._pane.rows)
                self._pane.scroll_rows(end if key == "end" else -end)
            case "enter" if self._choices:
                self.dismiss(self._choices[self._at][0])
            case _ if key.isdigit() and 0 < int(key) <= len(self._choices):
                self.dismiss(self._choices[int(key) - 1][0])
            case "escape" | "q" | "question_mark" | "f1" | "enter":
                self.dismiss(None)
