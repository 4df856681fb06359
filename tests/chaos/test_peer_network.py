# SPDX-License-Identifier: AGPL-3.0-or-later
"""Five nodes share the steps of a workflow while some of them are killed, stopped and cut off: it completes, every step
has had its effect, and each counts once.

GREENROOM_PEER_STEPS sets how many steps (100; 40 where each node has a machine of its own), GREENROOM_PEER_SEED what is
drawn.
"""

from __future__ import annotations

import os
import random
from contextlib import ExitStack, contextmanager

import pytest
from network_namespaces import There, machines, why_not
from peer_trees import PeerTree, peer_tree
from peer_trouble import TOOLS, Trouble, survives

pytestmark = pytest.mark.chaos

STEPS = os.environ.get("GREENROOM_PEER_STEPS", "")
SEED = os.environ.get("GREENROOM_PEER_SEED", "")
NODES = 5
DELAY_MS = 5
LOSS_PERCENT = 1
LONGEST_CUT_S = 20.0
"""Longer than a silent peer is waited for."""


@pytest.fixture
def rng():
    seed = SEED or str(random.randrange(10**9))
    print(f"GREENROOM_PEER_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def nodes(tmp_path):
    """Makes nodes: the first has the work, the others may do it."""
    secret = tmp_path / "secret"
    secret.write_bytes(os.urandom(32).hex().encode())
    secret.chmod(0o600)
    tools = tmp_path / "sharedtools"
    tools.mkdir()
    (tools / "mine.py").write_text(TOOLS)
    ours = {"secret_file": str(secret), "sharing": {"grace_s": 2, "lease_s": 20}}
    others = ours | {"secret_grants": {"tasks": ["effect"]}}

    def node(number, **env):
        config = {"p2p": {"peer_registry": others if number else ours}}
        # The same call may be killed again and again here, and is not to blame.
        env["GREENROOM_SUPERVISOR__QUARANTINE_AFTER"] = "1000"
        return peer_tree(tmp_path / f"n{number}", "--tools", str(tools), config=config, env=env)

    return node


def connect(network):
    """The first node with all others."""
    first = network[0]
    for node in network[1:]:
        first.call("peer_connect", peer_id=node.id, multiaddr=node.place)
    first.until(lambda: first.call("peer_list", status_filter="connected")["total_count"] == NODES - 1, "network", 60)


def test_a_workflow_survives_the_deaths_of_its_network(nodes, rng, tmp_path):
    count = int(STEPS or 100)
    with ExitStack() as stack:
        network = [stack.enter_context(nodes(number)) for number in range(NODES)]
        connect(network)
        survives(network[0], Trouble(rng, network), count, tmp_path / "effects", 120 + count)


# --- a machine for each --------------------------------------------------------------------------------------------


class Away(There):
    """A node on another machine."""

    until = PeerTree.until


class WorseTrouble(Trouble):
    """Wires are cut, too."""

    kinds = (*Trouble.kinds, *["cut"] * len(Trouble.kinds))

    def cause(self, what, node):
        if what != "cut":
            return super().cause(what, node)
        machine = node.machine
        if self.matters(machine):
            return False
        machine.cut()
        self.for_a_while(machine, LONGEST_CUT_S, machine.heal)
        return True


@contextmanager
def elsewhere(machine, node):
    """A node that runs on a machine."""
    made = machine.do(node.__enter__)
    try:
        yield Away(machine, made)
    finally:
        machine.do(node.__exit__, None, None, None)


def test_a_workflow_survives_bad_wires_and_partitions(nodes, rng, tmp_path):
    if reason := why_not():
        pytest.skip(reason)
    count = int(STEPS or 40)
    with ExitStack() as stack:
        network = []
        for number, machine in enumerate(
            stack.enter_context(machines(NODES, delay_ms=DELAY_MS, loss_percent=LOSS_PERCENT, seed=rng.random()))
        ):
            node = nodes(number, GREENROOM_P2P__CONNECTIVITY__LISTEN_HOST=machine.address)
            network.append(stack.enter_context(elsewhere(machine, node)))
        connect(network)
        survives(network[0], WorseTrouble(rng, network), count, tmp_path / "effects", 240 + 2 * count)
