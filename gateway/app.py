# SPDX-License-Identifier: AGPL-3.0-or-later
"""The Quart application: MCP for whatever the fast lane hands over, REST, health, metrics, the OpenAPI document.

Every route checks Host and Origin first. Errors are JSON in one form, also 404 and 405. The application holds no
state and starts nothing in Quart's nursery.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, cast

import msgspec
import trio
from quart import Response, g, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from actors.messages import State
from actors.peers import is_spare
from actors.settings import ServerSettings
from gateway import rest, wire
from gateway.legacy_sse import MESSAGES_PATH, STREAM_PATH, LegacySse
from gateway.metrics import Metrics
from gateway.types import Answer, Backend, Protocol, Request, Stream, TreeStatus

CLOSE_S = 1.0
"""Time for the work behind a stream to stop."""

Authorize = Callable[[Request], Answer | str]
"""Gives the refusal of a request, or who sends it ('' when nobody had to say)."""

Asgi = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]
"""An ASGI application: scope, receive, send."""

_OPEN = frozenset({"healthz", "readyz", "mcp"})
"""Routes outside of `authorize`: probes carry no credentials, and MCP authorizes by itself."""

_STREAMS = "greenroom.streams"
"""Those of one request, in its ASGI scope."""

_log = logging.getLogger(__name__)


def create_app(
    protocol: Protocol,
    backend: Backend,
    settings: ServerSettings,
    metrics: Metrics,
    tree_status: TreeStatus,
    *,
    authorize: Authorize | None = None,
    legacy_sse: LegacySse | None = None,
) -> QuartTrio:
    """Build the application. `backend` is called by REST only; MCP has its own way to the tools. `legacy_sse`: serve
    the old transport as well."""
    metrics.tree_status = tree_status
    app = QuartTrio("gateway.app", static_folder=None)
    # The limits are kept by `gateway.hardening`, before Quart sees a byte; this one is a second line.
    app.config.update(MAX_CONTENT_LENGTH=settings.max_body_bytes, BODY_TIMEOUT=None, RESPONSE_TIMEOUT=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.asgi_app = _closing_streams(app.asgi_app)  # type: ignore[assignment, method-assign]

    @app.before_request
    async def admit() -> Response | None:
        g.incoming = incoming = _incoming()
        refusal = protocol.check_host_origin(incoming)
        g.principal = ""
        if refusal is None and authorize is not None and request.endpoint not in _OPEN:
            verdict = authorize(incoming)
            if isinstance(verdict, str):
                g.principal = verdict
            else:
                refusal = verdict
        return None if refusal is None else respond(refusal)

    @app.after_request
    async def finish(response: Response) -> Response:
        # hypercorn ends a connection, without having said so, whose request was answered before its body was read.
        with contextlib.suppress(HTTPException):
            await request.get_data(cache=False, as_text=False, parse_form_data=False)
        metrics.count_request("handed", response.status_code)
        return response

    @app.errorhandler(HTTPException)
    async def http_error(error: HTTPException) -> Response:
        status = error.code or 500
        headers = []
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            headers = [("allow", ", ".join(sorted(error.valid_methods)))]
        code = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "BODY_TOO_LARGE"}.get(status, "HTTP_ERROR")
        return respond(wire.error_answer(status, code, _explain(status, error), headers))

    @app.errorhandler(Exception)
    async def fault(error: Exception) -> Response:
        _log.error("a request failed", exc_info=error)
        return respond(wire.error_answer(500, "INTERNAL", "internal error; the server's log has the details"))

    # MCP decides itself which methods it takes, so that both ways give the same answer to all of them.
    @app.route("/mcp", endpoint="mcp", methods=["GET", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"])
    async def mcp() -> Response:
        body = await request.get_data(cache=False, as_text=False, parse_form_data=False)
        answer = await protocol.handle(msgspec.structs.replace(g.incoming, body=bytes(body)))
        return respond(answer)

    if legacy_sse is not None:
        _add_legacy_sse(app, legacy_sse)
    _add_health(app, metrics, tree_status)
    rest.add_routes(app, backend)
    return app


def _add_legacy_sse(app: QuartTrio, legacy_sse: LegacySse) -> None:
    @app.get(STREAM_PATH, endpoint="legacy_sse")
    async def stream() -> Response:
        return respond(legacy_sse.open(msgspec.structs.replace(g.incoming, principal=g.principal)))

    @app.post(MESSAGES_PATH, endpoint="legacy_messages")
    async def messages() -> Response:
        body = await request.get_data(cache=False, as_text=False, parse_form_data=False)
        incoming = msgspec.structs.replace(g.incoming, body=bytes(body), principal=g.principal)
        return respond(legacy_sse.post(incoming, request.query_string.decode("latin1")))


def _add_health(app: QuartTrio, metrics: Metrics, tree_status: TreeStatus) -> None:
    version = importlib.metadata.version("greenroom")

    @app.get("/healthz", endpoint="healthz")
    async def healthz() -> Response:
        ready, _, root_pid = tree_status()
        return respond(
            rest.json_answer(200, {"status": "ok", "ready": ready, "root_pid": root_pid, "version": version})
        )

    @app.get("/readyz", endpoint="readyz")
    async def readyz() -> Response:
        ready, entries, _ = tree_status()
        missing = [
            {"name": entry.name, "state": entry.state, "reason": entry.reason}
            for entry in entries
            if entry.state not in {State.READY, State.OFF} and not is_spare(entry.name)
        ]
        status = "ready" if ready else "not ready"
        return respond(rest.json_answer(200 if ready else 503, {"status": status, "not_ready": missing}))

    @app.get("/metrics")
    async def metrics_text() -> Response:
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return respond(Answer(200, [("content-type", kind)], await metrics.fresh_text()))


def _incoming() -> Request:
    """The current request as the protocol wants it, without its body."""
    head = wire.Head()
    for name, value in request.scope["headers"]:
        head.on_header(name, value)
    client = request.scope.get("client")
    return Request(
        method=request.method, headers=head.headers, peer=client[0] if client else "", repeated=head.repeated
    )


def respond(answer: Answer | Stream) -> Response:
    """A Quart response. Raises ValueError when a header can't be sent."""
    if isinstance(answer, Answer):
        wire.check_headers(answer.headers)
        response = Response(answer.body, status=answer.status)
        headers = answer.headers
    else:
        headers = wire.stream_headers(answer.headers)
        wire.check_headers(headers)
        cast("dict[str, Any]", request.scope)[_STREAMS].append(answer)
        response = Response(_frames(answer), status=answer.status)
    del response.headers["content-type"]
    for name, value in headers:
        response.headers.add(name, value)
    return response


async def _frames(stream: Stream) -> AsyncIterator[bytes]:
    async for frame in stream.events:
        yield frame


def _closing_streams(asgi: Asgi) -> Asgi:
    """Close the streams of a request when it ends, also when its client left before the first of their frames was asked
    for: of a generator that never began nothing is run."""

    async def run(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI's
        streams: list[Stream] = []
        scope[_STREAMS] = streams
        try:
            await asgi(scope, receive, send)
        finally:
            with trio.move_on_after(CLOSE_S, shield=True):
                for stream in streams:
                    await stream.events.aclose()

    return run


def _explain(status: int, error: HTTPException) -> str:
    if status == 404:
        return f"there is nothing at {request.path}; /openapi.json lists what there is"
    if status == 405:
        return f"{request.method} is not possible at {request.path}"
    return str(error.description or error.name)
