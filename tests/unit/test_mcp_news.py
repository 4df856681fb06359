# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a session hears that had no stream for a while: all that changed since, and not what it knows."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from actors.settings import Settings, StreamsSettings
from actors.tool_messages import Changed
from gateway.mcp.protocol import Protocol
from gateway.mcp.testing import ScriptedBackend, legacy, messages, open_session, protocol, resource, said
from gateway.subscriptions import SubscriptionFile
from gateway.types import Request, Stream

LISTS = ["prompts", "resources", "tools"]
Headers = dict[str, str | None]


class Clock:
    """Of one machine; a second passes when it is told to."""

    def __init__(self) -> None:
        self.ns = 1000 * 10**9

    def __call__(self) -> int:
        return self.ns

    def wall(self) -> float:
        return 1.7e9 + self.ns / 1e9

    def pass_s(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def gateway(clock: Clock, number: int = 1, **fields: Any) -> Protocol:
    backend = ScriptedBackend()
    backend.replace([], [resource("a://1"), resource("t://{x}")])
    return protocol(backend, gateway=number, clock=clock, now=clock.wall, **fields)


async def session_of(endpoint: Protocol, clock: Clock, *uris: str, version: str = "2025-11-25") -> Headers:
    session = await open_session(endpoint, version)
    for uri in uris:
        assert said(await endpoint.handle(legacy("resources/subscribe", {"uri": uri}, session)))["result"] == {}
    clock.pass_s(1)
    return session


async def stream_of(endpoint: Protocol, session: Headers, last_event_id: str | None = None) -> Stream:
    named = {} if last_event_id is None else {"last-event-id": last_event_id}
    stream = await endpoint.handle(Request("GET", {**legacy("x", headers=session).headers, **named}))
    assert isinstance(stream, Stream)
    return stream


async def read(endpoint: Protocol, stream: Stream) -> tuple[list[str], str]:
    """What is on a stream before the next change, in short, and the id of the last event of it; the stream is left."""
    endpoint.changed(Changed(uris=["t://end"]))
    piece = b""
    while not piece.strip(b": \n"):
        piece = await anext(aiter(stream.events))
    await stream.events.aclose()
    *before, end = messages(piece)
    assert end["params"]["uri"] == "t://end"
    ids = [line[4:].decode() for line in piece.split(b"\n") if line.startswith(b"id: ")]
    short = [one["params"]["uri"] if "params" in one else one["method"].split("/")[1] for one in before]
    return sorted(short), ids[-2] if len(ids) > 1 else ""


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
async def test_what_changed_while_there_was_no_stream_comes_first_on_the_next(clock: Clock, version: str) -> None:
    endpoint = gateway(clock)
    async with endpoint.running():
        session = await session_of(endpoint, clock, "a://1", "t://end", version=version)
        endpoint.changed(Changed(uris=["a://1", "t://other"], lists=["tools"]))
        assert (await read(endpoint, await stream_of(endpoint, session)))[0] == ["a://1", "tools"]
        assert (await read(endpoint, await stream_of(endpoint, session)))[0] == []
        endpoint.changed(Changed(lists=["prompts"]))
        assert (await read(endpoint, await stream_of(endpoint, session)))[0] == ["prompts"]


async def test_what_was_sent_and_lost_is_said_again_to_a_client_that_names_what_it_had(clock: Clock) -> None:
    endpoint = gateway(clock)
    async with endpoint.running():
        session = await session_of(endpoint, clock, "a://1", "t://end")
        stream = await stream_of(endpoint, session)
        endpoint.list_changed("tools")
        _, had = await read(endpoint, stream)
        lost = await stream_of(endpoint, session)
        endpoint.changed(Changed(uris=["a://1"], lists=["prompts"]))
        await read(endpoint, lost)
        for _ in range(2):
            assert (await read(endpoint, await stream_of(endpoint, session, had)))[0] == ["a://1", "prompts"]
        assert (await read(endpoint, await stream_of(endpoint, session)))[0] == []


async def test_a_client_that_gets_a_part_of_what_it_missed_gets_all_of_it_the_next_time(clock: Clock) -> None:
    endpoint = gateway(clock)
    async with endpoint.running():
        session = await session_of(endpoint, clock, "a://1")
        endpoint.changed(Changed(uris=["a://1"], lists=["tools", "prompts"]))
        stream = await stream_of(endpoint, session)
        *first, last = (await anext(aiter(stream.events))).split(b"\n\n")[:-1]
        assert len(first) == 2
        assert not any(b"id: " in event for event in first)
        assert last.startswith(b"id: news-1-")


async def test_another_gateway_that_was_there_knows_what_changed(clock: Clock) -> None:
    one, two = gateway(clock, 1), gateway(clock, 2)
    clock.pass_s(60)
    async with one.running(), two.running():
        session = await session_of(one, clock, "t://end")
        stream = await stream_of(one, session)
        for endpoint in (one, two):
            endpoint.list_changed("tools")
        _, had = await read(one, stream)
        clock.pass_s(60)
        for endpoint in (one, two):
            endpoint.list_changed("prompts")
        await two.handle(legacy("resources/subscribe", {"uri": "t://end"}, session))
        # It may have heard of the same change a little later: said once more.
        assert (await read(two, await stream_of(two, session, had)))[0] == ["prompts", "tools"]
        clock.pass_s(60)
        later = had.rpartition("-")[0] + f"-{clock.ns}"
        assert (await read(two, await stream_of(two, session, later)))[0] == []


@pytest.mark.parametrize("names_an_event", [True, False])
async def test_for_a_gateway_that_started_later_everything_may_have_changed(
    clock: Clock, tmp_path: Path, names_an_event: bool
) -> None:
    with closing(SubscriptionFile(tmp_path / "file", 9)) as kept:
        first = gateway(clock, 1, kept=kept)
        async with first.running():
            session = await session_of(first, clock, "a://1", "t://end")
            stream = await stream_of(first, session)
            first.list_changed("tools")
            _, had = await read(first, stream)
        second = gateway(clock, 2, kept=kept)
        async with second.running():
            clock.pass_s(1)
            stream = await stream_of(second, session, had if names_an_event else None)
            assert (await read(second, stream))[0] == ["a://1", *LISTS]
            assert (await read(second, await stream_of(second, session)))[0] == []
            fresh = await session_of(second, clock, "t://end")
            assert (await read(second, await stream_of(second, fresh)))[0] == []


async def test_after_a_restart_of_the_machine_everything_may_have_changed(clock: Clock) -> None:
    endpoint = gateway(clock)
    async with endpoint.running():
        session = await session_of(endpoint, clock, "t://end")
        stream = await stream_of(endpoint, session, f"news-7-{clock.ns + 10**9}")
        assert (await read(endpoint, stream))[0] == LISTS


@pytest.mark.parametrize("name", ["", "news-1", "news-x-1", "7", "news-1-" + "9" * 20, "news-1-²"])
async def test_an_id_that_nobody_gave_is_as_none(clock: Clock, name: str) -> None:
    endpoint = gateway(clock)
    async with endpoint.running():
        session = await session_of(endpoint, clock, "t://end")
        assert (await read(endpoint, await stream_of(endpoint, session, name)))[0] == []


async def test_a_second_stream_does_not_repeat_what_the_first_one_says(clock: Clock) -> None:
    endpoint = gateway(clock)
    async with endpoint.running():
        session = await session_of(endpoint, clock, "t://end")
        first = await stream_of(endpoint, session)
        endpoint.list_changed("tools")
        second = await stream_of(endpoint, session)
        assert [one["method"] for one in messages(await anext(aiter(first.events)))] == [
            "notifications/tools/list_changed"
        ]
        assert (await read(endpoint, second))[0] == []


@pytest.mark.parametrize("news", [[Changed(any_uri=True)], [Changed(uris=["t://1", "t://2", "t://3"])]])
async def test_resources_of_which_nobody_knows_count_as_changed(clock: Clock, news: list[Changed]) -> None:
    endpoint = gateway(clock, settings=Settings(streams=StreamsSettings(max_events=2)))
    async with endpoint.running():
        session = await session_of(endpoint, clock, "a://1", "t://1", "t://end")
        for one in news:
            endpoint.changed(one)
        assert {"a://1", "t://1"} <= set((await read(endpoint, await stream_of(endpoint, session)))[0])
