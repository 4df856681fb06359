# SPDX-License-Identifier: AGPL-3.0-or-later
"""From a typed function to its contract: JSON Schemas, and a Struct that decodes arguments strictly.

Annotations are read once, when a tool is loaded; nothing of that is repeated per call. A function that can't be a tool
raises `ContractError`, which says what its author has to change. Schemas are JSON Schema 2020-12.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin

import msgspec

from actors.tool_messages import Shape
from actors.toolkit import ContentBlock, ToolContext

JsonSchema = dict[str, Any]


class ContractError(Exception):
    """This function can't be a tool, for the reason given; for whoever wrote it."""


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """What follows from a function's signature and docstring."""

    description: str
    arguments: type[msgspec.Struct]
    """One field per parameter, in the parameters' order; unknown ones are refused."""
    context_at: int | None
    """Position of the `ToolContext` parameter among all."""
    keyword_only: int
    """How many parameters at the end can only be given by name."""
    input_schema: JsonSchema
    output_schema: JsonSchema | None
    shape: Shape
    returns: Any


def contract_of(function: Callable[..., Any], *, description: str = "", shape: Shape | None = None) -> Contract:
    """Read a function's contract. Raises `ContractError`.

    `description`: instead of the docstring's. `shape`: of a result that has no schema of its own.
    """
    signature = inspect.signature(function)
    hints = _hints(function)
    first_paragraph, documented = parse_docstring(inspect.getdoc(function) or "")
    description = description or first_paragraph
    if not description:
        raise ContractError("it needs a docstring: its first paragraph tells clients what the tool does")
    if "return" not in hints:
        raise ContractError("it needs a return annotation")
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    context_at: int | None = None
    keyword_only = 0
    for position, parameter in enumerate(signature.parameters.values()):
        annotation = _annotation(parameter, hints)
        if bare(annotation) is ToolContext:
            if context_at is not None:
                raise ContractError("it has two ToolContext parameters")
            if parameter.kind is parameter.KEYWORD_ONLY:
                raise ContractError("its ToolContext parameter must come before the `*`")
            context_at = position
            continue
        keyword_only += parameter.kind is parameter.KEYWORD_ONLY
        fields.append(_field(parameter, annotation))
    unknown = sorted(set(documented) - {field[0] for field in fields} - set(signature.parameters))
    if unknown:
        raise ContractError(f"its docstring describes {', '.join(unknown)}, which it does not take")
    arguments = _arguments_struct(function.__name__, fields)
    known = shape or shape_of(hints["return"])
    return Contract(
        description=description,
        arguments=arguments,
        context_at=context_at,
        keyword_only=keyword_only,
        input_schema=_input_schema(arguments, documented, signature),
        output_schema=None if shape else _output_schema(hints["return"], known),
        shape=known,
        returns=hints["return"],
    )


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception as error:
        raise ContractError(f"its annotations can't be read: {error}") from error


def _annotation(parameter: inspect.Parameter, hints: dict[str, Any]) -> Any:  # noqa: ANN401 - an annotation
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
        raise ContractError(
            f"its parameter {stars}{parameter.name} has no fixed meaning; list the parameters one by one"
        )
    if parameter.name not in hints:
        raise ContractError(f"its parameter {parameter.name} needs an annotation")
    return hints[parameter.name]


def _field(parameter: inspect.Parameter, annotation: object) -> tuple[str, Any] | tuple[str, Any, Any]:
    if ToolContext in get_args(annotation):
        raise ContractError(f"its parameter {parameter.name} must be annotated ToolContext and nothing else")
    try:
        json_schema(annotation)
    except ContractError as error:
        raise ContractError(f"its parameter {parameter.name}: {error}") from error
    if parameter.default is parameter.empty:
        return parameter.name, annotation
    default = parameter.default
    _check_default(parameter.name, annotation, default)
    try:
        hash(default)
    except TypeError:
        # It can be changed, so each call gets one of its own.
        return parameter.name, annotation, msgspec.field(default_factory=lambda: copy.deepcopy(default))
    return parameter.name, annotation, default


def _check_default(name: str, annotation: Any, default: object) -> None:  # noqa: ANN401 - an annotation
    if default is msgspec.UNSET:
        return
    try:
        msgspec.convert(msgspec.to_builtins(default), annotation)
    except (TypeError, ValueError) as error:
        hint = "; annotate it `... | None`" if default is None else ""
        raise ContractError(
            f"the default of its parameter {name} does not fit the annotation ({error}){hint}"
        ) from error


def _arguments_struct(name: str, fields: list[Any]) -> type[msgspec.Struct]:
    try:
        # Keyword-only fields may follow in any order, with and without defaults, as parameters after a `*` may.
        struct = msgspec.defstruct(
            f"{name}_arguments", fields, forbid_unknown_fields=True, kw_only=True, frozen=True, gc=False
        )
        msgspec.json.Decoder(struct)
    except TypeError as error:
        raise ContractError(f"its parameters can't be expressed in JSON: {error}") from error
    return struct


# --- schemas -------------------------------------------------------------------------------------------------------


def json_schema(annotation: Any) -> JsonSchema:  # noqa: ANN401 - an annotation
    """The JSON Schema of any type; named parts stand under `$defs` of its root. Raises `ContractError`."""
    try:
        (root,), definitions = msgspec.json.schema_components([annotation], ref_template="#/$defs/{name}")
    except TypeError as error:
        # msgspec's last line names the type; those before it speak of msgspec's own functions.
        cause = str(error).rpartition("\n")[2]
        raise ContractError(f"{_named(annotation)} can't be expressed in JSON: {cause}") from error
    for name, definition in definitions.items():
        if definition.get("title") == name:
            del definition["title"]
    reference = root.get("$ref", "").removeprefix("#/$defs/") if set(root) == {"$ref"} else ""
    if reference and not _mentions(definitions, f"#/$defs/{reference}"):
        root = definitions.pop(reference)
    return {**root, "$defs": definitions} if definitions else root


def _named(annotation: object) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)


def _mentions(value: object, reference: str) -> bool:
    if isinstance(value, dict):
        return value.get("$ref") == reference or any(_mentions(part, reference) for part in value.values())
    return isinstance(value, (list, tuple)) and any(_mentions(part, reference) for part in value)


def _input_schema(
    arguments: type[msgspec.Struct], documented: dict[str, str], signature: inspect.Signature
) -> JsonSchema:
    schema = json_schema(arguments)
    for name, part in schema["properties"].items():
        default = signature.parameters[name].default
        if default is not inspect.Parameter.empty and default is not msgspec.UNSET:
            # msgspec leaves out those that are made anew for each call.
            part["default"] = msgspec.to_builtins(default)
        if name in documented:
            part.setdefault("description", documented[name])
    return schema


def _output_schema(annotation: object, shape: Shape) -> JsonSchema | None:
    if shape in ("text", "content"):
        return None
    schema = json_schema(annotation)
    if shape == "object":
        # Protocol revisions before 2026-07-28 want "object" at the root itself, not behind a reference.
        return schema if "type" in schema else {"type": "object", **schema}
    definitions = schema.pop("$defs", None)
    wrapped: JsonSchema = {"type": "object", "properties": {"result": schema}, "required": ["result"]}
    return {**wrapped, "$defs": definitions} if definitions else wrapped


def bare(annotation: Any) -> Any:  # noqa: ANN401 - an annotation
    """The type within `Annotated`."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def shape_of(annotation: Any) -> Shape:  # noqa: ANN401 - an annotation
    """How a result of this type is shown; see `actors.tool_messages.ToolResult`."""
    annotation = bare(annotation)
    if annotation is str:
        return "text"
    if _is_content(annotation):
        return "content"
    origin = get_origin(annotation) or annotation
    if isinstance(origin, type) and not isinstance(annotation, types.UnionType):
        if issubclass(origin, msgspec.Struct):
            return "wrapped" if origin.__struct_config__.array_like else "object"
        if issubclass(origin, dict) or dataclasses.is_dataclass(origin) or typing.is_typeddict(origin):
            return "object"
    return "wrapped"


def _is_content(annotation: object) -> bool:
    blocks = set(get_args(ContentBlock))
    parts = get_args(annotation)
    if get_origin(annotation) is list and len(parts) == 1:
        return _is_content(parts[0])
    if get_origin(annotation) in (types.UnionType, typing.Union):
        return all(part in blocks for part in parts)
    return isinstance(annotation, type) and annotation in blocks


def check_published(schema: JsonSchema, made: JsonSchema) -> None:
    """Check an author's own input schema against the one made from the annotations. Raises `ContractError`."""
    if schema.get("type") != "object":
        raise ContractError('its input_schema must have "type": "object"')
    for part, meaning in (("properties", "names"), ("required", "requires")):
        theirs, ours = set(schema.get(part, ())), set(made.get(part, ()))
        if theirs != ours:
            difference = ", ".join(sorted(theirs ^ ours))
            raise ContractError(f"its input_schema {meaning} other parameters than its signature: {difference}")


# --- docstrings ----------------------------------------------------------------------------------------------------

_SECTION = re.compile(r"(Args|Arguments|Parameters|Returns|Raises|Yields|Example|Examples|Note|Notes):\s*")
_ENTRY = re.compile(r"(\w+)(?:\s*\([^)]*\))?:\s*(.*)")


def parse_docstring(text: str) -> tuple[str, dict[str, str]]:
    """The first paragraph as one line, and the texts of the `Args:` section by parameter."""
    lines = text.splitlines()
    first: list[str] = []
    for line in lines:
        if not line.strip() or _SECTION.fullmatch(line.strip()):
            break
        first.append(line.strip())
    return " ".join(first), _argument_texts(lines)


def _argument_texts(lines: list[str]) -> dict[str, str]:
    texts: dict[str, list[str]] = {}
    inside, name, entry_indent = False, "", 0
    for line in lines:
        stripped = line.strip()
        indent = len(line) - len(line.lstrip())
        if stripped and indent == 0:
            section = _SECTION.fullmatch(stripped)
            inside = section is not None and section[1] in ("Args", "Arguments", "Parameters")
            entry_indent = 0
        elif inside and stripped:
            entry_indent = entry_indent or indent
            entry = _ENTRY.fullmatch(stripped) if indent <= entry_indent else None
            if entry is not None:
                name = entry[1]
                texts[name] = [entry[2]] if entry[2] else []
            elif name in texts:
                texts[name].append(stripped)
    return {name: " ".join(parts) for name, parts in texts.items()}


# --- calling ---------------------------------------------------------------------------------------------------------


def call_adapter(
    function: Callable[..., Any], contract: Contract
) -> Callable[[msgspec.Struct, ToolContext | None], Any]:
    """A function that calls the tool with decoded arguments and the context (if it takes one), as cheaply as it can."""
    as_tuple = msgspec.structs.astuple
    at, names = contract.context_at, contract.arguments.__struct_fields__
    if contract.keyword_only:
        split = len(names) - contract.keyword_only

        def with_keywords(arguments: msgspec.Struct, context: ToolContext | None) -> Any:  # noqa: ANN401
            values = as_tuple(arguments)
            positional = values[:split] if at is None else (*values[:at], context, *values[at:split])
            return function(*positional, **dict(zip(names[split:], values[split:], strict=True)))

        return with_keywords
    if at is None:
        return lambda arguments, _context: function(*as_tuple(arguments))

    def with_context(arguments: msgspec.Struct, context: ToolContext | None) -> Any:  # noqa: ANN401
        values = as_tuple(arguments)
        return function(*values[:at], context, *values[at:])

    return with_context
