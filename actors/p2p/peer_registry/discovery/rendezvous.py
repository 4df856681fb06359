# SPDX-License-Identifier: AGPL-3.0-or-later
"""Finds nodes at meeting points, and is found there: this node registers with each under a name, and asks who else has.

A point may say what it likes: what it names is a hint, and only so many count in a time. Names do not, nor do loopback
addresses unless the point is on this machine itself.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol, TypeVar

import trio

from actors.errors import MCPServerError, UnavailableError
from actors.logs import get_logger
from actors.p2p.peer_registry.addresses import is_own_machine, neighbour
from actors.p2p.peer_registry.discovery.candidates import Candidate, candidate
from actors.p2p.peer_registry.discovery.rendezvous_messages import (
    MOST_ADDRESSES,
    MOST_REGISTRATIONS,
    PROTOCOL,
    Discover,
    Discovered,
    Message,
    Register,
    Registered,
    Status,
    decode,
    encode,
)
from actors.p2p.peer_registry.prefixed import read_message, with_length
from actors.p2p.peer_registry.stream import PeerStream, StreamBrokenError

TTL_S: Final = 7200
"""A registration is asked for so long, and again after a quarter of what was granted."""
LEAST_EVERY_S: Final = 30.0
ASK_S: Final = 15.0
"""For one point: to reach it, and for its answers."""
ANSWER_BYTES: Final = 256 * 1024
_LEAST_AGAIN_S: Final = 60.0

_Answer = TypeVar("_Answer", Registered, Discovered)


class Reaching(Protocol):
    """What is needed of this node."""

    peer_id: str

    async def announced(self) -> list[str]:
        """Where it listens: multiaddrs with an IP address, without its id."""

    async def reach(self, peer_id: str, places: Sequence[str], timeout_s: float) -> str:
        """Connect to a peer, unless that is done. Returns the multiaddr of the connection. Raises `MCPServerError`."""

    async def open_stream(self, peer_id: str, protocol: str, timeout_s: float) -> PeerStream:
        """Raises `MCPServerError`."""


class _Point:
    """One meeting point, as this node sees it."""

    def __init__(self, peer_id: str, places: list[str]) -> None:
        self.peer_id = peer_id
        self.places = places
        self.again_at = 0.0
        """When to register again."""
        self.registered: list[str] = []
        self.cookie = b""
        self.state = "not asked yet"
        self.asking = trio.Lock()


class Rendezvous:
    """See the module's text. `run` does so until cancelled."""

    name: Final = "rendezvous"

    def __init__(
        self,
        node: Reaching,
        points: Iterable[Candidate],
        found: Callable[[str, Iterable[Candidate]], int],
        *,
        namespace: str,
        every_s: float,
    ) -> None:
        """`found` gets what was told, and says how much of it is new."""
        self._node = node
        self._found = found
        self._namespace = namespace
        self._every_s = max(LEAST_EVERY_S, every_s)
        places: dict[str, list[str]] = {}
        for one in points:
            if one.peer_id != node.peer_id:
                places.setdefault(one.peer_id, []).append(one.place)
        self._points = [_Point(peer_id, at) for peer_id, at in places.items()]

    @property
    def state(self) -> str:
        """`ok`, or what is wrong with which point."""
        wrong = [f"{one.peer_id}: {one.state}" for one in self._points if one.state != "ok"]
        return "; ".join(wrong) or "ok"

    async def run(self) -> None:
        """Register, and ask now and then."""
        while True:
            await self.look()
            await trio.sleep(self._every_s)

    async def look(self, timeout_s: float = ASK_S) -> int:
        """Ask all points. Returns how many peers they named that nobody knew."""
        new = 0

        async def one(point: _Point) -> None:
            nonlocal new
            new += await self._ask(point)

        with trio.move_on_after(timeout_s):
            async with trio.open_nursery() as nursery:
                for point in self._points:
                    nursery.start_soon(one, point)
        return new

    async def _ask(self, point: _Point) -> int:
        state = f"no answer in {ASK_S:g} s"
        found: list[Candidate] = []
        try:
            with trio.move_on_after(ASK_S):
                async with point.asking:
                    found = await self._exchange(point)
                    state = "ok"
        except MCPServerError as error:
            state = error.message
        except StreamBrokenError as error:
            state = f"it broke off: {error}"
        if state != point.state:
            point.state = state
            get_logger().info("a meeting point", peer=point.peer_id, state=state)
        return self._found(self.name, found) if found else 0

    async def _exchange(self, point: _Point) -> list[Candidate]:
        address = await self._node.reach(point.peer_id, point.places, ASK_S)
        near = is_own_machine(neighbour(address))
        stream = await self._node.open_stream(point.peer_id, PROTOCOL, ASK_S)
        try:
            await self._register(point, stream, near)
            asked = Discover(namespace=self._namespace, most=MOST_REGISTRATIONS, cookie=point.cookie)
            answer = await _call(stream, asked, Discovered)
            _check(answer.status, answer.text)
            # Behind the last page it begins anew: who is registered changes.
            point.cookie = answer.cookie if len(answer.registrations) >= MOST_REGISTRATIONS else b""
            await stream.finish()
            return candidates(answer.registrations, on_this_machine=near)
        except BaseException:
            point.cookie = b""
            raise
        finally:
            await stream.reset()

    async def _register(self, point: _Point, stream: PeerStream, near: bool) -> None:
        listens = await self._node.announced()
        places = [one for one in listens if near or not is_own_machine(neighbour(one))][:MOST_ADDRESSES]
        now = trio.current_time()
        if not places or (places == point.registered and now < point.again_at):
            return
        said = Register(namespace=self._namespace, peer_id=self._node.peer_id, addresses=places, ttl_s=TTL_S)
        answer = await _call(stream, said, Registered)
        _check(answer.status, answer.text)
        point.registered = places
        point.again_at = now + max(_LEAST_AGAIN_S, min(answer.ttl_s, TTL_S) / 4)


async def _call(stream: PeerStream, message: Message, kind: type[_Answer]) -> _Answer:
    await stream.write(with_length(encode(message)))
    data = await read_message(stream, ANSWER_BYTES)
    if data is None:
        raise StreamBrokenError("it ended the stream without an answer")
    try:
        answer = decode(data)
    except ValueError as error:
        raise StreamBrokenError(str(error)) from None
    if not isinstance(answer, kind):
        raise StreamBrokenError("its answer does not fit the request")
    return answer


def _check(status: int, text: str) -> None:
    if status != Status.OK:
        raise UnavailableError(f"it refused: {status} {text}".rstrip())


def candidates(registrations: Iterable[Register], *, on_this_machine: bool) -> list[Candidate]:
    """Those that may be dialled; loopback addresses only when the point is `on_this_machine`."""
    found = []
    for one in registrations:
        for address in one.addresses:
            try:
                place = candidate(f"{address}/p2p/{one.peer_id}")
                ip = ipaddress.ip_address(place.host)
            except ValueError:
                continue
            if not ip.is_link_local and (on_this_machine or not ip.is_loopback):
                found.append(place)
    return found
