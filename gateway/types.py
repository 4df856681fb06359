# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the parts of the gateway say to each other: a request, the two kinds of answer, and who gives and takes them.

The HTTP parts (`fast_lane`, `app`, `rest`) know the protocol and the tools only through `Protocol` and `Backend`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol as Interface

import msgspec

from actors.catalogue_view import CatalogueView
from actors.messages import DirectoryEntry
from actors.tool_messages import Question, ToolCall, ToolItem, ToolResult


class Request(msgspec.Struct, frozen=True, gc=False):
    """One HTTP request, complete, whichever way it came in."""

    method: str
    """Upper case."""
    headers: dict[str, str]
    """Lower-case names; ASCII values without blanks at their ends. Of a repeated header: its values joined by `, `."""
    body: bytes = b""
    peer: str = ""
    """The client's IP address; '' when there is none."""
    repeated: frozenset[str] = frozenset()
    """Names of the headers that were sent more than once."""
    principal: str = ""
    """Who was authenticated; '' when nobody had to be."""


class Answer(msgspec.Struct, frozen=True):
    """A response in one piece. The HTTP part adds `date`, `content-length` and `connection`."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class EventSource(Interface):
    """Frames of a stream, to be closed by whoever was given it, also after its end."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The frames, each complete."""
        ...

    async def aclose(self) -> None:
        """Stop the work behind the stream. Safe to call at any time, more than once."""
        ...


class Stream(msgspec.Struct, frozen=True):
    """A response as server-sent events. The HTTP part adds the framing, `cache-control` and `x-accel-buffering`."""

    status: int
    headers: list[tuple[str, str]]
    events: EventSource


class Protocol(Interface):
    """MCP, as the HTTP parts see it."""

    async def handle(self, request: Request) -> Answer | Stream:
        """Answer one request. It is cancelled when the client goes away."""
        ...

    def check_host_origin(self, request: Request) -> Answer | None:
        """The refusal of a request whose Host or Origin is not ours, else None."""
        ...


class Respondent(Interface):
    """The client of one call, whom its tool may ask. All methods may be called several times at once."""

    @property
    def wants_input(self) -> bool:
        """The call was ended because the client has to answer first; it is no failure."""
        ...

    async def ask(self, questions: list[Question], /) -> dict[str, bytes]:
        """The answers, checked: key -> JSON text. Raises `CannotAskError`, `NoAnswerError`, `BusyError`; never waits
        for longer than `questions.timeout_s`."""
        ...

    def close_stream(self) -> None:
        """End the client's connection; it comes back for the rest."""
        ...

    def url_done(self, elicitation_id: str, /) -> None:
        """What the user had to do at an address is done."""
        ...

    async def begin_task(self) -> None:
        """The call goes on as a task: its run is cancelled."""
        ...

    @property
    def became_task(self) -> bool:
        """The run was cancelled for that."""
        ...


class Backend(Interface):
    """The way to the tools."""

    @property
    def catalogue(self) -> CatalogueView:
        """What is offered now: another object after each change."""
        ...

    async def call(
        self,
        call: ToolCall,
        *,
        timeout_s: float,
        on_item: Callable[[ToolItem], object] | None = None,
        respondent: Respondent | None = None,
    ) -> ToolResult:
        """Run one tool; `respondent` answers its questions. Raises `actors.errors.MCPServerError`."""
        ...


TreeStatus = Callable[[], tuple[bool, list[DirectoryEntry], int]]
"""Says whether every permanent child is ready, lists the actors, and names the root's process id."""
