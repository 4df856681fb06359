# SPDX-License-Identifier: AGPL-3.0-or-later
"""More processes than one: several gateways on one port, several processes in a pool, and limits that hold over all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from running import McpClient, started, wait_until

pytestmark = pytest.mark.process

ALONE = '''
import os

import trio

from actors.toolkit import tool


@tool()
async def alone(place: str) -> int:
    """Fail when another call of this tool runs at the same time."""
    os.close(os.open(place, os.O_CREAT | os.O_EXCL))
    await trio.sleep(0.1)
    os.unlink(place)
    return os.getpid()
'''
AT_ONCE = 6


def results_of_calls_at_once(tree, place):
    def call(_):
        return httpx.post(
            f"{tree.url}/tools/execute", json={"tool": "alone", "args": {"place": str(place)}}, timeout=30
        ).json()

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(call, range(AT_ONCE)))


@pytest.fixture
def tools(tmp_path):
    folder = tmp_path / "mytools"
    folder.mkdir()
    (folder / "alone.py").write_text(ALONE)
    return folder


def test_a_limit_on_a_tool_holds_over_all_processes_of_its_pool(tmp_path, tools):
    config = tmp_path / "greenroom.yaml"
    config.write_text("runtimes: {general: {workers: 2}}\ntools: {max_concurrent: {alone: 1}}\n")
    with started(tmp_path / "data", "--config", str(config), "--tools", str(tools)) as tree:
        answers = results_of_calls_at_once(tree, tmp_path / "place")
    assert [answer["status"] for answer in answers] == ["success"] * AT_ONCE


def test_without_a_limit_calls_run_at_once_on_all_processes_of_the_pool(tmp_path, tools):
    with started(tmp_path / "data", "--tools", str(tools), env={"GREENROOM_RUNTIMES__GENERAL__WORKERS": "2"}) as tree:
        pools = {name for name in tree.actors() if name.startswith("tools.") and "spare" not in name}
        assert pools == {"tools.general#0", "tools.general#1"}
        answers = results_of_calls_at_once(tree, tmp_path / "place")
        assert "error" in {answer["status"] for answer in answers}
        places = [tmp_path / str(number) for number in range(AT_ONCE)]
        with ThreadPoolExecutor(AT_ONCE) as threads:
            pids = set(
                threads.map(
                    lambda place: httpx.post(
                        f"{tree.url}/tools/execute", json={"tool": "alone", "args": {"place": str(place)}}, timeout=30
                    ).json()["result"],
                    places,
                )
            )
        assert len(pids) == 2, "the calls went to both processes"


def test_several_gateways_share_one_port_and_one_may_die(tmp_path):
    with started(tmp_path / "data", env={"GREENROOM_SERVER__GATEWAYS": "2"}) as tree:
        assert {"gateway#0", "gateway#1"} <= set(tree.actors())
        incarnation = tree.kill("gateway#0")

        def call(number):
            with McpClient(tree.url) as client:
                return client.text("echo", text=str(number))

        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(call, range(40))) == [str(number) for number in range(40)]
        tree.wait_ready("gateway#0", incarnation)


def test_a_legacy_session_made_by_one_gateway_is_known_to_the_other(tmp_path):
    with started(tmp_path / "data", env={"GREENROOM_SERVER__GATEWAYS": "2"}) as tree:
        headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        initialize = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "tests", "version": "1"},
            },
        }
        made = httpx.post(f"{tree.url}/mcp", json=initialize, headers=headers)
        session = headers | {"mcp-session-id": made.headers["mcp-session-id"], "mcp-protocol-version": "2025-06-18"}
        ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
        # Each request on a new connection: the kernel spreads them over both gateways.
        statuses = [httpx.post(f"{tree.url}/mcp", json=ping, headers=session).status_code for _ in range(20)]
        assert statuses == [200] * 20
        incarnation = tree.kill("gateway#1")
        tree.kill("gateway#0")
        wait_until(
            lambda: httpx.post(f"{tree.url}/mcp", json=ping, headers=session, timeout=20).status_code == 200,
            20,
            "the session to be served after both gateways died",
        )
        tree.wait_ready("gateway#1", incarnation)
