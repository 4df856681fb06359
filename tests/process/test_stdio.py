# SPDX-License-Identifier: AGPL-3.0-or-later
"""`greenroom stdio` with real pipes and real trees: what a desktop client sees, also while the tree's processes die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from running import GREENROOM, alive, started, wait_until
from stdio_client import stdio

pytestmark = pytest.mark.process

ERAS = [pytest.param(False, id="legacy"), pytest.param(True, id="modern")]
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INTERNAL = -32700, -32600, -32601, -32603
NOT_RUNNING = 3
UNTIRED = {"GREENROOM_SUPERVISOR__RESTARTS": "1000"}
EFFECT = """
from actors.toolkit import tool


async def _note_and_wait(file: str, seconds: float) -> str:
    import trio

    with open(file, "a") as sink:
        sink.write("done\\n")
    await trio.sleep(seconds)
    return "done"


@tool()
async def slow_effect(file: str, seconds: float) -> str:
    \"\"\"Write to a file, then wait. Not to be repeated.\"\"\"
    return await _note_and_wait(file, seconds)


@tool(retry_safe=True)
async def slow_repeatable(file: str, seconds: float) -> str:
    \"\"\"The same, and it may be repeated.\"\"\"
    return await _note_and_wait(file, seconds)
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stdio")
    (folder / "tools").mkdir()
    (folder / "tools" / "slow_effect.py").write_text(EFFECT)
    with started(folder / "data", "--tools", str(folder / "tools"), env=UNTIRED) as running:
        yield running


@pytest.fixture
def client(tree, tmp_path):
    with stdio(tmp_path, "--attach", "--data-dir", tree.data_dir) as bridge:
        yield bridge


def open_calls(tree) -> int:
    return sum(actor["open_calls"] for name, actor in tree.actors().items() if name.startswith("tools."))


# --- both eras on one pipe -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_every_handshake_revision_is_spoken(client, version):
    assert client.initialize(version)["protocolVersion"] == version
    assert client.text("echo", False, text="grüß dich") == "grüß dich"
    assert client.request("ping", False)["result"] == {}
    assert client.end() == 0


def test_the_modern_revision_needs_no_handshake(client):
    found = client.request("server/discover", True)["result"]
    assert found["supportedVersions"] == ["2026-07-28"]
    assert client.text("echo", True, text="grüß dich") == "grüß dich"
    assert client.request("ping", True)["error"]["code"] == METHOD_NOT_FOUND


def test_both_eras_at_once_and_ids_of_both_types_are_kept_apart(client):
    client.initialize()
    ids = [client.begin("tools/call", n % 2 == 0, id_=id_, name="echo", arguments={"text": f"{id_!r}"})
           for n, id_ in enumerate([1000, "1000", 1001, "1001", "a b", -5])]  # fmt: skip
    for id_ in ids:
        answer = client.answer(id_)
        assert answer["result"]["content"][0]["text"] == repr(id_)
        assert type(answer["id"]) is type(id_)


@pytest.mark.parametrize("modern", ERAS)
def test_200_requests_at_once_each_get_their_own_answer(client, modern):
    if not modern:
        client.initialize()
    ids = [client.begin("tools/call", modern, name="echo", arguments={"text": f"t{n}"}) for n in range(200)]
    for n, id_ in enumerate(ids):
        assert client.answer(id_)["result"]["content"][0]["text"] == f"t{n}"
    assert all(len(client.answers(id_)) == 1 for id_ in ids)


@pytest.mark.parametrize("modern", ERAS)
def test_requests_overtake_each_other_and_notifications_come_before_their_answer(client, modern):
    if not modern:
        client.initialize()
    slow = client.begin("tools/call", modern, meta={"progressToken": "p"}, name="sleep", arguments={"seconds": 1.0})
    quick = client.begin("tools/call", modern, name="echo", arguments={"text": "quick"})
    client.answer(slow)
    order = [
        message.get("id") or message["params"].get("progress")
        for message in client.messages
        if message.get("id") != "init"
    ]
    assert order.index(quick) < order.index(slow)
    assert order[-1] == slow
    progress = [one for one in order if one not in (quick, slow)]
    assert progress == sorted(progress)
    assert len(progress) >= 5


@pytest.mark.parametrize("modern", ERAS)
def test_a_cancelled_call_ends_in_the_pool_and_nothing_more_is_said_of_it(client, tree, modern):
    if not modern:
        client.initialize()
    id_ = client.begin("tools/call", modern, meta={"progressToken": 7}, name="sleep", arguments={"seconds": 60})
    client.notified("notifications/progress")
    client.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id_}})
    assert client.text("echo", modern, text="after") == "after"
    wait_until(lambda: open_calls(tree) == 0, 10, "no open call")
    assert client.answers(id_) == []
    assert client.end() == 0


def test_an_array_is_answered_in_a_session_of_2025_03_26(client):
    client.initialize("2025-03-26")
    call = {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "echo", "arguments": {"text": "x"}}}
    client.process.stdin.write(json.dumps([call | {"id": 1}, call | {"id": 2}]).encode() + b"\n")
    client.process.stdin.flush()
    wait_until(lambda: client.broken, 10, "the array")
    answers = json.loads(client.broken.pop())  # an array is no single message
    assert [one["id"] for one in answers] == [1, 2]


# --- subscriptions -------------------------------------------------------------------------------------------------


def listen(client, id_, **wanted):
    client.begin("subscriptions/listen", True, id_=id_, notifications=wanted)


def tags(client, method: str) -> list:
    return [
        message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"]
        for message in client.messages
        if message.get("method") == method
    ]


def test_several_subscriptions_are_told_apart_and_survive_the_gateway(client, tree):
    listen(client, "first", toolsListChanged=True)
    listen(client, 2, toolsListChanged=True)
    listen(client, "none")
    acknowledged = "notifications/subscriptions/acknowledged"
    wait_until(lambda: len(tags(client, acknowledged)) == 3, 10, "three acknowledgements")
    # A cancelled one is silent from then on.
    client.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}})
    before = tree.kill("gateway")
    tree.wait_ready("gateway", before)
    changed = "notifications/tools/list_changed"
    # After the gap nobody knows whether the list changed: the client is told to look.
    wait_until(lambda: "first" in tags(client, changed), 20, "a hint after the gap")
    assert set(tags(client, changed)) == {"first"}
    assert sorted(map(str, tags(client, acknowledged))) == ["2", "first", "none"]
    assert client.end() == 0
    assert not client.answers("first")


@pytest.mark.parametrize("modern", ERAS)
def test_a_reload_announces_the_new_list_of_tools_and_of_nothing_else(client, tree, modern):
    if modern:
        listen(client, "news", toolsListChanged=True, promptsListChanged=True)
        client.notified("notifications/subscriptions/acknowledged")
    else:
        client.initialize()
    tool = f"added_{'modern' if modern else 'legacy'}"
    names = [one["name"] for one in client.request("tools/list", modern)["result"]["tools"]]
    assert tool not in names
    assert not [one for one in client.messages if one.get("method", "").endswith("list_changed")]
    text = f'from actors.toolkit import tool\n\n\n@tool()\ndef {tool}() -> str:\n    """New."""\n    return "here"\n'
    (Path(tree.data_dir).parent / "tools" / f"{tool}.py").write_text(text)
    tree.run("reload")
    changed = client.notified("notifications/tools/list_changed")
    assert changed.get("params", {}).get("_meta", {}) == (
        {"io.modelcontextprotocol/subscriptionId": "news"} if modern else {}
    )
    listed = [one["name"] for one in client.request("tools/list", modern)["result"]["tools"]]
    assert set(listed) == {*names, tool}
    assert client.text(tool, modern) == "here"
    assert not [one for one in client.messages if one.get("method") == "notifications/prompts/list_changed"]


# --- bad input -----------------------------------------------------------------------------------------------------


def test_malformed_lines_are_answered_and_the_next_line_is_served(client):
    for line in (b"nonsense", b'{"jsonrpc":"2.0","id":1', b"\xff\xfe", b'"text"', b"[" * 5000):
        seen = len(client.messages)
        client.send(line)
        wait_until(lambda seen=seen: len(client.messages) > seen, 10, f"an answer to {line[:20]!r}")
        answer = client.messages[-1]
        assert answer["error"]["code"] in {PARSE_ERROR, INVALID_REQUEST}
        assert "id" not in answer
    client.send(b"")
    client.send(b"   \r")
    client.send({"jsonrpc": "1.0", "id": 9, "method": "ping"})
    assert client.answer(9)["error"]["code"] == INVALID_REQUEST
    client.send({"jsonrpc": "2.0", "id": 10, "method": "tools/list"})
    assert "initialize" in client.answer(10)["error"]["message"]
    assert client.text("echo", True, text="still here") == "still here"


@pytest.mark.parametrize("modern", ERAS)
def test_a_message_of_5_mb_is_refused_by_its_id_and_the_next_is_served(client, modern):
    if not modern:
        client.initialize()
    big = client.begin("tools/call", modern, name="echo", arguments={"text": "x" * 5_000_000})
    answer = client.answer(big)
    assert answer["error"]["code"] == INVALID_REQUEST
    assert "server.max_body_bytes" in answer["error"]["message"]
    # As another client writes it: the id at the end.
    params = {"name": "echo", "arguments": {"text": "y" * 5_000_000}}
    client.send({"method": "tools/call", "params": params, "jsonrpc": "2.0", "id": "at the end"})
    assert client.answer("at the end")["error"]["code"] == INVALID_REQUEST
    assert client.text("echo", modern, text="small") == "small"


def test_a_message_of_5_mb_passes_where_that_is_allowed(tmp_path):
    limits = {"GREENROOM_SERVER__MAX_BODY_BYTES": "8000000", "GREENROOM_TOOLS__MAX_RESULT_BYTES": "8000000"}
    with stdio(tmp_path, "--own", env=limits) as client:
        assert client.text("echo", True, text="x" * 5_000_000) == "x" * 5_000_000
        assert client.end() == 0


def test_more_requests_than_the_bound_are_refused_as_busy(tree, tmp_path):
    bound = {"GREENROOM_STDIO__MAX_REQUESTS": "2"}
    with stdio(tmp_path, "--attach", "--data-dir", tree.data_dir, env=bound) as client:
        for id_ in ("a", "b"):
            client.begin("tools/call", True, id_=id_, name="sleep", arguments={"seconds": 20})
        refused = client.call("echo", True, text="x")
        assert refused["error"]["data"] == {"code": "BUSY", "retryable": True}
        client.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "a"}})
        wait_until(lambda: "result" in client.call("echo", True, text="x"), 10, "room after a cancelled call")


# --- deaths --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modern", ERAS)
@pytest.mark.parametrize("victim", ["gateway", "router", "tools.general#0"])
def test_calls_go_on_over_a_death_with_the_same_session(client, tree, modern, victim):
    if not modern:
        client.initialize()
    assert client.text("echo", modern, text="before") == "before"
    for n in range(3):
        before = tree.kill(victim)
        ids = [client.begin("tools/call", modern, name="echo", arguments={"text": f"{n} {m}"}) for m in range(10)]
        for m, id_ in enumerate(ids):
            # `echo` may be repeated: no answer but the right one is allowed.
            assert client.answer(id_)["result"]["content"][0]["text"] == f"{n} {m}"
        tree.wait_ready(victim, before)
    assert "handshake was repeated" not in client.log()


@pytest.mark.parametrize("modern", ERAS)
def test_the_outcome_of_a_call_in_flight_is_unknown_when_the_gateway_dies(client, tree, tmp_path, modern):
    if not modern:
        client.initialize()
    file = tmp_path / "effects"
    arguments = {"file": str(file), "seconds": 30}
    id_ = client.begin("tools/call", modern, name="slow_effect", arguments=arguments)
    wait_until(file.exists, 10, "the effect")
    before = tree.kill("gateway")
    answer = client.answer(id_)
    assert answer["error"]["data"]["code"] == "OUTCOME_UNKNOWN"
    tree.wait_ready("gateway", before)
    assert client.text("echo", modern, text="after") == "after"
    assert file.read_text() == "done\n", "a call with an effect was repeated"
    assert len(client.answers(id_)) == 1


@pytest.mark.parametrize("modern", ERAS)
def test_a_call_that_may_be_repeated_is_repeated_once_when_the_gateway_dies(client, tree, tmp_path, modern):
    if not modern:
        client.initialize()
    file = tmp_path / "effects"
    id_ = client.begin("tools/call", modern, name="slow_repeatable", arguments={"file": str(file), "seconds": 3})
    wait_until(file.exists, 10, "the first try")
    before = tree.kill("gateway")
    assert client.answer(id_)["result"]["content"][0]["text"] == "done"
    assert file.read_text() == "done\n" * 2
    tree.wait_ready("gateway", before)


def kill_tree(data: Path) -> None:
    """Kill the root, and wait until the kernel has ended all of its tree."""
    status = json.loads(greenroom("status", "--json", "--data-dir", data).stdout)
    pids = [status["root_pid"], *(actor["pid"] for actor in status["actors"] if actor["pid"])]
    os.kill(status["root_pid"], signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in pids), 10, "the whole tree to be gone")


def test_requests_wait_for_a_tree_that_restarts_and_the_session_goes_on(tmp_path):
    data = tmp_path / "data"
    with stdio(tmp_path, "--data-dir", data) as client:
        client.initialize()
        kill_tree(data)
        assert client.text("echo", False, text="again") == "again"
        assert "handshake was repeated" not in client.log()
        assert client.end() == 0
    assert greenroom("status", "--data-dir", data).returncode == NOT_RUNNING


def test_a_session_that_the_server_does_not_know_is_opened_again(tmp_path):
    data = tmp_path / "data"
    with stdio(tmp_path, "--data-dir", data) as client:
        client.initialize()
        (data / "session.key").unlink()
        kill_tree(data)
        assert client.text("echo", False, text="again") == "again"
        assert "handshake was repeated" in client.log()


# --- which tree, and the ends --------------------------------------------------------------------------------------


def greenroom(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([GREENROOM, *map(str, arguments)], capture_output=True, text=True, timeout=30)


def test_help_has_an_example_and_the_rule():
    helped = greenroom("stdio", "--help")
    assert "Example: greenroom stdio" in helped.stdout
    assert "When none runs there it starts one" in " ".join(helped.stdout.split())


def test_attach_fails_when_nothing_runs_and_says_what_to_do(tmp_path):
    with stdio(tmp_path, "--attach", "--data-dir", tmp_path / "data") as client:
        assert client.wait() == NOT_RUNNING
        assert "greenroom up" in client.log()


def test_own_and_attach_exclude_each_other():
    assert greenroom("stdio", "--own", "--attach").returncode == 2


def test_a_tree_of_its_own_that_cannot_start_ends_it_with_the_reason(tmp_path):
    (tmp_path / "bad.yaml").write_text("server: {prot: 1}\n")
    with stdio(tmp_path, "--own", "--config", tmp_path / "bad.yaml") as client:
        assert client.wait() == 1
        assert "server.port" in client.log()


def test_own_uses_a_scratch_folder_which_goes_with_it(tmp_path):
    # A short path: sockets are below it.
    with tempfile.TemporaryDirectory(prefix="gr-") as scratch:
        with stdio(tmp_path, "--own", env={"TMPDIR": scratch, "GREENROOM_DATA_DIR": ""}) as client:
            assert client.text("echo", True, text="x") == "x"
            [folder] = Path(scratch).glob("greenroom-stdio-*")
            assert client.end() == 0
        assert not folder.exists()


def test_a_second_bridge_uses_the_tree_of_the_first_and_starts_one_when_that_goes(tmp_path):
    data = tmp_path / "data"
    with stdio(tmp_path, "--data-dir", data) as first, stdio(tmp_path, "--data-dir", data) as second:
        assert first.text("echo", True, text="1") == "1"
        assert second.text("echo", True, text="2") == "2"
        second_was_first = "already" in first.log()
        leaving, staying = (second, first) if second_was_first else (first, second)
        assert leaving.end() == 0
        assert staying.text("echo", True, text="3") == "3"
        assert staying.end() == 0


def test_the_tree_of_a_killed_bridge_stops(tmp_path):
    data = tmp_path / "data"
    with stdio(tmp_path, "--data-dir", data) as client:
        client.text("echo", True, text="x")
        root = json.loads(greenroom("status", "--json", "--data-dir", data).stdout)["root_pid"]
        client.process.kill()
        wait_until(lambda: not alive(root), 15, "the root to end")


def test_calls_that_are_open_at_the_end_of_input_are_answered(client):
    id_ = client.begin("tools/call", True, name="sleep", arguments={"seconds": 1})
    assert client.end() == 0
    assert "result" in client.answers(id_)[0]


def test_a_call_that_takes_too_long_after_the_end_of_input_gets_an_error(tree, tmp_path):
    with stdio(tmp_path, "--attach", "--data-dir", tree.data_dir, env={"GREENROOM_STDIO__END_S": "0.5"}) as client:
        client.initialize()
        ids = [client.begin("tools/call", modern, name="sleep", arguments={"seconds": 50}) for modern in (True, False)]
        listen(client, "l", toolsListChanged=True)
        wait_until(lambda: open_calls(tree) == 2, 10, "both calls in the pool")
        assert client.end(10) == 0
        assert [client.answers(id_)[0]["error"]["data"]["code"] for id_ in ids] == ["CANCELLED"] * 2
    wait_until(lambda: open_calls(tree) == 0, 10, "no call in the pool")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_it_soon_although_its_input_is_open(client, number):
    client.initialize()
    client.begin("tools/call", True, name="sleep", arguments={"seconds": 50})
    assert client.text("echo", False, text="x") == "x"
    began = time.monotonic()
    client.process.send_signal(number)
    assert client.wait(10) == 0
    assert time.monotonic() - began < 5


def test_a_client_that_does_not_read_any_more_ends_it(tree):
    command = [GREENROOM, "stdio", "--attach", "--data-dir", tree.data_dir]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(b"nonsense\n")
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write(b"nonsense\n")
        process.stdin.flush()
        assert process.wait(10) == 0


def test_plain_files_do_for_input_and_output(tree, tmp_path):
    call = {"name": "echo", "arguments": {"text": "from a file"}}
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    line = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call | {"_meta": meta}}
    (tmp_path / "in").write_text(json.dumps(line))
    with (tmp_path / "in").open() as source, (tmp_path / "out").open("w") as sink:
        subprocess.run(
            [GREENROOM, "stdio", "--attach", "--data-dir", tree.data_dir],
            stdin=source,
            stdout=sink,
            timeout=30,
            check=True,
        )
    [answer] = (tmp_path / "out").read_text().splitlines()
    assert json.loads(answer)["result"]["content"][0]["text"] == "from a file"
