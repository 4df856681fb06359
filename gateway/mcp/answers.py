# SPDX-License-Identifier: AGPL-3.0-or-later
"""Checks what a client answers to a question, before a tool sees it. Pure functions.

`read_answer` returns the answer as the tool gets it, with what is not asked for left out, or raises `BadAnswerError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any, Final

import msgspec

from actors.tool_messages import Question

# Tuples: a client may send a value that has no hash.
_ROLES: Final = ("user", "assistant")
_BLOCKS: Final = ("text", "image", "audio", "tool_use", "tool_result")


class BadAnswerError(ValueError):
    """The answer does not fit the question, for the reason given."""


def read_answer(question: Question, answer: bytes) -> bytes:
    """The answer (JSON text), checked."""
    try:
        value = msgspec.json.decode(answer)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as problem:
        raise BadAnswerError(f"no JSON: {problem}") from None
    if not isinstance(value, dict):
        raise BadAnswerError("the answer must be an object")
    if question.method == "elicitation/create":
        return msgspec.json.encode(_elicited(msgspec.json.decode(question.params), value))
    if question.method == "sampling/createMessage":
        _check_sampled(value)
    else:
        _check_roots(value)
    return answer


def _elicited(params: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    action = answer.get("action")
    if action not in ("accept", "decline", "cancel"):
        raise BadAnswerError("action must be accept, decline or cancel")
    if action != "accept" or params.get("mode") == "url":
        return {"action": action}
    content = answer.get("content")
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise BadAnswerError("content must be an object")
    schema = params["requestedSchema"]
    # Some clients send null for what the user left empty.
    given = {name: value for name, value in content.items() if value is not None and name in schema["properties"]}
    for name in schema.get("required", ()):
        if name not in given:
            raise BadAnswerError(f"content.{name} is missing")
    for name, value in given.items():
        _CHECKS[schema["properties"][name]["type"]](f"content.{name}", schema["properties"][name], value)
    return {"action": action, "content": given}


def _check_text(name: str, member: Mapping[str, Any], value: object) -> None:
    if not isinstance(value, str):
        raise BadAnswerError(f"{name} must be text")
    allowed = _choices(member, "oneOf")
    if allowed is not None and value not in allowed:
        raise BadAnswerError(f"{name} must be one of {', '.join(allowed)}")
    if not member.get("minLength", 0) <= len(value) <= member.get("maxLength", len(value)):
        raise BadAnswerError(f"{name} is too short or too long")
    if not _FORMATS.get(member.get("format", ""), _anything)(value):
        raise BadAnswerError(f"{name} is no {member['format']}")


def _check_number(name: str, member: Mapping[str, Any], value: object) -> None:
    whole = member["type"] == "integer"
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise BadAnswerError(f"{name} must be {'a whole' if whole else 'a'} number")
    if not member.get("minimum", value) <= value <= member.get("maximum", value):
        raise BadAnswerError(f"{name} is too small or too large")


def _check_boolean(name: str, _member: Mapping[str, Any], value: object) -> None:
    if not isinstance(value, bool):
        raise BadAnswerError(f"{name} must be true or false")


def _check_list(name: str, member: Mapping[str, Any], value: object) -> None:
    allowed = _choices(member["items"], "anyOf") or ()
    if not isinstance(value, list) or not all(isinstance(item, str) and item in allowed for item in value):
        raise BadAnswerError(f"{name} must be a list of {', '.join(allowed)}")
    if not member.get("minItems", 0) <= len(value) <= member.get("maxItems", len(value)):
        raise BadAnswerError(f"{name} has too few or too many items")


_CHECKS: Final[dict[str, Callable[[str, Mapping[str, Any], object], None]]] = {
    "string": _check_text,
    "number": _check_number,
    "integer": _check_number,
    "boolean": _check_boolean,
    "array": _check_list,
}


def _choices(member: Mapping[str, Any], titled: str) -> list[str] | None:
    if titled in member:
        return [choice["const"] for choice in member[titled]]
    return member.get("enum")


def _anything(_: str) -> bool:
    return True


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_moment(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return "T" in text.upper()


_FORMATS: Final[dict[str, Callable[[str], bool]]] = {
    "date": _is_date,
    "date-time": _is_moment,
    "email": lambda text: "@" in text[1:-1],
    "uri": lambda text: ":" in text[1:],
}


def _check_sampled(answer: dict[str, Any]) -> None:
    if answer.get("role") not in _ROLES:
        raise BadAnswerError("role must be user or assistant")
    if not isinstance(answer.get("model"), str):
        raise BadAnswerError("model must be the name of a model")
    content = answer.get("content")
    for block in content if isinstance(content, list) else [content]:
        if not isinstance(block, dict) or block.get("type") not in _BLOCKS:
            raise BadAnswerError("content must be a block of text, an image, audio, or a use of a tool")
        if block["type"] == "text" and not isinstance(block.get("text"), str):
            raise BadAnswerError("a block of text needs its text")


def _check_roots(answer: dict[str, Any]) -> None:
    roots = answer.get("roots")
    if not isinstance(roots, list):
        raise BadAnswerError("roots must be a list")
    for root in roots:
        if not isinstance(root, dict) or not isinstance(root.get("uri"), str):
            raise BadAnswerError("each root needs a uri")
        if not isinstance(root.get("name", ""), str):
            raise BadAnswerError("the name of a root is text")
