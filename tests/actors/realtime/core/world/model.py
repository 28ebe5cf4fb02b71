"""The model of the world: what it answers."""

from __future__ import annotations

import re

from rtvoice.sandbox.brain import RequestedCall, SpokenAnswer, ToolCalls
from rtvoice.sandbox.conversation import ServerItem

__all__ = ["GREETING", "answer_to"]

GREETING = "Good morning"
"""How every conversation begins."""


def answer_to(
    context: list[ServerItem], instructions: str | None
) -> SpokenAnswer | ToolCalls | None:
    """Answer the last thing that was asked; None: as the sandbox would."""
    if instructions and "Say exactly" in instructions:
        return None
    if instructions and (notices := re.findall("notice [0-9]+", instructions)):
        return SpokenAnswer(" and ".join(notices))
    if instructions and "Go on from where" in instructions:
        return SpokenAnswer("and so it goes on and on")
    others = [item for item in context if item.role != "assistant" or item.kind != "message"]
    last = others[-1] if others else None
    if last is None:
        return SpokenAnswer("well then")
    if last.kind == "function_call_output":
        return SpokenAnswer(f"looked up as {last.output} for you")
    number = last.words.split(" ")[-1] if last.words else "nothing"
    if number.isdecimal() and int(number) % 4 == 3:
        return ToolCalls(
            (RequestedCall("lookup", f'{{"number": {number}}}'),) * (1 + int(number) % 2)
        )
    return SpokenAnswer(" ".join(["about", number, *["la"] * 12, "done"]))
