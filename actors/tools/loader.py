# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which tools, resources and prompts there are: Greenroom's own, one file per tool in one folder per category, and the
user's (`tools.paths`). Where their files are, `sources` says.

* A user's path is a module, a package, a folder of `.py` files or one `.py` file; each file may hold several tools,
  resources and prompts. Own files may hold resources and prompts beside their tool, or in files of their own.
* Every file is loaded on its own. What can't be used becomes a descriptor with `broken`, never an error of the process:
  only a category that does not exist is refused as a whole (`UnknownCategoryError`), because then the operator's
  wish is unclear.
* Names are unique: of two tools of one name the later is broken. Own tools come first, then the user's in given order.
"""

from __future__ import annotations

import importlib
import inspect
import re
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from actors.declare import PROMPT_ATTRIBUTE, RESOURCE_ATTRIBUTE, PromptSpec, ResourceSpec
from actors.param_headers import ParamRuleError, read_param_rules
from actors.schema import Contract, ContractError, check_published, contract_of
from actors.settings import ToolsSettings
from actors.tool_messages import Runtime, TaskSupport, ToolAnnotations, ToolDescriptor
from actors.toolkit import SPEC_ATTRIBUTE, ToolSpec
from actors.tools.catalogue_size import fit
from actors.tools.execution import LoadedTool
from actors.tools.offers import Offers, Place, meta_json
from actors.tools.sources import (
    DEFAULT_POOL,
    OWN_PACKAGE,
    Source,
    enabled_categories,
    own_tools,
    pool_of,
    user_sources,
)

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_NO_SCHEMA: Final = b'{"type":"object"}'


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What a pool can run, and what it can't and why."""

    tools: dict[str, LoadedTool]
    broken: list[ToolDescriptor]
    offers: Offers
    """Resources and prompts."""

    def descriptors(self) -> list[ToolDescriptor]:
        """All of them, as the pool offers them: usable ones first."""
        return [tool.descriptor for tool in self.tools.values()] + self.broken


def load(settings: ToolsSettings, pool: str, *, default_timeout_s: float = 60.0) -> Loaded:
    """Import the tools of `pool`. `default_timeout_s`: for tools that don't say (`runtimes.general.timeout`).

    Files of categories that the configuration gives to another pool are not imported here.
    """
    catalogue = _Catalogue(settings, pool, default_timeout_s)
    enabled = enabled_categories(settings)
    for category, names in own_tools().items():
        for name in names:
            catalogue.reserve(name, f"{category}/{name}.py")
            if category in enabled:
                module = f"{OWN_PACKAGE}.{category}.{name}"
                catalogue.add(Source(module=module, category=category, shown=f"{category}/{name}.py", own=name))
    for path in settings.paths:
        for source in user_sources(path):
            catalogue.add(source)
    if left_out := fit(catalogue.tools, catalogue.offers, settings.max_catalogue_bytes):
        catalogue.leave_out(left_out)
    return Loaded(tools=catalogue.tools, broken=catalogue.broken, offers=catalogue.offers)


def load_functions(
    functions: Iterable[Callable[..., Any]], *, runtime: Runtime, actor: str, category: str, default_timeout_s: float
) -> Loaded:
    """What an actor brings along itself, such as the P2P actors do: decorated functions, no files to look for."""
    catalogue = _Catalogue(ToolsSettings(), actor, default_timeout_s, runtime)
    for function in functions:
        source = Source(module=function.__module__, category=category, shown=function.__module__)
        if hasattr(function, SPEC_ATTRIBUTE):
            catalogue.take(source, function)
        catalogue.take_offers(source, function)
    return Loaded(tools=catalogue.tools, broken=catalogue.broken, offers=catalogue.offers)


class _Catalogue:
    """Tools collected so far."""

    def __init__(
        self, settings: ToolsSettings, pool: str, default_timeout_s: float, runtime: Runtime = "general"
    ) -> None:
        self._runtime: Runtime = runtime
        self.tools: dict[str, LoadedTool] = {}
        self.broken: list[ToolDescriptor] = []
        self.offers = Offers()
        self._settings = settings
        self._pool = pool
        self._default_timeout_s = default_timeout_s
        self._places: dict[str, str] = {}
        """Name -> where it is defined."""

    def reserve(self, name: str, place: str) -> None:
        """Own names are taken also when their category is off or runs elsewhere."""
        self._places.setdefault(name, place)

    def add(self, source: Source) -> None:
        """Load one module and take its tools."""
        if self._configured_pool(source.category) not in (None, self._pool):
            return
        if source.problem:
            self._break(source, Path(source.shown).stem, source.problem)
            return
        try:
            module = importlib.import_module(source.module)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a file does at import breaks that file only
            self._break(source, source.own or source.module.rpartition(".")[2], _why_not_imported(error))
            return
        functions = list(_marked(module, SPEC_ATTRIBUTE))
        others = list(_marked(module, RESOURCE_ATTRIBUTE, PROMPT_ATTRIBUTE))
        problem = ""
        if functions or not others:
            problem = _own_problem(source.own, functions) if source.own else _user_problem(source, functions)
        if problem:
            self._break(source, source.own or source.module.rpartition(".")[2], problem)
            return
        for function in functions:
            if self._runs_here(source, getattr(function, SPEC_ATTRIBUTE)):
                self.take(source, function)
        for function in others:
            self.take_offers(source, function)

    def _configured_pool(self, category: str) -> str | None:
        return next((name for name, pool in self._settings.pools.items() if category in pool.categories), None)

    def _runs_here(self, source: Source, spec: ToolSpec | ResourceSpec | PromptSpec) -> bool:
        # The folder's pool decides first: a file is imported in one pool only.
        category = spec.category or source.category
        return self._pool == (self._configured_pool(source.category) or pool_of(self._settings, category, spec.pool))

    def take_offers(self, source: Source, function: Callable[..., Any]) -> None:
        """Take what one function is beside a tool: a resource, a prompt, if it belongs here."""
        place = Place(
            shown=source.shown,
            category=source.category,
            runtime=self._runtime,
            pool=self._pool,
            default_timeout_s=self._default_timeout_s,
        )
        for attribute, take in (
            (RESOURCE_ATTRIBUTE, self.offers.take_resource),
            (PROMPT_ATTRIBUTE, self.offers.take_prompt),
        ):
            spec = getattr(function, attribute, None)
            if spec is not None and (self._runtime == "p2p" or self._runs_here(source, spec)):
                take(function, place)

    def leave_out(self, names: list[str]) -> None:
        """Say what the catalogue has no room for."""
        reason = (
            f"{len(names)} more are left out, because the catalogue would have more than tools.max_catalogue_bytes "
            f"({self._settings.max_catalogue_bytes}): {', '.join(names[:10])}"
        )
        self._break(Source(module="", category=DEFAULT_POOL, shown="catalogue"), "catalogue", reason, here=True)

    def take(self, source: Source, function: Callable[..., Any]) -> None:
        """Take one decorated function, which belongs here."""
        spec: ToolSpec = getattr(function, SPEC_ATTRIBUTE)
        category = spec.category or source.category
        try:
            _check_spec(spec)
            contract = _checked_contract(function, spec)
            descriptor = self._descriptor(source, spec, category, contract)
        except ContractError as error:
            self._break(source, spec.name, str(error))
            return
        place = self._places.setdefault(spec.name, source.shown)
        if spec.name in self.tools or (place != source.shown and not source.own):
            self._break(source, f"{spec.name}@{source.shown}", f"{place} has a tool named {spec.name} already")
            return
        self.tools[spec.name] = LoadedTool(descriptor, function, contract)

    def _descriptor(self, source: Source, spec: ToolSpec, category: str, contract: Contract) -> ToolDescriptor:
        published = contract.input_schema if spec.input_schema is None else spec.input_schema
        title = spec.title or spec.name.replace("_", " ").capitalize()
        output = contract.output_schema
        return ToolDescriptor(
            name=spec.name,
            title=title,
            description=contract.description,
            category=category,
            runtime=self._runtime,
            pool=self._pool,
            input_schema=_json(published),
            output_schema=None if output is None else _json(output),
            annotations=ToolAnnotations(
                title=title,
                read_only_hint=spec.read_only,
                destructive_hint=spec.destructive,
                idempotent_hint=spec.idempotent,
                open_world_hint=spec.open_world,
            ),
            timeout_s=self._default_timeout_s if spec.timeout_s is None else spec.timeout_s,
            retry_safe=spec.retry_safe,
            max_concurrent=self._settings.max_concurrent.get(spec.name, spec.max_concurrent),
            asks=contract.context_at is not None,
            requires=spec.requires or (),
            icons=list(spec.icons or ()),
            meta=meta_json(spec.meta),
            task=spec.task or "forbidden",
            begins_task=bool(spec.begins_task),
            source=source.shown,
        )

    def _break(self, source: Source, name: str, reason: str, *, here: bool = False) -> None:
        if not here and pool_of(self._settings, source.category) != self._pool:
            return
        taken = {tool.name for tool in self.broken} | set(self.tools)
        self.broken.append(
            ToolDescriptor(
                name=name if name not in taken else f"{name}@{source.shown}",
                title=name,
                description=f"Can't be used: {reason}",
                category=source.category,
                runtime=self._runtime,
                pool=self._pool,
                input_schema=_NO_SCHEMA,
                broken=f"{source.shown}: {reason}",
                source=source.shown,
            )
        )


def _marked(module: types.ModuleType, *attributes: str) -> Iterator[Callable[..., Any]]:
    """The functions with such a mark that a module defines, not those that it imported."""
    seen: set[int] = set()
    for value in vars(module).values():
        if not inspect.isfunction(value) or not any(hasattr(value, attribute) for attribute in attributes):
            continue
        if value.__module__ == module.__name__ and id(value) not in seen:
            seen.add(id(value))
            yield value


def _own_problem(name: str, functions: list[Callable[..., Any]]) -> str:
    names = [getattr(function, SPEC_ATTRIBUTE).name for function in functions]
    if len(names) != 1:
        return f"it must define one tool and defines {len(names)}" + (f": {', '.join(names)}" if names else "")
    return "" if names[0] == name else f"its tool is named {names[0]}, which is not the file's name"


def _user_problem(source: Source, functions: list[Callable[..., Any]]) -> str:
    return "" if functions or source.may_be_empty else "it defines no tool; put @tool() above a function of its own"


def _check_spec(spec: ToolSpec) -> None:
    if not _NAME.fullmatch(spec.name):
        raise ContractError(f"its name {spec.name!r} must be 1-128 letters, digits, '_', '.' and '-'")
    if spec.timeout_s is not None and not spec.timeout_s > 0:
        raise ContractError("its timeout must be more than 0 seconds")
    if spec.max_concurrent is not None and spec.max_concurrent < 1:
        raise ContractError("its max_concurrent must be at least 1")
    if spec.read_only and spec.destructive:
        raise ContractError("it can't be read_only and destructive")
    if spec.task is not None and spec.task not in TaskSupport.__args__:  # type: ignore[attr-defined]
        raise ContractError(f"its task {spec.task!r} must be forbidden, optional or required")
    if spec.begins_task and spec.task not in {"optional", "required"}:
        raise ContractError("it can't begin a task: task is forbidden")


def _checked_contract(function: Callable[..., Any], spec: ToolSpec) -> Contract:
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise ContractError("it must return its result, not yield")
    contract = contract_of(function)
    if spec.begins_task and contract.context_at is None:
        raise ContractError("begins_task needs a ToolContext, which begins it")
    if spec.input_schema is not None:
        check_published(spec.input_schema, contract.input_schema)
    try:
        read_param_rules(spec.input_schema or contract.input_schema)
    except ParamRuleError as error:
        raise ContractError(str(error)) from None
    return contract


def _json(schema: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(schema)
    except TypeError as error:
        raise ContractError(f"its schema can't be written as JSON: {error}") from error


def _why_not_imported(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"syntax error in line {error.lineno}: {error.msg}"
    return f"{type(error).__name__}: {error}"[:500]
