# SPDX-License-Identifier: AGPL-3.0-or-later
"""This node in the peer-to-peer network: one libp2p host behind a small interface of our own.

A dial and the opening of a stream may be given up at any time; what they would have brought is ended when it comes.
What a handler raises ends its stream only. Nothing that a peer sends ends the host.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import structlog
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from actors.errors import (
    InvalidArgumentsError,
    MCPServerError,
    PeerIdMismatchError,
    PeerUnreachableError,
    UnavailableError,
)
from actors.p2p.peer_registry import hardening
from actors.p2p.peer_registry.background import Background, TookTooLongError
from actors.p2p.peer_registry.host_addresses import resolved, target
from actors.p2p.peer_registry.host_events import Connections, ConnectionView, address_of
from actors.p2p.peer_registry.host_parts import addresses, make_host
from actors.p2p.peer_registry.host_protocols import IDENTIFY, IDENTIFY_PUSH, PING, PeerSays, ping, read_said, serve_ping
from actors.p2p.peer_registry.host_rules import HostRules
from actors.p2p.peer_registry.host_stream import HostStream
from actors.p2p.peer_registry.stream import PeerStream, StreamBrokenError

log = structlog.get_logger()

_OPENING_S: Final = 30.0
"""After that a stream that was given up is given up by us too. Longer than any wait inside of it."""


class Host:
    """A running host. Get one from `open_host`."""

    def __init__(self, host: Any, rules: HostRules, background: Background) -> None:  # noqa: ANN401
        self.peer_id = str(host.get_id())
        self._host = host
        self._network = host.get_network()
        self._rules = rules
        self._background = background
        self._connections = Connections(background, self._connected, self._disconnected)
        self._said: dict[str, PeerSays] = {}
        self.on_connected: Callable[[str], None] | None = None
        """Told the peer id when the first connection with a peer is there. It must not wait."""
        self.on_disconnected: Callable[[str], None] | None = None
        """Told the peer id when the last connection with a peer has ended. It must not wait."""
        self.on_identified: Callable[[str], None] | None = None
        """Told the peer id when a connected peer has said what it is, and when it says so again. It must not wait."""
        self._network.register_notifee(self._connections)
        self.serve(PING, serve_ping)
        self.serve(IDENTIFY_PUSH, self._hear)

    @property
    def addresses(self) -> list[str]:
        """Multiaddrs that it listens on, with `/p2p/<id>`."""
        return [f"{address}/p2p/{self.peer_id}" for address in self._host.get_transport_addrs()]

    @property
    def announced(self) -> list[str]:
        """Multiaddrs that it tells its peers, with `/p2p/<id>`."""
        return [f"{address}/p2p/{self.peer_id}" for address in self._rules.announce] or self.addresses

    async def dial(self, address: str, peer_id: str, timeout_s: float) -> None:
        """Connect to this peer at this address, unless there is a connection already.

        Raises `PeerUnreachableError`, `PeerIdMismatchError`, or `InvalidArgumentsError` for what is no address or id.
        """
        if peer_id == self.peer_id:
            raise InvalidArgumentsError("that is this node itself")
        wanted, peer = target(address, peer_id)
        if self._connections.of(peer_id):
            await trio.lowlevel.checkpoint()
            return
        failure: Exception | None = None
        with trio.move_on_after(timeout_s) as scope:
            failure = await self._dial_any(wanted, peer)
        if failure is not None and _is_mismatch(failure):
            raise PeerIdMismatchError(f"another peer than {peer_id} answers at {address}", peer_id=peer_id) from failure
        if failure is not None or scope.cancelled_caught:
            reason = f"no answer in {timeout_s:g} s" if failure is None else _innermost(failure)
            raise PeerUnreachableError(f"{peer_id} at {address}: {reason}", peer_id=peer_id) from failure

    async def _dial_any(self, wanted: Any, peer: Any) -> Exception | None:  # noqa: ANN401
        """None when it is connected, or why it isn't."""
        failure: Exception = PeerUnreachableError("no address")
        try:
            for one in await resolved(wanted):
                try:
                    await self._network.dial_addr(one, peer)
                except Exception as error:  # noqa: BLE001
                    failure = error
                else:
                    return None
        except PeerUnreachableError as error:
            failure = error
        return failure

    async def open_stream(self, peer_id: str, protocol: str, timeout_s: float) -> PeerStream:
        """A new stream over an existing connection.

        Raises `PeerUnreachableError`, or `UnavailableError` when the peer doesn't know the protocol.
        """
        return await self._open_stream(peer_id, protocol, timeout_s)

    async def _open_stream(self, peer_id: str, protocol: str, timeout_s: float) -> HostStream:
        conns = self._connections.of(peer_id)
        if not conns:
            raise PeerUnreachableError(f"not connected to {peer_id}", peer_id=peer_id)
        try:
            stream = await self._background.result(
                partial(self._negotiated, conns[0].muxed_conn.peer_id, protocol), timeout_s, late=_reset
            )
        except TookTooLongError:
            raise PeerUnreachableError(f"{peer_id} opened no stream in {timeout_s:g} s", peer_id=peer_id) from None
        except Exception as error:
            if "not supported" in _innermost(error):
                raise UnavailableError(f"{peer_id} does not speak {protocol}", peer_id=peer_id) from error
            raise PeerUnreachableError(f"{peer_id}: no stream: {_innermost(error)}", peer_id=peer_id) from error
        return self._wrapped(stream, inbound=False)

    async def _negotiated(self, peer: Any, protocol: str) -> Any:  # noqa: ANN401
        with trio.move_on_after(_OPENING_S):
            return await self._host.new_stream(peer, [protocol])
        raise TookTooLongError

    def serve(self, protocol: str, handler: Callable[[PeerStream], Awaitable[None]]) -> None:
        """Give every stream that peers open with this protocol to `handler`; when it returns the stream is ended."""
        self._host.set_stream_handler(protocol, partial(self._handle, protocol, handler))

    async def _handle(self, protocol: str, handler: Callable[[PeerStream], Awaitable[None]], raw: Any) -> None:  # noqa: ANN401
        stream = self._wrapped(raw, inbound=True)
        try:
            await handler(stream)
        except StreamBrokenError:
            await stream.reset()
        except Exception:
            log.exception("a peer's stream failed", peer=stream.peer_id, protocol=protocol)
            await stream.reset()
        except BaseException:
            await stream.reset()
            raise
        else:
            await stream.close(self._rules.linger_s)

    def _wrapped(self, raw: Any, *, inbound: bool) -> HostStream:  # noqa: ANN401
        return HostStream(raw, address_of(raw.swarm_conn), self._background, inbound=inbound)

    async def disconnect(self, peer_id: str) -> None:
        """End all connections with this peer; there may be none. What doesn't end in time is cut."""
        async with trio.open_nursery() as nursery:
            for conn in self._connections.of(peer_id):
                nursery.start_soon(self._end, conn)

    async def _end(self, conn: Any) -> None:  # noqa: ANN401
        if not await self._background.run(conn.close, self._rules.close_s):
            await hardening.cut(conn.muxed_conn)

    async def ping(self, peer_id: str, timeout_s: float) -> float:
        """Seconds to the peer and back. Raises `PeerUnreachableError`."""
        begin = trio.current_time()
        stream = await self._open_stream(peer_id, PING, timeout_s)
        left = timeout_s - (trio.current_time() - begin)
        try:
            with trio.move_on_after(left):
                return await ping(stream)
        except StreamBrokenError as error:
            raise PeerUnreachableError(f"{peer_id}: {error}", peer_id=peer_id) from error
        finally:
            await stream.reset()
        raise PeerUnreachableError(f"{peer_id}: no answer in {timeout_s:g} s", peer_id=peer_id)

    def connections(self) -> list[ConnectionView]:
        """The open connections, the oldest first."""
        return self._connections.views()

    def counters(self) -> hardening.Counters:
        """How much of its limits is in use."""
        return hardening.counters(self._network)

    def says(self, peer_id: str) -> PeerSays | None:
        """What the peer says of itself; None while that isn't known, and when it isn't connected."""
        return self._said.get(peer_id)

    def protocols(self, peer_id: str) -> list[str]:
        """What the peer says it speaks; empty while that isn't known, and when it isn't connected."""
        return list(self._said.get(peer_id, PeerSays()).protocols)

    def agent(self, peer_id: str) -> str:
        """The program that the peer says it is; empty while that isn't known, and when it isn't connected."""
        return self._said.get(peer_id, PeerSays()).agent

    def _connected(self, peer_id: str) -> None:
        self._background.start(partial(self._ask, peer_id))
        _tell(self.on_connected, peer_id)

    def _disconnected(self, peer_id: str) -> None:
        self._said.pop(peer_id, None)
        _tell(self.on_disconnected, peer_id)

    async def _ask(self, peer_id: str) -> None:
        """Ask a peer what it is; that it doesn't say is no fault."""
        with contextlib.suppress(MCPServerError, StreamBrokenError):
            stream = await self._open_stream(peer_id, IDENTIFY, self._rules.identify_s)
            try:
                await self._hear(stream)
            finally:
                await stream.close(self._rules.linger_s)

    async def _hear(self, stream: PeerStream) -> None:
        with trio.move_on_after(self._rules.identify_s):
            said = await read_said(stream)
            if self._connections.of(stream.peer_id):
                self._said[stream.peer_id] = said
                _tell(self.on_identified, stream.peer_id)

    async def end(self) -> None:
        """End all connections at once, then stop listening."""
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                for peer in {view.peer_id for view in self.connections()}:
                    nursery.start_soon(self.disconnect, peer)
            with trio.move_on_after(self._rules.close_s):
                await self._host.close()


@asynccontextmanager
async def open_host(rules: HostRules, key: Ed25519PrivateKey) -> AsyncGenerator[Host]:
    """A host that runs as long as the context.

    Raises `ValueError` for rules that make no sense, `UnavailableError` when it can't listen. What is raised inside of
    the context leaves it as it is.
    """
    rules.check()
    listen = addresses(rules.listen)
    hardening.apply()
    raw = make_host(rules, key)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        host = Host(raw, rules, Background(nursery))
        # What is still running when the host has ended, and some time after, is cancelled.
        with trio.CancelScope() as whole:
            async with raw.run(listen):
                try:
                    # Without this check it would run on, and nobody could reach it.
                    if len(host.addresses) < len(listen):
                        raise UnavailableError(f"can't listen on all of {', '.join(rules.listen)}: is the port in use?")
                    yield host
                except Exception as error:  # noqa: BLE001
                    failure = error
                finally:
                    await host.end()
                    whole.deadline = trio.current_time() + rules.close_s
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _is_mismatch(error: BaseException) -> bool:
    from libp2p.security.noise.exceptions import PeerIDMismatchesPubkey

    found: BaseException | None = error
    while found is not None:
        if isinstance(found, PeerIDMismatchesPubkey) or "Peer ID mismatch" in str(found):
            return True
        found = found.__cause__
    return False


def _innermost(error: BaseException) -> str:
    """What the first of a chain of errors said."""
    text = str(error)
    while error.__cause__ is not None:
        error = error.__cause__
        text = str(error) or text
    return text or type(error).__name__


async def _reset(stream: Any) -> None:  # noqa: ANN401
    await stream.reset()


def _tell(whom: Callable[[str], None] | None, peer_id: str) -> None:
    if whom is None:
        return
    try:
        whom(peer_id)
    except Exception:
        log.exception("who is told of peers failed", peer=peer_id)
