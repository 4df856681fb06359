# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whole nodes that are peers of each other: trees with their services between nodes switched on."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from contextlib import contextmanager

from running import GREENROOM, McpClient, started


def p2p():
    """The settings of a node: it listens at the same port in all the lives of its peer registry."""
    return {"GREENROOM_P2P__ENABLED": "true", "GREENROOM_P2P__CONNECTIVITY__LISTEN_PORT": str(free_port())}


def free_port():
    """One that nobody listens at now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class PeerTree:
    """One of them."""

    def __init__(self, tree):
        self.tree = tree
        self.client = McpClient(tree.url)
        me = self.call("peer_id")
        self.id = me["peer_id"]
        self.address = me["addresses"][0]
        """With its id."""
        self.place = self.address.rpartition("/p2p/")[0]

    def call(self, name, /, **arguments):
        """A tool's structured content; an error as its text."""
        answer = self.client.call(name, **arguments)
        if answer.get("isError"):
            raise CallError(answer["content"][0]["text"])
        return answer["structuredContent"]

    def cli(self, *arguments, code=0):
        """What `greenroom peers` prints."""
        done = subprocess.run(
            [GREENROOM, "peers", *arguments, "--data-dir", str(self.tree.data_dir)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout + done.stderr

    def verified(self, workflow_id):
        """What `greenroom workflow verify` finds out."""
        done = subprocess.run(
            [GREENROOM, "workflow", "verify", workflow_id, "--json", "--data-dir", str(self.tree.data_dir)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        return json.loads(done.stdout)

    def peer(self, other):
        """What it knows of another one; None = nothing."""
        found = [one for one in self.call("peer_list", limit=1000)["peers"] if one["peer_id"] == other.id]
        return found[0] if found else None

    def status(self, other):
        found = self.peer(other)
        return None if found is None else found["status"]

    def until(self, holds, what, within_s=20.0):
        end = time.monotonic() + within_s
        while not (found := holds()):
            assert time.monotonic() < end, f"no {what} within {within_s:g} s"
            time.sleep(0.05)
        return found


class CallError(Exception):
    """A tool's answer that is an error."""


@contextmanager
def peer_tree(data_dir, *arguments, env=None, config=None):
    """A node of its own. `config` is written as its YAML."""
    more = list(arguments)
    if config is not None:
        path = data_dir.with_suffix(".yaml")
        path.write_text(json.dumps(config))
        more += ["--config", str(path)]
    with started(data_dir, *more, env=p2p() | (env or {})) as tree:
        node = PeerTree(tree)
        with node.client:
            yield node
