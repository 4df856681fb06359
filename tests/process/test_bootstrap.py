# SPDX-License-Identifier: AGPL-3.0-or-later
"""A node that others begin at: it is small, it says where it is, and those that know only it find each other."""

from __future__ import annotations

import os
import re
import socket
import subprocess

import httpx
import pytest
from bootstrap_nodes import bootstrap_node
from peer_trees import peer_tree
from running import GREENROOM

pytestmark = pytest.mark.process


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(os.urandom(32).hex().encode())
    path.chmod(0o600)
    return path


def node(tmp_path, name, first, **registry):
    config = {"p2p": {"peer_registry": {"bootstrap_nodes": [first.address], **registry}}}
    return peer_tree(tmp_path / name, config=config)


def meet(first, one, two):
    """Both are connected with each other, although each knew only the first one. A minute would pass before they look
    for others by themselves."""
    one.until(lambda: one.status(two) == "connected", "connection with the other one")
    two.until(lambda: two.status(one) == "connected", "connection with the other one")
    assert first.json("peers", "id")["connected"] == 2


def test_nodes_that_know_only_an_open_bootstrap_node_find_each_other(tmp_path):
    with (
        bootstrap_node(tmp_path / "first", "--open") as first,
        node(tmp_path, "one", first) as one,
        node(tmp_path, "two", first) as two,
    ):
        meet(first, one, two)
        counts = first.json("peers", "id")
        assert (counts["linked"], counts["tool_calls"]) == (2, {"link": 0})
        assert counts["links"]["asked"] > 0
        scraped = httpx.get(f"{one.tree.url}/metrics", timeout=10).text.splitlines()
        assert {"mcp_p2p_peer_registry_up 1.0", "mcp_p2p_peers_connected 2.0"} <= set(scraped)


def test_nodes_with_its_secret_find_each_other_and_others_get_no_link(tmp_path, secret):
    with bootstrap_node(tmp_path / "first", "--secret-file", str(secret)) as first:
        ours = {"secret_file": str(secret)}
        with node(tmp_path, "one", first, **ours) as one, node(tmp_path, "two", first, **ours) as two:
            meet(first, one, two)
            with node(tmp_path, "stranger", first) as stranger:
                stranger.until(lambda: first.json("peers", "id")["links"]["endings"].get("incompatible"), "refusal")
                assert {stranger.status(one), stranger.status(two)} == {None}, "it was told of nobody"


def test_it_is_the_peer_registry_alone_and_says_where_it_is(tmp_path):
    with bootstrap_node(tmp_path / "first", "--open") as first:
        status = first.json("status")
        assert [(actor["name"], actor["state"]) for actor in status["actors"]] == [("peer_registry", "ready")]
        assert status["url"] == ""
        assert first.json("peers", "id")["addresses"] == [first.address]
        assert f"bootstrap_nodes: [{first.address}]" in first.screen
        down = subprocess.run([GREENROOM, "down", "--yes", "--data-dir", first.data_dir], check=False, timeout=30)
        assert (down.returncode, first.process.wait(30)) == (0, 0)
    with bootstrap_node(tmp_path / "first", "--open") as again:
        assert again.address.rpartition("/")[2] == first.address.rpartition("/")[2], "its id is kept"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give --secret-file FILE, .* or --open"),
        (("--open", "--secret-file", "x"), "exclude each other"),
        (("--open", "--listen", "localhost"), "give an IP address with --listen"),
        (("--open", "--listen", "192.0.2.77"), r"192\.0\.2\.77:4001 can't be listened on .* --listen and --port"),
        (("--secret-file", "/nonexistent/s"), r"(?m)^    actor failed: .*secret /nonexistent/s .* can't be opened"),
    ],
)
def test_what_makes_no_sense_is_told_with_the_remedy(tmp_path, arguments, said):
    done = subprocess.run(
        [GREENROOM, "bootstrap", *arguments, "--data-dir", tmp_path / "data"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert re.search(said, done.stderr), done.stderr


def test_a_port_that_is_taken_is_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [GREENROOM, "bootstrap", "--open", "--port", port, "--data-dir", tmp_path / "data"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert f"127.0.0.1:{port} can't be listened on" in done.stderr
