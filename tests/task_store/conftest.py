# SPDX-License-Identifier: AGPL-3.0-or-later
"""Each test of the contract runs on each store."""

from __future__ import annotations

import pytest
from task_boxes import BIG, KINDS, Box


@pytest.fixture(params=KINDS)
async def make_box(request, tmp_path):
    """Makes an open box with these limits."""
    boxes: list[Box] = []

    async def make(limits=BIG) -> Box:
        box = KINDS[request.param](tmp_path, limits)
        boxes.append(box)
        await box.open()
        return box

    yield make
    for box in boxes:
        await box.close()


@pytest.fixture
async def box(make_box):
    """An open box with limits that no test comes near."""
    return await make_box()
