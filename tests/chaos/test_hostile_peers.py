# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whatever peers do to a node, it lives, serves those that are honest, and takes no more memory.

GREENROOM_PEER_SEED sets what is drawn.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import msgspec
import psutil
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hostile_peers import Honest, Target, host_at, insider, noise, say
from peer_trees import peer_tree

from actors.errors import MCPServerError, OutcomeUnknownError, RemoteError
from actors.p2p.identity import NodeSigner, peer_id
from actors.p2p.peer_registry import call_tokens
from actors.p2p.peer_registry.link.frames import Op, joined
from actors.p2p.peer_registry.link.messages import (
    Accepted,
    CallTool,
    Describe,
    Echo,
    Heartbeat,
    Offer,
    PeerDescription,
    Problem,
)
from actors.p2p.peer_registry.link.reasons import LinkEndError
from actors.p2p.peer_registry.link.side import About
from actors.p2p.peer_registry.mcp.client import open_client
from actors.p2p.peer_registry.mcp.opening import ClientFace
from actors.p2p.peer_registry.shared_secret import load_secret
from actors.p2p.peer_registry.sharing.statement import content_id, made_result
from actors.p2p.peer_registry.stream import StreamBrokenError

pytestmark = pytest.mark.chaos

SEED = os.environ.get("GREENROOM_PEER_SEED", "")
MCP = "/mcp+p2p/1.0.0"
MORE_MIB = 24
"""That the node may have more of after all attacks: what its allocator keeps."""
WITHIN_S = 2.0
"""Any answer to an honest peer; the attackers have the same two cores."""


@pytest.fixture(scope="module")
def rng():
    seed = SEED or str(random.randrange(10**9))
    print(f"GREENROOM_PEER_SEED={seed}")
    return random.Random(seed)


@pytest.fixture(scope="module")
def secret_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("secret") / "secret"
    path.write_text(os.urandom(32).hex())
    path.chmod(0o600)
    return path


class Attacked:
    """A node, and the honest peer that it serves."""

    def __init__(self, tree, secret_file, key):
        self.tree = tree
        self.secret = load_secret(secret_file)
        self.target = Target(tree.address, self.secret.key("link"))
        self.key = key

    def actor(self):
        return self.tree.tree.actors()["peer_registry"]

    def memory_mib(self):
        return psutil.Process(self.actor()["pid"]).memory_full_info().uss / 2**20

    def banned(self):
        """Whom the node keeps out, as its operator sees it."""
        return self.tree.cli("bans")

    @asynccontextmanager
    async def serves(self):
        """While a block runs, an honest peer is answered in time; and after it nothing is left of the block."""
        before, start_mib = self.actor(), self.memory_mib()
        honest = Honest(self.target, self.key)
        async with trio.open_nursery() as nursery:
            await nursery.start(honest.run)
            yield honest
            nursery.cancel_scope.cancel()
        assert len(honest.seconds) > 10
        assert max(honest.seconds) < WITHIN_S
        after = self.actor()
        assert (after["pid"], after["state"]) == (before["pid"], "ready"), "it died"
        with trio.fail_after(20):
            async with host_at(self.target, self.key):
                pass
            while (more := self.memory_mib() - start_mib) > MORE_MIB:
                print(f"{more:.1f} MiB more")
                await trio.sleep(1)


@pytest.fixture(scope="module")
def node(tmp_path_factory, secret_file):
    key = Ed25519PrivateKey.generate()
    ours = {
        "secret_file": str(secret_file),
        "secret_grants": {"tools": ["sleep"]},
        "allow": {peer_id(key): {"tools": ["echo"], "rate_per_s": 1000}},
    }
    with peer_tree(tmp_path_factory.mktemp("node") / "n", config={"p2p": {"peer_registry": ours}}) as tree:
        yield Attacked(tree, secret_file, key)


async def many(count, at_once, do):
    """Do it so many times."""
    limit = trio.CapacityLimiter(at_once)

    async def one(number):
        async with limit:
            await do(number)

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(one, number)


# --- without a name ------------------------------------------------------------------------------------------------


async def test_garbage_and_handshakes_that_are_held_open_cost_the_honest_nothing(node, rng):
    async with node.serves() as honest, trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(say, node.target, b"\x13/multistream/1.0.0\n", 8.0)
        await many(300, 30, lambda _: say(node.target, noise(rng), 0.3))
        async with host_at(node.target):  # whoever comes from another address gets in
            pass
        assert honest.seconds
        nursery.cancel_scope.cancel()


# --- with a name, and no secret ------------------------------------------------------------------------------------


async def test_who_does_not_know_the_secret_gets_nowhere_and_is_banned(node):
    seen = []

    async def guess(number):
        async with insider(node.target, secret=os.urandom(32), greet=False) as stranger:
            with pytest.raises((EOFError, LinkEndError, StreamBrokenError)), trio.fail_after(5):
                await stranger.greet()
            seen.append(stranger.peer_id)

    async with node.serves():
        await many(20, 4, guess)
    banned = node.banned()
    assert all(one in banned for one in seen)


async def test_a_flood_of_streams_is_cut_off(node, rng):
    refused = Counter()

    async def flood(number):
        async with host_at(node.target) as host:
            for _ in range(60):
                try:
                    stream = await host.open_stream(
                        node.target.peer_id, rng.choice([MCP, "/greenroom/link/1.0.0", f"/no/such/{number}"]), 2
                    )
                    await stream.write(rng.randbytes(rng.randrange(1, 5000)))
                except (MCPServerError, StreamBrokenError) as error:
                    refused[type(error).__name__] += 1
                    if not host.connections():
                        return

    async with node.serves():
        await many(12, 4, flood)
    assert refused


# --- with the secret -----------------------------------------------------------------------------------------------


BROKEN = {
    "the same frame twice": lambda one: one.sealed(1, Op.REQUEST, Echo(data=b"x")) * 2,
    "a frame that was changed": lambda one: one.sealed(1, Op.REQUEST, Echo(data=b"x"))[:-1] + b"\0",
    "a frame without a code": lambda one: joined([b"\x93\x01\x03\x80" * 8], None),
    "a frame as large as memory": lambda one: b"\xff\xff\xff\xff" + bytes(100),
    "an empty frame": lambda one: bytes(4),
    "no message": lambda one: one.sealed(1, Op.REQUEST, {"type": "shell", "command": "true"}),
    "ids that fall": lambda one: one.sealed(9, Op.REQUEST, Echo()) + one.sealed(3, Op.REQUEST, Echo()),
    "an answer to nothing": lambda one: one.sealed(12345, Op.ANSWER, Accepted()) * 1,
    "a second hello": lambda one: one.sealed(0, Op.HELLO, None),
}


async def test_who_breaks_the_rules_of_a_link_is_banned(node):
    culprits = {}

    async def break_one(number):
        name = list(BROKEN)[number]
        async with insider(node.target) as one:
            await one.stream.write(BROKEN[name](one))
            await one.until_ended()
            culprits[name] = one.peer_id

    async with node.serves():
        await many(len(BROKEN), 3, break_one)
    banned = node.banned()
    assert {name for name, culprit in culprits.items() if culprit not in banned} == set()


async def test_more_calls_than_are_served_are_refused_and_none_is_run_that_was_not_granted(node):
    async with node.serves(), insider(node.target) as one:
        call = CallTool(name="load_dataset", arguments=json.dumps({"source": "/etc/passwd"}))
        await one.stream.write(one.sealed(1, Op.REQUEST, call))
        answers = Counter()
        for number in range(2, 400):
            allowed = CallTool(name="sleep", arguments=json.dumps({"seconds": 0.01}))
            await one.stream.write(one.sealed(number, Op.REQUEST, allowed))
        with trio.fail_after(20):
            while answers.total() < 399:
                _, op, body = await one.hear()
                if op == Op.FAILURE:
                    answers[body.code] += 1
                elif op == Op.ANSWER:
                    answers["fine"] += 1
    assert answers["UNKNOWN_TOOL"] == 1, answers
    assert answers["RATE_LIMITED"] + answers["BUSY"] > 0
    assert answers["fine"] > 0


async def test_tokens_that_were_forged_or_used_before_open_nothing(node):
    there, other = node.target.peer_id, peer_id(Ed25519PrivateKey.generate())

    def made(caller, callee=there, age_s=0.0):
        return call_tokens.make(node.secret, caller, callee, time.time() - age_s)

    async def call(host, token):
        """Of a tool that it may call: what it gave, or the refusal."""

        async def opened(timeout_s):
            return await host.open_stream(there, MCP, timeout_s)

        face = ClientFace(name="hostile", version="1", profiles={}, most_bytes=1 << 20)
        async with open_client(opened, face, token=lambda: token) as client:
            await client.connect(5)
            try:
                return (await client.call_tool("sleep", b'{"seconds":0}', 5)).value
            except (RemoteError, OutcomeUnknownError) as error:
                return error.message

    async with node.serves():
        async with host_at(node.target) as host:
            used = made(host.peer_id)
            assert (await call(host, used))["steps"]
            assert "used before" in await call(host, used)
            assert "needs a token" in await call(host, "")
            assert "3600 s ago" in await call(host, made(host.peer_id, age_s=3600))
            assert (await call(host, made(host.peer_id)))["steps"]
        culprits = []
        for forge in (
            lambda me: "A" * len(used),
            lambda me: made(me)[:-4] + "AAAA",
            lambda me: made(other),
            lambda me: made(me, callee=other),
        ):
            async with host_at(node.target) as host:
                assert "steps" not in await call(host, forge(host.peer_id))
                culprits.append(host.peer_id)
    banned = node.banned()
    assert all(one in banned for one in culprits)


# --- liars ---------------------------------------------------------------------------------------------------------

STEPS = 24
TOOLS = '''
from actors.toolkit import tool

@tool()
def effect(n: int, log: str) -> int:
    """Leave a mark, and give the square."""
    with open(log, "a") as file:
        file.write(f"{n}\\n")
    return n * n
'''
LIES = {
    "another input": lambda result: msgspec.structs.replace(result, input_cid=result.output_cid),
    "another output": lambda result: msgspec.structs.replace(result, output="0"),
    "an output and its CID": lambda result: msgspec.structs.replace(result, output="0", output_cid=content_id(b"0")),
    "no signature": lambda result: msgspec.structs.replace(result, signature=""),
    "an error that is none": lambda result: msgspec.structs.replace(
        result, output=None, error=Problem("INTERNAL", "it broke")
    ),
}


@contextmanager
def network(tmp_path, secret_file, liar):
    """A node with the work, and an honest one that may do it."""
    tools = tmp_path / "sharedtools"
    tools.mkdir()
    (tools / "mine.py").write_text(TOOLS)
    ours = {"secret_file": str(secret_file), "sharing": {"grace_s": 2, "lease_s": 10}}
    others = ours | {"secret_grants": {"tasks": ["effect"]}}
    with (
        peer_tree(
            tmp_path / "a",
            "--tools",
            str(tools),
            config={"p2p": {"peer_registry": ours | {"allow": {liar: {"tools": ["echo"]}}}}},
        ) as a,
        peer_tree(tmp_path / "b", "--tools", str(tools), config={"p2p": {"peer_registry": others}}) as b,
    ):
        yield a, b


class Liar:
    """A peer that knows the secret, says that it does the work, and does not."""

    def __init__(self, key, lie):
        self.signer = NodeSigner(key)
        self.key = key
        self.lie = lie
        self.told = 0

    async def run(self, target):
        """Until it is thrown out."""
        about = About(agent="liar", capabilities=["effect"], task_types=["effect"])
        async with insider(target, key=self.key, about=about) as one:
            numbers = itertools.count(1)
            await one.stream.write(one.sealed(0, Op.NOTE, Heartbeat(free_slots=4)))
            try:
                while True:
                    number, op, body = await one.hear()
                    if op != Op.REQUEST:
                        continue
                    if isinstance(body, Describe):
                        answer = PeerDescription(agent="liar", task_types=["effect"], free_slots=4)
                        await one.stream.write(one.sealed(number, Op.ANSWER, answer))
                    elif isinstance(body, Offer):
                        result = self.lie(made_result(self.signer, target.peer_id, body, "1", None))
                        self.told += 1
                        await one.stream.write(
                            one.sealed(number, Op.ANSWER, Accepted(free_slots=4))
                            + one.sealed(next(numbers), Op.REQUEST, result)
                        )
                    else:
                        await one.stream.write(one.sealed(number, Op.FAILURE, Problem("INTERNAL", "not now")))
            except (EOFError, StreamBrokenError):
                pass


@pytest.mark.parametrize("lie", LIES)
async def test_who_lies_about_results_is_banned_and_the_work_is_done_by_others(tmp_path, secret_file, lie):
    key = Ed25519PrivateKey.generate()
    log = tmp_path / "effects"
    with network(tmp_path, secret_file, peer_id(key)) as (first, other):
        target = Target(first.address, load_secret(secret_file).key("link"))
        liar = Liar(key, LIES[lie])
        submit = partial(first.call, "workflow_submit", workflow_id="w", name="W")
        connect = partial(first.call, "peer_connect", peer_id=other.id, multiaddr=other.place)
        steps = [
            {"step_id": f"s{n}", "action": "effect", "inputs": {"n": n, "log": str(log)}, "placement": "p2p"}
            for n in range(STEPS)
        ]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(liar.run, target)
            await trio.to_thread.run_sync(lambda: first.until(lambda: first.call("peer_list")["total_count"], "liar"))
            await trio.to_thread.run_sync(lambda: submit(steps=steps))
            with trio.fail_after(20):
                while not liar.told:
                    await trio.sleep(0.05)
            await trio.to_thread.run_sync(connect)

        def over():
            return first.call("workflow_status", workflow_id="w", include_steps=False)["status"] != "running"

        first.until(over, "end", 60)
        result = first.call("workflow_result", workflow_id="w")
        assert {one["step_id"]: one["output"] for one in result["outputs"]} == {f"s{n}": n * n for n in range(STEPS)}
        assert Counter(map(int, log.read_text().split())) == Counter(range(STEPS))
        assert peer_id(key) in first.cli("bans")
