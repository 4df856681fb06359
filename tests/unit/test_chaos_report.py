# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a chaos run tells: the table, what was broken, and the command that repeats it; and how answers are read."""

from __future__ import annotations

import msgspec
import pytest

from supervisor.chaos.checker import RULES, Violation
from supervisor.chaos.history import EffectLine, Evidence, Injected
from supervisor.chaos.load import Reply, read_effects, read_reply
from supervisor.chaos.report import SHOWN, faults_text, repeat_command, report_text, rules_text, summarize
from supervisor.chaos.runner import Plan, Run


def plan(**changes):
    return Plan(**({"seed": 7, "minutes": 1.5, "faults": ["kill", "stop"]} | changes))


def run(violations=(), faults=()):
    evidence = Evidence(faults=list(faults), effects=[EffectLine("a", 1)])
    calls = {"OUTCOME_UNKNOWN": 1, "ok": 99}
    return Run(plan=plan(), planned=3, seconds=90.4, calls=calls, evidence=evidence, violations=list(violations))


def fault(number, recovery_s=None, **fields):
    given = {"target": "router", "parameter": "", "seen": "SIGKILL to pid 5"} | fields
    return Injected(number=number, fault="kill", began=1.0, recovery_s=recovery_s, **given)


def test_a_run_that_broke_nothing_says_so():
    summary = summarize(run(faults=[fault(1, 0.005), fault(2, 0.007), fault(3, 0.03)]))
    text = report_text(summary)
    assert summary.ok
    assert f"rules:  all {len(RULES)} hold" in text
    assert "BROKEN" not in text
    (row,) = summary.faults
    assert (row.times, row.recovery_p50_ms, row.recovery_max_ms, row.verdict) == (3, 7.0, 30.0, "as expected")
    assert "calls:  OUTCOME_UNKNOWN 1  ok 99" in text
    assert text.endswith("again:  greenroom chaos run --seed 7 --minutes 1.5")


def test_what_was_broken_is_shown_with_details_up_to_a_bound():
    rule = "no effect twice"
    violations = [Violation(rule, f"the effect {number} happened 2 times") for number in range(SHOWN + 5)]
    summary = summarize(run([*violations, Violation("the tree is whole", "router is failed")]))
    text = report_text(summary)
    assert not summary.ok
    assert (len(summary.violations), summary.violations_total) == (SHOWN + 1, SHOWN + 6)
    assert "rules:  2 of 15 broken, 16 times" in text
    assert f"BROKEN: {rule}\n  the effect 0 happened 2 times" in text
    assert "router is failed" in text
    assert "and 5 more" in text


def test_a_fault_that_went_wrong_shows_its_problem_instead_of_the_last_one():
    summary = summarize(run(faults=[fault(1, problems=["it was not replaced"]), fault(2, 0.01)]))
    assert (summary.faults[0].seen, summary.faults[0].verdict) == ("it was not replaced", "1 not")


def test_a_report_is_one_json_object():
    summary = summarize(run(faults=[fault(1, 0.005)]))
    assert msgspec.json.decode(msgspec.json.encode(summary))["faults"][0]["fault"] == "kill"


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({}, "greenroom chaos run --seed 7 --minutes 1.5"),
        ({"own": True, "minutes": 10.0}, "greenroom chaos run --own --seed 7 --minutes 10"),
        ({"faults_given": True}, "greenroom chaos run --seed 7 --minutes 1.5 --faults kill,stop"),
    ],
)
def test_the_command_that_repeats_a_run(changes, command):
    assert repeat_command(plan(**changes)) == command


def test_every_rule_and_fault_has_a_text():
    assert len(rules_text().splitlines()) == len(RULES)
    assert all(line.rstrip().endswith(".") for line in rules_text().splitlines())
    assert "-> every process is gone within 1 s" in faults_text()


# --- reading answers -------------------------------------------------------------------------------------------------

META = b'"_meta":{"greenroom/code":"BUSY"}'


@pytest.mark.parametrize(
    ("body", "kind", "reply"),
    [
        (b'{"id":1,"result":{"content":[{"type":"text","text":"a"}]}}', "application/json", Reply(1, "", "a")),
        (
            b'{"id":1,"result":{"content":[{"text":"no"}],"isError":true,' + META + b"}}",
            "application/json",
            Reply(1, "BUSY", "no"),
        ),
        (b'{"id":1,"error":{"code":-32602,"message":"no"}}', "application/json", Reply(1, "JSONRPC_-32602", "no")),
        (
            b': \n\ndata: {"method":"x"}\n\ndata: {"id":1,"result":{"content":[{"text":"a"}]}}\n\n',
            "text/event-stream",
            Reply(1, "", "a"),
        ),
        (
            b'{"id":1,"result":{"content":[{"text":"{}"}],"structuredContent":{"token":"t"}}}',
            "application/json",
            Reply(1, "", "{}", {"token": "t"}),
        ),
    ],
)
def test_an_answer_is_read(body, kind, reply):
    assert read_reply(body, kind) == reply


def test_effects_are_read_and_a_torn_line_is_none():
    assert read_effects("a 1\nb 2\nc") == [EffectLine("a", 1), EffectLine("b", 2)]
