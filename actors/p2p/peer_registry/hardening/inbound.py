# SPDX-License-Identifier: AGPL-3.0-or-later
"""How connections are accepted."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from typing import Any

import trio

from actors.p2p.peer_registry.hardening.addresses import shares


def free_inbound_slots() -> None:
    """B4: a connection that somebody opened takes one of a number of slots, and gives it back only when the host ends:
    after so many connections ever, none is accepted. Closed by waiting for the end of the connection instead. B35: half
    handshakes from one address take all places. Closed by the number that an address may have.
    """
    from libp2p.network.connection.raw_connection import RawConnection
    from libp2p.network.swarm import Swarm

    async def handle(swarm: Any, stream: Any, listener: Any, _failure: object) -> None:  # noqa: ANN401
        address = (stream.get_remote_address() or ("",))[0]
        remote = swarm._build_remote_multiaddr(stream)
        try:
            with shares(swarm).one("connection", address) as allowed:
                if not allowed or (remote is not None and not await swarm.connection_gate.is_allowed(remote)):
                    return
                with shares(swarm).one("handshake", address) as welcome:
                    if not welcome:
                        return
                    muxed = await swarm.upgrade_inbound_raw_conn(RawConnection(stream, False), listener)
                for conn in swarm.get_connections(muxed.peer_id):
                    if conn.muxed_conn is muxed:
                        await conn.event_closed.wait()
        finally:
            with trio.CancelScope(shield=True), contextlib.suppress(Exception):
                await stream.close()

    Swarm._do_handle_inbound_connection = handle


def release_denied_connections() -> None:
    """B13: a connection that is denied by the limits keeps its place in the resource manager, until no place is left.
    Closed by giving the place back when adding the connection fails.
    """
    from libp2p.network.swarm import Swarm

    original = Swarm.add_conn

    async def add_conn(swarm: Any, muxed_conn: Any, direction: str = "unknown") -> Any:  # noqa: ANN401
        try:
            return await original(swarm, muxed_conn, direction)
        except BaseException:
            scope = getattr(muxed_conn, "_resource_scope", None)
            if scope is not None:
                scope.close()
            raise

    Swarm.add_conn = add_conn


def know_ipv6_addresses() -> None:
    """B12: the address of a peer on IPv6 is unknown, so that deny lists and limits by address don't see it. Closed by
    taking the first two of its four fields; an IPv4 peer on an IPv6 socket is known by its IPv4 address.
    """
    from libp2p.io.trio import TrioTCPStream

    def get_remote_address(stream: Any) -> tuple[str, int] | None:  # noqa: ANN401
        if stream._cached_remote_address is None:
            try:
                stream._cached_remote_address = _plain(stream.stream.socket.getpeername())
            except (AttributeError, OSError, ValueError):
                return None
        known: tuple[str, int] | None = stream._cached_remote_address
        return known

    TrioTCPStream.get_remote_address = get_remote_address


def own_the_port() -> None:
    """B11: listeners share their port (SO_REUSEPORT), so two processes can listen on one without noticing and get half
    of the connections each. Closed by not asking for that; holes can't be punched from the listening port.
    """
    from libp2p.transport.tcp import tcp

    def set_reuse_flags(sock: Any) -> None:  # noqa: ANN401
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    tcp._set_reuse_flags = set_reuse_flags


def _plain(name: tuple[Any, ...]) -> tuple[str, int]:
    host = ipaddress.ip_address(str(name[0]).partition("%")[0])
    mapped = getattr(host, "ipv4_mapped", None)
    return str(mapped or host), int(name[1])
