# SPDX-License-Identifier: AGPL-3.0-or-later
"""A workflow whose steps run at another node: its export shows what each node did, signed by it, in its order."""

from __future__ import annotations

import itertools
import os
import subprocess

import libipld
import pytest
from peer_trees import peer_tree
from running import GREENROOM

from actors.p2p.cids import cid_of_text
from actors.p2p.workflow_scheduler import car
from actors.p2p.workflow_scheduler.event_clock import EventClock
from actors.p2p.workflow_scheduler.payloads import PEER_KINDS
from actors.p2p.workflow_scheduler.verify import verified

pytestmark = pytest.mark.process

TOOLS = '''
from actors.toolkit import tool

@tool()
async def square(n: int) -> int:
    """Give the square."""
    return n * n

@tool()
async def breaks(n: int) -> int:
    """Fail."""
    raise ValueError("it broke")
'''


@pytest.fixture
def two(tmp_path):
    """A node with the work, and one that may do it."""
    secret = tmp_path / "secret"
    secret.write_bytes(os.urandom(32).hex().encode())
    secret.chmod(0o600)
    tools = tmp_path / "sharedtools"
    tools.mkdir()
    (tools / "mine.py").write_text(TOOLS)
    ours = {"secret_file": str(secret)}
    theirs = ours | {"secret_grants": {"tasks": ["square", "breaks"]}}

    def tree(name, registry):
        return peer_tree(tmp_path / name, "--tools", str(tools), config={"p2p": {"peer_registry": registry}})

    with tree("home", ours) as home, tree("there", theirs) as there:
        home.call("peer_connect", peer_id=there.id, multiaddr=there.place)
        yield home, there


def done(home, *steps):
    """Submit these, and wait for their end."""
    home.call("workflow_submit", workflow_id="w", name="W", steps=list(steps))

    def ended():
        view = home.call("workflow_status", workflow_id="w")
        return view if view["status"] in ("completed", "failed") else None

    return home.until(ended, "end", 60)


def step(name, after=(), action="square", **more):
    return {"step_id": name, "action": action, "inputs": {"n": 3}, "depends_on": list(after)} | more


def greenroom(home, *arguments, code=0):
    ended = subprocess.run(
        [GREENROOM, "workflow", *arguments, "--data-dir", home.tree.data_dir],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout


def clock_of(file):
    """Its events."""
    found = car.read(file)
    clock = EventClock()
    nodes = []
    for block in found.blocks.values():
        try:
            fields = libipld.decode_dag_cbor(block)
        except ValueError:
            continue
        if isinstance(fields, dict) and fields.get("payload") in found.blocks:
            nodes.append((block, found.blocks[fields["payload"]]))
    merged = clock.merge(nodes)
    assert (merged.refused, merged.missing) == ([], set())
    return clock


def test_an_export_shows_what_both_nodes_did_and_in_which_order(two, tmp_path):
    home, there = two
    p2p = {"placement": "p2p", "retry_policy": {"max_retries": 5}}
    view = done(
        home,
        step("here", placement="local"),
        *(step(f"there{n}", ["here"], **p2p) for n in range(4)),
        step("broken", ["here"], "breaks", placement="p2p", retry_policy={"max_retries": 0}),
        step("anywhere", [f"there{n}" for n in range(4)], placement="any"),
        step("last", ["anywhere"], **p2p),
    )
    assert view["status"] == "failed", view
    shown = greenroom(home, "verify", "w")
    assert "are sound" in shown
    assert there.id in shown
    path = tmp_path / "w.car"
    greenroom(home, "export", "w", "-o", str(path))
    data = path.read_bytes()
    report = verified(data, signers=[home.id, there.id])
    assert report.findings == []
    assert set(report.peers) == {home.id, there.id}
    at = {one.step_id: one.peers for one in report.steps}
    assert at == {name: [] for name in ("here", "anywhere")} | {
        name: [there.id] for name in ("there0", "there1", "there2", "there3", "broken", "last")
    }
    assert "SIGNER" in {finding.code for finding in verified(data, signers=[home.id]).findings}

    clock = clock_of(data)
    events = clock.ordered()
    assert {event.peer for event in events if event.kind in PEER_KINDS} == {there.id}
    assert {event.peer for event in events if event.kind not in PEER_KINDS} == {home.id}
    line = [event for event in events if event.peer == there.id]
    assert [event.seq for event in line] == [*range(1, 13)]

    def one(kind, name):
        (found,) = [
            event
            for event in events
            if event.kind == kind and name in (event.payload.get("step"), event.payload.get("task", "").split(":")[-1])
        ]
        return found.cid

    def offer_of(name):
        """The one that was taken: others may have been refused."""
        return clock[one("peer_started", name)].payload["offer"]

    chain = [
        one("step_completed", "here"),
        offer_of("there0"),
        one("peer_started", "there0"),
        one("peer_completed", "there0"),
        one("step_completed", "there0"),
        one("step_completed", "anywhere"),
        offer_of("last"),
        one("peer_started", "last"),
        one("peer_completed", "last"),
        one("step_completed", "last"),
    ]
    for earlier, later in itertools.pairwise(chain):
        assert clock.before(earlier, later)
    assert clock.before(one("peer_failed", "broken"), one("step_failed", "broken"))
    (result,) = [row.result for row in report.steps if row.step_id == "last"]
    assert clock[one("peer_completed", "last")].payload["result"] == cid_of_text(result)
