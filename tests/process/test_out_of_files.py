# SPDX-License-Identifier: AGPL-3.0-or-later
"""A tool that uses up the files of its process fails; the process beats on and is not replaced."""

from __future__ import annotations

import time

import pytest
from running import McpClient, started

pytestmark = pytest.mark.process

HOG = '''
import os

import trio

from actors.toolkit import tool


@tool()
async def hog(seconds: float) -> str:
    """Open all files that may be opened, and keep them."""
    opened = []
    try:
        while True:
            try:
                opened.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                await trio.sleep(seconds)
                raise
    finally:
        for fd in opened:
            os.close(fd)
'''
SEVERAL_BEATS_S = 1.0
ENV = {"GREENROOM_TOOLS__POOLS__GENERAL__OPEN_FILES": "200", "GREENROOM_SUPERVISOR__HEARTBEAT_S": "0.2"}


def test_a_process_without_files_lives_on(tmp_path):
    tool = tmp_path / "hog.py"
    tool.write_text(HOG)
    with started(tmp_path / "data", "--tools", tool, env=ENV) as tree, McpClient(tree.url) as client:
        before = tree.pid("tools.general#0")
        began = time.monotonic()
        result = client.call("hog", seconds=SEVERAL_BEATS_S)
        assert result["isError"] is True
        assert "Too many open files" in result["content"][0]["text"]
        assert time.monotonic() - began > SEVERAL_BEATS_S, "it was not cut short"
        assert client.text("echo", text="still here") == "still here"
        assert tree.pid("tools.general#0") == before
