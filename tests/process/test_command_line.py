# SPDX-License-Identifier: AGPL-3.0-or-later
"""The command line against a real tree: every verb, its JSON, its exit code, and what it says when things go wrong."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import time

import pytest
from running import GREENROOM, NO_SPARES, started, wait_until

pytestmark = pytest.mark.process

VERBS = [
    ("up",),
    ("bootstrap",),
    ("down",),
    ("status",),
    ("tree",),
    ("restart",),
    ("drain",),
    ("resume",),
    ("scale",),
    ("reload",),
    ("why",),
    ("events",),
    ("tools",),
    ("tools", "list"),
    ("tools", "call"),
    ("queue",),
    ("queue", "stats"),
    ("queue", "peek"),
    ("queue", "dead"),
    ("queue", "requeue"),
    ("task",),
    ("task", "show"),
    ("config",),
    ("config", "show"),
]
DONE, FAILED, USAGE, NOT_RUNNING, DEGRADED = 0, 1, 2, 3, 4


def run(*arguments, env: dict[str, str] | None = None, timeout_s: float = 30) -> subprocess.CompletedProcess:
    return subprocess.run(
        [GREENROOM, *map(str, arguments)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=timeout_s,
        env=os.environ | (env or {}),
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """One tree with a broken tool beside the good ones."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "mytools").mkdir()
    (folder / "mytools" / "wrong.py").write_text("import nothing_of_this_name\n")
    (folder / "mytools" / "fails.py").write_text(
        "from actors.toolkit import tool\n\n\n@tool()\nasync def fails() -> str:\n"
        '    """Always fail."""\n    raise ValueError("on purpose")\n'
    )
    with started(folder / "data", "--tools", str(folder / "mytools"), env=NO_SPARES) as running:
        yield running


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory):
    """A data directory on which nothing runs."""
    return tmp_path_factory.mktemp("nowhere")


# --- help and usage ------------------------------------------------------------------------------------------------


def examples(verb: tuple[str, ...]) -> list[str]:
    return re.findall(r"Example: greenroom (.+)", run(*verb, "--help").stdout)


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_has_help_and_the_help_of_a_leaf_has_an_example_of_itself(verb):
    helped = run(*verb, "--help")
    assert helped.returncode == DONE
    assert helped.stderr == ""
    assert run(*verb, "-h").stdout == helped.stdout
    if verb in {("tools",), ("queue",), ("task",), ("config",)}:
        assert "Commands:" in helped.stdout
    else:
        [example] = examples(verb)
        assert tuple(shlex.split(example)[: len(verb)]) == verb
        assert "--json" in helped.stdout


def test_the_main_help_names_every_verb_and_the_exit_codes():
    text = run("--help").stdout
    for verb in VERBS:
        assert re.search(rf"^  {verb[0]} ", text, re.MULTILINE)
    assert "4 it runs, but something is not ready" in text


@pytest.mark.parametrize("verb", [("status",), ("tree",), ("tools", "list"), ("tools", "call"), ("config", "show")])
def test_the_examples_work(tree, verb):
    [example] = examples(verb)
    assert run(*shlex.split(example), "--data-dir", tree.data_dir).returncode == DONE


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["statsu"], "Did you mean 'status'?"),
        (["tools", "lst"], "Did you mean 'list'?"),
        (["config", "shwo"], "Did you mean 'show'?"),
        (["status", "--jsn"], "--json"),
        (["up", "--port", "70000"], "70000"),
        (["restart"], "Missing argument 'ACTOR'"),
    ],
)
def test_wrong_usage_is_told_with_the_nearest_and_exits_2(arguments, said):
    wrong = run(*arguments)
    assert wrong.returncode == USAGE
    assert said in wrong.stderr
    assert wrong.stdout == ""


# --- a running tree ------------------------------------------------------------------------------------------------


def test_status_is_one_line_or_one_object(tree):
    said = tree.run("status")
    assert re.fullmatch(r"ready  up .*  6 of 6 actors ready  \d+ restarts?  http://127.*/mcp\n", said.stdout)
    status = json.loads(tree.run("status", "--json").stdout)
    assert status["root_pid"] == tree.root_pid
    assert status["url"] == tree.url


def test_status_says_degraded_with_its_own_code(tmp_path):
    with started(tmp_path / "data", env=NO_SPARES | {"GREENROOM_SUPERVISOR__READY_TIMEOUT_S": "60"}) as tree:
        victim = tree.pid("router")
        os.kill(victim, signal.SIGSTOP)
        restart = subprocess.Popen(
            [GREENROOM, "restart", "router", "--data-dir", tree.data_dir],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        degraded = wait_until(
            lambda: (said := tree.run("status", check=False)).returncode == DEGRADED and said, 10, "degraded"
        )
        assert degraded.stdout.startswith("degraded")
        assert "router is draining" in degraded.stdout
        restart.wait(30)


def test_tree_draws_every_actor(tree):
    text = tree.run("tree").stdout
    for name, actor in tree.actors().items():
        assert name.partition("#")[0] in text
        assert str(actor["pid"] or "off") in text
    assert json.loads(tree.run("tree", "--json").stdout)["root_pid"] == tree.root_pid


def test_tools_are_listed_as_signatures_and_broken_ones_with_the_reason(tree):
    text = tree.run("tools", "list").stdout
    assert re.search(r"^echo\(text: string\)  \[\w+, general\]  \w", text, re.MULTILINE)
    assert re.search(r"^wrong  broken: .*nothing_of_this_name", text, re.MULTILINE)
    tools = {tool["name"]: tool for tool in json.loads(tree.run("tools", "list", "--json").stdout)["tools"]}
    assert tools["echo"]["input_schema"]["required"] == ["text"]
    assert "nothing_of_this_name" in tools["wrong"]["broken"]


def test_a_tool_is_called_and_its_result_alone_is_on_stdout(tree):
    called = tree.run("tools", "call", "echo", "text=hello world")
    assert (called.stdout, called.stderr) == ("hello world\n", "")
    answer = json.loads(tree.run("tools", "call", "echo", "text=5", "--json").stdout)
    assert (answer["result"], answer["_runtime"]) == ("5", "general")
    assert answer["_duration_ms"] >= 0


def test_progress_goes_to_stderr(tree):
    called = tree.run("tools", "call", "sleep", "seconds=0.2")
    assert called.stderr
    assert json.loads(called.stdout) if called.stdout.startswith("{") else called.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["tools", "call", "ehco", "text=x"], "UNKNOWN_TOOL", "no tool matches 'ehco'; did you mean echo?"),
        (["tools", "call", "zzzzzz"], "UNKNOWN_TOOL", "see: greenroom tools list"),
        (["tools", "call", "echo", "txt=x"], "INVALID_ARGUMENTS", "did you mean `text`?"),
        (
            ["tools", "call", "echo", "hello"],
            "INVALID_ARGUMENTS",
            "'hello' is not KEY=VALUE; echo takes: echo(text: string)",
        ),
        (["tools", "call", "echo"], "INVALID_ARGUMENTS", "text"),
        (["tools", "call", "fails"], "TOOL_FAILED", "on purpose"),
        (["restart", "routr"], "UNKNOWN_ACTOR", "no actor matches 'routr'; did you mean router?"),
        (["restart", "zzzzzz"], "UNKNOWN_ACTOR", "there are: "),
        (["restart", "peer_registry"], "UNKNOWN_ACTOR", "peer_registry is off: p2p.enabled is false"),
    ],
)
def test_a_failure_is_one_line_with_its_code_and_exits_1(tree, arguments, code, said):
    failed = tree.run(*arguments, check=False)
    assert failed.returncode == FAILED
    assert failed.stdout == ""
    assert said in failed.stderr
    assert failed.stderr.startswith("greenroom: ")
    assert failed.stderr.endswith(f" [{code}]\n")
    assert failed.stderr.count("\n") == 1
    as_json = tree.run(*arguments, "--json", check=False)
    error = json.loads(as_json.stdout)["error"]
    assert (as_json.returncode, error["code"]) == (FAILED, code)
    assert said in error["message"]


def test_restart_gives_both_pids_and_the_time_without_service(tree):
    old = tree.pid("router")
    said = tree.run("restart", "router").stdout
    new = tree.pid("router")
    assert new != old
    assert re.fullmatch(rf"router: pid {old} -> {new}, \d+\.\d\d s without it\n", said)
    change = json.loads(tree.run("restart", "tools.general#0", "--json").stdout)
    assert change["new_pid"] == tree.pid("tools.general#0") != change["old_pid"]
    assert 0 < change["seconds"] < 30
    assert tree.run("tools", "call", "echo", "text=on").stdout == "on\n"


@pytest.mark.parametrize("verb", [("status",), ("tree",), ("down",), ("restart", "router"), ("tools", "list")])
def test_without_a_running_system_it_says_how_to_start_one_and_exits_3(nowhere, verb):
    missing = run(*verb, "--data-dir", nowhere)
    assert missing.returncode == NOT_RUNNING
    assert missing.stdout == ""
    assert f"greenroom up --data-dir {nowhere}" in missing.stderr
    as_json = run(*verb, "--json", "--data-dir", nowhere)
    assert as_json.returncode == NOT_RUNNING
    assert json.loads(as_json.stdout)["error"]["code"] == "NOT_RUNNING"


def test_down_says_what_it_stopped(tmp_path):
    with started(tmp_path / "data") as tree:
        stopped = json.loads(tree.run("down", "--json").stdout)
        assert tree.process.wait(30) == DONE
        assert stopped["root_pid"] == tree.root_pid
        durable = {"task_queue", "workflow_scheduler", "task_worker"}
        assert set(stopped["actors"]) == {"gateway", "router", "tools.general#0"} | durable


# --- configuration -------------------------------------------------------------------------------------------------


def test_config_show_tells_value_and_origin(tmp_path):
    (tmp_path / "config.yaml").write_text("server:\n  port: ${NO_SUCH_VARIABLE:-8123}\n")
    shown = run("config", "show", "--origin", "--data-dir", tmp_path, env={"MCP_HOST": "127.0.0.2"}).stdout
    assert re.search(r"^server.port +8123    # file config.yaml:2$", shown, re.MULTILINE)
    assert re.search(r'^server.host +"127.0.0.2"    # env MCP_HOST$', shown, re.MULTILINE)
    assert re.search(r"^server.gateways +1    # default$", shown, re.MULTILINE)
    assert "#" not in run("config", "show", "--data-dir", tmp_path).stdout
    lines = json.loads(run("config", "show", "--json", "--data-dir", tmp_path).stdout)
    assert {"key": "server.port", "value": 8123, "origin": "file config.yaml:2"} in lines


def test_a_wrong_configuration_is_told_before_anything_starts(tmp_path):
    file = tmp_path / "wrong.yaml"
    file.write_text("server:\n  prot: 1\n  log_level: loud\n")
    for verb in (("up", "--port", "0"), ("config", "show")):
        wrong = run(*verb, "--config", file, "--data-dir", tmp_path / "data")
        assert wrong.returncode == FAILED
        assert f"{file}:2: unknown key 'server.prot'; did you mean 'server.port'?" in wrong.stderr
        assert f"{file}:3: server.log_level" in wrong.stderr
        assert wrong.stderr.endswith("[CONFIG]\n")
    assert not (tmp_path / "data").exists()


def test_others_are_kept_out_unless_it_is_allowed(tmp_path):
    refused = run("up", "--host", "0.0.0.0", "--port", "0", "--data-dir", tmp_path / "data")
    assert refused.returncode == FAILED
    assert "server.allow_unauthenticated" in refused.stderr


# --- logs ----------------------------------------------------------------------------------------------------------


def log_of(tree) -> str:
    return tree.data_dir.with_name(f"{tree.data_dir.name}.log").read_text()


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
def test_the_log_is_json_and_its_level_holds_in_root_and_actors(tmp_path, level):
    order = ["DEBUG", "INFO", "WARNING", "ERROR"]
    (tmp_path / "fails.py").write_text(
        "from actors.toolkit import tool\n\n\n@tool()\nasync def fails() -> str:\n"
        '    """Always fail."""\n    raise ValueError("on purpose")\n'
    )
    (tmp_path / "wrong.py").write_text("import nothing_of_this_name\n")
    tools = ["--tools", str(tmp_path / "fails.py"), "--tools", str(tmp_path / "wrong.py")]
    with started(tmp_path / "data", *tools, env=NO_SPARES | {"GREENROOM_SERVER__LOG_LEVEL": level}) as tree:
        tree.run("tools", "call", "fails", check=False)
        incarnation = tree.kill("router")
        tree.wait_ready("router", incarnation)
        assert tree.stop() == DONE
    lines = [json.loads(line) for line in log_of(tree).splitlines()]
    assert all({"timestamp", "level", "event", "actor"} <= set(line) for line in lines)
    seen = {line["level"] for line in lines}
    assert seen == set(order[order.index(level) :])
    by_actors = {line["level"] for line in lines if line["actor"] != "root"}
    assert "ERROR" in by_actors
    assert ("WARNING" in by_actors) == (level != "ERROR"), "the broken tool"
    assert any(line["event"] == "exited" and line["offender"] == "router" for line in lines)
    if level != "ERROR":
        [incident] = [line for line in lines if line["event"] == "incident"]
        assert re.fullmatch(r"router died \(signal 9\), back in \d+ ms", incident["text"])
        assert incident["back_ms"] > 0


def test_what_a_tool_prints_is_an_event_with_the_actors_name(tmp_path):
    (tmp_path / "prints.py").write_text(
        "from actors.toolkit import tool\n\n\n@tool()\nasync def prints() -> str:\n"
        '    """Print."""\n    print("{not json}", flush=True)\n    return "done"\n'
    )
    with started(tmp_path / "data", "--tools", str(tmp_path / "prints.py")) as tree:
        assert tree.run("tools", "call", "prints").stdout == "done\n"
        assert tree.stop() == DONE
    [line] = [json.loads(line) for line in log_of(tree).splitlines() if "{not json}" in line]
    assert (line["event"], line["actor"], line["text"]) == ("stderr", "tools.general#0", "{not json}")


# --- up on a terminal ----------------------------------------------------------------------------------------------


class Terminal:
    """`greenroom up` as a person sees it."""

    def __init__(self, *arguments, env: dict[str, str] | None = None) -> None:
        self.fd, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [GREENROOM, "up", "--port", "0", *map(str, arguments)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=os.environ | (env or {}),
        )
        os.close(theirs)
        self.shown = ""

    def until(self, pattern: str, timeout_s: float = 60) -> re.Match:
        end = time.monotonic() + timeout_s
        while not (match := re.search(pattern, self.shown)):
            ready, _, _ = select.select([self.fd], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{pattern!r} was not shown within {timeout_s} s, but:\n{self.shown}"
            try:
                chunk = os.read(self.fd, 65536)
            except OSError:
                chunk = b""
            assert chunk, f"it ended before {pattern!r}:\n{self.shown}"
            self.shown += chunk.decode().replace("\r\n", "\n")
        return match

    def rest(self) -> str:
        try:
            while chunk := os.read(self.fd, 65536):
                self.shown += chunk.decode().replace("\r\n", "\n")
        except OSError:
            pass
        self.process.wait(30)
        return self.shown

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            self.rest()
        os.close(self.fd)


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"NO_COLOR": ""}], ids=["NO_COLOR", "colour"])
def test_a_person_sees_the_first_screen_then_a_line_for_each_incident_and_how_it_ended(tmp_path, env):
    (tmp_path / "wrong.py").write_text("import nothing_of_this_name\n")
    data_dir = tmp_path / "data"
    with Terminal("--data-dir", data_dir, "--tools", tmp_path / "wrong.py", env=NO_SPARES | env) as terminal:
        pid = int(terminal.until(r"- router +pid (\d+) +ready")[1])
        url = terminal.until(r"MCP +(http://127.0.0.1:\d+)/mcp")[1]
        terminal.until(r"peer_registry +off +\(p2p.enabled is false\)")
        terminal.until(r"broken: .*nothing_of_this_name")
        terminal.until(r"try:  greenroom tools call echo text=hello\n")
        assert url in run("status", "--data-dir", data_dir).stdout
        before = len(terminal.shown)
        run("tools", "call", "echo", "text=hello", "--data-dir", data_dir)
        os.kill(pid, signal.SIGKILL)
        terminal.until(r"router died \(signal 9\), back in \d+ ms.*\n")
        terminal.process.send_signal(signal.SIGINT)
        after = terminal.rest()[before:]
        assert terminal.process.returncode == DONE
    incident, end = after.splitlines()
    assert re.fullmatch(r"stopped \(SIGINT\) after .* s", end)
    assert incident.startswith("\x1b[33m") != bool(env["NO_COLOR"])
    assert ("\x1b" in terminal.shown) != bool(env["NO_COLOR"])


def test_on_a_terminal_down_says_what_it_will_stop_and_asks(tree):
    ours, theirs = pty.openpty()
    asked = subprocess.Popen(
        [GREENROOM, "down", "--data-dir", tree.data_dir], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    os.write(ours, b"n\n")
    out, said = asked.communicate(timeout=30)
    os.close(ours)
    os.close(theirs)
    assert asked.returncode == FAILED
    assert out == b""
    actors = "tools.general#0, task_queue, workflow_scheduler, task_worker, router, gateway"
    assert f"Stop {actors} and the root (pid {tree.root_pid})?".encode() in said
    assert tree.run("status").returncode == DONE


# --- failed starts -------------------------------------------------------------------------------------------------


def assert_no_bare_traceback(text: str) -> None:
    """What an actor wrote last stands indented on the failure screen, tracebacks included."""
    assert not re.search(r"^( {0,2}\+ )?(Traceback|Exception Group)", text, re.MULTILINE)


@pytest.mark.parametrize("way", ["/dev/null/data", "/proc/nowhere"])
def test_a_data_directory_that_can_not_be_used(way):
    failed = run("up", "--port", "0", "--data-dir", way)
    assert failed.returncode == FAILED
    assert re.fullmatch(r"greenroom: .* can't be used .*; choose another: --data-dir \[START_FAILED\]\n", failed.stderr)


def test_a_runtime_path_that_is_too_long(tmp_path):
    long = tmp_path / ("x" * 80)
    failed = run(
        "up", "--port", "0", "--data-dir", tmp_path / "data", env={"GREENROOM_SUPERVISOR__RUNTIME_DIR": str(long)}
    )
    assert failed.returncode == FAILED
    assert "set supervisor.runtime_dir to a shorter one" in failed.stderr
    assert_no_bare_traceback(failed.stderr)


def test_a_path_of_tools_that_is_not_there_is_told_and_harms_nobody(tmp_path):
    with started(tmp_path / "data", "--tools", str(tmp_path / "nothere")) as tree:
        assert re.search(r"broken: .*nothere", tree.run("tools", "list").stdout)
        assert tree.run("tools", "call", "echo", "text=x").stdout == "x\n"


FAILING = {"GREENROOM_TOOLS__POOLS__SMALL__OPEN_FILES": "3"}


def test_an_actor_that_can_not_start_is_told_with_its_last_words_and_a_remedy(tmp_path):
    failed = run("up", "--port", "0", "--data-dir", tmp_path / "data", "--json", env=FAILING)
    assert failed.returncode == FAILED
    assert re.search(
        r"greenroom could not start: tools.small#0 ended before it was ready, exit code \d+\n"
        r"  it wrote last:\n(    .+\n)+  what to do: .*open_files.*\n$",
        failed.stderr,
    )
    assert_no_bare_traceback(failed.stderr)
    error = json.loads(failed.stdout)["error"]
    assert (error["code"], error["actor"]) == ("START_FAILED", "tools.small#0")
    assert error["last_lines"]
    assert error["remedy"]
    assert not (tmp_path / "data" / "run.json").exists()


def test_on_a_terminal_a_failed_start_is_that_screen_alone(tmp_path):
    with Terminal("--data-dir", tmp_path / "data", env=FAILING) as terminal:
        shown = terminal.rest()
        assert terminal.process.returncode == FAILED
    assert shown.startswith("greenroom could not start: tools.small#0")
    assert "what to do:" in shown
    assert_no_bare_traceback(shown)
    assert "ready in" not in shown
