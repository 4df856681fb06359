# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a peer says of itself."""

from __future__ import annotations

from typing import Any


def ask_nobody(host: Any) -> None:  # noqa: ANN401
    """B34: what a peer says of itself may be a megabyte long, is read in tasks that nobody owns, and is kept. Closed by
    our own reading of it, in `host_protocols.py`: libp2p no longer asks.
    """
    notifees = host.get_network().notifees
    notifees[:] = [notifee for notifee in notifees if type(notifee).__name__ != "_IdentifyNotifee"]


def name_ourselves(agent: str) -> None:
    """What this node says that its program is."""
    from libp2p.identity.identify import identify

    identify.AGENT_VERSION = agent
