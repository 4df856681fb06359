# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a handler needs whose work may ask the client: tools/call, and the other two methods that may (prompts/get,
resources/read).

    can = can_of(x)                                       # what this client can be asked
    rounds = dialogues.rounds.open(x, name, arguments)    # 2026-07-28: the work runs within `rounds.run(...)`
    live, respondent = dialogues.open_live(x, can)        # sessions: a live call, and its client
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial

from actors.errors import CannotAskError, UrlRequiredError
from actors.settings import Settings
from gateway.mcp.calls import STREAM_AFTER_S, LiveCall
from gateway.mcp.capabilities import Can, can_be_asked, declared_in, missing_capability
from gateway.mcp.eras import D, E
from gateway.mcp.exchange import Core, Exchange
from gateway.mcp.jsonrpc import URL_REQUIRED, McpError
from gateway.mcp.requests import Requests, SessionRespondent
from gateway.mcp.rounds import RoundKeeper, Rounds
from gateway.mcp.streams import StreamStore
from gateway.types import Answer, Respondent, Stream


class Dialogues:
    """Opens the ways to clients. One per gateway."""

    def __init__(self, settings: Settings, rounds: RoundKeeper, requests: Requests, streams: StreamStore) -> None:
        self.rounds = rounds
        self.requests = requests
        self.streams = streams
        self._stream_after_s = settings.streams.stream_after_s

    def open_live(self, x: Exchange, can: Can) -> tuple[LiveCall, SessionRespondent | None]:
        """A live call, and its client if that can be asked while it runs."""
        session = x.session
        if session is None:
            return LiveCall(), None
        resumable = session.revision == D
        journal = self.streams.open(session.claims.nonce, x.id_json, primed=resumable)
        after_s = self._stream_after_s if resumable else STREAM_AFTER_S
        live = LiveCall(journal, stream_after_s=after_s if x.may_stream else math.inf)
        return live, SessionRespondent(self.requests, session, live) if can else None


async def run_live(
    core: Core,
    x: Exchange,
    live: LiveCall,
    asked: SessionRespondent | None,
    work: Callable[[], Awaitable[Answer]],
    name: str,
) -> Answer | Stream:
    """Do the work of a live call in a task of its own. `asked`: the client that it may ask while it runs."""
    session, id_ = x.session, x.frame.id
    if core.nursery is None:
        raise RuntimeError("Protocol.running() must be entered before calls are handled")

    async def task() -> None:
        try:
            await live.run(work if asked is None else partial(_closing, asked, work))
        finally:
            if session is not None and session.calls.get(id_) is live.scope:
                del session.calls[id_]

    if session is not None:
        session.calls[id_] = live.scope
    core.nursery.start_soon(task, name=name)
    answer = await live.answer()
    return answer if answer is not None else core.cancelled(x.id_json)


async def _closing(asked: SessionRespondent, work: Callable[[], Awaitable[Answer]]) -> Answer:
    """Do the work; then nobody waits for answers any more."""
    try:
        return await work()
    finally:
        asked.close()


def can_of(x: Exchange) -> Can:
    """What the client of this request can be asked."""
    if x.session is not None:
        return can_be_asked(x.session.declared, x.revision)
    meta = x.frame.params.meta if x.frame.params is not None else None
    return can_be_asked(declared_in(meta.capabilities if meta is not None else {}), E)


def asked_instead(
    revision: int, can: Can, error: CannotAskError | UrlRequiredError, respondent: Respondent | None
) -> bytes | None:
    """What becomes of an error about asking, where the revision has words of its own for it. Raises `McpError`."""
    if isinstance(error, CannotAskError):
        if revision == E:
            raise missing_capability(error.message, error.details.get("capabilities")) from None
    elif "elicitation.url" in can:
        if isinstance(respondent, Rounds):
            return respondent.require_url(error.message, error.url)
        visit = {"mode": "url", "elicitationId": error.elicitation_id, "url": error.url, "message": error.message}
        raise McpError(URL_REQUIRED, error.message, {"elicitations": [visit]}) from None
    return None
