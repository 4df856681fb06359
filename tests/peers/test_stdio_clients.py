# SPDX-License-Identifier: AGPL-3.0-or-later
"""The official clients over `greenroom stdio`, in both eras, and over the transport of 2024-11-05."""

from __future__ import annotations

import pytest
from peer_clients import PeerClient
from running import GREENROOM, started

from .conftest import OFFERS

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


def check(tour: dict, version: str) -> None:
    assert tour["protocol_version"] == version
    assert {"echo", "sleep"} <= set(tour["tools"])
    assert tour["echo"] == {"is_error": False, "text": "grüß dich"}
    done = [step[0] for step in tour["progress"]]
    assert done
    assert done == sorted(set(done))
    assert tour["resources"] == ["peers://colours"]
    assert tour["read_template"] == "blue"
    assert tour["prompt"] == "Describe the sky. Be short."
    assert tour["elicit"] == {"is_error": False, "text": "Hello, Ada!"}
    assert tour["sample"] == {"is_error": False, "text": "It said: something"}
    assert tour["wrong_argument"]["is_error"] is True
    assert tour["unknown_tool"]["error_code"] == INVALID_PARAMS


@pytest.mark.parametrize("kind", VERSIONS, ids="-".join)
def test_a_client_that_starts_its_server_sees_all_that_one_on_http_sees_and_can_cancel(kind, request, greenroom):
    library, flavour = kind
    command = f"stdio:{GREENROOM} stdio --attach --data-dir {greenroom.tree.data_dir}"
    with PeerClient(request.getfixturevalue(f"{library}_client"), command, flavour).start_visit() as client:
        check(client.answer(), VERSIONS[kind])
        client.tell("call")
        assert client.answer() == {"started": True}
        greenroom.wait_for_open_calls(lambda count: count >= 1, SETTLE_S, "call in the pool")
        client.tell("cancel")
        seen = client.answer()
        greenroom.wait_for_open_calls(lambda count: count == 0, SETTLE_S, "empty pool")
        assert seen["cancelled"] is True
        assert seen["echo"] == {"is_error": False, "text": "a"}


def test_a_client_of_2024_11_05_takes_the_same_tour_when_that_is_switched_on(python_client, tmp_path):
    switched_on = {"GREENROOM_SERVER__LEGACY_SSE": "true"}
    with started(tmp_path / "data", "--tools", str(OFFERS), env=switched_on) as tree:
        url = tree.url.rstrip("/").removesuffix("/mcp")
        with PeerClient(python_client, f"sse:{url}/sse", "legacy").start_visit() as client:
            check(client.answer(), LEGACY)
