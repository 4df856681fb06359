# SPDX-License-Identifier: AGPL-3.0-or-later
"""The channel's methods of the peer registry, for the command line and the gateway; see `actors/peer_messages.py`."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from actors.base import Method
from actors.calls import IncomingCall, decoded
from actors.errors import InvalidArgumentsError
from actors.p2p.peer_registry.bans import Ban
from actors.p2p.peer_registry.remote_tools import RemoteTools
from actors.p2p.peer_registry.service import PeerService, split
from actors.peer_messages import (
    BanList,
    BanPeer,
    BanShown,
    CallPeerTool,
    ConnectPeer,
    DisconnectPeer,
    ForgivePeer,
    KnownPeer,
    ListPeers,
    ListPeerTools,
    NodeShown,
    PeerChanged,
    PeerPage,
    PeerTool,
    PeerToolAnswer,
    PeerToolList,
)

_decode_list = msgspec.msgpack.Decoder(ListPeers).decode
_decode_connect = msgspec.msgpack.Decoder(ConnectPeer).decode
_decode_disconnect = msgspec.msgpack.Decoder(DisconnectPeer).decode
_decode_ban = msgspec.msgpack.Decoder(BanPeer).decode
_decode_forgive = msgspec.msgpack.Decoder(ForgivePeer).decode
_decode_tools = msgspec.msgpack.Decoder(ListPeerTools).decode
_decode_call = msgspec.msgpack.Decoder(CallPeerTool).decode
_decode_arguments = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class PeerMethods:
    """See the module's text."""

    def __init__(self, service: PeerService, remote: RemoteTools, me: Callable[[], NodeShown]) -> None:
        self._service = service
        self._remote = remote
        self._shown = me

    def all(self) -> dict[str, Method]:
        """For `Actor.serve`."""
        return {
            "peers/me": self._me,
            "peers/list": self._list,
            "peers/connect": self._connect,
            "peers/disconnect": self._disconnect,
            "peers/ban": self._ban,
            "peers/bans": self._bans,
            "peers/forgive": self._forgive,
            "peers/tools": self._tools,
            "peers/call": self._call,
        }

    async def _me(self, _call: IncomingCall) -> NodeShown:
        return self._shown()

    async def _list(self, call: IncomingCall) -> PeerPage:
        return self._service.page(decoded(_decode_list, call))

    async def _connect(self, call: IncomingCall) -> KnownPeer:
        ask = decoded(_decode_connect, call)
        place, peer_id = split(ask.address)
        if not peer_id:
            raise InvalidArgumentsError(f"{ask.address!r} does not end with /p2p/ and the peer's id")
        _, peer = await self._service.connect(peer_id, place, timeout_s=ask.timeout_s, retries=0, persist=ask.persist)
        return peer

    async def _disconnect(self, call: IncomingCall) -> PeerChanged:
        ask = decoded(_decode_disconnect, call)
        self._service.get(ask.peer_id)
        return PeerChanged(changed=await self._service.disconnect(ask.peer_id, reason=ask.reason, graceful=True))

    async def _ban(self, call: IncomingCall) -> BanShown:
        ask = decoded(_decode_ban, call)
        return _shown(await self._service.ban(ask.peer_id, ask.reason))

    async def _bans(self, _call: IncomingCall) -> BanList:
        return BanList(bans=[_shown(ban) for ban in self._service.book.bans.holding()])

    async def _forgive(self, call: IncomingCall) -> PeerChanged:
        return PeerChanged(changed=await self._service.forgive(decoded(_decode_forgive, call).subject))

    async def _tools(self, call: IncomingCall) -> PeerToolList:
        ask = decoded(_decode_tools, call)
        return PeerToolList(
            tools=[
                PeerTool(
                    name=tool.name, description=tool.description, input_schema=msgspec.json.encode(tool.input_schema)
                )
                for tool in await self._remote.list(ask.peer_id, ask.timeout_s)
            ]
        )

    async def _call(self, call: IncomingCall) -> PeerToolAnswer:
        ask = decoded(_decode_call, call)
        try:
            _decode_arguments(ask.arguments)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise InvalidArgumentsError(f"the arguments of {ask.tool} are no JSON object: {error}") from None
        return await self._remote.call(ask.peer_id, ask.tool, ask.arguments, ask.timeout_s)


def _shown(ban: Ban) -> BanShown:
    return BanShown(subject=ban.subject, until=ban.until, reason=ban.reason)
