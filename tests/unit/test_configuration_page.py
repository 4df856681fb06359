# SPDX-License-Identifier: AGPL-3.0-or-later
"""docs/configuration.md says what the Structs say: every key, its default, its variable; and its example works."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from actors.settings import PoolSettings, Settings
from actors.settings_p2p import PeerGrant, TaskTypeSettings
from supervisor.config import _SEED_VARIABLES, NOT_YET, load
from supervisor.config_keys import flat, known_keys

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()


def table(first_key: str) -> dict[str, list[str]]:
    """The rows of the table that begins with this key: key -> cells without their back-ticks."""
    lines = PAGE.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| `{first_key}` |"))
    heading = max(number for number in range(start) if lines[number].startswith("| key |"))
    rows = {}
    for line in lines[heading + 2 :]:
        if not line.startswith("|"):
            break
        key, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        assert key not in rows, f"{key} stands there twice"
        rows[key.strip("`")] = cells
    return rows


KEYS = table("server.host")


def defaults() -> dict[str, object]:
    values = flat(Settings())
    pool = PoolSettings()
    task = TaskTypeSettings()
    grant = PeerGrant()
    return (
        values
        | {f"tools.pools.*.{name}": getattr(pool, name) for name in pool.__struct_fields__}
        | {f"p2p.task_queue.types.*.{name}": getattr(task, name) for name in task.__struct_fields__}
        | {f"p2p.peer_registry.allow.*.{name}": getattr(grant, name) for name in grant.__struct_fields__}
    )


def test_every_key_is_listed_in_order_and_no_other():
    assert list(KEYS) == list(known_keys())


@pytest.mark.parametrize("key", known_keys())
def test_a_key_has_its_default_and_a_meaning(key):
    default, values, meaning, _ = KEYS[key]
    assert values
    assert meaning
    if key == "tools.max_concurrent.*":
        assert default == "not set"
    else:
        assert json.loads(default.strip("`")) == defaults()[key]


@pytest.mark.parametrize("key", known_keys())
def test_a_key_has_its_variables(key):
    named = re.findall(r"`([^`]+)`", KEYS[key][3])
    seed = [variable for variable, target in _SEED_VARIABLES.items() if target == key]
    assert named == ["GREENROOM_" + key.upper().replace(".", "__"), *seed]


@pytest.mark.parametrize("key", known_keys())
def test_a_key_that_changes_nothing_yet_says_so(key):
    assert ("Changes nothing yet" in KEYS[key][2]) == key.startswith(NOT_YET)


def test_choices_are_all_named():
    for key, kind in known_keys().items():
        assert set(kind.choices) <= set(re.findall(r"`([^`]+)`", KEYS[key][1]))


def test_the_example_is_accepted_without_notice(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])
    loaded = load(file, {}, {})
    assert loaded.notices == []
    assert loaded.settings.tools.pools["heavy"].categories == ["dataset_tools"]


def test_the_list_of_differing_defaults_is_right_and_complete():
    """The seed's complete example (10.3), as far as it gives a default for a key."""
    seed = {
        "server.host": "0.0.0.0",
        "server.port": 8000,
        "server.log_level": "INFO",
        "runtimes.general.enabled": True,
        "runtimes.general.workers": 4,
        "runtimes.general.timeout": 60,
        "runtimes.p2p.enabled": True,
        "tools.enabled_categories": ["all"],
        "p2p.enabled": True,
        "p2p.mcplusplus.enabled": True,
        "p2p.workflow_scheduler.enabled": True,
        "p2p.workflow_scheduler.max_concurrent_workflows": 100,
        "p2p.workflow_scheduler.workflow_timeout": 3600,
        "p2p.task_queue.enabled": True,
        "p2p.task_queue.queue_path": "~/.cache/ipfs_datasets_py/task_queue.duckdb",
        "p2p.task_queue.max_queue_size": 10000,
        "p2p.peer_registry.enabled": True,
        "p2p.peer_registry.bootstrap_nodes": ["/ip4/127.0.0.1/tcp/4001/p2p/QmBootstrap1"],
        "p2p.peer_registry.peer_discovery_interval": 60,
        "p2p.connectivity.listen_port": 4001,
        "p2p.connectivity.max_connections": 100,
        "p2p.connectivity.connection_timeout": 30,
        "monitoring.enabled": True,
        "monitoring.metrics_port": 9090,
        "monitoring.enable_tracing": True,
        "monitoring.tracing_endpoint": "http://localhost:4318",
    }
    ours = defaults()
    section = PAGE.partition("## Defaults that differ")[2]
    listed = re.findall(r"^\| `([^`]+)` \| .*? \| `([^`]*)` \|", section, re.MULTILINE)
    assert {key: json.loads(value) for key, value in listed} == {
        key: ours[key] for key, value in seed.items() if ours[key] != value
    }
