# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a new configuration changes in a running tree: the plan, without a tree."""

from __future__ import annotations

import msgspec
import pytest

from actors.settings import Settings
from supervisor.reload import AT_START_ONLY, plan_reload

RUNNING = {"tools.general#0", "task_queue", "workflow_scheduler", "task_worker", "router", "gateway"}


def settings(**sections):
    return msgspec.convert(sections, Settings)


def test_without_a_change_only_tool_processes_are_new_because_their_files_may_be():
    plan = plan_reload(Settings(), Settings(), RUNNING)
    assert plan.summary.replaced == ["tools.general#0"]
    assert (plan.summary.changed, plan.summary.needs_restart) == ([], [])
    assert plan.order.replace == {"tools.general#0"}


def test_any_setting_that_changed_gives_everybody_a_new_process():
    plan = plan_reload(Settings(), settings(tools={"threads": 3}), RUNNING)
    assert plan.summary.changed == ["tools.threads"]
    assert plan.summary.replaced == sorted(RUNNING)
    assert plan.settings.tools.threads == 3


def test_pools_come_go_and_change_their_size():
    wanted = settings(runtimes={"general": {"workers": 2}}, tools={"pools": {"heavy": {}}})
    plan = plan_reload(Settings(), wanted, RUNNING | {"tools.old#0"})
    assert plan.summary.added == ["tools.general#1", "tools.heavy#0", "tools.heavy#1"]
    assert plan.summary.removed == ["tools.old#0"]
    assert {spec.id for spec in plan.order.children} >= {"tools.general#0", "tools.general#1", "router", "gateway"}


OTHER = {
    "chaos.enabled": True,
    "p2p.bootstrap_only": True,
    "server.host": "127.0.0.2",
    "server.port": 9,
    "server.gateways": 3,
    "server.log_format": "json",
    "server.log_level": "ERROR",
    "supervisor.breaker_deaths": 9,
    "supervisor.breaker_open_cap_s": 900.0,
    "supervisor.breaker_open_s": 9.0,
    "supervisor.breaker_within_s": 9.0,
    "supervisor.fork_server": False,
    "supervisor.quarantine_after": 9,
    "supervisor.quarantine_max": 9,
    "supervisor.runtime_dir": "elsewhere",
}


@pytest.mark.parametrize("key", AT_START_ONLY)
def test_what_only_a_new_root_takes_over_stays_as_it_is_and_is_named(key):
    section, _, name = key.partition(".")
    plan = plan_reload(Settings(), settings(**{section: {name: OTHER[key]}}), RUNNING)
    assert plan.summary.needs_restart == [key]
    assert plan.settings == Settings()
    assert plan.summary.replaced == ["tools.general#0"]
