# SPDX-License-Identifier: AGPL-3.0-or-later
"""The hard end of a connection, whatever its locks, tasks and the other side are doing."""

from __future__ import annotations

from typing import Any

import trio

from actors.p2p.peer_registry.hardening.limits import CUT_S

_INWARDS = ("conn", "read_writer", "read_write_closer", "stream", "raw_conn")
_LAYERS = 16


async def cut(muxed: Any) -> None:  # noqa: ANN401
    """Close the socket and wake whoever waits for the connection. Not to be called with one of its locks held."""
    with trio.move_on_after(CUT_S, shield=True):
        await cut_socket(muxed)
        await muxed._cleanup_on_error()


async def cut_socket(muxed: Any) -> None:  # noqa: ANN401
    """Close the socket; whoever reads from it or writes to it sees to the rest."""
    muxed.event_shutting_down.set()
    socket = _socket(muxed.secured_conn)
    if socket is not None:
        await trio.aclose_forcefully(socket)


def _socket(layer: Any) -> trio.SocketStream | None:  # noqa: ANN401
    for _ in range(_LAYERS):
        if layer is None or isinstance(layer, trio.SocketStream):
            return layer
        layer = next((inner for name in _INWARDS if (inner := getattr(layer, name, None)) is not None), None)
    return None
