# SPDX-License-Identifier: AGPL-3.0-or-later
"""The actors of a running tree, and its task queue, for the command line and for programs beside the tree."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from actors.channel import Channel
from actors.errors import ActorDiedError
from actors.messages import Directory
from actors.peers import Peers, hello
from actors.task_client import TaskClient
from supervisor.admin import background, open_admin
from supervisor.client import ask_directory
from supervisor.rundir import find_running

_FOLLOW_EVERY_S = 0.1


@asynccontextmanager
async def open_peers(data_dir: Path) -> AsyncGenerator[tuple[Peers, trio.Nursery], None]:
    """The actors of the tree on this data directory, found again when they restart; and a nursery for their clients.

    Raises `supervisor.rundir.NotRunningError` when there is no tree. When its root ends meanwhile, they are gone.
    """
    async with open_admin(find_running(data_dir)) as admin, background() as nursery:
        peers = Peers(hello("cli", 0), nursery)
        peers.update(await ask_directory(admin))
        nursery.start_soon(_follow, admin, peers)
        yield peers, nursery


@asynccontextmanager
async def open_tasks(data_dir: Path) -> AsyncGenerator[TaskClient, None]:
    """The task queue of the tree on this data directory."""
    async with open_peers(data_dir) as (peers, nursery):
        yield TaskClient(peers, nursery)


async def _follow(admin: Channel, peers: Peers) -> None:
    """Keep the list of processes as it is. The root pushes it to its actors only, so it is asked for."""
    while True:
        await trio.sleep(_FOLLOW_EVERY_S)
        try:
            directory = await ask_directory(admin)
        except ActorDiedError:
            peers.update(Directory(entries=[]))
            return
        if {entry.name: entry for entry in directory.entries} != peers.entries:
            peers.update(directory)
