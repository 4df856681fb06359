# SPDX-License-Identifier: AGPL-3.0-or-later
"""Resources and prompts of a user's file, through the whole tree and in every revision, while processes die."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager

import httpx
import pytest
from running import META, MODERN, NO_SPARES, McpClient, started, wait_until

pytestmark = pytest.mark.process

LEGACY = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]
NEVER_TIRED = {
    "GREENROOM_SUPERVISOR__RESTARTS": "1000",
    "GREENROOM_SUPERVISOR__BACKOFF_FIRST_S": "0.01",
    "GREENROOM_SUPERVISOR__BACKOFF_CAP_S": "0.05",
}
"""These tests kill the pool more often than a group usually bears."""
SHELF = '''
from typing import Literal

from actors.toolkit import NotFoundError, PromptMessage, TextContent, Icon, ToolContext, prompt, resource, tool

BOOKS = {1: "Emma", 2: "Dracula"}


@tool(icons=[Icon("https://example.com/i.png")])
def rename(ctx: ToolContext, number: int, title: str) -> str:
    """Rename a book."""
    ctx.resource_changed(f"shelf://{number}")
    return title


@resource("shelf://all", mime_type="text/csv", size=10)
def all_books() -> str:
    """All books."""
    return "EDITION"


@resource("shelf://cover")
async def cover() -> bytes:
    """A picture."""
    return b"\\x89PNG"


@resource("shelf://{number}", complete={"number": lambda value: [n for n in map(str, BOOKS) if n.startswith(value)]})
async def book(ctx: ToolContext, number: int) -> str:
    """One book."""
    ctx.progress(1, 2, "reading")
    if number not in BOOKS:
        raise NotFoundError(f"there is no book {number}")
    return BOOKS[number]


@prompt()
def review(title: str, tone: Literal["kind", "strict"] = "kind") -> list[PromptMessage]:
    """Ask for a review.

    Args:
        title: Of the book.
    """
    return [PromptMessage.user(f"Review {title}, be {tone}."), PromptMessage.assistant(TextContent("Gladly."))]
'''
BROKEN = '''
from actors.toolkit import resource


@resource("shelf://{a}/{b}")
def half(a: str) -> str:
    """Knows only one of its variables."""
    return a
'''


def write(folder, edition: str = "first") -> None:
    (folder / "shelf.py").write_text(SHELF.replace("EDITION", edition))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    place = tmp_path_factory.mktemp("shelf")
    folder = place / "mine"
    folder.mkdir()
    write(folder)
    (folder / "broken.py").write_text(BROKEN)
    with started(place / "data", "--tools", str(folder), env=NO_SPARES | NEVER_TIRED) as running:
        running.folder = folder
        yield running


class Client:
    """One client at one revision."""

    def __init__(self, url: str, version: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=10)
        self.version = version
        self.headers = {"content-type": "application/json", "accept": MODERN["accept"]}
        if version != "2026-07-28":
            hello = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
            answer = self.post("initialize", hello)
            self.headers |= {"mcp-session-id": answer.headers["mcp-session-id"], "mcp-protocol-version": version}

    def post(self, method: str, params: dict) -> httpx.Response:
        headers = dict(self.headers)
        if self.version == "2026-07-28":
            params = params | {"_meta": META}
            headers |= MODERN | {"mcp-method": method}
            if method in {"resources/read", "prompts/get", "tools/call"}:
                headers["mcp-name"] = params.get("name") or params["uri"]
        return self.http.post(
            "/mcp", json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, headers=headers
        )

    def ask(self, method: str, **params) -> dict:
        answer = self.post(method, params).json()
        assert "result" in answer, answer
        return answer["result"]

    def error(self, method: str, **params) -> dict:
        return self.post(method, params).json()["error"]

    @contextmanager
    def listening(self, **wanted):
        """Messages of a listen, or of a session's GET stream."""
        if self.version == "2026-07-28":
            body = {
                "jsonrpc": "2.0",
                "id": 9,
                "method": "subscriptions/listen",
                "params": {"notifications": wanted, "_meta": META},
            }
            headers = MODERN | {"mcp-method": "subscriptions/listen"}
            how = self.http.stream("POST", "/mcp", json=body, headers=headers)
        else:
            how = self.http.stream("GET", "/mcp", headers=self.headers | {"accept": "text/event-stream"})
        with how as answer:
            assert answer.status_code == 200, answer.read()
            yield (json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: {"))


@pytest.fixture(params=[*LEGACY, "2026-07-28"])
def client(request, tree):
    one = Client(tree.url, request.param)
    yield one
    one.http.close()


def test_what_is_declared_is_listed(client):
    resources = {one["uri"]: one for one in client.ask("resources/list")["resources"]}
    assert set(resources) == {"shelf://all", "shelf://cover"}
    listed = resources["shelf://all"]
    assert (listed["name"], listed["mimeType"], listed["size"], listed["description"]) == (
        "all_books", "text/csv", 10, "All books.",
    )  # fmt: skip
    (template,) = client.ask("resources/templates/list")["resourceTemplates"]
    assert template["uriTemplate"] == "shelf://{number}"
    (prompt,) = client.ask("prompts/list")["prompts"]
    assert prompt["arguments"] == [
        {"name": "title", "description": "Of the book.", "required": True},
        {"name": "tone", "required": False},
    ]


def test_resources_are_read(client):
    assert client.ask("resources/read", uri="shelf://all")["contents"][0]["text"] in {"first", "second"}
    (cover,) = client.ask("resources/read", uri="shelf://cover")["contents"]
    assert (cover["blob"], cover["mimeType"]) == ("iVBORw==", "application/octet-stream")
    assert client.ask("resources/read", uri="shelf://2")["contents"] == [
        {"uri": "shelf://2", "mimeType": "text/plain", "text": "Dracula"}
    ]


@pytest.mark.parametrize(("uri", "known"), [("nowhere://", False), ("shelf://7", False), ("shelf://x", True)])
def test_what_is_not_there_has_its_code(client, uri, known):
    error = client.error("resources/read", uri=uri)
    assert error["data"]["uri"] == uri
    assert error["code"] == (-32602 if known or client.version == "2026-07-28" else -32002)


def test_prompts_are_filled_in(client):
    messages = client.ask("prompts/get", name="review", arguments={"title": "Emma", "tone": "strict"})["messages"]
    assert messages == [
        {"role": "user", "content": {"type": "text", "text": "Review Emma, be strict."}},
        {"role": "assistant", "content": {"type": "text", "text": "Gladly."}},
    ]
    assert client.error("prompts/get", name="review")["code"] == -32602
    assert (
        "choose one of" in client.error("prompts/get", name="review", arguments={"title": "a", "tone": "b"})["message"]
    )
    assert client.error("prompts/get", name="none")["code"] == -32602


def test_arguments_and_variables_are_completed(client):
    def complete(ref, name, value):
        return client.ask("completion/complete", ref=ref, argument={"name": name, "value": value})["completion"]

    prompt, template = {"type": "ref/prompt", "name": "review"}, {"type": "ref/resource", "uri": "shelf://{number}"}
    assert complete(prompt, "tone", "S") == {"values": ["strict"], "total": 1}
    assert complete(prompt, "title", "x") == {"values": []}
    assert complete(template, "number", "") == {"values": ["1", "2"], "total": 2}


def test_a_dead_pool_costs_a_reader_a_short_wait(tree, client):
    tree.kill("tools.general#0")
    assert client.ask("resources/read", uri="shelf://1")["contents"][0]["text"] == "Emma"
    tree.kill("tools.general#0")
    assert client.ask("prompts/get", name="review", arguments={"title": "x"})["messages"]


def test_a_change_reaches_those_who_subscribed(tree, client):
    with McpClient(tree.url) as other:
        if client.version != "2026-07-28":
            assert client.ask("resources/subscribe", uri="shelf://2") == {}
            assert client.error("resources/subscribe", uri="nowhere://")["code"] == -32002
        with client.listening(resourceSubscriptions=["shelf://2", "nowhere://"]) as messages:
            if client.version == "2026-07-28":
                assert next(messages)["params"]["notifications"] == {"resourceSubscriptions": ["shelf://2"]}
            other.call("rename", number=1, title="x")
            other.call("rename", number=2, title="x")
            news = next(messages)
            assert (news["method"], news["params"]["uri"]) == ("notifications/resources/updated", "shelf://2")
        if client.version != "2026-07-28":
            assert client.ask("resources/unsubscribe", uri="shelf://2") == {}


def test_a_new_list_is_announced(tree, client):
    # The next router has to be believed as the one before.
    tree.wait_ready("router", tree.kill("router"))
    text = (tree.folder / "shelf.py").read_text()
    changed = (
        text.replace("Ask for a review.", "Ask for a kind review.")
        if "kind review." not in text
        else text.replace("Ask for a kind review.", "Ask for a review.")
    )
    with client.listening(promptsListChanged=True) as messages:
        if client.version == "2026-07-28":
            next(messages)
        (tree.folder / "shelf.py").write_text(changed)
        tree.kill("tools.general#0")
        assert next(messages)["method"] == "notifications/prompts/list_changed"
    assert ("kind review." in client.ask("prompts/list")["prompts"][0]["description"]) == ("kind review." in changed)


def test_the_command_line_lists_reads_and_gets(tree):
    listed = tree.run("resources", "list").stdout
    assert "shelf://all" in listed
    assert "shelf://{a}/{b}" in listed
    assert "broken" in listed
    assert tree.run("resources", "read", "shelf://2").stdout == "Dracula\n"
    assert "review(title, tone?)" in tree.run("prompts", "list").stdout
    assert "Review Emma, be kind." in tree.run("prompts", "get", "review", "title=Emma").stdout
    missing = tree.run("resources", "read", "shelf://al", check=False)
    assert missing.returncode == 1
    assert "NOT_FOUND" in missing.stderr or "INVALID_ARGUMENTS" in missing.stderr


def test_a_session_goes_on_after_the_gateways_death(tree):
    client = Client(tree.url, "2025-11-25")
    tree.wait_ready("gateway", tree.kill("gateway"))
    text = wait_until(lambda: client.ask("resources/read", uri="shelf://1"), 10, "an answer of the next gateway")
    client.http.close()
    assert text["contents"][0]["text"] == "Emma"


def test_a_session_hears_what_changed_while_its_gateway_was_replaced(tree):
    client = Client(tree.url, "2025-11-25")
    assert client.ask("resources/subscribe", uri="shelf://2") == {}
    tree.wait_ready("gateway", tree.kill("gateway"))
    client.http.close()
    client.http = httpx.Client(base_url=tree.url, timeout=10)
    with client.listening() as messages:
        # The new gateway can't know what changed before it was there, so it names all that the session asked for.
        missed = [next(messages) for _ in range(4)]
        assert {one["method"] for one in missed} == {
            *(f"notifications/{kind}/list_changed" for kind in ("tools", "resources", "prompts")),
            "notifications/resources/updated",
        }
        with McpClient(tree.url) as other:
            for number in (1, 2):
                other.call("rename", number=number, title="x")
        updated = next(messages)
        assert (updated["method"], updated["params"]["uri"]) == ("notifications/resources/updated", "shelf://2")
    with McpClient(tree.url) as other:
        other.call("rename", number=2, title="x")
    with client.listening() as messages:
        assert next(messages)["params"]["uri"] == "shelf://2"
    client.http.close()


def test_a_subscription_is_known_to_every_gateway(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    write(folder)
    numbers = range(8)
    env = {"GREENROOM_SERVER__GATEWAYS": "2"}
    with started(tmp_path / "data", "--tools", str(folder), env=env) as tree:
        client = Client(tree.url, "2025-11-25")
        with client.listening() as messages, McpClient(tree.url) as other:
            for number in numbers:
                with httpx.Client(base_url=tree.url, timeout=10) as connection:  # the kernel chooses the gateway
                    params = {"uri": f"shelf://{number}"}
                    body = {"jsonrpc": "2.0", "id": 1, "method": "resources/subscribe", "params": params}
                    assert connection.post("/mcp", json=body, headers=client.headers).json()["result"] == {}
            for number in numbers:
                other.call("rename", number=number, title="x")
            assert {next(messages)["params"]["uri"] for _ in numbers} == {f"shelf://{number}" for number in numbers}
        client.http.close()


def test_news_reach_the_clients_of_every_gateway(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    write(folder)
    env = {"GREENROOM_SERVER__GATEWAYS": "2"}
    with started(tmp_path / "data", "--tools", str(folder), env=env) as tree, ExitStack() as stack:
        streams = []
        for _ in range(8):
            client = Client(tree.url, "2026-07-28")
            stack.callback(client.http.close)
            messages = stack.enter_context(client.listening(resourceSubscriptions=["shelf://1"]))
            next(messages)
            streams.append(messages)
        with McpClient(tree.url) as other:
            other.call("rename", number=1, title="x")
        assert {next(messages)["params"]["uri"] for messages in streams} == {"shelf://1"}
