# SPDX-License-Identifier: AGPL-3.0-or-later
"""What peers may do at a node: what they were granted, and only with the secret where there is one."""

from __future__ import annotations

import json
import os
import time
from contextlib import asynccontextmanager

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hostile_peers import Target, host_at, insider
from peer_trees import peer_tree

from actors.errors import MCPServerError, UnknownToolError, code_of
from actors.p2p.identity import peer_id
from actors.p2p.peer_registry import call_tokens
from actors.p2p.peer_registry.link.frames import Op
from actors.p2p.peer_registry.link.link import Link
from actors.p2p.peer_registry.link.links import PROTOCOL
from actors.p2p.peer_registry.link.messages import CallTool
from actors.p2p.peer_registry.link.reasons import Cause, LinkEndError
from actors.p2p.peer_registry.link.side import OwnSide
from actors.p2p.peer_registry.mcp.opening import ClientFace
from actors.p2p.peer_registry.remote_tools import RemoteTools
from actors.p2p.peer_registry.shared_secret import load_secret
from actors.p2p.peer_registry.stream import StreamBrokenError

pytestmark = pytest.mark.process

FACE = ClientFace(name="test", version="1", profiles={}, most_bytes=1 << 20)
FRIEND = Ed25519PrivateKey.generate()
MOST = 5


class GuardedNode:
    """A node, and what is known of its secret."""

    def __init__(self, tree, secret):
        self.tree = tree
        self.secret = secret
        self.target = Target(tree.address, secret.key("link"))

    @asynccontextmanager
    async def met(self, key=None, *, secret=True):
        """A peer that is connected with it, and calls its tools by MCP."""

        def token(callee):
            return call_tokens.make(self.secret, host.peer_id, callee, time.time())

        async with host_at(self.target, key) as host:
            remote = RemoteTools(host, lambda _: None, FACE, token if secret else None)
            remote.me = host.peer_id
            yield remote

    async def tools(self, remote):
        return sorted(tool.name for tool in await remote.list(self.target.peer_id, 10))

    async def shows(self, remote, *names):
        """Just these, once the node knows what its pools have."""
        with trio.fail_after(20):
            while await self.tools(remote) != list(names):
                await trio.sleep(0.1)

    async def call(self, remote, name, **arguments):
        answer = await remote.call(self.target.peer_id, name, json.dumps(arguments).encode(), 10)
        return json.loads(answer.value)

    async def refusal(self, ask):
        with pytest.raises(MCPServerError) as caught:
            await ask
        return code_of(caught.value)

    async def banned(self):
        return await trio.to_thread.run_sync(self.tree.cli, "bans")


@pytest.fixture(scope="module")
def secret_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("secret") / "secret"
    path.write_text(os.urandom(32).hex())
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def node(tmp_path_factory, secret_file):
    ours = {
        "secret_file": str(secret_file),
        "secret_grants": {"tools": ["sleep"]},
        "allow": {peer_id(FRIEND): {"tools": ["ec*", "ha*_f*e"]}},
        "max_refused": MOST,
        "refused_forgive_s": 3600,
    }
    with peer_tree(tmp_path_factory.mktemp("node") / "n", config={"p2p": {"peer_registry": ours}}) as tree:
        yield GuardedNode(tree, load_secret(secret_file))


async def test_a_node_that_grants_nothing_gives_nothing(tmp_path, secret_file):
    with peer_tree(tmp_path / "n") as tree:
        node = GuardedNode(tree, load_secret(secret_file))
        async with node.met(secret=False) as stranger:
            assert await node.tools(stranger) == []
            assert await node.refusal(node.call(stranger, "echo", text="x")) == "UNKNOWN_TOOL"
        assert "nobody is banned" in await node.banned()


async def test_who_is_named_calls_what_its_globs_match_and_nothing_else(node):
    async with node.met(FRIEND) as friend:
        await node.shows(friend, "echo", "hash_file")
        assert await node.call(friend, "echo", text="hello") == "hello"
        with pytest.raises(UnknownToolError, match=r"its operator can add the name to .*allow.*tools"):
            await node.call(friend, "sleep", seconds=0)


async def test_who_knows_the_secret_has_what_the_secret_grants(node):
    async with node.met() as member:
        await node.shows(member, "sleep")
        assert (await node.call(member, "sleep", seconds=0))["steps"]
        assert await node.refusal(node.call(member, "echo", text="x")) == "UNKNOWN_TOOL"


async def test_a_name_alone_opens_nothing_where_there_is_a_secret(node):
    async with node.met(FRIEND, secret=False) as friend:
        assert await node.refusal(node.tools(friend)) == "UNAUTHORIZED"
        assert await node.refusal(node.call(friend, "echo", text="x")) == "UNAUTHORIZED"
    assert peer_id(FRIEND) not in await node.banned()


async def test_there_is_no_link_with_a_name_alone_where_there_is_a_secret(node):
    async with host_at(node.target, FRIEND) as host:
        stream = await host.open_stream(node.target.peer_id, PROTOCOL, 10)
        link = Link(stream, OwnSide(peer_id=host.peer_id, secret=None))
        with trio.fail_after(10):
            await link.run()
        assert not link.ready.is_set()
        assert link.ending.cause in (Cause.INCOMPATIBLE, Cause.ENDED)
    assert peer_id(FRIEND) not in await node.banned(), "it is a mistake of its operator"


async def test_a_link_with_another_secret_bans_whatever_the_name(node):
    key = Ed25519PrivateKey.generate()
    async with insider(node.target, key, secret=os.urandom(32), greet=False) as stranger:
        with pytest.raises((EOFError, LinkEndError, StreamBrokenError)), trio.fail_after(10):
            await stranger.greet()
    assert peer_id(key) in await node.banned()


async def until_banned(node, peer):
    with trio.fail_after(20):
        while peer not in await node.banned():
            await trio.sleep(0.1)


async def test_asking_on_and_on_by_mcp_for_what_was_not_granted_bans(node):
    async with node.met() as member:
        for _ in range(MOST):
            assert await node.refusal(node.call(member, "echo", text="x")) == "UNKNOWN_TOOL"
        assert (await node.call(member, "sleep", seconds=0))["steps"], "so far these are mistakes"
        await node.refusal(node.call(member, "echo", text="x"))  # or it was cut before the answer
    await until_banned(node, member.me)
    assert "not granted" in await node.banned()
    assert "forgiven" in await trio.to_thread.run_sync(node.tree.cli, "forgive", member.me)


async def test_asking_on_and_on_over_the_link_for_what_was_not_granted_bans(node):
    async with insider(node.target) as member:
        for number in range(1, MOST + 2):
            await member.stream.write(member.sealed(number, Op.REQUEST, CallTool(name="echo")))
        await member.until_ended()
    await until_banned(node, member.peer_id)
