# SPDX-License-Identifier: AGPL-3.0-or-later
"""Real spares: the process that stood by does the work of the one that died, and another stands by."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from running import McpClient, started, wait_until

pytestmark = pytest.mark.process

PLACES = {"tools.general#0": "tools.general#spare0", "router": "router#spare0", "gateway": "gateway#spare0"}


def spare_of(tree, name):
    return wait_until(
        lambda: (spare := tree.actors()[PLACES[name]])["state"] == "spare" and spare, 10, f"a spare for {name}"
    )


@pytest.fixture
def tree(tmp_path):
    with started(tmp_path / "data") as running:
        for name in PLACES:
            spare_of(running, name)
        yield running


@pytest.mark.parametrize("name", PLACES)
def test_a_spare_takes_the_place_and_is_replaced_behind(tree, name):
    for _ in range(3):
        spare = spare_of(tree, name)
        os.kill(tree.pid(name), signal.SIGKILL)
        with McpClient(tree.url) as client:
            assert client.text("echo", text="still here") == "still here"
        wait_until(lambda spare=spare: tree.pid(name) == spare["pid"], 5, f"{name} to be the former spare")
        assert tree.actors()[name]["incarnation"] == spare["incarnation"]
        shown = Path(f"/proc/{spare['pid']}/comm")
        wait_until(
            lambda shown=shown: shown.read_text().strip() == name.removeprefix("tools."), 5, "its new name in ps"
        )
        assert spare_of(tree, name)["pid"] != spare["pid"]


@pytest.mark.parametrize("name", PLACES)
def test_a_spare_that_dies_is_replaced_and_nobody_else_notices(tree, name):
    before = tree.actors()
    os.kill(spare_of(tree, name)["pid"], signal.SIGKILL)
    wait_until(lambda: tree.actors()[PLACES[name]]["pid"] != before[PLACES[name]]["pid"], 5, "another spare")
    spare_of(tree, name)
    after = tree.actors()
    assert {one: after[one]["pid"] for one in PLACES} == {one: before[one]["pid"] for one in PLACES}
    assert tree.run("status", check=False).returncode == 0


def test_an_operators_restart_loses_no_call_that_runs(tree):
    """The old process finishes what it has, while the new one serves already."""
    old = tree.pid("tools.general#0")
    with McpClient(tree.url) as slow, McpClient(tree.url) as quick:
        answers = []
        running = threading.Thread(target=lambda: answers.append(slow.call("sleep", seconds=2)))
        running.start()
        wait_until(lambda: tree.actors()["tools.general#0"]["open_calls"] >= 1, 5, "the call to run")
        began = time.monotonic()
        tree.run("restart", "tools.general#0")
        assert quick.text("echo", text="served by the new one") == "served by the new one"
        assert time.monotonic() - began < 1.9
        assert tree.pid("tools.general#0") != old
        running.join(10)
    assert answers
    assert not answers[0].get("isError")
    wait_until(lambda: not Path(f"/proc/{old}").exists(), 5, "the old process to end")


def test_spares_are_a_matter_of_configuration(tmp_path):
    config = tmp_path / "greenroom.yaml"
    config.write_text(
        "server: {spares: 0}\nrouter: {spares: 2}\nruntimes: {general: {spares: 0}}\n"
        "tools: {pools: {heavy: {categories: [dataset_tools], spares: 1}}}\n"
    )
    with started(tmp_path / "data", "--config", str(config)) as tree:
        names = {name for name in tree.actors() if "#spare" in name}
        assert names == {"router#spare0", "router#spare1", "tools.heavy#spare0"}
