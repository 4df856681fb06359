# SPDX-License-Identifier: AGPL-3.0-or-later
"""Clients that know MCP tasks, one for each revision that has them; with the same methods."""

from __future__ import annotations

import json
import queue
import threading

import httpx
from running import META, MODERN, wait_until

TASKS = "io.modelcontextprotocol/tasks"
RELATED = "io.modelcontextprotocol/related-task"
CAN = {"elicitation": {"form": {}}, "extensions": {TASKS: {}}}


class Modern:
    """A client of 2026-07-28."""

    def __init__(self, tree):
        self.url = f"{tree.url}/mcp"

    def ask(self, method, **params):
        meta = META | {"io.modelcontextprotocol/clientCapabilities": CAN}
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": meta, **params}}
        headers = MODERN | {"mcp-method": method, "mcp-name": params.get("name") or params.get("taskId", "")}
        answer = httpx.post(self.url, json=body, headers=headers, timeout=60).json()
        assert "result" in answer, answer
        return answer["result"]

    def task(self, name, /, **arguments):
        made = self.ask("tools/call", name=name, arguments=arguments)
        assert made["resultType"] == "task"
        return made["taskId"]

    def get(self, task_id):
        return self.ask("tasks/get", taskId=task_id)

    def status(self, task_id):
        return self.get(task_id)["status"]

    def result(self, task_id):
        """The result, once it is there."""
        return wait_until(lambda: self.get(task_id).get("result"), 60, f"the result of {task_id}")

    def answer(self, task_id, answer):
        assert list(self.get(task_id)["inputRequests"]) == ["name"]
        self.ask("tasks/update", taskId=task_id, inputResponses={"name": answer})


class Session:
    """A client of 2025-11-25."""

    def __init__(self, tree):
        self.url = f"{tree.url}/mcp"
        self.headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        params = {"protocolVersion": "2025-11-25", "capabilities": CAN, "clientInfo": {"name": "t", "version": "1"}}
        answer = self.post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
        self.headers |= {"mcp-session-id": answer.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
        self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def post(self, body):
        return httpx.post(self.url, json=body, headers=self.headers, timeout=60)

    def ask(self, method, **params):
        answer = self.post({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).json()
        assert "result" in answer, answer
        return answer["result"]

    def task(self, name, /, **arguments):
        return self.ask("tools/call", name=name, arguments=arguments, task={"ttl": 60_000})["task"]["taskId"]

    def status(self, task_id):
        return self.ask("tasks/get", taskId=task_id)["status"]

    def waiting(self, task_id):
        """An open request for the result."""
        body = {"jsonrpc": "2.0", "id": 2, "method": "tasks/result", "params": {"taskId": task_id}}
        return Reader(self.url, self.headers, body)

    def result(self, task_id):
        *_, last = iter(self.waiting(task_id).next, None)
        assert last["result"]["_meta"].pop(RELATED) == {"taskId": task_id}
        return last["result"]

    def answer(self, task_id, answer):
        reader = self.waiting(task_id)
        question = reader.next()
        assert question["params"]["_meta"] == {RELATED: {"taskId": task_id}}
        assert self.post({"jsonrpc": "2.0", "id": question["id"], "result": answer}).status_code == 202
        *_, last = iter(reader.next, None)
        assert "result" in last, last


class Reader:
    """Reads one answer in a thread."""

    def __init__(self, url, headers, body):
        self.messages = queue.Queue()
        threading.Thread(target=self._read, args=(url, headers, body), daemon=True).start()

    def next(self):
        """The next message; None at the end."""
        return self.messages.get(timeout=60)

    def _read(self, url, headers, body):
        try:
            with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as answer:
                for line in answer.iter_lines():
                    if line.startswith(("data: {", "{")):
                        self.messages.put(json.loads(line.removeprefix("data: ")))
        except httpx.HTTPError:
            pass  # the connection ended with its gateway
        self.messages.put(None)
