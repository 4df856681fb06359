# SPDX-License-Identifier: AGPL-3.0-or-later
"""Quirks of live clients: each is served while its name stands in `server.quirks`, and refused, alone, without it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from task_bench import QueueHere

from actors.settings import Quirk, ServerSettings, Settings
from actors.task_messages import Enqueue, Submitted
from actors.tool_tasks import MCP_TAG
from gateway.mcp import quirks
from gateway.mcp.testing import CLIENT, legacy, modern, open_session, protocol, said
from gateway.types import Request

ALL: tuple[Quirk, ...] = get_args(Quirk)
C, D = "2025-06-18", "2025-11-25"
Session = dict[str, str | None]
TASK = "a-task"
TASKS = {"io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}}
HELLO = {"protocolVersion": D, "capabilities": {}, "clientInfo": CLIENT}

# name, what the client sends in a session at D, status and code of the refusal (0: no JSON-RPC code is promised)
QUIRKS: list[tuple[Quirk, Callable[[Session], Request], int, int]] = [
    ("legacy-version-header", lambda _: modern("tools/list", headers={"mcp-protocol-version": D}), 400, -32020),
    ("legacy-version-header", lambda session: modern("tools/list", headers=session), 400, -32020),
    (
        "other-version-header",
        lambda session: legacy("ping", headers=session | {"mcp-protocol-version": C}),
        400,
        -32600,
    ),
    (
        "no-version-header",
        lambda session: legacy("ping", headers=session | {"mcp-protocol-version": None}),
        400,
        -32600,
    ),
    ("accept", lambda session: legacy("ping", headers=session | {"accept": "application/json"}), 406, 0),
    ("accept", lambda session: legacy("ping", headers=session | {"accept": "text/event-stream"}), 406, 0),
    ("accept", lambda session: legacy("ping", headers=session | {"accept": "*/*"}), 406, 0),
    ("accept", lambda _: modern("tools/list", headers={"accept": None}), 406, 0),
    ("no-content-type", lambda _: modern("tools/list", headers={"content-type": None}), 400, 0),
    ("stale-session", lambda _: legacy("initialize", HELLO, {"mcp-session-id": "stale"}), 404, -32600),
    ("no-task-name", lambda _: modern("tasks/get", {"taskId": TASK}, {"mcp-name": None}, meta=TASKS), 400, -32020),
    ("no-task-name", lambda _: modern("tasks/cancel", {"taskId": TASK}, {"mcp-name": None}, meta=TASKS), 400, -32020),
]
ROWS = pytest.mark.parametrize(("name", "make", "status", "code"), QUIRKS, ids=[row[0] for row in QUIRKS])


async def answer_to(make: Callable[[Session], Request], server: ServerSettings) -> Any:
    queue = QueueHere()
    await queue.do(Enqueue(id=TASK, type="echo", tags=[MCP_TAG]), Submitted)
    endpoint = protocol(settings=Settings(server=server), tasks=queue)
    async with endpoint.running():
        return await endpoint.handle(make(await open_session(endpoint, D)))


@ROWS
async def test_a_quirk_is_tolerated_alone(
    name: Quirk, make: Callable[[Session], Request], status: int, code: int
) -> None:
    for server in (ServerSettings(), ServerSettings(quirks=[name])):
        assert (await answer_to(make, server)).status == 200


@ROWS
async def test_a_quirk_is_refused_alone(
    name: Quirk, make: Callable[[Session], Request], status: int, code: int
) -> None:
    for server in (ServerSettings(strict=True), ServerSettings(quirks=[other for other in ALL if other != name])):
        answer = await answer_to(make, server)
        assert answer.status == status
        assert not code or said(answer)["error"]["code"] == code


def test_every_quirk_has_its_rows() -> None:
    assert {row[0] for row in QUIRKS} == set(ALL)
    named = {value for value in vars(quirks).values() if isinstance(value, str) and value in ALL}
    assert named == set(ALL)


def test_a_quirk_that_nobody_knows_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"quirks": ["all"]}, ServerSettings)


def test_the_page_names_every_quirk_in_order() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    section = page.partition("## Quirks of clients")[2].partition("\n## ")[0]
    assert tuple(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)) == ALL


# Quirks without a switch: there is nothing in them that the protocol would refuse.


@pytest.mark.parametrize("strict", [False, True])
async def test_routing_headers_on_legacy_requests_mean_nothing(strict: bool) -> None:
    endpoint = protocol(settings=Settings(server=ServerSettings(strict=strict)))
    session = await open_session(endpoint, D)
    wrong = {"mcp-method": "prompts/get", "mcp-name": "=?base64?!?=", "mcp-param-x": "y"}
    request = legacy("ping", headers=session | wrong, repeated=frozenset({"mcp-method"}))
    assert (await endpoint.handle(request)).status == 200


@pytest.mark.parametrize("strict", [False, True])
async def test_a_client_that_never_starts_again_finds_its_session_after_a_restart(strict: bool) -> None:
    settings = Settings(server=ServerSettings(strict=strict))
    session = await open_session(protocol(settings=settings), D)
    assert (await protocol(settings=settings).handle(legacy("ping", headers=session))).status == 200
