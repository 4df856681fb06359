# SPDX-License-Identifier: AGPL-3.0-or-later
"""Where tools come from, before anything is imported: Greenroom's own files and the user's paths, with their categories
and pools.

Greenroom's own tools are listed by file name alone: a file's tool is named like the file. Files that begin with `_` are
helpers.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from actors.errors import MCPServerError
from actors.settings import ToolsSettings

DEFAULT_POOL: Final = "general"
ALL: Final = "all"
OWN_PACKAGE: Final = "actors.tools"
_OWN_FOLDER: Final = Path(__file__).parent
_USER_PACKAGE: Final = "greenroom_user_tools"


class UnknownCategoryError(MCPServerError):
    """`tools.enabled_categories` names a category that does not exist; the message lists those that do."""

    code = "UNKNOWN_CATEGORY"


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One module that may hold tools."""

    module: str
    category: str
    shown: str
    """Where it is, for people."""
    own: str = ""
    """The tool's name, for Greenroom's own files."""
    may_be_empty: bool = False
    """A part of a package, which may hold helpers only."""
    problem: str = ""
    """Why there is no module."""


def own_tools() -> dict[str, list[str]]:
    """Category -> names of Greenroom's own tools, from file names alone: nothing is imported."""
    categories = {}
    for folder in sorted(_OWN_FOLDER.iterdir()):
        if (folder / "__init__.py").is_file():
            categories[folder.name] = [path.stem for path in _tool_files(folder)]
    return categories


def enabled_categories(settings: ToolsSettings) -> list[str]:
    """Greenroom's own categories that are switched on. Raises `UnknownCategoryError`.

    The user's tools are always on: they were named one by one.
    """
    own = list(own_tools())
    users = {source.category for path in settings.paths for source in user_sources(path)}
    for name in settings.enabled_categories:
        if name != ALL and name not in own and name not in users:
            near = difflib.get_close_matches(name, [*own, *users], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UnknownCategoryError(
                f"tools.enabled_categories names {name!r}, which does not exist{hint} There are: all, "
                f"{', '.join(sorted({*own, *users}))}"
            )
    return own if ALL in settings.enabled_categories else [name for name in own if name in settings.enabled_categories]


def pool_of(settings: ToolsSettings, category: str, wanted: str | None = None) -> str:
    """The pool that runs a category: as configured, else `wanted` (by the tool) where it exists, else `general`."""
    for name, pool in settings.pools.items():
        if category in pool.categories:
            return name
    return wanted if wanted is not None and wanted in settings.pools else DEFAULT_POOL


def _tool_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.py") if not path.name.startswith("_"))


def user_sources(path: str) -> Iterator[Source]:
    """The modules that one entry of `tools.paths` stands for."""
    place = Path(path).expanduser()
    if place.is_dir():
        yield from _folder_sources(place.resolve())
    elif place.suffix == ".py" or "/" in path:
        if place.is_file():
            package = _namespace(place.resolve().parent)
            yield Source(module=f"{package}.{place.stem}", category=place.stem, shown=str(place))
        else:
            yield Source(module="", category=place.stem, shown=path, problem=f"there is no file or folder {path}")
    else:
        yield from _module_sources(path)


def _folder_sources(folder: Path) -> Iterator[Source]:
    package = _namespace(folder)
    files = [path for path in _tool_files(folder) if not path.name.startswith("test_") and path.name != "conftest.py"]
    for file in files:
        yield Source(module=f"{package}.{file.stem}", category=folder.name, shown=f"{folder.name}/{file.name}")
    if not files:
        yield Source(module="", category=folder.name, shown=str(folder), problem="there is no .py file in it")


def _module_sources(name: str) -> Iterator[Source]:
    category = name.rpartition(".")[2]
    try:
        spec = importlib.util.find_spec(name)
    except Exception:  # noqa: BLE001 - the import of the module itself, below, will say what is wrong
        spec = None
    locations = (spec.submodule_search_locations if spec is not None else None) or ()
    yield Source(module=name, category=category, shown=name, may_be_empty=bool(locations))
    for location in locations:
        for file in _tool_files(Path(location)):
            module = f"{name}.{file.stem}"
            yield Source(module=module, category=category, shown=module, may_be_empty=True)


def _namespace(folder: Path) -> str:
    """A package of our own that stands for a folder, so that its files can import each other with `from . import x`."""
    root = sys.modules.setdefault(_USER_PACKAGE, types.ModuleType(_USER_PACKAGE))
    root.__path__ = []
    stem = re.sub(r"\W", "_", folder.name) or "folder"
    for number in range(1, len(sys.modules) + 2):
        name = f"{_USER_PACKAGE}.{stem}_{number}"
        known = sys.modules.get(name)
        if known is None:
            package = types.ModuleType(name)
            package.__path__ = [str(folder)]
            sys.modules[name] = package
            return name
        if list(known.__path__) == [str(folder)]:
            return name
    raise AssertionError("unreachable: there are more names than modules")
