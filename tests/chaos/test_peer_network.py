# SPDX-License-Identifier: AGPL-3.0-or-later
"""Five nodes share the steps of a workflow while some of them are killed, stopped and cut off: it completes, every step
has had its effect, and each counts once.

GREENROOM_PEER_STEPS sets how many steps (100), GREENROOM_PEER_SEED what is drawn.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from contextlib import ExitStack, suppress

import pytest
from peer_trees import CallError, peer_tree

pytestmark = pytest.mark.chaos

STEPS = int(os.environ.get("GREENROOM_PEER_STEPS", "100"))
SEED = os.environ.get("GREENROOM_PEER_SEED", "")
NODES = 5
PATIENCE_S = 120 + STEPS
VICTIMS = {"kill tool": "tools.general#0", "kill queue": "task_queue", "kill scheduler": "workflow_scheduler"}
"""What is killed of a node, unless it is its peer registry."""
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


@pytest.fixture
def network(tmp_path):
    """A node with the work, and others that may do it."""
    secret = tmp_path / "secret"
    secret.write_bytes(os.urandom(32).hex().encode())
    secret.chmod(0o600)
    tools = tmp_path / "sharedtools"
    tools.mkdir()
    (tools / "mine.py").write_text(TOOLS)
    ours = {"secret_file": str(secret), "sharing": {"grace_s": 2, "lease_s": 20}}
    others = ours | {"secret_grants": {"tasks": ["effect"]}}
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(
                peer_tree(
                    tmp_path / f"n{n}",
                    "--tools",
                    str(tools),
                    config={"p2p": {"peer_registry": others if n else ours}},
                )
            )
            for n in range(NODES)
        ]
        for node in nodes[1:]:
            nodes[0].call("peer_connect", peer_id=node.id, multiaddr=node.place)
        yield nodes


class Trouble:
    """What happens to a node: each ends by itself."""

    def __init__(self, rng, nodes):
        self.rng = rng
        self.nodes = nodes
        self.done = Counter()
        self.stopped = {}
        self.kills = {}

    def step(self):
        """Something bad."""
        self.go_on()
        node = self.rng.choice(self.nodes)
        what = self.rng.choice(["kill registry", "kill tool", "stop registry", "kill queue", "kill scheduler", "part"])
        if what in ("kill queue", "kill scheduler"):
            node = self.nodes[0]
        actors = node.tree.actors()
        name = VICTIMS.get(what, "peer_registry")
        pid = actors[name]["pid"]
        if not pid or pid in self.stopped or (what.startswith("kill") and not self._may_kill(node, name)):
            return
        if what == "stop registry":
            os.kill(pid, signal.SIGSTOP)
            self.stopped[pid] = time.monotonic() + self.rng.uniform(0.5, 3)
        elif what == "part":
            other = self.rng.choice(self.nodes[1:])
            self.nodes[0].cli("disconnect", other.id)
            with suppress(CallError):  # it may be down just now: it is connected to when it is back
                self.nodes[0].call("peer_connect", peer_id=other.id, multiaddr=other.place, timeout=20)
        else:
            os.kill(pid, signal.SIGKILL)
        self.done[what] += 1

    def _may_kill(self, node, name):
        """Fewer deaths than make a supervisor give up."""
        now = time.monotonic()
        group = "durable" if name in ("task_queue", "workflow_scheduler") else name
        recent = self.kills.setdefault((node.id, group), [])
        recent[:] = [at for at in recent if at > now - 30]
        if len(recent) >= 3:
            return False
        recent.append(now)
        return True

    def go_on(self, *, all_=False):
        """Let those go on whose time is over."""
        for pid, until in list(self.stopped.items()):
            if all_ or time.monotonic() > until:
                del self.stopped[pid]
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


def test_a_workflow_survives_the_deaths_of_its_network(network, tmp_path):
    seed = SEED or str(random.randrange(10**9))
    print(f"GREENROOM_PEER_SEED={seed}")
    rng = random.Random(seed)
    first, log = network[0], tmp_path / "effects"
    first.until(lambda: first.call("peer_list", status_filter="connected")["total_count"] == NODES - 1, "network", 60)
    steps = [
        {
            "step_id": f"s{n}",
            "action": "effect",
            "inputs": {"n": n, "log": str(log)},
            "placement": "p2p",
            "retry_policy": {"max_retries": 20},
            **({"depends_on": [f"s{n - 10}"]} if n >= 10 else {}),
        }
        for n in range(STEPS)
    ]
    first.call("workflow_submit", workflow_id="w", name="W", steps=steps)
    trouble = Trouble(rng, network)
    end = time.monotonic() + PATIENCE_S
    try:
        while (status := first.call("workflow_status", workflow_id="w", include_steps=False)["status"]) == "running":
            assert time.monotonic() < end, first.call("workflow_status", workflow_id="w")
            trouble.step()
            time.sleep(rng.uniform(0.1, 0.6))
    finally:
        trouble.go_on(all_=True)
    print(f"{STEPS} steps; {dict(trouble.done)}")
    whole = first.call("workflow_status", workflow_id="w")["steps"]
    assert status == "completed", [step for step in whole if step["status"] == "failed"]
    result = first.call("workflow_result", workflow_id="w")
    assert {one["step_id"]: one["output"] for one in result["outputs"]} == {f"s{n}": n * n for n in range(STEPS)}
    effects = Counter(int(line.split()[0]) for line in log.read_text().splitlines())
    assert set(effects) == set(range(STEPS))
    events = [event for n in range(STEPS) for event in [first.call("task_status", task_id=f"w:s{n}")]]
    assert {event["status"] for event in events} == {"completed"}
    assert "nobody is banned" in first.cli("bans"), "no honest peer was taken for a liar"
    report = first.verified("w")
    assert report["sound"], report
    assert {peer for step in report["steps"] for peer in step["peers"]} <= {node.id for node in network[1:]}
    assert all(step["peers"] for step in report["steps"])
    assert trouble.done.total() > 0
