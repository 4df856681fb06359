# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whether messages fit the official JSON Schema of their revision.

The schemas are not ours to ship. They are looked for in the folder that GREENROOM_MCP_SCHEMAS names, else in
`shared/reference/mcp-schema` beside the repository. Without them `AVAILABLE` is false and messages pass unchecked.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import msgspec

_BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "reference" / "mcp-schema"
FOLDER = Path(os.environ.get("GREENROOM_MCP_SCHEMAS", str(_BESIDE)))
LEGACY = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]
MODERN = "2026-07-28"
TASKS = "ext-tasks"
"""The schema of the tasks extension of 2026-07-28."""
_OF_TASKS = {"tasks/get": "GetTaskResult", "tasks/update": "UpdateTaskResult", "tasks/cancel": "CancelTaskResult"}
AVAILABLE = (FOLDER / f"{MODERN}.json").is_file()
_seen: set[tuple[str, str, bytes]] = set()


@cache
def _schema(version: str) -> tuple[str, dict[str, Any]]:
    """The name of the section that holds the definitions, and the definitions."""
    schema = msgspec.json.decode((FOLDER / f"{version}.json").read_bytes())
    section = "$defs" if "$defs" in schema else "definitions"
    return section, schema[section]


@cache
def _validator(version: str, name: str) -> Any:
    section, definitions = _schema(version)
    schema = msgspec.json.decode((FOLDER / f"{version}.json").read_bytes())
    kind = jsonschema.validators.validator_for(schema)
    # Draft 7 ignores what stands beside a `$ref`, so the root must hold nothing but the definitions.
    return kind({"$ref": f"#/{section}/{name}", section: definitions})


@cache
def _by_method(version: str) -> dict[str, str]:
    """Method -> definition of its request or notification."""
    found = {}
    for name, definition in _schema(version)[1].items():
        method = definition.get("properties", {}).get("method", {}).get("const")
        if method is not None:
            found[method] = name
    return found


@cache
def _by_code(version: str) -> dict[int, str]:
    """Code -> definition of a whole error message that has it."""
    found = {}
    for name, definition in _schema(version)[1].items():
        for part in definition.get("properties", {}).get("error", {}).get("allOf", ()):
            code = part.get("properties", {}).get("code", {}).get("const")
            if code is not None:
                found[code] = name
    return found


def check(version: str, name: str, message: object) -> None:
    """Raises `jsonschema.ValidationError` unless this is what the definition `name` says."""
    key = (version, name, msgspec.json.encode(message))
    if key not in _seen:  # many tests see the same messages
        _validator(version, name).validate(message)
        _seen.add(key)


def check_message(version: str, message: dict[str, Any], answers: str | None = None) -> None:
    """A message of a server: a response to the method `answers`, a notification or a request. Raises
    `jsonschema.ValidationError`, and AssertionError for a method that the revision has not."""
    named = "JSONRPCResultResponse" in _schema(version)[1]
    if version == MODERN and message.get("method") == "notifications/tasks":
        check(version, "JSONRPCNotification", message)
        check(TASKS, "TaskStatusNotification", message)
        _check_outcome(message["params"])
    elif "method" in message:
        known = _by_method(version)
        assert message["method"] in known, f"{version} has no {message['method']}"
        check(version, "JSONRPCRequest" if "id" in message else "JSONRPCNotification", message)
        check(version, known[message["method"]], message)
    elif "error" in message:
        check(version, "JSONRPCErrorResponse" if named else "JSONRPCError", message)
        if typed := _by_code(version).get(message["error"]["code"]):
            check(version, typed, message)
    else:
        result = message["result"]
        check(version, "JSONRPCResultResponse" if named else "JSONRPCResponse", message)
        if version == MODERN and (answers in _OF_TASKS or result.get("resultType") == "task"):
            check(TASKS, _OF_TASKS.get(answers or "", "CreateTaskResult"), result)
            _check_outcome(result)
        elif version == LEGACY[-1] and answers == "tools/call" and "task" in result:
            check(version, "CreateTaskResult", result)
        elif version == LEGACY[-1] and answers == "tasks/result":
            check(version, "CallToolResult", result)
        else:
            check(version, _result(version, result, answers), result)


def _check_outcome(task: dict[str, Any]) -> None:
    """What a task ended with is the result of a call."""
    if "result" in task:
        check(MODERN, "CallToolResult", task["result"])


def _result(version: str, result: dict[str, Any], method: str | None) -> str:
    """The definition of a result."""
    if version == MODERN and result.get("resultType") == "input_required":
        return "InputRequiredResult"
    request = _by_method(version).get(method or "")
    name = request.replace("Request", "Result") if request is not None else ""
    return name if name in _schema(version)[1] else "Result" if method is None else "EmptyResult"
