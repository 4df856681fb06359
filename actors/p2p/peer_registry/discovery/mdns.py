# SPDX-License-Identifier: AGPL-3.0-or-later
"""Finds nodes in the local network, and is found there, by multicast DNS.

On each interface it asks now and then who is there, and names the addresses of this node when others ask. What others
name is taken for a hint: only addresses of this network count, and only so many in a time.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import trio

from actors.logs import get_logger
from actors.p2p.peer_registry.discovery.candidates import Candidate, candidate
from actors.p2p.peer_registry.discovery.interfaces import own_ipv4
from actors.p2p.peer_registry.discovery.mdns_packets import MOST_ADDRESSES, answer, new_name, question, read
from actors.p2p.peer_registry.discovery.mdns_wire import PORT, MulticastWire, Wire
from actors.p2p.peer_registry.shares import Bucket

MOST_INTERFACES: Final = 16
SCAN_S: Final = 30.0
"""So often it looks which interfaces there are."""
LEAST_EVERY_S: Final = 10.0
FIRST_ASKED_S: Final = (0.0, 1.0, 3.0)
"""After its start, since packets get lost; later at the interval that is configured."""
PAUSE_S: Final = 1.0
"""Between two packets of a kind on one interface (RFC 6762, 6)."""
ANSWER_AFTER_S: Final = (0.02, 0.12)
"""By chance in between, so that not all answer at once."""
LISTEN_S: Final = 1.5
"""How long answers are waited for by one who looks now."""
PACKETS_PER_S: Final = 500.0
"""On one interface; above it reading pauses and the system drops what comes."""
READ_PER_S: Final = 10.0
"""Of those, packets that are for us and are taken apart."""
_BURST: Final = 50.0
_FLOOD_PAUSE_S: Final = 0.1


def is_near(host: str, sender: str) -> bool:
    """Whether an IP address that this sender names is one of the local network: otherwise anybody there could have all
    nodes dial whom he likes."""
    if host == sender:
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    return ip.is_private and not ip.is_loopback and not ip.is_link_local


def candidates(addresses: Iterable[str], sender: str) -> list[Candidate]:
    """Those among what was named that may be dialled."""
    found = []
    for text in addresses:
        try:
            one = candidate(text)
        except ValueError:
            continue
        if is_near(one.host, sender):
            found.append(one)
    return found


def places(listening: Sequence[str], ip: str) -> list[str]:
    """Where a node that listens on these multiaddrs is for those on the interface where it has this IPv4 address."""
    found = []
    for address in listening:
        _, kind, host, *rest = address.split("/")
        if kind == "ip4" and host in {ip, "0.0.0.0"}:  # noqa: S104
            found.append("/".join(["", kind, ip, *rest]))
    return found[:MOST_ADDRESSES]


class _Interface:
    """Of one interface. `run` speaks there until cancelled, or until it is gone."""

    def __init__(self, ip: str, wire: Wire, mdns: Mdns) -> None:
        self._ip = ip
        self._wire = wire
        self._mdns = mdns
        self._packets = Bucket(PACKETS_PER_S, _BURST, trio.current_time())
        self._read = Bucket(READ_PER_S, _BURST, trio.current_time())
        self._asked = trio.Event()
        self._asked_at = float("-inf")

    async def run(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._answer)
                nursery.start_soon(self._ask_often)
                await self._listen()
                nursery.cancel_scope.cancel()
        finally:
            self._wire.close()

    async def _listen(self) -> None:
        while True:
            now = trio.current_time()
            if self._packets.wait_s(1.0, now):
                await trio.sleep(_FLOOD_PAUSE_S)
            self._packets.take(1.0)
            try:
                data, sender, port = await self._wire.receive()
            except OSError as error:
                get_logger().info("an interface is gone", ip=self._ip, reason=str(error))
                return
            # Who asks from another port is no node but a program that wants an answer to itself alone.
            if port == PORT and not self._read.wait_s(1.0, trio.current_time()):
                self._take(data, sender)

    def _take(self, data: bytes, sender: str) -> None:
        packet = read(data)
        if packet is None:
            return
        self._read.take(1.0)
        if packet.asks:
            self._asked.set()
        else:
            self._mdns.heard(candidates(packet.addresses, sender))

    async def _answer(self) -> None:
        # Whoever is there already hears of us at once.
        while True:
            await trio.sleep(self._mdns.between(*ANSWER_AFTER_S))
            self._asked = trio.Event()
            if found := places(self._mdns.listening(), self._ip):
                await self._send(answer(self._mdns.node, found))
            await trio.sleep(PAUSE_S)
            await self._asked.wait()

    async def _ask_often(self) -> None:
        began = trio.current_time()
        for at_s in FIRST_ASKED_S:
            await trio.sleep_until(began + at_s)
            await self.ask()
        while True:
            await trio.sleep(self._mdns.every_s * self._mdns.between(0.9, 1.1))
            await self.ask()

    async def ask(self) -> None:
        """Who is there?"""
        now = trio.current_time()
        if now - self._asked_at >= PAUSE_S:
            self._asked_at = now
            await self._send(question())

    async def _send(self, packet: bytes) -> None:
        try:
            await self._wire.send(packet)
        except OSError as error:
            get_logger().debug("nothing can be sent on an interface", ip=self._ip, reason=str(error))


class Mdns:
    """See the module's text. `run` does so until cancelled."""

    name: Final = "mdns"

    def __init__(
        self,
        listening: Callable[[], list[str]],
        found: Callable[[str, Iterable[Candidate]], int],
        *,
        where: str,
        every_s: float,
        open_wire: Callable[[str], Wire] = MulticastWire,
        own: Callable[[], Awaitable[list[str]]] = own_ipv4,
        between: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`listening` are this node's multiaddrs with its id at their end, `where` the IPv4 address that it listens on;
        '' and 0.0.0.0 = wherever this machine has one. `found` gets what was heard, and says how much of it is new."""
        self.listening = listening
        self.between = between
        self.node = new_name()
        self.every_s = max(LEAST_EVERY_S, every_s)
        self.state = "not started yet"
        """`ok`, or why nobody is heard."""
        self._found = found
        self._where = where
        self._open_wire = open_wire
        self._own = own
        self._speaking: dict[str, _Interface] = {}
        self._new = 0

    async def run(self) -> None:
        """Speak on each interface that there is, and on those that come."""
        scopes: dict[str, trio.CancelScope] = {}

        async def speak(ip: str, one: _Interface) -> None:
            self._speaking[ip] = one
            try:
                with scopes[ip]:
                    await one.run()
            finally:
                del self._speaking[ip], scopes[ip]

        async with trio.open_nursery() as nursery:
            while True:
                wanted, reason = await self._interfaces()
                for ip in scopes.keys() - set(wanted):
                    scopes[ip].cancel()
                for ip in wanted:
                    if ip in scopes:
                        continue
                    try:
                        one = _Interface(ip, self._open_wire(ip), self)
                    except OSError as error:
                        reason = f"{ip}: {error.strerror or error}"
                        continue
                    scopes[ip] = trio.CancelScope()
                    nursery.start_soon(speak, ip, one)
                self._tell("ok" if scopes else f"it can't be spoken here: {reason}")
                await trio.sleep(SCAN_S)

    async def _interfaces(self) -> tuple[list[str], str]:
        """This machine's addresses on them; without one also why."""
        if self._where not in {"", "0.0.0.0"}:  # noqa: S104
            await trio.lowlevel.checkpoint()
            return [self._where], ""
        try:
            found = await self._own()
        except OSError as error:
            return [], str(error)
        return found[:MOST_INTERFACES], "there is no IPv4 address"

    def _tell(self, state: str) -> None:
        if state != self.state:
            self.state = state
            get_logger().info("multicast DNS", state=state, interfaces=len(self._speaking))

    def heard(self, candidates: list[Candidate]) -> None:
        """Somebody says that he is there."""
        if candidates:
            self._new += self._found(self.name, candidates)

    async def look(self, timeout_s: float) -> int:
        """Ask now. Returns how many peers answered that nobody knew."""
        before = self._new
        with trio.move_on_after(min(timeout_s, LISTEN_S)):
            for one in list(self._speaking.values()):
                await one.ask()
            await trio.sleep_forever()
        return self._new - before
