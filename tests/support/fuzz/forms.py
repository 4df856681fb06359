# SPDX-License-Identifier: AGPL-3.0-or-later
"""Bodies as HTTP requests: right heads, abused heads, chunks right and wrong, and what is no HTTP at all.

A *sound* request has a framing that both sides read in the same way, whatever it holds: it must be answered once. Of
others any declared answer may come, or none, and nothing follows them on their connection.
"""

from __future__ import annotations

import base64
from random import Random

import msgspec

from fuzz.messages import FORGED, MODERN, TOOLS, VERSIONS, batch, damaged, encoded, message, mutated

SESSION = "<session %s>"
"""Stands for a live session's id in a head; `driver` puts it in."""
HOST = "127.0.0.1"
Lines = list[tuple[str, str]]
TARGETS = [
    "/tools", "/tools?limit=2", "/tools?limit=-1", "/tools?limit=9e9", "/tools?offset=%00&x=" + "y" * 900, "/mcp/",
    "/tools/%2e%2e", "/tools/" + "z" * 3000, "/tools/%ff%fe", "/openapi.json", "/healthz", "/readyz", "/metrics", "/no",
    "/", "//", "/tools/echo", "/mcp?x=1", "/%", "/a\\b", "/tools/echo/", "/.git/config",
]  # fmt: skip


class Step(msgspec.Struct, frozen=True):
    """What is sent at once, and what must come back."""

    data: bytes
    sound: bool = True
    requests: int = 1
    to: str = "mcp"
    """`mcp`, `rest`, or `any` when it is not clear whom it reaches."""
    bodiless: bool = False
    """The answer to HEAD."""
    id: int | str | None = None
    """The id that the answer must carry; None = not known."""
    cuts: tuple[int, ...] = ()
    """Where the data is cut into pieces that are sent one by one."""


def mcp(rng: Random) -> Step:
    """A POST to the endpoint with a sound framing; its body and headers may be anything."""
    revision = rng.randrange(5)
    body: object = message(rng, revision)
    right = rng.random() < 0.3
    lines = headers(rng, revision, body)
    id_ = body.get("id") if right and isinstance(body, dict) else None
    if not right:
        if rng.random() < 0.08:
            body = batch(rng, revision)
        elif rng.random() < 0.6:
            body = mutated(rng, body)
    text = encoded(rng, body)
    if not right and rng.random() < 0.25:
        text = damaged(rng, text)
    if not right and rng.random() < 0.35:
        lines = abused(rng, lines)
    return framed(rng, "POST /mcp HTTP/1.1", lines, text, id_=id_)


def headers(rng: Random, revision: int, body: object) -> Lines:
    """The headers that belong to a message."""
    lines = [("Host", HOST), ("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream")]
    params = body.get("params", {}) if isinstance(body, dict) else {}
    method = str(body.get("method")) if isinstance(body, dict) else ""
    if revision == MODERN:
        lines += [("MCP-Protocol-Version", VERSIONS[MODERN]), ("Mcp-Method", method)]
        name = params.get("uri" if method == "resources/read" else "name")
        if isinstance(name, str):
            wrapped = "=?base64?" + base64.b64encode(name.encode()).decode() + "?="
            lines.append(("Mcp-Name", wrapped if rng.random() < 0.1 else name))
        if name == "fuzz_routed" and rng.random() < 0.8:
            lines += [("Mcp-Param-Region", "north"), ("Mcp-Param-Count", "3"), ("Mcp-Param-Flag", "true")]
    else:
        if method != "initialize":
            lines.append(("Mcp-Session-Id", SESSION % VERSIONS[revision]))
        if rng.random() < 0.8:
            lines.append(("MCP-Protocol-Version", VERSIONS[revision]))
    return lines


def abused(rng: Random, lines: Lines) -> Lines:
    """The same headers with something wrong, none of it in the framing."""
    lines = list(lines)
    at = rng.randrange(len(lines))
    name, value = lines[at]
    match rng.randrange(13):
        case 0:
            del lines[at]
        case 1:
            lines.append((name.upper(), rng.choice([value, value + "x", ""])))
        case 2:
            lines[at] = (
                name,
                rng.choice(["", value + "x", value.upper(), " " + value + "\t", "a, b", "*", "\x7f", "é"]),
            )
        case 3:
            lines.append(("X-Long", "y" * rng.choice([1000, 8000, 17000, 40000])))
        case 4:
            lines += [(f"X-Many-{n}", "1") for n in range(rng.choice([20, 300, 2000]))]
        case 5:
            forged = rng.choice([*FORGED, SESSION % rng.choice(VERSIONS[:4]), SESSION % VERSIONS[1] + "A"])
            lines.append(("Mcp-Session-Id", forged))
        case 6:
            lines.append(("Last-Event-ID", rng.choice([*FORGED, "1", "-1", "0-0"])))
        case 7:
            lines[0] = ("Host", rng.choice(["evil.example", "localhost:99999999", "[::1", "", "127.0.0.1@evil", "a b"]))
        case 8:
            lines.append(
                ("Origin", rng.choice(["http://evil.example", "null", "http://localhost", "http://[", "x" * 300]))
            )
        case 9:
            kinds = [
                "*/*",
                "text/html",
                "application/json",
                "text/event-stream",
                "application/json;q=0",
                ",;,",
                "a/b;" * 400,
            ]
            lines.append(("Accept", rng.choice(kinds)))
        case 10:
            kinds = [
                "text/plain",
                "application/json; charset=latin-1",
                "multipart/form-data; boundary=x",
                "application/JSON",
            ]
            lines[1] = ("Content-Type", rng.choice(kinds))
        case 11:
            lines.append(("MCP-Protocol-Version", rng.choice([*VERSIONS, "v999.0.0", "", "2026-07-28, 2026-07-28"])))
        case _:
            lines.append(("Mcp-Param-Region", rng.choice(["=?base64?bm9ydGg=?=", "=?base64?b?=", "south", ""])))
    return lines


def head(start: str, lines: Lines) -> bytes:
    """A head as bytes."""
    return "".join([start, "\r\n", *(f"{name}: {value}\r\n" for name, value in lines), "\r\n"]).encode("utf-8")


def framed(rng: Random, start: str, lines: Lines, body: bytes, *, id_: object = None, to: str = "mcp") -> Step:
    """With a length or in chunks; the second, and a header twice, take hypercorn's way."""
    if rng.random() < 0.3:
        lines = [*lines, ("X-Way", "a"), ("X-Way", "b")]
    if rng.random() < 0.05:
        lines = [*lines, ("Upgrade", rng.choice(["websocket", "h2c", "x/1"])), ("Connection", "Upgrade")]
    if rng.random() < 0.2:
        data = head(start, [*lines, ("Transfer-Encoding", "chunked")]) + chunked(rng, body)
    else:
        data = head(start, [*lines, ("Content-Length", str(len(body)))]) + body
    cuts: tuple[int, ...] = ()
    if rng.random() < 0.15:
        cuts = tuple(sorted(rng.randrange(1, len(data)) for _ in range(rng.choice([1, 2, 6]))))
    return Step(data, to=to, id=id_ if isinstance(id_, (int, str)) else None, cuts=cuts)  # type: ignore[arg-type]


def chunked(rng: Random, body: bytes) -> bytes:
    """A body in chunks, some with extensions, perhaps with a trailer."""
    parts, at = [], 0
    while at < len(body):
        size = rng.choice([1, 7, 100, 5000])
        piece = body[at : at + size]
        at += size
        parts.append(b"%x%b\r\n%b\r\n" % (len(piece), rng.choice([b"", b"", b";a=b"]), piece))
    return b"".join(parts) + b"0\r\n" + rng.choice([b"", b"", b"X-Trailer: 1\r\n"]) + b"\r\n"


def rest(rng: Random) -> Step:
    """What the other routes serve."""
    lines: Lines = [("Host", HOST)]
    if rng.random() < 0.5:
        tool = rng.choice(list(TOOLS))
        body: object = {"tool": tool, "args": TOOLS[tool]}
        if rng.random() < 0.6:
            body = mutated(rng, body)
        text = encoded(rng, body)
        if rng.random() < 0.2:
            text = damaged(rng, text)
        return framed(
            rng, "POST /tools/execute HTTP/1.1", [*lines, ("Content-Type", "application/json")], text, to="rest"
        )
    target = rng.choice(TARGETS)
    if rng.random() < 0.3:
        lines = abused(rng, [*lines, ("Accept", "*/*")])
    return Step(head(f"GET {target} HTTP/1.1", lines), to="any" if "/mcp" in target else "rest")


def session_verb(rng: Random) -> Step:
    """GET and DELETE of sessions, and other verbs."""
    verb = rng.choice(["GET", "GET", "GET", "DELETE", "PUT", "OPTIONS", "PATCH", "HEAD"])
    version = rng.choice(VERSIONS[:4])
    token = rng.choice([SESSION % version, SESSION % version, *FORGED[:3]])
    lines = [("Host", HOST), ("Accept", "text/event-stream"), ("Mcp-Session-Id", token)]
    if rng.random() < 0.5:
        lines.append(("Last-Event-ID", rng.choice(FORGED)))
    if rng.random() < 0.2:
        lines = abused(rng, lines)
    return Step(head(f"{verb} /mcp HTTP/1.1", lines), bodiless=verb == "HEAD")


def unsound(rng: Random) -> Step:
    """What can be read in more than one way, or is no HTTP."""
    body = encoded(rng, message(rng, MODERN))
    lines = headers(rng, MODERN, {})
    size = len(body)
    match rng.randrange(14):
        case 0:
            start = rng.choice(
                ["POST  /mcp HTTP/1.1", "POST /mcp", "POST /mcp HTTP/9.9", "post /mcp HTTP/1.1", "\tPOST /mcp HTTP/1.1"]
            )
            data = head(start, [*lines, ("Content-Length", str(size))]) + body
        case 1:
            wrong = rng.choice(
                ["-1", "+5", "0x10", "1e3", "9" * 30, "", str(size + 9), str(max(0, size - 9)), f"{size}, {size}"]
            )
            data = head("POST /mcp HTTP/1.1", [*lines, ("Content-Length", wrong)]) + body
        case 2:
            both = [
                ("Content-Length", str(size)),
                ("Transfer-Encoding", rng.choice(["chunked", "gzip", "x", "chunked, chunked"])),
            ]
            data = head("POST /mcp HTTP/1.1", [*lines, *both]) + body
        case 3:
            whole = chunked(rng, body)
            at = rng.randrange(len(whole))
            data = (
                head("POST /mcp HTTP/1.1", [*lines, ("Transfer-Encoding", "chunked")]) + whole[:at] + b"zz" + whole[at:]
            )
        case 4:
            data = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]) * rng.choice([1, 50])
        case 5:
            data = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(200)
        case 6:
            data = rng.randbytes(rng.choice([1, 20, 3000]))
        case 7:
            line = rng.choice(["X Y: 1", ": 1", "X:\x00", " folded: 1", "X: a\r\n b", "X", "é: 1", "X\t: 1"])
            data = head("POST /mcp HTTP/1.1\r\n" + line, [*lines, ("Content-Length", str(size))]) + body
        case 8:
            data = head("POST /mcp HTTP/1.1", [*lines, ("Content-Length", str(size))]).replace(b"\r\n", b"\n") + body
        case 9:
            target = rng.choice(
                ["http://127.0.0.1/mcp", "*", "/mcp#x", "/\x00", "/é", "mcp", "/mcp" + "?" * 20000, "evil:80"]
            )
            verb = rng.choice(["POST", "GET", "CONNECT", "TRACE", "BREW", "PRI", "M-SEARCH"])
            data = head(f"{verb} {target} HTTP/1.1", [*lines, ("Content-Length", str(size))]) + body
        case 10:
            upgrade = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")]
            data = (
                head("GET /mcp HTTP/1.1", [("Host", HOST), *upgrade, ("Sec-WebSocket-Key", "AAAA")])
                + b"\x81\x05hello" * 3
            )
        case 11:
            h2c = [
                ("Upgrade", "h2c"),
                ("Connection", "Upgrade, HTTP2-Settings"),
                ("HTTP2-Settings", rng.choice(["", "%%", "AAMAAABk"])),
            ]
            data = head("POST /mcp HTTP/1.1", [*lines, *h2c, ("Content-Length", str(size))]) + body
        case 12:
            expect = ("Expect", rng.choice(["100-continue", "200-ok", "100-Continue, x"]))
            data = (
                head("POST /mcp HTTP/1.1", [*lines, expect, ("Content-Length", str(rng.choice([size, 10**9])))]) + body
            )
        case _:
            data = head(rng.choice(["POST /mcp HTTP/1.0", "GET /healthz HTTP/1.0", "HEAD /tools HTTP/1.0"]), lines)
    return Step(data, sound=False, to="any", bodiless=data.startswith(b"HEAD"))


def pipelined(rng: Random) -> Step:
    """Several sound requests at once, each answered in turn."""
    steps = [mcp(rng) for _ in range(rng.choice([2, 3, 6]))]
    return Step(b"".join(step.data for step in steps), requests=len(steps), to="mcp")


def cut_off(rng: Random) -> Step:
    """A request of which the end never comes."""
    data = mcp(rng).data
    return Step(data[: rng.randrange(1, len(data))], sound=False, to="any")
