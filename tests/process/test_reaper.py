# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a child's children leave behind is ended and reaped, also where they made themselves independent."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest
import trio
from spawning import children, gone, spawner, state

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("way")]

DAEMON = """
import os, subprocess, sys
code = "import time; print('daemon', __import__('os').getpid(), flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", code], start_new_session={own})
await trio.sleep_forever()
"""


@pytest.mark.parametrize("own", [False, True], ids=["same session", "own session"])
async def test_a_grandchild_ends_with_its_parent_and_leaves_no_zombie(monkeypatch, own):
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            child = await spawn(DAEMON.format(own=own))
            daemon = int((await child.said("daemon")).split()[1])
            os.kill(child.pid, signal.SIGKILL)
            await child.wait()
            while not gone(daemon) or daemon in children():
                await trio.sleep(0.05)
            assert state(daemon) == ""


async def test_children_of_others_are_left_alone(monkeypatch):
    with subprocess.Popen(["sleep", "600"]) as other:
        try:
            with trio.fail_after(20):
                async with spawner(monkeypatch) as spawn:
                    await (await spawn("pass")).wait()
                    await trio.sleep(2.5)
            assert other.poll() is None
        finally:
            other.kill()
