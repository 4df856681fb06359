# SPDX-License-Identifier: AGPL-3.0-or-later
"""Forms for people: from a msgspec Struct to the flat schema that an elicitation carries.

MCP allows an object of primitive members only, so that every client can show it: text (with a length or one of the
formats email, uri, date, date-time), numbers, yes or no, one choice or several out of a list. Choices may have titles.
Source: `ElicitRequestFormParams` of the revisions since 2025-06-18, SEP-1034 (defaults), SEP-1330 (choices).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

FormSchema = dict[str, Any]

_PLAIN: Final = frozenset({"type", "title", "description", "default"})
_MEMBERS: Final[dict[str, frozenset[str]]] = {
    "string": _PLAIN | {"minLength", "maxLength", "format", "enum", "enumNames", "oneOf"},
    "number": _PLAIN | {"minimum", "maximum"},
    "integer": _PLAIN | {"minimum", "maximum"},
    "boolean": _PLAIN,
    "array": _PLAIN | {"minItems", "maxItems", "items"},
}
"""Type -> what a client has to understand of it."""
_ITEM: Final = frozenset({"type", "enum", "anyOf", "title"})

Email = Annotated[str, Meta(extra_json_schema={"format": "email"})]
"""A text that is an address for mail."""
Url = Annotated[str, Meta(extra_json_schema={"format": "uri"})]
"""A text that is a URI."""


class FormError(TypeError):
    """This can't be a form, for the reason given; for whoever wrote the tool."""


def choices(titles: Mapping[str, str]) -> Meta:
    """For `Annotated[str, choices({"r": "Red", "g": "Green"})]`: one value out of these, shown by its title.

    In a list (`list[Annotated[str, choices(...)]]`) it means any number of them.
    """
    return Meta(extra_json_schema={"oneOf": [{"const": value, "title": title} for value, title in titles.items()]})


def form_schema(form: type[msgspec.Struct] | Mapping[str, Any]) -> FormSchema:
    """The schema of a form: made from a Struct, or given as JSON Schema and used as it is. Raises `FormError`."""
    if isinstance(form, Mapping):
        schema = dict(form)
        if schema.get("type") != "object" or not isinstance(schema.get("properties"), Mapping):
            raise FormError('a form\'s schema needs "type": "object" and "properties"')
        for name, member in schema["properties"].items():
            _check_member(str(name), member)
        return schema
    if not (isinstance(form, type) and issubclass(form, msgspec.Struct)):
        raise FormError(f"a form is a msgspec Struct or a JSON Schema, not {form!r}")
    try:
        _, parts = msgspec.json.schema_components([form], ref_template="{name}")
    except TypeError as error:
        raise FormError(f"{form.__name__} can't be a form: {error}") from None
    made = parts[form.__name__] if form.__name__ in parts else next(iter(parts.values()))
    properties = {name: _member(name, member, parts) for name, member in made["properties"].items()}
    schema = {"type": "object", "properties": properties}
    if made.get("required"):
        schema["required"] = list(made["required"])
    return schema


def _member(name: str, member: dict[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
    """One member as MCP allows it, from what msgspec says of it."""
    made = _resolved(member, parts)
    if "anyOf" in made:
        # `X | None`: left out of the answer, not null.
        others = [part for part in made.pop("anyOf") if part != {"type": "null"}]
        if len(others) == 1:
            made = {**_resolved(others[0], parts), **made}
            if made.get("default", 0) is None:
                del made["default"]
    if "enum" in made or "oneOf" in made:
        made.setdefault("type", "string")
    if made.get("type") == "array":
        made["items"] = _items(_resolved(made.get("items", {}), parts))
    _check_member(name, made)
    return made


def _resolved(member: dict[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(member)
    reference = made.pop("$ref", None)
    if reference is None:
        return made
    return {**{key: value for key, value in parts[reference].items() if key != "title"}, **made}


def _items(item: dict[str, Any]) -> dict[str, Any]:
    if "oneOf" in item:
        return {"anyOf": item["oneOf"]}
    if "enum" in item:
        return {"type": "string", "enum": item["enum"]}
    return item


def _check_member(name: str, member: object) -> None:
    """Raise `FormError` unless every client can show this member."""
    kind = member.get("type") if isinstance(member, Mapping) else None
    if not isinstance(member, Mapping) or kind not in _MEMBERS:
        raise FormError(
            f"member {name} of a form must be text, a number, yes or no, or choices; nothing nested fits into a form"
        )
    odd = set(member) - _MEMBERS[kind]
    if odd:
        raise FormError(f"member {name} of a form can't have {', '.join(sorted(map(str, odd)))}: clients don't know it")
    if "enum" in member and not all(isinstance(value, str) for value in member["enum"]):
        raise FormError(f"the choices of member {name} must be text")
    if kind == "array":
        item = member.get("items")
        if not isinstance(item, Mapping) or set(item) - _ITEM or not ({"enum", "anyOf"} & set(item)):
            raise FormError(f"member {name} of a form may only be a list of choices")
