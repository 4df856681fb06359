# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the gateway counts, and how it is shown to Prometheus.

The hot path adds to plain numbers; names, labels and text are made when somebody scrapes. The label `tool` takes only
names from the catalogue, or the method for what is no tool (`resources/read`, ...), so strangers can't grow the table.
Counts are those of one gateway process since its start; those of the task queue are in
`gateway/task_metrics.py`, those of workflows in `gateway/workflow_metrics.py`, those of peers in
`gateway/peer_metrics.py`.

    mcp_runtime_active{runtime}                     1 while at least one actor of the runtime is ready
    mcp_tool_execution_total{runtime,tool,status}   status: success, error (the tool's own), or failed (never finished)
    mcp_tool_execution_duration_ms{runtime,tool}    histogram of finished calls, milliseconds
    mcp_runtime_errors_total{runtime,error_type}    calls that failed, by error code
    mcp_calls_in_flight                             calls running now
    mcp_actor_restarts_total{actor}                 lives after the first, of each process of the tree
    mcp_actor_exits_total{actor,cause}              ends of lives that nobody asked for; cause: killed, hung, limit, ...
    mcp_quarantined_calls                           tool and arguments that are refused because they end processes
    mcp_breakers_open{tool}                         1 while a tool is refused, or tried again, because it ends processes
    mcp_http_requests_total{way,status}             way: fast, handed
    mcp_http_connections_total, mcp_http_connections_open, mcp_http_handovers_total
    mcp_http_clients_gone_total                     clients that left during their call, seen by the fast lane
    mcp_http_connection_errors_total                handed-over connections that ended by an error
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable

import trio
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from actors.catalogue_view import CatalogueView
from actors.errors import MCPServerError, code_of
from actors.messages import DirectoryEntry, Marks, State
from actors.tool_messages import ToolCall, ToolItem, ToolResult
from gateway.asked_metrics import Family
from gateway.peer_metrics import PeerMetrics
from gateway.task_metrics import TaskMetrics
from gateway.types import Backend, Respondent, TreeStatus
from gateway.workflow_metrics import WorkflowMetrics

BUCKETS_MS = (1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0, 30000.0, 60000.0)
UNKNOWN = "(unknown)"
"""Stands for every tool name, and runtime, that is not in the catalogue."""


class _ToolCounts:
    """The numbers of one tool."""

    __slots__ = ("buckets", "by_status", "sum_ms")

    def __init__(self) -> None:
        self.by_status = {"success": 0, "error": 0, "failed": 0, "input_required": 0, "task": 0}
        self.buckets = [0] * (len(BUCKETS_MS) + 1)
        self.sum_ms = 0.0


class Metrics(Collector):
    """One gateway's counts, in a registry of its own. `text` is what `/metrics` answers."""

    def __init__(self) -> None:
        self.connections_opened = 0
        self.connections_closed = 0
        self.handovers = 0
        self.clients_gone = 0
        self.connection_errors = 0
        self.calls_in_flight = 0
        self.tree_status: TreeStatus | None = None
        """Where `mcp_runtime_active` comes from; set by whoever has it."""
        self.marks: Callable[[], Marks] = Marks
        """What the root says of calls that end processes; set by whoever hears it."""
        self.tasks: TaskMetrics | None = None
        """What the task queue counts; set by whoever can ask it."""
        self.workflows: WorkflowMetrics | None = None
        """What the workflow scheduler counts; set by whoever can ask it."""
        self.peers: PeerMetrics | None = None
        """What the peer registry counts; set by whoever can ask it."""
        self._requests: defaultdict[tuple[str, int], int] = defaultdict(int)
        self._tools: defaultdict[tuple[str, str], _ToolCounts] = defaultdict(_ToolCounts)
        self._errors: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def count_request(self, way: str, status: int) -> None:
        """One HTTP request was answered."""
        self._requests[way, status] += 1

    def connection_failed(self) -> None:
        """A handed-over connection ended by an error."""
        self.connection_errors += 1

    def tool_finished(self, runtime: str, tool: str, status: str, duration_ms: float) -> None:
        """A tool ran to its end; `status` is `success` or `error`; or to a question, `input_required`; or
        to where its call became a `task`."""
        counts = self._tools[runtime, tool]
        counts.by_status[status] += 1
        counts.buckets[bisect_left(BUCKETS_MS, duration_ms)] += 1
        counts.sum_ms += duration_ms

    def tool_failed(self, runtime: str, tool: str, code: str) -> None:
        """A call did not reach its end."""
        self._tools[runtime, tool].by_status["failed"] += 1
        self._errors[runtime, code] += 1

    async def fresh_text(self) -> bytes:
        """As `text`, with what the task queue, the workflow scheduler and the peer registry say now."""
        async with trio.open_nursery() as nursery:
            for asked in (self.tasks, self.workflows, self.peers):
                if asked is not None:
                    nursery.start_soon(asked.refresh)
        return self.text()

    def text(self) -> bytes:
        """The counts in Prometheus's text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Family]:
        """The families, for the registry."""
        yield from self._tool_families()
        yield from self._http_families()
        yield from _mark_families(self.marks())
        if self.tasks is not None:
            yield from self.tasks.families()
        if self.workflows is not None:
            yield from self.workflows.families()
        if self.peers is not None:
            yield from self.peers.families()
        if self.tree_status is not None:
            active = GaugeMetricFamily(
                "mcp_runtime_active", "Whether the runtime has a ready actor", labels=["runtime"]
            )
            for runtime, ready in runtimes_active(self.tree_status()[1]).items():
                active.add_metric([runtime], int(ready))
            yield active
            restarts = CounterMetricFamily("mcp_actor_restarts", "Lives after the first", labels=["actor"])
            for entry in self.tree_status()[1]:
                restarts.add_metric([entry.name], entry.restarts)
            yield restarts
            exits = CounterMetricFamily("mcp_actor_exits", "Ends that nobody asked for", labels=["actor", "cause"])
            for entry in self.tree_status()[1]:
                for cause, count in sorted(entry.exits.items()):
                    exits.add_metric([entry.name, cause], count)
            yield exits

    def _tool_families(self) -> Iterable[Family]:
        total = CounterMetricFamily("mcp_tool_execution", "Tool calls", labels=["runtime", "tool", "status"])
        took = HistogramMetricFamily(
            "mcp_tool_execution_duration_ms", "Duration of finished tool calls (ms)", labels=["runtime", "tool"]
        )
        for (runtime, tool), counts in sorted(self._tools.items()):
            for status, count in counts.by_status.items():
                total.add_metric([runtime, tool, status], count)
            took.add_metric([runtime, tool], _cumulative(counts.buckets), counts.sum_ms)
        errors = CounterMetricFamily("mcp_runtime_errors", "Failed calls", labels=["runtime", "error_type"])
        for (runtime, code), count in sorted(self._errors.items()):
            errors.add_metric([runtime, code], count)
        yield total
        yield took
        yield errors
        yield GaugeMetricFamily("mcp_calls_in_flight", "Calls running now", value=self.calls_in_flight)

    def _http_families(self) -> Iterable[Family]:
        requests = CounterMetricFamily("mcp_http_requests", "Answered HTTP requests", labels=["way", "status"])
        for (way, status), count in sorted(self._requests.items()):
            requests.add_metric([way, str(status)], count)
        yield requests
        yield CounterMetricFamily("mcp_http_connections", "Accepted connections", value=self.connections_opened)
        yield GaugeMetricFamily(
            "mcp_http_connections_open", "Open connections", value=self.connections_opened - self.connections_closed
        )
        yield CounterMetricFamily("mcp_http_handovers", "Connections given to hypercorn", value=self.handovers)
        yield CounterMetricFamily("mcp_http_clients_gone", "Clients that left early", value=self.clients_gone)
        yield CounterMetricFamily("mcp_http_connection_errors", "Failed connections", value=self.connection_errors)


def _mark_families(marks: Marks) -> Iterable[Family]:
    yield GaugeMetricFamily("mcp_quarantined_calls", "Calls that are refused for good", value=len(marks.quarantined))
    breakers = GaugeMetricFamily("mcp_breakers_open", "Tools that are refused for a while", labels=["tool"])
    for breaker in marks.breakers:
        breakers.add_metric([breaker.tool], 1)
    yield breakers


def _cumulative(buckets: list[int]) -> list[tuple[str, float]]:
    rows: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip([*(str(bound) for bound in BUCKETS_MS), "+Inf"], buckets, strict=True):
        total += count
        rows.append((bound, total))
    return rows


def runtimes_active(entries: list[DirectoryEntry]) -> dict[str, bool]:
    """Runtime -> whether one of its actors is ready. Tool pools are general; groups `durable` and `p2p` are p2p."""
    ready = [entry for entry in entries if entry.state is State.READY]
    return {
        "general": any(entry.name.startswith("tools.") for entry in ready),
        "p2p": any(entry.group in {"durable", "p2p"} for entry in ready),
    }


class MeteredBackend:
    """A backend whose calls are counted. Both MCP and REST call through one of these."""

    def __init__(self, backend: Backend, metrics: Metrics) -> None:
        self._backend = backend
        self._metrics = metrics

    @property
    def catalogue(self) -> CatalogueView:
        """The backend's tools."""
        return self._backend.catalogue

    async def call(
        self,
        call: ToolCall,
        *,
        timeout_s: float,
        on_item: Callable[[ToolItem], object] | None = None,
        respondent: Respondent | None = None,
    ) -> ToolResult:
        """Run one tool and count it. Raises what the backend raises."""
        metrics = self._metrics
        if type(call) is ToolCall:
            tool = self._backend.catalogue.get(call.name)
            runtime, name = (tool.runtime, tool.name) if tool is not None else (UNKNOWN, UNKNOWN)
        else:
            offered = self._backend.catalogue.of(call)
            runtime, name = offered.runtime if offered is not None else UNKNOWN, call.METHOD
        metrics.calls_in_flight += 1
        began = time.perf_counter()
        try:
            result = await self._backend.call(call, timeout_s=timeout_s, on_item=on_item, respondent=respondent)
        except MCPServerError as error:
            metrics.tool_failed(runtime, name, code_of(error))
            raise
        except trio.Cancelled:
            if respondent is not None and respondent.wants_input:
                metrics.tool_finished(runtime, name, "input_required", (time.perf_counter() - began) * 1000)
            elif respondent is not None and respondent.became_task:
                metrics.tool_finished(runtime, name, "task", (time.perf_counter() - began) * 1000)
            else:
                metrics.tool_failed(runtime, name, "CANCELLED")
            raise
        except BaseException:
            metrics.tool_failed(runtime, name, "INTERNAL")
            raise
        finally:
            metrics.calls_in_flight -= 1
        status = "error" if result.is_error else "success"
        metrics.tool_finished(runtime, name, status, (time.perf_counter() - began) * 1000)
        return result
