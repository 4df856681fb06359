# SPDX-License-Identifier: AGPL-3.0-or-later
"""The OpenAPI 3.1 document, made from the catalogue and the REST Structs. https://spec.openapis.org/oas/v3.1.1"""

from __future__ import annotations

import importlib.metadata
import re
from typing import Any

import msgspec

from actors.tool_messages import ToolDescriptor
from gateway.top_level import described

Json = dict[str, Any]

_FAILURES = {
    403: "FORBIDDEN: not allowed by configuration",
    404: "UNKNOWN_TOOL: `details.nearest` has similar names",
    409: "QUARANTINED: this call ended processes; an operator has to release it",
    413: "BODY_TOO_LARGE",
    422: "INVALID_ARGUMENTS: the body or the arguments do not fit",
    500: "INTERNAL: a fault of the server itself; its log has the details",
    502: "TOOL_FAILED: the tool ran and failed. OUTCOME_UNKNOWN, ACTOR_DIED: it may or may not have taken effect",
    503: "BUSY, RUNTIME_UNAVAILABLE, BREAKER_OPEN: nothing ran, see `Retry-After`. UNAVAILABLE: a need is missing",
    504: "DEADLINE_EXCEEDED: the call was cancelled",
}


def _key(tool: ToolDescriptor) -> str:
    """The name of a tool's component: OpenAPI allows letters, digits, `.`, `-` and `_`."""
    return "tool." + re.sub(r"[^A-Za-z0-9._-]", "_", tool.name)


def _moved(schema: Any, base: str) -> Any:  # noqa: ANN401 - any JSON value
    """The schema with its local references made to hold at `base`; a part with an `$id` has its own base."""
    if isinstance(schema, list):
        return [_moved(item, base) for item in schema]
    if not isinstance(schema, dict) or "$id" in schema:
        return schema
    moved = {key: _moved(value, base) for key, value in schema.items()}
    reference = schema.get("$ref")
    if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
        moved["$ref"] = base + reference[1:]
    return moved


def document(tools: list[ToolDescriptor]) -> Json:
    """The document for these tools. Each tool's arguments are a component."""
    from gateway import rest  # it imports this module

    structs = [rest.ExecuteError, rest.ToolSummary, rest.ToolPage]
    _, components = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    callable_tools = [tool for tool in tools if not tool.broken]
    schemas: Json = dict(components)
    schemas["ExecuteResult"] = _execute_result(callable_tools)
    for tool in callable_tools:
        key = _key(tool)
        schemas[key] = _moved(msgspec.json.decode(tool.input_schema), f"#/components/schemas/{key}")
    schemas["ExecuteRequest"] = _execute_request(callable_tools)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Greenroom",
            "version": importlib.metadata.version("greenroom"),
            "description": "The tools over plain HTTP. MCP itself is at POST /mcp.",
            "license": {"name": "AGPL-3.0-or-later", "identifier": "AGPL-3.0-or-later"},
        },
        "paths": _paths(),
        "components": {"schemas": schemas},
    }


def _execute_request(tools: list[ToolDescriptor]) -> Json:
    one_of = [
        {
            "type": "object",
            "title": tool.name,
            "description": tool.description,
            "properties": {
                "tool": {"const": tool.name},
                "args": _ref(_key(tool)),
                "timeout_s": {"type": "number", "exclusiveMinimum": 0, "maximum": tool.timeout_s},
            },
            "required": ["tool"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    return {"oneOf": one_of} if one_of else {"not": {}}


def _execute_result(tools: list[ToolDescriptor]) -> Json:
    return {
        "type": "object",
        "properties": {
            "status": {"const": "success"},
            "result": {"description": "the tool's value"},
            **described(tools),
            "_runtime": {"enum": ["general", "p2p"]},
            "_duration_ms": {"type": "number"},
        },
        "required": ["status", "result", "_runtime", "_duration_ms"],
    }


def _reply(description: str, schema: Json | None = None, kind: str = "application/json") -> Json:
    return {"description": description, "content": {kind: {"schema": schema or {"type": "object"}}}}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _query(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def _paths() -> Json:
    failures = {str(status): _reply(text, _ref("ExecuteError")) for status, text in _FAILURES.items()}
    body = {"required": True, "content": {"application/json": {"schema": _ref("ExecuteRequest")}}}
    listing = [
        _query("limit", "tools on this page", {"type": "integer", "minimum": 1, "maximum": 500, "default": 100}),
        _query("offset", "tools to skip", {"type": "integer", "minimum": 0, "default": 0}),
        _query("category", "only this category", {"type": "string"}),
    ]
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "/tools/execute": {
            "post": {
                "operationId": "executeTool",
                "summary": "Run one tool",
                "requestBody": body,
                "responses": {"200": _reply("The tool's value", _ref("ExecuteResult")), **failures},
            }
        },
        "/tools": {
            "get": {
                "operationId": "listTools",
                "summary": "List the tools",
                "parameters": listing,
                "responses": {"200": _reply("A page", _ref("ToolPage")), "422": failures["422"]},
            }
        },
        "/tools/{name}": {
            "get": {
                "operationId": "describeTool",
                "summary": "Describe one tool",
                "parameters": [name],
                "responses": {"200": _reply("The tool with its schemas", _ref("ToolSummary")), "404": failures["404"]},
            }
        },
        "/healthz": {
            "get": {"operationId": "health", "summary": "Is the gateway alive", "responses": {"200": _reply("Yes")}}
        },
        "/readyz": {
            "get": {
                "operationId": "readiness",
                "summary": "Is every permanent actor ready",
                "responses": {"200": _reply("Yes"), "503": _reply("No; `not_ready` lists what is missing")},
            }
        },
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "Counts for Prometheus",
                "responses": {"200": _reply("Prometheus text", {"type": "string"}, "text/plain")},
            }
        },
    }
