# SPDX-License-Identifier: AGPL-3.0-or-later
"""Errors of Greenroom as errors of the protocol."""

from __future__ import annotations

from actors.errors import InvalidArgumentsError, MCPServerError, NotFoundError, ToolExecutionError, code_of
from actors.jsonrpc import INTERNAL_ERROR, INVALID_PARAMS
from gateway.mcp.jsonrpc import McpError


def protocol_error(what: str, error: MCPServerError, data: dict[str, object]) -> McpError:
    """What failed, as an error of the protocol: there is no other way to say it beside the results of tools."""
    if isinstance(error, (InvalidArgumentsError, NotFoundError)):
        return McpError(INVALID_PARAMS, error.message, data or None)
    message = f"{what} failed: {error.cause}" if isinstance(error, ToolExecutionError) else error.message
    ours = {"greenroom/code": code_of(error), "greenroom/retryable": error.retryable}
    return McpError(INTERNAL_ERROR, message, data | ours)


def may_pass(error: McpError) -> bool:
    """Whether what `protocol_error` told of may be otherwise in a moment."""
    return isinstance(error.data, dict) and error.data.get("greenroom/retryable") is True
