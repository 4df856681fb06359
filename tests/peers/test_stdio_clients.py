# SPDX-License-Identifier: AGPL-3.0-or-later
"""The official clients over `greenroom stdio`, in both eras, and over the transport of 2024-11-05."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from .conftest import GREENROOM, PeerClient

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
    assert tour["sleep"]["is_error"] is False
    done = [step[0] for step in tour["progress"]]
    assert done
    assert done == sorted(set(done))
    assert tour["wrong_argument"]["is_error"] is True
    assert tour["unknown_tool"]["error_code"] == INVALID_PARAMS


@pytest.fixture(params=VERSIONS, ids="-".join)
def peer(request, greenroom):
    language, flavour = request.param
    server, _ = greenroom
    command = f"stdio:{GREENROOM} stdio --attach --data-dir {server._data}"
    return request.param, PeerClient(request.getfixturevalue(f"{language}_client"), command, flavour)


def test_a_client_that_starts_its_server_sees_all_that_one_on_http_sees(peer):
    kind, client = peer
    check(client.tour(), VERSIONS[kind])


def test_a_cancelled_call_stops_in_the_tools_process(peer, greenroom):
    _, client = peer
    server, _ = greenroom
    with client.start_long_call() as call:
        server.wait_for_open_calls(lambda count: count >= 1, SETTLE_S, "call in the pool")
        seen = call.cancel()
        server.wait_for_open_calls(lambda count: count == 0, SETTLE_S, "empty pool")
    assert seen["cancelled"] is True
    assert seen["echo"] == {"is_error": False, "text": "a"}


def test_a_client_of_2024_11_05_takes_the_same_tour_when_that_is_switched_on(python_client, tmp_path):
    command = [str(GREENROOM), "up", "--port", "0", "--json", "--data-dir", str(tmp_path / "data")]
    environment = os.environ | {"GREENROOM_SERVER__LEGACY_SSE": "true"}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment)
    try:
        url = json.loads(server.stdout.readline())["url"]
        check(PeerClient(python_client, f"sse:{url}/sse", "legacy").tour(), LEGACY)
    finally:
        server.terminate()
        server.wait(20)
        server.stdout.close()
