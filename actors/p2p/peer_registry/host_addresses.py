# SPDX-License-Identifier: AGPL-3.0-or-later
"""Where a peer is: the addresses to dial, from what was written."""

from __future__ import annotations

import socket
from typing import Any, Final

import trio

from actors.errors import InvalidArgumentsError, PeerIdMismatchError, PeerUnreachableError

_FAMILIES: Final = {"dns": socket.AF_UNSPEC, "dns4": socket.AF_INET, "dns6": socket.AF_INET6}
_MOST: Final = 4
"""Addresses of one name that are tried."""


def target(address: str, peer_id: str) -> tuple[Any, Any]:
    """The multiaddr and the peer id as libp2p wants them.

    Raises `InvalidArgumentsError` for what is neither, `PeerIdMismatchError` when the address names another peer.
    """
    from libp2p.peer.id import ID
    from multiaddr import Multiaddr

    try:
        found, peer = Multiaddr(address), ID.from_string(peer_id)
        if not found.protocols():
            raise ValueError("it is empty")
        named = [value for protocol, value in found.items() if protocol.name == "p2p"]
    except Exception as error:  # noqa: BLE001
        raise InvalidArgumentsError(f"no peer address: {address} of {peer_id}: {error}") from None
    if named and named[-1] != peer_id:
        raise PeerIdMismatchError(f"{address} is not an address of {peer_id}", peer_id=peer_id)
    return found, peer


async def resolved(address: Any) -> list[Any]:  # noqa: ANN401
    """The address, or those that the name in it stands for here (libp2p asks DNS servers only, and no hosts file).

    Raises `PeerUnreachableError` when the name is unknown.
    """
    from multiaddr import Multiaddr

    (first, name), *rest = address.items()
    if first.name not in _FAMILIES:
        await trio.lowlevel.checkpoint()
        return [address]
    try:
        infos = await trio.socket.getaddrinfo(name, None, family=_FAMILIES[first.name], type=socket.SOCK_STREAM)
    except OSError as error:
        raise PeerUnreachableError(f"{name}: {error}") from error
    tail = "".join(f"/{protocol.name}/{value}" if value else f"/{protocol.name}" for protocol, value in rest)
    kinds = {socket.AF_INET: "ip4", socket.AF_INET6: "ip6"}
    return [Multiaddr(f"/{kinds[family]}/{where[0]}{tail}") for family, *_, where in infos if family in kinds][:_MOST]
