# SPDX-License-Identifier: AGPL-3.0-or-later
"""Kill -9 of any process but the root, under a steady load: a short wait for clients, and nothing else."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from urllib.parse import urlsplit

import pytest
from running import META, MODERN, McpClient, started, wait_until

pytestmark = pytest.mark.process

RATE = 100
WORKERS = 10


class SteadyLoad:
    """100 calls/s from ten connections; each call ends with exactly one outcome, which is kept.

    A connection that breaks is opened again. A request that had been sent on it is repeated only if its tool is
    `retry_safe`, as an honest client would do; else its outcome is `connection lost`.
    """

    def __init__(self, url: str, name: str, arguments: dict, *, retry_safe: bool) -> None:
        self.address = urlsplit(url)
        self.name = name
        self.arguments = arguments
        self.retry_safe = retry_safe
        self.outcomes: list[str] = []
        self.refused = 0
        self.slowest_s = 0.0
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._work, args=(number,)) for number in range(WORKERS)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()

    def _work(self, number: int) -> None:
        connection = None
        due = time.monotonic() + number / RATE
        while not self.stopping.wait(max(0.0, due - time.monotonic())):
            due += WORKERS / RATE
            began = time.monotonic()
            for _ in range(3):
                connection = connection or http.client.HTTPConnection(
                    self.address.hostname, self.address.port, timeout=20
                )
                try:
                    outcome = self._call(connection)
                except ConnectionRefusedError:
                    self.refused += 1
                    outcome = "refused"
                    break
                except (OSError, http.client.HTTPException):
                    connection.close()
                    connection = None
                    outcome = "connection lost"
                    if self.retry_safe:
                        continue
                break
            self.outcomes.append(outcome)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        if connection is not None:
            connection.close()

    def _call(self, connection: http.client.HTTPConnection) -> str:
        body = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": self.name, "arguments": self.arguments, "_meta": META},
        }
        connection.request(
            "POST", "/mcp", json.dumps(body), MODERN | {"mcp-method": "tools/call", "mcp-name": self.name}
        )
        answer = json.loads(connection.getresponse().read())
        result = answer["result"]
        if not result.get("isError"):
            return "ok"
        return result["_meta"]["greenroom/code"]


@pytest.mark.parametrize("victim", ["tools.general#0", "router", "gateway"])
def test_a_retry_safe_call_is_always_answered(tmp_path, victim):
    with started(tmp_path / "data") as tree:
        before = tree.actors()
        with SteadyLoad(tree.url, "echo", {"text": "x"}, retry_safe=True) as load:
            wait_until(lambda: len(load.outcomes) > 50, 10, "load to flow")
            incarnation = tree.kill(victim)
            tree.wait_ready(victim, incarnation)
            seen = len(load.outcomes)
            wait_until(lambda: len(load.outcomes) > seen + 50, 10, "load to flow again")
        assert Counter(load.outcomes) == {"ok": len(load.outcomes)}
        assert load.refused == 0
        after = tree.actors()
        named = {name for name in after if "#spare" not in name}
        assert all(after[name]["state"] in ("ready", "off") for name in named)
        changed = {name for name in named if after[name]["pid"] != before[name]["pid"]}
        assert changed == {victim}, "siblings keep their processes"
        assert after[victim]["restarts"] == 1


def test_any_other_call_gets_one_answer_or_one_honest_error(tmp_path):
    tools = tmp_path / "mytools"
    tools.mkdir()
    (tools / "append.py").write_text(
        "import trio\n\nfrom actors.toolkit import ToolContext, tool\n\n\n@tool()\n"
        "async def append(path: str) -> str:\n"
        '    """Have an effect that must not happen twice."""\n'
        "    await trio.sleep(0.05)\n"
        "    with open(path, 'a') as file:\n        file.write('x')\n    return 'done'\n"
    )
    effects = tmp_path / "effects"
    effects.touch()
    with (
        started(tmp_path / "data", "--tools", str(tools)) as tree,
        SteadyLoad(tree.url, "append", {"path": str(effects)}, retry_safe=False) as load,
    ):
        wait_until(lambda: len(load.outcomes) > 50, 10, "load to flow")
        for victim in ("tools.general#0", "router", "gateway"):
            incarnation = tree.kill(victim)
            tree.wait_ready(victim, incarnation)
        seen = len(load.outcomes)
        wait_until(lambda: len(load.outcomes) > seen + 50, 10, "load to flow again")
    count = Counter(load.outcomes)
    assert set(count) <= {"ok", "OUTCOME_UNKNOWN", "connection lost"}
    unknown = len(load.outcomes) - count["ok"]
    assert unknown >= 1, "the kill hit nothing"
    assert count["ok"] <= len(effects.read_text()) <= len(load.outcomes), "an effect was doubled or lost"
    assert load.refused == 0


def test_a_connect_while_the_gateway_restarts_waits_instead_of_being_refused(tmp_path):
    with started(tmp_path / "data") as tree:
        address = urlsplit(tree.url)
        incarnation = tree.kill("gateway")
        with socket.create_connection((address.hostname, address.port), timeout=20):
            pass
        with McpClient(tree.url) as client:
            assert client.text("echo", text="waited") == "waited"
        tree.wait_ready("gateway", incarnation)


def test_a_stopped_process_is_found_out_and_replaced(tmp_path):
    with started(
        tmp_path / "data", env={"GREENROOM_SUPERVISOR__HEARTBEAT_S": "0.2", "GREENROOM_SUPERVISOR__HUNG_AFTER_S": "1"}
    ) as tree:
        incarnation = tree.kill("tools.general#0", signal.SIGSTOP)
        with McpClient(tree.url) as client:
            assert client.text("echo", text="after the hang") == "after the hang"
        assert tree.wait_ready("tools.general#0", incarnation)["restarts"] == 1


def test_a_stopped_process_does_not_delay_the_end(tmp_path):
    with started(tmp_path / "data", env={"GREENROOM_SUPERVISOR__SHUTDOWN_S": "1"}) as tree:
        tree.kill("router", signal.SIGSTOP)
        began = time.monotonic()
        assert tree.stop() == 0
        assert time.monotonic() - began < 5


def test_a_tree_that_can_not_be_kept_alive_ends_with_its_own_code(tmp_path):
    with started(
        tmp_path / "data", env={"GREENROOM_SUPERVISOR__RESTARTS": "1", "GREENROOM_SUPERVISOR__WITHIN_S": "60"}
    ) as tree:

        def kill_again():
            if tree.process.poll() is not None:
                return True
            pid = tree.pid("router")
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
            return False

        wait_until(kill_again, 60, "the root to give up")
        assert tree.process.returncode == 70
