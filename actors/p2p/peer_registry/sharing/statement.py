# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a node signs when it has run a task of another one, and how that is checked."""

from __future__ import annotations

from typing import Final

import msgspec

from actors.errors import MCPServerError
from actors.messages import ErrorInfo
from actors.p2p.cids import cid_text, raw_link
from actors.p2p.identity import NodeSigner, verify
from actors.p2p.peer_registry.link.messages import Offer, Problem, TaskResult
from actors.task_links import output_of

_PURPOSE: Final = "greenroom/task-result/1"
"""A signature for this is none for anything else."""
_encode = msgspec.msgpack.Encoder().encode


class LieError(MCPServerError):
    """A peer says what is not so: what it signed does not fit what it was given, or was not signed by it."""

    code = "PEER_LIED"


def content_id(data: bytes) -> str:
    """The CID of these bytes, as one raw block."""
    return cid_text(raw_link(data))


def value_link(output: str) -> bytes:
    """The CID of the value that a tool's result holds, as a workflow's step has it. Raises `ValueError`."""
    try:
        return raw_link(msgspec.json.encode(output_of(output)))
    except (RecursionError, msgspec.MsgspecError) as error:
        raise ValueError(f"the result can't be read: {error}") from None


def made_result(signer: NodeSigner, origin: str, offer: Offer, output: str, error: ErrorInfo | None) -> TaskResult:
    """The signed result of a task that was run here."""
    problem = None if error is None else as_problem(error)
    told = output if problem is None else None
    output_cid = content_id(_outcome(told, problem))
    text = _statement(origin, signer.peer, offer.task_id, offer.token, offer.input_cid, output_cid, problem is None)
    return TaskResult(
        task_id=offer.task_id,
        token=offer.token,
        input_cid=offer.input_cid,
        output=told,
        error=problem,
        output_cid=output_cid,
        signature=signer.sign(text),
    )


def check_result(result: TaskResult, origin: str, peer: str, input_cid: str) -> None:
    """Raises `LieError` unless `peer` signed just this for `origin`, about just this input."""
    if result.input_cid != input_cid:
        raise LieError("the result is about another input")
    if result.output_cid != content_id(_outcome(result.output, result.error)):
        raise LieError("the result is not what its CID says")
    text = _statement(
        origin, peer, result.task_id, result.token, result.input_cid, result.output_cid, result.error is None
    )
    if not verify(peer, text, result.signature):
        raise LieError("the result is not signed by the peer")


def as_problem(error: ErrorInfo) -> Problem:
    """An error as it is told to another node: without details, and cut."""
    return Problem(error.code[:64] or "INTERNAL", error.message[:2000], error.retryable)


def as_error(problem: Problem) -> ErrorInfo:
    """The same here."""
    return ErrorInfo(code=problem.code, message=problem.message, retryable=problem.retryable)


def _outcome(output: str | None, error: Problem | None) -> bytes:
    return (output or "").encode() if error is None else _encode(error)


def _statement(
    origin: str, peer: str, task_id: str, token: int, input_cid: str, output_cid: str, success: bool
) -> bytes:
    return _encode([_PURPOSE, origin, peer, task_id, token, input_cid, output_cid, success])
