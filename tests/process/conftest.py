# SPDX-License-Identifier: AGPL-3.0-or-later
"""Fixtures of process tests: a running tree, and a client of it."""

from __future__ import annotations

import pytest
import spawning
from running import McpClient, started


@pytest.fixture(scope="module")
def greenroom(tmp_path_factory):
    """One tree for a module."""
    with started(tmp_path_factory.mktemp("greenroom") / "data") as tree:
        yield tree


@pytest.fixture
def client(greenroom):
    with McpClient(greenroom.url) as mcp:
        yield mcp


@pytest.fixture(params=["interpreter", "forked"])
def way(request, monkeypatch):
    """Both ways of starting a process: whatever holds for one must hold for the other."""
    monkeypatch.setattr(spawning, "forked", request.param == "forked")
