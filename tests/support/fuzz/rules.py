# SPDX-License-Identifier: AGPL-3.0-or-later
"""What must hold of every answer, and of the tree after all of them. Pure functions, so that each can be seen to fail.

A rule gives sentences about what broke it; none when it holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

import msgspec

from fuzz.forms import Step
from fuzz.reading import Answer

BY_HTTP = {400, 404, 405, 408, 413, 417, 431, 501, 505}
"""A request that was refused before anybody looked at what it asks: with our error body."""
DECLARED = {
    "mcp": {200, 202, 400, 403, 404, 405, 406, 408, 413, 421, 431, 503},
    "rest": {200, 400, 403, 404, 405, 409, 413, 421, 422, 502, 503, 504},
}
"""Which statuses the documentation has for a route; those of `BY_HTTP` may come anywhere."""
DECLARED_5XX = {501, 502, 503, 504, 505}
RPC_CODES = {-32700, -32600, -32601, -32602, -32603, -32002, -32020, -32021, -32022}
OUR_CODES = re.compile(r"[A-Z][A-Z_]{2,40}")
FAULTY = "internal error; the server's log has the details"
"""How the gateway words a fault of its own."""
TRACES = (
    b"Traceback (most recent",
    b'File "/',
    b'.py", line',
    b"site-packages",
    b"object at 0x",
    b"the-place-of-the-fault",
)


def judge(answer: Answer, step: Step, secrets: Iterable[bytes]) -> Iterator[str]:
    """What is wrong with one answer."""
    allowed = BY_HTTP | (DECLARED["mcp"] | DECLARED["rest"] if step.to == "any" else DECLARED[step.to])
    if answer.status not in allowed:
        yield f"status {answer.status} is not declared for {step.to}"
    if answer.status >= 500 and answer.status not in DECLARED_5XX:
        yield f"status {answer.status} is a fault of the server's own"
    raw = answer.body + "\n".join(answer.headers.values()).encode()
    for secret in (*TRACES, *secrets):
        if secret in raw:
            yield f"the answer holds {secret[:30]!r}"
    if not step.bodiless:
        yield from _body(answer, step)


def _body(answer: Answer, step: Step) -> Iterator[str]:
    kind = answer.headers.get("content-type", "").partition(";")[0]
    if not answer.body and (answer.status in {202, 204} or not answer.whole):
        return
    if not answer.body and answer.status == 200 and "content-type" not in answer.headers:
        return  # DELETE of a session
    if kind == "text/event-stream":
        if answer.status != 200:
            yield f"a stream with status {answer.status}"
        yield from _events(answer, step)
    elif kind == "application/json":
        yield from _json(answer, step)
    elif kind != "text/plain" or step.to == "mcp" or answer.status != 200:
        yield f"the body is {kind or 'of no type'}"


def _json(answer: Answer, step: Step) -> Iterator[str]:
    try:
        value = json.loads(answer.body.decode("utf-8"), parse_constant=_refuse)
        msgspec.json.decode(answer.body)
    except ValueError as error:
        yield f"the body is not JSON: {error}"
        return
    if isinstance(value, list) and value and step.to != "rest":
        for one in value:
            yield from _rpc(one)
    elif isinstance(value, dict) and "jsonrpc" in value:
        yield from _rpc(value)
        if step.id is not None and value.get("id", step.id) != step.id:
            yield f"the answer is to id {value.get('id')!r}, not {step.id!r}"
    elif answer.status >= 400:
        yield from _our_error(answer.status, value)
    elif step.to == "mcp":
        yield "the answer is no JSON-RPC message"


def _events(answer: Answer, step: Step) -> Iterator[str]:
    *events, left = answer.body.replace(b"\r\n", b"\n").split(b"\n\n")
    if answer.whole and left:
        yield f"the stream ends within an event: {left[:60]!r}"
    finals = 0
    for event in events:
        data = []
        for line in event.split(b"\n"):
            if line.startswith(b"data:"):
                data.append(line[5:].strip())
            elif line and not line.startswith((b":", b"event:", b"id:", b"retry:")):
                yield f"no line of an event: {line[:60]!r}"
        text = b"\n".join(data)
        if not text:
            continue
        try:
            value = msgspec.json.decode(text)
        except ValueError as error:
            yield f"an event is not JSON: {error}"
            continue
        for one in value if isinstance(value, list) else [value]:
            yield from _rpc(one)
        if isinstance(value, dict) and "method" not in value:
            finals += 1
            if step.id is not None and value.get("id", step.id) != step.id:
                yield f"the answer is to id {value.get('id')!r}, not {step.id!r}"
    if finals > 1:
        yield f"{finals} answers in one stream"


def _rpc(value: object) -> Iterator[str]:
    """One message of the server's."""
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        yield f"no JSON-RPC message: {str(value)[:80]}"
        return
    if sum(key in value for key in ("result", "error", "method")) != 1:
        yield f"a message needs one of result, error and method: {str(value)[:80]}"
    if "id" in value and (isinstance(value["id"], bool) or not isinstance(value["id"], (int, str))):
        yield f"an id may not be {value['id']!r}"
    if "error" in value:
        error = value["error"]
        if not isinstance(error, dict) or not isinstance(error.get("message"), str):
            yield f"no JSON-RPC error: {str(error)[:80]}"
        elif error.get("code") not in RPC_CODES:
            yield f"error code {error.get('code')!r} is not known"
        elif error["message"] == FAULTY:
            yield "the gateway failed while it answered"


def _our_error(status: int, value: object) -> Iterator[str]:
    """The form of all errors outside of JSON-RPC."""
    error = value.get("error") if isinstance(value, dict) else None
    if status == 503 and isinstance(value, dict) and value.get("status") == "not ready":
        return
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        yield f"an error without our error body: {str(value)[:80]}"
    elif not OUR_CODES.fullmatch(str(error.get("code"))):
        yield f"error code {error.get('code')!r} is not known"
    elif error["code"] == "INTERNAL":
        yield "the gateway failed while it answered"


def _refuse(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


class Actor(msgspec.Struct, frozen=True):
    """One process, as it was seen."""

    pid: int | None
    incarnation: int
    state: str
    restarts: int
    rss_kib: int = 0
    """Resident memory that is the process's own, in KiB."""
    files: int = 0
    """Open descriptors."""


class Snapshot(msgspec.Struct, frozen=True):
    """The tree at one moment."""

    actors: dict[str, Actor]
    incidents: int
    connections: float
    """That the gateways count as open."""
    calls: float
    """That the gateways count as running."""
    faults: list[str] = []
    """Lines of the log that tell of a fault."""


GROWTH = 0.10
GROWTH_KIB = 6 * 1024
"""What a process may grow by between 20 % of a run and its end: a share of what it had, and what caches may still take
(remembered sessions, the allocator's arenas)."""
FILES = 6
"""Descriptors more than before: connections between actors that were opened late, and the three of the file of
subscriptions, which the first one opens."""


def same_lives(before: Snapshot, after: Snapshot) -> Iterator[str]:
    """Nobody died, nobody was started again, nothing went wrong inside."""
    for name, was in before.actors.items():
        now = after.actors.get(name)
        if now is None or (was.pid, was.incarnation, was.restarts) != (now.pid, now.incarnation, now.restarts):
            yield f"{name} was {was}, and is {now}"
        elif was.state != now.state:
            yield f"{name} was {was.state}, and is {now.state}"
    if after.incidents > before.incidents:
        yield f"{after.incidents - before.incidents} incidents were recorded"
    for line in after.faults[len(before.faults) :][:10]:
        yield f"the log tells of a fault: {line[:1500]}"


def no_growth(early: Snapshot, late: Snapshot) -> Iterator[str]:
    """Memory stays where it was."""
    for name, was in early.actors.items():
        now = late.actors.get(name)
        if now is not None and was.rss_kib and now.rss_kib > was.rss_kib * (1 + GROWTH) + GROWTH_KIB:
            yield f"{name} grew from {was.rss_kib} to {now.rss_kib} KiB"


def nothing_left(before: Snapshot, after: Snapshot) -> Iterator[str]:
    """No connection, call or descriptor stays behind."""
    if after.connections > before.connections:
        yield f"{after.connections - before.connections:g} connections stay open"
    if after.calls > before.calls:
        yield f"{after.calls - before.calls:g} calls still run"
    for name, was in before.actors.items():
        now = after.actors.get(name)
        if now is not None and now.files > was.files + FILES:
            yield f"{name} had {was.files} open files and has {now.files}"
