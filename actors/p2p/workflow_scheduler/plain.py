# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whether a value is JSON that everybody reads alike: depth, keys, numbers, text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, Final, cast

from actors.p2p.workflow_scheduler.references import pointer_to

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**64 - 1
"""Integers that the formats in use here carry."""


_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

Keys = tuple[str | int, ...]
Problem = tuple[str, str]
"""Code and text."""


def problems_in(value: Any, max_depth: int, keys: Keys = ()) -> Iterator[Problem]:  # noqa: ANN401 - anything
    """All that is wrong with a value. `keys` lead to it, for the texts; each counts as one level."""
    if not _is_plain(value, max_depth - len(keys)):
        yield from _found_in(value, max_depth, keys)


def _is_plain(value: object, levels: int) -> bool:
    """Whether nothing is wrong: the fast way to the usual answer."""
    kind = type(value)
    if kind is str:
        return is_unicode(cast("str", value))
    if kind is dict:
        parts = cast("dict[object, object]", value)
        return levels > 0 and all(
            type(key) is str and is_unicode(key) and _is_plain(part, levels - 1) for key, part in parts.items()
        )
    if kind is list:
        return levels > 0 and all(_is_plain(part, levels - 1) for part in cast("list[object]", value))
    return _problem_with(value) is None


def _found_in(value: Any, max_depth: int, keys: Keys) -> Iterator[Problem]:  # noqa: ANN401 - anything
    if isinstance(value, (dict, list)):
        if len(keys) >= max_depth:
            yield "TOO_DEEP", f"{_at(keys[:8])}, … is nested more than {max_depth} levels deep"
        elif isinstance(value, list):
            for index, part in enumerate(value):
                yield from _found_in(part, max_depth, (*keys, index))
        else:
            yield from _problems_in_object(value, max_depth, keys)
    else:
        problem = _problem_with(value)
        if problem is not None:
            yield problem[0], f"{_at(keys)} {problem[1]}"


def _problems_in_object(value: dict[Any, Any], max_depth: int, keys: Keys) -> Iterator[Problem]:
    for key, part in value.items():
        if isinstance(key, str) and is_unicode(key):
            yield from _found_in(part, max_depth, (*keys, key))
        else:
            yield "BAD_VALUE", f"{_at(keys)}: the key {key!r} is no text"


def _problem_with(value: object) -> Problem | None:
    match value:
        case str():
            return None if is_unicode(value) else ("BAD_VALUE", "is no Unicode text")
        case None | bool():
            return None
        case int():
            is_fine = INT_MIN <= value <= INT_MAX
            return None if is_fine else ("BAD_NUMBER", "is an integer of more than 64 bits; give it as text")
        case float():
            return None if math.isfinite(value) else ("BAD_NUMBER", f"is {value}, which JSON has no number for")
        case _:
            return ("BAD_VALUE", f"is a {type(value).__name__}, which JSON has not; give it as text")


def _at(keys: tuple[str | int, ...]) -> str:
    return f"`{pointer_to(*keys)[1:]}`" if keys else "it"


def has_control_characters(text: str) -> bool:
    """Whether a name would harm what it is written into."""
    return _CONTROL.search(text) is not None


def without_control_characters(text: str) -> str:
    """The text with blanks in their place."""
    return _CONTROL.sub(" ", text)


def is_unicode(text: str) -> bool:
    """Whether it can be encoded."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
