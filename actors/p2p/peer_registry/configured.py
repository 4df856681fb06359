# SPDX-License-Identifier: AGPL-3.0-or-later
"""The parts of this actor as the settings want them."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from actors.errors import UnavailableError
from actors.p2p.peer_registry.bans import BanRules, Bans
from actors.p2p.peer_registry.contacts import ContactRules
from actors.p2p.peer_registry.host_rules import HostRules
from actors.p2p.peer_registry.peer_book import PeerBook
from actors.settings_p2p import ConnectivitySettings, PeerRegistrySettings

_INBOUND_SHARE = 0.8
"""Of all connections: so that others can't keep this node from connecting."""


def host_rules(settings: ConnectivitySettings) -> HostRules:
    """Of the libp2p host. Raises `UnavailableError` for an address that is none."""
    usual = HostRules()
    most = max(2, settings.max_connections)
    return HostRules(
        listen=(listen_address(settings),) if settings.listen_host else (),
        max_connections=most,
        max_inbound=max(1, int(most * _INBOUND_SHARE)),
        max_streams=max(usual.max_streams, 2 * most * usual.inbound_streams),
        agent=f"greenroom/{version('greenroom')}",
    )


def listen_address(settings: ConnectivitySettings) -> str:
    """As a multiaddr."""
    try:
        address = ipaddress.ip_address(settings.listen_host)
    except ValueError:
        raise UnavailableError(
            f"p2p.connectivity.listen_host is {settings.listen_host!r}; it has to be an IP address, such as 127.0.0.1"
        ) from None
    return f"/ip{address.version}/{address}/tcp/{settings.listen_port}"


def contact_rules(settings: ConnectivitySettings) -> ContactRules:
    """Of dialling."""
    return ContactRules(timeout_s=settings.connection_timeout)


def new_book(settings: PeerRegistrySettings, now: Callable[[], float]) -> PeerBook:
    """An empty one."""
    rules = BanRules(ban_s=settings.ban_s, ban_max_s=settings.ban_max_s, forgive_s=settings.forgive_s)
    return PeerBook(Bans(rules, now), max_peers=settings.max_peers, keep_s=settings.keep_s, now=now)


def store_path(settings: PeerRegistrySettings, data_dir: Path) -> Path:
    """Of the file of peers."""
    return Path(settings.store_path) if settings.store_path else data_dir / "peers.sqlite"
