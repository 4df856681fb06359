# SPDX-License-Identifier: AGPL-3.0-or-later
"""The port of a node that may have any: it keeps the one it had, so that peers find it again after a restart.

It is in a file of the data directory. A file that can't be used costs the port, and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from actors.errors import UnavailableError
from actors.logs import get_logger
from actors.p2p.peer_registry.addresses import tcp_port_of
from actors.p2p.peer_registry.host import Host, open_host
from actors.p2p.peer_registry.host_rules import HostRules

FILE: Final = "peer.port"
_ANY: Final = "/tcp/0"
_MOST_BYTES: Final = 16
_MOST: Final = 65535


def kept(path: Path) -> int:
    """The port that is kept in this file; 0 = none."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1).strip()
    except OSError:
        return 0
    port = int(text) if text.isdigit() and len(text) <= _MOST_BYTES else 0
    return port if port <= _MOST else 0


def keep(path: Path, port: int) -> None:
    """Put it there whole. Raises `OSError`."""
    draft = path.with_name(f"{path.name}.new")
    draft.write_text(f"{port}\n")
    draft.replace(path)


def at(rules: HostRules, port: int) -> HostRules:
    """The same with this port wherever any will do."""
    listen = tuple(f"{one.removesuffix(_ANY)}/tcp/{port}" if one.endswith(_ANY) else one for one in rules.listen)
    return msgspec.structs.replace(rules, listen=listen)


@asynccontextmanager
async def open_host_again(rules: HostRules, key: Ed25519PrivateKey, data_dir: Path) -> AsyncGenerator[Host]:
    """`open_host`, at the port that it had last where any will do and that one is free."""
    path = data_dir / FILE
    if not any(one.endswith(_ANY) for one in rules.listen):
        async with open_host(rules, key) as host:
            yield host
        return
    port = await trio.to_thread.run_sync(kept, path)
    async with AsyncExitStack() as stack:
        try:
            host = await stack.enter_async_context(open_host(at(rules, port), key))
        except UnavailableError:
            if not port:
                raise
            get_logger().warning("the port that this node had is taken, it gets another one", port=port)
            host = await stack.enter_async_context(open_host(rules, key))
        now = tcp_port_of(host.addresses[0]) if host.addresses else 0
        if now and now != port:
            try:
                await trio.to_thread.run_sync(keep, path, now)
            except OSError as error:
                get_logger().warning("the port can't be kept for the next start", path=str(path), reason=str(error))
        yield host
