# SPDX-License-Identifier: AGPL-3.0-or-later
"""What kinds of values a JSON Schema lets through, as far as that can be told without a value.

Everything here errs on the side of more kinds: what is said to be impossible is impossible.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from actors.p2p.workflow_scheduler.references import (
    MalformedReferenceError,
    ReferenceMissingError,
    at_path,
    index_of,
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
_MAX_HOPS: Final = 32
"""From schema to schema at one place; what is further away is not looked at."""


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
        return self._kinds(self.schema, _MAX_HOPS)

    def at(self, pointer: str) -> list[Part]:
        """What may stand at a place within its values: one of these, or nothing at all when there are none."""
        if not pointer:
            return [self]
        parts = [self]
        for token in tokens_of(pointer):
            schemas = [one for part in parts for one in self._children(part.schema, token, _MAX_HOPS)]
            if True in schemas:
                return [Part(True)]
            parts = [Part(one, self.root, unlikely=self.unlikely) for one in schemas]
        return parts

    def items(self) -> list[Part]:
        """What its lists hold, if that is the same at each place."""
        return [Part(one, self.root, unlikely=self.unlikely) for one in self._items(self.schema, _MAX_HOPS)]

    # --- kinds -----------------------------------------------------------------------------------------------------

    def _kinds(self, schema: object, hops: int) -> Kinds:
        if isinstance(schema, bool):
            return ALL_KINDS if schema else frozenset()
        if not isinstance(schema, Mapping) or not hops:
            return ALL_KINDS
        kinds = _own_kinds(schema)
        if "$ref" in schema:
            kinds &= self._kinds(self._resolved(schema["$ref"]), hops - 1)
        for key in ("anyOf", "oneOf"):
            if isinstance(choices := schema.get(key), list):
                kinds &= frozenset().union(*(self._kinds(one, hops - 1) for one in choices))
        if isinstance(whole := schema.get("allOf"), list):
            for one in whole:
                kinds &= self._kinds(one, hops - 1)
        return kinds

    def _resolved(self, reference: object) -> Schema:
        """What a reference within the document leads to; anything else lets everything through."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            return True
        try:
            found = at_path(self.root, reference[1:])
        except (ReferenceMissingError, MalformedReferenceError):
            return True
        return found if isinstance(found, (bool, Mapping)) else True

    # --- parts -----------------------------------------------------------------------------------------------------

    def _children(self, schema: object, token: str, hops: int) -> list[Schema]:
        """What may stand at a key or place of its values; `True` = anything."""
        if isinstance(schema, bool):
            return [True] if schema else []
        if not isinstance(schema, Mapping) or not hops:
            return [True]
        kinds = self._kinds(schema, hops)
        if kinds.isdisjoint(("object", "array")):
            return []
        narrowed = [schema[key] for key in ("anyOf", "oneOf") if isinstance(schema.get(key), list)]
        if "$ref" in schema:
            narrowed.append([self._resolved(schema["$ref"])])
        if "allOf" in schema or len(narrowed) > 1 or (narrowed and not _OWN.isdisjoint(schema)):
            # Several say something about one place: each would have to be weighed.
            return [True]
        if narrowed:
            return [one for choice in narrowed[0] for one in self._children(choice, token, hops - 1)]
        found: list[Schema] = []
        if "object" in kinds:
            found += _property(schema, token)
        index = index_of(token)
        if "array" in kinds and index is not None:
            found += _element(schema, index)
        return found

    def _items(self, schema: object, hops: int) -> list[Schema]:
        if not isinstance(schema, Mapping) or not hops or "allOf" in schema or "prefixItems" in schema:
            return [True]
        if "$ref" in schema and len(schema) == 1:
            return self._items(self._resolved(schema["$ref"]), hops - 1)
        items = schema.get("items", True)
        return [items if isinstance(items, (bool, Mapping)) else True]


_OWN: Final = frozenset(
    {"properties", "patternProperties", "additionalProperties", "unevaluatedProperties", "items", "prefixItems"}
)


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
