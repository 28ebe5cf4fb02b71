"""Chooses an answer from the conversation and the tools; deterministic."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from rtvoice.sandbox.conversation import ServerItem
from rtvoice.sandbox.phrases import Intent, Phrase, find_phrase, printed_list

__all__ = ["NOT_UNDERSTOOD", "RequestedCall", "SpokenAnswer", "ToolCalls", "think"]

NOT_UNDERSTOOD: Final = "Sorry, I did not understand that."

_TIME_TOOL: Final = "get_current_time"
_VOLUME_TOOL: Final = "adjust_volume"
_SPEED_TOOL: Final = "change_assistant_response_speed"
_STOP_TOOL: Final = "stop_assistant_run"

_FIRST_LEVEL: Final = 0.5
_LEVEL_STEP: Final = 0.2

_STORY: Final = (
    "Once upon a time there was a small lighthouse on a rock at the edge of the sea. "
    "Every evening its keeper climbed the ninety nine stairs and lit the lamp. "
    "One night the wind was so strong that the lamp went out. "
    "The keeper took a drum, and she beat it slowly until the morning came. "
    "The ships heard the drum, and not one of them was lost. "
    "Since then there is a drum beside the lamp, and nobody has needed it again. "
    "That is the end of the story."
)
_COUNT: Final = (
    "One, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen, "
    "fourteen, fifteen, sixteen, seventeen, eighteen, nineteen, twenty."
)
_SPOKEN: Final = {
    Intent.GREET: "Hello. I am the sandbox. Say help to hear what I understand.",
    Intent.STORY: _STORY,
    Intent.COUNT: _COUNT,
    Intent.NAME: "My name is Sandbox.",
    Intent.THANKS: "You are welcome.",
    Intent.GOODBYE: "Goodbye.",
}


_SAY = re.compile(r"(?is)\s*say(?:\s*:|\s+exactly\b(?:\s+this\b[^:\n]*:|\s*:)?)\s*(.+)")
"""Instructions with the words to say: ``Say: …``, ``Say exactly …``, ``Say exactly this, …: …``."""
_SAY_NOW = re.compile(r'(?is)\s*say to the user now:\s*"(.+)"')
"""The instructions by which rtvoice lets a running tool speak; more text follows the quotes."""


_Offered = Mapping[str, Mapping[str, Any]]
"""Tools that may be called, by name."""


class SpokenAnswer(NamedTuple):
    """An answer in words."""

    text: str


class RequestedCall(NamedTuple):
    """A call of one tool; `arguments` is a JSON object as text."""

    name: str
    arguments: str


class ToolCalls(NamedTuple):
    """An answer that calls tools."""

    calls: tuple[RequestedCall, ...]


def think(
    items: Iterable[ServerItem],
    tools: Iterable[dict[str, Any]] = (),
    tool_choice: Any = "auto",
    instructions: str | None = None,
) -> SpokenAnswer | ToolCalls:
    """Return an answer.

    Args:
        items: The conversation, oldest item first.
        tools: The function tools of the session.
        tool_choice: The `tool_choice` of the session.
        instructions: The instructions of this response alone; the words after `Say: ...` and
            `Say exactly ...` are the answer.
    """
    history = list(items)
    words = _asked_to_say(instructions)
    if words is not None:
        return SpokenAnswer(words)
    offered = {tool["name"]: tool for tool in tools if "name" in tool and tool_choice != "none"}
    forced = _forced_tool(tool_choice, list(offered))
    answer = _answer(history, offered, instructions)
    if forced is None or (isinstance(answer, ToolCalls) and answer.calls[0].name in forced):
        return answer
    return ToolCalls((RequestedCall(forced[0], "{}"),))


def _forced_tool(tool_choice: Any, names: list[str]) -> list[str] | None:
    """Return the names of the tools of which one must be called; None: none must."""
    if isinstance(tool_choice, dict):
        return [tool_choice["name"]] if tool_choice.get("name") in names else None
    return names if tool_choice == "required" and names else None


def _asked_to_say(instructions: str | None) -> str | None:
    text = instructions or ""
    found = _SAY_NOW.match(text) or _SAY.match(text)
    return found.group(1).strip().strip("\"'“”").strip() if found else None


def _answer(
    history: list[ServerItem], tools: _Offered, instructions: str | None
) -> SpokenAnswer | ToolCalls:
    open_items = _unanswered(history)
    last = open_items[-1] if open_items else None
    if last is None:
        return _continuation(history, tools, instructions) or _unprompted(history, instructions)
    if last.kind == "function_call_output":
        outputs = [item for item in open_items if item.kind == "function_call_output"]
        return SpokenAnswer(" ".join(_about_output(item, history) for item in outputs))
    if last.kind == "function_call":
        return SpokenAnswer(f"I am still waiting for the answer of {last.name}.")
    if last.role == "system":
        return SpokenAnswer(_asked_to_say(last.words) or _SPOKEN[Intent.GREET])
    return _about_user(last, history, tools)


def _unanswered(history: list[ServerItem]) -> list[ServerItem]:
    """Return the items after the assistant's last words, without tool calls that have an output."""
    found: list[ServerItem] = []
    answered = {item.call_id for item in history if item.kind == "function_call_output"}
    for item in reversed(history):
        if item.role == "assistant" and not item.words:
            continue  # cut off before its first word
        if item.role == "assistant":
            break
        if item.role == "system" and _asked_to_say(item.words) is None:
            continue
        if item.kind != "function_call" or item.call_id not in answered:
            found.insert(0, item)
    return found


def _continuation(
    history: list[ServerItem], tools: _Offered, instructions: str | None
) -> SpokenAnswer | None:
    """Return the rest of the last answer, if the client resumes it after a lost connection."""
    if not re.search(r"(?i)\bgo on from where it stopped\b", instructions or ""):
        return None
    before = list(history)
    said: list[str] = []
    while before and before[-1].role == "assistant":
        said.insert(0, before.pop().words)
    whole = _answer(before, tools, None)
    if not isinstance(whole, SpokenAnswer):
        return None
    rest = whole.text.removeprefix(" ".join(said)).strip()
    return SpokenAnswer(rest or "That is all.")


def _unprompted(history: list[ServerItem], instructions: str | None) -> SpokenAnswer:
    greeted = re.search(r"(?i)\b(greet|greeting|welcome|hello)\b", instructions or "")
    if greeted or not any(item.role == "user" for item in history):
        return SpokenAnswer(_SPOKEN[Intent.GREET])
    return SpokenAnswer("I am listening.")


def _about_user(
    item: ServerItem, history: list[ServerItem], tools: _Offered
) -> SpokenAnswer | ToolCalls:
    heard = [part.heard for part in item.content if part.heard is not None]
    typed = " ".join(part.text for part in item.content if part.text)
    if not typed:
        if heard and not any(each.seconds for each in heard):
            return SpokenAnswer("Are you still there?")
        if heard and heard[0].text is None:
            seconds = sum(each.seconds for each in heard)
            return SpokenAnswer(f"I heard {seconds:.1f} seconds of speech.")
        if heard and not any(each.text for each in heard):
            return SpokenAnswer(NOT_UNDERSTOOD)
        if not heard:
            return SpokenAnswer("I see a picture." if item.content else NOT_UNDERSTOOD)
    text = typed or " ".join(each.text for each in heard if each.text)
    if re.match(r"\s*call\s+\S", text):
        return _typed_calls(text, tools)
    phrase = find_phrase(text)
    return (
        SpokenAnswer(f"You said: {text}")
        if phrase is None
        else _about(phrase, item, history, tools)
    )


def _typed_calls(text: str, tools: _Offered) -> SpokenAnswer | ToolCalls:
    """Return the tool calls of lines `call NAME {json}`, by which users try their own tools."""
    calls = []
    for line in text.strip().splitlines():
        found = re.match(r"\s*call\s+([\w-]+)\s*(.*)", line)
        if found is None:
            return SpokenAnswer(f"I can not read this call: {line}")
        name, arguments = found.group(1), found.group(2).strip() or "{}"
        if name not in tools:
            there = f"The tools are: {', '.join(tools)}." if tools else "There are no tools."
            return SpokenAnswer(f"There is no tool {name}. {there}")
        try:
            json.loads(arguments)
        except (ValueError, RecursionError):
            return SpokenAnswer(f"The arguments of {name} are not JSON: {arguments}")
        calls.append(RequestedCall(name, arguments))
    return ToolCalls(tuple(calls))


def _about(
    phrase: Phrase, item: ServerItem, history: list[ServerItem], tools: _Offered
) -> SpokenAnswer | ToolCalls:
    match phrase.intent:
        case Intent.TIME:
            return _use(_TIME_TOOL, {}, tools, "I have no clock")
        case Intent.FASTER | Intent.SLOWER:
            arguments = {"instructions": phrase.intent.value}
            return _use(_SPEED_TOOL, arguments, tools, f"I can not speak {phrase.intent}")
        case Intent.LOUDER | Intent.QUIETER | Intent.VOLUME:
            level = _wanted_level(phrase, history, tools)
            return _use(_VOLUME_TOOL, {"level": level}, tools, "I can not change the volume")
        case Intent.STOP:
            return _use(_STOP_TOOL, {}, tools, "I can not end the conversation")
        case Intent.RECALL:
            return SpokenAnswer(_recall(item, history))
        case Intent.HELP:
            listed = ", ".join(re.sub(r"\s*\(.*", "", line) for line in printed_list())
            return SpokenAnswer(f"You can say: {listed}.")
    return SpokenAnswer(_SPOKEN[phrase.intent])


def _use(
    tool: str, arguments: dict[str, Any], tools: _Offered, without: str
) -> SpokenAnswer | ToolCalls:
    if tool in tools:
        return ToolCalls((RequestedCall(tool, json.dumps(arguments)),))
    return SpokenAnswer(f"{without}: this session has no tool {tool}.")


def _wanted_level(phrase: Phrase, history: list[ServerItem], tools: _Offered) -> float | str:
    if phrase.percent is not None:
        return phrase.percent / 100
    word = phrase.intent.value
    if f'"{word}"' in json.dumps(tools.get(_VOLUME_TOOL)):
        return word  # the tool takes the word: it knows the volume, and the sandbox does not
    step = _LEVEL_STEP if phrase.intent is Intent.LOUDER else -_LEVEL_STEP
    return round(min(1.0, max(0.0, _last_level(history) + step)), 2)


def _last_level(history: list[ServerItem]) -> float:
    for item in reversed(history):
        if item.kind == "function_call" and item.name == _VOLUME_TOOL:
            level = _level_of(item)
            if level is not None:
                return level
    return _FIRST_LEVEL


def _level_of(call: ServerItem) -> float | None:
    try:
        level = json.loads(call.arguments)["level"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return level if isinstance(level, int | float) else None


def _recall(item: ServerItem, history: list[ServerItem]) -> str:
    before = history[: history.index(item)]
    said = [each.words for each in before if each.role == "user" and each.words]
    return f"You said: {said[-1]}" if said else "You have not said anything before."


def _about_output(output: ServerItem, history: list[ServerItem]) -> str:
    calls = (each for each in history if each.kind == "function_call")
    call = next((each for each in calls if each.call_id == output.call_id), None)
    value = _value_of(output.output)
    name = call.name if call is not None else "the tool"
    if call is not None and isinstance(value, str) and not re.match(r"(?i)\W*error", value):
        sentence = _about_known(name, call, value)
        if sentence is not None:
            return sentence
    return f"The answer of {name} is {_read(value)}."


def _about_known(name: str, call: ServerItem, value: str) -> str | None:
    if name == _TIME_TOOL:
        return _time_sentence(value)
    if name == _VOLUME_TOOL:
        stated = re.search(r"volume is ([01](?:\.\d+)?) now", value)
        level = float(stated.group(1)) if stated else _level_of(call)
        return None if level is None else f"The volume is {level * 100:.0f} percent now."
    if name == _SPEED_TOOL:
        return "I speak slower now." if "slower" in call.arguments else "I speak faster now."
    return "Goodbye." if name == _STOP_TOOL else None


def _time_sentence(value: str) -> str | None:
    found = re.search(r"(?<!\d)(\d{1,2}:\d\d)(?::(\d\d))?", value)
    if found is None:
        return None
    if found.group(2) is None:
        return f"It is {found.group(1)}."
    seconds = int(found.group(2))
    return f"It is {found.group(1)} and {seconds} second{'' if seconds == 1 else 's'}."


def _value_of(output: str) -> Any:
    try:
        value = json.loads(output)
        _read(value)
    except (ValueError, RecursionError):
        return output
    return value if isinstance(value, str | dict | list) else output


def _read(value: Any) -> str:
    """Return a JSON value in words."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_read(each)}" for name, each in value.items()) or "empty"
    if isinstance(value, list):
        return ", ".join(_read(each) for each in value) or "empty"
    if isinstance(value, str):
        return value.strip().rstrip(".") or "empty"
    return json.dumps(value)
