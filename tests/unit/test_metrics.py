# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is counted, under which names, and with how many labels."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from actors.catalogue_view import CatalogueView
from actors.errors import BusyError, UnknownToolError
from actors.messages import Breaker, DirectoryEntry, Marks, QuarantinedCall, State
from actors.tool_messages import Catalogue, PromptGet, ResourceRead, ToolCall, ToolDescriptor, ToolResult
from gateway.metrics import MeteredBackend, Metrics, runtimes_active

ECHO = ToolDescriptor(
    name="echo",
    title="",
    description="",
    category="c",
    runtime="general",
    pool="general",
    input_schema=b"{}",
)
CALL = ToolCall(name="echo", arguments=b"{}", call_id="1")


class Backend:
    def __init__(self, outcome):
        self.outcome = outcome
        self.tools = [ECHO]
        self.catalogue = self

    def get(self, name):
        return ECHO if name == "echo" else None

    async def call(self, call, *, timeout_s, on_item=None, respondent=None):
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        if self.outcome is None:
            await trio.sleep_forever()
        return self.outcome


def result(*, is_error=False):
    return ToolResult(value=b"1", shape="text", runtime="general", duration_ms=1, is_error=is_error)


def line(metrics, start):
    return next(line for line in metrics.text().decode().splitlines() if line.startswith(start)).rsplit(" ", 1)[1]


async def test_a_finished_call_is_counted_and_timed():
    metrics = Metrics()
    await MeteredBackend(Backend(result()), metrics).call(CALL, timeout_s=1)
    assert line(metrics, 'mcp_tool_execution_total{runtime="general",status="success",tool="echo"}') == "1.0"
    assert line(metrics, 'mcp_tool_execution_duration_ms_count{runtime="general",tool="echo"}') == "1.0"
    assert line(metrics, 'mcp_tool_execution_duration_ms_bucket{le="+Inf",runtime="general",tool="echo"}') == "1.0"
    assert line(metrics, "mcp_calls_in_flight") == "0.0"


async def test_a_tools_own_error_is_told_from_a_failure():
    metrics = Metrics()
    await MeteredBackend(Backend(result(is_error=True)), metrics).call(CALL, timeout_s=1)
    with pytest.raises(BusyError):
        await MeteredBackend(Backend(BusyError("full")), metrics).call(CALL, timeout_s=1)
    assert line(metrics, 'mcp_tool_execution_total{runtime="general",status="error",tool="echo"}') == "1.0"
    assert line(metrics, 'mcp_tool_execution_total{runtime="general",status="failed",tool="echo"}') == "1.0"
    assert line(metrics, 'mcp_runtime_errors_total{error_type="BUSY",runtime="general"}') == "1.0"


async def test_names_from_strangers_share_one_label():
    metrics = Metrics()
    backend = MeteredBackend(Backend(UnknownToolError("no")), metrics)
    for name in ("a", "b", "c"):
        with pytest.raises(UnknownToolError):
            await backend.call(ToolCall(name=name, arguments=b"{}", call_id=name), timeout_s=1)
    label = '{runtime="(unknown)",status="failed",tool="(unknown)"}'
    assert line(metrics, f"mcp_tool_execution_total{label}") == "3.0"


@pytest.mark.parametrize("kind", [ResourceRead, PromptGet])
async def test_what_is_no_tool_counts_under_its_method(kind):
    metrics, backend = Metrics(), Backend(result())
    backend.catalogue = CatalogueView(Catalogue(tools=[ECHO]))
    await MeteredBackend(backend, metrics).call(kind(name="echo", arguments=b"{}", call_id="1"), timeout_s=1)
    label = f'{{runtime="(unknown)",status="success",tool="{kind.METHOD}"}}'
    assert line(metrics, f"mcp_tool_execution_total{label}") == "1.0"


async def test_calls_in_flight_go_down_when_a_call_is_cancelled():
    metrics = Metrics()
    async with trio.open_nursery() as nursery:

        async def call():
            await MeteredBackend(Backend(None), metrics).call(CALL, timeout_s=1)

        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        assert line(metrics, "mcp_calls_in_flight") == "1.0"
        nursery.cancel_scope.cancel()
    assert line(metrics, "mcp_calls_in_flight") == "0.0"
    assert line(metrics, 'mcp_runtime_errors_total{error_type="CANCELLED",runtime="general"}') == "1.0"


@pytest.mark.parametrize(
    ("ms", "first_bucket"), [(0.5, "1.0"), (1.0, "1.0"), (1.1, "2.5"), (99, "100.0"), (1e9, "+Inf")]
)
def test_a_duration_is_in_every_bucket_from_its_own_on(ms, first_bucket):
    metrics = Metrics()
    metrics.tool_finished("general", "echo", "success", ms)
    rows = [line for line in metrics.text().decode().splitlines() if "duration_ms_bucket" in line]
    assert f'le="{first_bucket}"' in next(row for row in rows if row.endswith(" 1.0"))


def test_a_runtime_is_active_while_one_of_its_actors_is_ready():
    def entry(name, group, state):
        return DirectoryEntry(name=name, group=group, state=state)

    entries = [
        entry("router", "root", State.READY),
        entry("tools.general#0", "tools", State.RESTARTING),
        entry("task_queue", "durable", State.READY),
    ]
    assert runtimes_active(entries) == {"general": False, "p2p": True}
    metrics = Metrics()
    metrics.tree_status = lambda: (False, entries, 1)
    assert line(metrics, 'mcp_runtime_active{runtime="general"}') == "0.0"
    assert line(metrics, 'mcp_runtime_active{runtime="p2p"}') == "1.0"


@pytest.mark.parametrize("status", ["input_required", "task"])
async def test_a_call_that_ends_with_a_question_or_becomes_a_task_is_no_failure(status):
    class Asked:
        wants_input = status == "input_required"
        became_task = status == "task"

    metrics = Metrics()
    with trio.CancelScope() as scope:
        scope.cancel()
        await MeteredBackend(Backend(None), metrics).call(CALL, timeout_s=1, respondent=Asked())
    found = metrics.text().decode()
    assert f'mcp_tool_execution_total{{runtime="general",status="{status}",tool="echo"}} 1.0' in found
    assert 'status="failed",tool="echo"} 0.0' in found


def test_what_is_refused_because_it_ends_processes_is_counted():
    metrics = Metrics()
    assert line(metrics, "mcp_quarantined_calls") == "0.0"
    one = QuarantinedCall(id="a", digest="aa", tool="divide", deaths=2, last_at="", cause="")
    marks = Marks(quarantined=[one], breakers=[Breaker(tool="divide", deaths=3, half_open=True)])
    metrics.marks = lambda: marks
    assert line(metrics, "mcp_quarantined_calls") == "1.0"
    assert line(metrics, 'mcp_breakers_open{tool="divide"}') == "1.0"
