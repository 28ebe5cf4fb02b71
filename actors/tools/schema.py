"""The JSON Schema of a tool's parameters, and the struct that checks and converts arguments.

The schema uses only what every validator understands: no ``$ref`` except for types that contain
themselves, no ``title``, no ``discriminator``, ``items`` for each array, ``additionalProperties:
false`` for each object with known fields.
"""

from __future__ import annotations

import functools
import inspect
import operator
import re
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from actors.tools.errors import ToolDefinitionError
from actors.tools.output import problem_of

__all__ = ["ABSENT", "arguments_struct", "convert_own", "kind_of", "schema_of"]

ABSENT: Any = object()
"""The value of an argument that the model left out because it has a default."""

_CONSTRAINTS = ("ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length", "pattern")
_REF = "#/$defs/"

Schema = dict[str, Any]


def arguments_struct(
    name: str, parameters: Mapping[str, inspect.Parameter], kinds: Mapping[str, Any]
) -> type[msgspec.Struct]:
    """Return a struct with one field for each parameter that the model fills.

    Raises:
        ToolDefinitionError: If msgspec does not support one of the types.
    """
    fields: list[Any] = []
    try:
        for key, annotation in kinds.items():
            kind = _described(annotation)
            default = parameters[key].default
            if default is inspect.Parameter.empty:
                fields.append((key, kind))
                continue
            if default is None and kind is not Any:
                kind = kind | None
            fields.append((key, kind, msgspec.field(default_factory=_absent)))
        return msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)
    except TypeError as error:
        raise ToolDefinitionError(name, f"its parameters cannot be a struct: {error}") from None


def schema_of(
    name: str, arguments: type[msgspec.Struct], parameters: Mapping[str, inspect.Parameter]
) -> Schema:
    """Return the JSON Schema of the arguments in the form that the service accepts.

    Raises:
        ToolDefinitionError: If a type has no JSON Schema.
    """
    try:
        msgspec.json.Decoder(arguments, dec_hook=convert_own)
        definitions, root = _definitions(arguments)
    except NameError as error:
        raise ToolDefinitionError(
            name,
            f"an annotation inside a type cannot be looked up: {error}; define that type at the "
            f"top level of the module",
        ) from None
    except (TypeError, ValueError) as error:
        problem = re.sub(r"<class '(.*?)'>", r"\1", problem_of(error).splitlines()[-1])
        raise ToolDefinitionError(
            name,
            f"a parameter has a type that JSON cannot represent: {problem}. Use str, int, float, "
            f"bool, Literal, enums, lists, dicts, dataclasses, TypedDict, msgspec structs or "
            f"pydantic models",
        ) from None
    own = _inlined(definitions, root)
    for key, part in own["properties"].items():
        default = parameters[key].default
        if default is not inspect.Parameter.empty:
            _add_default(part, default)
    own.pop("description", None)
    own.setdefault("required", [])
    return own


def convert_own(kind: type, value: Any) -> Any:
    """Convert a JSON value to a pydantic model; msgspec's ``dec_hook``.

    Raises:
        ValueError: If the value does not fit the model.
    """
    validate = getattr(kind, "model_validate_json", None)
    if validate is None:
        raise NotImplementedError(f"{kind.__name__} has no JSON form")
    try:
        return validate(msgspec.json.encode(value))
    except ValueError as error:
        problems = getattr(error, "errors", None)
        if problems is None:
            raise
        words = [_pydantic_words(problem) for problem in problems()[:5]]
        raise ValueError("; ".join(words)) from None


def kind_of(schema: Mapping[str, Any]) -> str:
    """Describe the type that a part of a schema asks for, in a few words."""
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(filter(None, map(kind_of, schema["anyOf"])))
    kind = schema.get("type", "object" if "$ref" in schema else "")
    if kind == "array" and (items := kind_of(schema.get("items", {}))):
        return f"array of {items}"
    if kind == "object" and "properties" in schema:
        return f"object with {', '.join(schema['properties'])}"
    return str(kind)


# -- from annotations to types of msgspec -----------------------------------------------------


def _absent() -> Any:
    return ABSENT


def _described(kind: Any) -> Any:
    """Replace the texts in annotations such as ``Annotated[str, "a city's name"]``, at any depth.

    msgspec only knows `msgspec.Meta` there.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is None or origin is Literal:
        return kind
    if origin is Annotated:
        inner, *notes = arguments
        metas = [meta for note in notes for meta in _metas(note)]
        described = _described(inner)
        return Annotated[(described, *metas)] if metas else described
    if not any(isinstance(part, type) or get_origin(part) is not None for part in arguments):
        return kind
    parts = tuple(
        part if part is Ellipsis or isinstance(part, list) else _described(part)
        for part in arguments
    )
    if parts == arguments:
        return kind
    if origin in (Union, types.UnionType):
        return functools.reduce(operator.or_, parts)
    return origin[parts]


def _metas(note: Any) -> list[msgspec.Meta]:
    """Convert a note in ``Annotated`` (a text, `msgspec.Meta` or `pydantic.Field`) to metas."""
    if isinstance(note, str):
        return [msgspec.Meta(description=note)]
    if isinstance(note, msgspec.Meta):
        return [note]
    found: dict[str, Any] = {}
    description = getattr(note, "description", None) or getattr(note, "documentation", None)
    if isinstance(description, str):
        found["description"] = description
    for part in (note, *(getattr(note, "metadata", None) or ())):
        for constraint in _CONSTRAINTS:  # as annotated-types and pydantic name them
            if isinstance(value := getattr(part, constraint, None), int | float | str):
                found[constraint] = value
    return [msgspec.Meta(**found)] if found else []


def _absolute(kind: type) -> Schema:
    """Return the schema of a pydantic model; msgspec's ``schema_hook`` for types it does not know.

    References get the full name of the type, so that models of the same name do not collide.
    """
    schema = getattr(kind, "model_json_schema", None)
    if schema is None or "pydantic" not in sys.modules:
        raise NotImplementedError(f"{kind.__name__} has no JSON form")
    prefix = f"{kind.__module__}.{kind.__qualname__}."
    found: Schema = schema(ref_template=f"{_REF}{prefix}{{model}}")
    inner = found.pop("$defs", {})
    found["$defs"] = {prefix + key: value for key, value in inner.items()}
    return found


def _pydantic_words(problem: Mapping[str, Any]) -> str:
    place = ".".join(map(str, problem.get("loc", ())))
    text = str(problem.get("msg", "it does not fit"))
    text = text[:1].lower() + text[1:]
    return f"{place}: {text}" if place else text


# -- from msgspec's schema to the service's ---------------------------------------------------


def _definitions(arguments: type[msgspec.Struct]) -> tuple[dict[str, Schema], str]:
    """Return the schemas of the arguments and of each type in them, and the arguments' name."""
    kinds = _field_types(arguments)
    roots, found = msgspec.json.schema_components((arguments, *kinds), schema_hook=_absolute)
    definitions: dict[str, Schema] = dict(found)
    for kind, root in zip(kinds, roots[1:], strict=True):
        _add_descriptions(kind, definitions[root["$ref"].removeprefix(_REF)])
    for definition in list(definitions.values()):
        _hoist(definition, definitions)
    return definitions, roots[0]["$ref"].removeprefix(_REF)


def _field_types(arguments: type[msgspec.Struct]) -> list[type]:
    """Return the structs, dataclasses, … that the arguments contain, each once."""
    from msgspec import inspect as kinds

    with_fields = (
        kinds.StructType,
        kinds.DataclassType,
        kinds.TypedDictType,
        kinds.NamedTupleType,
    )
    found: list[type] = []
    waiting: list[Any] = [field.type for field in kinds.type_info(arguments).fields]  # type: ignore[attr-defined]
    while waiting:
        node = waiting.pop()
        if isinstance(node, with_fields):
            if node.cls in found:
                continue
            found.append(node.cls)
            waiting += [field.type for field in node.fields]
        for name in ("type", "item_type", "key_type", "value_type"):
            inner = getattr(node, name, None)
            if isinstance(inner, kinds.Type):
                waiting.append(inner)
        for name in ("types", "item_types"):
            waiting += getattr(node, name, ())
    return [kind for kind in found if not issubclass(kind, tuple)]  # those have no properties


def _add_descriptions(kind: type, schema: Schema) -> None:
    """Add the descriptions that a class gives its fields: ``Annotated[str, "what it is"]``."""
    hints = get_type_hints(kind, include_extras=True)
    for key, part in schema.get("properties", {}).items():
        for meta in _metas_of(hints.get(key)):
            if meta.description is not None:
                part.setdefault("description", meta.description)


def _metas_of(kind: Any) -> Iterable[msgspec.Meta]:
    while get_origin(kind) not in (None, Annotated):  # Required[...], NotRequired[...]
        kind = get_args(kind)[0] if get_args(kind) else None
    notes = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
    return [meta for note in notes for meta in _metas(note)]


def _hoist(schema: Any, definitions: dict[str, Schema]) -> None:
    """Move the definitions inside a schema to the common ones."""
    if isinstance(schema, dict):
        inner = schema.pop("$defs", None)
        for key, definition in (inner or {}).items():
            definitions[key] = definition
            _hoist(definition, definitions)
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            _hoist(part, definitions)


def _inlined(definitions: Mapping[str, Schema], root: str) -> Schema:
    """Return the root's schema with each reference replaced by its definition.

    Only types that contain themselves remain references.
    """
    kept: dict[str, Schema] = {}
    recursive = {name for name in definitions if name in _reachable(definitions, name)}

    def inline(schema: Schema) -> Schema:
        schema = dict(schema)
        name = str(schema.pop("$ref", "")).removeprefix(_REF)
        if not name:
            return _tidied(_mapped(schema, inline))
        if name not in recursive:
            return {**inline(definitions[name]), **inline(schema)}
        if name not in kept:
            kept[name] = {}
            kept[name] = _tidied(_mapped(definitions[name], inline))
        reference = {"$ref": _REF + name}
        return {"anyOf": [reference], **schema} if schema else reference

    own = inline(definitions[root])
    if kept:
        own["$defs"] = kept
    return own


def _reachable(definitions: Mapping[str, Schema], name: str) -> set[str]:
    found: set[str] = set()
    waiting: list[Any] = [definitions[name]]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            reference = part.get("$ref")
            if isinstance(reference, str) and (key := reference.removeprefix(_REF)) not in found:
                found.add(key)
                waiting.append(definitions[key])
            waiting += [value for key, value in part.items() if key != "discriminator"]
        elif isinstance(part, list):
            waiting += part
    return found


def _mapped(schema: Schema, change: Callable[[Schema], Schema]) -> Schema:
    """Apply a function to each schema directly inside a schema."""
    changed: Schema = {}
    for key, value in schema.items():
        if key in ("properties", "patternProperties"):
            changed[key] = {name: change(part) for name, part in value.items()}
        elif key in ("anyOf", "oneOf", "allOf", "prefixItems"):
            changed[key] = [change(part) for part in value]
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            changed[key] = change(value)
        else:
            changed[key] = value
    return changed


def _tidied(schema: Schema) -> Schema:
    """Return one level of a schema in the form that every validator understands."""
    schema.pop("title", None)
    schema.pop("discriminator", None)
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    if "properties" in schema:
        schema.setdefault("additionalProperties", False)
    if "prefixItems" in schema and not schema.get("items"):
        parts: list[Schema] = []
        for part in schema["prefixItems"]:
            if part not in parts:
                parts.append(part)
        schema["items"] = parts[0] if len(parts) == 1 else {"anyOf": parts}
    if schema.get("type") == "array":
        schema.setdefault("items", {})
    choices = schema.get("enum")
    if choices and all(isinstance(choice, str) for choice in choices):
        schema.setdefault("type", "string")
    elif choices and all(type(choice) is int for choice in choices):
        schema.setdefault("type", "integer")
    return schema


def _add_default(schema: Schema, default: object) -> None:
    try:
        value = msgspec.to_builtins(default, enc_hook=_plain)
        msgspec.json.encode(value)
    except Exception:  # noqa: BLE001 - a default of any type; the model can do without it
        return
    if "$ref" in schema:  # older dialects ignore keys beside a reference
        schema["anyOf"] = [{"$ref": schema.pop("$ref")}]
    schema["default"] = value


def _plain(value: Any) -> object:
    return value.model_dump(mode="json")
