# SPDX-License-Identifier: AGPL-3.0-or-later
"""Questions at revision 2026-07-28: a call that needs an answer ends with the question (`input_required`), and the
client sends the call again, with the answer. (The specification calls it MRTR.)

Nothing of it is kept here. All that is known of a call's earlier rounds travels in `requestState`, signed, bound to who
asks and what for, and soon stale; so any gateway can go on, and any process may die between two rounds.
An answer counts for the very question that it was given to: when the next run asks something else under the same key,
the client is asked again. Answers without a state (a client may know the keys beforehand) count for whatever is asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import trio

from actors.errors import NoAnswerError
from actors.jsonrpc import INVALID_PARAMS
from actors.settings import QuestionsSettings
from actors.tool_messages import Question
from actors.tool_tasks import answer_text, fingerprint
from gateway.mcp.answers import BadAnswerError, read_answer
from gateway.mcp.capabilities import for_revision
from gateway.mcp.eras import E
from gateway.mcp.exchange import Core, Exchange
from gateway.mcp.jsonrpc import McpError, params_as
from gateway.mcp.respondents import MayBecomeTask
from gateway.mcp.tokens import Signer

_PURPOSE: Final = b"greenroom mcp request state 1\n"
_CLOCK_SLACK_S: Final = 300
"""A state may come from this far in the future: another gateway's clock."""


class RoundParams(msgspec.Struct, rename="camel"):
    """What a client that comes back adds to the params of its call. null is as good as nothing."""

    input_responses: dict[str, msgspec.Raw] | None = None
    request_state: str | None = None


class State(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What `requestState` holds."""

    subject: bytes
    """Digest of who asks what; a state is good for nothing else."""
    issued_at: int
    """Seconds since 1970."""
    rounds: int
    """Times that the client was asked."""
    asked: dict[str, bytes]
    """Key -> fingerprint of the questions that were asked last."""
    answered: dict[str, tuple[bytes, bytes]]
    """Key -> fingerprint of an earlier question, and its answer."""


_round_params = msgspec.json.Decoder(RoundParams)
_state = msgspec.msgpack.Decoder(State)


class RoundKeeper:
    """Opens the rounds of calls. One per gateway."""

    def __init__(self, core: Core, settings: QuestionsSettings, now: Callable[[], float]) -> None:
        self.core = core
        self.settings = settings
        self.now = now
        # base64 makes four characters of three bytes.
        self.signer = Signer(core.secret, _PURPOSE, 2 * settings.max_state_bytes)

    def open(self, x: Exchange, target: str, arguments: bytes) -> Rounds:
        """The rounds of this request. `target` is the name or URI that it is for, `arguments` a JSON object.

        Raises -32602 for a state that is not ours, not this call's, or stale.
        """
        params = params_as(x.body, _round_params)
        given = params.input_responses or {}
        subject = _subject(x, target, arguments)
        state = State(subject, 0, 0, {}, {})
        if params.request_state is None:
            return Rounds(self, state, {key: (None, bytes(raw)) for key, raw in given.items()})
        state = self._read(params.request_state, subject)
        answers = {key: (state.asked[key], bytes(raw)) for key, raw in given.items() if key in state.asked}
        return Rounds(self, state, {**state.answered, **answers})

    def _read(self, text: str, subject: bytes) -> State:
        payload = self.signer.open(text)
        try:
            state = None if payload is None else _state.decode(payload)
        except msgspec.MsgspecError:
            state = None
        if state is None or state.subject != subject:
            raise McpError(INVALID_PARAMS, "requestState is not what this call was answered with; start again without")
        if not -_CLOCK_SLACK_S <= self.now() - state.issued_at <= self.settings.state_max_age_s:
            raise McpError(INVALID_PARAMS, "requestState is too old; start again without it")
        return state


class Rounds(MayBecomeTask):
    """The client of one call (`respondents.Respondent`), with what it answered so far."""

    def __init__(self, keeper: RoundKeeper, state: State, answers: dict[str, tuple[bytes | None, bytes]]) -> None:
        self._keeper = keeper
        self._state = state
        self._answers = answers
        self._used: dict[str, tuple[bytes, bytes]] = {}
        self._open: dict[str, Question] = {}
        self._scope = trio.CancelScope()

    @property
    def wants_input(self) -> bool:
        """Whether the call was ended by a question."""
        return bool(self._open)

    async def run(self, work: Callable[[], Awaitable[bytes]]) -> bytes:
        """The JSON of the call's result, or of the questions that come before it. `work` calls the backend with this
        object as the respondent."""
        with self._scope:
            return await work()
        return self._questions()

    async def ask(self, questions: list[Question]) -> dict[str, bytes]:
        """The answers that the client gave; when one is missing the call ends here."""
        found: dict[str, bytes] = {}
        lacking: list[Question] = []
        for question in questions:
            answer = self._answer(question)
            if answer is None:
                lacking.append(question)
            else:
                found[question.key] = answer
        if not lacking:
            return found
        if self._state.rounds >= self._keeper.settings.max_rounds:
            raise NoAnswerError(f"the client was asked {self._state.rounds} times (questions.max_rounds)")
        self._open |= {question.key: question for question in lacking}
        self._scope.cancel()
        return await trio.sleep_forever()

    def close_stream(self) -> None:
        """Streams can't be resumed at this revision."""

    def url_done(self, elicitation_id: str) -> None:
        """This revision has no such notice: the next round tells."""

    def answers(self) -> dict[str, str]:
        """What the client answered to the questions of this run, for a task."""
        return {key: answer_text(print_, answer) for key, (print_, answer) in self._used.items()}

    def require_url(self, message: str, url: str) -> bytes:
        """The call failed because the user has to visit an address first: ask for that."""
        self._used.clear()
        params = msgspec.json.encode({"mode": "url", "message": message, "url": url})
        question = Question(key="url", method="elicitation/create", params=params)
        self._open = {question.key: question}
        return self._questions()

    def _answer(self, question: Question) -> bytes | None:
        print_ = fingerprint(question)
        known, answer = self._answers.get(question.key, (None, b""))
        if not answer or (known is not None and known != print_):
            return None
        try:
            checked = read_answer(question, answer)
        except BadAnswerError:
            return None
        self._used[question.key] = (print_, checked)
        return checked

    def _questions(self) -> bytes:
        """The result `input_required`."""
        keeper = self._keeper
        state = State(
            self._state.subject,
            int(keeper.now()),
            self._state.rounds + 1,
            {key: fingerprint(question) for key, question in self._open.items()},
            self._used,
        )
        sealed = keeper.signer.seal(msgspec.msgpack.encode(state))
        if len(sealed) > keeper.settings.max_state_bytes:
            raise McpError(
                INVALID_PARAMS,
                f"the answers so far take {len(sealed)} bytes; a call may carry {keeper.settings.max_state_bytes} "
                "(questions.max_state_bytes)",
            )
        requests: dict[str, Any] = {}
        for key, question in self._open.items():
            requests[key] = {"method": question.method, "params": for_revision(question, E)}
        members: dict[str, object] = {"resultType": "input_required", "inputRequests": requests, "requestState": sealed}
        return keeper.core.shapers[E].result(members)


def _subject(x: Exchange, target: str, arguments: bytes) -> bytes:
    """Digest of what a state is bound to. Clients may write the same arguments in another order."""
    try:
        canonical = msgspec.json.encode(msgspec.json.decode(arguments), order="deterministic")
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as problem:
        raise McpError(INVALID_PARAMS, f"arguments: {problem}") from None
    parts = [x.principal, x.frame.method, target]
    return hashlib.sha256(msgspec.msgpack.encode([*parts, canonical])).digest()[:16]
