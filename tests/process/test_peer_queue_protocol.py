# SPDX-License-Identifier: AGPL-3.0-or-later
"""The queue of a node, as older nodes use it: those that are named, and show the secret."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from peer_trees import peer_tree

from actors.p2p.identity import peer_id
from actors.p2p.peer_registry.host import open_host
from actors.p2p.peer_registry.host_rules import HostRules
from actors.p2p.peer_registry.queue_protocol.words import PROTOCOL

pytestmark = pytest.mark.process

SECRET = "older nodes say this"
FRIEND = Ed25519PrivateKey.generate()


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    home = tmp_path_factory.mktemp("node")
    secret = home / "secret"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    ours = {
        "allow": {peer_id(FRIEND): {"tasks": ["dig*"], "tools": ["echo"]}},
        "queue_protocol": {"enabled": True, "secret_file": str(secret)},
    }
    with peer_tree(home / "n", config={"p2p": {"peer_registry": ours}}) as tree:
        yield tree


@asynccontextmanager
async def older_node(node, key):
    """Asks the node: `await ask("submit", ...)` is the reply."""
    async with open_host(HostRules(listen=()), key) as host:
        await host.dial(node.place, node.id, 10)

        async def ask(op, token=SECRET, **fields):
            stream = await host.open_stream(node.id, PROTOCOL, 5)
            await stream.write(json.dumps({"op": op, "token": token} | fields).encode() + b"\n")
            said = b""
            with trio.fail_after(20):
                while not said.endswith(b"\n"):
                    said += await stream.read()
            return json.loads(said)

        yield ask


async def test_who_is_named_and_shows_the_secret_gives_and_takes_work(node):
    async with older_node(node, FRIEND) as ask:
        given = await ask("submit", task_type="dig_here", payload={"depth": 3})
        assert given["ok"], given
        taken = (await ask("claim", worker_id="w1", supported_task_types=["dig_here"]))["task"]
        assert (taken["task_id"], taken["payload"]) == (given["task_id"], {"depth": 3})
        done = await ask("complete", worker_id="w1", task_id=taken["task_id"], status="completed", result={"found": 7})
        assert done["ok"], done
        assert (await ask("wait", task_id=given["task_id"], timeout_s=5))["task"]["result"] == {"found": 7}
        shown = await trio.to_thread.run_sync(lambda: node.call("task_status", task_id=given["task_id"]))
        assert shown["status"] == "completed"


async def test_a_type_that_was_not_granted_is_not_taken(node):
    async with older_node(node, FRIEND) as ask:
        assert (await ask("submit", task_type="shell", payload={}))["error"] == "unauthorized"
        assert (await ask("call_tool", tool="echo", args={"text": "x"}))["result"] == "x"
        assert not (await ask("call_tool", tool="sleep", args={"seconds": 0}))["ok"]


async def test_the_secret_alone_opens_nothing_and_a_wrong_one_bans(node):
    async with older_node(node, Ed25519PrivateKey.generate()) as ask:
        refused = await ask("submit", task_type="dig_here", payload={})
        assert (refused["ok"], refused["error"]) == (False, "unauthorized")
    stranger = Ed25519PrivateKey.generate()
    async with older_node(node, stranger) as ask:
        assert (await ask("status", token="guess"))["error"] == "unauthorized"
    banned = await trio.to_thread.run_sync(lambda: node.until(lambda: peer_id(stranger) in node.cli("bans"), "ban"))
    assert banned
