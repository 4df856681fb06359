# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the gateway shows of the peer registry. That a scrape waits for it no longer than is right, and asks it once, is
the same as for the task queue (`test_task_metrics.py`)."""

from __future__ import annotations

import pytest
from peer_books import Clock, book_of, peer

from actors.errors import RuntimeUnavailableError
from actors.p2p.peer_registry.node_face import latencies
from actors.peer_messages import GIVEN, TAKEN, LinkCounts, NodeShown
from gateway.metrics import Metrics
from gateway.peer_metrics import PeerMetrics


def node(**more):
    given = {
        "peer_id": peer(0),
        "addresses": [],
        "known": 9,
        "connected": 3,
        "linked": 2,
        "bans": 1,
        "turned_away": 4,
        "refused": {"FORBIDDEN": 5},
        "sent": 6,
        "running": 7,
        "links": LinkCounts(asked=11, answered=12, busy=13, bytes_in=14, bytes_out=15, endings={"lost": 2}),
        "tool_calls": {"link": 16, "mcp": 17},
        "given": {"accepted": 20, "lost": 3},
        "taken": {"refused": 8},
        "latency_s": 0.25,
        "latency_most_s": 0.5,
    }
    return NodeShown(**(given | more))


async def lines(answer):
    async def ask():
        if isinstance(answer, Exception):
            raise answer
        return answer

    metrics = Metrics()
    metrics.peers = PeerMetrics(ask)
    return [line for line in (await metrics.fresh_text()).decode().splitlines() if line.startswith("mcp_p2p")]


async def test_the_numbers_of_the_registry_are_shown_under_their_names():
    shown = set(await lines(node()))
    assert {
        "mcp_p2p_peer_registry_up 1.0",
        "mcp_p2p_peers_connected 3.0",
        "mcp_p2p_peers_linked 2.0",
        "mcp_p2p_peers_known 9.0",
        "mcp_p2p_peers_banned 1.0",
        "mcp_p2p_peers_turned_away_total 4.0",
        'mcp_p2p_peer_latency_seconds{quantile="0.5"} 0.25',
        'mcp_p2p_peer_latency_seconds{quantile="1"} 0.5',
        'mcp_p2p_peer_requests_total{direction="in"} 12.0',
        'mcp_p2p_peer_requests_total{direction="out"} 11.0',
        "mcp_p2p_peer_requests_busy_total 13.0",
        'mcp_p2p_peer_bytes_total{direction="in"} 14.0',
        'mcp_p2p_peer_bytes_total{direction="out"} 15.0',
        'mcp_p2p_peer_links_ended_total{cause="lost"} 2.0',
        'mcp_p2p_peer_tool_calls_total{way="link"} 16.0',
        'mcp_p2p_peer_tool_calls_total{way="mcp"} 17.0',
        'mcp_p2p_peer_refused_total{error_type="FORBIDDEN"} 5.0',
        'mcp_p2p_peer_tasks{direction="given"} 6.0',
        'mcp_p2p_peer_tasks{direction="taken"} 7.0',
    } <= shown
    assert 'mcp_p2p_peer_tasks_given_total{outcome="lost"} 3.0' in shown
    assert 'mcp_p2p_peer_tasks_taken_total{outcome="refused"} 8.0' in shown
    for name, outcomes in (("given", GIVEN), ("taken", TAKEN)):
        told = {line for line in shown if line.startswith(f"mcp_p2p_peer_tasks_{name}_total")}
        assert len(told) == len(outcomes), "each outcome is there from the beginning"


async def test_what_was_not_measured_is_left_out():
    shown = await lines(node(latency_s=None, latency_most_s=None))
    assert not [line for line in shown if "latency" in line]


async def test_no_label_is_made_of_what_strangers_say():
    assert not [line for line in await lines(node()) if peer(0) in line]


@pytest.mark.parametrize("answer", [RuntimeUnavailableError("off")])
async def test_without_a_registry_only_that_is_shown(answer):
    assert await lines(answer) == ["mcp_p2p_peer_registry_up 0.0"]


def test_latencies_are_those_of_the_peers_that_answered():
    book = book_of(Clock())
    for number, seconds in ((1, 0.5), (2, None), (3, 0.25)):
        book.seen(peer(number))
        book.latency(peer(number), seconds)
    assert latencies(book, [peer(1), peer(2), peer(9)]) == [0.5]
