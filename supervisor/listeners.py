# SPDX-License-Identifier: AGPL-3.0-or-later
"""The listening TCP sockets: the root opens them, keeps them open, and hands each gateway its own; it never accepts.

While a gateway restarts, its socket stays and connects wait in the backlog instead of being refused.
"""

from __future__ import annotations

import socket
from typing import Any

from supervisor.rundir import StartError

_BACKLOG = 1024


def open_listeners(host: str, port: int, count: int) -> list[socket.socket]:
    """`count` sockets on one address (SO_REUSEPORT when more than one; the kernel spreads connections over them).

    Port 0 takes a free one. Raises `StartError` with the remedy when the address can't be bound.
    """
    sockets: list[socket.socket] = []
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )[0]
        if count > 1:
            address = _free_address(family, address)
        for _ in range(count):
            sock = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if count > 1:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(address)
        for sock in sockets:
            sock.listen(_BACKLOG)
            sock.setblocking(False)
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise StartError(
            f"{host}:{port} can't be listened on ({error.strerror or error}); choose another with --host and --port"
        ) from None
    return sockets


def _free_address(family: int, address: Any) -> Any:  # noqa: ANN401
    """The address, once it was bound alone: SO_REUSEPORT would silently share a port that another server of the same
    user listens on, and take a part of its connections. Raises OSError."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        return probe.getsockname()


def url_of(sock: socket.socket) -> str:
    """The address really bound, as an http URL without a path."""
    host, port = sock.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
