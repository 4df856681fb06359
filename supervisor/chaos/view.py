# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tree as a run sees it: what the root tells over its admin socket, and what /proc tells of its processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import trio

from actors.errors import ActorDiedError, MCPServerError
from actors.messages import ActorStatus, State, TreeStatus
from actors.peers import base_name
from supervisor.admin import open_admin
from supervisor.chaos.enabling import ChaosInfo
from supervisor.chaos.history import Footprint
from supervisor.client import ask_directory
from supervisor.rundir import NotRunningError, find_running
from supervisor.spec import Strategy

_ASK_S = 10.0
_POLL_S = 0.005
_FINE = {State.READY, State.SPARE, State.OFF}
_LISTENING = "0A"
"""State of a socket in /proc/net/tcp."""


class TreeView:
    """The tree that runs on one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    def is_there(self) -> bool:
        """Whether a root runs."""
        try:
            find_running(self.data_dir)
        except NotRunningError:
            return False
        return True

    async def info(self) -> ChaosInfo:
        """What the root tells a chaos run. Raises `NotRunningError`, or `CHAOS_OFF` as the root says it."""
        async with open_admin(find_running(self.data_dir)) as admin:
            return msgspec.msgpack.decode(await admin.call("chaos", None, timeout_s=_ASK_S), type=ChaosInfo)

    async def status(self) -> TreeStatus:
        """The whole tree, now."""
        async with open_admin(find_running(self.data_dir)) as admin:
            return msgspec.msgpack.decode(await admin.call("status", None, timeout_s=_ASK_S), type=TreeStatus)

    async def sockets(self) -> dict[str, str]:
        """Where each actor listens."""
        async with open_admin(find_running(self.data_dir)) as admin:
            directory = await ask_directory(admin)
        return {entry.name: entry.socket for entry in directory.entries if entry.socket}

    async def wait(self, condition: Callable[[TreeStatus], bool], timeout_s: float) -> bool:
        """Until the tree is so; False when it was not in time. A root that is not there yet is waited for."""
        with trio.move_on_after(timeout_s):
            while True:
                with contextlib.suppress(NotRunningError, ActorDiedError):
                    async with open_admin(find_running(self.data_dir)) as admin:
                        while True:
                            reply = await admin.call("status", None, timeout_s=_ASK_S)
                            if condition(msgspec.msgpack.decode(reply, type=TreeStatus)):
                                return True
                            await trio.sleep(_POLL_S)
                await trio.sleep(_POLL_S)
        return False

    async def wait_fork_server(self, other_than: int, timeout_s: float) -> bool:
        """Until there is a fork server, another one than this."""
        with trio.move_on_after(timeout_s):
            while True:
                with contextlib.suppress(MCPServerError):
                    if (await self.info()).fork_server_pid not in {0, other_than}:
                        return True
                await trio.sleep(0.02)
        return False


def is_whole(status: TreeStatus) -> bool:
    """Whether everything is ready, spares too."""
    return all(actor.state in _FINE for actor in status.actors)


def not_whole(status: TreeStatus) -> list[str]:
    """What is not ready, in words."""
    return [
        f"{actor.name} is {actor.state}" + (f": {actor.reason}" if actor.reason else "")
        for actor in status.actors
        if actor.state not in _FINE
    ]


def restarted_with(status: TreeStatus, name: str) -> list[str]:
    """Base names of the siblings that are restarted when this actor ends, by the strategy of its group."""
    group = next((actor.group for actor in status.actors if actor.name == name), "")
    siblings = [actor.name for actor in status.actors if actor.group == group]
    if status.groups.get(group) == Strategy.REST_FOR_ONE:
        siblings = siblings[siblings.index(name) :]
    elif status.groups.get(group) != Strategy.ONE_FOR_ALL:
        return []
    return [base_name(sibling) for sibling in siblings if sibling != name]


def pids(status: TreeStatus) -> dict[str, int]:
    """The processes by name."""
    return {actor.name: actor.pid for actor in status.actors if actor.pid}


def actor(status: TreeStatus, name: str) -> ActorStatus | None:
    """One actor."""
    return next((one for one in status.actors if one.name == name), None)


def processes_of(status: TreeStatus, base: str) -> list[ActorStatus]:
    """All that do the work of one base name; no spares."""
    return [one for one in status.actors if base_name(one.name) == base and one.state == State.READY and one.pid]


# --- /proc ---------------------------------------------------------------------------------------------------------


def _parents() -> dict[int, tuple[int, str]]:
    """Parent and state of every process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                found[int(entry.name)] = (int(fields[1]), fields[0])
    return found


def below(root: int) -> dict[int, str]:
    """Every process below the root, and its state."""
    parents = _parents()
    found: dict[int, str] = {}
    todo = [root]
    while todo:
        parent = todo.pop()
        children = {pid: state for pid, (above, state) in parents.items() if above == parent}
        found |= children
        todo += children
    return found


def zombies(root: int) -> list[int]:
    """Dead processes below the root that nobody reaped."""
    return [pid for pid, state in below(root).items() if state == "Z"]


def strays(root: int, fork_server: int, known: Iterable[int]) -> list[int]:
    """Living children of the root and of its fork server that are no actors: what tools start is not among them."""
    ours = {*known, fork_server}
    return [
        pid
        for pid, (parent, state) in _parents().items()
        if parent in {root, fork_server} and pid not in ours and state != "Z" and parent
    ]


def alive(pid: int) -> bool:
    """Whether a process runs: a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


async def outlive(pids: Iterable[int], within_s: float) -> list[int]:
    """Wait until these processes are gone; those that live on after so many seconds."""
    left = [pid for pid in pids if alive(pid)]
    with trio.move_on_after(within_s):
        while left:
            await trio.sleep(0.002)
            left = [pid for pid in left if alive(pid)]
    return left


def exists(path: str) -> bool:
    """Whether a file or folder is there."""
    return Path(path).exists()


def footprint(root: int) -> Footprint | None:
    """Open files and resident memory of a process; None when it is gone."""
    try:
        status = Path(f"/proc/{root}/status").read_text()
        files = len(list(Path(f"/proc/{root}/fd").iterdir()))
    except OSError:
        return None
    rss = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")), 0)
    return Footprint(files, rss)


def listening_ports(processes: Iterable[int]) -> list[int]:
    """TCP ports on which these processes listen (IPv4)."""
    ports = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == _LISTENING:
            ports[fields[9]] = int(fields[1].rpartition(":")[2], 16)
    found = set()
    for pid in processes:
        with contextlib.suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    target = str(link.readlink())
                    if target.startswith("socket:[") and target[8:-1] in ports:
                        found.add(ports[target[8:-1]])
    return sorted(found)


def kill(pid: int, number: int) -> bool:
    """Signal a process; False when it is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
