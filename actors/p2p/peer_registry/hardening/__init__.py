# SPDX-License-Identifier: AGPL-3.0-or-later
"""libp2p 0.8.1 made fit for strangers: faults closed that let a peer end, stall or fill this process.

Nothing here changes what goes over the wire. Each patch names its fault (B1, B2, ...) as `docs/peers.md` lists them. No
code outside of this package touches libp2p's private names, so a new release has to be looked at in one place only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib.metadata import version
from typing import Any, Final

from actors.p2p.peer_registry.hardening import (
    dialling,
    handlers,
    inbound,
    liveness,
    loggers,
    negotiation,
    reading,
    receiving,
    sending,
    stand_ins,
)
from actors.p2p.peer_registry.hardening.addresses import Shares
from actors.p2p.peer_registry.hardening.closing import cut as cut
from actors.p2p.peer_registry.hardening.counters import Counters as Counters
from actors.p2p.peer_registry.hardening.counters import counters as counters
from actors.p2p.peer_registry.hardening.identify import ask_nobody as ask_nobody
from actors.p2p.peer_registry.hardening.identify import name_ourselves as name_ourselves

VERSION: Final = "0.8.1"
"""The only release that the patches fit."""

PATCHES: Final[dict[str, Callable[[], None]]] = {
    "B1": negotiation.bound_names,
    "B2": handlers.contain_handlers,
    "B3": sending.write_whole_frames,
    "B4": inbound.free_inbound_slots,
    "B5": receiving.credit_once,
    "B6": receiving.bound_unread,
    "B7": receiving.bound_streams,
    "B7 refused": handlers.refuse_streams,
    "B8": liveness.heed_pings,
    "B9": dialling.dial_without_delay,
    "B10": dialling.forget_failed_dials,
    "B11": inbound.own_the_port,
    "B12": inbound.know_ipv6_addresses,
    "B13": inbound.release_denied_connections,
    "B14": sending.wait_for_room,
    "B30": loggers.quiet_loggers,
    "B33": handlers.end_handlers,
    "B37": reading.tell_ends_apart,
    "B32": handlers.contain_connections,
}
"""Every patch by the name of its fault."""

_applied: set[str] = set()


def limit(network: Any, *, inbound_streams: int, connections: int, handshakes: int) -> None:  # noqa: ANN401
    """Set what others may have of this swarm: open streams per connection; connections, and handshakes, per address."""
    network.greenroom_inbound_streams = inbound_streams
    network.greenroom_shares = Shares(connections, handshakes)


def apply(*, without: Collection[str] = ()) -> None:
    """Make `import libp2p` work and close its faults. Does nothing when it has been called before in this process.

    `without` leaves patches out; tests use it to see that a fault is one. Raises `RuntimeError` when another release of
    libp2p is installed.
    """
    if _applied:
        return
    if (installed := version("libp2p")) != VERSION:
        raise RuntimeError(f"libp2p {installed} is installed; the patches are for {VERSION}")
    stand_ins.install()
    for fault, patch in PATCHES.items():
        if fault not in without:
            patch()
            _applied.add(fault)
