# SPDX-License-Identifier: AGPL-3.0-or-later
"""A tree of the run's own: started in a scratch data directory, patient with deaths, ended with the run.

Only here may the root be killed, for only here is somebody who starts it again.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

from actors.errors import MCPServerError

_ENDS_WITHIN_S = 30.0
_UP_WITHIN_S = 60.0
LOG = "greenroom.log"
SETTINGS = {
    "CHAOS__ENABLED": "true",
    "SUPERVISOR__RESTARTS": "100000",
    "SUPERVISOR__BACKOFF_RESET_S": "0.001",
    "SUPERVISOR__HEARTBEAT_S": "0.5",
    "SUPERVISOR__HUNG_AFTER_S": "3",
    "SUPERVISOR__READY_TIMEOUT_S": "8",
    "RUNTIMES__GENERAL__WORKERS": "2",
    "RUNTIMES__GENERAL__TIMEOUT": "15",
}
"""Faults come faster than any real crash: no attempt may be too many, and each restart is a first one. Hangs are
noticed sooner than by default, so that a run has time for many."""


class OwnTreeError(MCPServerError):
    """The run's own tree could not be started; the message has the end of its log."""

    code = "OWN_TREE_FAILED"


class OwnTree:
    """One `greenroom up` after the other, on one data directory and one port."""

    def __init__(self, home: Path) -> None:
        self.data_dir = home / "data"
        self.log = home / LOG
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._process: trio.Process | None = None

    async def start(self) -> None:
        """Start it. Raises `OwnTreeError` when it ended instead of being up."""
        command = [sys.executable, "-P", "-m", "supervisor.cli", "up", "--json", "--port", str(self._port)]
        command += ["--data-dir", str(self.data_dir)]
        # What is configured for the user's own system has no place here.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("GREENROOM_", "MCP_"))}
        environment |= {f"GREENROOM_{name}": value for name, value in SETTINGS.items()}
        with self.log.open("ab") as log:
            self._process = await trio.lowlevel.open_process(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment
            )
        assert self._process.stdout is not None
        line = b""
        with trio.move_on_after(_UP_WITHIN_S):
            line = bytes(await self._process.stdout.receive_some(65536))
        if not line:
            tail = self.log.read_bytes()[-2000:].decode(errors="replace")
            raise OwnTreeError(f"a system for the chaos run did not start; its log ends with:\n{tail}")

    async def kill_root(self) -> None:
        """SIGKILL to the root, and nothing else."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """End it in order, in the end by force."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        with trio.move_on_after(_ENDS_WITHIN_S):
            await self._process.wait()
            return
        self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def own_tree(*, keep: bool) -> AsyncGenerator[OwnTree, None]:
    """A tree in a scratch folder, which is removed at the end unless `keep`."""
    home = Path(tempfile.mkdtemp(prefix="greenroom-chaos-"))
    tree = OwnTree(home)
    try:
        await tree.start()
        yield tree
    finally:
        with trio.CancelScope(shield=True):  # bounded: a stop in order, then a kill
            await tree.stop()
        if not keep:
            with suppress(OSError):
                shutil.rmtree(home)
