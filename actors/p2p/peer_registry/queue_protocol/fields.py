# SPDX-License-Identifier: AGPL-3.0-or-later
"""Values of a request. A field may have several names: the first that is there counts; null counts as not there.

What has another type or is out of bounds is refused as `invalid_message`, with a detail that names it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from actors.p2p.peer_registry.queue_protocol.words import INVALID_MESSAGE, Refusal

MOST_NAME: Final = 200
"""Characters of an id, a type or the like."""
MOST_WORKER_CHARS: Final = 100
"""Of a worker's id, or of a session's."""
MOST_TEXT: Final = 2000
"""Characters of a reason."""
MOST_NAMES: Final = 1000
"""In one list."""
Request = dict[str, Any]

_encode = msgspec.json.Encoder(order="deterministic").encode


def to_json(value: object) -> str:
    """Equal values as equal text, so that a repeated request is recognised."""
    return _encode(value).decode()


def value_of(request: Request, *fields: str) -> Any:  # noqa: ANN401 - JSON
    """Any value; None when it is not there."""
    for field in fields:
        if (value := request.get(field)) is not None:
            return value
    return None


def text(request: Request, *fields: str, most: int = MOST_NAME) -> str:
    """A text; empty when it is not there."""
    value = value_of(request, *fields)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Refusal(INVALID_MESSAGE, f"{fields[0]} must be text")
    if len(value) > most:
        raise Refusal(INVALID_MESSAGE, f"{fields[0]} may have {most} characters")
    return value.strip()


def hint(payload: Request, *fields: str) -> str:
    """A text in a payload, which is its submitter's own: what is none, or too long for a name, means nothing."""
    value = value_of(payload, *fields)
    return value if isinstance(value, str) and len(value) <= MOST_WORKER_CHARS else ""


def required(request: Request, missing: str, *fields: str, most: int = MOST_NAME) -> str:
    """A text that must be there, or else it is `missing`."""
    found = text(request, *fields, most=most)
    if not found:
        raise Refusal(missing)
    return found


def number(request: Request, field: str, *, default: float, least: float, most: float) -> float:
    """A number within bounds."""
    value = request.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise Refusal(INVALID_MESSAGE, f"{field} must be a number from {least:g} to {most:g}")
    return float(value)


def count(request: Request, *fields: str, default: int, most: int) -> int:
    """A whole number from 1."""
    value = value_of(request, *fields)
    if value is None:
        return default
    if type(value) is not int or not 1 <= value <= most:
        raise Refusal(INVALID_MESSAGE, f"{fields[0]} must be a whole number from 1 to {most}")
    return value


def flag(request: Request, *fields: str, default: bool) -> bool:
    """True or false."""
    value = value_of(request, *fields)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise Refusal(INVALID_MESSAGE, f"{fields[0]} must be true or false")
    return value


def names(request: Request, *fields: str) -> list[str]:
    """A list of texts, or one text with commas."""
    value = value_of(request, *fields)
    if value is None:
        return []
    found = value.split(",") if isinstance(value, str) else value
    if not isinstance(found, list) or len(found) > MOST_NAMES:
        raise Refusal(INVALID_MESSAGE, f"{fields[0]} must be a list of at most {MOST_NAMES} texts")
    for one in found:
        if not isinstance(one, str) or len(one) > MOST_NAME:
            raise Refusal(INVALID_MESSAGE, f"{fields[0]} must hold texts of at most {MOST_NAME} characters")
    return [one.strip() for one in found if one.strip()]


def as_object(value: object, name: str) -> dict[str, Any]:
    """An object; anything else becomes one with this member, and nothing an empty one."""
    if value is None:
        return {}
    return value if isinstance(value, dict) else {name: value}
