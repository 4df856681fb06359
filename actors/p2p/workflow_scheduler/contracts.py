# SPDX-License-Identifier: AGPL-3.0-or-later
"""What tools give and take, by their schemas, and what is wrong with arguments, in words.

A schema of others can be anything: what it can't be used for is not found fault with.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from actors.p2p.workflow_scheduler.faults import shortened
from actors.p2p.workflow_scheduler.references import pointer_to
from actors.p2p.workflow_scheduler.schema_types import Part, Schema, in_words, kind_of

ANYTHING: Final = (Part(True),)
_SHOWN_CHARS: Final = 100
_MAX_CHOICES: Final = 20
_MAX_PROBLEMS: Final = 100
"""Of one step; others wait until these are mended."""

Parts = Sequence[Part]
"""One of these says what a value is; when there are none, there is no value."""


class _Hole:
    """Stands for a value that will be put in later."""

    def __repr__(self) -> str:
        return "a value that is not known yet"


HOLE: Final = _Hole()


def _has_hole(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_has_hole, value.values()))
    if isinstance(value, list):
        return any(map(_has_hole, value))
    return value is HOLE


def argument_at(keys: Iterable[str | int]) -> str:
    """A place in a step's inputs, for the texts."""
    return f"`{pointer_to(*keys)[1:]}`" if keys else "the inputs"


@functools.lru_cache(maxsize=1024)
def natural_output(output_schema: bytes | None) -> Parts:
    """What a tool's output is once it stands in a step's inputs.

    A result that is no object has a schema with nothing but `result` around its own; what is put in is the inner one.
    An object with that one field looks alike, so both are possible.
    """
    schema = _decoded(output_schema)
    if schema is None:
        return ANYTHING
    if not isinstance(schema, Mapping) or not _is_wrapped(schema):
        return [Part(schema)]
    whole = Part({**schema, "additionalProperties": False}, schema, unlikely=True)
    return [Part(schema["properties"]["result"], schema), whole]


def _is_wrapped(schema: Mapping[str, Any]) -> bool:
    return (
        schema.keys() <= {"type", "properties", "required", "$defs"}
        and isinstance(schema.get("properties"), Mapping)
        and list(schema["properties"]) == ["result"]
        and schema.get("required") == ["result"]
    )


def _decoded(schema: bytes | None) -> Schema | None:
    if schema is None:
        return None
    try:
        decoded = msgspec.json.decode(schema)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return decoded if isinstance(decoded, (bool, dict)) else None


@functools.lru_cache(maxsize=1024)
def contract_of(input_schema: bytes) -> Contract | None:
    """What a tool takes; None when its schema can't be read."""
    schema = _decoded(input_schema)
    return None if schema is None else Contract(schema)


class Contract:
    """What a tool takes."""

    def __init__(self, schema: Schema) -> None:
        self._part = Part(schema)
        self._validator: Any = None
        self._at: dict[tuple[str | int, ...], Parts] = {}

    def at(self, keys: tuple[str | int, ...]) -> Parts:
        """What it takes at a place in its arguments."""
        if keys not in self._at:
            if len(self._at) > 1000:  # places are the users', and it lives long
                self._at.clear()
            self._at[keys] = self._part.at(pointer_to(*keys))
        return self._at[keys]

    def problems(self, arguments: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Code and text of all that is wrong with arguments that may have holes."""
        if self._validator is None:
            self._validator = _validator_for(self._part.schema)
        try:
            errors = list(itertools.islice(self._validator.iter_errors(arguments), _MAX_PROBLEMS))
        except Exception:  # noqa: BLE001 - a schema of others can go wrong in any way, and then says nothing
            return
        for error in errors:
            yield from _problems(error, self._part.schema)


def _validator_for(schema: Schema) -> Any:  # noqa: ANN401 - untyped there
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for
    from referencing.jsonschema import EMPTY_REGISTRY

    # A registry of its own: without it the library fetches what a schema refers to.
    kind = _tolerant(validator_for(schema, default=Draft202012Validator))
    return kind(schema, registry=EMPTY_REGISTRY)


@functools.lru_cache(maxsize=16)
def _tolerant(kind: Any) -> Any:  # noqa: ANN401 - untyped there
    """The kind of validator that lets a hole pass as anything."""
    from jsonschema.validators import extend

    return extend(kind, {name: _passing_holes(name, rule) for name, rule in kind.VALIDATORS.items()})


def _unique(_validator: Any, said: Any, instance: Any, _schema: Any) -> Iterator[Any]:  # noqa: ANN401
    """The library's own rule compares each element with each other one."""
    from jsonschema import ValidationError

    if said and isinstance(instance, list) and not _has_hole(instance):
        seen = {msgspec.json.encode(element, order="sorted") for element in instance}
        if len(seen) < len(instance):
            yield ValidationError("it has an element twice")


_WHOLE: Final = frozenset(
    {"not", "disallow", "if", "contains", "enum", "const", "unevaluatedItems", "unevaluatedProperties"}
)
"""Keywords that can't be judged as long as part of the value is not known."""


def _passing_holes(name: str, rule: Any) -> Any:  # noqa: ANN401 - untyped there
    def judged(validator: Any, said: Any, instance: Any, schema: Any) -> Iterator[Any]:  # noqa: ANN401
        if instance is not HOLE:
            yield from rule(validator, said, instance, schema)

    def judged_whole(validator: Any, said: Any, instance: Any, schema: Any) -> Iterator[Any]:  # noqa: ANN401
        if not _has_hole(instance):
            yield from rule(validator, said, instance, schema)

    def one_of(validator: Any, said: Any, instance: Any, schema: Any) -> Iterator[Any]:  # noqa: ANN401
        # Several may fit for now; one is too few only when none does.
        known = validator.VALIDATORS["anyOf"] if _has_hole(instance) else rule
        yield from known(validator, said, instance, schema)

    if name == "oneOf":
        return one_of
    if name == "uniqueItems":
        return _unique
    return judged_whole if name in _WHOLE else judged


# --- in words ------------------------------------------------------------------------------------------------------


def _problems(error: Any, root: Schema) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - untyped there
    keys = tuple(error.absolute_path)
    if error.validator == "required":
        # One error for each that is missing; which one is only in its text.
        name = next((one for one in error.validator_value if error.message.startswith(repr(one))), "?")
        yield "MISSING_ARGUMENT", f"{argument_at((*keys, name))} is missing"
    elif error.validator == "additionalProperties" and error.validator_value is False:
        yield from _unknown_arguments(error, keys)
    elif wanted := _wanted(error, root):
        yield "BAD_ARGUMENT", f"{argument_at(keys)} is {_shown(error.instance)}, and must be {wanted}"
    elif nearest := _nearest_choice(error):
        for one in nearest:
            yield from _problems(one, root)
    else:
        yield "BAD_ARGUMENT", f"{argument_at(keys)}: {shortened(error.message, 300)}"


def _nearest_choice(error: Any) -> list[Any]:  # noqa: ANN401 - untyped there
    """Of several choices, what is wrong with the one that the value is most like: it is of its kind, at least."""
    by_choice: dict[int, list[Any]] = {}
    for one in error.context or ():
        by_choice.setdefault(one.schema_path[0], []).append(one)
    of_kind = [
        found for found in by_choice.values() if not any(one.validator == "type" and not one.path for one in found)
    ]
    return min(of_kind, key=len, default=[])


def _unknown_arguments(error: Any, keys: tuple[str | int, ...]) -> Iterator[tuple[str, str]]:  # noqa: ANN401
    properties = error.schema.get("properties", {})
    patterns = error.schema.get("patternProperties", {})
    for name in error.instance:
        if name not in properties and not any(re.search(pattern, name) for pattern in patterns):
            yield "UNKNOWN_ARGUMENT", f"{argument_at((*keys, name))} is unknown{_nearest(name, properties)}"


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name[:_SHOWN_CHARS], names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean `{near[0]}`?"
    if not names:
        return "; there are none"
    shown = ", ".join(f"`{one}`" for one in names[:_MAX_CHOICES])
    return f"; there are {shown}" + (", …" if len(names) > _MAX_CHOICES else "")


def _wanted(error: Any, root: Schema) -> str:  # noqa: ANN401 - untyped there
    """What would be right, where that can be said in a word."""
    said = error.validator_value
    if error.validator == "enum":
        choices = ", ".join(map(_shown, said[:_MAX_CHOICES]))
        return f"one of {choices}" + (", …" if len(said) > _MAX_CHOICES else "")
    if error.validator == "const":
        return _shown(said)
    if error.validator in ("type", "anyOf", "oneOf"):
        kinds = Part({error.validator: said}, root).kinds()
        return "" if kind_of(error.instance) in kinds else in_words(kinds)
    return ""


def _shown(value: object) -> str:
    if isinstance(value, (dict, list)):
        return in_words(frozenset({kind_of(value)}))
    return shortened(json.dumps(value, ensure_ascii=False), _SHOWN_CHARS)
