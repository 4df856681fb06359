# SPDX-License-Identifier: AGPL-3.0-or-later
"""Questions in legacy sessions: requests of ours on the stream of the call that asks, and the answers that clients
post.

An answer is a request of its own, which may reach any gateway of the node. The id of a question names the process that
waits for it (and can't be guessed), so that another gateway passes the answer on. A question ends with its answer,
after `questions.timeout_s`, or with its call; a client that was asked in vain is told so by `notifications/cancelled`.
"""

from __future__ import annotations

import secrets
from typing import Any, Final, Protocol

import msgspec
import trio

from actors.errors import BusyError, NoAnswerError
from actors.jsonrpc import encode
from actors.settings import QuestionsSettings
from actors.tool_messages import Question, SessionNote
from actors.tool_tasks import answer_text, fingerprint
from gateway.mcp.answers import BadAnswerError, read_answer
from gateway.mcp.calls import LiveCall
from gateway.mcp.capabilities import for_revision
from gateway.mcp.jsonrpc import notification
from gateway.mcp.respondents import MayBecomeTask
from gateway.mcp.sessions import Session
from gateway.types import EventSource

_MAX_ERROR_CHARS: Final = 500


class Siblings(Protocol):
    """The other gateways of this node."""

    async def pass_on(self, gateway: int, session: bytes, answer: bytes, /) -> None:
        """Give an answer to the gateway of this incarnation, if it is still there."""
        ...

    async def spread(self, note: SessionNote, /) -> None:
        """Tell all of them. Returns when they know, or soon: one that hangs holds nobody up."""
        ...

    def resume(self, gateway: int, session: bytes, event_id: str, /) -> EventSource | None:
        """The rest of a stream of that gateway; None when it is gone."""
        ...


class _Response(msgspec.Struct):
    id: Any = None
    result: msgspec.Raw = msgspec.Raw(b"")
    error: Any = None


_response = msgspec.json.Decoder(_Response)


class Waiting:
    """One question that was sent."""

    __slots__ = ("answered", "error", "id", "question", "result", "session")

    def __init__(self, id_: str, session: bytes, question: Question) -> None:
        self.id = id_
        self.session = session
        self.question = question
        self.answered = trio.Event()
        self.result = b""
        self.error = ""


class Requests:
    """All questions that this gateway waits for."""

    def __init__(self, settings: QuestionsSettings, gateway: int, siblings: Siblings | None) -> None:
        self.settings = settings
        self._gateway = gateway
        self._siblings = siblings
        self._waiting: dict[str, Waiting] = {}
        self._open: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def open(self, session: bytes, question: Question) -> Waiting:
        """A new question. Raises `BusyError` when the session has too many."""
        count = self._open.get(session, 0)
        if count >= self.settings.max_open:
            raise BusyError(f"{count} questions wait for this client already (questions.max_open)")
        self._open[session] = count + 1
        waiting = Waiting(f"{self._gateway}-{secrets.token_hex(8)}", session, question)
        self._waiting[waiting.id] = waiting
        return waiting

    def close(self, waiting: Waiting) -> None:
        """Nobody waits for it any more."""
        if self._waiting.pop(waiting.id, None) is not None:
            left = self._open[waiting.session] - 1
            if left:
                self._open[waiting.session] = left
            else:
                del self._open[waiting.session]

    async def answered(self, session: bytes, body: bytes) -> None:
        """A client posted this response. One that nobody waits for is dropped, as the protocol wants."""
        try:
            response = _response.decode(body)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return
        if not isinstance(response.id, str):
            return
        waiting = self._waiting.get(response.id)
        if waiting is None:
            gateway = response.id.partition("-")[0]
            if self._siblings is not None and gateway.isdecimal() and int(gateway[:18]) != self._gateway:
                await self._siblings.pass_on(int(gateway[:18]), session, body)
        elif waiting.session == session:
            waiting.result = bytes(response.result)
            if response.error is not None:
                waiting.error = _in_words(response.error)
            waiting.answered.set()


class LateError(NoAnswerError):
    """The client did not answer in time."""


class SessionRespondent(MayBecomeTask):
    """The client of one call in a session (`respondents.Respondent`). Keeps answers for a second run of the call."""

    wants_input = False

    def __init__(self, requests: Requests, session: Session, live: LiveCall) -> None:
        self._requests = requests
        self._session = session
        self._live = live
        self._open: dict[tuple[str, bytes], Waiting] = {}
        self._answers: dict[tuple[str, bytes], bytes] = {}

    async def ask(self, questions: list[Question]) -> dict[str, bytes]:
        """Ask for what is not known yet, and wait for all answers."""
        names = {question.key: (question.key, fingerprint(question)) for question in questions}
        for question in questions:
            name = names[question.key]
            if name not in self._answers and name not in self._open:
                self._send(name, question)
        timeout_s = self._requests.settings.timeout_s
        with trio.move_on_after(timeout_s):
            for name in names.values():
                if name in self._open:
                    await self._open[name].answered.wait()
                    self._take(name)
        late = [name for name in names.values() if name not in self._answers]
        if late:
            for name in late:
                self._give_up(name, "no answer in time")
            raise LateError(f"the client did not answer within {timeout_s:g} s (questions.timeout_s)")
        return {key: self._answers[name] for key, name in names.items()}

    def close_stream(self) -> None:
        """End the client's connection; the call's journal has the rest."""
        self._live.hang_up()

    def url_done(self, elicitation_id: str) -> None:
        """Tell the client."""
        self._live.notify(notification("notifications/elicitation/complete", {"elicitationId": elicitation_id}))

    def answers(self) -> dict[str, str]:
        """What the client answered so far, for a task."""
        return {key: answer_text(print_, answer) for (key, print_), answer in self._answers.items()}

    def withdraw(self, question: Question) -> None:
        """The answer is not wanted any more."""
        self._give_up((question.key, fingerprint(question)), "it was answered elsewhere, or is not asked any more")

    def close(self) -> None:
        """The call is over."""
        for name in list(self._open):
            self._give_up(name, "the call has ended")

    def _send(self, name: tuple[str, bytes], question: Question) -> None:
        params = for_revision(question, self._session.revision)
        waiting = self._open[name] = self._requests.open(self._session.claims.nonce, question)
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": waiting.id, "method": question.method}
        if params:
            message["params"] = params
        self._live.notify(encode(message))

    def _take(self, name: tuple[str, bytes]) -> None:
        """Move an answer from the open ones to the known ones, if it is one."""
        waiting = self._open.pop(name, None)
        if waiting is None:
            return  # another task waited for the same one
        self._requests.close(waiting)
        if waiting.error:
            raise NoAnswerError(f"the client answered with an error: {waiting.error}")
        try:
            self._answers[name] = read_answer(waiting.question, waiting.result)
        except BadAnswerError as error:
            raise NoAnswerError(f"the client's answer does not fit: {error}") from None

    def _give_up(self, name: tuple[str, bytes], reason: str) -> None:
        waiting = self._open.pop(name, None)
        if waiting is not None:
            self._requests.close(waiting)
            self._live.notify(notification("notifications/cancelled", {"requestId": waiting.id, "reason": reason}))


def _in_words(error: object) -> str:
    """A client's JSON-RPC error, for people."""
    message = error.get("message") if isinstance(error, dict) else None
    return (message if isinstance(message, str) and message else "no message")[:_MAX_ERROR_CHARS]
