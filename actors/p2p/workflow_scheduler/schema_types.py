# SPDX-License-Identifier: AGPL-3.0-or-later
"""What kinds of values a JSON Schema lets through, as far as that can be told without a value.

Everything here errs on the side of more kinds: what is said to be impossible is impossible.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from actors.json_pointer import index_of
from actors.p2p.workflow_scheduler.references import (
    MalformedReferenceError,
    ReferenceMissingError,
    at_path,
    tokens_of,
)

Schema: TypeAlias = "bool | Mapping[str, Any]"
Kinds = frozenset[str]

INTEGER: Final = "integer"
FRACTION: Final = "fraction"
"""A number that is no integer."""
ALL_KINDS: Final[Kinds] = frozenset({"null", "boolean", INTEGER, FRACTION, "string", "array", "object"})
_OF_TYPE: Final[Mapping[str, Kinds]] = {
    **{kind: frozenset({kind}) for kind in ALL_KINDS - {FRACTION}},
    "number": frozenset({INTEGER, FRACTION}),
}
_WORDS: Final = {
    "string": "text",
    "number": "a number",
    INTEGER: "a whole number",
    FRACTION: "a number",
    "boolean": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}
_MAX_LOOKED_AT: Final = 500
"""Schemas for one answer: those of one place may lead to each other without end."""
_MAX_TOKENS: Final = 64
"""Of a pointer that is followed."""
_MAX_PARTS: Final = 50
"""That may stand at one place."""


def kind_of(value: object) -> str:
    """The kind of a JSON value."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return INTEGER
        case float():
            return INTEGER if value.is_integer() else FRACTION
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def in_words(kinds: Kinds) -> str:
    """Kinds for people."""
    if kinds >= ALL_KINDS:
        return "any value"
    if FRACTION in kinds:
        kinds -= {INTEGER}
    return " or ".join(word for kind, word in _WORDS.items() if kind in kinds) or "nothing"


class Part:
    """A schema, or a part of one."""

    def __init__(self, schema: Schema, root: Schema | None = None, *, unlikely: bool = False) -> None:
        """`root` is the document that its references lead into; None = itself. `unlikely`: it may be meant, and need
        not be spoken of."""
        self.schema = schema
        self.unlikely = unlikely
        self.root = schema if root is None else root

    def kinds(self) -> Kinds:
        """What it lets through, at most."""
        return _Walk(self.root).kinds(self.schema)

    def at(self, pointer: str) -> list[Part]:
        """What may stand at a place within its values: one of these, or nothing at all when there are none."""
        tokens = tokens_of(pointer)
        if not tokens:
            return [self]
        schemas: list[Schema] = [self.schema]
        for token in tokens:
            walk = _Walk(self.root)
            schemas = [one for schema in schemas for one in walk.children(schema, token)]
            if len(tokens) > _MAX_TOKENS or len(schemas) > _MAX_PARTS or any(map(_is_anything, schemas)):
                return [Part(True)]
        return [Part(one, self.root, unlikely=self.unlikely) for one in schemas]

    def items(self) -> list[Part]:
        """What its lists hold, if that is the same at each place."""
        return [Part(_Walk(self.root).items(self.schema), self.root, unlikely=self.unlikely)]


class _Walk:
    """Looks through a schema for one answer."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._left = _MAX_LOOKED_AT

    def kinds(self, schema: object) -> Kinds:
        if isinstance(schema, bool):
            return ALL_KINDS if schema else frozenset()
        self._left -= 1
        if not isinstance(schema, Mapping) or self._left < 0:
            return ALL_KINDS
        kinds = _own_kinds(schema)
        for choices in self._bounds(schema):
            kinds &= frozenset().union(*map(self.kinds, choices))
        return kinds

    def children(self, schema: object, token: str) -> list[Schema]:
        """What may stand at a key or place of its values; `True` = anything."""
        if isinstance(schema, bool):
            return [True] if schema else []
        self._left -= 1
        if not isinstance(schema, Mapping) or self._left < 0:
            return [True]
        # Each bound alone says enough; the first that says something is taken.
        found = self._own_children(schema, token)
        for choices in self._bounds(schema):
            if not any(map(_is_anything, found)):
                break
            found = [one for choice in choices for one in self.children(choice, token)]
        return found

    def items(self, schema: object) -> Schema:
        self._left -= 1
        if not isinstance(schema, Mapping) or self._left < 0 or "prefixItems" in schema:
            return True
        if "$ref" in schema and "items" not in schema:
            return self.items(self._resolved(schema["$ref"]))
        items = schema.get("items", True)
        return items if isinstance(items, (bool, Mapping)) else True

    def _bounds(self, schema: Mapping[str, Any]) -> Iterator[list[Any]]:
        """Lists of schemas: a value is let through by one of each list."""
        if "$ref" in schema:
            yield [self._resolved(schema["$ref"])]
        for key in ("anyOf", "oneOf"):
            if isinstance(choices := schema.get(key), list):
                yield choices
        if isinstance(parts := schema.get("allOf"), list):
            yield from ([part] for part in parts)

    def _own_children(self, schema: Mapping[str, Any], token: str) -> list[Schema]:
        kinds = self.kinds(schema)
        found: list[Schema] = []
        if "object" in kinds:
            found += _property(schema, token)
        index = index_of(token)
        if "array" in kinds and index is not None:
            found += _element(schema, index)
        return found

    def _resolved(self, reference: object) -> Schema:
        """What a reference within the document leads to; anything else lets everything through."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            return True
        try:
            found = at_path(self._root, reference[1:])
        except (ReferenceMissingError, MalformedReferenceError):
            return True
        return found if isinstance(found, (bool, Mapping)) else True


def _is_anything(schema: object) -> bool:
    return schema is True or schema == {}


def _own_kinds(schema: Mapping[str, Any]) -> Kinds:
    kinds = ALL_KINDS
    if "type" in schema:
        kinds &= _kinds_of_type(schema["type"])
    if "const" in schema:
        kinds &= {kind_of(schema["const"])}
    if isinstance(values := schema.get("enum"), list):
        kinds &= {kind_of(value) for value in values}
    return kinds


def _kinds_of_type(said: object) -> Kinds:
    names = said if isinstance(said, list) else [said]
    return frozenset().union(*(_OF_TYPE.get(str(name), ALL_KINDS) for name in names))


def _property(schema: Mapping[str, Any], name: str) -> list[Schema]:
    properties = schema.get("properties")
    if isinstance(properties, Mapping) and name in properties:
        return [properties[name]]
    patterns = schema.get("patternProperties")
    if isinstance(patterns, Mapping) and patterns:
        return [True]
    others = schema.get("additionalProperties", True)
    return [] if others is False else [others]


def _element(schema: Mapping[str, Any], index: int) -> list[Schema]:
    first = schema.get("prefixItems", [])
    if isinstance(first, list) and index < len(first):
        return [first[index]]
    most = schema.get("maxItems")
    if isinstance(most, int) and index >= most:
        return []
    items = schema.get("items", True)
    if isinstance(items, list):
        return [True]  # of older drafts
    return [] if items is False else [items]
