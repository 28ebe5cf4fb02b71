"""The schema of a tool agrees with the check of its arguments."""

from __future__ import annotations

import dataclasses
import enum
import json
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from actors.tools.registry import Tool, ToolArgumentsError, ToolDefinitionError, Tools

jsonschema = pytest.importorskip("jsonschema")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Place(msgspec.Struct):
    name: Annotated[str, "as on a map"]
    near: list[Place] = []


class Circle(msgspec.Struct, tag="circle"):
    radius: Annotated[float, msgspec.Meta(ge=0)]


class Square(msgspec.Struct, tag="square"):
    side: float


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0
    label: str | None = None


class Options(TypedDict):
    loud: Annotated[bool, "whether it may be heard next door"]
    times: NotRequired[int]


class Pair(NamedTuple):
    left: int
    right: str


ANNOTATIONS: list[Any] = [
    str,
    int,
    float,
    bool,
    None,
    Any,
    int | None,
    str | int | list[bool],
    Literal["a", "b", 3],
    Colour,
    Level,
    list,
    list[int],
    dict,
    dict[str, float],
    tuple[int, str],
    tuple[int, ...],
    set[str],
    frozenset[int],
    Place,
    Point,
    Options,
    Pair,
    Circle | Square,
    list[Point | None],
    Annotated[int, msgspec.Meta(ge=1, le=9)],
    Annotated[str, msgspec.Meta(min_length=2, max_length=3)],
    list[Annotated[str, "a name"]],
]

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 12),
    st.floats(allow_nan=False, allow_infinity=False, width=16),
    st.sampled_from(["", "a", "b", "red", "blue", "circle", "square", "abc", "7", "true"]),
)
KEYS = st.sampled_from(
    ["name", "near", "x", "y", "label", "loud", "times", "type", "radius", "side", "other"]
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def tool_with(annotation: Any, default: Any = ...) -> Tool:
    def use(value: Any) -> Any:
        return value

    use.__annotations__ = {"value": annotation}
    if default is not ...:
        use.__defaults__ = (default,)
    return Tools().add(use, description="uses it")


TOOLS = [tool_with(annotation) for annotation in ANNOTATIONS]
VALIDATORS = [jsonschema.Draft202012Validator(tool.schema) for tool in TOOLS]
KINDS = st.sampled_from(range(len(TOOLS)))


def fitting(schema: dict[str, Any], root: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return values that a schema asks for, most of the time."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        return st.deferred(lambda: fitting(root["$defs"][name], root))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of([fitting(part, root) for part in schema["anyOf"]])
    match schema.get("type"):
        case "object" if "properties" in schema:
            parts = {key: fitting(part, root) for key, part in schema["properties"].items()}
            needed = {key: part for key, part in parts.items() if key in schema["required"]}
            optional = {key: part for key, part in parts.items() if key not in needed}
            return st.fixed_dictionaries(needed, optional=optional)
        case "object":
            return st.dictionaries(KEYS, LEAVES, max_size=2)
        case "array" if "prefixItems" in schema:
            return st.tuples(*(fitting(part, root) for part in schema["prefixItems"])).map(list)
        case "array":
            return st.lists(fitting(schema["items"], root), max_size=2)
    return LEAVES


@hypothesis_settings(max_examples=300, deadline=None)
@given(st.data(), KINDS)
def test_what_fits_the_schema_is_bound(data: st.DataObject, kind: int) -> None:
    tool, validator = TOOLS[kind], VALIDATORS[kind]
    value = data.draw(JSON | fitting(tool.schema["properties"]["value"], tool.schema))
    given_arguments = {"value": value}

    if validator.is_valid(given_arguments):
        tool.bind(json.dumps(given_arguments))


@hypothesis_settings(max_examples=300, deadline=None)
@given(st.data(), KINDS)
def test_what_is_bound_fits_the_schema(data: st.DataObject, kind: int) -> None:
    tool, validator = TOOLS[kind], VALIDATORS[kind]
    value = data.draw(JSON | fitting(tool.schema["properties"]["value"], tool.schema))

    try:
        _, named = tool.bind(json.dumps({"value": value}))
    except ToolArgumentsError:
        return
    validator.validate(json.loads(msgspec.json.encode(named)))


@hypothesis_settings(max_examples=200, deadline=None)
@given(JSON, KINDS)
def test_whatever_the_model_writes_is_bound_or_refused_in_words(value: Any, kind: int) -> None:
    for text in (json.dumps({"value": value}), json.dumps(value), json.dumps(value)[:-1]):
        try:
            TOOLS[kind].bind(text)
        except ToolArgumentsError as error:
            assert str(error).startswith("use was not run, its arguments ")  # noqa: PT017


@pytest.mark.parametrize("kind", range(len(ANNOTATIONS)), ids=map(str, ANNOTATIONS))
def test_each_schema_is_one_that_every_validator_understands(kind: int) -> None:
    schema = TOOLS[kind].schema
    jsonschema.Draft202012Validator.check_schema(schema)

    def walk(part: Any) -> None:
        if isinstance(part, list):
            for inner in part:
                walk(inner)
        if isinstance(part, dict):
            assert not {"title", "discriminator", "const"} & set(part)
            if part.get("type") == "array":
                assert isinstance(part["items"], dict)
            if isinstance(part.get("properties"), dict) and part.get("type") == "object":
                assert part["additionalProperties"] is False
            if "$ref" in part:
                assert part["$ref"].removeprefix("#/$defs/") in schema["$defs"]
                assert len(part) == 1
            for inner in part.values():
                walk(inner)

    walk(schema)
    assert schema["type"] == "object"


def test_only_types_that_contain_themselves_are_referred_to() -> None:
    def visit(place: Place, point: Point, again: Point) -> None: ...

    schema = Tools().add(visit, description="visits").schema

    assert list(schema["$defs"]) == ["Place"]
    assert schema["properties"]["place"] == {"$ref": "#/$defs/Place"}
    assert schema["properties"]["point"] == schema["properties"]["again"]


def test_descriptions_count_at_any_depth() -> None:
    def visit(place: Place, options: Options, names: list[Annotated[str, "a name"]]) -> None: ...

    schema = Tools().add(visit, description="visits").schema

    assert schema["$defs"]["Place"]["properties"]["name"]["description"] == "as on a map"
    loud = schema["properties"]["options"]["properties"]["loud"]
    assert loud["description"] == "whether it may be heard next door"
    assert schema["properties"]["names"]["items"]["description"] == "a name"


def test_a_parameter_may_have_the_name_of_its_tool_and_of_a_type() -> None:
    def Point_(point: Point) -> None: ...  # noqa: N802

    tool = Tools().add(Point_, description="x", name="Point")

    assert tool.schema["properties"]["point"]["properties"]["x"] == {"type": "integer"}
    assert tool.bind('{"point": {"x": 1}}') == ([], {"point": Point(1)})


def test_a_default_that_is_not_json_is_not_in_the_schema() -> None:
    tool = tool_with(int, default=object())

    assert tool.schema["properties"]["value"] == {"type": "integer"}


def test_a_type_that_names_what_is_not_there_is_refused() -> None:
    @dataclasses.dataclass
    class Lost:
        other: Nowhere  # type: ignore[name-defined]  # noqa: F821

    def use(lost: Lost) -> None: ...

    with pytest.raises(ToolDefinitionError, match="Nowhere"):
        Tools().add(use, description="x")


# -- pydantic ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weather() -> Tool:
    pydantic = pytest.importorskip("pydantic")

    class Window(pydantic.BaseModel):
        hours: int = pydantic.Field(3, ge=1, le=48, description="from now")

    class Question(pydantic.BaseModel):
        city: str = pydantic.Field(min_length=2)
        window: Window = Window()
        kind: Literal["rain"] = "rain"

    def ask(
        question: Question,
        more: list[Question],
        window: Window | None = None,
        days: Annotated[int, pydantic.Field(ge=1, description="how many")] = 1,
    ) -> str:
        return f"{question.city} {question.window.hours} {len(more)} {window} {days}"

    return Tools().add(ask, description="asks")


def test_pydantic_models_are_taken(weather: Tool) -> None:
    given_arguments = {"question": {"city": "Rome", "window": {"hours": 5}}, "more": []}

    _, named = weather.bind(json.dumps(given_arguments))

    assert weather.function(**named) == "Rome 5 0 None 1"


def test_the_schema_of_a_pydantic_model_is_complete(weather: Tool) -> None:
    properties = weather.schema["properties"]

    assert "$defs" not in weather.schema
    assert "$ref" not in json.dumps(weather.schema)
    question = properties["question"]
    assert question["additionalProperties"] is False
    assert question["properties"]["city"] == {"type": "string", "minLength": 2}
    hours = question["properties"]["window"]["properties"]["hours"]
    assert (hours["minimum"], hours["maximum"], hours["description"]) == (1, 48, "from now")
    assert question["properties"]["kind"]["enum"] == ["rain"]
    assert properties["days"] == {
        "type": "integer",
        "minimum": 1,
        "description": "how many",
        "default": 1,
    }


def test_what_a_pydantic_model_refuses_is_explained_in_words(weather: Tool) -> None:
    given_arguments = {"question": {"city": "R", "window": {"hours": 0}}, "more": []}

    with pytest.raises(ToolArgumentsError) as refusal:
        weather.bind(json.dumps(given_arguments))

    text = str(refusal.value)
    assert "question: city: string should have at least 2 characters" in text
    assert "window.hours: input should be greater than or equal to 1" in text


def test_a_pydantic_model_that_contains_itself_is_referred_to() -> None:
    pydantic = pytest.importorskip("pydantic")
    namespace: dict[str, Any] = {"BaseModel": pydantic.BaseModel}
    exec("class Node(BaseModel):\n    children: list['Node'] = []", namespace)
    tool = tool_with(namespace["Node"])

    jsonschema.Draft202012Validator(tool.schema).validate({"value": {"children": [{}]}})
    assert tool.bind('{"value": {"children": [{}]}}')[1]["value"].children[0].children == []
