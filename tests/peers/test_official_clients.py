# SPDX-License-Identifier: AGPL-3.0-or-later
"""The official clients, in both eras, see what a client should see, and their cancelling reaches the tool."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.peers, pytest.mark.process]

MODERN, LEGACY = "2026-07-28", "2025-11-25"
VERSIONS = {
    ("python", "modern"): MODERN,
    ("python", "legacy"): LEGACY,
    ("fastmcp", "modern"): MODERN,
    ("fastmcp", "legacy"): LEGACY,
    ("typescript", "sdk"): LEGACY,
    ("typescript", "legacy"): LEGACY,
    ("typescript", "auto"): MODERN,
    ("typescript", "modern"): MODERN,
}
INVALID_PARAMS = -32602
NOT_FOUND = -32002
SETTLE_S = 10.0
"""The number of open calls comes with the pool's beat, once a second; the rest is for a busy machine."""


@pytest.fixture(scope="module", params=VERSIONS, ids="-".join)
def visit(request, make_client):
    """A client's kind, what it saw on its tour, and the client, still connected."""
    with make_client(*request.param).start_visit() as client:
        yield request.param, client.answer(), client


@pytest.fixture
def tour(visit):
    return visit[1]


def test_it_negotiates_the_newest_version_of_its_era(visit, tour):
    kind, _, _ = visit
    assert tour["protocol_version"] == VERSIONS[kind]
    assert tour["server_name"]


def test_it_lists_the_tools(tour):
    assert {"echo", "sleep"} <= set(tour["tools"])
    assert len(tour["tools"]) == len(set(tour["tools"]))


def test_a_call_gives_its_result(tour):
    assert tour["echo"] == {"is_error": False, "text": "grüß dich"}


def test_progress_arrives_before_the_result_and_grows(tour):
    done = [step[0] for step in tour["progress"]]
    assert done, "no progress notification arrived"
    assert done == sorted(set(done)), "progress must grow with every notification"
    assert done[-1] == tour["progress"][-1][1], "the last one says that all is done"


def test_resources_are_listed_and_read(tour):
    assert tour["resources"] == ["peers://colours"]
    assert tour["templates"] == ["peers://colour/{thing}"]
    assert tour["read"] == "sky\ngrass"
    assert tour["read_template"] == "blue"


def test_a_resource_that_is_not_there_is_an_error_that_names_it(tour):
    assert tour["unknown_resource"].get("error_code") in (INVALID_PARAMS, NOT_FOUND)
    assert "nothing" in tour["unknown_resource"]["message"]


def test_prompts_are_listed_and_filled_in(tour):
    assert tour["prompts"] == ["describe"]
    assert tour["prompt"] == "Describe the sky. Be short."


def test_a_tool_asks_the_user_and_gets_the_answer(tour):
    assert tour["elicit"] == {"is_error": False, "text": "Hello, Ada!"}


def test_a_tool_asks_the_clients_model_and_gets_its_words(tour):
    assert tour["sample"] == {"is_error": False, "text": "It said: something"}


def test_a_wrong_argument_is_an_error_of_the_tool(tour):
    assert tour["wrong_argument"]["is_error"] is True
    assert "text" in tour["wrong_argument"]["text"], "the message names the argument that is missing"


def test_an_unknown_tool_is_an_error_of_the_protocol(tour):
    assert tour["unknown_tool"].get("error_code") == INVALID_PARAMS
    assert "no_such_tool" in tour["unknown_tool"]["message"]


def test_a_cancelled_call_stops_in_the_tools_process(visit, greenroom):
    _, _, client = visit
    client.tell("call")
    assert client.answer() == {"started": True}
    greenroom.wait_for_open_calls(lambda count: count >= 1, SETTLE_S, "call in the pool")
    client.tell("cancel")
    seen = client.answer()
    # The client is still connected, so it is the cancelling that stops the tool, not the client's going.
    greenroom.wait_for_open_calls(lambda count: count == 0, SETTLE_S, "empty pool")
    assert seen["cancelled"] is True
    assert seen["echo"] == {"is_error": False, "text": "a"}, "the connection works after a cancelled call"


def test_a_modern_client_that_dies_stops_its_call(visit, greenroom):
    kind, _, client = visit
    if VERSIONS[kind] != MODERN:
        pytest.skip("in sessions a broken connection does not cancel")
    client.tell("call")
    assert client.answer() == {"started": True}
    greenroom.wait_for_open_calls(lambda count: count >= 1, SETTLE_S, "call in the pool")
    client.kill()
    greenroom.wait_for_open_calls(lambda count: count == 0, SETTLE_S, "empty pool")
