# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tools over plain HTTP: run one, list them, describe one, and the OpenAPI document of all that.

A failed call answers `{"status": "error", "error": {code, message, retryable, details}}`; `HTTP_STATUS` says with which
status. A tool's own failure is a 502: the gateway works, what it forwards to does not. So is an unknown outcome, which
must not be repeated blindly; a 503 may be repeated.
"""

from __future__ import annotations

import difflib
import math
import secrets
import time
from typing import Annotated

import msgspec
from msgspec import Meta
from quart import Response, g, request
from quart_trio import QuartTrio

from actors.catalogue_view import CatalogueView
from actors.errors import InvalidArgumentsError, MCPServerError, UnknownToolError, to_info
from actors.messages import ErrorInfo
from actors.tool_messages import ToolAnnotations, ToolCall, ToolDescriptor, ToolResult
from gateway import openapi
from gateway.top_level import fields_of, raised
from gateway.types import Answer, Backend

_LONGEST_S = 60.0
HTTP_STATUS = {
    "UNKNOWN_TOOL": 404,
    "INVALID_ARGUMENTS": 422,
    "FORBIDDEN": 403,
    "QUARANTINED": 409,
    "TOOL_FAILED": 502,
    "OUTCOME_UNKNOWN": 502,
    "ACTOR_DIED": 502,
    "BUSY": 503,
    "RUNTIME_UNAVAILABLE": 503,
    "UNAVAILABLE": 503,
    "BREAKER_OPEN": 503,
    "DEADLINE_EXCEEDED": 504,
    "INTERNAL": 500,
}
"""Error code -> status. Other codes: 503 when retryable, else 502."""

RETRY_AFTER_S = 1
"""Sent with every 503 whose error is retryable and does not know better (`details.retry_after_s`)."""
MAX_PAGE = 500


class ExecuteRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /tools/execute`."""

    tool: str
    args: dict[str, msgspec.Raw] = {}
    """The tool's arguments, passed on as they are."""
    timeout_s: Annotated[float, Meta(gt=0)] | None = None
    """Seconds; at most the tool's own time-out, which is the default."""


class ExecuteError(msgspec.Struct):
    """A call that failed. `_runtime` is '' when it is not known."""

    status: str
    error: ErrorInfo
    runtime: str = msgspec.field(name="_runtime")
    duration_ms: float = msgspec.field(name="_duration_ms")


class ToolSummary(msgspec.Struct):
    """One tool in a list."""

    name: str
    title: str
    description: str
    category: str
    runtime: str
    timeout_s: float
    retry_safe: bool
    annotations: ToolAnnotations
    broken: str
    """Why it can't be called; '' when it can."""


class ToolDetail(ToolSummary):
    """One tool with the JSON Schemas of its arguments and its result."""

    input_schema: msgspec.Raw
    output_schema: msgspec.Raw | None


class ToolPage(msgspec.Struct):
    """A part of the list of tools."""

    tools: list[ToolSummary]
    total_count: int
    """CatalogueView that match, on all pages."""
    limit: int
    offset: int
    has_more: bool


def json_answer(status: int, value: object, headers: list[tuple[str, str]] | None = None) -> Answer:
    """An answer with a JSON body."""
    return Answer(status, [("content-type", "application/json"), *(headers or [])], msgspec.json.encode(value))


def status_of(error: ErrorInfo) -> int:
    """The HTTP status of an error."""
    return HTTP_STATUS.get(error.code, 503 if error.retryable else 502)


def _retry_after_s(error: ErrorInfo) -> int:
    wanted = error.details.get("retry_after_s")
    return max(1, math.ceil(wanted)) if isinstance(wanted, (int, float)) else RETRY_AFTER_S


def error_answer(error: BaseException, runtime: str = "", duration_ms: float = 0.0) -> Answer:
    """The answer to a call that failed."""
    info = to_info(error)
    status = status_of(info)
    headers = [("retry-after", str(_retry_after_s(info)))] if status == 503 and info.retryable else []
    return json_answer(status, ExecuteError("error", info, runtime, duration_ms), headers)


def add_routes(app: QuartTrio, backend: Backend) -> None:
    """Put the routes of this module into the application."""
    from gateway.app import respond

    @app.post("/tools/execute")
    async def execute() -> Response:
        body = await request.get_data(cache=False, as_text=False, parse_form_data=False)
        return respond(await run_tool(backend, bytes(body), g.principal))

    @app.get("/tools")
    async def tools() -> Response:
        return respond(list_tools(backend.catalogue, dict(request.args)))

    @app.get("/tools/<path:name>")
    async def tool(name: str) -> Response:
        return respond(describe_tool(backend.catalogue, name))

    @app.get("/openapi.json")
    async def document() -> Response:
        return respond(json_answer(200, openapi.document(backend.catalogue.tools)))


async def run_tool(backend: Backend, body: bytes, principal: str) -> Answer:
    """Answer `POST /tools/execute`."""
    began = time.perf_counter()
    runtime = ""
    try:
        wanted = _read_call(body)
        tool = backend.catalogue.get(wanted.tool)
        # A tool that is not listed goes the same way: the backend knows whether it is unknown, broken or switched off.
        longest = _LONGEST_S if tool is None else tool.timeout_s
        runtime = "" if tool is None else tool.runtime
        call = ToolCall(
            name=wanted.tool,
            arguments=msgspec.json.encode(wanted.args),
            call_id=f"rest-{secrets.token_hex(12)}",
            principal=principal,
        )
        result = await backend.call(call, timeout_s=min(wanted.timeout_s or longest, longest))
    except MCPServerError as error:
        return error_answer(error, runtime, _since(began))
    return _result_answer(wanted.tool, result, fields_of(tool))


def _since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 3)


def _read_call(body: bytes) -> ExecuteRequest:
    try:
        return msgspec.json.decode(body, type=ExecuteRequest)
    except msgspec.ValidationError as error:
        raise InvalidArgumentsError(f"the body does not fit: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgumentsError(f"the body is not JSON: {error}") from None


def _result_answer(tool: str, result: ToolResult, top_level: list[str]) -> Answer:
    """A finished call. `result` is the tool's value, `_runtime` where it ran, `_duration_ms` how long it took."""
    if result.is_error:
        info = ErrorInfo(
            code="TOOL_FAILED",
            message=f"tool {tool} answered with an error; details.result has what it said",
            details={"tool": tool, "result": msgspec.json.decode(result.value)},
        )
        return json_answer(status_of(info), ExecuteError("error", info, result.runtime, result.duration_ms))
    body: dict[str, object] = {"status": "success", "result": msgspec.Raw(result.value)}
    body |= raised(top_level, result)
    return json_answer(200, body | {"_runtime": result.runtime, "_duration_ms": result.duration_ms})


def _find(catalogue: CatalogueView, name: str) -> ToolDescriptor:
    """The tool of this name. Raises UnknownToolError, which names the nearest ones."""
    tool = catalogue.get(name)
    if tool is not None:
        return tool
    nearest = difflib.get_close_matches(name, [tool.name for tool in catalogue.tools], n=3)
    hint = f"; did you mean {nearest[0]}?" if nearest else "; GET /tools lists them"
    raise UnknownToolError(f"no tool is named {name!r}{hint}", tool=name, nearest=nearest)


def list_tools(catalogue: CatalogueView, query: dict[str, str]) -> Answer:
    """Answer `GET /tools`: `limit` (1-500, default 100), `offset`, and `category`."""
    try:
        limit = _number(query, "limit", 100, low=1, high=MAX_PAGE)
        offset = _number(query, "offset", 0, low=0, high=2**31)
    except InvalidArgumentsError as error:
        return error_answer(error)
    category = query.get("category")
    found = [tool for tool in catalogue.tools if category is None or tool.category == category]
    shown = found[offset : offset + limit]
    page = ToolPage([_summary(tool) for tool in shown], len(found), limit, offset, offset + len(shown) < len(found))
    return json_answer(200, page)


def _number(query: dict[str, str], name: str, default: int, *, low: int, high: int) -> int:
    text = query.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 10 or not low <= int(text) <= high:
        raise InvalidArgumentsError(f"{name} must be a whole number from {low} to {high}", parameter=name)
    return int(text)


def describe_tool(catalogue: CatalogueView, name: str) -> Answer:
    """Answer `GET /tools/{name}`."""
    try:
        tool = _find(catalogue, name)
    except UnknownToolError as error:
        return error_answer(error)
    output = msgspec.Raw(tool.output_schema) if tool.output_schema is not None else None
    fields = {field: getattr(tool, field) for field in ToolSummary.__struct_fields__}
    return json_answer(200, ToolDetail(**fields, input_schema=msgspec.Raw(tool.input_schema), output_schema=output))


def _summary(tool: ToolDescriptor) -> ToolSummary:
    return ToolSummary(**{field: getattr(tool, field) for field in ToolSummary.__struct_fields__})
