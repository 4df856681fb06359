# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whether the other side of a connection is still there."""

from __future__ import annotations

import struct
from typing import Any, Final

import trio

from actors.p2p.peer_registry.hardening.closing import cut
from actors.p2p.peer_registry.hardening.limits import PING_EVERY_S, PING_WITHIN_S

_HEADER: Final = struct.Struct("!BBHII")
_PING: Final = 2
_ASK: Final = 1
_FIRST_AFTER_S: Final = 0.5


def heed_pings() -> None:
    """B8: pings are sent, and that no answer comes has no consequence: a frozen peer counts as connected for ever.
    Closed by cutting the connection.
    """
    from libp2p.stream_muxer.yamux.yamux import Yamux

    async def watch(muxed: Any) -> None:  # noqa: ANN401
        pause = _FIRST_AFTER_S
        while not await _closes_within(muxed, pause):
            pause = PING_EVERY_S
            if not await _answered(muxed):
                await cut(muxed)
                return

    Yamux._measure_rtt_loop = watch


async def _closes_within(muxed: Any, pause_s: float) -> bool:  # noqa: ANN401
    with trio.move_on_after(pause_s):
        await muxed.event_shutting_down.wait()
    closes: bool = muxed.event_shutting_down.is_set()
    return closes


async def _answered(muxed: Any) -> bool:  # noqa: ANN401
    muxed._ping_id = (muxed._ping_id + 1) & 0xFFFFFFFF
    muxed._ping_event = trio.Event()
    with trio.move_on_after(PING_WITHIN_S):
        try:
            await muxed._write_frame(_HEADER.pack(0, _PING, _ASK, 0, muxed._ping_id))
        except Exception:  # noqa: BLE001
            return False
        muxed._ping_sent_time = trio.current_time()
        await muxed._ping_event.wait()
        return True
    return False
