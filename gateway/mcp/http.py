# SPDX-License-Identifier: AGPL-3.0-or-later
"""Content negotiation, and the headers of answers. The values themselves (`Request`, `Answer`, `Stream`) are those of
`gateway.types`. The header lists here are shared between answers: treat them as read-only.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import msgspec

Headers = list[tuple[str, str]]

JSON_HEADERS: Final[Headers] = [("content-type", "application/json")]
SSE_HEADERS: Final[Headers] = [("content-type", "text/event-stream")]
NO_HEADERS: Final[Headers] = []


class Accepts(msgspec.Struct, frozen=True):
    """What the client takes."""

    json: bool
    sse: bool
    both_named: bool
    """Both types are listed by name, as the specification wants of every POST."""


@lru_cache(maxsize=64)
def accepts(header: str | None) -> Accepts:
    """Read an Accept header. None (no header) takes all; a type with `q=0` is not taken."""
    if header is None:
        return Accepts(json=True, sse=True, both_named=False)
    named: set[str] = set()
    for part in header.lower().split(","):
        kind, *parameters = [piece.strip() for piece in part.split(";")]
        if not any(_is_zero(parameter) for parameter in parameters):
            named.add(kind)
    any_kind = "*/*" in named
    json = any_kind or bool(named & {"application/json", "application/*"})
    sse = any_kind or bool(named & {"text/event-stream", "text/*"})
    return Accepts(json=json, sse=sse, both_named={"application/json", "text/event-stream"} <= named)


def _is_zero(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip() == "q" and value.strip().rstrip("0") in {"", "0.", "."} and value.strip() != ""


@lru_cache(maxsize=64)
def is_json(content_type: str) -> bool:
    """Whether a Content-Type says JSON."""
    return content_type.partition(";")[0].strip().lower() == "application/json"


def sse(message: bytes) -> bytes:
    """One JSON-RPC message as an SSE frame. The message must be one line."""
    return b"event: message\ndata: " + message + b"\n\n"
