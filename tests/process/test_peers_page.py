# SPDX-License-Identifier: AGPL-3.0-or-later
"""The network in five minutes of docs/peers.md, command by command."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from peer_trees import free_port
from running import GREENROOM, NO_SPARES, started, wait_until

pytestmark = pytest.mark.process

PAGE = (Path(__file__).parents[2] / "docs" / "peers.md").read_text()
FIRST = PAGE.partition("## A network in five minutes")[2].partition("\n## ")[0]
COMMANDS = [line for block in re.findall(r"\n\n```\n(.*?)```", FIRST, re.DOTALL) for line in block.splitlines()]
FILES = dict(re.findall(r"`~/net/([a-z]+\.yaml)`.*?```yaml\n(.*?)```", FIRST, re.DOTALL))


def test_it_works_as_it_is_written(tmp_path):
    home = {"HOME": str(tmp_path), "XDG_DATA_HOME": ""}
    made, *others = COMMANDS
    subprocess.run(made, shell=True, check=True, env=os.environ | home, timeout=30)
    assert set(FILES) == {"a.yaml", "b.yaml", "work.yaml"}
    for name, text in FILES.items():
        # Other tests may use the ports of the page.
        (tmp_path / "net" / name).write_text(re.sub(r"listen_port: \d+", f"listen_port: {free_port()}", text))
    ups = [line for line in others if line.startswith("greenroom up")]
    assert len(ups) == 2

    def run(line):
        arguments = shlex.split(line.replace("~", str(tmp_path)))[1:]
        done = subprocess.run(
            [GREENROOM, *arguments], capture_output=True, text=True, timeout=60, check=False, env=os.environ | home
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout

    with ExitStack() as stack:
        for line in ups:
            words = shlex.split(line.replace("~", str(tmp_path)))
            config, data_dir = (words[words.index(option) + 1] for option in ("--config", "--data-dir"))
            stack.enter_context(started(Path(data_dir), "--config", config, env=home | NO_SPARES))
        me, connect, listed, call, submit, show = others[2:]
        told = run(me)
        address = re.search(r"listens on (\S+)", told)[1]
        assert "connected" in run(connect.replace("ADDRESS-OF-A", address))
        assert "connected" in run(listed)
        assert "hello" in run(call.replace("ID-OF-A", told.split()[0]))
        run(submit)
        wait_until(lambda: "completed" in (shown := run(show)) and "hello from another node" in shown, 40, "result")
