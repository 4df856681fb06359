# SPDX-License-Identifier: AGPL-3.0-or-later
"""For tests of single processes: a spawner without a runtime, what its children say, and what /proc knows of them."""

from __future__ import annotations

import gc
import os
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path

import trio
import trio.testing
from actor_scripts import ENTRY

from actors.messages import Boot
from supervisor.forked import ForkServer
from supervisor.spawn_tractor import open_tractor_spawner, tractor
from supervisor.spec import Limits

SUPPORT = str(Path(__file__).parent)
_incarnations = count(1)
forked = False
"""Whether children are forks of a fork server; set by the fixture `way`."""


class Child:
    """A process that was spawned, and all that it wrote."""

    def __init__(self) -> None:
        self.output = bytearray()
        self._wrote = trio.Event()
        self.process = None

    def hear(self, _: str, chunk: bytes) -> None:
        self.output += chunk
        self._wrote.set()
        self._wrote = trio.Event()

    async def said(self, text: str) -> str:
        """Wait until it has written this; returns the line that holds it."""
        while text.encode() not in self.output or not self.output.partition(text.encode())[2].count(b"\n"):
            await self._wrote.wait()
        return next(line for line in self.output.decode().splitlines() if text in line)

    async def number(self, name: str) -> int:
        """The number that it says after `name`."""
        return int((await self.said(name)).removeprefix(name))

    @property
    def pid(self) -> int:
        return self.process.pid

    def __getattr__(self, name: str):
        return getattr(self.process, name)


@asynccontextmanager
async def spawner(monkeypatch):
    """A spawner whose children can import the test's actors, and a shorthand to start one."""
    monkeypatch.setenv("PYTHONPATH", SUPPORT)
    server = ForkServer(["actors.base"]) if forked else None
    async with open_tractor_spawner(server) as real:
        yield partial(start, real)


async def start(real, code: str, *, entry: str = ENTRY, limits: Limits | None = None, listen_fd: int | None = None):
    """Start a child that runs `code`."""
    child = Child()
    boot = Boot(
        actor="a_child",
        incarnation=next(_incarnations),
        entry=entry,
        token="token",
        runtime_dir="",
        data_dir="",
        beat_every_s=1.0,
        root_pid=os.getpid(),
        settings=code.encode(),
        listen_fds={} if listen_fd is None else {"a_child": listen_fd},
    )
    child.process = await real.spawn(boot, limits=limits or Limits(), on_stderr=child.hear)
    return child


def state(pid: int) -> str:
    """The one letter of ps, `Z` for a zombie; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def gone(pid: int) -> bool:
    """No code of it runs any more; whoever adopted it may still have to reap it."""
    return state(pid) in {"", "Z", "X"}


def open_files(pid: int | str = "self") -> dict[int, str]:
    """Its file descriptors and what they are."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[int(entry.name)] = str(entry.readlink())
        except FileNotFoundError:
            continue
    return found


def children() -> set[int]:
    """Processes that this one started and that are not reaped, zombies included."""
    return (
        {int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}
        if Path(f"/proc/self/task/{os.getpid()}/children").exists()
        else set()
    )


def actor_memory() -> dict[str, int]:
    """How many things tractor's root remembers, by kind."""
    return {name: len(value) for name, value in vars(tractor.current_actor()).items() if isinstance(value, dict | list)}


async def tractor_settled() -> None:
    """Wait until tractor has let go of every life but those that run."""
    with trio.fail_after(5):
        while len(tractor.current_actor()._peers) > len(children()):
            await trio.sleep(0.01)
    await trio.testing.wait_all_tasks_blocked(0.05)
    gc.collect()


async def wait_gone(*pids: int) -> None:
    """Wait until no code of them runs any more."""
    while not all(map(gone, pids)):
        await trio.sleep(0.005)
