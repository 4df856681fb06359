# SPDX-License-Identifier: AGPL-3.0-or-later
"""Nodes that others begin at, as `greenroom bootstrap` runs them."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager

from running import GREENROOM, START_TIMEOUT_S, STOP_TIMEOUT_S


class Bootstrap:
    """One of them."""

    def __init__(self, process, data_dir, screen):
        self.process = process
        self.data_dir = data_dir
        self.screen = screen
        """What it printed: text."""
        self.address = next(line.strip() for line in screen.splitlines() if "/p2p/" in line)

    def json(self, *arguments):
        """What a command says of it."""
        done = subprocess.run(
            [GREENROOM, *arguments, "--json", "--data-dir", self.data_dir],
            capture_output=True,
            text=True,
            check=True,
            timeout=STOP_TIMEOUT_S,
        )
        return json.loads(done.stdout)


@contextmanager
def bootstrap_node(data_dir, *arguments):
    """One that runs, and its end."""
    with (data_dir.parent / f"{data_dir.name}.log").open("w") as log:
        process = subprocess.Popen(
            [GREENROOM, "bootstrap", "--port", "0", "--data-dir", data_dir, *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        screen = ""
        while "bootstrap_nodes: " not in screen:
            line = process.stdout.readline()
            assert line, f"it ended: {(data_dir.parent / f'{data_dir.name}.log').read_text()[-4000:]}"
            screen += line
        yield Bootstrap(process, data_dir, screen)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(START_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.stdout.close()
