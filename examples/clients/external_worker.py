# SPDX-License-Identifier: AGPL-3.0-or-later
"""A worker of the task queue in a program of its own, over MCP: it registers, claims, works, beats and completes.

Start a server, then this, then hand it work:
GREENROOM_P2P__TASK_QUEUE__TOOLS=true greenroom up
python examples/clients/external_worker.py http://127.0.0.1:8000/mcp
greenroom tools call task_submit task_id=page-1 task_type=count_letters payload='{"text": "a banana"}'
greenroom tools call task_result task_id=page-1

Ctrl-C or SIGTERM: what it holds goes back to the queue.
"""

from __future__ import annotations

import secrets
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import httpx
import trio

Call = Callable[..., Awaitable[dict[str, Any]]]
NAME, TYPE = "letter-counter-1", "count_letters"


async def count_letters(payload: dict[str, Any]) -> dict[str, int]:
    return dict(Counter(payload["text"].replace(" ", "")))


async def serve(call: Call) -> None:
    told = await call("worker_register", worker_id=NAME, capabilities=[TYPE], max_concurrent_tasks=1)
    try:
        while True:
            # Named, so that a repeat after a lost answer gives the same task.
            claimed = await call("task_claim", worker_id=NAME, wait=60, request_id=secrets.token_hex(8))
            for task in claimed["tasks"]:
                await work(call, task, told["heartbeat_interval"])
    finally:
        with trio.move_on_after(10, shield=True):
            await call("worker_unregister", worker_id=NAME, graceful=False)


async def work(call: Call, task: dict[str, Any], beat_s: float) -> None:
    lease = {"task_id": task["task_id"], "fencing_token": task["fencing_token"]}
    how, said = "task_release", {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(beat, call, lease, beat_s, nursery.cancel_scope)
        try:
            how, said = "task_complete", {"result": await count_letters(task["payload"])}
        except Exception as error:  # noqa: BLE001 - whatever it is, the queue is to know
            how, said = "task_fail", {"error": f"{type(error).__name__}: {error}"}
        nursery.cancel_scope.cancel()
    try:
        await call(how, worker_id=NAME, **lease, **said)
    except RefusedError as error:
        print(f"what came of {task['task_id']} does not count: {error}", file=sys.stderr)


async def beat(call: Call, lease: dict[str, Any], beat_s: float, working: trio.CancelScope) -> None:
    """Keep the lease; stop the work when it is lost, or when the task is to be cancelled."""
    while True:
        await trio.sleep(beat_s)
        [said] = (await call("worker_heartbeat", worker_id=NAME, tasks=[lease]))["tasks"]
        if said["cancel_requested"] or said["error_code"]:
            working.cancel()


# --- MCP over HTTP, by hand; any client library does as well ---------------------------------------------------------


class RefusedError(Exception):
    """The tool said no, and would say so again."""


async def call_tool(http: httpx.AsyncClient, url: str, tool: str, **arguments: object) -> dict[str, Any]:
    """A tool's answer. Each of these calls may be repeated, so what passes by itself is waited out."""
    version = "2026-07-28"
    about = {"protocolVersion": version, "clientCapabilities": {}, "clientInfo": {"name": NAME, "version": "1"}}
    meta = {f"io.modelcontextprotocol/{name}": value for name, value in about.items()}
    headers = {"mcp-protocol-version": version, "mcp-method": "tools/call", "mcp-name": tool}
    headers["accept"] = "application/json, text/event-stream"
    params = {"name": tool, "arguments": arguments, "_meta": meta}
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    while True:
        try:
            answer = (await http.post(url, json=request, headers=headers)).json()
        except (httpx.TransportError, ValueError) as error:
            print(f"{tool}: no answer ({error!r}); again in a second", file=sys.stderr)
        else:
            if "error" in answer:
                raise RefusedError(answer["error"]["message"])
            result = answer["result"]
            if not result.get("isError"):
                return result["structuredContent"]
            if not result["_meta"]["greenroom/retryable"]:
                raise RefusedError(result["content"][0]["text"])
        await trio.sleep(1)


async def main(url: str) -> None:
    async with httpx.AsyncClient(timeout=90) as http, trio.open_nursery() as nursery:
        nursery.start_soon(serve, partial(call_tool, http, url))
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                nursery.cancel_scope.cancel()
                return


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/mcp")
