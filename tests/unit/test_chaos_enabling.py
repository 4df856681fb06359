# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tools that break their process are there where `chaos.enabled`, in a pool of their own, and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from actors import chaos_tools
from actors.settings import ChaosSettings, PoolSettings, RuntimesSettings, Settings, ToolsSettings
from actors.settings import GeneralRuntimeSettings as General
from actors.tools.loader import load
from actors.tools.sources import own_tools
from supervisor.chaos import enabling
from supervisor.chaos.enabling import ChaosOffError, describe, prepare, with_chaos
from supervisor.chaos.faults import FAULTS
from supervisor.tree import build_tree

ON = ChaosSettings(enabled=True)
HERE = (build_tree(Settings()).groups, Path("/data"), Path("/run"), 42)


def names(settings: Settings, pool: str) -> set[str]:
    found = load(settings.tools, pool)
    assert found.broken == []
    return set(found.tools)


def test_nothing_changes_where_it_is_off():
    settings = Settings()
    assert with_chaos(settings) is settings
    assert not [name for category in own_tools().values() for name in category if name.startswith("chaos_")]
    assert not [name for name in names(settings, "general") if name.startswith("chaos_")]


def test_the_tools_run_in_a_pool_of_their_own_with_limits():
    settings = with_chaos(Settings(chaos=ON))
    wanted = {kind.tool for kind in FAULTS.values() if kind.tool} | {"chaos_effect", "chaos_large"}
    assert names(settings, "chaos") == wanted
    assert not names(settings, "general") & wanted
    pool = next(child for child in build_tree(settings).children if child.id == "tools.chaos#0")
    assert pool.limits.address_space_bytes == enabling.ADDRESS_SPACE_BYTES
    assert pool.limits.open_files == enabling.OPEN_FILES
    assert pool.limits.file_size_bytes == enabling.FILE_SIZE_BYTES
    assert pool.spares == 1


def test_what_is_configured_for_the_pool_wins():
    mine = PoolSettings(workers=3, open_files=100, categories=["text_tools"])
    settings = with_chaos(Settings(chaos=ON, tools=ToolsSettings(pools={"chaos": mine})))
    pool = settings.tools.pools["chaos"]
    assert (pool.workers, pool.open_files, pool.file_size_bytes) == (3, 100, enabling.FILE_SIZE_BYTES)
    assert pool.categories == ["text_tools", "chaos_tools"]


def test_another_pool_may_take_the_category():
    mine = PoolSettings(categories=["chaos_tools"])
    settings = with_chaos(Settings(chaos=ON, tools=ToolsSettings(pools={"risky": mine})))
    assert settings.tools.pools == {"risky": mine}
    assert describe(settings, *HERE).pool == "risky"


def test_the_root_tells_a_run_only_where_it_is_on():
    with pytest.raises(ChaosOffError, match=r"chaos\.enabled: true"):
        describe(Settings(), *HERE)
    told = describe(with_chaos(Settings(chaos=ON)), *HERE)
    assert (told.data_dir, told.folder, told.pool, told.fork_server_pid) == ("/data", "/data/chaos", "chaos", 42)
    often = (5, 30.0)
    assert told.intensity == {"root": (5, 60.0), "tools": often, "durable": often, "p2p": often}
    assert told.hung_after_s == 5.0


def test_without_pools_there_is_no_pool_to_break():
    settings = with_chaos(Settings(chaos=ON, runtimes=RuntimesSettings(general=General(enabled=False))))
    assert describe(settings, *HERE).pool == ""


def test_switches_of_an_earlier_root_are_dropped(tmp_path, monkeypatch):
    monkeypatch.setenv(enabling.SWITCHES, "")
    prepare(Settings(), tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "chaos").mkdir()
    (tmp_path / "chaos" / "boot_death.1").touch()
    (tmp_path / "chaos" / "effects.log").touch()
    prepare(Settings(chaos=ON), tmp_path)
    assert [path.name for path in (tmp_path / "chaos").iterdir()] == ["effects.log"]
    assert os.environ[enabling.SWITCHES] == str(tmp_path / "chaos")


def test_both_sides_name_their_folder_and_file_alike():
    assert (chaos_tools.SWITCHES, chaos_tools.EFFECTS) == (enabling.SWITCHES, enabling.EFFECTS)


class EndedError(Exception):
    """In place of the end of the process."""


@pytest.mark.parametrize("switch", ["boot_death.1", "boot_hang.1"])
def test_a_switch_is_good_for_one_start(tmp_path, monkeypatch, switch):
    def end(_):
        raise EndedError

    monkeypatch.setenv(chaos_tools.SWITCHES, str(tmp_path))
    monkeypatch.setattr(chaos_tools.os, "_exit", end)
    monkeypatch.setattr(chaos_tools.time, "sleep", end)
    (tmp_path / switch).touch()
    with pytest.raises(EndedError):
        chaos_tools.obey_switches()
    chaos_tools.obey_switches()
    assert list(tmp_path.iterdir()) == []
