# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a client can be asked, and how questions look at its revision. Pure functions.

Capabilities go by dotted names (`elicitation.url`); those of one client are a tuple of names, as in `ToolCall.can`.
Questions come in the words of the newest revisions; `for_revision` says them in those of an older one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from actors.errors import CannotAskError
from actors.tool_messages import Question
from gateway.mcp.eras import VERSIONS, C, D, E
from gateway.mcp.jsonrpc import MISSING_CAPABILITY, McpError

Can = tuple[str, ...]
Declared = Callable[..., bool]
"""Says whether a client declared the capability at a path, such as `("sampling", "tools")`."""

_OLD_MEMBERS: Final = frozenset(
    {"type", "title", "description", "minLength", "maxLength", "format", "minimum", "maximum", "enum", "enumNames"}
)
"""What members of a form may have at 2025-06-18, besides the default of a boolean."""


def can_be_asked(declared: Declared, revision: int) -> Can:
    """The names of all that a client of this revision can be asked."""
    can: list[str] = []
    if revision >= C and declared("elicitation"):
        url = revision >= D and declared("elicitation", "url")
        # An empty object means forms; naming only addresses means only these.
        if not url or declared("elicitation", "form"):
            can.append("elicitation")
        if url:
            can.append("elicitation.url")
    if declared("sampling"):
        can.append("sampling")
        if revision >= D and declared("sampling", "tools"):
            can.append("sampling.tools")
        if revision < D or declared("sampling", "context"):
            can.append("sampling.context")
    if declared("roots"):
        can.append("roots")
    return tuple(can)


def declared_in(capabilities: dict[str, Any]) -> Declared:
    """For `can_be_asked`: what a `ClientCapabilities` object declares."""

    def declared(*path: str) -> bool:
        value: Any = capabilities
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        # An empty object declares a capability; `false` and null do not.
        return value is not None and value is not False

    return declared


def missing(required: Sequence[str], can: Can) -> McpError | None:
    """Error -32021 when a client lacks what is required of it."""
    lacking = [name for name in required if name not in can]
    if not lacking:
        return None
    tree: dict[str, Any] = {}
    for name in lacking:
        place = tree
        for part in name.split("."):
            place = place.setdefault(part, {})
    return missing_capability(f"this needs a client that declares {', '.join(lacking)}", tree)


def missing_capability(message: str, required: object) -> McpError:
    """Error -32021; `required` is a `ClientCapabilities` object."""
    return McpError(MISSING_CAPABILITY, message, {"requiredCapabilities": required or {}})


def for_revision(question: Question, revision: int) -> dict[str, Any]:
    """The params of a question at a revision. Raises `CannotAskError` when that revision has no words for it."""
    params: dict[str, Any] = msgspec.json.decode(question.params)
    if question.method != "elicitation/create":
        return params
    if revision == E:
        params.pop("elicitationId", None)
    elif params.get("mode") == "url":
        params.setdefault("elicitationId", question.key)
    if revision < D:
        params.pop("mode", None)
        schema = params["requestedSchema"]
        members = {name: _old_member(name, member) for name, member in schema["properties"].items()}
        params["requestedSchema"] = {**schema, "properties": members}
    return params


def _old_member(name: str, member: dict[str, Any]) -> dict[str, Any]:
    """A member of a form at 2025-06-18: no defaults but of booleans, titles of choices in `enumNames`, no lists."""
    if member.get("type") == "array":
        raise CannotAskError(
            f"the client's protocol version ({VERSIONS[C]}) has no lists in forms, and {name} is one", capabilities={}
        )
    made = {key: value for key, value in member.items() if key in _OLD_MEMBERS}
    if "oneOf" in member:
        made["enum"] = [choice["const"] for choice in member["oneOf"]]
        made["enumNames"] = [choice["title"] for choice in member["oneOf"]]
    if member.get("type") == "boolean" and "default" in member:
        made["default"] = member["default"]
    return made
