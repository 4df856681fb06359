# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the tests with official clients need: a running Greenroom with something to offer, and clients to start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import peer_environments
import pytest
from peer_clients import InspectorCli, PeerClient
from running import Greenroom, started, wait_until

HERE = Path(__file__).resolve().parent
OFFERS = HERE / "offers"


@pytest.fixture(scope="session")
def python_client() -> list[str]:
    """The command of the official Python client."""
    return [peer_environments.python(), str(HERE / "clients" / "python_client.py")]


@pytest.fixture(scope="session")
def fastmcp_client() -> list[str]:
    """The command of FastMCP's client."""
    return [peer_environments.python(), str(HERE / "clients" / "fastmcp_client.py")]


@pytest.fixture(scope="session")
def typescript_client() -> list[str]:
    """The command of the TypeScript clients."""
    return peer_environments.typescript()


@pytest.fixture(scope="session")
def inspector_command() -> list[str]:
    """The command of MCP Inspector's CLI."""
    return peer_environments.inspector()


class Served:
    """A running Greenroom, as the tests see it."""

    def __init__(self, tree: Greenroom) -> None:
        self.tree = tree
        self.url = tree.url.rstrip("/").removesuffix("/mcp") + "/mcp"

    def wait_for_open_calls(self, wanted: Callable[[int], bool], limit_s: float, what: str) -> None:
        """Wait until the number of calls that the tool pool is running is as wanted."""
        wait_until(lambda: wanted(self.tree.actors()["tools.general#0"]["open_calls"]), limit_s, what)


@pytest.fixture(scope="module")
def greenroom(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A Greenroom for the module."""
    with started(tmp_path_factory.mktemp("greenroom") / "data", "--tools", str(OFFERS)) as tree:
        yield Served(tree)


@pytest.fixture(scope="module")
def make_client(request: pytest.FixtureRequest, greenroom: Served) -> Callable[[str, str], PeerClient]:
    """Make a client by library and flavour."""

    def make(library: str, flavour: str) -> PeerClient:
        return PeerClient(request.getfixturevalue(f"{library}_client"), greenroom.url, flavour)

    return make


@pytest.fixture(scope="module")
def make_inspector(
    inspector_command: list[str], greenroom: Served, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], InspectorCli]:
    """Make MCP Inspector's CLI for one era."""
    home = tmp_path_factory.mktemp("inspector")
    return lambda era: InspectorCli(inspector_command, greenroom.url, era, home)
