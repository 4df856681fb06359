# SPDX-License-Identifier: AGPL-3.0-or-later
"""js-libp2p, the other libp2p that people use, and Greenroom: each pings, identifies and calls the other one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import peer_environments
import pytest
from peer_clients import Conversation
from peer_trees import CallError, PeerTree, peer_tree

MCP = "/mcp+p2p/1.0.0"
ECHO = {"name": "echo", "arguments": {"text": "from js"}}


class JsPeer:
    """One of them, told what to do."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        hello = conversation.answer()
        self.id: str = hello["peer"]
        self.place: str = hello["addresses"][0].partition("/p2p/")[0]

    def do(self, what: str, **more: Any) -> dict[str, Any]:
        """What came of it."""
        self._conversation.tell(json.dumps({"do": what, **more}))
        answer = self._conversation.answer()
        assert "ok" in answer, answer
        done: dict[str, Any] = answer["ok"]
        return done


@pytest.fixture(scope="module")
def js() -> Iterator[JsPeer]:
    """A js-libp2p peer."""
    with Conversation(peer_environments.libp2p()) as conversation:
        yield JsPeer(conversation)


@pytest.fixture(scope="module")
def node(js: JsPeer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PeerTree]:
    """A node that lets it call one tool; connected by the js peer."""
    ours = {"allow": {js.id: {"tools": ["echo"]}}}
    with peer_tree(tmp_path_factory.mktemp("node") / "n", config={"p2p": {"peer_registry": ours}}) as tree:
        found = js.do("dial", address=tree.address)
        assert (found["peer"], found["encryption"], found["multiplexer"]) == (tree.id, "/noise", "/yamux/1.0.0")
        yield tree


def test_each_pings_the_other(js: JsPeer, node: PeerTree) -> None:
    assert 0 < js.do("ping", peer=node.id)["ms"] < 5000
    node.until(lambda: node.peer(js)["metrics"]["latency_ms"], "ping", 40)


def test_each_knows_what_the_other_is(js: JsPeer, node: PeerTree) -> None:
    seen = js.do("identify", peer=node.id)
    assert seen["agent"].startswith("greenroom")
    assert MCP in seen["protocols"]
    assert seen["addresses"] == [node.place]

    def known() -> dict[str, Any] | None:
        found = [one for one in json.loads(node.cli("list", "--json"))["peers"] if one["peer_id"] == js.id]
        return found[0] if found and MCP in found[0]["protocols"] else None

    assert node.until(known, "protocols")["agent"].startswith("js-libp2p/3.")


def test_js_calls_what_it_may_call_and_nothing_else(js: JsPeer, node: PeerTree) -> None:
    def ask(method: str, **params: Any) -> dict[str, Any]:
        message: dict[str, Any] = js.do("ask", peer=node.id, method=method, params=params)["message"]
        return message

    assert "2026-07-28" in ask("server/discover")["result"]["supportedVersions"]
    assert [tool["name"] for tool in ask("tools/list")["result"]["tools"]] == ["echo"]
    assert "from js" in ask("tools/call", **ECHO)["result"]["content"][0]["text"]
    refused = ask("tools/call", name="sleep", arguments={"seconds": 0})
    assert "result" not in refused
    assert "sleep" in refused["error"]["message"]
    wrong = ask("tools/call", name="echo", arguments={})
    assert wrong["result"]["isError"]
    assert "text" in wrong["result"]["content"][0]["text"]


def test_the_node_calls_a_tool_of_js(js: JsPeer, node: PeerTree) -> None:
    (tool,) = node.call("peer_tools", peer_id=js.id)["tools"]
    assert tool["name"] == "js_sum"
    assert tool["input_schema"]["required"] == ["a", "b"]
    done = node.call("peer_call_tool", peer_id=js.id, tool_name="js_sum", arguments={"a": 2, "b": 3})
    assert (done["result"], done["way"]) == ({"sum": 5}, "mcp")
    with pytest.raises(CallError, match="there is no tools/call here"):
        node.call("peer_call_tool", peer_id=js.id, tool_name="no_such_tool")


@pytest.mark.parametrize(
    ("said", "then", "banned"),
    [
        (b"", "close", False),
        (b"", "abort", False),
        (b"\0\0\1\0{", "close", True),
        (b"\0\0\1\0{", "abort", False),
        (b"\xff\xff\xff\xff", "wait", True),
        (b"\0\0\0\4null", "wait", False),
        (b"GET / HTTP/1.1\r\n\r\n", "wait", True),
    ],
)
def test_whatever_a_js_peer_says_others_are_served(
    js: JsPeer, node: PeerTree, said: bytes, then: str, banned: bool
) -> None:
    before = node.tree.pid("peer_registry")
    with Conversation(peer_environments.libp2p()) as conversation:
        rude = JsPeer(conversation)
        rude.do("dial", address=node.address)
        rude.do("bytes", peer=node.id, hex=said.hex(), then=then)
        assert "from js" in str(js.do("ask", peer=node.id, method="tools/call", params=ECHO)["message"])
        assert (rude.id in node.cli("bans")) == banned
    assert node.tree.pid("peer_registry") == before
