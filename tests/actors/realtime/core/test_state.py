"""Each field of the saved state has one owner: the module that changes it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.realtime.core.state import Saved

REALTIME = Path(__file__).resolve().parents[4] / "actors/realtime"
STATE = ("saved", "_saved")
"""The names under which parts have the state."""
MUTATORS = {"append", "extend", "insert", "pop", "popitem", "remove", "clear", "reverse", "sort"}
MUTATORS |= {"setdefault", "update"}


class Writes:
    """Which fields of the state one function assigns or changes in place.

    What a local name may stand for is followed (``talk = saved.talks[-1]``), in any order and too
    broadly rather than not broadly enough. What is handed to other functions is not.
    """

    def __init__(self, function: ast.AST) -> None:
        self._nodes = list(ast.walk(function))
        self._names: dict[str, set[str]] = {}
        for _ in range(3):  # a name for a name for a field
            for target, value in self._bindings():
                self._bind(target, value)

    def fields(self) -> set[str]:
        found: set[str] = set()
        for node in self._nodes:
            match node:
                case ast.Assign(targets=targets) | ast.Delete(targets=targets):
                    found.update(*map(self._written, targets))
                case ast.AugAssign(target=ast.Name(id=name)):
                    found |= self._names.get(name, set())  # a list is extended in place
                case ast.AugAssign(target=target) | ast.AnnAssign(target=target):
                    found |= self._written(target)
                case ast.Call(func=ast.Attribute(value=value, attr=attr)) if attr in MUTATORS:
                    found |= self._fields_on_the_way_to(value)
        return found

    def _bindings(self) -> Iterator[tuple[ast.expr, ast.expr]]:
        for node in self._nodes:
            match node:
                case ast.Assign(targets=targets, value=value):
                    yield from ((target, value) for target in targets)
                case ast.NamedExpr(target=target, value=value):
                    yield target, value
                case ast.For(target=target, iter=value):
                    yield target, value
                case ast.comprehension(target=target, iter=value):
                    yield target, value

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        match target, value:
            case ast.Tuple(elts=targets), ast.Tuple(elts=values):
                for one, other in zip(targets, values, strict=True):
                    self._bind(one, other)
            case ast.Tuple(elts=targets), _:
                for one in targets:
                    self._bind(one, value)
            case ast.Name(id=name), _:
                fields = self._names.setdefault(name, set())
                for node in ast.walk(value):
                    fields |= self._field(node)

    def _written(self, target: ast.expr) -> set[str]:
        match target:
            case ast.Tuple(elts=targets):
                return set[str]().union(*map(self._written, targets))
            case ast.Attribute() if field := self._field(target):
                return field
            case ast.Attribute(value=value) | ast.Subscript(value=value):
                return self._fields_on_the_way_to(value)
        return set()

    def _fields_on_the_way_to(self, node: ast.expr) -> set[str]:
        """Return what is changed with ``node.x = …``: the fields that it is, or is a part of."""
        if field := self._field(node):
            return field
        match node:
            case ast.Attribute(value=value) | ast.Subscript(value=value):
                return self._fields_on_the_way_to(value)
        return set()

    def _field(self, node: ast.AST) -> set[str]:
        match node:
            case ast.Name(id=name):
                return self._names.get(name, set())
            case ast.Attribute(value=ast.Name(id=owner) | ast.Attribute(attr=owner), attr=field):
                return {field} & set(Saved.__struct_fields__) if owner in STATE else set()
        return set()


def writes(source: str) -> set[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse(source)
    found = [Writes(node).fields() for node in ast.walk(tree) if isinstance(node, functions)]
    return set[str]().union(*found)


def test_each_field_is_changed_by_the_module_that_the_docstring_names_and_by_no_other() -> None:
    owners = {
        field: {module}
        for module, fields in re.findall(r"^ *- (\w+): (.+)$", Saved.__doc__ or "", re.MULTILINE)
        for field in fields.split(", ")
    }

    changed_by: dict[str, set[str]] = {field: set() for field in Saved.__struct_fields__}
    for path in REALTIME.rglob("*.py"):
        for field in writes(path.read_text(encoding="utf-8")):
            changed_by[field].add(path.stem)

    assert changed_by == owners


@pytest.mark.parametrize(
    "line",
    [
        "self.saved.turns = []",
        "self._context.saved.turns.append(1)",
        "saved.turns[0].wanted = False",
        "saved.repeats, saved.turns = 0, []",
        "del saved.turns[2:]",
        "saved.turns += [1]",
        "context, turns = self._context, self._context.saved.turns; turns.pop()",
        "turn = next(t for t in saved.turns if t); turn.wanted = False",
        "for turn in self._saved.turns: turn.wanted = False",
        "if (turn := saved.turns[-1]) is not None: turn.item_id += 'x'",
    ],
)
def test_a_change_is_found_however_it_is_written(line: str) -> None:
    assert "turns" in writes(f"def change(self, saved):\n    {line}")


@pytest.mark.parametrize(
    "line",
    ["turns = list(saved.turns)", "return saved.turns[-1].wanted", "self.turns = 1", "turns.pop()"],
)
def test_what_only_looks_is_no_change(line: str) -> None:
    assert writes(f"def look(self, saved):\n    {line}") == set()
