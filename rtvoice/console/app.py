"""The screen of the console: what is shown where, and what the keys do."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.geometry import Size

from messages import Log, Message, SessionStarted
from rtvoice.console.actions import Actions
from rtvoice.console.bars import (
    CHOOSING,
    PAGES,
    TYPING,
    command_keys,
    keys_row,
    said_row,
    tab_row,
)
from rtvoice.console.commands import KEYS
from rtvoice.console.link import Conversation, Link, Over, Processes, Said
from rtvoice.console.orders import Orders
from rtvoice.console.panels import process_rows, state_rows, turn_rows
from rtvoice.console.records import Records
from rtvoice.console.rows import Row
from rtvoice.console.widgets import Choice, InputLine, Pane, TalkPane
from rtvoice.view import View

__all__ = ["ConsoleApp"]

_TICK_S = 0.1
"""What is shown is brought up to date this often."""
_FLASH_S = 5.0
"""How long a sentence about a key is shown."""
_WIDE, _HIGH = 110, 24
"""Size of a terminal from which on the panels are beside the talk."""


class ConsoleApp(App[None]):
    """The console of one session. It ends when the session has ended.

    The screen has one owner, which knows mode, page and panes.

    Args:
        link: The queue of what happens.
        conversation: What the keys do something to.
        view: The state; may have an earlier conversation already.
        hints: Returns the lines to show once the session has started.
        budget: Dollars that the conversation may use; None: no limit is known.
    """

    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q", "quit_session", priority=True, show=False),
        Binding("ctrl+c", "interrupted", priority=True, show=False),
    ]
    CSS = """
    Screen { layout: vertical; }
    Pane { height: 1fr; }
    #state { height: 2; }
    #tabs, #foot { height: 1; }
    #side { width: 64; border-left: solid ansi_default; padding-left: 1; }
    #input { height: 1; display: none; }
    """

    def __init__(
        self,
        link: Link,
        conversation: Conversation,
        view: View,
        *,
        hints: Callable[[], Sequence[str]] = lambda: (),
        budget: float | None = None,
    ) -> None:
        super().__init__(ansi_color=True)
        self.theme = "ansi-dark"  # the colours of the terminal, light ones too
        self.animation_level = "none"
        self.error = ""
        """The traceback of a bug in the console; empty: there was none."""
        self._link = link
        self._conversation = conversation
        self._view = view
        self._hints = hints
        self._budget = budget
        self._actions = Actions(conversation, link, view)
        self._orders = Orders(self, self._actions, link, view)
        self._records = Records()
        self._arranged = Size(0, 0)
        """The size that the panes are arranged for."""
        self._page = "talk"
        self._types = False
        self._flash = ("", 0.0, False)
        """The sentence at the bottom, until when it is shown, and whether it is trouble."""
        make = partial(Pane, self._clicked)
        self._talk = TalkPane(self._clicked, view)
        self._panes = {
            "processes": make(name="processes"),
            "turn": make(name="turn"),
            "log": make(name="log", follows=True),
        }
        self._state = make(name="state")
        self._tabs = make(name="tabs")
        self._foot = make(name="foot")
        self._input = InputLine(self._typed)
        self._main = Vertical(id="main")
        self._side = Vertical(id="side")

    # -- the screen ---------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """Return the widgets."""
        yield self._state
        yield self._tabs
        with Horizontal():
            with self._main:
                yield self._talk
            with self._side:
                for name in PAGES[1:]:
                    yield self._panes[name]
        yield self._foot
        yield self._input

    def on_mount(self) -> None:
        """Begin to show what happens."""
        self._arrange()
        self.set_interval(_TICK_S, self._tick)
        self._tick()

    @property
    def _is_wide(self) -> bool:
        return self.size.width >= _WIDE and self.size.height >= _HIGH

    def _arrange(self) -> None:
        """Show the panes of this size and page."""
        self._arranged = self.size
        wide = self._is_wide
        self._tabs.display = not wide
        self._main.display = wide or self._page == "talk"
        self._side.display = wide or self._page != "talk"
        self._side.styles.width = 64 if wide else "100%"
        self._side.styles.border_left = ("solid", "ansi_default") if wide else ("none", "white")
        self._side.styles.padding = (0, 0, 0, 1 if wide else 0)
        for name in PAGES[1:]:
            shown = name == self._page or (wide and name != "log")
            self._panes[name].display = shown
        self._panes["processes"].styles.height = len(self._view.processes) + 2 if wide else "1fr"
        self._panes["turn"].styles.height = 10 if wide else "1fr"

    def _tick(self) -> None:
        """Take what has come, and show it."""
        now_s = self._link.now_s()
        for came_s, news in self._link.take():
            match news:
                case Message():
                    self._take(news, came_s)
                case Processes(status):
                    self._view.status({name: dict(about) for name, about in status.items()}, came_s)
                    self._arrange()
                case Said(text, is_trouble):
                    self.say(text, is_trouble=is_trouble)
                case Over():
                    self.exit()
                    return
                case _:
                    news()
        self._view.look(now_s)
        self._refresh()

    def _take(self, message: Message, came_s: float) -> None:
        if isinstance(message, Log):
            self._records.add(message)
            return
        self._view.take(message, came_s)
        if isinstance(message, SessionStarted):
            self._link.want_partial_transcripts()
            for hint in self._hints():
                self._view.note(hint, came_s)
            self._arrange()

    def _refresh(self) -> None:
        """Show the state: panes redraw only the rows that differ."""
        if self.size != self._arranged:
            self._arrange()
        now_s, width = self._link.now_s(), self.size.width
        self._state.show(state_rows(self._view, width))
        if self._tabs.display:
            self._tabs.show([tab_row(self._view, self._page, self._records.unread, width)])
        self._foot.show([self._foot_row(now_s)])
        self._talk.update()
        side = self._panes
        if side["processes"].display:
            side["processes"].show(process_rows(self._view, side["processes"].size.width, now_s))
        if side["turn"].display:
            rows = turn_rows(self._view, side["turn"].size.width, self._budget)
            side["turn"].show([(("last turn", "title"),), *rows])
        if side["log"].display:
            side["log"].show(self._records.rows(side["log"].size.width))

    def _foot_row(self, now_s: float) -> Row:
        text, until_s, is_trouble = self._flash
        if text and now_s < until_s:
            return said_row(text, self.size.width, typing=self._types, is_trouble=is_trouble)
        if self._types:
            return keys_row(TYPING, self.size.width, typing=True)
        if self._talk.chosen:
            return keys_row(CHOOSING, self.size.width)
        by_key = self._conversation.has_push_to_talk()
        keys = command_keys(muted=self._view.muted, push_to_talk=by_key)
        return keys_row(keys, self.size.width, more=not self._talk.is_at_end)

    def say(self, text: str, *, is_trouble: bool = False) -> None:
        """Show a sentence at the bottom for a while."""
        if text:
            self._flash = (text, self._link.now_s() + _FLASH_S, is_trouble)

    def clear(self) -> None:
        """Show no sentence at the bottom any more."""
        self._flash = ("", 0.0, False)

    def ask(self, choice: Choice, then: Callable[[str], None] | None = None) -> None:
        """Show a list over the screen; call a function with what is chosen."""

        def chosen(value: str | None) -> None:
            if value is not None and then is not None:
                then(value)

        self.push_screen(choice, chosen)

    # -- modes --------------------------------------------------------------------------------

    async def on_event(self, event: events.Event) -> None:
        """Decide at once what a key means: the focus follows the mode only after a while."""
        if not isinstance(event, events.Key) or event.key in ("ctrl+c", "ctrl+q"):
            await super().on_event(event)
        elif isinstance(self.screen, Choice):
            self.screen.press(event.key)
        elif not self._types:
            self._pressed(event.key)
        elif event.key in ("escape", "ctrl+t"):
            self._leave_input()
        elif self.focused is self._input:
            await super().on_event(event)
        else:
            self._input.post_message(event)

    def _open_input(self, text: str = "") -> None:
        self._types = True
        self._input.display = True
        self._input.value = text
        self._input.cursor_position = len(text)
        self._input.focus()
        self.clear()
        self.call_after_refresh(self._refresh)

    def _leave_input(self) -> None:
        self._types = False
        self._input.display = False
        self.set_focus(None)
        self.call_after_refresh(self._refresh)

    def _typed(self, line: str) -> None:
        """Take a line: a command, or words of the user."""
        if line.startswith("/"):
            self._orders.obey(line)
        else:
            self._actions.say(line)

    def _clicked(self, what: str) -> None:
        """Do what a click does."""
        name, _, argument = what.rstrip(")").partition("(")
        match name:
            case "unfold":
                self._talk.unfold(argument)
            case "page":
                self.turn_to(argument)
            case "kill":
                self._orders.choose_process(argument)
            case "end":
                self._scroll("end")

    def _pressed(self, key: str) -> None:
        """Do what a key does outside the input line."""
        if key == "ctrl+t":
            self._open_input()
        elif key == "slash":
            self._open_input("/")
        elif key in ("up", "down", "pageup", "pagedown", "home", "end"):
            self._scroll(key)
        elif key == "1":
            self.turn_to("talk")
        elif key == "escape":
            self._talk.leave_choice()
            self.turn_to("talk")
        elif key in ("tab", "shift+tab"):
            self.choose_tool(1 if key == "tab" else -1)
        elif key == "enter" and self._talk.chosen:
            self._talk.unfold_chosen()
        elif (command := KEYS.get(key)) is not None:
            steps = {"plus": "+", "equals_sign": "+", "right_square_bracket": "+"}
            is_step = command.name in ("volume", "speed")
            self._orders.do(command.name, steps.get(key, "-") if is_step else "")

    def _scroll(self, key: str) -> None:
        pane = self._talk if self._main.display else self._panes[self._page]
        page = max(pane.size.height - 1, 1)
        steps = {"up": -1, "down": 1, "pageup": -page, "pagedown": page}
        pane.scroll_rows(steps.get(key, len(pane.rows) * (1 if key == "end" else -1)))

    def choose_tool(self, step: int) -> None:
        """Choose the next tool call of the talk, or the one before it."""
        self.turn_to("talk")
        self._talk.choose(step)
        if not self._talk.chosen:
            self.say("no tool was called yet")

    def toggle(self, page: str) -> None:
        """Show a page or, if it is shown, the talk."""
        self.turn_to("talk" if self._page == page else page)

    def turn_to(self, page: str) -> None:
        """Show another page; in a wide terminal only the log is one."""
        self._page = page
        if page == "log":
            self._records.unread = 0
        if page != "talk" and not self._is_wide:  # Enter unfolds nothing that is out of sight
            self._talk.leave_choice()
        self._arrange()
        self.call_after_refresh(self._refresh)

    # -- the end ------------------------------------------------------------------------------

    def action_quit_session(self) -> None:
        """End the conversation (Ctrl-Q)."""
        self._orders.do("quit")

    def action_interrupted(self) -> None:
        """End the conversation (Ctrl-C); a second time, kill it."""
        if self._conversation.interrupted():
            self.exit()
        else:
            self.say("ending; Ctrl-C again kills")

    def _fatal_error(self) -> None:
        """Keep the traceback, to be shown as a text: textual's own shows the words of the user."""
        self.error = traceback.format_exc()
        self._close_messages_no_wait()
