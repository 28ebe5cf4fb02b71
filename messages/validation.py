"""Validates settings, with the same error texts for every caller.

An agent, a session, the command and a change during a conversation all use it. `messages` does not
import it: settings that reach a component are already valid.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from messages import limits
from messages.errors import InvalidSettingError
from messages.paths import text_of_path
from messages.settings import CHANGEABLE, SETTINGS, Settings

__all__ = [
    "allowed",
    "changed",
    "checked",
    "checked_settings",
    "description",
    "fixed",
    "metavar",
    "number_in",
    "of_type",
    "parsed",
    "range_in_words",
]

_TYPES: dict[str, Any] = Settings.__annotations__
_IN_WORDS = {
    float: "a number",
    int: "a whole number",
    str: "a text",
    bool: "True, False",
    tuple: "a list",
    dict: "a mapping",
    type(None): "None",
}
_SHOWN = 80
"""Most characters of an invalid text that an error quotes."""


def checked(name: str, value: object, words: str = "") -> Any:
    """Validate the value of a setting, and return it in the form in which it is stored.

    An enum counts as its value, an `os.PathLike` as its path.

    Args:
        name: The name of the setting.
        value: The value.
        words: What is allowed, for the error; empty: what the setting allows.

    Raises:
        InvalidSettingError: If it is not valid; the text says what is.
    """
    setting, kind = SETTINGS[name], _TYPES[name]
    if isinstance(value, str) and value in setting.none:
        return None
    if setting.is_path:
        value = _with_paths(value)
    words = words or setting.allowed
    found = of_type(name, value, kind, words)
    try:
        return found if setting.form is None else setting.form(found)
    except ValueError as error:
        problem = str(error) or _wrong(found, kind, words)
        raise InvalidSettingError(name, problem) from None


def _with_paths(value: object) -> object:
    """Return a path, or a list of paths, in the form that messages can contain."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return text_of_path(value)
    return [*map(_with_paths, value)] if isinstance(value, list | tuple) else value


def of_type(name: str, value: object, kind: Any, words: str = "") -> Any:
    """Convert a value to a type, with its range.

    Args:
        name: The name for the error.
        value: The value.
        kind: The type, with its range.
        words: What is allowed, for the error; empty: it follows from the type.

    Raises:
        InvalidSettingError: If it is not valid; the text says what is.
    """
    try:
        value = _plain(value)
        found = msgspec.convert(value, kind)
        msgspec.msgpack.encode(found)  # fails for single surrogates, which could not be sent
    except UnicodeEncodeError as error:
        problem = f"the text is not valid Unicode: {error.reason}"
    except (msgspec.ValidationError, OverflowError, TypeError):  # TypeError: not a plain value
        problem = _wrong(value, kind, words)
    else:
        return found
    raise InvalidSettingError(name, problem)


def parsed(name: str, text: str) -> Any:
    """Convert a text from the command line to the value of a setting.

    Raises:
        InvalidSettingError: If it is not valid; the text says what is.
    """
    option = SETTINGS[name].option
    if option is not None and text in option.none:
        return None
    words = option.allowed if option is not None else ""
    return checked(name, number_in(text, _TYPES[name]), words)


def number_in(text: str, kind: Any) -> float | str:
    """Return the number that a text is, if a type has numbers; else the text."""
    value: float | str = text
    for number in {int, float} & {leaf for leaf, _ in _leaves(kind)}:
        try:
            value = number(text)
        except ValueError:
            pass
    return value


def checked_settings(given: Mapping[str, Any]) -> Settings:
    """Validate values and return them as settings.

    Raises:
        InvalidSettingError: If one is unknown or not valid, or if two exclude each other.
    """
    for name in given:
        if name not in SETTINGS:
            raise InvalidSettingError(name, f"there is no such setting{_meant(name, SETTINGS)}")
    settings = Settings(**{name: checked(name, value) for name, value in given.items()})
    return _compatible(settings)


def changed(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Apply the changes of an `UpdateSettings` to settings.

    Raises:
        InvalidSettingError: If one cannot change or is not valid, or if two exclude each other.
    """
    for name in changes:
        if name not in CHANGEABLE:
            raise InvalidSettingError(name, fixed(name))
    valid = {name: checked(name, value) for name, value in changes.items()}
    return _compatible(msgspec.structs.replace(settings, **valid))


def fixed(name: str) -> str:
    """Return the error text for a setting that cannot change during a conversation."""
    why = SETTINGS[name].fixed if name in SETTINGS else ""
    return f"it cannot change during a conversation{f' ({why})' if why else ''}"


def allowed(name: str) -> str:
    """Return the allowed values of a setting, as the end of the sentence "give …"."""
    return SETTINGS[name].allowed or _allowed(_TYPES[name])


def metavar(name: str) -> str:
    """Return the placeholder for a setting's value in a help: its choices or range, or empty."""
    choices = [leaf for leaf, _ in _leaves(_TYPES[name]) if isinstance(leaf, str)]
    ends = _range(_TYPES[name])
    return f"{{{','.join(choices)}}}" if choices else "-".join(f"{end:g}" for end in ends)


def range_in_words(kind: Any) -> str:
    """Return the range of a number as a sentence; empty: there is none."""
    ends = _range(kind)
    return f"From {ends[0]:g} to {ends[1]:g}." if ends else ""


def _range(kind: Any) -> tuple[float, ...]:
    metas = [meta for _, meta in _leaves(kind) if meta is not None and meta.le is not None]
    return (metas[0].ge, metas[0].le) if metas else ()


def description(name: str) -> str:
    """Return the description of a setting, with its range."""
    return " ".join(filter(None, (SETTINGS[name].text, range_in_words(_TYPES[name]))))


def _compatible(settings: Settings) -> Settings:
    if wrong := limits.problem(settings):
        raise InvalidSettingError(*wrong)
    return settings


def _plain(value: object) -> Any:
    if isinstance(value, int | float) and abs(value) > sys.float_info.max:
        return (
            sys.float_info.max if value > 0 else -sys.float_info.max
        )  # inf or 10**400, as "for ever"
    return msgspec.to_builtins(value, builtin_types=(bytes, bytearray), enc_hook=os.fspath)


# -- in words --------------------------------------------------------------------------------------


def _leaves(kind: Any, meta: msgspec.Meta | None = None) -> Iterator[tuple[Any, Any]]:
    """Yield each alternative of a type (a type or a literal value) with its range."""
    if get_origin(kind) is Annotated:
        inner, *notes = get_args(kind)
        meta = next((note for note in notes if isinstance(note, msgspec.Meta)), meta)
        yield from _leaves(inner, meta)
    elif get_origin(kind) in (Union, UnionType):
        for each in get_args(kind):
            yield from _leaves(each, meta)
    elif get_origin(kind) is Literal:
        yield from ((value, None) for value in get_args(kind))
    else:
        yield kind, meta


def _wrong(value: object, kind: Any, words: str = "") -> str:
    """Return what is wrong with a value, and what is allowed, as a sentence."""
    for leaf, meta in _leaves(kind):
        if _is_meant(value, leaf):
            return _wrong_part(value, leaf)
        if meta is not None and isinstance(value, int | float) and not isinstance(value, bool):
            if type(value) in (leaf, int):
                return f"{_shown(value)} is out of range; give {words or _allowed(kind)}"
    return f"{_shown(value)} is not valid; give {words or _allowed(kind)}"


def _is_meant(value: object, struct: Any) -> bool:
    if not (isinstance(value, dict) and isinstance(struct, type)):
        return False
    return issubclass(struct, msgspec.Struct) and value.get("type") == struct.__struct_config__.tag


def _wrong_part(value: Any, struct: type[msgspec.Struct]) -> str:
    """Return what is wrong with a part of a setting, given as a mapping."""
    parts = {field.name: field for field in msgspec.structs.fields(struct)}
    for name in value.keys() - {"type"}:
        if name not in parts:
            return f"{name}: there is no such part{_meant(name, parts)}"
    for name, part in parts.items():
        if name not in value:
            if part.required:
                return f"{name}: it is missing; give {_allowed(part.type)}"
            continue
        try:
            msgspec.convert(value[name], part.type)
        except msgspec.ValidationError:
            return f"{name}: {_wrong(value[name], part.type)}"
    return f"{_shown(value)} is not valid"


def _allowed(kind: Any) -> str:
    whole = ", ".join(_leaf_in_words(leaf, meta) for leaf, meta in _leaves(kind))
    others, _, last = whole.rpartition(", ")
    return f"{others} or {last}" if others else last


def _leaf_in_words(leaf: Any, meta: msgspec.Meta | None) -> str:
    if isinstance(leaf, str):
        return leaf
    words = _IN_WORDS[get_origin(leaf) or leaf]
    if meta is None:
        return words
    if meta.gt is not None:
        return f"{words} above {meta.gt:g}"
    if meta.le is None:
        return f"{words} of at least {meta.ge:g}"
    return f"{words} from {meta.ge:g} to {meta.le:g}"


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str | int | None):
        text = repr(value)
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return f"a value of type {type(value).__name__}"


def _meant(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
