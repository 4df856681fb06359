# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tools over plain HTTP, health, readiness, the OpenAPI document, and the checks on every route."""

from __future__ import annotations

import json

import jsonschema
import pytest

from actors import errors
from actors.messages import DirectoryEntry, State
from actors.settings import ServerSettings
from actors.tool_messages import ToolDescriptor, ToolResult
from gateway.app import create_app
from gateway.metrics import Metrics
from gateway.testing import JSON, EchoProtocol
from gateway.types import Answer

SCHEMA = {
    "type": "object",
    "properties": {"text": {"$ref": "#/$defs/Text"}},
    "required": ["text"],
    "$defs": {"Text": {"type": "string"}},
}


def tool(name, category="text", **more):
    return ToolDescriptor(
        name=name,
        title=name.title(),
        description=f"Does {name}.",
        category=category,
        runtime="general",
        pool="general",
        input_schema=json.dumps(SCHEMA).encode(),
        **more,
    )


class Backend:
    def __init__(self):
        self.tools = [tool("echo"), tool("upper"), tool("sum", "math"), tool("lost", broken="no such library")]
        self.catalogue = self
        self.calls = []
        self.outcome = ToolResult(value=b'{"a": [1, 2]}', shape="object", runtime="general", duration_ms=1.5)

    def get(self, name):
        return next((tool for tool in self.tools if tool.name == name), None)

    async def call(self, call, *, timeout_s, on_item=None):
        # As the real way to the tools does: what can't be called is refused there.
        found = self.get(call.name)
        if found is None:
            raise errors.UnknownToolError(f"there is no tool {call.name!r}", tool=call.name, nearest=["echo"])
        if found.broken:
            raise errors.UnavailableError(f"tool {call.name} can't be called: {found.broken}", tool=call.name)
        self.calls.append((call, timeout_s))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture
def backend():
    return Backend()


@pytest.fixture
def tree():
    return {"ready": True, "entries": []}


@pytest.fixture
def client(backend, tree):
    status = lambda: (tree["ready"], tree["entries"], 4711)  # noqa: E731
    return create_app(EchoProtocol(), backend, ServerSettings(), Metrics(), status).test_client()


HEADERS = {"Host": "127.0.0.1"}


async def get(client, path, **headers):
    return await client.get(path, headers=HEADERS | headers)


async def execute(client, body):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await client.post("/tools/execute", data=data, headers=HEADERS)


async def test_a_tool_is_run_with_its_arguments_as_sent(client, backend):
    response = await execute(client, {"tool": "echo", "args": {"text": "é", "n": 1.0}})
    assert response.status_code == 200
    body = await response.get_json()
    assert body == {"status": "success", "result": {"a": [1, 2]}, "_runtime": "general", "_duration_ms": 1.5}
    ((call, timeout_s),) = backend.calls
    assert (call.name, json.loads(call.arguments), timeout_s) == ("echo", {"text": "é", "n": 1.0}, 60.0)


LIFTING = json.dumps({"greenroom/topLevel": ["id", "state", "result", "_runtime", "lacking"]}).encode()


async def test_fields_that_a_tool_names_are_also_at_the_top(client, backend):
    backend.tools.append(tool("begin", meta=LIFTING))
    value = b'{"id": 12345678901234567890123, "state": "new", "result": 1, "_runtime": 2, "other": 3}'
    backend.outcome = ToolResult(value=value, shape="object", runtime="p2p", duration_ms=1.5)
    body = await (await execute(client, {"tool": "begin"})).get_data()
    head = b'{"status":"success","result":' + value
    assert body == head + b',"id":12345678901234567890123,"state":"new","_runtime":"p2p","_duration_ms":1.5}'
    assert "id" not in await (await execute(client, {"tool": "echo"})).get_json(), "of this tool only"


@pytest.mark.parametrize("meta", [b'{"greenroom/topLevel": 3}', b'{"greenroom/topLevel": [3]}', b"{}"])
async def test_a_tool_that_names_no_fields_has_none_at_the_top(client, backend, meta):
    backend.tools.append(tool("begin", meta=meta))
    backend.outcome = ToolResult(value=b'{"id": 1}', shape="object", runtime="p2p", duration_ms=1.5)
    assert set(await (await execute(client, {"tool": "begin"})).get_json()) == {
        "status", "result", "_runtime", "_duration_ms"
    }  # fmt: skip


async def test_only_objects_have_fields(client, backend):
    backend.tools.append(tool("begin", meta=LIFTING))
    backend.outcome = ToolResult(value=b'["id"]', shape="wrapped", runtime="p2p", duration_ms=1.5)
    assert (await (await execute(client, {"tool": "begin"})).get_json())["result"] == ["id"]


async def test_the_openapi_document_says_which_tools_have_fields_at_the_top(client, backend):
    backend.tools.append(tool("begin", meta=LIFTING))
    document = await (await get(client, "/openapi.json")).get_json()
    fields = document["components"]["schemas"]["ExecuteResult"]["properties"]
    assert fields["id"] == {"description": "Only of begin: the same as `result.id`"}
    assert set(fields) == {"status", "result", "id", "state", "lacking", "_runtime", "_duration_ms"}


async def test_every_call_has_an_id_of_its_own(client, backend):
    for _ in range(3):
        await execute(client, {"tool": "echo"})
    assert len({call.call_id for call, _ in backend.calls}) == 3


@pytest.mark.parametrize(("asked", "given"), [(1.5, 1.5), (1000, 60.0), (None, 60.0)])
async def test_the_timeout_may_be_shortened_only(client, backend, asked, given):
    await execute(client, {"tool": "echo", "timeout_s": asked})
    assert backend.calls[0][1] == given


BAD = [b"", b"{", b"[]", b'"x"', b"\xff", b"{}", b'{"tool":1}', b'{"tool":"echo","args":[]}', b'{"tool":"echo","x":1}']


@pytest.mark.parametrize("body", [*BAD, b'{"tool":"echo","timeout_s":0}', b'{"tool":"echo","timeout_s":"soon"}'])
async def test_a_body_that_does_not_fit_is_refused(client, backend, body):
    response = await execute(client, body)
    assert response.status_code == 422
    assert (await response.get_json())["error"]["code"] == "INVALID_ARGUMENTS"
    assert backend.calls == []


FAILURES = [
    (errors.UnknownToolError("x"), 404, None),
    (errors.InvalidArgumentsError("x"), 422, None),
    (errors.ForbiddenError("x"), 403, None),
    (errors.BusyError("x"), 503, "1"),
    (errors.RuntimeUnavailableError("x"), 503, "1"),
    (errors.UnavailableError("x"), 503, None),
    (errors.QuarantinedError("x"), 409, None),
    (errors.BreakerOpenError("x"), 503, "1"),
    (errors.BreakerOpenError("x", retry_after_s=29.2), 503, "30"),
    (errors.DeadlineExceededError("x"), 504, None),
    (errors.OutcomeUnknownError("x"), 502, None),
    (errors.ActorDiedError("router", 1, sent=True), 502, None),
    (errors.ToolExecutionError("echo", "general", "x"), 502, None),
    (errors.MCPServerError("x"), 500, None),
]


@pytest.mark.parametrize(("error", "status", "retry_after"), FAILURES, ids=lambda value: getattr(value, "code", None))
async def test_each_failure_has_its_status(client, backend, error, status, retry_after):
    backend.outcome = error
    response = await execute(client, {"tool": "echo"})
    assert response.status_code == status
    assert response.headers.get("retry-after") == retry_after
    body = await response.get_json()
    assert (body["status"], body["error"]["code"], body["_runtime"]) == ("error", error.code, "general")
    assert body["error"]["retryable"] is error.retryable


async def test_a_fault_of_ours_is_a_500_that_tells_nothing(client, backend):
    backend.outcome = RuntimeError("secret")
    response = await execute(client, {"tool": "echo"})
    assert response.status_code == 500
    assert b"secret" not in await response.get_data()


async def test_a_tools_error_result_is_a_failure_with_its_value(client, backend):
    backend.outcome = ToolResult(value=b'"bad luck"', shape="text", runtime="general", duration_ms=1, is_error=True)
    response = await execute(client, {"tool": "echo"})
    assert response.status_code == 502
    body = await response.get_json()
    assert (body["error"]["code"], body["error"]["details"]["result"]) == ("TOOL_FAILED", "bad luck")


async def test_an_unknown_tool_is_answered_with_the_nearest(client):
    for response in (await execute(client, {"tool": "ecko"}), await get(client, "/tools/ecko")):
        assert response.status_code == 404
        assert (await response.get_json())["error"]["details"]["nearest"] == ["echo"]


async def test_a_broken_tool_says_why(client):
    response = await execute(client, {"tool": "lost"})
    assert response.status_code == 503
    assert "no such library" in (await response.get_json())["error"]["message"]


PAGES = [
    ("", ["echo", "upper", "sum", "lost"], 4, False),
    ("?limit=2", ["echo", "upper"], 4, True),
    ("?limit=2&offset=2", ["sum", "lost"], 4, False),
    ("?offset=9", [], 4, False),
    ("?category=math", ["sum"], 1, False),
    ("?category=none", [], 0, False),
]


@pytest.mark.parametrize(("query", "names", "total", "more"), PAGES)
async def test_tools_are_listed_in_pages(client, query, names, total, more):
    page = await (await get(client, f"/tools{query}")).get_json()
    assert [tool["name"] for tool in page["tools"]] == names
    assert (page["total_count"], page["has_more"]) == (total, more)


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "offset=-1", "limit=1.5", "limit=%C2%B2"])
async def test_a_page_that_makes_no_sense_is_refused(client, query):
    assert (await get(client, f"/tools?{query}")).status_code == 422


async def test_a_tool_is_described_with_its_schema(client):
    body = await (await get(client, "/tools/echo")).get_json()
    assert body["input_schema"] == SCHEMA
    assert body["output_schema"] is None
    assert body["annotations"] == {}


async def test_the_openapi_document_describes_every_tool_that_can_be_called(client):
    document = await (await get(client, "/openapi.json")).get_json()
    assert document["openapi"].startswith("3.1")
    schemas = document["components"]["schemas"]
    assert schemas["tool.echo"]["properties"] == {"text": {"$ref": "#/components/schemas/tool.echo/$defs/Text"}}
    assert [one["title"] for one in schemas["ExecuteRequest"]["oneOf"]] == ["echo", "upper", "sum"]


async def test_the_documents_schemas_fit_real_requests_and_answers(client, backend):
    document = await (await get(client, "/openapi.json")).get_json()

    def check(name, value):
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(value)

    check("ExecuteRequest", {"tool": "echo", "args": {"text": "x"}})
    with pytest.raises(jsonschema.ValidationError):
        check("ExecuteRequest", {"tool": "echo", "args": {"text": 1}})
    check("ExecuteResult", await (await execute(client, {"tool": "echo"})).get_json())
    check("ExecuteError", await (await execute(client, {"tool": "no"})).get_json())
    check("ToolPage", await (await get(client, "/tools")).get_json())


async def test_every_path_of_the_document_exists(client):
    document = await (await get(client, "/openapi.json")).get_json()
    for path, methods in document["paths"].items():
        for method in methods:
            target = path.replace("{name}", "echo")
            response = await client.open(target, method=method.upper(), headers=HEADERS)
            assert response.status_code not in {404, 405}


async def test_health_names_the_root_and_the_version(client):
    body = await (await get(client, "/healthz")).get_json()
    assert (body["status"], body["root_pid"]) == ("ok", 4711)
    assert body["version"]


async def test_ready_means_every_permanent_actor_is(client, tree):
    assert (await get(client, "/readyz")).status_code == 200
    tree["ready"] = False
    tree["entries"] = [
        DirectoryEntry(name="router", group="root", state=State.READY),
        DirectoryEntry(name="task_queue", group="durable", state=State.FAILED, reason="disk full"),
    ]
    response = await get(client, "/readyz")
    assert response.status_code == 503
    assert (await response.get_json())["not_ready"] == [
        {"name": "task_queue", "state": "failed", "reason": "disk full"}
    ]


async def test_metrics_are_text(client):
    response = await get(client, "/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"mcp_calls_in_flight 0.0" in await response.get_data()


ROUTES = ["/mcp", "/tools", "/tools/echo", "/openapi.json", "/healthz", "/readyz", "/metrics", "/nowhere"]


@pytest.mark.parametrize("path", ROUTES)
async def test_every_route_checks_host_and_origin(client, path):
    assert (await get(client, path, Host="evil.example")).status_code == 421
    assert (await get(client, path, Origin="http://evil.example")).status_code == 403


async def test_execute_checks_host_before_it_runs_anything(client, backend):
    response = await client.post("/tools/execute", data=b'{"tool":"echo"}', headers={"Host": "evil.example"})
    assert response.status_code == 421
    assert backend.calls == []


async def test_what_is_not_there_is_said_in_json(client):
    response = await get(client, "/nowhere")
    assert response.status_code == 404
    assert (await response.get_json())["error"]["code"] == "NOT_FOUND"


async def test_a_wrong_method_is_told_the_right_one(client):
    response = await get(client, "/tools/execute/")
    assert response.status_code == 404
    response = await client.delete("/tools", headers=HEADERS)
    assert response.status_code == 405
    assert "GET" in response.headers["allow"]
    assert (await response.get_json())["error"]["code"] == "METHOD_NOT_ALLOWED"


async def test_rest_is_authorized_and_probes_are_not(backend):
    def authorize(request):
        if request.headers.get("authorization") == "Bearer good":
            return "alice"
        return Answer(401, [JSON], b"{}")

    status = lambda: (True, [], 1)  # noqa: E731
    app = create_app(EchoProtocol(), backend, ServerSettings(), Metrics(), status, authorize=authorize)
    client = app.test_client()
    body = {"data": b'{"tool":"echo"}'}
    assert (await client.post("/tools/execute", headers=HEADERS, **body)).status_code == 401
    assert (await get(client, "/metrics")).status_code == 401
    assert (await get(client, "/healthz")).status_code == 200
    assert backend.calls == []
    allowed = HEADERS | {"Authorization": "Bearer good"}
    assert (await client.post("/tools/execute", headers=allowed, **body)).status_code == 200
    assert backend.calls[0][0].principal == "alice"
