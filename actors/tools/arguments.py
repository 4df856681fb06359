# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is wrong with a call's arguments, in words for whoever made the call: people, and models that try again."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from actors.errors import InvalidArgumentsError
from actors.schema import JsonSchema

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
    "bytes": "base64 text",
    "datetime": "a date and time (RFC 3339)",
    "date": "a date (YYYY-MM-DD)",
}
_UNKNOWN = re.compile(r"Object contains unknown field `(.*?)`")
_MISSING = re.compile(r"Object missing required field `(.*?)`")
_AT = re.compile(r" - at `(?:key in )?\$(.*?)`$")
_LENGTH = re.compile(r" of length (<=|>=) (\d+)")


def explain(tool: str, error: Exception, schema: JsonSchema) -> InvalidArgumentsError:
    """The error of msgspec in words, naming the parameter, which is also among the details.

    `schema` is the tool's input schema, made from its annotations.
    """
    text = str(error)
    if isinstance(error, RecursionError):
        return InvalidArgumentsError(f"{tool}: the arguments are nested too deeply", tool=tool)
    if not isinstance(error, msgspec.ValidationError):
        return InvalidArgumentsError(f"{tool}: the arguments are not valid JSON ({text})", tool=tool)
    found = _AT.search(text)
    path = found[1].lstrip(".") if found else ""
    problem = text[: found.start()] if found else text
    where = f"`{path}`: " if path else ""
    parameter = re.split(r"[.\[]", path, maxsplit=1)[0] if path else ""
    part = _part(schema, path)
    if (unknown := _UNKNOWN.fullmatch(problem)) is not None:
        parameter = parameter or unknown[1]
        said = f"{where}unknown parameter `{unknown[1]}`" + _nearest(unknown[1], part.get("properties", ()))
    elif (missing := _MISSING.fullmatch(problem)) is not None:
        parameter = parameter or missing[1]
        said = f"{where}missing parameter `{missing[1]}`"
    elif not path:
        said = f"the arguments must be a JSON object: {_in_words(problem)}"
    else:
        said = where + _in_words(problem) + _choices(problem, part)
    return InvalidArgumentsError(f"{tool}: {said}", tool=tool, parameter=parameter)


def _part(schema: JsonSchema, path: str) -> JsonSchema:
    """The schema of what stands at a path of msgspec's; empty where that is not plain."""
    definitions: dict[str, JsonSchema] = schema.get("$defs", {})
    part = schema
    for step in re.findall(r"\[[^\]]*\]|[^.\[]+", path):
        found: Any
        if step == "[...]":
            found = part.get("additionalProperties", part.get("items"))
        elif step.startswith("["):
            found = part.get("items")
        else:
            found = part.get("properties", {}).get(step)
        if not isinstance(found, dict):
            return {}
        part = _resolved(found, definitions)
    return part


def _resolved(part: JsonSchema, definitions: dict[str, JsonSchema]) -> JsonSchema:
    """What a part refers to; of one that may be null, what it is otherwise."""
    options = [one for one in part.get("anyOf", ()) if one.get("type") != "null"]
    one = options[0] if len(options) == 1 else part
    return definitions.get(one.get("$ref", "").removeprefix("#/$defs/"), one)


def _nearest(name: str, parameters: Iterable[str]) -> str:
    known = list(parameters)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean `{near[0]}`?"
    return f"; it takes {', '.join(f'`{one}`' for one in known)}" if known else "; it takes none"


def _choices(problem: str, schema: JsonSchema) -> str:
    choices = schema.get("enum")
    if not choices or not problem.startswith("Invalid enum value"):
        return ""
    return f"; choose one of {', '.join(map(repr, choices))}"


def _in_words(problem: str) -> str:
    def kinds(match: re.Match[str]) -> str:
        return " or ".join(_KINDS.get(kind, kind) for kind in match[1].split(" | "))

    words = re.sub(r"`([a-z][a-z |]*)`", kinds, problem)
    words = _LENGTH.sub(lambda found: f" with {_bound(found[1])} {found[2]} elements or characters", words)
    words = re.sub(r" (<=|>=|<|>) (-?[\d.]+)", lambda found: f", {_bound(found[1])} {found[2]}", words)
    return words.replace("Expected ", "expected ", 1).replace("Invalid enum value", "not a valid choice:", 1)


def _bound(sign: str) -> str:
    return {"<=": "at most", ">=": "at least", "<": "less than", ">": "more than"}[sign]
