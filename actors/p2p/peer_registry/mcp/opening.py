# SPDX-License-Identifier: AGPL-3.0-or-later
"""How a stream to another node is begun, and what that node says of itself.

The current binding is tried first, by a question that changes nothing. A node that does not know it is spoken to in the
legacy binding, on a new stream; what it said is kept by the caller, never changed in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeVar

import msgspec

from actors.errors import UnavailableError
from actors.jsonrpc import INVALID_REQUEST, META, METHOD_NOT_FOUND, UNSUPPORTED_VERSION, RpcError
from actors.p2p.peer_registry.mcp.asking import AskedStream
from actors.p2p.peer_registry.mcp.profiles import (
    Profiles,
    current_capabilities,
    legacy_capabilities,
    limits_of,
    most_bytes_of,
    read_current,
    read_legacy,
)
from actors.p2p.peer_registry.mcp.rpc import (
    BINDING_KEY,
    CURRENT_BINDING,
    CURRENT_VERSION,
    INIT_REQUIRED,
    LEGACY_BINDING,
    LEGACY_VERSION,
    TOKEN_KEY,
)

Binding = Literal["mcp-binding/2026-07-28", "mcp-binding/legacy-2024-11-05"]
UNKNOWN_LIMIT_BYTES: Final = 1 << 20
"""What a peer takes in one message when it does not say."""
_NO_CURRENT: Final = (INIT_REQUIRED, INVALID_REQUEST, METHOD_NOT_FOUND, UNSUPPORTED_VERSION)
_MOST_TEXT: Final = 200


class RemoteServer(msgspec.Struct, frozen=True, kw_only=True):
    """What the other side says of itself. Nothing of it is proven."""

    binding: Binding
    name: str
    version: str
    profiles: list[str]
    """Those that both sides have."""
    most_bytes: int
    """Of a message to it."""
    most_frames: int | None
    """Messages that it takes on one stream."""


class ClientFace(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks."""

    name: str
    version: str
    profiles: Profiles
    most_bytes: int
    """Of an answer that is taken."""

    def meta(self, token: str) -> dict[str, object]:
        """`_meta` of a request in the current binding; without a token (''), none is shown."""
        meta: dict[str, object] = {
            META + "protocolVersion": CURRENT_VERSION,
            META + "clientCapabilities": current_capabilities(self.profiles, {"max_frame_bytes": self.most_bytes}),
            META + "clientInfo": {"name": self.name, "version": self.version},
            BINDING_KEY: CURRENT_BINDING,
        }
        return meta | {TOKEN_KEY: token} if token else meta


class _Discovered(msgspec.Struct):
    versions: Any = msgspec.field(name="supportedVersions", default=None)
    capabilities: Any = None
    meta: Any = msgspec.field(name="_meta", default=None)


class _Initialized(msgspec.Struct):
    version: Any = msgspec.field(name="protocolVersion", default=None)
    capabilities: Any = None
    info: Any = msgspec.field(name="serverInfo", default=None)
    negotiation: Any = msgspec.field(name="profile_negotiation", default=None)
    limits: Any = None
    ok: Any = None
    """Of deployed nodes that name no version."""


T = TypeVar("T")
_discovered = msgspec.json.Decoder(_Discovered)
_initialized = msgspec.json.Decoder(_Initialized)


def knows_no_current(error: RpcError) -> bool:
    """Whether what a node answers to the first question means that it may speak the legacy binding."""
    return error.code in _NO_CURRENT


async def open_current(asked: AskedStream, face: ClientFace, timeout_s: float) -> RemoteServer:
    """Begin in the current binding. Raises what `AskedStream.ask` raises, and `RpcError` as if the other side had said
    that it does not know this version, when it names others only."""
    said = _read(await asked.ask("server/discover", {"_meta": face.meta("")}, timeout_s), _discovered)
    if not isinstance(said.versions, list) or CURRENT_VERSION not in said.versions:
        raise RpcError(UNSUPPORTED_VERSION, "the peer does not support the current version")
    limits = limits_of(said.capabilities)
    info = said.meta.get(META + "serverInfo") if isinstance(said.meta, dict) else None
    return RemoteServer(
        binding="mcp-binding/2026-07-28",
        profiles=_both(face, _profiles(read_current, said.capabilities)),
        most_bytes=most_bytes_of(limits, UNKNOWN_LIMIT_BYTES),
        most_frames=None,
        **_info(info),
    )


async def open_legacy(asked: AskedStream, face: ClientFace, timeout_s: float) -> RemoteServer:
    """Begin in the legacy binding. Raises what `AskedStream.ask` raises and `StreamBrokenError`."""
    params: dict[str, object] = {
        "protocolVersion": LEGACY_VERSION,
        "capabilities": legacy_capabilities(face.profiles),
        "clientInfo": {"name": face.name, "version": face.version},
    }
    said = _read(await asked.ask("initialize", params, timeout_s), _initialized)
    if said.version is None and said.ok is not True:
        raise UnavailableError("the peer's answer to initialize is not of MCP")
    if said.version not in (None, LEGACY_VERSION):
        raise UnavailableError(f"the peer speaks MCP {str(said.version)[:_MOST_TEXT]}, and this node {LEGACY_VERSION}")
    await asked.tell("notifications/initialized")
    names = _profiles(read_legacy, said.capabilities)
    if isinstance(said.negotiation, dict):
        names += read_legacy({"mcpPlusPlusProfiles": said.negotiation.get("profiles")})
    frames = said.limits.get("max_frames") if isinstance(said.limits, dict) else None
    return RemoteServer(
        binding=LEGACY_BINDING,
        profiles=_both(face, names),
        most_bytes=most_bytes_of(said.limits, UNKNOWN_LIMIT_BYTES),
        most_frames=frames if type(frames) is int and frames > 0 else None,
        **_info(said.info),
    )


def _profiles(read: Callable[[object], list[str]], capabilities: object) -> list[str]:
    try:
        return read(capabilities)
    except RpcError as error:
        raise UnavailableError(f"the peer speaks another binding: {error.message}") from None


def _both(face: ClientFace, theirs: list[str]) -> list[str]:
    return [name for name in face.profiles if name in theirs]


def _info(said: object) -> dict[str, str]:
    info: Mapping[str, object] = said if isinstance(said, dict) else {}
    return {name: str(info.get(name, ""))[:_MOST_TEXT] for name in ("name", "version")}


def _read(result: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return decoder.decode(result)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise UnavailableError("the peer's first answer is not of MCP") from None
