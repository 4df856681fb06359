# SPDX-License-Identifier: AGPL-3.0-or-later
"""libp2p 0.8.1 made fit for strangers: faults closed that let a peer end, stall or fill this process.

Nothing here changes what goes over the wire. Each patch names its fault (B1, B2, ...) as `docs/peers.md` lists them. No
code outside of this package touches libp2p's private names, so a new release has to be looked at in one place only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from actors.p2p.peer_registry.hardening import inbound, loggers, stand_ins

VERSION: Final = "0.8.1"
"""The only release that the patches fit."""

PATCHES: Final[dict[str, Callable[[], None]]] = {
    "B4": inbound.free_inbound_slots,
    "B11": inbound.own_the_port,
    "B12": inbound.know_ipv6_addresses,
    "B13": inbound.release_denied_connections,
    "B30": loggers.quiet_loggers,
}
"""Every patch by the name of its fault."""

_applied: set[str] = set()


def apply(*, without: Collection[str] = ()) -> None:
    """Make `import libp2p` work and close its faults. Does nothing when it has been called before in this process.

    `without` leaves patches out; tests use it to see that a fault is one. Raises `RuntimeError` when another release of
    libp2p is installed.
    """
    if _applied:
        return
    stand_ins.install()
    import libp2p

    if libp2p.__version__ != VERSION:
        raise RuntimeError(f"libp2p {libp2p.__version__} is installed; the patches are for {VERSION}")
    for fault, patch in PATCHES.items():
        if fault not in without:
            patch()
            _applied.add(fault)
