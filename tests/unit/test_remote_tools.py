# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tools of peers are called over the link or by MCP, once, and what went wrong has a name."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest
import trio
from peer_mcp import HERE, gives, open_rig
from trio.testing import wait_all_tasks_blocked

from actors.errors import (
    DeadlineExceededError,
    InvalidArgumentsError,
    OutcomeUnknownError,
    PeerUnreachableError,
    ToolExecutionError,
    UnavailableError,
    UnknownToolError,
)
from actors.p2p.peer_registry.link.messages import ToolAnswer
from actors.p2p.peer_registry.mcp.opening import ClientFace
from actors.p2p.peer_registry.mcp.rpc import PROTOCOL as MCP_PROTOCOL
from actors.p2p.peer_registry.remote_tools import LINK_ARGUMENT_BYTES, RemoteTools
from actors.p2p.peer_registry.tools_remote import RemoteToolTools
from actors.tool_tasks import result_text

FACE = ClientFace(name="greenroom", version="1", profiles={}, most_bytes=1 << 20)


class Peer:
    """A connected peer with a link, with MCP, or both."""

    def __init__(self, rig=None, answer=None):
        self.rig = rig
        self.answer = answer
        """That comes over the link, or is raised there; None = there is no link."""
        self.asked = []
        self.connected = True
        self.remote = RemoteTools(self, lambda _: self if answer is not None else None, FACE, None)

    # The host.
    def connections(self):
        return [SimpleNamespace(peer_id=HERE)] if self.connected else []

    def says(self, peer_id):
        return SimpleNamespace(protocols=[MCP_PROTOCOL] if self.rig else [])

    async def open_stream(self, peer_id, protocol, timeout_s):
        await trio.lowlevel.checkpoint()
        return self.rig.stream()

    # The link.
    peer = SimpleNamespace(about=SimpleNamespace(tools=["echo"]))

    async def call(self, request, timeout_s):
        await trio.lowlevel.checkpoint()
        self.asked.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def run(self, name="echo", arguments=b"{}", timeout_s=5):
        return await self.remote.call(HERE, name, arguments, timeout_s)


def answered(value, shape="object", *, is_error=False):
    return ToolAnswer(result=result_text(gives(value, shape, is_error=is_error)))


async def test_the_link_is_taken_where_there_is_one():
    async with open_rig() as rig:
        peer = Peer(rig, answered({"a": 1}))
        done = await peer.run(arguments=b'{"text":"x"}')
        assert (done.way, json.loads(done.value)) == ("link", {"a": 1})
        assert [(one.name, one.arguments, one.timeout_s) for one in peer.asked] == [("echo", '{"text":"x"}', 5)]
        assert rig.tools.calls == []


@pytest.mark.parametrize(("shape", "given"), [("object", {"a": 1}), ("text", "hello"), ("wrapped", [1, 2])])
async def test_both_ways_give_the_same(shape, given):
    async with open_rig() as rig:
        rig.tools.results["any"] = gives(given, shape)
        by_mcp = await Peer(rig).run("any")
        by_link = await Peer(None, answered(given, shape)).run("any")
        assert json.loads(by_mcp.value) == json.loads(by_link.value)
        assert (by_mcp.way, by_link.way) == ("mcp", "link")


async def test_what_is_too_long_for_a_link_goes_by_mcp():
    arguments = json.dumps({"text": "x" * LINK_ARGUMENT_BYTES}).encode()
    async with open_rig() as rig:
        rig.tools.results["any"] = gives({})
        peer = Peer(rig, answered({}))
        assert (await peer.run("any", arguments)).way == "mcp"
        assert peer.asked == []
    with pytest.raises(InvalidArgumentsError, match=f"a link carries {LINK_ARGUMENT_BYTES}"):
        await Peer(None, answered({})).run(arguments=arguments)


async def test_of_a_peer_that_is_not_there_nothing_was_asked():
    peer = Peer()
    with pytest.raises(PeerUnreachableError, match="answers neither"):
        await peer.run()
    peer.connected = False
    for ask in (peer.run(), peer.remote.list(HERE, 5)):
        with pytest.raises(PeerUnreachableError, match="peer_connect"):
            await ask


async def test_what_was_not_answered_in_time_may_have_taken_effect(autojump_clock):
    with pytest.raises(OutcomeUnknownError, match="silent; slow may or may not"):
        await Peer(None, DeadlineExceededError("silent")).run("slow")
    async with open_rig() as rig:
        with pytest.raises(OutcomeUnknownError, match="wait may or may not"):
            await Peer(rig).run("wait", timeout_s=3)
        await wait_all_tasks_blocked()
        assert rig.tools.cancelled == 1, "the peer is told to stop"
        assert trio.current_time() < 10


async def test_a_peer_that_says_nothing_at_all_was_asked_nothing(autojump_clock):
    class Silent(Peer):
        async def open_stream(self, peer_id, protocol, timeout_s):
            await trio.sleep_forever()

    with pytest.raises(PeerUnreachableError, match="nothing was asked"):
        await Silent(rig=True).run(timeout_s=3)


async def test_a_tool_that_fails_says_why_in_its_own_words():
    async with open_rig() as rig:
        rig.tools.results["broken"] = gives("it broke", "text", is_error=True)
        for peer in (Peer(rig), Peer(None, answered("it broke", "text", is_error=True))):
            with pytest.raises(ToolExecutionError, match="broken failed on p2p runtime: it broke"):
                await peer.run("broken")


async def test_an_answer_that_nobody_can_read_is_an_error():
    head = '{"kind":"tool_result","shape":"object","runtime":"p2p","duration_ms":1,"value":'
    deep = head + "[" * 50_000 + "]" * 50_000 + "}"
    with pytest.raises(UnavailableError, match="no result that can be read"):
        await Peer(None, ToolAnswer(result=deep)).run()


async def test_an_unknown_tool_is_no_unknown_tool_of_this_node():
    """A client would look for it here."""
    async with open_rig() as rig:
        for peer in (Peer(rig), Peer(None, UnknownToolError("there is no tool 'nowhere'"))):
            with pytest.raises(UnknownToolError, match="no tool 'nowhere'"):
                await peer.run("nowhere")
            with pytest.raises(ToolExecutionError, match="no tool 'nowhere'") as caught:
                await RemoteToolTools(peer.remote).peer_call_tool(HERE, "nowhere")
            assert caught.value.details["peer_code"] == "UNKNOWN_TOOL"


async def test_only_names_are_known_of_tools_behind_a_link_alone():
    listed = await Peer(None, answered({})).remote.list(HERE, 5)
    assert [(tool.name, tool.description) for tool in listed] == [("echo", "")]
    async with open_rig() as rig:
        listed = await RemoteToolTools(Peer(rig).remote).peer_tools(HERE)
        assert [tool.name for tool in listed.tools] == ["echo", "fail", "wait"]
        assert all(re.match("It does", tool.description) for tool in listed.tools)
