# SPDX-License-Identifier: AGPL-3.0-or-later
"""Arguments that clients repeat in HTTP headers: the `x-mcp-header` annotations of an input schema. Pure functions.

Rules of revision 2026-07-28: the annotation is a header's name, unique whatever its case, on a string, integer or
boolean that is reached from the root through `properties` alone. Clients drop a tool that breaks them.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

PARAM_PREFIX: Final = "mcp-param-"
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_TYPES: Final = ("string", "integer", "boolean")
_MAX_DEPTH: Final = 32
"""Levels of `properties` that are searched for annotations."""


class ParamRule(msgspec.Struct, frozen=True):
    """One argument that is repeated in a header."""

    header: str
    """Lower case, with its prefix."""
    path: tuple[str, ...]
    """Names of properties, from the root of the arguments."""
    type: str


class ParamRuleError(ValueError):
    """An annotation breaks the rules; for whoever wrote the tool."""


def read_param_rules(schema: object) -> list[ParamRule]:
    """The annotations of a decoded schema. Raises `ParamRuleError`."""
    rules: list[ParamRule] = []
    _collect(schema, (), rules)
    headers = [rule.header for rule in rules]
    repeated = sorted({header for header in headers if headers.count(header) > 1})
    if repeated:
        raise ParamRuleError(f"two of its parameters have the x-mcp-header {repeated[0].removeprefix(PARAM_PREFIX)}")
    return rules


def param_rules(schema: bytes) -> tuple[ParamRule, ...]:
    """The annotations of an input schema.

    None when one of them breaks the rules: clients drop such a tool, and checking half of its headers helps nobody.
    """
    try:
        return tuple(read_param_rules(msgspec.json.decode(schema)))
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ParamRuleError):
        return ()


def _collect(schema: object, path: tuple[str, ...], rules: list[ParamRule]) -> None:
    """Append the rules below `schema`."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or len(path) >= _MAX_DEPTH:
        return
    for name, sub in properties.items():
        if isinstance(sub, dict) and "x-mcp-header" in sub:
            label, kind = sub["x-mcp-header"], sub.get("type")
            where = ".".join((*path, name))
            if not isinstance(label, str) or not _TOKEN.fullmatch(label):
                raise ParamRuleError(f"the x-mcp-header of {where} must be a header's name: letters, digits and '-'")
            if kind not in _TYPES:
                raise ParamRuleError(f"{where} has an x-mcp-header, so it must be a string, an integer or a boolean")
            rules.append(ParamRule(PARAM_PREFIX + label.lower(), (*path, name), str(kind)))
        _collect(sub, (*path, name), rules)
