# SPDX-License-Identifier: AGPL-3.0-or-later
"""The example workflow, with a thousand steps: what it saves is what a loop over the files finds."""

from __future__ import annotations

import csv
import hashlib
import json
import random
from pathlib import Path

import pytest
from running import NO_SPARES, started

pytestmark = pytest.mark.process

PIPELINE = Path(__file__).parents[2] / "examples" / "pipeline.yaml"
ARTICLES = 332
WORDS = ["moss", "fern", "stone", "river", "light", "cold", "green", "under", "over", "never", "again", "slow"]


def write_articles(home: Path) -> list[dict]:
    """Files with sentences of different length, some of them equal, and the list of them."""
    drawn = random.Random(7)
    articles = []
    (home / "articles").mkdir(parents=True)
    for number in range(ARTICLES):
        text = ". ".join(" ".join(drawn.choices(WORDS, k=9)) for _ in range(drawn.randint(1, 12)))
        if number % 50 == 49:
            text = articles[-1]["text"]
        path = f"articles/{number:04}.txt"
        (home / path).write_text(text)
        articles.append({"path": path, "text": text})
    (home / "articles.jsonl").write_text("".join(json.dumps(one) + "\n" for one in articles))
    return articles


def test_the_pipeline_saves_what_a_loop_over_the_files_finds(tmp_path):
    home = tmp_path / "data" / "files"
    articles = write_articles(home)
    with started(tmp_path / "data", env=NO_SPARES) as tree:
        submitted = tree.run("workflow", "submit", str(PIPELINE), "--wait", "--json", check=False, timeout_s=120)
        assert submitted.returncode == 0, submitted.stdout + submitted.stderr
        workflow = json.loads(submitted.stdout)
        assert workflow["status"] == "completed"
        items = sum((step.get("items") or 1) for step in workflow["steps"])
        assert items >= 1000
        report = list(csv.DictReader((home / "report.csv").read_text().splitlines()))
        texts = [one["text"] for one in articles]
        assert [(int(row["articles"]), int(row["different"]), int(row["bytes"])) for row in report] == [
            (len(texts), len({hashlib.sha256(text.encode()).digest() for text in texts}), sum(map(len, texts)))
        ]
        chunks = [json.loads(line) for line in (home / "chunks.jsonl").read_text().splitlines()]
        assert [one["characters"] for one in chunks] == [len(text) for text in texts]
        assert int(report[0]["chunks"]) == sum(len(one["chunks"]) for one in chunks)
        verified = tree.run("workflow", "verify", workflow["workflow_id"], timeout_s=60)
        assert "sound" in verified.stdout
