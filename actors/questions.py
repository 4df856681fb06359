# SPDX-License-Identifier: AGPL-3.0-or-later
"""The questions that a tool's context offers, and their typed answers. `actors.asking` says what a question means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar, overload

import msgspec

from actors.asking import Asker, Draft, Inquiry, Waitable, check_key
from actors.content import AudioContent, ImageContent, TextContent
from actors.errors import NoAnswerError
from actors.forms import form_schema
from actors.tool_messages import BEGIN_TASK, CLOSE_STREAM, STREAM, TASK, URL_DONE

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
Form = TypeVar("Form", bound=msgspec.Struct)

Action = Literal["accept", "decline", "cancel"]
Role = Literal["user", "assistant"]
Capability = Literal["elicitation", "elicitation.url", "sampling", "sampling.tools", "sampling.context", "roots"]
_encode = msgspec.json.Encoder().encode


def checked_capabilities(required: Sequence[str] | None) -> tuple[str, ...]:
    """What an author requires of clients. Raises ValueError for names that no client can have."""
    known = Capability.__args__  # type: ignore[attr-defined]
    unknown = set(required or ()) - set(known)
    if unknown:
        raise ValueError(f"requires names {sorted(unknown)}; clients may have {', '.join(known)}")
    return tuple(required or ())


class ElicitResult(msgspec.Struct, Generic[T], frozen=True):
    """What the user did with a form or an address. `content` is there when a form was accepted."""

    action: Action
    """`accept`; `decline`: said no; `cancel`: closed it without a choice."""
    content: T | None = None

    @property
    def accepted(self) -> bool:
        """The user agreed."""
        return self.action == "accept"


class ToolUse(msgspec.Struct, frozen=True, tag_field="type", tag="tool_use", omit_defaults=True):
    """The model wants one of the tools that it was given to be called."""

    id: str
    name: str
    input: dict[str, Any] = {}


class ToolUseResult(msgspec.Struct, frozen=True, tag_field="type", tag="tool_result", rename="camel"):
    """What a tool answered, for the model that wanted it called (`ToolUse.id`)."""

    tool_use_id: str
    content: list[TextContent | ImageContent | AudioContent]
    is_error: bool = False


SampleBlock = TextContent | ImageContent | AudioContent | ToolUse | ToolUseResult


class Message(msgspec.Struct, frozen=True):
    """One message of a conversation with a model."""

    content: str | SampleBlock | list[SampleBlock]
    role: Role = "user"


class SampleResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the client's model answered."""

    content: list[SampleBlock]
    model: str
    role: Role = "assistant"
    stop_reason: str | None = None

    @property
    def text(self) -> str:
        """All text of the answer."""
        return "".join(block.text for block in self.content if isinstance(block, TextContent))


class Root(msgspec.Struct, frozen=True):
    """A folder or file that the client works in. `uri` begins with `file://`."""

    uri: str
    name: str | None = None


class Asks:
    """The part of `ToolContext` that asks. All of it works the same for every client that can be asked."""

    @property
    def asker(self) -> Asker:
        """The way to the client."""
        raise NotImplementedError

    def can(self, capability: Capability) -> bool:
        """Whether the client can be asked this. A question that it can't be asked raises `CannotAskError`."""
        return capability in self.asker.can

    @overload
    def elicit(self, message: str, form: type[Form], *, key: str | None = None) -> Inquiry[ElicitResult[Form]]: ...
    @overload
    def elicit(
        self, message: str, form: Mapping[str, Any], *, key: str | None = None
    ) -> Inquiry[ElicitResult[dict[str, Any]]]: ...
    def elicit(
        self, message: str, form: type[msgspec.Struct] | Mapping[str, Any], *, key: str | None = None
    ) -> Inquiry[Any]:
        """Show the user a message and a form. Never ask for passwords or keys this way.

        `form` is a Struct of plain members (see `actors.forms`), whose instance is the answer's `content`; or a JSON
        Schema, whose answer is a dict. `key` names the question; give one where the order of questions may change.
        """
        params = {"mode": "form", "message": message, "requestedSchema": form_schema(form)}
        wanted: Any = form if isinstance(form, type) else dict[str, Any]
        decoder = msgspec.json.Decoder(ElicitResult[wanted])
        return self._inquiry("elicitation/create", params, key, "elicitation", decoder)

    def elicit_url(
        self, message: str, url: str, *, elicitation_id: str = "", key: str | None = None
    ) -> Inquiry[ElicitResult[None]]:
        """Send the user to an address: for secrets, payments, sign-in. `accept` means that they agreed to go there.

        `elicitation_id` names the visit, for `elicitation_complete`.
        """
        params = {"mode": "url", "message": message, "url": url}
        if elicitation_id:
            params["elicitationId"] = elicitation_id
        decoder = msgspec.json.Decoder(ElicitResult[None])
        return self._inquiry("elicitation/create", params, key, "elicitation.url", decoder)

    def sample(
        self,
        messages: str | Sequence[Message],
        max_tokens: int,
        *,
        system_prompt: str | None = None,
        temperature: float | None = None,
        stop_sequences: Sequence[str] | None = None,
        model_preferences: Mapping[str, Any] | None = None,
        include_context: Literal["none", "thisServer", "allServers"] | None = None,
        metadata: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: Literal["auto", "required", "none"] | None = None,
        key: str | None = None,
    ) -> Inquiry[SampleResult]:
        """Have the client's model answer a prompt or a conversation. `tools` are MCP tool definitions."""
        talk = [Message(messages)] if isinstance(messages, str) else list(messages)
        given = {
            "messages": [{"role": message.role, "content": _content(message.content)} for message in talk],
            "maxTokens": max_tokens,
            "systemPrompt": system_prompt,
            "temperature": temperature,
            "stopSequences": None if stop_sequences is None else list(stop_sequences),
            "modelPreferences": model_preferences,
            "includeContext": include_context,
            "metadata": metadata,
            "tools": None if tools is None else list(tools),
            "toolChoice": None if tool_choice is None else {"mode": tool_choice},
        }
        params = {name: value for name, value in given.items() if value is not None}
        needs = "sampling"
        if tools is not None or tool_choice is not None:
            needs = "sampling.tools"
        elif include_context in {"thisServer", "allServers"}:
            needs = "sampling.context"
        draft = _draft("sampling/createMessage", params, key, needs)
        return Inquiry(self.asker, [draft], lambda answers: _sampled(answers[0]))

    def roots(self, *, key: str | None = None) -> Inquiry[list[Root]]:
        """The folders and files that the client works in."""
        draft = _draft("roots/list", {}, key, "roots")
        return Inquiry(self.asker, [draft], lambda answers: _decoded(_roots, answers[0]).roots)

    @overload
    def ask_all(self, one: Inquiry[T1], two: Inquiry[T2], /) -> Inquiry[tuple[T1, T2]]: ...
    @overload
    def ask_all(self, one: Inquiry[T1], two: Inquiry[T2], three: Inquiry[T3], /) -> Inquiry[tuple[T1, T2, T3]]: ...
    @overload
    def ask_all(self, *inquiries: Inquiry[Any]) -> Inquiry[tuple[Any, ...]]: ...
    def ask_all(self, *inquiries: Inquiry[Any]) -> Inquiry[Any]:
        """Several questions at once; the answers in their order."""

        def read(answers: list[bytes]) -> tuple[Any, ...]:
            rest = iter(answers)
            return tuple(inquiry.read([next(rest) for _ in inquiry.drafts]) for inquiry in inquiries)

        return Inquiry(self.asker, [draft for inquiry in inquiries for draft in inquiry.drafts], read)

    def elicitation_complete(self, elicitation_id: str) -> Waitable[None]:
        """Tell the client that what the user had to do at an address is done, if this client wants to know."""

        async def tell() -> None:
            if self.can("elicitation.url"):
                await self.asker.tell(URL_DONE, msgspec.Raw(msgspec.msgpack.encode(elicitation_id)))

        return Waitable(self.asker, tell)

    def close_stream(self) -> Waitable[None]:
        """End the client's connection and let it come back for the rest, where its revision allows that.

        For a tool that takes long: nobody on the way has to hold a silent connection.
        """

        async def tell() -> None:
            if STREAM in self.asker.can:
                await self.asker.tell(CLOSE_STREAM, None)

        return Waitable(self.asker, tell)

    def begin_task(self) -> Waitable[None]:
        """From here on it is work: a call that can be a task becomes one. For tools marked `begins_task`.

        The run that says it ends here; the tool is run again from its start, in the task, where this returns at once,
        as it does where the call can be no task. So nothing may take effect before it.
        """

        async def tell() -> None:
            if TASK in self.asker.can:
                await self.asker.tell(BEGIN_TASK, None)

        return Waitable(self.asker, tell)

    def _inquiry(
        self, method: Literal["elicitation/create"], params: dict[str, Any], key: str | None, needs: str,
        decoder: msgspec.json.Decoder[T],
    ) -> Inquiry[T]:  # fmt: skip
        return Inquiry(self.asker, [_draft(method, params, key, needs)], lambda answers: _decoded(decoder, answers[0]))


class _Roots(msgspec.Struct):
    roots: list[Root]


class _Sampled(msgspec.Struct, rename="camel"):
    content: SampleBlock | list[SampleBlock]
    model: str
    role: Role = "assistant"
    stop_reason: str | None = None


_roots = msgspec.json.Decoder(_Roots)
_sample = msgspec.json.Decoder(_Sampled)


def _draft(method: Any, params: Mapping[str, Any], key: str | None, needs: str) -> Draft:  # noqa: ANN401 - a literal
    check_key(key)
    return Draft(method, _encode(params), key, needs)


def _content(content: str | SampleBlock | list[SampleBlock]) -> object:
    return TextContent(content) if isinstance(content, str) else content


def _decoded(decoder: msgspec.json.Decoder[T], answer: bytes) -> T:
    try:
        return decoder.decode(answer)
    except msgspec.MsgspecError as error:
        raise NoAnswerError(f"the client's answer is not what was asked for: {error}") from None


def _sampled(answer: bytes) -> SampleResult:
    said = _decoded(_sample, answer)
    blocks = said.content if isinstance(said.content, list) else [said.content]
    return SampleResult(content=blocks, model=said.model, role=said.role, stop_reason=said.stop_reason)
