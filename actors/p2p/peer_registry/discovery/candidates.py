# SPDX-License-Identifier: AGPL-3.0-or-later
"""Peers that somebody told of: an id, and places where it may be. That is worth a dial at most, never a right: the
connection proves the id, and what the peer may do here is decided as for any other."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from actors.p2p.peer_registry.peers import ADDRESS_CHARS, MOST_ADDRESSES
from actors.p2p.peer_registry.shares import Bucket

NEW_PER_S: Final = 1.0
"""Peers that nobody knew yet, of one way of finding them."""
NEW_AT_ONCE: Final = 60

_PEER_ID: Final = re.compile(r"(12D3KooW|16Uiu2HA[1-9A-HJ-NP-Za-km-z]|Qm)[1-9A-HJ-NP-Za-km-z]{44}")
_NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_-]{1,63})*\.?")
_NAME_KINDS: Final = ("dns", "dns4", "dns6")
_VERSIONS: Final = {"ip4": 4, "ip6": 6}
_MOST_NAME: Final = 253
_MOST_PORT: Final = 65535


class Candidate(NamedTuple):
    """A peer, and a place where it may be."""

    peer_id: str
    place: str
    """A multiaddr without the id."""
    host: str
    """The IP address or the name in it."""


def candidate(text: str) -> Candidate:
    """What a multiaddr tells that ends with a peer id. Raises `ValueError` that says what is wrong with it, also for
    one that this node could not dial: it needs an IP address or a name, then a TCP port, and nothing else."""
    if len(text) > ADDRESS_CHARS:
        raise ValueError(f"it has more than {ADDRESS_CHARS} characters")
    parts = text.split("/")
    if parts[0] or len(parts) < 3:
        raise ValueError("it is no address such as /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW...")
    if len(parts) < 7 or parts[-2] not in {"p2p", "ipfs"}:
        raise ValueError("it has to end with /p2p/ and the peer's id")
    if not _PEER_ID.fullmatch(parts[-1]):
        raise ValueError("what stands behind /p2p/ is no peer id")
    if len(parts) != 7 or parts[3] != "tcp":
        raise ValueError("only addresses such as /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW... can be dialled")
    _, kind, host, _, port, *_ = parts
    _check_host(kind, host)
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= _MOST_PORT):
        raise ValueError("its port is none")
    return Candidate(parts[-1], f"/{kind}/{host}/tcp/{int(port)}", host)


def _check_host(kind: str, host: str) -> None:
    if kind in _NAME_KINDS:
        if len(host) > _MOST_NAME or not _NAME.fullmatch(host):
            raise ValueError("its name is none")
        return
    if kind not in _VERSIONS:
        raise ValueError(f"/{kind[:20]}/ can't be dialled: it has to begin with an IP address or a name")
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError("its IP address is none") from None
    if ip.version != _VERSIONS[kind] or "%" in host:
        raise ValueError(f"its IP address is none of /{kind}/")
    if ip.is_unspecified or ip.is_multicast:
        raise ValueError("nobody can be reached at this IP address")


class Candidates:
    """Takes what was found into the book of peers, and not faster than it is worth."""

    def __init__(
        self,
        heard: Callable[[str, Iterable[str]], bool],
        is_known: Callable[[str], bool],
        me: str,
        now: Callable[[], float],
    ) -> None:
        """`heard` is told a peer id and its places, and says whether there is room for it."""
        self._heard = heard
        self._is_known = is_known
        self._me = me
        self._now = now
        self._rates: dict[str, Bucket] = {}
        self.on_new: Callable[[], None] = lambda: None
        """Told when there is a peer that nobody knew."""

    def found(self, way: str, candidates: Iterable[Candidate]) -> int:
        """These were found in this way, all at once. Returns how many of the peers are new; what is above the rate is
        dropped, since whoever is there is found again."""
        places: dict[str, list[str]] = {}
        for one in candidates:
            if one.peer_id != self._me and len(of := places.setdefault(one.peer_id, [])) < MOST_ADDRESSES:
                of.append(one.place)
        new = 0
        for peer_id, addresses in places.items():
            if self._is_known(peer_id):
                self._heard(peer_id, addresses)
            elif self._may(way):
                new += self._heard(peer_id, addresses)
        if new:
            self.on_new()
        return new

    def _may(self, way: str) -> bool:
        now = self._now()
        rate = self._rates.setdefault(way, Bucket(NEW_PER_S, NEW_AT_ONCE, now))
        if rate.wait_s(1.0, now):
            return False
        rate.take(1.0)
        return True
