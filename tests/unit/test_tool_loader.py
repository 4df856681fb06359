# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which tools a pool finds, and that one that can't be used is shown with its reason and harms no other."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from actors.settings import PoolSettings, ToolsSettings
from actors.toolkit import tool
from actors.tools import loader, sources
from actors.tools.loader import load, load_functions
from actors.tools.sources import UnknownCategoryError, enabled_categories, own_tools, pool_of

GOOD = '''
from actors.toolkit import tool

@tool({options})
async def {name}(text: str) -> str:
    """Say {name}."""
    return "{name} " + text
'''


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def good(name: str, options: str = "") -> str:
    return GOOD.format(name=name, options=options)


def users(*paths, pool="general", **settings):
    """Load with no categories of our own beside: the users' tools, and the reasons of the broken by name."""
    wanted = ToolsSettings(enabled_categories=["diagnostic_tools"], paths=list(map(str, paths)), **settings)
    found = load(wanted, pool)
    own = own_tools()["diagnostic_tools"]
    return {name for name in found.tools if name not in own}, {tool.name: tool.broken for tool in found.broken}


# --- our own ---------------------------------------------------------------------------------------------------------


def test_every_own_file_is_one_good_tool_named_like_the_file():
    found = load(ToolsSettings(), "general")
    assert found.broken == []
    assert sorted(found.tools) == sorted(name for names in own_tools().values() for name in names)
    assert {tool.source for tool in found.descriptors()} == {
        f"{category}/{name}.py" for category, names in own_tools().items() for name in names
    }


def test_only_enabled_categories_are_loaded():
    found = load(ToolsSettings(enabled_categories=["text_tools"]), "general")
    assert {tool.category for tool in found.descriptors()} == {"text_tools"}


@pytest.mark.parametrize(
    ("category", "hint"), [("text_tool", "did you mean 'text_tools'?"), ("zzz", "There are: all, dataset_tools")]
)
def test_a_category_that_does_not_exist_is_refused_with_those_that_do(category, hint):
    with pytest.raises(UnknownCategoryError) as refused:
        load(ToolsSettings(enabled_categories=[category]), "general")
    assert repr(category) in refused.value.message
    assert hint in refused.value.message


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """A folder of ours with one category, `odd_tools`, in place of the real one."""
    root = tmp_path / "own_for_test"
    write(root / "odd_tools", __init__="")
    write(root, __init__="")
    (root / "not_a_category").mkdir()
    monkeypatch.setattr(sources, "_OWN_FOLDER", root)
    monkeypatch.setattr(loader, "OWN_PACKAGE", root.name)
    monkeypatch.syspath_prepend(tmp_path)
    yield root / "odd_tools"
    for name in [name for name in sys.modules if name.partition(".")[0] == root.name]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def (", "syntax error in line 1: "),
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("x = 1", "it must define one tool and defines 0"),
        (good("bad") + good("worse"), "it must define one tool and defines 2: bad, worse"),
        (good("other"), "its tool is named other, which is not the file's name"),
        (good("bad").replace('"""Say bad."""', ""), "it needs a docstring"),
        (good("bad", "timeout=0"), "its timeout must be more than 0 seconds"),
        (good("bad", "max_concurrent=0"), "its max_concurrent must be at least 1"),
        (good("bad", "read_only=True, destructive=True"), "it can't be read_only and destructive"),
        (good("bad", "task='sometimes'"), "its task 'sometimes' must be forbidden, optional or required"),
        (good("bad", "begins_task=True"), "it can't begin a task: task is forbidden"),
        (good("bad", "task='optional', begins_task=True"), "begins_task needs a ToolContext, which begins it"),
        (good("bad").replace("return", "yield"), "it must return its result, not yield"),
        (good("bad", "input_schema={'type': 'object'}"), "its input_schema names other parameters"),
        (good("bad", "input_schema={'type': 'object', 'properties': {'text': {1j}}, 'required': ['text']}"), "JSON"),
    ],
)
def test_a_broken_own_file_says_why_and_harms_nobody(own_folder, text, reason):
    write(own_folder, bad=text, good=good("good"), _helper="1 / 0")
    found = load(ToolsSettings(), "general")
    assert list(found.tools) == ["good"]
    (broken,) = found.broken
    assert broken.name == "bad"
    assert broken.broken.startswith("odd_tools/bad.py: ")
    assert reason in broken.broken
    assert reason in broken.description


def test_what_a_tools_file_is_told_becomes_its_description(own_folder):
    options = (
        "title='A title', timeout=5, idempotent=True, open_world=False, max_concurrent=3, "
        "input_schema={'type': 'object', 'properties': {'text': {'title': 'mine'}}, 'required': ['text']}"
    )
    write(own_folder, full=good("full", options), plain_one=good("plain_one"))
    tools = load(ToolsSettings(max_concurrent={"plain_one": 7}), "general", default_timeout_s=12).tools
    full, plain = tools["full"].descriptor, tools["plain_one"].descriptor
    assert (full.title, full.description, full.category) == ("A title", "Say full.", "odd_tools")
    assert (full.timeout_s, full.retry_safe, full.max_concurrent) == (5, True, 3)
    assert (full.annotations.idempotent_hint, full.annotations.open_world_hint) == (True, False)
    assert b'"mine"' in full.input_schema
    assert (plain.title, plain.timeout_s, plain.retry_safe, plain.max_concurrent) == ("Plain one", 12, False, 7)
    assert plain.annotations.read_only_hint is None


# --- the users' ------------------------------------------------------------------------------------------------------


def test_a_folder_gives_the_tools_of_all_its_files(tmp_path):
    write(
        tmp_path / "mine", one=good("one"), several=good("two") + good("three"), _helper="1 / 0", test_one="1 / 0",
        conftest="1 / 0",
    )  # fmt: skip
    assert users(tmp_path / "mine") == ({"one", "two", "three"}, {})


def test_a_file_gives_its_own_tools_and_not_those_it_imports(tmp_path):
    write(tmp_path / "mine", one=good("one"), two="from .one import one\n" + good("two"))
    assert users(tmp_path / "mine" / "two.py") == ({"two"}, {})


def test_files_of_a_folder_share_helpers(tmp_path):
    write(tmp_path / "mine", _words="WORD = 'x'", one="from . import _words\n" + good("one") + "_words.WORD\n")
    assert users(tmp_path / "mine") == ({"one"}, {})


def test_two_folders_of_one_name_stay_apart(tmp_path):
    first = write(tmp_path / "a" / "mine", one=good("one"))
    second = write(tmp_path / "b" / "mine", one=good("two"))
    assert users(first, second) == ({"one", "two"}, {})


def test_a_module_name_gives_its_tools(tmp_path, monkeypatch):
    write(tmp_path, single_module_of_tools=good("one"))
    monkeypatch.syspath_prepend(tmp_path)
    assert users("single_module_of_tools") == ({"one"}, {})


def test_a_package_gives_the_tools_of_its_modules(tmp_path, monkeypatch):
    write(tmp_path / "package_of_tools", __init__="", one=good("one"), two="1 / 0", _helper="1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    tools, broken = users("package_of_tools")
    assert tools == {"one"}
    assert broken == {"two": "package_of_tools.two: ZeroDivisionError: division by zero"}


def test_a_broken_file_harms_no_other(tmp_path):
    tools, broken = users(write(tmp_path / "mine", bad="def (", good=good("good")))
    assert tools == {"good"}
    assert broken["bad"].startswith("mine/bad.py: syntax error in line 1")


def test_a_file_without_a_tool_says_so(tmp_path):
    tools, broken = users(write(tmp_path / "mine", forgot=good("forgot").replace("@tool()", ""), good=good("good")))
    assert tools == {"good"}
    assert broken == {"forgot": "mine/forgot.py: it defines no tool; put @tool() above a function of its own"}


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("{tmp}/nowhere/mine", "there is no file or folder"),
        ("{tmp}/nowhere.py", "there is no file or folder"),
        ("{tmp}/empty", "there is no .py file in it"),
        ("no_module_of_this_name", "No module named 'no_module_of_this_name'"),
        ("no_package.of_this_name", "No module named 'no_package'"),
    ],
)
def test_a_path_that_leads_nowhere_is_shown_as_broken(tmp_path, path, reason):
    (tmp_path / "empty").mkdir()
    good_folder = write(tmp_path / "mine", good=good("good"))
    tools, broken = users(path.format(tmp=tmp_path), good_folder)
    assert tools == {"good"}
    assert len(broken) == 1
    assert reason in next(iter(broken.values()))


def test_of_two_tools_of_one_name_the_first_stands(tmp_path):
    first = write(tmp_path / "a", one=good("same"))
    second = write(tmp_path / "b", one=good("same"), two=good("other"))
    tools, broken = users(first, second)
    assert tools == {"same", "other"}
    assert broken == {"same@b/one.py": "b/one.py: a/one.py has a tool named same already"}


def test_names_of_our_own_tools_are_taken_even_when_they_are_off(tmp_path):
    tools, broken = users(write(tmp_path / "mine", one=good("echo"), two=good("hash_file"), three=good("three")))
    assert tools == {"three"}
    assert broken["echo@mine/one.py"] == "mine/one.py: diagnostic_tools/echo.py has a tool named echo already"
    assert broken["hash_file@mine/two.py"] == "mine/two.py: file_tools/hash_file.py has a tool named hash_file already"


def test_users_tools_are_on_whatever_categories_are_enabled(tmp_path):
    folder = write(tmp_path / "mine", one=good("one"))
    settings = ToolsSettings(enabled_categories=["mine"], paths=[str(folder)])
    assert enabled_categories(settings) == []
    assert set(load(settings, "general").tools) == {"one"}


@pytest.mark.parametrize("name", ["with space", "", "x" * 129, "ümlaut", "a/b"])
def test_a_name_that_clients_could_not_use_is_refused(tmp_path, name):
    _, broken = users(write(tmp_path / "mine", one=good("one", f"name={name!r}")))
    assert len(broken) == 1
    assert "must be 1-128 letters, digits" in next(iter(broken.values()))


def test_a_module_that_is_imported_already_is_not_run_again(tmp_path, monkeypatch):
    write(tmp_path, module_with_state="STATE = []\n" + good("one"))
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("module_with_state")
    users("module_with_state")
    assert importlib.import_module("module_with_state") is module


# --- pools -----------------------------------------------------------------------------------------------------------


def test_a_tool_runs_in_exactly_one_pool(tmp_path):
    folder = write(
        tmp_path / "mine", one=good("one", "pool='heavy'"), two=good("two"), three=good("three", "pool='no'")
    )
    pools = {"heavy": PoolSettings()}
    assert users(folder, pools=pools) == ({"two", "three"}, {})
    heavy = load(ToolsSettings(paths=[str(folder)], pools=pools), "heavy")
    assert set(heavy.tools) == {"one"}
    assert heavy.tools["one"].descriptor.pool == "heavy"


def test_the_configuration_decides_before_the_tool(tmp_path):
    folder = write(tmp_path / "mine", one=good("one", "pool='heavy'"))
    pools = {"heavy": PoolSettings(), "light": PoolSettings(categories=["mine"])}
    settings = ToolsSettings(paths=[str(folder)], pools=pools)
    assert {pool: set(load(settings, pool).tools) & {"one"} for pool in ("general", "heavy", "light")} == {
        "general": set(), "heavy": set(), "light": {"one"},
    }  # fmt: skip
    assert pool_of(settings, "mine", "heavy") == "light"


def test_a_file_of_another_pools_category_is_not_even_imported(tmp_path):
    folder = write(tmp_path / "mine", imported_elsewhere=good("one"), bad="1 / 0")
    pools = {"other": PoolSettings(categories=["mine"])}
    assert users(folder, pools=pools) == (set(), {})
    assert not [name for name in sys.modules if name.endswith(".imported_elsewhere")]
    assert [tool.name for tool in load(ToolsSettings(paths=[str(folder)], pools=pools), "other").broken] == ["bad"]


def test_the_pool_of_its_folder_decides_before_that_of_a_tools_own_category(tmp_path):
    folder = write(tmp_path / "mine", one=good("one", "category='other'"))
    pools = {"light": PoolSettings(categories=["mine"]), "heavy": PoolSettings(categories=["other"])}
    settings = ToolsSettings(paths=[str(folder)], pools=pools)
    assert "one" in load(settings, "light").tools
    assert "one" not in load(settings, "heavy").tools
    assert load(settings, "light").tools["one"].descriptor.category == "other"


# --- tools that an actor brings along --------------------------------------------------------------------------------


@tool()
async def brought(text: str) -> str:
    """Come along."""
    return text


def test_an_actors_own_functions_carry_its_runtime():
    found = load_functions([brought], runtime="p2p", actor="peer_registry", category="p2p_tools", default_timeout_s=9)
    descriptor = found.tools["brought"].descriptor
    assert (descriptor.runtime, descriptor.pool, descriptor.category) == ("p2p", "peer_registry", "p2p_tools")
    assert descriptor.timeout_s == 9
