# SPDX-License-Identifier: AGPL-3.0-or-later
"""Resources, prompts and completion, for all revisions. Reading and getting take the same two ways as tools' calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

import msgspec

from actors.catalogue_view import CatalogueView
from actors.errors import MCPServerError, NotFoundError
from actors.jsonrpc import INVALID_PARAMS, encode
from actors.tool_messages import (
    CompletionAsk,
    Offered,
    PromptDescriptor,
    PromptGet,
    ResourceDescriptor,
    ResourceRead,
    ToolResult,
)
from actors.uris import UriTemplate
from gateway.mcp import offers_shaping
from gateway.mcp.eras import E
from gateway.mcp.exchange import Core, Exchange
from gateway.mcp.failures import protocol_error
from gateway.mcp.jsonrpc import McpError, params_as
from gateway.mcp.paging import Pages
from gateway.mcp.shaping import Shaper
from gateway.mcp.tools_methods import CallMethods, arguments_of, list_params, wanted
from gateway.types import Answer, Stream

RESOURCE_NOT_FOUND: Final = -32002
"""Before 2026-07-28; since then it is INVALID_PARAMS."""
LIST_TTL_MS: Final = 10_000
"""Milliseconds that a client may keep a page of a list without asking."""

O = TypeVar("O", bound=Offered)  # noqa: E741


class Listing(Generic[O]):
    """Answers one list method; pages are made once per catalogue and revision."""

    def __init__(
        self,
        core: Core,
        member: str,
        entries: Callable[[CatalogueView], Sequence[O]],
        key: Callable[[O], str],
        show: Callable[[Shaper, O], dict[str, object]],
    ) -> None:
        """`member`: the list's name in the result. `entries` come sorted by `key`."""
        self._core = core
        self._member = member
        self._entries = entries
        self._key = key
        self._show = show
        self._pages = Pages(core.secret, core.settings.mcp.page_size)
        self._of: CatalogueView | None = None
        self._shown: Sequence[O] = ()
        self._made: dict[tuple[int, int], bytes] = {}

    async def __call__(self, x: Exchange) -> bytes:
        """The handler."""
        cursor = params_as(x.body, list_params).cursor
        catalogue = self._core.backend.catalogue
        if catalogue is not self._of:
            self._of, self._shown = catalogue, self._entries(catalogue)
            self._made.clear()
        entries = self._shown
        start, end = self._pages.bounds([self._key(one) for one in entries] if cursor else [], cursor)
        made = self._made.get((x.revision, start))
        if made is None:
            shaper = self._core.shapers[x.revision]
            shown = [self._show(shaper, one) for one in entries[start:end]]
            more = self._pages.cursor(self._key(entries[end - 1])) if end < len(entries) else None
            made = offers_shaping.page(shaper, self._member, shown, more, ttl_ms=LIST_TTL_MS)
            self._made[x.revision, start] = made
        return made


def resource_list(core: Core) -> Listing[ResourceDescriptor]:
    """Handler of `resources/list`."""
    return Listing(
        core,
        "resources",
        lambda catalogue: [one for one in catalogue.resources if not one.template],
        lambda one: one.uri,
        offers_shaping.resource,
    )


def template_list(core: Core) -> Listing[ResourceDescriptor]:
    """Handler of `resources/templates/list`."""
    return Listing(
        core,
        "resourceTemplates",
        lambda catalogue: [one for one in catalogue.resources if one.template],
        lambda one: one.uri,
        offers_shaping.resource,
    )


def prompt_list(core: Core) -> Listing[PromptDescriptor]:
    """Handler of `prompts/list`."""
    return Listing(core, "prompts", lambda catalogue: catalogue.prompts, lambda one: one.name, offers_shaping.prompt)


# --- reading and getting -------------------------------------------------------------------------------------------


class ResourceMethods(CallMethods[ResourceDescriptor]):
    """`resources/read`."""

    async def read(self, x: Exchange) -> bytes | Answer | Stream:
        """Handler of `resources/read`."""
        params = x.frame.params
        uri = params.uri if params is not None else None
        if type(uri) is not str:
            raise McpError(INVALID_PARAMS, "params.uri must be the URI of a resource")
        found = self._core.backend.catalogue.resource(uri)
        if found is None:
            raise not_found(uri, x.revision)
        self._check_client(x, found)
        token, level = wanted(x)
        call = ResourceRead(
            name=uri,
            arguments=b"{}",
            call_id=self._core.new_call_id(),
            progress=token is not None and x.may_stream,
            log_level=level if x.may_stream else "",
            principal=x.principal,
        )
        return await self._serve(x, found, call, token)

    def _shaped(self, x: Exchange, offered: ResourceDescriptor | None, result: ToolResult) -> bytes:
        assert offered is not None  # `read` looked it up
        return offers_shaping.contents(self._core.shapers[x.revision], result, offered)

    def _failed(self, x: Exchange, _offered: ResourceDescriptor | None, error: MCPServerError, _took_s: float) -> bytes:
        uri = x.frame.params.uri if x.frame.params is not None else ""
        if isinstance(error, NotFoundError):
            raise not_found(uri, x.revision, error.message) from None
        raise protocol_error(f"resource {uri}", error, {"uri": uri}) from None


class PromptMethods(CallMethods[PromptDescriptor]):
    """`prompts/get`."""

    async def get(self, x: Exchange) -> bytes | Answer | Stream:
        """Handler of `prompts/get`."""
        params = x.frame.params
        name = params.name if params is not None else None
        if type(name) is not str or params is None:
            raise McpError(INVALID_PARAMS, "params.name must be the name of a prompt")
        found = self._core.backend.catalogue.prompt(name)
        if found is None:
            raise McpError(INVALID_PARAMS, f"Unknown prompt: {name[:200]}")
        self._check_client(x, found)
        token, level = wanted(x)
        call = PromptGet(
            name=name,
            arguments=arguments_of(bytes(params.arguments)),
            call_id=self._core.new_call_id(),
            progress=token is not None and x.may_stream,
            log_level=level if x.may_stream else "",
            principal=x.principal,
        )
        return await self._serve(x, found, call, token)

    def _shaped(self, x: Exchange, offered: PromptDescriptor | None, result: ToolResult) -> bytes:
        assert offered is not None  # `get` looked it up
        return offers_shaping.messages(self._core.shapers[x.revision], result, offered)

    def _failed(self, _x: Exchange, offered: PromptDescriptor | None, error: MCPServerError, _took_s: float) -> bytes:
        raise protocol_error(f"prompt {offered.name if offered is not None else ''}", error, {}) from None


def not_found(uri: str, revision: int, message: str = "") -> McpError:
    """The error of a URI that no resource has."""
    code = INVALID_PARAMS if revision == E else RESOURCE_NOT_FOUND
    return McpError(code, message or f"Resource not found: {uri[:200]}", {"uri": uri})


# --- completion ----------------------------------------------------------------------------------------------------


class Ref(msgspec.Struct):
    """What is completed."""

    type: str
    name: str = ""
    uri: str = ""


class Argument(msgspec.Struct):
    """The argument that is being typed."""

    name: str
    value: str


class Context(msgspec.Struct):
    """What is known already."""

    arguments: dict[str, str] = {}


class CompleteParams(msgspec.Struct):
    """Params of `completion/complete`."""

    ref: Ref
    argument: Argument
    context: Context | None = None


_complete_params = msgspec.json.Decoder(CompleteParams)


class CompletionMethods:
    """`completion/complete`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def complete(self, x: Exchange) -> bytes:
        """Handler of `completion/complete`. What nothing completes has no values, which is no error."""
        params = params_as(x.body, _complete_params)
        found, known = self._found(params.ref)
        if params.argument.name not in known:
            raise McpError(INVALID_PARAMS, f"argument.name: there is no {params.argument.name[:200]!r} here")
        shaper = self._core.shapers[x.revision]
        if params.argument.name not in found.completes:
            return offers_shaping.completion(shaper, None)
        context = params.context.arguments if params.context is not None else {}
        call = CompletionAsk(
            of="prompts" if isinstance(found, PromptDescriptor) else "resources",
            name=found.name if isinstance(found, PromptDescriptor) else found.uri,
            argument=params.argument.name,
            arguments=encode({"value": params.argument.value, "arguments": context}),
            call_id=self._core.new_call_id(),
            principal=x.principal,
        )
        try:
            result = await self._core.backend.call(call, timeout_s=found.timeout_s, on_item=None)
        except MCPServerError as error:
            raise protocol_error(f"completion of {params.argument.name}", error, {}) from None
        return offers_shaping.completion(shaper, result)

    def _found(self, ref: Ref) -> tuple[PromptDescriptor | ResourceDescriptor, set[str]]:
        """What is completed, and the names of its arguments."""
        catalogue = self._core.backend.catalogue
        if ref.type == "ref/prompt":
            prompt = catalogue.prompt(ref.name)
            if prompt is not None:
                return prompt, {argument.name for argument in prompt.arguments}
            raise McpError(INVALID_PARAMS, f"Unknown prompt: {ref.name[:200]}")
        if ref.type == "ref/resource":
            resource = catalogue.template(ref.uri) or catalogue.resource(ref.uri)
            if resource is not None:
                return resource, set(UriTemplate(resource.uri).names) if resource.template else set()
            raise McpError(INVALID_PARAMS, f"Unknown resource: {ref.uri[:200]}")
        raise McpError(INVALID_PARAMS, "ref.type must be ref/prompt or ref/resource")
