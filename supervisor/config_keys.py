# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which keys there are and what each takes, read off the Structs of `actors.settings`: dotted keys, where `*` stands
for a name of the user's own."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import inspect

from actors.settings import Settings

_SECRET_WORDS = ("token", "secret", "password", "_key")
_ABOUT_SECRETS = ("_file", "_grants")
"""Ends of names of what is no secret itself: where one lies, and what it is good for."""
_MAX_COMPARED = 200


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What a key takes, as far as reading it from text needs to know."""

    is_list: bool = False
    is_text: bool = False
    is_truth: bool = False
    dots: bool = False
    """Its last part is a free name, which may hold dots."""
    choices: tuple[str, ...] = ()

    def choice(self, value: object) -> object:
        """The choice that is meant, whatever its case; any other value as it is."""
        if isinstance(value, str):
            return next((choice for choice in self.choices if choice.casefold() == value.casefold()), value)
        return value


@functools.cache
def known_keys() -> Mapping[str, Kind]:
    """Every key that may be set: `server.port`, `tools.pools.*.workers`, `tools.max_concurrent.*`."""
    keys: dict[str, Kind] = {}
    _walk(inspect.type_info(Settings), "", keys, {})
    return keys


@functools.cache
def sections() -> Mapping[str, Kind]:
    """Every key that holds other keys: `server`, `tools.pools`, `tools.pools.*`."""
    found: dict[str, Kind] = {}
    _walk(inspect.type_info(Settings), "", {}, found)
    return found


def _walk(kind: inspect.Type, key: str, keys: dict[str, Kind], found: dict[str, Kind]) -> None:
    if isinstance(kind, inspect.StructType):
        if key:
            found[key] = Kind()
        for field in kind.fields:
            _walk(field.type, f"{key}.{field.name}" if key else field.name, keys, found)
    elif isinstance(kind, inspect.DictType):
        found[key] = Kind()
        _walk(kind.value_type, f"{key}.*", keys, found)
    else:
        choices = kind.values if isinstance(kind, inspect.LiteralType) else ()
        keys[key] = Kind(
            is_list=isinstance(kind, inspect.ListType),
            is_text=isinstance(kind, (inspect.StrType, inspect.LiteralType)),
            is_truth=isinstance(kind, inspect.BoolType),
            dots=key.endswith(".*"),
            choices=tuple(str(choice) for choice in choices),
        )


def find_key(key: str, among: Mapping[str, Kind]) -> str | None:
    """The entry of `among` that this key is: itself, or a pattern with `*`."""
    if key in among:
        return key
    for pattern in among:
        before, star, after = pattern.partition("*")
        if not star or not key.startswith(before):
            continue
        name = key[len(before) :].removesuffix(after) if key.endswith(after) else ""
        if name and ("." not in name or among[pattern].dots):
            return pattern
    return None


def nearest(key: str, known: Mapping[str, Kind]) -> str:
    """`; did you mean 'server.port'?`, or nothing. A name in place of a `*` is kept."""
    if len(key) > _MAX_COMPARED:
        return ""
    candidates = []
    for pattern in known:
        before, star, after = pattern.partition("*")
        if not star:
            candidates.append(pattern)
        elif key.startswith(before):
            candidates.append(before + key[len(before) :].partition(".")[0] + after)
    matches = difflib.get_close_matches(key, candidates, n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def is_secret(key: str) -> bool:
    """Whether a key is named like a secret: its value is never shown."""
    parts = [part for part in key.lower().split(".") if not part.endswith(_ABOUT_SECRETS)]
    return any(word in part for part in parts for word in _SECRET_WORDS)


def flat(settings: Settings) -> dict[str, Any]:
    """All values by dotted key, in the order of the Structs."""
    values: dict[str, Any] = {}

    def walk(at: object, key: str) -> None:
        if isinstance(at, msgspec.Struct):
            for name in at.__struct_fields__:
                walk(getattr(at, name), f"{key}.{name}" if key else name)
        elif isinstance(at, dict) and at:
            for name, value in at.items():
                walk(value, f"{key}.{name}")
        else:
            values[key] = at

    walk(settings, "")
    return values
