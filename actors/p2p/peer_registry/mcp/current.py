# SPDX-License-Identifier: AGPL-3.0-or-later
"""The current binding (`mcp-binding/2026-07-28`): no handshake; each request says its version and capabilities."""

from __future__ import annotations

from typing import Final

from msgspec import UNSET

from actors.errors import MCPServerError
from actors.jsonrpc import INVALID_PARAMS, METHOD_NOT_FOUND, UNSUPPORTED_VERSION, RpcError
from actors.p2p.peer_registry.mcp import failures
from actors.p2p.peer_registry.mcp.answering import LISTED_BYTES, Answering, cursor_of
from actors.p2p.peer_registry.mcp.profiles import (
    check_binding,
    current_capabilities,
    limits_of,
    most_bytes_of,
    read_current,
)
from actors.p2p.peer_registry.mcp.rpc import CURRENT_BINDING, CURRENT_VERSION, Frame, Meta, Params, params_of
from actors.p2p.peer_registry.mcp.shaping import Shaper, page, shown_tool

SUPPORTED: Final = [CURRENT_VERSION]
_OF_LEGACY: Final = ("initialize", "notifications/initialized")


class Current:
    """Answers the requests of one stream."""

    def __init__(self, answering: Answering, peer_id: str) -> None:
        self._answering = answering
        self._peer_id = peer_id
        self._shaper = Shaper(answering.face.info())
        self.most_bytes = answering.settings.max_frame_bytes
        """Of an answer: what the peer takes."""
        self.most_frames: int | None = None
        """Messages that the peer may send on the stream."""

    async def answer(self, frame: Frame) -> bytes:
        """The result of a request. Raises `RpcError` and `MCPServerError`."""
        if frame.method in _OF_LEGACY:
            said = {
                "bindingId": CURRENT_BINDING,
                "supportedVersions": SUPPORTED,
                "reason": "initialize_as_current_rejected",
            }
            raise RpcError(METHOD_NOT_FOUND, f"{frame.method} is not a method of {CURRENT_BINDING}", said)
        params = params_of(frame)
        meta = self._checked(params.meta)
        if frame.method == "server/discover":
            return self._discovered()
        if frame.method not in ("tools/list", "tools/call"):
            raise RpcError(METHOD_NOT_FOUND, f"there is no method {frame.method[:200]!r}")
        self._answering.authorize(self._peer_id, meta)
        return self._listed(params) if frame.method == "tools/list" else await self._called(params)

    def error(self, error: MCPServerError) -> RpcError:
        """What a request failed with, in the words of this binding."""
        return failures.as_current(error)

    def _checked(self, meta: Meta | None) -> Meta:
        if meta is None or type(meta.version) is not str:
            raise RpcError(INVALID_PARAMS, "params._meta needs io.modelcontextprotocol/protocolVersion, a text")
        if meta.version != CURRENT_VERSION:
            said = {"supported": SUPPORTED, "requested": meta.version[:100]}
            raise RpcError(UNSUPPORTED_VERSION, "Unsupported protocol version", said)
        if type(meta.capabilities) is not dict:
            raise RpcError(INVALID_PARAMS, "params._meta needs io.modelcontextprotocol/clientCapabilities, an object")
        check_binding(None if meta.binding is UNSET else meta.binding, CURRENT_BINDING)
        read_current(meta.capabilities)
        ours = self._answering.settings.max_frame_bytes
        self.most_bytes = min(ours, most_bytes_of(limits_of(meta.capabilities), ours))
        return meta

    def _discovered(self) -> bytes:
        answering = self._answering
        offered = current_capabilities(answering.face.profiles, answering.limits())
        members = {"supportedVersions": SUPPORTED, "capabilities": {"tools": {}, **offered}}
        return self._shaper.told(members)

    def _listed(self, params: Params) -> bytes:
        tools = [shown_tool(tool) for tool in self._answering.tools.list(self._peer_id)]
        shown, following = page(tools, cursor_of(params), min(LISTED_BYTES, self.most_bytes // 2))
        members: dict[str, object] = {"tools": shown}
        if following is not None:
            members["nextCursor"] = following
        return self._shaper.told(members)

    async def _called(self, params: Params) -> bytes:
        try:
            return self._shaper.called(await self._answering.call(self._peer_id, params))
        except MCPServerError as error:
            if failures.is_refusal(error):
                raise
            return self._shaper.failed(error)
