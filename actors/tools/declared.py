# SPDX-License-Identifier: AGPL-3.0-or-later
"""A resource, a prompt and a completion, ready to run: each runs as a tool does (`actors.tools.execution`), with
arguments that come as text, and results in the form that MCP wants of them.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final, get_args, get_origin

import msgspec

from actors.content import ContentBlock, PromptMessage, ResourceContents
from actors.declare import MAX_COMPLETIONS, Completer, Completion, PromptSpec, ResourceSpec
from actors.schema import Contract, ContractError, JsonSchema, bare, contract_of
from actors.tool_messages import Offered, PromptArgument, PromptDescriptor, ResourceDescriptor, ToolCall
from actors.toolkit import ToolContext
from actors.tools.execution import Runnable
from actors.uris import UriError, UriTemplate, check_uri, is_template

PROMPT_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
MAX_NAME_CHARS: Final = 128
_BLOCKS: Final = get_args(ContentBlock)


class LoadedResource(Runnable):
    """A resource that can be read, or a template's resources."""

    descriptor: ResourceDescriptor
    kind = "resource"

    def __init__(self, descriptor: ResourceDescriptor, function: Callable[..., Any], contract: Contract) -> None:
        super().__init__(descriptor, function, contract, strict=False)

    def _shaped(self, value: object, call: ToolCall) -> list[ResourceContents]:
        parts = value if isinstance(value, (list, tuple)) else [value]
        return [self._contents(part, call.name) for part in parts]

    def _contents(self, part: object, uri: str) -> ResourceContents:
        if isinstance(part, str):
            return ResourceContents(uri=uri, mime_type=self.descriptor.mime_type or "text/plain", text=part)
        if isinstance(part, (bytes, bytearray)):
            kind = self.descriptor.mime_type or "application/octet-stream"
            return ResourceContents(uri=uri, mime_type=kind, blob=bytes(part))
        if isinstance(part, ResourceContents):
            return part
        raise TypeError(f"a resource returns str, bytes or ResourceContents, not {type(part).__name__}")


class LoadedPrompt(Runnable):
    """A prompt that can be asked for."""

    descriptor: PromptDescriptor
    kind = "prompt"

    def __init__(self, descriptor: PromptDescriptor, function: Callable[..., Any], contract: Contract) -> None:
        super().__init__(descriptor, function, contract, strict=False)

    def _shaped(self, value: object, _call: ToolCall) -> list[PromptMessage]:
        parts = value if isinstance(value, (list, tuple)) else [value]
        return [_message(part) for part in parts]


class LoadedCompletion(Runnable):
    """What completes one argument of a prompt, or one variable of a template."""

    kind = "completion"

    def _shaped(self, value: object, _call: ToolCall) -> Completion:
        found = value if isinstance(value, Completion) else Completion(list(value))  # type: ignore[call-overload]
        if not all(isinstance(one, str) for one in found.values):
            raise TypeError("a completion is a list of str")
        total = found.total if found.total is not None else len(found.values)
        return Completion(
            found.values[:MAX_COMPLETIONS],
            total,
            has_more=found.has_more or total > min(len(found.values), MAX_COMPLETIONS),
        )


def _message(part: object) -> PromptMessage:
    if isinstance(part, PromptMessage):
        return part
    if isinstance(part, (str, *_BLOCKS)):
        return PromptMessage.user(typing.cast("ContentBlock | str", part))
    raise TypeError(f"a prompt returns str, PromptMessage or content, not {type(part).__name__}")


# --- contracts -----------------------------------------------------------------------------------------------------


def resource_contract(function: Callable[..., Any], spec: ResourceSpec) -> Contract:
    """Read a resource's contract and check it against its URI. Raises `ContractError`."""
    _check_result(function, (str, bytes, ResourceContents), "str, bytes, ResourceContents or a list of them")
    if not 1 <= len(spec.name) <= MAX_NAME_CHARS:
        raise ContractError(f"its name must have 1 to {MAX_NAME_CHARS} characters")
    try:
        check_uri(spec.uri) if not is_template(spec.uri) else None
        variables = set(UriTemplate(spec.uri).names) if is_template(spec.uri) else set()
    except UriError as error:
        raise ContractError(f"its URI {spec.uri[:200]!r}: {error}") from None
    contract = contract_of(function, description=spec.description or "", shape="contents")
    parameters = set(contract.arguments.__struct_fields__)
    if parameters != variables:
        odd = ", ".join(sorted(parameters ^ variables))
        raise ContractError(f"its parameters and the variables of {spec.uri} must be the same; only one side has {odd}")
    if spec.timeout_s is not None and not spec.timeout_s > 0:
        raise ContractError("its timeout must be more than 0 seconds")
    if spec.fresh_s < 0 or (spec.size is not None and spec.size < 0):
        raise ContractError("its fresh_for and size can't be negative")
    return _with_text_arguments(contract)


def prompt_contract(function: Callable[..., Any], spec: PromptSpec) -> Contract:
    """Read a prompt's contract. Raises `ContractError`."""
    _check_result(function, (str, PromptMessage, *_BLOCKS), "str, PromptMessage, content or a list of them")
    if not PROMPT_NAME.fullmatch(spec.name):
        raise ContractError(f"its name {spec.name!r} must be 1-128 letters, digits, '_', '.' and '-'")
    if spec.timeout_s is not None and not spec.timeout_s > 0:
        raise ContractError("its timeout must be more than 0 seconds")
    return _with_text_arguments(contract_of(function, description=spec.description or "", shape="messages"))


def prompt_arguments(contract: Contract) -> list[PromptArgument]:
    """A prompt's arguments as clients see them, in the function's order."""
    required = contract.input_schema.get("required", ())
    properties: dict[str, JsonSchema] = contract.input_schema["properties"]
    return [
        PromptArgument(name=name, description=properties[name].get("description", ""), required=name in required)
        for name in contract.arguments.__struct_fields__
    ]


def _check_result(function: Callable[..., Any], allowed: tuple[type, ...], words: str) -> None:
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise ContractError("it must return its result, not yield")
    try:
        annotation = typing.get_type_hints(function).get("return")
    except Exception as error:
        raise ContractError(f"its annotations can't be read: {error}") from error
    if not _is_one_of(annotation, allowed):
        raise ContractError(f"it must return {words}, and say so in its annotation")


def _is_one_of(annotation: Any, allowed: tuple[type, ...]) -> bool:  # noqa: ANN401 - an annotation
    annotation = bare(annotation)
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (types.UnionType, typing.Union) or (origin is list and len(parts) == 1):
        return all(_is_one_of(part, allowed) for part in parts)
    return isinstance(annotation, type) and annotation in allowed


def _with_text_arguments(contract: Contract) -> Contract:
    """The contract, if each of its arguments can be read from text. Raises `ContractError`."""
    for name, schema in contract.input_schema["properties"].items():
        kinds = {part.get("type") for part in _parts(schema, contract.input_schema)}
        if kinds & {"array", "object"}:
            raise ContractError(f"its parameter {name} travels as text: it can be text, a number, a date, or a choice")
    return contract


def _parts(schema: JsonSchema, root: JsonSchema) -> list[JsonSchema]:
    """A schema's alternatives, references resolved."""
    reference = schema.get("$ref", "").removeprefix("#/$defs/")
    if reference:
        return _parts(root["$defs"][reference], root)
    alternatives = schema.get("anyOf")
    return [part for one in alternatives for part in _parts(one, root)] if alternatives else [schema]


# --- completion ----------------------------------------------------------------------------------------------------


def completions_of(
    descriptor: Offered, contract: Contract, given: Mapping[str, Completer]
) -> dict[str, LoadedCompletion]:
    """What completes each argument: the author's functions, else the choices of its annotation. Raises
    `ContractError`."""
    unknown = sorted(set(given) - set(contract.arguments.__struct_fields__))
    if unknown:
        raise ContractError(f"complete names {', '.join(unknown)}, which it does not take")
    found = {}
    for name, schema in contract.input_schema["properties"].items():
        if name in given:
            found[name] = _completion(descriptor, name, given[name])
        elif choices := _choices(_parts(schema, contract.input_schema)):
            found[name] = _completion(descriptor, name, _choose_from(choices))
    return found


def _choices(parts: list[JsonSchema]) -> list[str]:
    values: list[str] = []
    for part in parts:
        values += [str(value) for value in part.get("enum", ())]
        if part.get("type") == "boolean":
            values += ["true", "false"]
    return values


def _choose_from(choices: list[str]) -> Completer:
    async def choose(value: str) -> list[str]:
        return [choice for choice in choices if choice.casefold().startswith(value.casefold())]

    return choose


def _completion(descriptor: Offered, name: str, function: Completer) -> LoadedCompletion:
    """Parameters are taken by position: the value, then what is known of the others; annotations are not needed."""
    if not callable(function):
        raise ContractError(f"complete for {name} must be a function")
    fields: list[tuple[str, Any, Any]] = [("value", str, ""), ("arguments", dict[str, str], {})]
    context_at, taken = None, 0
    try:
        parameters = inspect.signature(function, eval_str=True).parameters
    except Exception as error:
        raise ContractError(f"the function that completes {name} can't be read: {error}") from error
    for position, parameter in enumerate(parameters.values()):
        if parameter.annotation is ToolContext:
            context_at = position
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            taken += 1
    if not 1 <= taken <= len(fields):
        raise ContractError(f"the function that completes {name} takes (value) or (value, arguments)")
    contract = Contract(
        description=f"completes {name}",
        arguments=msgspec.defstruct("completion_arguments", fields[:taken], frozen=True),
        context_at=context_at,
        keyword_only=0,
        input_schema={},
        output_schema=None,
        shape="completion",
        returns=Any,
    )
    return LoadedCompletion(descriptor, function, contract)
