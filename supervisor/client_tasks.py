# SPDX-License-Identifier: AGPL-3.0-or-later
"""The task queue of a running tree, for the command line and for programs beside the tree."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from actors.channel import Channel
from actors.errors import ActorDiedError
from actors.messages import Directory
from actors.peers import Peers, hello
from actors.task_client import TaskClient
from supervisor.admin import open_admin
from supervisor.client import ASK_TIMEOUT_S
from supervisor.rundir import find_running

_FOLLOW_EVERY_S = 0.1


@asynccontextmanager
async def open_tasks(data_dir: Path) -> AsyncGenerator[TaskClient, None]:
    """The task queue of the tree on this data directory; found again when it restarts.

    Raises `supervisor.rundir.NotRunningError` when there is no tree. When its root ends meanwhile, the queue is gone.
    """
    async with open_admin(find_running(data_dir)) as admin:
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            peers = Peers(hello("cli", 0), nursery)
            peers.update(await _directory(admin))
            nursery.start_soon(_follow, admin, peers)
            try:
                yield TaskClient(peers, nursery)
            except Exception as error:  # noqa: BLE001
                # Raised again outside of the nursery, which would wrap it into a group.
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure


async def _follow(admin: Channel, peers: Peers) -> None:
    """Keep the list of processes as it is. The root pushes it to its actors only, so it is asked for."""
    while True:
        await trio.sleep(_FOLLOW_EVERY_S)
        try:
            directory = await _directory(admin)
        except ActorDiedError:
            peers.update(Directory(entries=[]))
            return
        if {entry.name: entry for entry in directory.entries} != peers.entries:
            peers.update(directory)


async def _directory(admin: Channel) -> Directory:
    return msgspec.msgpack.decode(await admin.call("directory", None, timeout_s=ASK_TIMEOUT_S), type=Directory)
