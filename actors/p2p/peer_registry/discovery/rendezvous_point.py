# SPDX-License-Identifier: AGPL-3.0-or-later
"""A meeting point: remembers for a while who registered under which name, and tells all who ask. Whatever peers do
there is bounded: by peer, by the address they come from, and in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

import msgspec
import trio

from actors.p2p.peer_registry.addresses import neighbour
from actors.p2p.peer_registry.discovery.candidates import candidate
from actors.p2p.peer_registry.discovery.rendezvous_messages import (
    MOST_REGISTRATIONS,
    Discover,
    Discovered,
    Message,
    Register,
    Registered,
    Status,
    UnknownMessageError,
    Unregister,
    decode,
    encode,
)
from actors.p2p.peer_registry.prefixed import read_message, with_length
from actors.p2p.peer_registry.stream import PeerStream
from actors.p2p.peer_registry.stream_use import StreamUse, UseLimits

MOST: Final = 2000
"""Registrations in all."""
MOST_OF_PEER: Final = 4
"""Names that one peer is registered under."""
MOST_OF_NEIGHBOUR: Final = 64
"""Registrations from one IP address (IPv6: one /64)."""
MOST_PLACES: Final = 8
"""Addresses of one registration that are kept."""
LEAST_TTL_S: Final = 120
MOST_TTL_S: Final = 72 * 3600
"""More is refused, as the protocol has it."""
NAMESPACE_CHARS: Final = 255
MESSAGE_BYTES: Final = 16 * 1024
IDLE_S: Final = 30.0
_COOKIE_BYTES: Final = 8
_LIMITS: Final = UseLimits(streams=2, requests=2, requests_in_all=64, burst=20, per_s=1.0)


class _Entry(msgspec.Struct, frozen=True):
    number: int
    """Rises with each registration; the cookie of an answer is the last one in it."""
    neighbour: str
    until: float
    said: Register


class Registrations:
    """Who is registered. Pure: `now` is any clock that does not go back, in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._of_peer: Counter[str] = Counter()
        self._of_neighbour: Counter[str] = Counter()
        self._number = 0

    def __len__(self) -> int:
        return len(self._entries)

    def answer(self, message: Message, peer_id: str, address: str) -> Message | None:
        """What a peer at this multiaddr is answered; None = nothing. Raises `ValueError` for what is no request."""
        match message:
            case Register():
                return self._register(message, peer_id, neighbour(address))
            case Unregister():
                if message.peer_id == peer_id:
                    self._drop((message.namespace, peer_id))
                return None
            case Discover():
                return self._discover(message)
        raise ValueError("that is no request")

    def _register(self, said: Register, peer_id: str, near: str) -> Registered:
        if said.peer_id != peer_id:
            return Registered(status=Status.NOT_AUTHORIZED, text="a peer registers itself only")
        if not 0 < len(said.namespace) <= NAMESPACE_CHARS:
            return Registered(status=Status.INVALID_NAMESPACE, text=f"a name has 1 to {NAMESPACE_CHARS} characters")
        ttl_s = said.ttl_s or LEAST_TTL_S
        if not LEAST_TTL_S <= ttl_s <= MOST_TTL_S:
            return Registered(status=Status.INVALID_TTL, text=f"it has to be {LEAST_TTL_S} to {MOST_TTL_S} s")
        places = [one for one in said.addresses if _is_place(one, peer_id)][:MOST_PLACES]
        if not places:
            return Registered(status=Status.INVALID_PEER, text="it names no IP address with a TCP port")
        key = (said.namespace, peer_id)
        self._drop(key)
        if not self._room(peer_id, near):
            return Registered(status=Status.UNAVAILABLE, text="there is no room")
        self._number += 1
        kept = msgspec.structs.replace(said, addresses=places)
        self._entries[key] = _Entry(self._number, near, self._now() + ttl_s, kept)
        self._of_peer[peer_id] += 1
        self._of_neighbour[near] += 1
        return Registered(status=Status.OK, ttl_s=ttl_s)

    def _room(self, peer_id: str, near: str) -> bool:
        def is_full() -> bool:
            return (
                len(self._entries) >= MOST
                or self._of_peer[peer_id] >= MOST_OF_PEER
                or self._of_neighbour[near] >= MOST_OF_NEIGHBOUR
            )

        if is_full():
            self.sweep()
        return not is_full()

    def _discover(self, asked: Discover) -> Discovered:
        if not 0 < len(asked.namespace) <= NAMESPACE_CHARS:
            return Discovered(status=Status.INVALID_NAMESPACE, text=f"a name has 1 to {NAMESPACE_CHARS} characters")
        if len(asked.cookie) not in {0, _COOKIE_BYTES}:
            return Discovered(status=Status.INVALID_COOKIE)
        after, now = int.from_bytes(asked.cookie, "big"), self._now()
        most = min(asked.most, MOST_REGISTRATIONS) if asked.most > 0 else MOST_REGISTRATIONS
        found = [
            one
            for one in self._entries.values()
            if one.said.namespace == asked.namespace and one.number > after and one.until > now
        ][:most]
        last = found[-1].number if found else after
        return Discovered(
            status=Status.OK,
            registrations=[msgspec.structs.replace(one.said, ttl_s=int(one.until - now) + 1) for one in found],
            cookie=last.to_bytes(_COOKIE_BYTES, "big"),
        )

    def sweep(self) -> None:
        """Forget those whose time is over."""
        now = self._now()
        for key in [key for key, one in self._entries.items() if one.until <= now]:
            self._drop(key)

    def _drop(self, key: tuple[str, str]) -> None:
        gone = self._entries.pop(key, None)
        if gone is None:
            return
        for counter, of in ((self._of_peer, key[1]), (self._of_neighbour, gone.neighbour)):
            counter[of] -= 1
            if not counter[of]:
                del counter[of]


def _is_place(address: str, peer_id: str) -> bool:
    try:
        candidate(f"{address}/p2p/{peer_id}")
    except ValueError:
        return False
    return True


class RendezvousPoint:
    """Answers on streams."""

    def __init__(self, violation: Callable[[str, str], None], now: Callable[[], float] = trio.current_time) -> None:
        """`violation` is told the peer id and the reason when a peer breaks the protocol."""
        self.registrations = Registrations(now)
        self._violation = violation
        self._use = StreamUse(_LIMITS, now)

    async def serve(self, stream: PeerStream) -> None:
        """All that comes on one. Raises `StreamBrokenError`."""
        with self._use.stream(stream.peer_id) as has_room:
            while has_room:
                with trio.move_on_after(IDLE_S) as idle:
                    data = await read_message(stream, MESSAGE_BYTES)
                if idle.cancelled_caught or data is None:
                    return
                if wait_s := self._use.spend(stream.peer_id):
                    await trio.sleep(wait_s)
                    self._use.spend(stream.peer_id)
                try:
                    answer = self.registrations.answer(decode(data), stream.peer_id, stream.address)
                except UnknownMessageError:
                    return
                except ValueError as error:
                    self._violation(stream.peer_id, str(error))
                    return
                if answer is not None:
                    with trio.move_on_after(IDLE_S) as slow:
                        await stream.write(with_length(encode(answer)))
                    if slow.cancelled_caught:
                        return
