# SPDX-License-Identifier: AGPL-3.0-or-later
"""The libp2p host as this node wants it: TCP, noise and yamux with one Ed25519 key, and nothing else."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from actors.p2p.peer_registry import hardening
from actors.p2p.peer_registry.host_rules import HostRules


def make_host(rules: HostRules, key: Ed25519PrivateKey) -> Any:  # noqa: ANN401
    """A libp2p host that doesn't run yet. `hardening.apply` was called before."""
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
    from libp2p.network.config import RetryConfig
    from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
    from libp2p.security.noise.transport import Transport as Noise
    from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
    from libp2p.stream_muxer.yamux.yamux import Yamux

    pair = create_new_key_pair(key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))
    limits = _resources(rules)
    host = new_host(
        key_pair=pair,
        # Without this it would also take plaintext, and whoever knows our public key could pose as us.
        sec_opt={NOISE: Noise(pair, noise_privkey=create_noise_key_pair().private_key)},
        muxer_opt={YAMUX: Yamux},
        listen_addrs=addresses(rules.listen),
        announce_addrs=[multiaddr(text) for text in rules.announce] or None,
        enable_tcp=True,
        negotiate_timeout=rules.negotiate_s,
        disable_identify_address_discovery=True,
        connection_config=_connections(rules),
        resource_manager=limits,
    )
    network = host.get_network()
    # With its semaphore everybody would wait for ever once the streams are used up; without it they fail at once.
    network.set_resource_manager(limits, enable_stream_semaphore=False)
    network.retry_config = RetryConfig(max_retries=0)
    network.auto_connector.maybe_connect = _nothing
    network.auto_connector.record_disconnect = _forget
    hardening.limit(
        network,
        inbound_streams=rules.inbound_streams,
        connections=rules.max_per_address,
        handshakes=rules.max_handshakes_per_address,
    )
    hardening.ask_nobody(host)
    hardening.name_ourselves(rules.agent)
    return host


def new_host(**settings: Any) -> Any:  # noqa: ANN401
    """libp2p's own way of making a host."""
    import libp2p

    return libp2p.new_host(**settings)


def addresses(texts: tuple[str, ...]) -> list[Any]:
    """Multiaddrs. Raises `ValueError` for what is none, and for what is more than an IP address and a TCP port."""
    found = []
    for text in texts:
        address = multiaddr(text)
        names = [protocol.name for protocol in address.protocols()]
        if names not in (["ip4", "tcp"], ["ip6", "tcp"]):
            raise ValueError(f"{text!r} can't be listened on: give an address such as /ip4/192.0.2.1/tcp/4001")
        found.append(address)
    return found


def multiaddr(text: str) -> Any:  # noqa: ANN401
    """The multiaddr that is written so. Raises `ValueError`."""
    from multiaddr import Multiaddr

    try:
        return Multiaddr(text)
    except Exception as error:  # noqa: BLE001
        raise ValueError(f"{text!r} is no multiaddr: {error}") from None


def _connections(rules: HostRules) -> Any:  # noqa: ANN401
    from libp2p.network.config import ConnectionConfig

    return ConnectionConfig(
        max_connections=rules.max_connections,
        min_connections=0,
        low_watermark=0,
        high_watermark=rules.max_connections,  # we decide ourselves whom to disconnect
        max_connections_per_peer=rules.max_per_peer,
        inbound_upgrade_timeout=rules.upgrade_s,
        outbound_upgrade_timeout=rules.upgrade_s,
        inbound_stream_protocol_negotiation_timeout=rules.negotiate_s,
        outbound_stream_protocol_negotiation_timeout=rules.negotiate_s,
    )


def _resources(rules: HostRules) -> Any:  # noqa: ANN401
    from libp2p.rcmgr.connection_limits import ConnectionLimits
    from libp2p.rcmgr.manager import ResourceLimits, ResourceManager

    return ResourceManager(
        # A connection counts twice for a moment, while it is upgraded.
        limits=ResourceLimits(max_connections=rules.max_connections + 64, max_streams=rules.max_streams),
        connection_limits=ConnectionLimits(
            max_established_inbound=rules.max_inbound,
            max_established_per_peer=rules.max_per_peer,
            max_established_total=rules.max_connections,
        ),
        # No limits that move by themselves.
        enable_graceful_degradation=False,
        enable_circuit_breaker=False,
    )


async def _nothing(*_: object, **__: object) -> None:
    """Whom to dial is decided by the registry, not by what happens to be in libp2p's peerstore."""


def _forget(*_: object) -> None:
    """Nor is a list kept of all who ever left."""
