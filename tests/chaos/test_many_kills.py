# SPDX-License-Identifier: AGPL-3.0-or-later
"""Random children are killed one after the other under load: no repeatable call is lost, and nothing is left behind.

`GREENROOM_CHAOS_KILLS` sets how many (60 in the suite), `GREENROOM_TEST_SEED` repeats a run.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest
from running import McpClient, alive, started, wait_until

pytestmark = pytest.mark.chaos

KILLS = int(os.environ.get("GREENROOM_CHAOS_KILLS", "60"))
SEED = int(os.environ.get("GREENROOM_TEST_SEED", str(random.randrange(2**32))))
PATIENT = {
    "GREENROOM_SUPERVISOR__RESTARTS": "100000",
    "GREENROOM_SUPERVISOR__BACKOFF_RESET_S": "0.001",
    "GREENROOM_RUNTIMES__GENERAL__WORKERS": "2",
}
CALLERS = 4


class Callers:
    """Threads that call `echo` without a pause; a call that got no answer is repeated, for `echo` may be."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answered = 0
        self.wrong: list[object] = []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._work, args=(number,)) for number in range(CALLERS)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join(30)

    def _work(self, number: int) -> None:
        count = 0
        with McpClient(self.url) as client:
            while not self.stopping.is_set():
                count += 1
                wanted = f"{number}-{count}"
                try:
                    answer = client.call("echo", text=wanted)
                except (httpx.TransportError, OSError):
                    continue  # the gateway died with the connection
                if answer.get("isError") or answer["content"][0]["text"] != wanted:
                    self.wrong.append(answer)
                else:
                    self.answered += 1


def descendants(root: int) -> dict[int, str]:
    """Every process below the root, and its state."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = (int(fields[1]), fields[0])
    found, todo = {}, [root]
    while todo:
        parent = todo.pop()
        below = {pid: state for pid, (above, state) in parents.items() if above == parent}
        found |= below
        todo += below
    return found


def footprint(root: int) -> dict[str, int]:
    """Open files and resident memory (KiB) of the root."""
    status = Path(f"/proc/{root}/status").read_text()
    rss = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return {"files": len(list(Path(f"/proc/{root}/fd").iterdir())), "rss_kib": rss}


def whole(tree):
    actors = tree.actors()
    return all(actor["state"] in ("ready", "spare", "off") for actor in actors.values()) and actors


def test_nothing_is_lost_and_nothing_is_left_after_many_kills(tmp_path):
    chance = random.Random(SEED)
    print(f"seed {SEED}, {KILLS} kills")
    with started(tmp_path / "data", env=PATIENT) as tree:
        root = tree.root_pid
        wait_until(lambda: whole(tree), 20, "the tree with its spares")
        victims = set()
        with Callers(tree.url) as callers:
            before = None
            for number in range(KILLS):
                pids = {name: actor["pid"] for name, actor in tree.actors().items() if actor["pid"]}
                name = chance.choice(sorted(pids))
                os.kill(pids[name], signal.SIGKILL)
                victims.add(pids[name])
                time.sleep(chance.uniform(0.0, 0.1))
                if number == KILLS // 3:
                    wait_until(lambda: whole(tree), 20, "the tree to be whole again")
                    before = footprint(root)
            wait_until(lambda: whole(tree), 20, "the tree to be whole again")
            seen = callers.answered
            wait_until(lambda: callers.answered > seen + 100, 10, "load to flow")
        after = footprint(root)
        print(f"{callers.answered} calls answered; root before {before}, after {after}")
        assert callers.wrong == []
        assert not [pid for pid in victims if alive(pid)]
        wait_until(lambda: "Z" not in descendants(root).values(), 5, "no zombie")
        known = {actor["pid"] for actor in tree.actors().values() if actor["pid"]}
        assert len(set(descendants(root)) - known) <= 1, "besides the actors there is the fork server"
        assert abs(after["files"] - before["files"]) <= 6, "connections of the moment, no more"
        assert after["rss_kib"] < before["rss_kib"] * 1.15
        below = set(descendants(root))
    wait_until(lambda: not [pid for pid in below if alive(pid)], 5, "no orphan after the end")
