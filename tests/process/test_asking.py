# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tools that ask, in a real tree and both eras, while parts of it die between a question and its answer."""

from __future__ import annotations

import json
import queue
import threading
from pathlib import Path

import httpx
import pytest
from running import META, MODERN, started, wait_until

pytestmark = pytest.mark.process

EXAMPLES = Path(__file__).parents[2] / "examples"
CAN = {"elicitation": {"form": {}}}
WISH = {"action": "accept", "content": {"day": "2026-12-24", "guests": 4, "place": "out"}}
SURE = {"action": "accept", "content": {"sure": True}}
BOOKED = "booked: Chez Nous, 24 December, 4 guests, garden"
SLOW_TOOL = '''
import trio
from actors.toolkit import ToolContext, tool

@tool()
async def slow(ctx: ToolContext, seconds: float) -> str:
    """Close the connection, then take a while."""
    await ctx.close_stream()
    await trio.sleep(seconds)
    return "done"
'''
ASKING_OFFERS = '''
import msgspec
from actors.toolkit import ToolContext, prompt, resource

class Name(msgspec.Struct):
    name: str

@resource("greeting://{language}")
async def greeting(ctx: ToolContext, language: str) -> str:
    """A greeting for whoever reads it."""
    answer = await ctx.elicit("Your name?", Name, key="name")
    return f"{language}: {answer.content.name}"

@prompt()
def welcome(ctx: ToolContext, tone: str) -> str:
    """A prompt for whoever asks for it; from a thread."""
    answer = ctx.elicit("Your name?", Name, key="name").wait()
    return f"Welcome {answer.content.name}, be {tone}"
'''
ASKED_OFFERS = [
    ("resources/read", {"uri": "greeting://german"}, "german: Ada"),
    ("prompts/get", {"name": "welcome", "arguments": {"tone": "kind"}}, "Welcome Ada, be kind"),
]
ADA = {"action": "accept", "content": {"name": "Ada"}}


class Modern:
    """A client of 2026-07-28 that can be asked."""

    def __init__(self, url):
        self.url = url

    def book(self, **more):
        return self.ask("tools/call", name="book_table", arguments={"restaurant": "Chez Nous"}, **more)

    def ask(self, method, **params):
        meta = META | {"io.modelcontextprotocol/clientCapabilities": CAN}
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": meta, **params}}
        headers = MODERN | {"mcp-method": method, "mcp-name": params.get("name") or params["uri"]}
        answer = httpx.post(f"{self.url}/mcp", json=body, headers=headers, timeout=30).json()
        assert "result" in answer, answer
        return answer["result"]


class Session:
    """A client of 2025-11-25. Each call runs in a thread; its messages come out of a queue."""

    def __init__(self, url):
        self.url = url
        self.headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        params = {"protocolVersion": "2025-11-25", "capabilities": CAN, "clientInfo": {"name": "t", "version": "1"}}
        answer = self.post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
        self.headers |= {"mcp-session-id": answer.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
        self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def post(self, body):
        return httpx.post(f"{self.url}/mcp", json=body, headers=self.headers, timeout=30)

    def answer(self, question, result):
        """On a connection of its own: any gateway may get it."""
        assert self.post({"jsonrpc": "2.0", "id": question["id"], "result": result}).status_code == 202

    def call(self, name, **arguments):
        return self.ask("tools/call", name=name, arguments=arguments)

    def ask(self, method, **params):
        body = {"jsonrpc": "2.0", "id": 5, "method": method, "params": params}
        return Reader("POST", f"{self.url}/mcp", self.headers, body)

    def resume(self, event_id):
        return Reader("GET", f"{self.url}/mcp", self.headers | {"last-event-id": event_id}, None)


class Reader:
    """Reads one answer in a thread."""

    def __init__(self, method, url, headers, body):
        self.messages = queue.Queue()
        self.event_ids = []
        self.thread = threading.Thread(target=self._read, args=(method, url, headers, body))
        self.thread.start()

    def next(self):
        """The next message; None at the end."""
        return self.messages.get(timeout=20)

    def _read(self, *request):
        try:
            method, url, headers, body = request
            with httpx.stream(method, url, json=body, headers=headers, timeout=20) as answer:
                for line in answer.iter_lines():
                    if line.startswith("id: "):
                        self.event_ids.append(line[4:])
                    elif line.startswith("data: "):
                        self.messages.put(json.loads(line[6:]))
                    elif line.startswith("{"):
                        self.messages.put(json.loads(line))
        except httpx.HTTPError:
            pass  # the connection ended with its gateway
        self.messages.put(None)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("asking")
    (folder / "slow.py").write_text(SLOW_TOOL)
    (folder / "offers.py").write_text(ASKING_OFFERS)
    flags = ("--tools", str(EXAMPLES), "--tools", str(folder / "slow.py"), "--tools", str(folder / "offers.py"))
    # The tests kill more often than a tree would take for an accident.
    with started(folder / "data", *flags, env={"GREENROOM_SUPERVISOR__RESTARTS": "1000"}) as running:
        yield running


def bookings(tree):
    return len(list((tree.data_dir / "book_table").glob("*"))) if (tree.data_dir / "book_table").exists() else 0


@pytest.mark.parametrize("victim", ["tools.general#0", "router", "gateway"])
def test_a_death_between_the_rounds_costs_nothing(tree, victim):
    before = bookings(tree)
    client = Modern(tree.url)
    asked = client.book()
    assert list(asked["inputRequests"]) == ["wish"]
    tree.wait_ready(victim, tree.kill(victim))
    again = client.book(inputResponses={"wish": WISH}, requestState=asked["requestState"])
    assert list(again["inputRequests"]) == ["consent"]
    assert bookings(tree) == before
    tree.wait_ready(victim, tree.kill(victim))
    done = client.book(inputResponses={"consent": SURE}, requestState=again["requestState"])
    assert done["content"][0]["text"] == BOOKED
    assert bookings(tree) == before + 1


def test_a_session_is_asked_on_the_calls_own_stream(tree):
    session = Session(tree.url)
    call = session.call("book_table", restaurant="Chez Nous")
    wish = call.next()
    assert wish["method"] == "elicitation/create"
    assert list(wish["params"]["requestedSchema"]["properties"]) == ["day", "guests", "place"]
    session.answer(wish, WISH)
    session.answer(call.next(), SURE)
    assert call.next()["result"]["content"][0]["text"] == BOOKED
    assert call.next() is None


@pytest.mark.parametrize("victim", ["tools.general#0", "router"])
def test_a_session_call_goes_on_when_its_process_dies_while_it_asks(tree, victim):
    before = bookings(tree)
    session = Session(tree.url)
    call = session.call("book_table", restaurant="Chez Nous")
    session.answer(call.next(), WISH)
    consent = call.next()
    tree.wait_ready(victim, tree.kill(victim))
    session.answer(consent, SURE)
    assert call.next()["result"]["content"][0]["text"] == BOOKED
    assert bookings(tree) == before + 1


def test_deaths_while_users_think_are_not_held_against_the_call(tree):
    session, calls = Session(tree.url), []
    for _ in range(3):
        call = session.call("book_table", restaurant="Chez Nous")
        calls.append((call, call.next()))
        tree.wait_ready("tools.general#0", tree.kill("tools.general#0"))
    refused = json.loads(tree.run("quarantine", "list", "--json").stdout)
    assert (refused["quarantined"], refused["breakers"]) == ([], [])
    call, wish = calls[-1]
    session.answer(wish, WISH)
    session.answer(call.next(), SURE)
    assert call.next()["result"]["content"][0]["text"] == BOOKED
    why = tree.run("why", "tools.general#0").stdout
    assert "waiting for its client" in why
    httpx.delete(f"{tree.url}/mcp", headers=session.headers)  # ends the others


def text_of(result):
    return result["contents"][0]["text"] if "contents" in result else result["messages"][0]["content"]["text"]


@pytest.mark.parametrize(("method", "params", "outcome"), ASKED_OFFERS)
@pytest.mark.parametrize("victim", ["tools.general#0", "gateway"])
def test_a_resource_and_a_prompt_ask_in_rounds(tree, method, params, outcome, victim):
    client = Modern(tree.url)
    asked = client.ask(method, **params)
    assert asked["resultType"] == "input_required"
    assert asked["inputRequests"]["name"]["params"]["message"] == "Your name?"
    tree.wait_ready(victim, tree.kill(victim))
    done = client.ask(method, **params, inputResponses={"name": ADA}, requestState=asked["requestState"])
    assert text_of(done) == outcome


@pytest.mark.parametrize(("method", "params", "outcome"), ASKED_OFFERS)
def test_a_resource_and_a_prompt_ask_in_a_session_though_their_process_dies(tree, method, params, outcome):
    session = Session(tree.url)
    call = session.ask(method, **params)
    question = call.next()
    assert question["method"] == "elicitation/create"
    tree.wait_ready("tools.general#0", tree.kill("tools.general#0"))
    session.answer(question, ADA)
    assert text_of(call.next()["result"]) == outcome
    assert call.next() is None


def test_a_gateway_that_is_replaced_gets_the_answers_that_it_waits_for(tree):
    session = Session(tree.url)
    call = session.call("book_table", restaurant="Chez Nous")
    wish = call.next()
    before = tree.actors()["gateway"]["incarnation"]
    restart = threading.Thread(target=tree.run, args=("restart", "gateway", "--drain", "--yes"))
    restart.start()
    wait_until(lambda: tree.actors()["gateway"]["incarnation"] != before, 10, "another gateway serves")
    session.answer(wish, WISH)
    session.answer(call.next(), SURE)
    assert call.next()["result"]["content"][0]["text"] == BOOKED
    restart.join(20)
    assert not restart.is_alive()


def test_a_session_outlives_its_gateway_and_lost_calls_have_an_honest_end(tree):
    session = Session(tree.url)
    call = session.call("book_table", restaurant="Chez Nous")
    wish = call.next()
    tree.wait_ready("gateway", tree.kill("gateway"))
    assert call.next() is None
    session.answer(wish, WISH)
    end = session.resume(call.event_ids[-1])
    lost = end.next()
    assert lost["id"] == 5
    assert lost["error"]["data"]["code"] == "OUTCOME_UNKNOWN"
    assert end.next() is None
    again = session.call("book_table", restaurant="Chez Nous")
    session.answer(again.next(), WISH)
    session.answer(again.next(), SURE)
    assert again.next()["result"]["content"][0]["text"] == BOOKED


def test_a_closed_stream_is_resumed_for_its_answer(tree):
    session = Session(tree.url)
    call = session.call("slow", seconds=0.3)
    assert call.next() is None
    (primer,) = call.event_ids
    rest = session.resume(primer)
    assert rest.next()["result"]["content"][0]["text"] == "done"


def test_a_plain_interface_is_told_that_it_can_not_be_asked(tree):
    body = {"tool": "book_table", "args": {"restaurant": "Chez Nous"}}
    error = httpx.post(f"{tree.url}/tools/execute", json=body, timeout=20).json()["error"]
    assert error["code"] == "CANNOT_ASK"
    assert "CANNOT_ASK" in tree.run("tools", "call", "book_table", "restaurant=x", check=False).stderr


def test_an_answer_and_a_client_that_comes_back_may_reach_any_of_several_gateways(tmp_path):
    env = {"GREENROOM_SERVER__GATEWAYS": "3"}
    (tmp_path / "slow.py").write_text(SLOW_TOOL)
    flags = ("--tools", str(EXAMPLES), "--tools", str(tmp_path / "slow.py"))
    with started(tmp_path / "data", *flags, env=env) as tree:
        wait_until(lambda: all(f"gateway#{n}" in tree.actors() for n in range(3)), 10, "three gateways")
        for _ in range(6):
            session = Session(tree.url)
            call = session.call("book_table", restaurant="Chez Nous")
            session.answer(call.next(), WISH)
            session.answer(call.next(), SURE)
            assert call.next()["result"]["content"][0]["text"] == BOOKED
            closed = session.call("slow", seconds=0.2)
            assert closed.next() is None
            for _ in range(2):
                rest = session.resume(closed.event_ids[0])
                assert rest.next()["result"]["content"][0]["text"] == "done"
                assert rest.next() is None
