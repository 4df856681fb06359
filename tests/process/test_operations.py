# SPDX-License-Identifier: AGPL-3.0-or-later
"""What operators do with a running tree: restart with drain, drain, resume, scale, reload. It costs no call."""

from __future__ import annotations

import json
import signal
import subprocess
import threading

import pytest
from running import GREENROOM, McpClient, started, wait_until

pytestmark = pytest.mark.process

CONFIG = "tools:\n  pools:\n    small: {{workers: {workers}, categories: [mytools], spares: {spares}}}\n"
TOOLS = '''
import os, trio
from actors.toolkit import tool

@tool()
async def version() -> str:
    """Which file this is."""
    return "{version}"

@tool()
async def pid() -> int:
    """The process that runs this."""
    return os.getpid()

@tool()
async def long_job(path: str) -> str:
    """Run until a file is there."""
    while not os.path.exists(path):
        await trio.sleep(0.01)
    return "{version}"
'''


class Callers:
    """Threads that call `version`, which is not repeatable, without a pause: every answer has to be a good one."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: list[str] = []
        self.wrong: list[object] = []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._work) for _ in range(3)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join(30)

    def _work(self) -> None:
        with McpClient(self.url) as client:
            while not self.stopping.is_set():
                answer = client.call("version")
                if answer.get("isError"):
                    self.wrong.append(answer)
                else:
                    self.answers.append(answer["content"][0]["text"])


class Site:
    """A tree with tools and a configuration that the test changes."""

    def __init__(self, folder):
        self.folder = folder
        self.tools = folder / "mytools"
        self.tools.mkdir()
        self.config = folder / "config.yaml"
        self.data = folder / "data"
        self.write("one")
        self.configure(workers=2, spares=1)
        self.tree = None

    def write(self, version):
        # Python takes a file of the same size and second for the same.
        (self.tools / "mine.py").write_text(TOOLS.format(version=version) + "#" * len(version) * 7)

    def configure(self, **values):
        self.config.write_text(CONFIG.format(**values))

    def run(self, *arguments):
        done = subprocess.run(
            [GREENROOM, *arguments, "--data-dir", str(self.data), "--json"],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
        return done.returncode, json.loads(done.stdout)

    def do(self, *arguments):
        code, answer = self.run(*arguments)
        assert code == 0, answer
        return answer

    def pool(self):
        return {n: a for n, a in self.tree.actors().items() if n.startswith("tools.small#") and "spare" not in n}

    def settled(self):
        actors = self.tree.actors()
        return all(actor["state"] in ("ready", "spare", "off") for actor in actors.values()) and actors


@pytest.fixture
def site(tmp_path):
    one = Site(tmp_path)
    with started(one.data, "--config", str(one.config), "--tools", str(one.tools)) as one.tree:
        wait_until(one.settled, 20, "the tree with its spares")
        yield one


def test_a_reload_takes_over_changed_tools_while_old_calls_end_where_they_began(site, tmp_path):
    gate = tmp_path / "gate"
    with McpClient(site.tree.url) as client, Callers(site.tree.url) as callers:
        long = []
        thread = threading.Thread(target=lambda: long.append(client.text("long_job", path=str(gate))))
        thread.start()
        wait_until(lambda: any(a["open_calls"] for a in site.pool().values()), 10, "the long call to run")
        old = {actor["pid"] for actor in site.pool().values()}
        site.write("number two")
        site.configure(workers=3, spares=1)
        done = site.do("reload")
        assert done["added"] == ["tools.small#2"]
        assert {"tools.small#0", "tools.small#1"} <= set(done["replaced"])
        assert done["changed"] == ["tools.pools.small.workers"]
        with McpClient(site.tree.url) as other:
            assert other.text("version") == "number two"
        assert not old & {actor["pid"] for actor in site.pool().values()}
        gate.touch()
        thread.join(20)
        assert long == ["one"], "the call that ran before has ended in its old process"
        wait_until(site.settled, 20, "the old processes to be gone")
    assert callers.wrong == []
    assert set(callers.answers) == {"one", "number two"}
    assert callers.answers[-1] == "number two"


def test_a_hangup_signal_reloads_and_a_wrong_configuration_changes_nothing(site):
    before = site.pool()
    site.config.write_text("tools: {pools: {small: {workers: many}}}\n")
    site.tree.process.send_signal(signal.SIGHUP)
    log = site.folder / "data.log"
    wait_until(lambda: "not reloaded" in log.read_text() and "workers" in log.read_text(), 10, "the refusal in the log")
    code, answer = site.run("reload")
    assert (code, answer["error"]["code"]) == (1, "CONFIG")
    assert {n: a["pid"] for n, a in site.pool().items()} == {n: a["pid"] for n, a in before.items()}
    site.configure(workers=1, spares=0)
    site.tree.process.send_signal(signal.SIGHUP)
    wait_until(lambda: set(site.pool()) == {"tools.small#0"}, 20, "the pool to have shrunk")
    wait_until(lambda: not [n for n in site.tree.actors() if n.startswith("tools.small#spare")], 20, "no spare")
    assert site.pool()["tools.small#0"]["pid"] not in {actor["pid"] for actor in before.values()}


def test_what_needs_a_new_start_is_said_and_not_taken_over(site):
    site.config.write_text(site.config.read_text() + "server: {gateways: 2}\n")
    done = site.do("reload")
    assert (done["changed"], done["needs_restart"]) == ([], ["server.gateways"])
    assert "gateway#1" not in site.tree.actors()


def test_every_actor_can_be_replaced_under_load_without_a_lost_call(site):
    with Callers(site.tree.url) as callers:
        for name in ("tools.small#0", "tools.small#1", "router"):
            change = site.do("restart", name, "--drain", "--yes")
            assert change["old_pid"] != change["new_pid"]
        seen = len(callers.answers)
        wait_until(lambda: len(callers.answers) > seen + 50, 10, "load to flow")
    assert callers.wrong == []


def test_a_pool_grows_and_shrinks_under_load(site):
    with Callers(site.tree.url) as callers:
        grown = site.do("scale", "small", "4", "--yes")
        assert (grown["before"], grown["after"]) == (2, 4)
        with McpClient(site.tree.url) as client:
            wait_until(lambda: len({client.text("pid") for _ in range(40)}) == 4, 20, "all four to work")
        shrunk = site.do("scale", "small", "1", "--yes")
        assert shrunk["removed"] == ["tools.small#1", "tools.small#2", "tools.small#3"]
        wait_until(lambda: set(site.pool()) == {"tools.small#0"}, 20, "one process")
    assert callers.wrong == []
    code, answer = site.run("scale", "smal", "2", "--yes")
    assert (code, answer["error"]["message"]) == (1, "there is no pool 'smal'; did you mean small?")


def test_a_drained_process_gets_no_calls_until_it_is_resumed(site):
    with Callers(site.tree.url) as callers, McpClient(site.tree.url) as client:
        out = site.do("drain", "tools.small#0", "--yes")
        assert out == {"names": ["tools.small#0"], "open_calls": 0}
        drained = site.pool()["tools.small#0"]
        assert drained["state"] == "draining"
        assert drained["pid"] not in {int(client.text("pid")) for _ in range(20)}
        site.do("resume", "tools.small#0")
        wait_until(lambda: int(client.text("pid")) == drained["pid"], 10, "it works again")
    assert callers.wrong == []


def test_calls_wait_while_a_whole_pool_is_drained(site):
    site.do("drain", "tools.small", "--yes")
    answers = []
    with McpClient(site.tree.url) as client:
        thread = threading.Thread(target=lambda: answers.append(client.text("version")))
        thread.start()
        thread.join(0.5)
        assert answers == []
        site.do("resume", "tools.small")
        thread.join(10)
    assert answers == ["one"]


def test_the_gateway_can_be_replaced_but_not_drained(site):
    code, answer = site.run("drain", "gateway", "--yes")
    assert code == 1
    assert "restart gateway --drain" in answer["error"]["message"]
    site.do("restart", "gateway", "--drain", "--yes")
    with McpClient(site.tree.url) as client:
        assert client.text("version") == "one"
