"""The user and the program of the world: what they do, and what they have done so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

from messages import (
    CreateResponse,
    Interrupt,
    Message,
    Say,
    SendImage,
    SendText,
    SetSpeed,
    StartTalking,
    StopTalking,
    UpdateSettings,
)

if TYPE_CHECKING:
    from tests.actors.realtime.core.world.world import World

__all__ = ["User"]


class User:
    """Speaks, types, shows images and interrupts; has the program ask for things."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked: list[int] = []
        """The numbers that the user has said, whole."""
        self.typed: list[str] = []
        self.wanted = 0
        """How often the program has requested an answer."""
        self.notices: list[str] = []
        """The sentences that the program has asked to be said."""
        self.coughs = 0

    # -- the user -----------------------------------------------------------------------------

    def say(self) -> int:
        """Say the next thing, for 1.2 s."""
        number = len(self.asked) + 1
        self.world.microphone.hear(number, 1.2)
        self.asked.append(number)
        return number

    def talk(self) -> None:
        """Say the next thing; with push-to-talk, while the key is pressed."""
        if self.world.settings.turn_detection is not None:
            self.say()
            self.world.run(1.8)  # with the silence that ends a turn
            return
        self._tell(StartTalking(self.world.clock.now))
        self.world.run(0.2)
        self.say()
        self.world.run(1.4)
        self._tell(StopTalking(self.world.clock.now))
        self.world.run(0.2)

    def tap(self) -> None:
        """Press the key for a moment only."""
        self._tell(StartTalking(self.world.clock.now))
        self.world.run(0.05)
        self._tell(StopTalking(self.world.clock.now))

    def cough(self) -> None:
        """Cough, for 0.2 s."""
        self.world.microphone.hear(0, 0.2)
        self.coughs += 1

    def show(self) -> None:
        text, item_id = self._next_typed()
        self._tell(SendImage(b"\x89PNG", "image/png", text, item_id))

    def type(self) -> None:
        self._tell(SendText(*self._next_typed()))

    def interrupt(self) -> None:
        self.world.interrupt_notices()
        self._tell(Interrupt())

    # -- the program --------------------------------------------------------------------------

    def ask(self) -> None:
        """Ask for an answer."""
        self.wanted += 1
        self._tell(CreateResponse())

    def notify(self) -> None:
        """Have the program ask for a sentence to be said."""
        self.notices.append(f"notice {len(self.notices)}")
        self._tell(Say(self.notices[-1]))

    def change(self) -> None:
        """Change settings."""
        chosen = self.world.random
        self._tell(SetSpeed(chosen.choice([0.5, 1.0, 1.5])))
        self._tell(UpdateSettings({"instructions": f"Be {chosen.random()}"}))

    def _next_typed(self) -> tuple[str, str]:
        self.typed.append(f"typed {len(self.typed)}")
        return self.typed[-1], f"t{len(self.typed)}"

    def _tell(self, message: Message) -> None:
        self.world.process.tell(message, is_kept=True)
