"""The built-in tools: get the time, set volume and speed, end the conversation."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec

from actors.tools.registry import Tools
from messages import EndConversation, Message, SetSpeed, SetVolume
from messages.limits import SPEEDS

__all__ = ["SPEED_STEP", "VOLUME_STEP", "Effect", "builtin_tools"]

SPEED_STEP = 0.2
VOLUME_STEP = 0.2

_Level = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class Effect(msgspec.Struct, frozen=True):
    """The result of a built-in tool: a message to send, and the answer for the model."""

    message: Message
    output: str


def builtin_tools(speed: Callable[[], float], volume: Callable[[], float]) -> Tools:
    """Return all built-in tools; they do not block, and return text or an `Effect`.

    Args:
        speed: Returns the current speech speed.
        volume: Returns the current volume.
    """
    tools = Tools()

    @tools.action("Get the current local time as HH:MM:SS.", idempotent=True)
    def get_current_time() -> str:
        return time.strftime("%H:%M:%S")

    @tools.action(
        "Set the volume at which the user hears you.",
        response_instruction="Confirm the new volume in a few words.",
    )
    def adjust_volume(
        level: Annotated[
            _Level | Literal["louder", "quieter"],
            "from 0.0 (silent) to 1.0 (full), or one step from what it is now",
        ],
    ) -> Effect:
        if isinstance(level, str):
            step = VOLUME_STEP if level == "louder" else -VOLUME_STEP
            new = round(min(1.0, max(0.0, volume() + step)), 2)
        else:
            new = level
        return Effect(SetVolume(new), f"The volume is {new:g} now.")

    @tools.action(
        "Speak faster or slower from the next answer on.",
        response_instruction="Confirm in a few words.",
    )
    def change_assistant_response_speed(
        instructions: Annotated[Literal["faster", "slower"], "which way"],
    ) -> Effect:
        step = SPEED_STEP if instructions == "faster" else -SPEED_STEP
        slowest, fastest = SPEEDS
        new = round(min(fastest, max(slowest, speed() + step)), 2)
        return Effect(SetSpeed(new), f"The speech speed is {new:g} now.")

    @tools.action(
        "End the conversation. Use it when the user says goodbye or asks you to stop.",
        response_instruction="Say goodbye in one short sentence.",
    )
    def stop_assistant_run() -> Effect:
        return Effect(EndConversation("stop tool"), "The conversation ends after your farewell.")

    return tools
