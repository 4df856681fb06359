# SPDX-License-Identifier: AGPL-3.0-or-later
"""How connections are made."""

from __future__ import annotations

from typing import Final

_HEAD_START_S: Final = 0.002
_REFUSED_S: Final = 1.0
_MOST_REFUSED: Final = 10_000


def dial_without_delay() -> None:
    """B9: every dial of a peer takes 250 ms, also after it has succeeded. Closed by a shorter head start for the first
    address. Our own dials go to one address each and don't come this way.
    """
    from libp2p.network import swarm

    swarm._HAPPY_EYEBALLS_DELAY = _HEAD_START_S


def forget_failed_dials() -> None:
    """B10: after one failed dial a peer can't be dialled for a minute. Closed by remembering it for a second."""
    from libp2p.network import swarm

    swarm._NegativePeerCache.__init__.__defaults__ = (_REFUSED_S, _MOST_REFUSED)
