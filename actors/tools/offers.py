# SPDX-License-Identifier: AGPL-3.0-or-later
"""The resources and prompts of one process: made from marked functions, and found by what a call names.

What can't be used is kept as a descriptor with `broken`, as for tools. URIs of resources and names of prompts are
unique: of two the later is broken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import msgspec

from actors.declare import PROMPT_ATTRIBUTE, RESOURCE_ATTRIBUTE, PromptSpec, ResourceSpec
from actors.errors import InvalidArgumentsError, NotFoundError
from actors.schema import Contract, ContractError
from actors.tool_messages import (
    CompletionAsk,
    Offered,
    PromptDescriptor,
    PromptGet,
    ResourceDescriptor,
    ResourceRead,
    Runtime,
)
from actors.tools.declared import (
    LoadedCompletion,
    LoadedPrompt,
    LoadedResource,
    completions_of,
    prompt_arguments,
    prompt_contract,
    resource_contract,
)
from actors.uris import ResourceTable, is_template

_Descriptor = TypeVar("_Descriptor", bound=Offered)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where an offer is defined and where it runs."""

    shown: str
    category: str
    runtime: Runtime
    pool: str
    default_timeout_s: float


class Offers:
    """See the module's text."""

    def __init__(self) -> None:
        self.resources: dict[str, LoadedResource] = {}
        """By URI or template."""
        self.prompts: dict[str, LoadedPrompt] = {}
        self.broken_resources: list[ResourceDescriptor] = []
        self.broken_prompts: list[PromptDescriptor] = []
        self._completions: dict[tuple[str, str], dict[str, LoadedCompletion]] = {}
        self._table: ResourceTable | None = None

    # --- what there is -----------------------------------------------------------------------------------------------

    def resource_descriptors(self) -> list[ResourceDescriptor]:
        """All of them, usable ones first."""
        return [one.descriptor for one in self.resources.values()] + self.broken_resources

    def prompt_descriptors(self) -> list[PromptDescriptor]:
        """All of them, usable ones first."""
        return [one.descriptor for one in self.prompts.values()] + self.broken_prompts

    def reading(self, request: ResourceRead) -> tuple[LoadedResource, ResourceRead]:
        """The resource that a call wants to read, and the call with the variables as arguments. Raises
        `NotFoundError`."""
        if self._table is None:
            self._table = ResourceTable(self.resources)
        found = self._table.find(request.name)
        if found is None:
            raise NotFoundError(f"there is no resource {request.name[:200]!r} here", uri=request.name)
        number, variables = found
        resource = list(self.resources.values())[number]
        return resource, msgspec.structs.replace(request, arguments=msgspec.json.encode(variables))

    def prompt(self, request: PromptGet) -> LoadedPrompt:
        """The prompt that a call wants. Raises `NotFoundError`."""
        prompt = self.prompts.get(request.name)
        if prompt is None:
            raise NotFoundError(f"there is no prompt {request.name[:200]!r} here", prompt=request.name)
        return prompt

    def completing(self, request: CompletionAsk) -> LoadedCompletion:
        """What completes the argument that a call is about. Raises `InvalidArgumentsError`."""
        found = self._completions.get((request.of, request.name), {}).get(request.argument)
        if found is None:
            raise InvalidArgumentsError(f"nothing completes {request.argument[:200]!r} of {request.name[:200]!r}")
        return found

    # --- making ------------------------------------------------------------------------------------------------------

    def take_resource(self, function: Callable[..., Any], place: Place) -> None:
        """Take one function that is marked as a resource."""
        spec: ResourceSpec = getattr(function, RESOURCE_ATTRIBUTE)
        bare = ResourceDescriptor(**_common(spec, place), uri=spec.uri, template=is_template(spec.uri))
        try:
            contract = resource_contract(function, spec)
            descriptor = msgspec.structs.replace(
                bare,
                **_described(spec, contract),
                mime_type=spec.mime_type
                or {str: "text/plain", bytes: "application/octet-stream"}.get(contract.returns),
                size=spec.size,
                annotations=spec.annotations,
                fresh_s=spec.fresh_s,
            )
            taken = self.resources.get(spec.uri)
            if taken is not None:
                raise ContractError(f"{taken.descriptor.source} has a resource with the URI {spec.uri} already")
            completions = completions_of(descriptor, contract, spec.complete)
        except ContractError as error:
            self.broken_resources.append(_broken(bare, error))
            return
        descriptor = msgspec.structs.replace(descriptor, completes=sorted(completions))
        self.resources[spec.uri] = LoadedResource(descriptor, function, contract)
        self._table = None
        self._completions["resources", spec.uri] = completions

    def take_prompt(self, function: Callable[..., Any], place: Place) -> None:
        """Take one function that is marked as a prompt."""
        spec: PromptSpec = getattr(function, PROMPT_ATTRIBUTE)
        bare = PromptDescriptor(**_common(spec, place))
        try:
            contract = prompt_contract(function, spec)
            descriptor = msgspec.structs.replace(
                bare, **_described(spec, contract), arguments=prompt_arguments(contract)
            )
            taken = self.prompts.get(spec.name)
            if taken is not None:
                raise ContractError(f"{taken.descriptor.source} has a prompt named {spec.name} already")
            completions = completions_of(descriptor, contract, spec.complete)
        except ContractError as error:
            self.broken_prompts.append(_broken(bare, error))
            return
        descriptor = msgspec.structs.replace(descriptor, completes=sorted(completions))
        self.prompts[spec.name] = LoadedPrompt(descriptor, function, contract)
        self._completions["prompts", spec.name] = completions

    def drop(self, kind: Literal["resources", "prompts"], key: str) -> None:
        """Leave one out after all."""
        getattr(self, kind).pop(key)
        self._completions.pop((kind, key), None)
        self._table = None


def _common(spec: ResourceSpec | PromptSpec, place: Place) -> dict[str, Any]:
    return {
        "name": spec.name,
        "title": spec.title or spec.name.replace("_", " ").capitalize(),
        "description": spec.description or "",
        "category": spec.category or place.category,
        "runtime": place.runtime,
        "pool": place.pool,
        "timeout_s": place.default_timeout_s if spec.timeout_s is None else spec.timeout_s,
        "retry_safe": True,
        "source": place.shown,
    }


def _described(spec: ResourceSpec | PromptSpec, contract: Contract) -> dict[str, Any]:
    return {
        "description": contract.description,
        "asks": contract.context_at is not None,
        "requires": spec.requires,
        "icons": list(spec.icons),
        "meta": meta_json(spec.meta),
    }


def meta_json(meta: dict[str, Any] | None) -> bytes:
    """An author's `_meta` as JSON. Raises `ContractError`."""
    try:
        return msgspec.json.encode(meta) if meta else b""
    except (TypeError, ValueError) as error:
        raise ContractError(f"its meta can't be written as JSON: {error}") from error


def _broken(descriptor: _Descriptor, error: ContractError) -> _Descriptor:
    return msgspec.structs.replace(
        descriptor, description=f"Can't be used: {error}", broken=f"{descriptor.source}: {error}"
    )
