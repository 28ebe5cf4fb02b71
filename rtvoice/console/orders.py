"""What is done for a key or a slash command."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, Protocol

from rtvoice.console.actions import Actions
from rtvoice.console.commands import CommandError, help_lines, parsed
from rtvoice.console.link import Link, Said
from rtvoice.console.rows import Row, padded, paragraph
from rtvoice.console.widgets import Choice
from rtvoice.view import View

__all__ = ["Orders"]

_DIRECTIONS: tuple[Literal["input", "output"], ...] = ("input", "output")
_STEP_PERCENT, _STEP_SPEED = 10, 0.1


class ConsoleScreen(Protocol):
    """What the orders need of the screen."""

    def say(self, text: str, *, is_trouble: bool = False) -> None:
        """Show a sentence at the bottom for a while."""

    def clear(self) -> None:
        """Show no sentence at the bottom any more."""

    def ask(self, choice: Choice, then: Callable[[str], None] | None = None) -> None:
        """Show a list over the screen; call a function with what is chosen."""

    def toggle(self, page: str) -> None:
        """Show a page or, if it is shown, the talk."""

    def choose_tool(self, step: int) -> None:
        """Choose the next tool call of the talk, or the one before it."""


class Orders:
    """Performs commands: asks what is missing, and says what has become of them."""

    def __init__(self, screen: ConsoleScreen, actions: Actions, link: Link, view: View) -> None:
        self._screen = screen
        self._actions = actions
        self._link = link
        self._view = view

    def obey(self, line: str) -> None:
        """Perform a slash command, or say what is wrong with it."""
        try:
            self.do(*parsed(line))
        except CommandError as error:
            self._screen.say(str(error), is_trouble=True)

    def do(self, name: str, argument: str = "") -> None:
        """Do what a key or a slash command stands for.

        Raises:
            CommandError: The argument is not valid.
        """
        match name:
            case "processes" | "turn" | "log":
                self._screen.toggle(name)
            case "help":
                self._show_help()
            case "tools":
                self._screen.choose_tool(1)
            case "devices":
                self._screen.say("looking for devices ...")
                self._link.run(self._list_devices)
            case "kill" if not argument:
                self.choose_process()
            case "kill":
                self._screen.say(self._actions.kill(argument))
            case "volume" | "speed":
                self._screen.say(self._change(name, argument))
            case "save":
                self._save()
            case _:
                self._screen.say(getattr(self._actions, name)())

    def _save(self) -> None:
        try:
            self._screen.say(self._actions.save())
        except OSError as error:
            text = f"the transcript cannot be saved here: {error.strerror or error}"
            self._screen.say(text, is_trouble=True)

    def _change(self, name: str, argument: str) -> str:
        """Change volume or speed by a step (``+`` or ``-``), or to a number."""
        is_volume = name == "volume"
        now = self._view.volume * 100 if is_volume else self._view.speed
        if argument in ("+", "-"):
            step = _STEP_PERCENT if is_volume else _STEP_SPEED
            value = now + (step if argument == "+" else -step)
        else:
            try:
                value = float(argument.rstrip("%"))
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                example = "/volume 50" if is_volume else "/speed 1.2"
                raise CommandError(f"write a number, such as {example}")
        return self._actions.volume(value) if is_volume else self._actions.speed(value)

    def _show_help(self) -> None:
        rest: Row = ((" " * 31, ""),)
        lines = help_lines()

        def rows(width: int) -> list[Row]:
            return [
                row
                for shown, slash, text in lines
                for row in paragraph(
                    [(text, "dim")],
                    width,
                    ((padded(shown, 14), "key"), (padded(slash, 17), "")),
                    rest,
                )
            ]

        self._screen.ask(Choice("keys and commands", rows))

    def choose_process(self, name: str = "") -> None:
        """Ask which process to kill; one that is named comes first."""
        names = sorted(self._actions.processes, key=lambda known: known != name)
        pids = {known: self._view.processes[known].pid for known in names}
        choices = [(known, f"{padded(known, 12)} {pids[known]}") for known in names]
        self._screen.ask(Choice("kill which process?", choices=choices), self._kill_chosen)

    def _kill_chosen(self, name: str) -> None:
        self.obey(f"/kill {name}")

    def _list_devices(self) -> Said | None:
        """List the sound devices, on a thread: it takes a process of its own a while."""
        from actors.devices.card.listing import list_devices
        from actors.devices.errors import SoundLibraryError

        try:
            devices = list_devices()
        except SoundLibraryError as error:
            return Said(str(error), is_trouble=True)
        choices = [
            (f"{direction} {device.name}", f"{direction:<7}{' '.join(device.name.split())}")
            for direction in _DIRECTIONS
            for device in devices
            if device.channels(direction)
        ]
        self._link.put(partial(self._show_devices, choices))
        return None

    def _show_devices(self, choices: list[tuple[str, str]]) -> None:
        processes = self._view.processes
        using: list[Row] = [
            ((f"{name}: ", "dim"), (processes[name].device or "-", ""))
            for name in ("microphone", "speaker")
            if name in processes
        ]
        if not choices:
            using.append((("there are no sound devices on this machine", "dim"),))
        self._screen.clear()
        self._screen.ask(Choice("devices", lambda _: using, choices), self._device_chosen)

    def _device_chosen(self, choice: str) -> None:
        direction, _, device = choice.partition(" ")
        self._screen.say(self._actions.change_device(direction, device))
