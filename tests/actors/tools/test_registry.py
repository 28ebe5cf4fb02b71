"""Tools: their schema, the checking of arguments, the form of results."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import functools
import json
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pytest

from actors.tools.output import MAX_OUTPUT, problem_of
from actors.tools.registry import (
    Tool,
    ToolArgumentsError,
    ToolContext,
    ToolDefinitionError,
    ToolError,
    Tools,
    output_of,
)
from messages import Say, SetVolume


class Unit(enum.Enum):
    CELSIUS = "C"
    FAHRENHEIT = "F"


class Place(msgspec.Struct):
    name: str
    height_m: float = 0.0


def tool_of(function: Any, **options: Any) -> Tool:
    return Tools().add(function, description="does it", **options)


def test_decorating_returns_the_function_unchanged() -> None:
    tools = Tools()

    def double(x: int) -> int:
        return 2 * x

    assert tools.action("Doubles.")(double) is double
    assert "double" in tools


def test_the_description_may_be_a_keyword_or_the_docstring() -> None:
    tools = Tools()

    @tools.action(description="by keyword")
    def first() -> None: ...

    @tools.action()
    def second() -> None:
        """Does the second thing.

        Args:
            none: of these concern the model.
        """

    @tools.action
    def third() -> None:
        """Does the third thing."""

    assert [tool.description for tool in tools] == [
        "by keyword",
        "Does the second thing.",
        "Does the third thing.",
    ]


def test_a_tool_without_a_description_is_refused() -> None:
    with pytest.raises(ToolDefinitionError, match="needs a description"):

        @Tools().action()
        def silent() -> None: ...


def test_two_tools_of_one_name_are_refused() -> None:
    tools = Tools()
    tools.action("one", name="same")(lambda: 1)

    with pytest.raises(ToolDefinitionError, match="'same': there is already a tool with this name"):
        tools.action("two", name="same")(lambda: 2)


@pytest.mark.parametrize("name", ["has space", "ümlaut", "a" * 65])
def test_a_name_that_the_service_refuses_is_refused_here(name: str) -> None:
    with pytest.raises(ToolDefinitionError, match="give one with name="):
        Tools().action("x", name=name)(lambda: 1)


def test_the_schema_is_strict_and_complete() -> None:
    def weather(
        city: Annotated[str, "a city's name"],
        days: int = 1,
        unit: Literal["C", "F"] = "C",
    ) -> None: ...

    assert tool_of(weather).schema == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "a city's name"},
            "days": {"type": "integer", "default": 1},
            "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
        },
        "required": ["city"],
        "additionalProperties": False,
    }


def test_a_function_without_parameters_has_an_empty_object() -> None:
    assert tool_of(lambda: 1, name="now").schema == {
        "type": "object",
        "properties": {},
        "required": [],
        "additionalProperties": False,
    }


def test_nested_types_are_strict_too() -> None:
    def visit(place: Place, unit: Unit = Unit.CELSIUS) -> None: ...

    schema = tool_of(visit).schema

    assert schema["properties"]["place"] == {
        "type": "object",
        "properties": {"name": {"type": "string"}, "height_m": {"type": "number", "default": 0.0}},
        "required": ["name"],
        "additionalProperties": False,
    }
    assert schema["properties"]["unit"] == {"type": "string", "enum": ["C", "F"], "default": "C"}
    assert "$defs" not in schema


def test_types_of_an_enclosing_function_are_found() -> None:
    @dataclasses.dataclass
    class Inner:
        x: int

    tools = Tools()

    @tools.action("nested")
    def use(inner: Inner) -> int:
        return inner.x

    positional, named = next(iter(tools)).bind('{"inner": {"x": 3}}')

    assert use(*positional, **named) == 3


def test_the_schema_goes_through_a_message() -> None:
    spec = tool_of(lambda: 1, name="now", response_instruction="briefly").spec

    again = msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=type(spec))

    assert again == spec


class Options(TypedDict, total=False):
    loud: bool


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


def everything(
    text: str,
    number: float,
    points: list[Point],
    table: dict[str, int],
    options: Options,
    unit: Unit,
    either: int | str | None = None,
    *,
    names: set[str] = frozenset(),  # type: ignore[assignment]
    nothing: str = None,  # type: ignore[assignment]  # noqa: RUF013 - as people write it
    free=3,
) -> Any:
    return text, number, points, table, options, unit, either, names, nothing, free


def test_arguments_are_converted_to_the_annotated_types() -> None:
    given = {
        "text": "a",
        "number": 1,
        "points": [{"x": 1}, {"x": 2, "y": 3}],
        "table": {"a": 1},
        "options": {"loud": True},
        "unit": "F",
        "either": "b",
        "names": ["n"],
        "nothing": None,
    }

    positional, named = tool_of(everything).bind(json.dumps(given))

    assert everything(*positional, **named) == (
        "a",
        1.0,
        [Point(1), Point(2, 3)],
        {"a": 1},
        {"loud": True},
        Unit.FAHRENHEIT,
        "b",
        {"n"},
        None,
        3,
    )


def test_positional_only_parameters_are_filled() -> None:
    def add(a: int, b: int = 5, /) -> int:
        return a + b

    positional, named = tool_of(add).bind('{"a": 1}')

    assert add(*positional, **named) == 6


@pytest.mark.parametrize(
    ("text", "number"), [('{"n": 3}', 3), ('{"n": 3.0}', 3), ('{"n": "3"}', 3)]
)
def test_a_number_may_be_written_as_models_write_it(text: str, number: int) -> None:
    def count(n: int) -> None: ...

    assert tool_of(count).bind(text) == ([], {"n": number})


def test_half_of_an_emoji_in_the_arguments_costs_no_call() -> None:
    def note(text: str, times: int = 1) -> None: ...

    arguments = r'{"text": "party \ud83d", "times": "3"}'

    assert tool_of(note).bind(arguments) == ([], {"text": "party \ufffd", "times": 3})


def test_no_arguments_may_be_no_text() -> None:
    assert tool_of(lambda: 1, name="now").bind("") == ([], {})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ('{"days": 1}', "missing required field city"),
        ('{"city": 7}', "city: expected str, got int"),
        ('{"city": "Rome", "days": "many"}', "days: expected int, got str"),
        ('{"city": "Rome", "unit": "K"}', "unit: invalid enum value 'K'"),
        ('{"city": "Rome", "town": 1}', "unknown field town"),
        ('{"city": "Ro', "are not JSON: input data was truncated"),
        ("[]", "expected object, got array"),
    ],
)
def test_wrong_arguments_are_explained_in_words(arguments: str, words: str) -> None:
    def weather(city: str, days: int = 1, unit: Literal["C", "F"] = "C") -> None: ...

    with pytest.raises(ToolArgumentsError, match="weather was not run") as refusal:
        tool_of(weather).bind(arguments)

    assert words in str(refusal.value)
    assert "`" not in str(refusal.value)


def test_wrong_arguments_are_answered_with_what_it_takes() -> None:
    def weather(city: str, unit: Literal["C", "F"] = "C") -> None: ...

    with pytest.raises(ToolArgumentsError) as refusal:
        tool_of(weather).bind("{}")

    assert "It takes city (string), unit (C or F, may be left out)." in str(refusal.value)


@pytest.mark.parametrize(
    "function", [lambda *rest: 1, lambda **rest: 1], ids=["positional", "named"]
)
def test_open_parameter_lists_are_refused(function: Any) -> None:
    with pytest.raises(ToolDefinitionError, match="name each parameter"):
        tool_of(function, name="open")


def test_a_method_without_its_object_is_refused_and_with_it_is_fine() -> None:
    class Thing:
        def use(self, x: int) -> int:
            return x + 1

    with pytest.raises(ToolDefinitionError, match="method of an object"):
        tool_of(Thing.use)

    assert list(tool_of(Thing().use).schema["properties"]) == ["x"]


def test_a_type_that_json_cannot_carry_is_refused_by_name() -> None:
    def send(channel: Tools) -> None: ...

    with pytest.raises(ToolDefinitionError, match=r"JSON cannot represent.*Tools.*Use str, int"):
        tool_of(send)


def test_an_annotation_that_means_nothing_is_refused() -> None:
    def send(to: "Nobody") -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037

    with pytest.raises(ToolDefinitionError, match="Nobody"):
        tool_of(send)


def test_async_functions_are_known_as_such() -> None:
    async def later() -> None: ...

    assert tool_of(later).is_async
    assert not tool_of(lambda: 1, name="now").is_async


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (None, "done"),
        ("as it is", "as it is"),
        ("", ""),
        (3, "3"),
        (True, "true"),
        ([1, 2.5], "[1,2.5]"),
        ({"a": Place("x")}, '{"a":{"name":"x","height_m":0.0}}'),
        (Point(1), '{"x":1,"y":0}'),
        (Unit.CELSIUS, '"C"'),
    ],
)
def test_results_become_text(result: object, text: str) -> None:
    assert output_of(result) == text


def test_a_result_with_model_dump_is_dumped() -> None:
    class Model:
        def model_dump(self, *, mode: str) -> dict[str, str]:
            return {"mode": mode}

    assert output_of(Model()) == '{"mode":"json"}'


def test_a_result_that_is_no_json_is_refused() -> None:
    with pytest.raises(ToolError, match="of type object, cannot be written as JSON"):
        output_of(object())


# -- what can be a tool -----------------------------------------------------------------------


def test_callables_of_every_kind_are_tools() -> None:
    class Adder:
        def __init__(self, base: int) -> None:
            self.base = base

        def __call__(self, x: int) -> int:
            """Adds."""
            return self.base + x

        async def later(self, x: int) -> int:
            """Adds later."""
            return self.base + x

        @staticmethod
        def plain(x: int) -> int:
            return x

        @classmethod
        def of_class(cls, x: int) -> int:
            return x

    tools = Tools()
    adder = Adder(3)
    tools.add(adder, name="adder")
    tools.add(adder.later)
    tools.add(Adder.plain, description="plain")
    tools.add(Adder.of_class, description="of the class")

    assert [tool.name for tool in tools] == ["adder", "later", "plain", "of_class"]
    assert [tool.is_async for tool in tools] == [False, True, False, False]
    assert all(list(tool.schema["properties"]) == ["x"] for tool in tools)
    positional, named = tools.get("adder").bind('{"x": "4"}')  # type: ignore[union-attr]
    assert adder(*positional, **named) == 7


def test_what_a_partial_has_filled_is_not_for_the_model_to_see() -> None:
    async def fetch(key: str, url: str, depth: int = 2) -> str:
        """Fetches."""
        return f"{key} {url} {depth}"

    tool = Tools().add(functools.partial(fetch, key="sk-canary"))

    assert tool.name == "fetch"
    assert tool.is_async
    assert "canary" not in json.dumps(tool.schema)
    assert list(tool.schema["properties"]) == ["url", "depth"]
    positional, named = tool.bind('{"url": "u"}')
    assert asyncio.run(tool.function(*positional, **named)) == "sk-canary u 2"


def test_a_wrapped_function_is_known_by_what_it_wraps() -> None:
    def logged(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    @logged
    def double(point: Point) -> int:
        """Doubles."""
        return 2 * point.x

    positional, named = tool_of(double).bind('{"point": {"x": 2}}')

    assert double(*positional, **named) == 4


def test_the_annotation_of_the_result_does_not_matter() -> None:
    def save(text: str) -> NotImportedHere:  # type: ignore[name-defined]  # noqa: F821
        return None

    assert list(tool_of(save).schema["properties"]) == ["text"]


def test_a_parameter_without_annotation_has_the_type_of_its_default() -> None:
    def wait(seconds=1.5, times=2, loud=False, name="x"): ...

    kinds = [part["type"] for part in tool_of(wait).schema["properties"].values()]

    assert kinds == ["number", "integer", "boolean", "string"]


@pytest.mark.parametrize("function", [lambda city: 1, lambda city=None: 1, lambda city=(): 1])
def test_a_parameter_of_which_nothing_is_known_is_refused(function: Any) -> None:
    with pytest.raises(ToolDefinitionError, match="annotate it, such as city: str"):
        tool_of(function, name="look")


def test_what_yields_and_what_is_a_class_are_refused() -> None:
    def numbers():
        yield 1

    async def letters():
        yield "a"

    for function in (numbers, letters):
        with pytest.raises(ToolDefinitionError, match="it yields"):
            tool_of(function)
    with pytest.raises(ToolDefinitionError, match="a class is not a tool"):
        tool_of(Point)
    with pytest.raises(ToolDefinitionError, match="is not a function"):
        tool_of("text", name="text")


def test_a_type_beside_the_tool_is_found_without_a_decorator() -> None:
    @dataclasses.dataclass
    class Local:
        x: int

    def use(local: Local) -> int:
        return local.x

    tool = Tools().add(use, description="uses")

    assert tool.bind('{"local": {"x": 1}}') == ([], {"local": Local(1)})


# -- the context ------------------------------------------------------------------------------


def test_a_context_is_passed_wherever_it_stands_and_is_not_in_the_schema() -> None:
    def first(context: ToolContext, x: int) -> None: ...
    def positional(x: int, context: ToolContext, /) -> None: ...
    def named(x: int, *, context: ToolContext | None = None) -> None: ...
    def noted(x: int, context: Annotated[ToolContext, "not for the model"]) -> None: ...

    for function in (first, positional, named, noted):
        tool = tool_of(function)
        context = ToolContext("call_1", tool.name, lambda _: None)

        args, kwargs = tool.bind('{"x": 1}', context)

        assert list(tool.schema["properties"]) == ["x"]
        assert context in (*args, *kwargs.values())
        with pytest.raises(ToolArgumentsError, match="unknown field context"):
            tool.bind('{"x": 1, "context": {}}', context)


def test_a_context_speaks_and_sends_until_it_is_cancelled() -> None:
    sent: list[Any] = []
    context = ToolContext("call_1", "look", sent.append)

    context.say("One moment.")
    context.say(" ")
    context.send(SetVolume(0.5))
    assert not context.wait_cancelled(0)
    context.cancel()
    context.say("Too late.")

    assert sent == [Say("One moment."), SetVolume(0.5)]
    assert context.cancelled
    assert context.wait_cancelled(10)
    with pytest.raises(TypeError, match="give say"):
        context.say(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="give send"):
        context.send("text")  # type: ignore[arg-type]


# -- sets of tools ----------------------------------------------------------------------------


def test_sets_of_tools_are_joined_and_tools_removed() -> None:
    ours, theirs = Tools(), Tools()
    ours.action("a", name="a")(lambda: 1)
    theirs.action("b", name="b")(lambda: 2)

    ours.include(theirs)
    ours.remove("a")

    assert [tool.name for tool in ours] == ["b"]
    with pytest.raises(ToolDefinitionError, match="both sets have a tool of this name"):
        ours.include(theirs)
    with pytest.raises(ToolError, match="no tool named 'a'; there are: b"):
        ours.remove("a")


# -- results that are hard to tell ------------------------------------------------------------


def test_a_huge_result_is_cut_off_and_says_so() -> None:
    output = output_of("x" * 1_000_000)

    assert len(output) < MAX_OUTPUT + 100
    assert output.endswith(f"[cut off: the first {MAX_OUTPUT} of 1000000 characters]")


def test_text_that_utf_8_cannot_carry_is_mended() -> None:
    assert output_of("a\ud800b") == "a?b"
    assert problem_of(OSError("bad name \udcff")) == "bad name ?"


def test_bytes_are_text_or_refused() -> None:
    assert output_of("é".encode()) == "é"
    with pytest.raises(ToolError, match="2 bytes that are not UTF-8"):
        output_of(b"\xff\xfe")


def test_arrays_of_numpy_are_lists() -> None:
    numpy = pytest.importorskip("numpy")

    assert output_of({"a": numpy.arange(3), "b": numpy.float32(0.5)}) == '{"a":[0,1,2],"b":0.5}'


def test_an_exception_while_a_result_is_written_is_reported() -> None:
    class Model:
        def model_dump(self, *, mode: str) -> object:
            raise RuntimeError("the database is gone")

    with pytest.raises(ToolError, match="the database is gone"):
        output_of(Model())


def test_an_exception_that_cannot_be_printed_is_named() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert problem_of(MuteError()) == "MuteError"
