# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who hears of changes: each only what it asked for, once, and within bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from actors.settings import McpSettings, Settings
from actors.tool_messages import Changed, SessionNote
from gateway.mcp.protocol import Protocol
from gateway.mcp.testing import (
    ScriptedBackend,
    drain,
    legacy,
    messages,
    modern,
    open_session,
    prompt,
    protocol,
    resource,
    said,
)
from gateway.subscriptions import SubscriptionFile
from gateway.types import Request, Stream

LEGACY = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]


def backend_of() -> ScriptedBackend:
    backend = ScriptedBackend()
    backend.replace([], [resource("a://1"), resource("a://2"), resource("t://{x}")], [prompt("p")])
    return backend


def endpoint_of(**limits: int) -> Protocol:
    return protocol(backend_of(), Settings(mcp=McpSettings(**limits)))


class Node:
    """Gateways that keep their subscriptions in one file and tell each other of them."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "subscriptions"
        self.endpoints: list[Protocol] = []

    @asynccontextmanager
    async def gateway(self, most: int = 100) -> AsyncIterator[Protocol]:
        with closing(SubscriptionFile(self.path, most)) as kept:
            endpoint = protocol(backend_of(), siblings=self, kept=kept)
            async with endpoint.running():
                self.endpoints.append(endpoint)
                yield endpoint
                self.endpoints.remove(endpoint)

    async def spread(self, note: SessionNote) -> None:
        for endpoint in self.endpoints:
            await endpoint.take_note(note)


async def listen(endpoint: Protocol, **wanted: object) -> tuple[Stream, dict]:
    """A listen's stream and what was accepted of the wish."""
    answer = await endpoint.handle(modern("subscriptions/listen", {"notifications": wanted}, id="l"))
    assert isinstance(answer, Stream)
    (first,) = messages(await anext(aiter(answer.events)))
    return answer, first["params"]["notifications"]


async def open_stream(endpoint: Protocol, session: dict[str, str | None]) -> Stream:
    headers = {**legacy("x", headers=session).headers, "accept": "text/event-stream"}
    stream = await endpoint.handle(Request("GET", headers))
    assert isinstance(stream, Stream)
    return stream


async def waiting(stream: Stream) -> list[dict]:
    """What waits for the reader."""
    return messages(await anext(aiter(stream.events)))


@pytest.mark.parametrize("kind", ["tools", "prompts", "resources"])
async def test_a_listen_hears_of_the_lists_it_asked_for(kind: str) -> None:
    endpoint = endpoint_of()
    async with endpoint.running():
        stream, accepted = await listen(endpoint, **{f"{kind}ListChanged": True})
        assert accepted == {f"{kind}ListChanged": True}
        for one in ("tools", "prompts", "resources"):
            endpoint.list_changed(one)
            endpoint.list_changed(one)
        (news,) = await waiting(stream)
        assert news["method"] == f"notifications/{kind}/list_changed"
        assert news["params"]["_meta"] == {"io.modelcontextprotocol/subscriptionId": "l"}


async def test_a_listen_hears_of_the_resources_it_named_and_that_exist() -> None:
    endpoint = endpoint_of()
    async with endpoint.running():
        stream, accepted = await listen(
            endpoint, resourceSubscriptions=["a://1", "a://1", "t://any", "nowhere://", "x" * 9999]
        )
        assert accepted == {"resourceSubscriptions": ["a://1", "t://any"]}
        assert endpoint.statistics().subscriptions == 2
        endpoint.changed(Changed(uris=["a://1", "a://2", "t://any", "t://other"]))
        endpoint.changed(Changed(uris=["a://1"]))
        news = await waiting(stream)
        assert [one["params"]["uri"] for one in news] == ["a://1", "t://any"]
        assert {one["method"] for one in news} == {"notifications/resources/updated"}
        await stream.events.aclose()
        assert endpoint.statistics().subscriptions == 0


async def test_more_changes_than_can_be_named_reach_every_subscriber() -> None:
    endpoint = endpoint_of()
    async with endpoint.running():
        stream, _ = await listen(endpoint, resourceSubscriptions=["a://1", "a://2"])
        endpoint.changed(Changed(any_uri=True, lists=["tools"]))
        assert [one["params"]["uri"] for one in await waiting(stream)] == ["a://1", "a://2"]


@pytest.mark.parametrize("version", LEGACY)
async def test_a_session_subscribes_and_unsubscribes(version: str) -> None:
    endpoint = endpoint_of()
    async with endpoint.running():
        session = await open_session(endpoint, version)
        stream = await open_stream(endpoint, session)

        async def send(method: str, uri: str) -> dict:
            return said(await endpoint.handle(legacy(method, {"uri": uri}, session)))

        for _ in range(2):
            assert (await send("resources/subscribe", "a://1"))["result"] == {}
        assert endpoint.statistics().subscriptions == 1
        endpoint.changed(Changed(uris=["a://1", "a://2"]))
        endpoint.list_changed("prompts")
        updated, changed = await waiting(stream)
        assert updated == {
            "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "a://1"},
        }  # fmt: skip
        assert changed["method"] == "notifications/prompts/list_changed"
        for _ in range(2):
            assert (await send("resources/unsubscribe", "a://1"))["result"] == {}
        endpoint.changed(Changed(uris=["a://1"], lists=["resources"]))
        assert [one["method"] for one in await waiting(stream)] == ["notifications/resources/list_changed"]
        error = (await send("resources/subscribe", "nowhere://"))["error"]
        assert (error["code"], error["data"]) == (-32002, {"uri": "nowhere://"})


async def test_a_session_that_ends_takes_its_subscriptions_along() -> None:
    endpoint = endpoint_of()
    async with endpoint.running():
        session = await open_session(endpoint, "2025-11-25")
        await endpoint.handle(legacy("resources/subscribe", {"uri": "a://1"}, session))
        await endpoint.handle(Request("DELETE", legacy("x", headers=session).headers))
        assert endpoint.statistics().subscriptions == 0
        endpoint.changed(Changed(uris=["a://1"]))


async def test_the_subscriptions_of_one_client_are_bounded() -> None:
    endpoint = endpoint_of(max_subscriptions=1)
    async with endpoint.running():
        wanted = {"notifications": {"resourceSubscriptions": ["a://1", "a://2"]}}
        answer = await endpoint.handle(modern("subscriptions/listen", wanted))
        assert (answer.status, said(answer)["error"]["code"]) == (400, -32602)
        session = await open_session(endpoint, "2025-11-25")
        await endpoint.handle(legacy("resources/subscribe", {"uri": "a://1"}, session))
        error = said(await endpoint.handle(legacy("resources/subscribe", {"uri": "a://2"}, session)))["error"]
        assert error["code"] == -32602
        assert error["message"] == "a client may subscribe to 1 resources and tasks at a time"
        assert endpoint.statistics().subscriptions == 1


async def test_the_subscriptions_of_all_clients_are_bounded() -> None:
    endpoint = endpoint_of(max_subscriptions_in_all=2)
    async with endpoint.running():
        stream, _ = await listen(endpoint, resourceSubscriptions=["a://1", "a://2"])
        wanted = {"notifications": {"resourceSubscriptions": ["a://1"]}}
        refused = await endpoint.handle(modern("subscriptions/listen", wanted))
        assert said(refused)["error"]["message"] == "the server has as many subscriptions as it takes; try again later"
        await stream.events.aclose()
        _, accepted = await listen(endpoint, resourceSubscriptions=["a://1"])
        assert accepted == {"resourceSubscriptions": ["a://1"]}


async def test_modern_requests_have_no_subscribe_and_streams_end_in_order() -> None:
    endpoint = endpoint_of()
    async with endpoint.running():
        for method in ("resources/subscribe", "resources/unsubscribe"):
            answer = await endpoint.handle(modern(method, {"uri": "a://1"}))
            assert (answer.status, said(answer)["error"]["code"]) == (404, -32601)
        stream, _ = await listen(endpoint, resourceSubscriptions=["a://1"])
    (end,) = await drain(stream)
    assert end["result"]["resultType"] == "complete"
    assert endpoint.statistics().subscriptions == 0


async def heard(endpoint: Protocol, stream: Stream, *uris: str) -> list[str]:
    """Which of these changes a session is told of."""
    endpoint.changed(Changed(uris=list(uris), lists=["tools"]))  # the list's change comes in any case
    return [one["params"]["uri"] for one in await waiting(stream) if "uri" in one.get("params", {})]


async def test_what_a_session_subscribed_to_outlives_its_gateway(tmp_path: Path) -> None:
    node = Node(tmp_path)
    async with node.gateway() as first:
        session = await open_session(first, "2025-11-25")
        for method, uri in [("subscribe", "a://1"), ("subscribe", "a://2"), ("unsubscribe", "a://1")]:
            await first.handle(legacy(f"resources/{method}", {"uri": uri}, session))
    async with node.gateway() as second:
        stream = await open_stream(second, session)
        assert await heard(second, stream, "a://1", "a://2") == ["a://2"]
        assert second.statistics().subscriptions == 1


async def test_a_session_that_has_no_stream_yet_can_end_what_it_subscribed_to_before(tmp_path: Path) -> None:
    node = Node(tmp_path)
    async with node.gateway() as first:
        session = await open_session(first, "2025-11-25")
        await first.handle(legacy("resources/subscribe", {"uri": "a://1"}, session))
    async with node.gateway() as second:
        await second.handle(legacy("resources/unsubscribe", {"uri": "a://1"}, session))
        stream = await open_stream(second, session)
        assert await heard(second, stream, "a://1") == []


async def test_a_stream_hears_of_what_was_subscribed_to_at_another_gateway(tmp_path: Path) -> None:
    node = Node(tmp_path)
    async with node.gateway() as one, node.gateway() as two:
        session = await open_session(one, "2025-11-25")
        stream = await open_stream(one, session)
        await two.handle(legacy("resources/subscribe", {"uri": "a://1"}, session))
        assert await heard(one, stream, "a://1") == ["a://1"]
        await two.handle(legacy("resources/unsubscribe", {"uri": "a://1"}, session))
        assert await heard(one, stream, "a://1") == []


async def test_nothing_is_kept_of_a_session_that_was_ended(tmp_path: Path) -> None:
    node = Node(tmp_path)
    async with node.gateway() as first:
        session = await open_session(first, "2025-11-25")
        await first.handle(legacy("resources/subscribe", {"uri": "a://1"}, session))
        await first.handle(Request("DELETE", legacy("x", headers=session).headers))
    async with node.gateway() as second:  # it does not know that the session was ended
        stream = await open_stream(second, session)
        assert await heard(second, stream, "a://1") == []


async def test_what_is_kept_is_bounded_and_stale_sessions_go_first(tmp_path: Path) -> None:
    now = 100.0
    with closing(SubscriptionFile(tmp_path / "file", 2, lambda: now)) as kept:
        await kept.add(b"young", "a://1", 300.0)
        await kept.add(b"stale", "a://1", 99.0)
        await kept.add(b"young", "a://2", 300.0)
        assert (await kept.read(b"stale"), await kept.read(b"young")) == (set(), {"a://1", "a://2"})
        await kept.add(b"other", "a://1", 300.0)
        assert (await kept.read(b"young"), await kept.read(b"other")) == ({"a://2"}, {"a://1"})


async def test_a_subscription_that_can_not_be_kept_is_refused_and_streams_open_nevertheless(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node(tmp_path)
    node.path.mkdir()
    async with node.gateway() as endpoint:
        session = await open_session(endpoint, "2025-11-25")
        for method in ("resources/subscribe", "resources/unsubscribe"):
            error = said(await endpoint.handle(legacy(method, {"uri": "a://1"}, session)))["error"]
            assert error["code"] == -32603
            assert "try again later" in error["message"]
        stream = await open_stream(endpoint, session)
        assert await heard(endpoint, stream, "a://1") == []
        assert (await endpoint.handle(Request("DELETE", legacy("x", headers=session).headers))).status == 200
    assert str(node.path) in caplog.text
