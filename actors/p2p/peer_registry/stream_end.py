# SPDX-License-Identifier: AGPL-3.0-or-later
"""How a stream is ended so that the other side still reads what was said last."""

from __future__ import annotations

from typing import Final

import trio

from actors.p2p.peer_registry.stream import PeerStream

_PARTING_S: Final = 2.0
"""Time for the other side to end it, too."""
_MOST_READ: Final = 4 << 20
"""Bytes that it may send meanwhile."""


async def part(stream: PeerStream) -> None:
    """Nothing more is said or read on it. Raises `StreamBrokenError`."""
    left = _MOST_READ
    with trio.move_on_after(_PARTING_S):
        await stream.finish()
        while left > 0:
            piece = await stream.read()
            if not piece:
                return
            left -= len(piece)
    await stream.reset()
