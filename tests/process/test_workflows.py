# SPDX-License-Identifier: AGPL-3.0-or-later
"""Workflows in a real tree: in order, whatever is killed, and each effect once."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import trio
from running import started, wait_until
from workflow_calls import Workflows, open_workflows, step

from actors.p2p.workflow_scheduler.verify import verified

pytestmark = pytest.mark.process

TOOLS = '''
import os
from typing import Any
import trio
from actors.toolkit import ToolContext, tool

def note(word, name):
    with open(os.environ["NOTES"], "a") as file:
        file.write(f"{word} {name}\\n")

@tool(timeout=60)
async def act(name: str, seconds: float = 0.0, given: Any = None, fails: bool = False) -> Any:
    """Write down that it began, take its time, write down that it is done, and answer what it was given."""
    note("begun", name)
    await trio.sleep(seconds)
    if fails:
        raise ValueError(f"{name} fails")
    note("done", name)
    return {"name": name, "given": given}
'''


class Notes:
    """What the tools wrote down."""

    def __init__(self, path):
        self._path = path
        path.touch()

    def of(self, word: str) -> list[str]:
        pairs = [line.split(" ", 1) for line in self._path.read_text().splitlines()]
        return [name for was, name in pairs if was == word]

    async def until(self, word: str, *names: str) -> None:
        """Until all of these are written down."""
        await trio.to_thread.run_sync(wait_until, lambda: set(names) <= set(self.of(word)), 20, f"{names} {word}")


@pytest.fixture
def notes(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    return Notes(tmp_path / "notes")


@pytest.fixture
def in_tree(tmp_path, notes):
    """Run this in a tree with the tool `act`."""
    (tmp_path / "acting_tools.py").write_text(TOOLS)

    def run(main, *, env=None):
        async def within(tree):
            async with open_workflows(tree.data_dir) as workflows:
                await main(tree, workflows)

        with started(tmp_path / "data", "--tools", str(tmp_path / "acting_tools.py"), env=env or {}) as tree:
            trio.run(within, tree)

    return run


def act(name: str, after=(), **more) -> dict:
    """A step of this name that calls the tool `act` with it."""
    return step(name, "act", after, name=name, **more)


def workflow(*steps: dict, workflow_id: str = "w", **more) -> dict:
    return {"name": "test", "workflow_id": workflow_id, "steps": list(steps)} | more


def statuses(view) -> dict[str, str]:
    return {one.step_id: one.status for one in view.steps}


def outputs(view) -> dict:
    return {one.step_id: json.loads(one.output) for one in view.steps if one.output is not None}


async def sound(workflows: Workflows, workflow_id: str) -> None:
    """Its export proves all of it."""
    report = verified(await workflows.export(workflow_id))
    assert report.sound, report


def test_a_diamond_passes_outputs_on_and_its_export_proves_it(in_tree, notes):
    async def main(_, workflows):
        await workflows.submit(
            workflow(
                act("top", given=[1, 2]),
                act("left", ["top"], given={"$from": "top", "path": "/given/0"}),
                act("right", ["top"], given={"$from": "top", "path": "/given/1"}),
                act("end", ["left", "right"], given=[{"$from": "left"}, {"$from": "right", "path": "/given"}]),
            )
        )
        view = await workflows.ended("w")
        assert view.status == "completed", view
        assert outputs(view)["end"]["given"] == [{"name": "left", "given": 1}, 2]
        assert notes.of("begun")[0] == "top"
        assert notes.of("begun")[-1] == "end"
        await sound(workflows, "w")

    in_tree(main)


def test_one_step_does_each_item_and_the_next_one_is_given_all_results(in_tree):
    async def main(_, workflows):
        await workflows.submit(
            workflow(
                act("list", given=list(range(30))),
                act("each", ["list"], for_each={"$from": "list", "path": "/given"}, given={"$item": ""}),
                act("all", ["each"], given={"$from": "each"}),
            )
        )
        view = await workflows.ended("w")
        assert view.status == "completed", view
        assert [one["given"] for one in outputs(view)["all"]["given"]] == list(range(30))
        assert (view.steps[1].items, view.steps[1].items_ended) == (30, 30)
        await sound(workflows, "w")

    in_tree(main)


def test_a_branch_that_fails_skips_what_follows_and_nothing_else(in_tree, notes):
    async def main(_, workflows):
        await workflows.submit(
            workflow(
                act("bad", fails=True, retry_policy={"max_retries": 0}),
                act("after_bad", ["bad"]),
                act("after_that", ["after_bad"]),
                act("good"),
                act("after_good", ["good"]),
                act("mend", ["bad"], when="on_failure"),
            )
        )
        view = await workflows.ended("w")
        assert (view.status, view.error.code) == ("failed", "STEP_FAILED")
        assert statuses(view) == {
            "bad": "failed",
            "after_bad": "skipped",
            "after_that": "skipped",
            "good": "completed",
            "after_good": "completed",
            "mend": "completed",
        }
        assert set(notes.of("done")) == {"good", "after_good", "mend"}
        await sound(workflows, "w")

    in_tree(main)


@pytest.mark.parametrize("force", [False, True])
def test_a_cancelled_workflow_stops_at_once(in_tree, notes, force):
    async def main(_, workflows):
        await workflows.submit(workflow(act("slow", seconds=50.0), act("next", ["slow"])))
        await notes.until("begun", "slow")
        answer = await workflows.control("w", "cancel", reason="enough", force=force)
        assert answer.steps == ["slow", "next"]
        view = await workflows.ended("w", 10)
        assert (view.status, view.reason) == ("cancelled", "enough")
        assert statuses(view) == {"slow": "cancelled", "next": "cancelled"}
        assert notes.of("done") == []
        await sound(workflows, "w")

    in_tree(main)


def test_a_paused_workflow_begins_nothing_while_others_go_on_over_restarts(in_tree, notes):
    async def main(tree, workflows):
        await workflows.submit(workflow(act("first", seconds=1.0), act("second", ["first"])))
        await notes.until("begun", "first")
        await workflows.control("w", "pause", reason="wait")
        await notes.until("done", "first")
        for victim in ("workflow_scheduler", "task_queue"):
            await killed(tree, victim)
        await workflows.submit(workflow(act("other"), workflow_id="w2"))
        assert (await workflows.ended("w2")).status == "completed"
        view = await workflows.get("w")
        assert (view.status, view.paused) == ("running", True)
        assert notes.of("begun") == ["first", "other"]
        await workflows.control("w", "resume")
        assert (await workflows.ended("w")).status == "completed"

    in_tree(main)


async def killed(tree, victim: str) -> None:
    """kill -9, until it is there again."""
    incarnation = await trio.to_thread.run_sync(tree.kill, victim)
    await trio.to_thread.run_sync(tree.wait_ready, victim, incarnation)


@pytest.mark.parametrize("victim", ["workflow_scheduler", "task_queue", "task_worker", "tools.general#0", "router"])
def test_a_death_in_the_middle_is_survived_and_what_was_done_is_not_done_again(in_tree, notes, victim):
    async def main(tree, workflows):
        chain = [
            act(f"s{n}", [f"s{n - 1}"], seconds=0.3, given={"$from": f"s{n - 1}", "path": "/name"}) for n in range(1, 6)
        ]
        each = act("each", ["s5"], for_each=[1, 2, 3], seconds=0.1, given={"$item": ""})
        await workflows.submit(workflow(act("s0", seconds=0.3), *chain, each))
        await notes.until("begun", "s2")
        before = notes.of("done")
        await killed(tree, victim)
        view = await workflows.ended("w")
        assert view.status == "completed", view
        assert outputs(view)["s5"] == {"name": "s5", "given": "s4"}
        assert [one["given"] for one in outputs(view)["each"]] == [1, 2, 3]
        done = Counter(notes.of("done"))
        assert all(done[name] == 1 for name in before), "what had ended before the death was done again"
        await sound(workflows, "w")

    in_tree(main)


def test_what_runs_goes_on_while_an_operator_has_it_out_of_service(in_tree, notes):
    async def main(tree, workflows):
        await workflows.submit(workflow(act("a", seconds=1.0), act("b", ["a"]), act("c", ["b"], when="always")))
        await trio.to_thread.run_sync(lambda: tree.run("drain", "workflow_scheduler", "--yes"))
        assert notes.of("done") == []
        await notes.until("done", "a", "b", "c")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workflows.submit, workflow(act("d"), workflow_id="w2"))
            await trio.to_thread.run_sync(lambda: tree.run("resume", "workflow_scheduler"))
        assert (await workflows.ended("w")).status == "completed"
        assert (await workflows.ended("w2")).status == "completed"

    in_tree(main)


def test_a_stop_and_a_start_of_the_tree_lose_nothing(tmp_path, in_tree, notes):
    async def before(_, workflows):
        await workflows.submit(workflow(act("a"), act("b", ["a"], seconds=3.0), act("c", ["b"])))
        await notes.until("begun", "b")

    async def after(_, workflows):
        view = await workflows.ended("w")
        assert view.status == "completed", view
        assert Counter(notes.of("done")) == {"a": 1, "b": 1, "c": 1}
        await sound(workflows, "w")

    in_tree(before, env={"GREENROOM_SUPERVISOR__SHUTDOWN_S": "1"})
    in_tree(after)
