# SPDX-License-Identifier: AGPL-3.0-or-later
"""In the tests of the protocol every message that goes out is held against the official schema of its revision."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import wire_schema
from jsonschema import ValidationError

from gateway.mcp.protocol import Protocol
from gateway.mcp.testing import messages
from gateway.types import Answer, Request, Stream

_MODERN_KEY = "io.modelcontextprotocol/protocolVersion"


@pytest.fixture(autouse=True)
def every_message_fits_its_schema(request, monkeypatch):
    if not (wire_schema.AVAILABLE and request.module.__name__.rpartition(".")[2].startswith("test_mcp_")):
        return
    handle = Protocol.handle
    sessions: dict[str, str] = {}

    async def checked(self: Protocol, given: Request) -> Answer | Stream:
        answer = await handle(self, given)
        look = _Look(given, sessions.get(given.headers.get("mcp-session-id", "")))
        if isinstance(answer, Stream):
            return msgspec.structs.replace(answer, events=_CheckedEvents(answer.events, look))
        if answer.body and ("content-type", "application/json") in answer.headers:
            said = msgspec.json.decode(answer.body)
            for message in said if isinstance(said, list) else [said]:
                look.at(message)
            if opened := dict(answer.headers).get("mcp-session-id"):
                sessions[opened] = said["result"]["protocolVersion"]
        return answer

    monkeypatch.setattr(Protocol, "handle", checked)


class _CheckedEvents:
    def __init__(self, events: Any, look: _Look) -> None:
        self._events = events
        self._frames = aiter(events)
        self._look = look

    def __aiter__(self) -> _CheckedEvents:
        return self

    async def __anext__(self) -> bytes:
        frames = await anext(self._frames)
        for message in messages(frames):
            self._look.at(message)
        return frames

    async def aclose(self) -> None:
        await self._events.aclose()


class _Look:
    """What is known of a request: its revision, and the methods that were asked."""

    def __init__(self, request: Request, session_version: str | None) -> None:
        try:
            body = msgspec.json.decode(request.body or b"null")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            body = None
        asked = [one for one in (body if isinstance(body, list) else [body]) if isinstance(one, dict)]
        self._methods = {str(one.get("id")): one.get("method") for one in asked}
        said = request.headers.get("mcp-protocol-version")
        params = asked[0].get("params") if asked else None
        meta = params.get("_meta") if isinstance(params, dict) else None
        modern_body = isinstance(meta, dict) and _MODERN_KEY in meta
        modern_header = said is not None and said not in wire_schema.LEGACY
        if session_version is not None and not (modern_body and modern_header):
            self._version = session_version
        else:
            self._version = wire_schema.MODERN if modern_body or modern_header else said

    def at(self, message: dict[str, Any]) -> None:
        method = self._methods.get(str(message.get("id")))
        result = message.get("result")
        version = self._version
        if method == "initialize" and isinstance(result, dict):
            version = result["protocolVersion"]
        if version is None or ("error" in message and message.get("id") is None):
            return  # the request was not readable, or says no revision
        try:
            wire_schema.check_message(version, message, method)
        except ValidationError as error:
            pytest.fail(f"{version} {method}: {error.message}\n{msgspec.json.encode(message).decode()}")
