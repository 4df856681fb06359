# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which tree `greenroom stdio` speaks to: one that runs already, or one of its own that lives as long as it does.

A tree of its own is a `greenroom up` beside the bridge, on a free loopback port, whose standard input is a pipe that
the bridge holds: it stops in order when the bridge ends, also when that is killed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from pathlib import Path

import msgspec
import trio

from actors.errors import RuntimeUnavailableError
from actors.messages import TreeStatus
from actors.tool_messages import ToolDescriptor
from supervisor import client
from supervisor.rundir import NotRunningError, StartError

_UP_WITHIN_S = 60.0
_ENDS_WITHIN_S = 15.0
_FOREIGN_GRACE_S = 10.0
"""A tree of somebody else that went away has so long to come back, before an own one takes its place."""
_TOOL_WITHIN_S = 2.0
_START_AGAIN_S = 2.0
"""Pause after a start that failed."""
_OTHER_WITHIN_S = 5.0
_OTHER_AGAIN_S = 0.1
_NOT_STARTED = "the system could not be started; the lines above, on standard error, say why"
_LONGEST_SCREEN = 16 * 1024 * 1024


class Choice(Enum):
    """Which tree."""

    EITHER = "either"
    """The one that runs on the data directory, else an own one there."""
    ATTACH = "attach"
    """Only one that runs."""
    OWN = "own"
    """Only an own one."""


class StdioTree:
    """The tree at the moment (`gateway.stdio.wire.Tree`)."""

    def __init__(self, data_dir: Path, choice: Choice, arguments: Sequence[str]) -> None:
        """`arguments`: of `greenroom up`, for an own tree."""
        self.data_dir = data_dir
        self._choice = choice
        self._arguments = arguments
        self._process: trio.Process | None = None
        self._url = ""
        self._foreign_at = self._failed_at = -float("inf")

    async def find(self) -> str:
        """Where the gateway listens. Starts an own tree when that is what is called for.

        Raises `NotRunningError`, `StartError`, and other `MCPServerError`s while the tree does not answer.
        """
        if self._process is None or self._process.poll() is not None:
            if self._choice is not Choice.OWN:
                try:
                    return await self._running()
                except NotRunningError:
                    gone_s = trio.current_time() - self._foreign_at
                    if self._choice is Choice.ATTACH or gone_s < _FOREIGN_GRACE_S:
                        raise
            try:
                await self._start()
            except StartError:
                if self._choice is Choice.OWN:
                    raise
                return await self._started_by_another()
        return self._url

    async def tool(self, name: str) -> ToolDescriptor | None:
        """What the tree says of a tool; None when there is none. Raises `MCPServerError` when it can't be asked."""
        with trio.move_on_after(_TOOL_WITHIN_S):
            listed = await client.catalogue(self.data_dir)
            return next((tool for tool in listed.tools if tool.name == name), None)
        raise RuntimeUnavailableError(f"the router did not list the tools within {_TOOL_WITHIN_S:g} s")

    async def _running(self) -> str:
        try:
            url = (await client.status(self.data_dir)).url
        except OSError as problem:
            raise RuntimeUnavailableError(f"the system on {self.data_dir} does not answer ({problem})") from None
        self._foreign_at = trio.current_time()
        return url

    async def _started_by_another(self) -> str:
        """Programs start several bridges together, and one of them is the first. Raises `StartError`."""
        with trio.move_on_after(_OTHER_WITHIN_S):
            while True:
                try:
                    return await self._running()
                except (NotRunningError, RuntimeUnavailableError):
                    await trio.sleep(_OTHER_AGAIN_S)
        raise StartError(_NOT_STARTED)

    async def _start(self) -> None:
        await self.stop()
        if trio.current_time() - self._failed_at < _START_AGAIN_S:
            raise StartError(_NOT_STARTED)
        command = [sys.executable, "-P", "-m", "supervisor.cli", "up", "--until-eof", "--json"]
        command += ["--host", "127.0.0.1", "--port", "0", "--data-dir", str(self.data_dir), *self._arguments]
        # A session of its own: a Ctrl-C at the terminal is for the bridge, which ends its tree in order.
        self._process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        screen = b""
        with trio.move_on_after(_UP_WITHIN_S):
            screen = await self._screen(self._process)
        try:
            self._url = msgspec.json.decode(screen, type=TreeStatus).url
        except msgspec.MsgspecError:
            await self.stop()
            self._failed_at = trio.current_time()
            raise StartError(_NOT_STARTED) from None

    @staticmethod
    async def _screen(process: trio.Process) -> bytes:
        assert process.stdout is not None
        data = b""
        while not data.endswith(b"\n") and len(data) < _LONGEST_SCREEN:
            piece = await process.stdout.receive_some(65536)
            if not piece:
                break
            data += piece
        return data

    async def stop(self) -> None:
        """End an own tree: in order, in the end by force. Bounded."""
        process, self._process = self._process, None
        if process is None:
            return
        with trio.CancelScope(shield=True):
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdin.aclose()
            with trio.move_on_after(_ENDS_WITHIN_S):
                await process.wait()
            if process.poll() is None:
                process.kill()
                await process.wait()
            await process.stdout.aclose()


@asynccontextmanager
async def open_tree(
    data_dir: Path, choice: Choice, arguments: Sequence[str], *, private: bool
) -> AsyncGenerator[StdioTree, None]:
    """The tree, and its end when it was an own one. `private`: the data directory goes with it."""
    tree = StdioTree(data_dir, choice, arguments)
    try:
        yield tree
    finally:
        await tree.stop()
        if private:
            shutil.rmtree(data_dir, ignore_errors=True)


def private_data_dir() -> Path:
    """A new one, for this user only."""
    return Path(tempfile.mkdtemp(prefix="greenroom-stdio-"))


def silence_stdout() -> int:
    """Keep standard output for the protocol: a file descriptor for it, while everybody else who prints reaches
    standard error."""
    protocol = os.dup(1)
    os.dup2(2, 1)
    return protocol
