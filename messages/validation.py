"""The one check of settings: what is wrong with a value, in the same words whoever has given it.

An agent, a session, the command and a change during a conversation all come here. `messages` does
not import it, since what reaches a component is checked.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from messages import limits
from messages.errors import InvalidSettingError
from messages.settings import CHANGEABLE, SETTINGS, Settings

__all__ = [
    "allowed",
    "changed",
    "checked",
    "checked_settings",
    "description",
    "fixed",
    "metavar",
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
"""So much is shown of a text that is not valid."""


def checked(name: str, value: object) -> Any:
    """Return a value as the setting of this name is kept.

    An enum counts as its value, an `os.PathLike` as its path.

    Raises:
        InvalidSettingError: it is not valid; the error says what is.
    """
    setting, kind = SETTINGS[name], _TYPES[name]
    if isinstance(value, str) and value in setting.none:
        return None
    found = of_type(name, value, kind, setting.allowed)
    try:
        return found if setting.form is None else setting.form(found)
    except ValueError as error:
        problem = str(error) or _wrong(found, kind, setting.allowed)
        raise InvalidSettingError(name, problem) from None


def of_type(name: str, value: object, kind: Any, words: str = "") -> Any:
    """Return a value as one of this type.

    Args:
        name: what the error calls it.
        value: the value.
        kind: the type, with its range.
        words: what is allowed; empty: what the type says.

    Raises:
        InvalidSettingError: it is not valid; the error says what is.
    """
    try:
        value = _plain(value)
        found = msgspec.convert(value, kind)
        msgspec.msgpack.encode(found)  # a text with half a surrogate pair could not be sent
    except UnicodeEncodeError as error:
        problem = f"the text is not valid Unicode: {error.reason}"
    except (msgspec.ValidationError, OverflowError, TypeError):  # TypeError: no plain value
        problem = _wrong(value, kind, words)
    else:
        return found
    raise InvalidSettingError(name, problem)


def parsed(name: str, text: str) -> Any:
    """Return the value that a text on the command line stands for.

    Raises:
        InvalidSettingError: it is not valid; the error says what is.
    """
    option = SETTINGS[name].option
    if option is not None and text in option.none:
        return None
    value: object = text
    for number in {int, float} & {leaf for leaf, _ in _leaves(_TYPES[name])}:
        try:
            value = number(text)
        except ValueError:
            pass
    return checked(name, value)


def checked_settings(given: Mapping[str, Any]) -> Settings:
    """Return the settings that these values are.

    Raises:
        InvalidSettingError: one is unknown or not valid, or two do not go together.
    """
    for name in given:
        if name not in SETTINGS:
            raise InvalidSettingError(name, f"there is no such setting{_meant(name, SETTINGS)}")
    settings = Settings(**{name: checked(name, value) for name, value in given.items()})
    return _together(settings)


def changed(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Return settings as changed by an `UpdateSettings`.

    Raises:
        InvalidSettingError: one cannot change or is not valid, or two do not go together.
    """
    for name in changes:
        if name not in CHANGEABLE:
            raise InvalidSettingError(name, fixed(name))
    valid = {name: checked(name, value) for name, value in changes.items()}
    return _together(msgspec.structs.replace(settings, **valid))


def fixed(name: str) -> str:
    """Return a sentence that says why a setting cannot change during a conversation."""
    why = SETTINGS[name].fixed if name in SETTINGS else ""
    return f"it cannot change during a conversation{f' ({why})' if why else ''}"


def allowed(name: str) -> str:
    """Return what a setting may be, in the words that follow "give" in a sentence."""
    return SETTINGS[name].allowed or _allowed(_TYPES[name])


def metavar(name: str) -> str:
    """Return what stands for the value of a setting in a help; empty: nothing special."""
    choices = [leaf for leaf, _ in _leaves(_TYPES[name]) if isinstance(leaf, str)]
    ends = _range(_TYPES[name])
    return f"{{{','.join(choices)}}}" if choices else "-".join(f"{end:g}" for end in ends)


def range_in_words(kind: Any) -> str:
    """Return a sentence that says between what a number lies; empty: it may be any."""
    ends = _range(kind)
    return f"From {ends[0]:g} to {ends[1]:g}." if ends else ""


def _range(kind: Any) -> tuple[float, ...]:
    metas = [meta for _, meta in _leaves(kind) if meta is not None and meta.le is not None]
    return (metas[0].ge, metas[0].le) if metas else ()


def description(name: str) -> str:
    """Return what a setting is, with its range."""
    return " ".join(filter(None, (SETTINGS[name].text, range_in_words(_TYPES[name]))))


def _together(settings: Settings) -> Settings:
    if wrong := limits.problem(settings):
        raise InvalidSettingError(*wrong)
    return settings


def _plain(value: object) -> Any:
    if isinstance(value, int | float) and abs(value) > sys.float_info.max:
        return sys.float_info.max if value > 0 else -sys.float_info.max  # ever so many seconds
    return msgspec.to_builtins(value, builtin_types=(bytes, bytearray), enc_hook=os.fspath)


# -- in words --------------------------------------------------------------------------------------


def _leaves(kind: Any, meta: msgspec.Meta | None = None) -> Iterator[tuple[Any, Any]]:
    """Yield each type, or value, that a type consists of, with its range."""
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
    """Return a sentence that says what is wrong with a value, and what is right."""
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
    """Return what is wrong with a setting that has parts, as plain values."""
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
        return f"{words} of {meta.ge:g} at least"
    return f"{words} from {meta.ge:g} to {meta.le:g}"


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str | int | None):
        text = repr(value)
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return f"a value of type {type(value).__name__}"


def _meant(name: str, known: Mapping[str, Any]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
