# SPDX-License-Identifier: AGPL-3.0-or-later
"""The official clients, in both eras, see what a client should see, and their cancelling reaches the tool."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.peers, pytest.mark.process]

MODERN, LEGACY = "2026-07-28", "2025-11-25"
VERSIONS = {
    ("python", "modern"): MODERN,
    ("python", "legacy"): LEGACY,
    ("typescript", "sdk"): LEGACY,
    ("typescript", "legacy"): LEGACY,
    ("typescript", "auto"): MODERN,
    ("typescript", "modern"): MODERN,
}
INVALID_PARAMS = -32602
SETTLE_S = 10.0
"""The number of open calls comes with the pool's beat, once a second; the rest is for a busy machine."""


@pytest.fixture(scope="module", params=VERSIONS, ids="-".join)
def peer(request, make_client):
    return request.param, make_client(*request.param)


@pytest.fixture(scope="module")
def tour(peer):
    _, client = peer
    return client.tour()


def test_it_negotiates_the_newest_version_of_its_era(peer, tour):
    kind, _ = peer
    assert tour["protocol_version"] == VERSIONS[kind]
    assert tour["server_name"]


def test_it_lists_the_tools(tour):
    assert {"echo", "sleep"} <= set(tour["tools"])
    assert len(tour["tools"]) == len(set(tour["tools"]))


def test_a_call_gives_its_result(tour):
    assert tour["echo"] == {"is_error": False, "text": "grüß dich"}


def test_progress_arrives_before_the_result_and_grows(tour):
    assert tour["sleep"]["is_error"] is False
    done = [step[0] for step in tour["progress"]]
    assert done, "no progress notification arrived"
    assert done == sorted(set(done)), "progress must grow with every notification"


def test_a_wrong_argument_is_an_error_of_the_tool(tour):
    assert tour["wrong_argument"]["is_error"] is True
    assert "text" in tour["wrong_argument"]["text"], "the message names the argument that is missing"


def test_an_unknown_tool_is_an_error_of_the_protocol(tour):
    assert tour["unknown_tool"].get("error_code") == INVALID_PARAMS
    assert "no_such_tool" in tour["unknown_tool"]["message"]


def test_a_cancelled_call_stops_in_the_tools_process(peer, greenroom):
    _, client = peer
    server, _ = greenroom
    with client.start_long_call() as call:
        server.wait_for_open_calls(lambda count: count >= 1, SETTLE_S, "call in the pool")
        seen = call.cancel()
        # The client is still connected, so it is the cancelling that stops the tool, not the client's going.
        server.wait_for_open_calls(lambda count: count == 0, SETTLE_S, "empty pool")
    assert seen["cancelled"] is True
    assert seen["echo"] == {"is_error": False, "text": "a"}, "the connection works after a cancelled call"


@pytest.mark.parametrize("kind", [kind for kind, version in VERSIONS.items() if version == MODERN], ids="-".join)
def test_a_modern_client_that_dies_stops_its_call(kind, make_client, greenroom):
    server, _ = greenroom
    with make_client(*kind).start_long_call() as call:
        server.wait_for_open_calls(lambda count: count >= 1, SETTLE_S, "call in the pool")
        call.kill()
        server.wait_for_open_calls(lambda count: count == 0, SETTLE_S, "empty pool")
