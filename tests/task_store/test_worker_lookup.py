# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is known of workers."""

from __future__ import annotations

from task_boxes import BIG

from actors.task_messages import Complete, RegisterWorker


async def test_a_worker_that_registered_is_known_with_what_it_holds_and_did(box):
    await box.do(RegisterWorker(worker="w", owner="ada", types=["echo"], max_tasks=2))
    await box.put("a")
    await box.put("b")
    first = await box.take()
    await box.take()
    box.later(3)
    await box.do(Complete(id="a", token=first.token))
    info = await box.store.worker("w")
    assert (info.owner, info.types, info.max_tasks) == ("ada", ["echo"], 2)
    assert (info.running, info.completed, info.run_s) == (["b"], 1, 3)


async def test_nobody_knows_a_worker_that_never_came(box):
    assert await box.store.worker("w") is None


async def test_to_look_at_a_worker_is_no_sign_of_life_of_it(box):
    await box.do(RegisterWorker(worker="w"))
    box.later(BIG.worker_timeout_s - 1)
    assert (await box.store.worker("w")).status == "idle"
    box.later(1)
    assert (await box.store.worker("w")).status == "offline"
