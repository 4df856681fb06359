# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which code runs: our three packages are this tree's, in parent and children, and the root stays light."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from spawning import spawner

pytestmark = pytest.mark.process

TREE = Path(__file__).parents[2]
OURS = ("actors", "supervisor", "gateway")
HEAVY = ("duckdb", "libp2p", "quart", "quart_trio", "hypercorn", "prometheus_client", "cryptography")


@pytest.mark.parametrize("package", OURS)
def test_our_packages_come_from_this_tree(package):
    assert Path(importlib.import_module(package).__file__) == TREE / package / "__init__.py"


async def test_our_packages_come_from_this_tree_in_children(monkeypatch, tmp_path):
    """Also when the current directory has folders of these names."""
    for package in OURS:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    code = f"import importlib, json\nsay(json.dumps([importlib.import_module(name).__file__ for name in {OURS}]))"
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            line = await (await spawn(code)).said("[")
    assert json.loads(line) == [str(TREE / package / "__init__.py") for package in OURS]


async def test_no_module_of_ours_has_a_short_name_in_children(monkeypatch):
    code = "import sys\nfrom importlib.util import find_spec\nsay([name for name in ('spawn_tractor', 'tree', 'log') "
    code += "if find_spec(name)])"
    with trio.fail_after(20):
        async with spawner(monkeypatch) as spawn:
            assert await (await spawn(code)).said("[") == "[]"


@pytest.mark.parametrize("module", ["supervisor.tree", "supervisor.up", "supervisor.spawn_tractor", "supervisor.child"])
def test_the_root_and_a_bare_child_load_none_of_the_heavy_libraries(module):
    code = f"import sys, {module}\nprint(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.split() == []
