# SPDX-License-Identifier: AGPL-3.0-or-later
"""The examples, served as their own comments say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from running import McpClient, started, wait_until

pytestmark = pytest.mark.process

EXAMPLES = Path(__file__).parents[2] / "examples"
TASK_TOOLS_ON = {"GREENROOM_P2P__TASK_QUEUE__TOOLS": "true"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A tree with the example tool and the example configuration."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "documents").mkdir()
    flags = ("--config", str(EXAMPLES / "greenroom.yaml"), "--tools", str(EXAMPLES))
    with started(folder / "data", *flags, env={"DOCUMENTS": str(folder / "documents")} | TASK_TOOLS_ON) as running:
        yield running


@pytest.fixture
def client(tree):
    with McpClient(tree.url) as mcp:
        yield mcp


def test_the_example_tool_counts_words(tree, client):
    home = tree.data_dir / "files"
    home.mkdir(exist_ok=True)
    (home / "story.txt").write_text("The cat saw the dog.\nA dog!\n")
    counted = client.call("word_count", path="story.txt", top=2)["structuredContent"]
    assert counted == {
        "lines": 2, "words": 7, "top": [{"word": "the", "count": 2}, {"word": "dog", "count": 2}],
    }  # fmt: skip
    assert '"lines":2' in tree.run("tools", "call", "word_count", "path=story.txt", "top=2").stdout.replace(" ", "")


def test_the_example_tool_is_listed_with_its_texts(tree, client):
    tools = {tool["name"]: tool for tool in client.request("tools/list").json()["result"]["tools"]}
    listed = tools["word_count"]
    assert listed["description"] == "Count the words of a text file and list the most frequent ones."
    assert listed["inputSchema"]["properties"]["top"]["description"] == "How many words to list."
    assert listed["annotations"]["readOnlyHint"] is True
    assert "broken" not in tree.run("tools", "list").stdout


def test_the_example_notes_are_written_read_and_planned(tree, client):
    written = client.request("tools/call", name="add_note", arguments={"name": "milk", "text": "buy milk"}).json()
    assert written["result"]["content"][0]["text"] == "notes://milk"
    assert tree.run("resources", "read", "notes://milk").stdout == "buy milk\n"
    assert tree.run("resources", "read", "notes://").stdout == "milk\n"
    assert "Be short." in tree.run("prompts", "get", "plan_day", "tone=short").stdout
    missing = tree.run("resources", "read", "notes://..%2Fsecret", check=False)
    assert (missing.returncode, "NOT_FOUND" in missing.stderr) == (1, True)


def test_the_example_worker_does_tasks_and_leaves_in_order(tree, client, tmp_path):
    def told(tool, **arguments):
        return client.call(tool, **arguments)["structuredContent"]

    def ended(task_id):
        shown = told("task_status", task_id=task_id)
        return shown["status"] in {"completed", "failed"} and told("task_result", task_id=task_id)

    log = tmp_path / "worker.log"
    with log.open("w") as sink:
        worker = subprocess.Popen(
            [sys.executable, EXAMPLES / "clients" / "external_worker.py", f"{tree.url}/mcp"], stderr=sink
        )
    try:
        told("task_submit", task_id="page", task_type="count_letters", payload={"text": "a banana"})
        done = wait_until(lambda: ended("page"), 20, "the task to be done")
        assert (done["output"], done["result"]["worker_id"]) == ({"a": 4, "b": 1, "n": 2}, "letter-counter-1")
        told("task_submit", task_id="blank", task_type="count_letters", payload={}, retry_policy={"max_retries": 0})
        failed = wait_until(lambda: ended("blank"), 20, "the task to fail")
        assert failed["result"]["error"]["message"] == "KeyError: 'text'"
        worker.terminate()
        assert worker.wait(20) == 0, log.read_text()
        assert told("worker_status", worker_id="letter-counter-1")["status"] == "unregistered"
    finally:
        worker.kill()
        worker.wait()


def test_what_goes_wrong_is_said_in_words(client):
    def said(**arguments):
        result = client.call("word_count", **arguments)
        assert result["isError"] is True
        return result["content"][0]["text"]

    assert "did you mean `path`?" in said(pth="story.txt")
    assert "`top`: expected a whole number, at most 1000" in said(path="story.txt", top=1001)
    assert "none.txt does not exist" in said(path="none.txt")
    assert "outside of the folders that tools may use" in said(path="/etc/hostname")


def test_the_example_configuration_is_in_force(tree, client):
    documents = tree.data_dir.parent / "documents"
    (documents / "latin.txt").write_bytes("café".encode("latin-1"))
    result = client.call("word_count", path=str(documents / "latin.txt"))
    assert "is not UTF-8 text" in result["content"][0]["text"]
    assert "tools.data#0" in tree.actors()


def test_the_example_report_is_a_task_for_clients_that_know_them(client):
    """This one knows none, and can't be asked."""
    called = client.call("long_report", topic="moss", minutes=0)
    assert called["content"][0]["text"] == "A short report on moss: nothing was found."
