# SPDX-License-Identifier: AGPL-3.0-or-later
"""What operators ask of the peer registry. For the command line."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from actors.peer_client import PeerClient
from supervisor.client_tasks import open_peers


@asynccontextmanager
async def open_registry(data_dir: Path) -> AsyncGenerator[PeerClient, None]:
    """The peer registry of the tree on this data directory. Raises as `open_peers` does."""
    async with open_peers(data_dir) as (peers, _):
        yield PeerClient(peers)
