# SPDX-License-Identifier: AGPL-3.0-or-later
"""Routing headers of revision 2026-07-28: `Mcp-Method`, `Mcp-Name`, `Mcp-Param-*` against the body. Pure functions.

The body is the truth; the headers repeat parts of it for intermediaries. A header that says something else is refused
(-32020), because whoever routed by it was misled.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from actors.jsonrpc import INVALID_PARAMS
from actors.param_headers import PARAM_PREFIX, ParamRule
from gateway.mcp.jsonrpc import HEADER_MISMATCH, McpError

NAME_FIELDS: Final = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
"""Method -> the member of params that `Mcp-Name` repeats."""

_ROUTING: Final = frozenset({"mcp-protocol-version", "mcp-method", "mcp-name"})
_WRAP_START, _WRAP_END = "=?base64?", "?="
_INTEGER: Final = re.compile(r"(-?[0-9]{1,400})(?:\.0{1,400})?")


def mismatch(message: str) -> McpError:
    """Error -32020."""
    return McpError(HEADER_MISMATCH, message)


def check_not_repeated(repeated: Iterable[str]) -> None:
    """Refuse a routing header that came twice: two readers may see two values."""
    for name in repeated:
        if name in _ROUTING or name.startswith(PARAM_PREFIX):
            raise mismatch(f"header {name} was given more than once")


def unwrap(value: str) -> str:
    """The text that a header value stands for. Raises -32020 for a broken base64 wrapping."""
    value = value.strip(" \t")
    if not (value.startswith(_WRAP_START) and value.endswith(_WRAP_END)):
        return value
    inner = value[len(_WRAP_START) : -len(_WRAP_END)]
    try:
        data = base64.b64decode(inner, validate=True)
        if base64.b64encode(data).decode() != inner:
            raise mismatch("a header's base64 is not canonical")
        return data.decode()
    except (binascii.Error, ValueError):
        raise mismatch("a header's base64 wrapping can't be decoded") from None


def check_name(header: str | None, value: object) -> None:
    """`Mcp-Name` must be there and repeat `value`."""
    if header is None:
        raise mismatch("header Mcp-Name is missing")
    if header == value and not header.startswith(_WRAP_START):
        return
    if unwrap(header) != value:
        raise mismatch("header Mcp-Name differs from the body")


def check_params(
    rules: tuple[ParamRule, ...], headers: Mapping[str, str], arguments: bytes, *, may_lack: bool = False
) -> None:
    """Raise -32020 unless each annotated argument and its header say the same, or are both absent. `may_lack`: headers
    may be missing, but may not say something else."""
    try:
        values = msgspec.json.decode(arguments or b"{}")
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as problem:
        raise McpError(INVALID_PARAMS, f"arguments: {problem}") from None
    for rule in rules:
        value = _at(values, rule.path)
        header = headers.get(rule.header)
        if header is None and (value is None or may_lack):
            continue
        if header is None:
            raise mismatch(f"header {rule.header} is missing for argument {'.'.join(rule.path)}")
        if value is None or not _same(unwrap(header), value):
            raise mismatch(f"header {rule.header} differs from argument {'.'.join(rule.path)}")


def _at(values: object, path: tuple[str, ...]) -> object:
    for name in path:
        values = values.get(name) if isinstance(values, dict) else None
    return values


def _same(text: str, value: object) -> bool:
    """Compare with the value's own type: whether that type fits the schema is the tool's to say."""
    if isinstance(value, str):
        return text == value
    if isinstance(value, bool):
        return text == ("true" if value else "false")
    if isinstance(value, (int, float)):
        found = _INTEGER.fullmatch(text)
        return int(found[1]) == value if found else text == str(value)
    return False
