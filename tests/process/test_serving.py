# SPDX-License-Identifier: AGPL-3.0-or-later
"""A stranger's first minutes: the system starts by one command, answers, and stops without leaving anything."""

from __future__ import annotations

import json
import signal
import subprocess

import httpx
import pytest
from running import GREENROOM, McpClient, alive, started, wait_until

pytestmark = pytest.mark.process


def test_an_mcp_client_discovers_lists_and_calls(client):
    discovered = client.request("server/discover").json()["result"]
    assert "2026-07-28" in discovered["supportedVersions"]
    names = [tool["name"] for tool in client.request("tools/list").json()["result"]["tools"]]
    assert {"echo", "sleep", "load_dataset", "dataset_query", "hash_file", "text_chunk", "http_fetch"} <= set(names)
    assert client.text("echo", text="hello") == "hello"


def test_a_wrong_parameter_is_named_with_its_nearest(client):
    result = client.call("echo", txet="hello")
    assert result["isError"] is True
    assert "txet" in result["content"][0]["text"]
    assert "text" in result["content"][0]["text"]


def test_rest_answers_as_the_seed_says(greenroom):
    answer = httpx.post(f"{greenroom.url}/tools/execute", json={"tool": "echo", "args": {"text": "hi"}}).json()
    assert answer["status"] == "success"
    assert answer["result"] == "hi"
    assert answer["_runtime"] == "general"
    assert answer["_duration_ms"] >= 0


def test_health_readiness_and_metrics(greenroom):
    health = httpx.get(f"{greenroom.url}/healthz").json()
    assert health["root_pid"] == greenroom.root_pid
    assert {"status", "version"} <= set(health)
    assert httpx.get(f"{greenroom.url}/readyz").status_code == 200
    httpx.post(f"{greenroom.url}/tools/execute", json={"tool": "echo", "args": {"text": "hi"}})
    metrics = httpx.get(f"{greenroom.url}/metrics").text
    assert 'mcp_runtime_active{runtime="general"} 1.0' in metrics
    assert "mcp_tool_execution_total{" in metrics


def test_status_has_the_promised_fields(greenroom):
    status = greenroom.status()
    assert status["root_pid"] == greenroom.root_pid
    fields = {"name", "group", "pid", "incarnation", "state", "restarts", "uptime_s", "rss_bytes"}
    assert all(fields <= set(actor) for actor in status["actors"])
    assert {"gateway", "router", "tools.general#0"} <= {actor["name"] for actor in status["actors"]}


def test_the_command_line_lists_and_calls_tools(greenroom):
    assert "echo(text: string)" in greenroom.run("tools", "list").stdout
    assert greenroom.run("tools", "call", "echo", "text=hello").stdout == "hello\n"
    listed = json.loads(greenroom.run("tools", "list", "--json").stdout)
    assert any(tool["name"] == "echo" for tool in listed["tools"])
    wrong = greenroom.run("tools", "call", "ehco", "text=x", check=False)
    assert wrong.returncode == 1
    assert "did you mean echo?" in wrong.stderr
    assert "tools (one_for_one)" in greenroom.run("tree").stdout


def test_p2p_tools_are_unavailable_while_p2p_is_off_and_general_tools_work(greenroom):
    with McpClient(greenroom.url) as client:
        answer = client.request("tools/call", name="peer_id", arguments={}).json()
        assert "p2p.enabled" in json.dumps(answer)
        assert client.text("echo", text="still") == "still"
    rest = httpx.post(f"{greenroom.url}/tools/execute", json={"tool": "peer_id", "args": {}}).json()
    assert rest["error"]["code"] == "RUNTIME_UNAVAILABLE"


@pytest.mark.parametrize("way", ["down", "SIGTERM", "SIGINT"])
def test_it_stops_in_order_and_leaves_nothing(tmp_path, way):
    with started(tmp_path / "data") as tree:
        pids = tree.pids()
        if way == "down":
            assert "stopped" in tree.run("down").stdout
        else:
            tree.process.send_signal(getattr(signal, way))
        assert tree.process.wait(30) == 0
        assert not [pid for pid in pids if alive(pid)]
        assert not (tree.data_dir / "run.json").exists()
        missing = tree.run("status", check=False)
        assert missing.returncode == 3
        assert "greenroom up" in missing.stderr


def test_nothing_is_left_after_the_root_was_killed(tmp_path):
    with started(tmp_path / "data") as tree:
        pids = tree.pids()
        tree.process.kill()
        tree.process.wait(10)
        wait_until(lambda: not [pid for pid in pids if alive(pid)], 2, "all children gone with their root")
    with started(tmp_path / "data") as again, McpClient(again.url) as client:
        assert client.text("echo", text="again") == "again"


def test_a_second_root_on_the_same_data_is_refused(greenroom):
    second = subprocess.run(
        [GREENROOM, "up", "--port", "0", "--data-dir", greenroom.data_dir], capture_output=True, text=True, timeout=30
    )
    assert second.returncode == 1
    assert f"pid {greenroom.root_pid}" in second.stderr


def test_a_port_that_is_taken_is_an_error_with_the_remedy(greenroom, tmp_path):
    port = greenroom.url.rpartition(":")[2]
    second = subprocess.run(
        [GREENROOM, "up", "--port", port, "--data-dir", tmp_path / "other"], capture_output=True, text=True, timeout=30
    )
    assert second.returncode == 1
    assert "--port" in second.stderr


def test_users_add_tools_and_a_broken_one_harms_nobody(tmp_path):
    tools = tmp_path / "mytools"
    tools.mkdir()
    (tools / "greet.py").write_text(
        "from actors.toolkit import tool\n\n\n@tool()\nasync def greet(whom: str) -> str:\n"
        '    """Greet somebody."""\n    return f"Hello, {whom}!"\n'
    )
    (tools / "wrong.py").write_text("import nothing_of_this_name\n")
    with started(tmp_path / "data", "--tools", str(tools)) as tree, McpClient(tree.url) as client:
        assert client.text("greet", whom="Ada") == "Hello, Ada!"
        assert "broken" in tree.run("tools", "list").stdout
        assert "nothing_of_this_name" in tree.run("tools", "list").stdout
