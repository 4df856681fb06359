# SPDX-License-Identifier: AGPL-3.0-or-later
"""The peer registry's numbers for Prometheus. They are the registry's own, whichever gateway is asked; what is counted
begins anew when the registry does. No label is a peer's: ids cost nothing, and strangers would make the table grow.

    mcp_p2p_peer_registry_up                  1 when the registry answered this scrape; at 0 the others are left out
    mcp_p2p_peers_connected                   peers with a connection
    mcp_p2p_peers_linked                      of these, Greenroom nodes with which there is a link
    mcp_p2p_peers_known                       peers that are remembered
    mcp_p2p_peers_banned                      peer ids and addresses whose ban holds
    mcp_p2p_peers_turned_away_total           peers that there was no room to remember
    mcp_p2p_peer_latency_seconds{quantile}    pings of connected peers, each a moving average: 0.5 and 1 (the slowest);
                                              left out while none was answered
    mcp_p2p_peer_requests_total{direction}    requests on links that were answered; in: of peers, errors included;
                                              out: of this node, but for those answered with an error
    mcp_p2p_peer_requests_busy_total          requests of peers beyond what is worked on at once
    mcp_p2p_peer_bytes_total{direction}       bytes on links; direction: in, out
    mcp_p2p_peer_links_ended_total{cause}     links that ended; cause: closed, ended, lost, silent, violation, ...
    mcp_p2p_peer_tool_calls_total{way}        tools called by peers that may; way: link, mcp, queue (the protocol of
                                              older nodes)
    mcp_p2p_peer_refused_total{error_type}    what peers were refused, by error code
    mcp_p2p_peer_tasks{direction}             tasks that are with peers now (given), and theirs that run here (taken)
    mcp_p2p_peer_tasks_given_total{outcome}   accepted (by a peer), and how those ended: completed, failed, lost, lied,
                                              given_back, cancelled; not_accepted: no peer took it
    mcp_p2p_peer_tasks_taken_total{outcome}   offers of peers: accepted, refused; and of the accepted: told, dropped
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from actors.peer_messages import GIVEN, TAKEN, NodeShown
from gateway.asked_metrics import AskedMetrics, Family, labelled


class PeerMetrics(AskedMetrics[NodeShown]):
    """What the peer registry says of this node."""

    def __init__(self, ask: Callable[[], Awaitable[NodeShown]]) -> None:
        """`ask` raises `MCPServerError` when there is no peer registry."""
        super().__init__(ask, ("mcp_p2p_peer_registry_up", "Whether the peer registry answered"), _families)


def _families(node: NodeShown) -> Iterable[Family]:
    yield GaugeMetricFamily("mcp_p2p_peers_connected", "Peers with a connection", value=node.connected)
    yield GaugeMetricFamily("mcp_p2p_peers_linked", "Greenroom nodes with a link", value=node.linked)
    yield GaugeMetricFamily("mcp_p2p_peers_known", "Peers that are remembered", value=node.known)
    yield GaugeMetricFamily("mcp_p2p_peers_banned", "Peer ids and addresses whose ban holds", value=node.bans)
    yield CounterMetricFamily("mcp_p2p_peers_turned_away", "Peers without a place", value=node.turned_away)
    took = {"0.5": node.latency_s, "1": node.latency_most_s}
    measured = {quantile: seconds for quantile, seconds in took.items() if seconds is not None}
    yield labelled("mcp_p2p_peer_latency_seconds", "Pings of connected peers", "quantile", measured)
    links = node.links
    yield _counter(
        "mcp_p2p_peer_requests",
        "Answered requests on links",
        "direction",
        {"in": links.answered, "out": links.asked},
    )
    yield CounterMetricFamily("mcp_p2p_peer_requests_busy", "Requests of peers beyond the limit", value=links.busy)
    yield _counter("mcp_p2p_peer_bytes", "Bytes on links", "direction", {"in": links.bytes_in, "out": links.bytes_out})
    yield _counter("mcp_p2p_peer_links_ended", "Links that ended", "cause", links.endings)
    yield _counter("mcp_p2p_peer_tool_calls", "Tools called by peers", "way", node.tool_calls)
    yield _counter("mcp_p2p_peer_refused", "What peers were refused", "error_type", node.refused)
    yield labelled(
        "mcp_p2p_peer_tasks", "Tasks between nodes now", "direction", {"given": node.sent, "taken": node.running}
    )
    given = {outcome: node.given.get(outcome, 0) for outcome in GIVEN}
    yield _counter("mcp_p2p_peer_tasks_given", "What became of tasks for peers", "outcome", given)
    taken = {outcome: node.taken.get(outcome, 0) for outcome in TAKEN}
    yield _counter("mcp_p2p_peer_tasks_taken", "What became of tasks of peers", "outcome", taken)


def _counter(name: str, text: str, label: str, counts: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family
