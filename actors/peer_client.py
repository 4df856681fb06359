# SPDX-License-Identifier: AGPL-3.0-or-later
"""The way to the peer registry, for the gateway and the command line. A call waits while the actor restarts, and is
asked again, up to its deadline: whatever is asked twice is done once. The exception is the call of a peer's tool, which
is sent once."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec
import trio

from actors.calls import Message
from actors.one_actor import OneActor
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
    PeerToolAnswer,
    PeerToolList,
)
from actors.peers import Peers

PEER_REGISTRY: Final = "peer_registry"
_TIMEOUT_S: Final = 30.0
_MORE_S: Final = 5.0
"""Than what the registry waits for a peer."""

A = TypeVar("A")


class PeerClient:
    """Raises what the registry answers, `DeadlineExceededError`, and `RuntimeUnavailableError` when it is off."""

    def __init__(self, peers: Peers) -> None:
        self._actor = OneActor(peers, PEER_REGISTRY, called="the peer registry", gives="what is known of peers")

    async def me(self, *, timeout_s: float = _TIMEOUT_S) -> NodeShown:
        """This node, and its peers in numbers."""
        return await self._ask("peers/me", None, NodeShown, timeout_s)

    async def list(self, ask: ListPeers) -> PeerPage:
        """Some of the peers."""
        return await self._ask("peers/list", ask, PeerPage)

    async def connect(self, ask: ConnectPeer) -> KnownPeer:
        """Connect to one."""
        return await self._ask("peers/connect", ask, KnownPeer, ask.timeout_s + _MORE_S)

    async def disconnect(self, ask: DisconnectPeer) -> bool:
        """End the connection with one; whether there was one."""
        return (await self._ask("peers/disconnect", ask, PeerChanged)).changed

    async def ban(self, ask: BanPeer) -> BanShown:
        """Have nothing to do with one."""
        return await self._ask("peers/ban", ask, BanShown)

    async def bans(self) -> BanList:
        """Those that hold."""
        return await self._ask("peers/bans", None, BanList)

    async def forgive(self, ask: ForgivePeer) -> bool:
        """Lift a ban; whether there was one."""
        return (await self._ask("peers/forgive", ask, PeerChanged)).changed

    async def tools(self, ask: ListPeerTools) -> PeerToolList:
        """The tools of one."""
        return await self._ask("peers/tools", ask, PeerToolList, ask.timeout_s + _MORE_S)

    async def call(self, ask: CallPeerTool) -> PeerToolAnswer:
        """Run a tool of one. Raises `OutcomeUnknownError` when nobody knows whether it took effect."""
        return await self._ask("peers/call", ask, PeerToolAnswer, ask.timeout_s + _MORE_S, once=True)

    async def _ask(
        self, method: str, body: Message, answer: type[A], timeout_s: float = _TIMEOUT_S, *, once: bool = False
    ) -> A:
        raw = await self._actor.call(method, body, trio.current_time() + timeout_s, once=once)
        return msgspec.msgpack.decode(raw, type=answer)
