#!/usr/bin/env python3
"""Write docs/reference.md from the signatures and docstrings of the public names.

python scripts/reference.py          writes it
python scripts/reference.py --check  fails if it is out of date
"""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import re
import sys
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
from messages import Price, Settings  # noqa: E402 - found only now
from messages.validation import description, range_in_words  # noqa: E402
from rtvoice.description import Changes  # noqa: E402

_CHANGES = Changes.__annotations__
PATH = ROOT / "docs" / "reference.md"

_HEAD = """\
# Reference

All public names, written by `python scripts/reference.py` from the docstrings; examples are in the
[guide](guide.md).

A quantity has its unit in its name or beside it: `_s` seconds, `_ms` milliseconds, `_ns`
nanoseconds of `time.monotonic_ns()`. Audio is 16-bit little-endian mono PCM at 24 kHz, unless
stated otherwise.
"""

_SECTIONS: tuple[tuple[str, str, str, str], ...] = (
    (
        "The agent",
        "rtvoice",
        "All these are in `rtvoice`.",
        """
        Agent Sent Tools Tool ToolContext EventBus Subscription EventStream retirement_of
        Retirement
        """,
    ),
    (
        "Errors",
        "rtvoice.errors",
        "All these are in `rtvoice.errors` and in `rtvoice`.",
        "",
    ),
    ("Views", "rtvoice.views", "All these are in `rtvoice.views` and in `rtvoice`.", ""),
    (
        "Devices",
        "rtvoice.audio.devices",
        "All these are in `rtvoice.audio.devices`, in `rtvoice.audio` and in `rtvoice`.",
        "",
    ),
    ("Telephone audio", "rtvoice.audio.mulaw", "All these are in `rtvoice.audio.mulaw`.", ""),
    ("Events", "rtvoice.events", "All these are in `rtvoice.events` and in `rtvoice`.", ""),
    ("Cost", "rtvoice.prices", "All these are in `rtvoice.prices` and in `rtvoice`.", ""),
    (
        "A service",
        "rtvoice.service",
        'All these are in `rtvoice.service`, which needs `pip install "rtvoice[service]"`.',
        "",
    ),
    (
        "A fleet",
        "rtvoice.fleet",
        'All these are in `rtvoice.fleet`, which needs `pip install "rtvoice[service]"`.',
        "Engine EngineError Fleet HostRow SessionRow StoreError open_store",
    ),
    (
        "A page",
        "rtvoice.web",
        'It is in `rtvoice.web`, which needs `pip install "rtvoice[web]"`.',
        "",
    ),
    (
        "Traces",
        "rtvoice.tracing",
        'All these are in `rtvoice.tracing`, which needs `pip install "rtvoice[service]"`.',
        "Trace trace",
    ),
    ("Testing", "rtvoice.testing", "All these are in `rtvoice.testing`.", ""),
    (
        "Session",
        "supervisor",
        "The same conversation for programs without asyncio: `from supervisor import Session`.",
        "Session",
    ),
    (
        "Settings",
        "messages",
        "What `Session` takes as keywords.",
        "Settings",
    ),
)
_ONLY: dict[str, tuple[str, ...]] = {
    "EventBus": ("subscribe", "unsubscribe", "publish"),
    "EventStream": ("close",),
    "Subscription": ("unsubscribe",),
    "ToolContext": ("cancelled", "wait_cancelled", "say", "send"),
    "Sent": (),
}
"""Public members of classes that only rtvoice instantiates."""
_PARTS = re.compile(r"^(Args|Raises|Returns|Attributes|Example|Yields|Optional):\s*$")
_SHOWN_AS = {"Args": "Takes", "Raises": "Raises", "Returns": "Returns", "Attributes": "Has"}
_WIDTH = 96


def reference() -> str:
    """Return the whole document."""
    return _HEAD + "".join(_section(*section) for section in _SECTIONS)


def names_of(module: str, names: str) -> list[str]:
    """Return the names of a module that a section describes."""
    return names.split() or list(importlib.import_module(module).__all__)


def _section(title: str, module: str, words: str, names: str) -> str:
    found = importlib.import_module(module)
    parts = [f"\n## {title}\n\n{words}\n"]
    parts += [_described(name, getattr(found, name)) for name in names_of(module, names)]
    return "".join(parts)


def _described(name: str, thing: Any) -> str:
    text = f"\n### {name}\n\n"
    if isinstance(thing, types.GenericAlias):
        return text + f"Another name for `{thing}`.\n"
    if isinstance(thing, Mapping):
        return text + _prices(thing)
    if not inspect.isclass(thing):
        return text + _callable(name, thing)
    if issubclass(thing, enum.Enum):
        members = "\n".join(
            f"| `{one}` | `{value.value}` |" for one, value in thing.__members__.items()
        )
        return text + f"{_doc(thing)}\n| | |\n|---|---|\n{members}\n"
    if issubclass(thing, msgspec.Struct):
        return text + _struct(thing) + _members(thing)
    init = _namespace(thing).get("__init__")
    if name in _ONLY or issubclass(thing, Exception):
        return text + _doc(thing) + _members(thing)
    if init is not None:
        text += _signature(name, init)
    text += _doc(thing)
    if init is not None and init.__doc__:
        text += "\n" + _doc(init)
    return text + _members(thing)


def _prices(table: Mapping[str, Sequence[Price]]) -> str:
    """Return the table of prices, with a row for each model and day."""
    names = [name for name in Price.__struct_fields__ if name != "since"]
    head = "".join(f" `{name}` |" for name in names)
    rows = [
        f"| {model} | {price.since} |" + "".join(f" {getattr(price, name):g} |" for name in names)
        for model, prices in table.items()
        for price in prices
    ]
    words = "US dollars per million tokens; see `messages/prices.py` for the source.\n\n"
    return (
        f"{words}| model | since |{head}\n|{'---|' * (len(names) + 2)}\n" + "\n".join(rows) + "\n"
    )


def _callable(name: str, thing: Any) -> str:
    thing = getattr(thing, "__wrapped__", thing)
    if not inspect.isfunction(thing):  # a fixture of pytest
        thing = getattr(thing, "_fixture_function", thing)
    signature = _signature(name, thing) if inspect.isfunction(thing) else ""
    return signature + _doc(thing)


def _struct(kind: type[msgspec.Struct]) -> str:
    text = _doc(kind)
    tag = kind.__struct_config__.tag
    if isinstance(tag, str) and "." in tag:
        text += f"\nIn the Realtime API: `{tag}`.\n"
    documented = dict(_field_docs(kind))
    rows = []
    for field in msgspec.structs.fields(kind):
        annotation, words = documented.get(field.name, ("", ""))
        if get_origin(field.type) is Annotated or "Annotated" in annotation:
            annotation = _annotation(field.type)
        if kind is Settings:
            words = description(field.name)
        elif extent := range_in_words(field.type):
            words = f"{words} {extent}"
        default = "" if field.required else f" = {_default_of(field)}"
        shown = f"{field.name}: {annotation}{default}".replace("|", "\\|")
        rows.append(f"| `{shown}` | {' '.join(_plain(words).split())} |\n")
    return text + ("\n| field | |\n|---|---|\n" + "".join(rows) if rows else "")


def _annotation(kind: Any) -> str:
    """Return a type as source text, without the metadata of `Annotated`."""
    if get_origin(kind) is Annotated:
        return _annotation(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return " | ".join(map(_annotation, get_args(kind)))
    if kind in (None, type(None)):
        return "None"
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else _named(repr(kind))


def _named(text: str) -> str:
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", text)


def _default_of(field: msgspec.structs.FieldInfo) -> str:
    if isinstance(field.default, msgspec.Struct):
        return f"{type(field.default).__name__}()"
    if field.default_factory is not msgspec.NODEFAULT:
        return repr(field.default_factory())
    return repr(field.default)


def _field_docs(kind: type[Any]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield name, annotation and docstring of each field, those of base classes first."""
    for one in reversed(kind.__mro__):
        if one.__module__.partition(".")[0] not in ("rtvoice", "messages", "actors"):
            continue
        body = _body(one)
        for number, node in enumerate(body):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                yield node.target.id, (ast.unparse(node.annotation), _text_after(body, number))


def _body(kind: type[Any]) -> list[ast.stmt]:
    node = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(node, ast.ClassDef)
    return node.body


def _text_after(body: list[ast.stmt], number: int) -> str:
    match body[number + 1 : number + 2]:
        case [ast.Expr(ast.Constant(str(text)))]:
            return text
    return ""


def _members(kind: type[Any]) -> str:
    """Describe the public methods and properties of a class."""
    parts = []
    for name, thing in _namespace(kind).items():
        if name.startswith("_") or name not in _ONLY.get(kind.__name__, (name,)):
            continue
        if isinstance(thing, property) and thing.fget is not None and thing.fget.__doc__:
            returned = inspect.signature(thing.fget).return_annotation
            parts.append(f"\n#### {kind.__name__}.{name}\n\n`{name}: {returned}`\n\n")
            parts.append(_doc(thing.fget))
        elif inspect.isfunction(thing) and thing.__doc__:
            parts.append(f"\n#### {kind.__name__}.{name}\n\n{_signature(name, thing)}{_doc(thing)}")
    return "".join(parts)


def _namespace(kind: type[Any]) -> dict[str, Any]:
    """Return the attributes of a class, with those of its base in `rtvoice.description`.

    That base is not public, so its attributes are described with the class.
    """
    known = {**kind.__dict__}
    for base in kind.__mro__[1:]:
        if base.__module__ == "rtvoice.description":
            known = {
                **known,
                **{name: base.__dict__[name] for name in base.__dict__ - known.keys()},
            }
    return known


def _signature(name: str, function: Any) -> str:
    signature = inspect.signature(function)
    shown = [each for each in _parameters(signature) if each]
    if shown[:1] == ["self"]:
        del shown[0]
    returned = signature.return_annotation
    end = "" if returned in (inspect.Signature.empty, "None") else f" -> {returned}"
    prefix = "async " if inspect.iscoroutinefunction(function) else ""
    line = f"{prefix}{name}({', '.join(shown)}){end}"
    if len(line) > _WIDTH:
        inside = "".join(f"    {each},\n" for each in shown)
        line = f"{prefix}{name}(\n{inside}){end}"
    return f"```text\n{line}\n```\n\n"


def _parameters(signature: inspect.Signature) -> Iterator[str]:
    starred = False
    for parameter in signature.parameters.values():
        if parameter.annotation == "Never":  # accepted only to raise a helpful error
            continue
        if str(parameter.annotation) == "Unpack[Changes]":
            yield "*"
            yield from (f"{name}: {_written(kind)} = ..." for name, kind in _CHANGES.items())
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            starred = True
        elif parameter.kind is parameter.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        yield _parameter(parameter)


def _written(kind: Any) -> str:
    return str(getattr(kind, "__forward_arg__", kind))


def _parameter(parameter: inspect.Parameter) -> str:
    text = parameter.name
    if parameter.kind is parameter.VAR_POSITIONAL:
        text = f"*{text}"
    elif parameter.kind is parameter.VAR_KEYWORD:
        text = f"**{text}"
    if parameter.annotation is not parameter.empty:
        text += f": {parameter.annotation}"
    if parameter.default is not parameter.empty:
        default = "..." if callable(parameter.default) else _value(parameter.default)
        text += f" = {default}" if ":" in text else f"={default}"
    return text


def _value(value: object) -> str:
    if isinstance(value, msgspec.Struct):
        return f"{type(value).__name__}()"
    return repr(value.value) if isinstance(value, enum.Enum) else repr(value)


# -- docstrings ------------------------------------------------------------------------------------


def _doc(thing: Any) -> str:
    """Return a docstring as Markdown: its sections become lists, its examples are left out."""
    lines = (inspect.getdoc(thing) or "").splitlines()
    parts: list[str] = []
    while lines:
        heading = _PARTS.match(lines[0])
        if heading is None:
            parts.append(lines.pop(0))
            continue
        del lines[0]
        inside = []
        while lines and (not lines[0].strip() or lines[0][0] == " "):
            inside.append(lines.pop(0))
        if heading[1] == "Optional":
            parts += ["Optional:", *textwrap.dedent("\n".join(inside)).splitlines()]
        elif heading[1] in _SHOWN_AS:
            parts += [f"{_SHOWN_AS[heading[1]]}:", "", *_listed(heading[1], inside), ""]
    text = re.sub(r"\n{3,}", "\n\n", _plain("\n".join(parts))).strip()
    return f"{text}\n" if text else ""


def _listed(heading: str, lines: list[str]) -> list[str]:
    text = textwrap.dedent("\n".join(lines)).strip()
    if heading == "Returns":
        return [f"- {' '.join(text.split())}"]
    entries = re.split(r"\n(?=\S)", text)
    listed = []
    for entry in entries:
        name, colon, words = entry.partition(":")
        words = " ".join(words.split())
        listed.append(f"- `{name}`: {words}" if colon else f"- {' '.join(entry.split())}")
    return [entry for entry in listed if not entry.startswith(("- `unknown`", "- `fixed`"))]


def _plain(text: str) -> str:
    return re.sub(r"``(.+?)``", r"`\1`", text, flags=re.DOTALL)


def main() -> int:
    """Write or check the document; return the exit code."""
    text = reference()
    if "--check" in sys.argv[1:]:
        if PATH.read_text(encoding="utf-8") == text:
            return 0
        print("docs/reference.md is out of date: run python scripts/reference.py", file=sys.stderr)
        return 1
    PATH.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
