# SPDX-License-Identifier: AGPL-3.0-or-later
"""Bad requests against a live tree: each is answered as declared, and nobody dies of it. The long run: `./dev fuzz`.

`GREENROOM_FUZZ_REQUESTS` sets how many, `GREENROOM_TEST_SEED` repeats a run.
"""

from __future__ import annotations

import faulthandler
import os
import random

import pytest
from fuzz import tree
from fuzz.__main__ import fuzz
from fuzz.driver import Driver, smallest
from fuzz.forms import Step
from fuzz.scripts import Script

pytestmark = pytest.mark.chaos

REQUESTS = int(os.environ.get("GREENROOM_FUZZ_REQUESTS", "4000"))
SEED = int(os.environ.get("GREENROOM_TEST_SEED", str(random.randrange(2**32))))


@pytest.fixture
def live(tmp_path):
    faulthandler.cancel_dump_traceback_later()  # it may take longer than a test usually may
    with tree.tree(tmp_path) as greenroom:
        yield greenroom


async def test_bad_requests_are_answered_as_declared_and_nobody_dies_of_them(live):
    print(f"seed {SEED}, {REQUESTS} requests")
    report = await fuzz(live, seed=SEED, requests=REQUESTS, connections=16)
    print(report)
    assert report.violations == []
    assert report.requests >= REQUESTS
    assert {"200", "202", "400", "404"} <= set(report.answers)


async def test_a_death_in_between_is_seen(live):
    killed = []

    def kill_once(_: str) -> None:
        """Called in the middle of the run, after the first look at the tree."""
        if not killed:
            killed.append(live.kill("router#spare0"))

    report = await fuzz(live, seed=SEED, requests=100, connections=2, say=kill_once)
    assert killed
    assert any("router#spare0" in what for what in report.violations)
    assert any("incident" in what for what in report.violations)


async def test_what_broke_a_rule_is_made_smaller(live):
    """The rule that is broken here: that there is a prompt is a secret."""
    driver = Driver(live.url, [b"fuzz_prompt"])
    quiet = Step(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", to="rest")
    body = b'{"jsonrpc":"2.0","id":1,"method":"prompts/list"}'
    lines = (
        b"X-One: 1\r\nHost: 127.0.0.1\r\nX-Two: 2\r\nMcp-Session-Id: <session 2025-06-18>\r\nContent-Length: %d\r\n"
        % len(body)
    )
    asking = Step(b"POST /mcp HTTP/1.1\r\n" + lines + b"\r\n" + body)
    found = await smallest(driver, Script(0, [quiet, quiet, asking], "close"))
    (step,) = found.steps
    assert b"X-" not in step.data
    assert b"Mcp-Session-Id" in step.data
    assert "fuzz_prompt" in driver.violations[-1].what
