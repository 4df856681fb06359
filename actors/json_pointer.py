# SPDX-License-Identifier: AGPL-3.0-or-later
"""JSON Pointers (RFC 6901): the way to a part of a JSON value."""

from __future__ import annotations

import re
from typing import Any, Final

_INDEX: Final = re.compile("0|[1-9][0-9]{0,17}")
_BAD_ESCAPE: Final = re.compile("~(?![01])")
NOTHING: Final = object()
"""There is nothing at that place."""


def tokens_of(pointer: str) -> list[str]:
    """The keys that it goes along. Raises `ValueError` that says what is wrong with it."""
    if not pointer:
        return []
    if not pointer.startswith("/"):
        raise ValueError("it is empty or begins with `/`")
    if _BAD_ESCAPE.search(pointer):
        raise ValueError("`~` is written `~0`, and `/` in a key `~1`")
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer[1:].split("/")]


def index_of(token: str) -> int | None:
    """The place in a list that a key means; None when it means none."""
    return int(token) if _INDEX.fullmatch(token) else None


def part_of(value: Any, token: str) -> Any:  # noqa: ANN401 - JSON
    """What is under one key of an object, or at one place of a list; else `NOTHING`."""
    if isinstance(value, dict):
        return value.get(token, NOTHING)
    if isinstance(value, list):
        index = index_of(token)
        if index is not None and index < len(value):
            return value[index]
    return NOTHING
