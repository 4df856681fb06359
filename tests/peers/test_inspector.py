# SPDX-License-Identifier: AGPL-3.0-or-later
"""MCP Inspector's CLI, in both eras, sees what a client should see, and works on while processes are killed."""

from __future__ import annotations

import json

import pytest

pytestmark = [pytest.mark.peers, pytest.mark.process]

CALLS, AT_ONCE = 8, 2
LOAD = ("--tool-name", "sleep", "--tool-arg", "seconds=0.7", "--load")
LOAD_SIZE = ("--load-requests", str(CALLS), "--load-concurrency", str(AT_ONCE))
SETTLE_S = 10.0


@pytest.fixture(scope="module", params=["legacy", "modern"])
def inspector(request, make_inspector):
    return make_inspector(request.param)


def test_it_lists_and_calls_tools(inspector):
    assert {"echo", "sleep", "ask_name"} <= {tool["name"] for tool in inspector.run("tools/list")["tools"]}
    called = inspector.run("tools/call", "--tool-name", "echo", "--tool-arg", "text=grüß dich")
    assert called["content"] == [{"type": "text", "text": "grüß dich"}]
    assert "isError" not in called or called["isError"] is False


def test_it_finds_the_schemas_portable(inspector):
    # With --strict the command fails when a schema has a fault that other clients would stumble over.
    assert inspector.run("tools/list", "--strict")["tools"]


def test_it_lists_and_reads_resources(inspector):
    assert [one["uri"] for one in inspector.run("resources/list")["resources"]] == ["peers://colours"]
    templates = inspector.run("resources/templates/list")["resourceTemplates"]
    assert [one["uriTemplate"] for one in templates] == ["peers://colour/{thing}"]
    assert inspector.run("resources/read", "--uri", "peers://colour/sky")["contents"][0]["text"] == "blue"


def test_it_lists_prompts_and_fills_them_in(inspector):
    assert [one["name"] for one in inspector.run("prompts/list")["prompts"]] == ["describe"]
    filled = inspector.run("prompts/get", "--prompt-name", "describe", "--prompt-args", "thing=sky")
    assert filled["messages"][0]["content"]["text"] == "Describe the sky. Be short."


def test_a_tool_that_asks_is_told_that_this_client_cannot_be_asked(inspector):
    for tool, capability in (("ask_name", "elicitation"), ("ask_model", "sampling")):
        said = json.dumps(inspector.run("tools/call", "--tool-name", tool))
        assert f"it has not declared the capability {capability}" in said


@pytest.mark.parametrize("victim", ["tools.general#0", "router", "gateway"])
def test_a_death_costs_at_most_the_calls_that_were_open_in_the_gateway(inspector, greenroom, victim):
    # One Inspector at a time: of two, the second may still be connecting when the first has its calls open.
    running = inspector.start("tools/call", *LOAD, *LOAD_SIZE)
    greenroom.wait_for_open_calls(lambda count: count >= AT_ONCE, SETTLE_S, "calls of the Inspector")
    incarnation = greenroom.tree.kill(victim)
    seen = inspector.ended(running)
    assert seen["requests"] == CALLS, seen
    assert seen["ok"] >= CALLS - (AT_ONCE if victim == "gateway" else 0), seen
    greenroom.tree.wait_ready(victim, after=incarnation)
