# SPDX-License-Identifier: AGPL-3.0-or-later
"""Work for a network of nodes, what happens to them meanwhile, and what has to come of the work."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from contextlib import suppress

from peer_trees import CallError

TOOLS = '''
import os
from pathlib import Path
import trio
from actors.toolkit import tool

@tool()
async def effect(n: int, log: str) -> int:
    """Leave a mark, and give the square."""
    await trio.sleep(0.5)
    with open(log, "a") as file:
        file.write(f"{n} {os.getpid()}\\n")
    return n * n
'''
VICTIMS = {"kill tool": "tools.general#0", "kill queue": "task_queue", "kill scheduler": "workflow_scheduler"}
"""What is killed of a node, unless it is its peer registry."""


class Trouble:
    """What happens to nodes; each of it ends by itself. The first node is the one with the work."""

    kinds = ("kill registry", "kill tool", "stop registry", "kill queue", "kill scheduler", "part")

    def __init__(self, rng, nodes):
        self.rng = rng
        self.nodes = nodes
        self.done = Counter()
        self._ends = {}
        """What is the matter -> when it ends, and how."""
        self._kills = {}

    def step(self):
        """Something bad, now and then."""
        self.go_on()
        what = self.rng.choice(self.kinds)
        if self.cause(what, self.rng.choice(self.nodes)):
            self.done[what] += 1

    def cause(self, what, node):
        """Have it happen. False when it can't just now."""
        if what == "part":
            other = self.rng.choice(self.nodes[1:])
            self.nodes[0].cli("disconnect", other.id)
            with suppress(CallError):  # it may be down just now: it is connected to when it is back
                self.nodes[0].call("peer_connect", peer_id=other.id, multiaddr=other.place, timeout=20)
            return True
        if what in ("kill queue", "kill scheduler"):
            node = self.nodes[0]
        name = VICTIMS.get(what, "peer_registry")
        pid = node.tree.actors()[name]["pid"]
        if not pid or pid in self._ends:
            return False
        if what == "stop registry":
            os.kill(pid, signal.SIGSTOP)
            self.for_a_while(pid, 3, lambda: os.kill(pid, signal.SIGCONT))
        elif self._may_kill(node, name):
            os.kill(pid, signal.SIGKILL)
        else:
            return False
        return True

    def for_a_while(self, what, most_s, end):
        """What is the matter ends within so many seconds, by `end`."""
        self._ends[what] = (time.monotonic() + self.rng.uniform(0.5, most_s), end)

    def matters(self, what):
        """Whether this is the case just now."""
        return what in self._ends

    def go_on(self, *, all_=False):
        """End what is over."""
        for what, (until, end) in list(self._ends.items()):
            if all_ or time.monotonic() > until:
                del self._ends[what]
                with suppress(ProcessLookupError):
                    end()

    def _may_kill(self, node, name):
        """Fewer deaths than make a supervisor give up."""
        now = time.monotonic()
        group = "durable" if name in ("task_queue", "workflow_scheduler") else name
        recent = self._kills.setdefault((node.id, group), [])
        recent[:] = [at for at in recent if at > now - 30]
        if len(recent) >= 3:
            return False
        recent.append(now)
        return True


def work(count, log):
    """So many steps, in ten rows; each leaves its mark in `log`."""
    return [
        {
            "step_id": f"s{n}",
            "action": "effect",
            "inputs": {"n": n, "log": str(log)},
            "placement": "p2p",
            "retry_policy": {"max_retries": 20},
            **({"depends_on": [f"s{n - 10}"]} if n >= 10 else {}),
        }
        for n in range(count)
    ]


def survives(first, trouble, count, log, patience_s):
    """Have the first node do the work, with trouble all the time: it completes, each step has had its effect, and each
    counts once."""
    first.call("workflow_submit", workflow_id="w", name="W", steps=work(count, log))
    end = time.monotonic() + patience_s
    try:
        while (status := first.call("workflow_status", workflow_id="w", include_steps=False)["status"]) == "running":
            assert time.monotonic() < end, first.call("workflow_status", workflow_id="w")
            trouble.step()
            time.sleep(trouble.rng.uniform(0.1, 0.6))
    finally:
        trouble.go_on(all_=True)
    print(f"{count} steps; {dict(trouble.done)}")
    whole = first.call("workflow_status", workflow_id="w")["steps"]
    assert status == "completed", [step for step in whole if step["status"] == "failed"]
    result = first.call("workflow_result", workflow_id="w")
    assert {one["step_id"]: one["output"] for one in result["outputs"]} == {f"s{n}": n * n for n in range(count)}
    effects = Counter(int(line.split()[0]) for line in log.read_text().splitlines())
    assert set(effects) == set(range(count))
    assert {first.call("task_status", task_id=f"w:s{n}")["status"] for n in range(count)} == {"completed"}
    assert "nobody is banned" in first.cli("bans"), "no honest peer was taken for a liar"
    report = first.verified("w")
    assert report["sound"], report
    assert {peer for step in report["steps"] for peer in step["peers"]} <= {node.id for node in trouble.nodes[1:]}
    assert all(step["peers"] for step in report["steps"])
    assert trouble.done.total() > 0
