# SPDX-License-Identifier: AGPL-3.0-or-later
"""The official client that knows tasks (2025-11-25), with calls that run as tasks."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.peers, pytest.mark.process]


@pytest.fixture(scope="module")
def seen(make_client):
    with make_client("typescript", "sdk").start_tasks() as client:
        return client.answer()


def test_the_client_finds_that_there_are_tasks(seen):
    assert seen["offered"] == {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}


def test_a_task_comes_to_its_result(seen):
    assert seen["told"]["statuses"] == ["working", "completed"]
    assert seen["told"]["text"] == "counted"


def test_a_question_is_answered_while_the_client_waits_for_the_result(seen):
    assert seen["asked"]["statuses"][-1] == "input_required"
    assert seen["asked"]["text"] == "Hello, Ada!"


def test_a_tool_that_fails_is_a_failed_task_and_the_reason_is_its_result(seen):
    assert seen["failed"]["statuses"][-1] == "failed"
    assert "the ink is dry" in seen["reason"]


def test_a_running_task_is_cancelled(seen):
    assert seen["cancelled"] == "cancelled"


def test_all_of_them_are_listed(seen):
    listed = dict(seen["listed"])
    ended = {"told": "completed", "asked": "completed", "failed": "failed"}
    assert listed == {seen[name]["id"]: status for name, status in ended.items()} | {seen["long"]: "cancelled"}
