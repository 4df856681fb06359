# SPDX-License-Identifier: AGPL-3.0-or-later
"""The dataset tools, through the same door as real calls, on real files."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import time

import pytest
import trio
from dataset_calls import PEOPLE, caller, write

from actors.errors import ForbiddenError, InvalidArgumentsError


@pytest.fixture
async def call(tmp_path):
    return caller(tmp_path / "data")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("people.csv", PEOPLE),
        ("people.tsv", PEOPLE.replace(",", "\t")),
        (
            "people.jsonl",
            '{"id":1,"name":"Ada","born":"1815-12-10"}\n{"id":2,"name":"Grace","born":"1906-12-09"}\n'
            '{"id":3,"name":"Edsger","born":"1930-05-11"}\n',
        ),
        (
            "people.json",
            '[{"id":1,"name":"Ada","born":"1815-12-10"},{"id":2,"name":"Grace","born":"1906-12-09"},'
            '{"id":3,"name":"Edsger","born":"1930-05-11"}]',
        ),
    ],
)
async def test_a_text_file_becomes_a_typed_dataset(call, file, text):
    write(call.home / file, text)
    loaded = await call("load_dataset", source=file)
    assert loaded["rows"] == 3
    assert loaded["columns"] == [
        {"name": "id", "type": "BIGINT"},
        {"name": "name", "type": "VARCHAR"},
        {"name": "born", "type": "DATE"},
    ]
    assert (loaded["name"], loaded["source_bytes"], loaded["created"]) == ("people", len(text), True)


async def test_a_compressed_file_is_read(call):
    (call.home / "people.csv.gz").write_bytes(gzip.compress(PEOPLE.encode()))
    assert (await call("load_dataset", source="people.csv.gz"))["rows"] == 3


async def test_the_same_content_gives_the_same_dataset(call):
    write(call.home / "a.csv", PEOPLE)
    write(call.home / "sub/b.csv", PEOPLE)
    first = await call("load_dataset", source="a.csv")
    second = await call("load_dataset", source="sub/b.csv", name="again")
    assert second["dataset_id"] == first["dataset_id"]
    assert (second["created"], second["name"]) == (False, "again")
    write(call.home / "a.csv", PEOPLE + "4,Barbara,1939-11-07\n")
    assert (await call("load_dataset", source="a.csv"))["dataset_id"] != first["dataset_id"]


async def test_a_folder_is_one_dataset_and_columns_meet_by_name(call):
    write(call.home / "parts/1.csv", "id,name\n1,Ada\n")
    write(call.home / "parts/2.csv", "name,id,extra\nGrace,2,x\n")
    loaded = await call("load_dataset", source="parts")
    assert (loaded["rows"], loaded["source_files"]) == (2, 2)
    answer = await call(
        "dataset_query", dataset_id=loaded["dataset_id"], sql="SELECT id, name, extra FROM data ORDER BY id"
    )
    assert answer["rows"] == [[1, "Ada", None], [2, "Grace", "x"]]


async def test_a_mixed_folder_needs_a_format(call):
    write(call.home / "mixed/1.csv", "id\n1\n")
    write(call.home / "mixed/2.json", '[{"id":2},{"id":3}]')
    with pytest.raises(InvalidArgumentsError, match="csv, json"):
        await call("load_dataset", source="mixed")
    assert (await call("load_dataset", source="mixed", format="json"))["rows"] == 2


async def test_names_with_glob_characters_and_quotes_mean_themselves(call):
    write(call.home / "a*[1]'.csv", PEOPLE)
    write(call.home / "abc.csv", "id\n9\n")
    assert (await call("load_dataset", source="a*[1]'.csv"))["rows"] == 3


async def test_a_broken_file_is_the_callers_fault_and_leaves_nothing(call, tmp_path):
    write(call.home / "bad.json", "{not json")
    with pytest.raises(InvalidArgumentsError, match=r"bad\.json can't be read as json"):
        await call("load_dataset", source="bad.json")
    assert list((tmp_path / "data/datasets").iterdir()) == []


async def test_files_outside_of_the_roots_are_refused(call, tmp_path):
    write(tmp_path / "outside.csv", PEOPLE)
    (call.home / "link.csv").symlink_to(tmp_path / "outside.csv")
    for source in ("../../outside.csv", str(tmp_path / "outside.csv"), "link.csv"):
        with pytest.raises(ForbiddenError):
            await call("load_dataset", source=source)


async def test_a_folder_with_a_link_that_escapes_is_refused(call, tmp_path):
    write(tmp_path / "outside.csv", PEOPLE)
    write(call.home / "parts/1.csv", PEOPLE)
    (call.home / "parts/2.csv").symlink_to(tmp_path / "outside.csv")
    with pytest.raises(ForbiddenError):
        await call("load_dataset", source="parts")


async def test_loading_reports_progress(call):
    write(call.home / "people.csv", PEOPLE)
    await call("load_dataset", source="people.csv")
    last = call.items[-1]
    assert last.progress == last.total


@pytest.fixture
async def people(call):
    write(call.home / "people.csv", PEOPLE)
    return (await call("load_dataset", source="people.csv"))["dataset_id"]


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet"])
async def test_a_converted_dataset_loads_to_the_same_rows(call, people, kind):
    written = await call("dataset_convert", dataset_id=people, format=kind, destination=f"out/copy.{kind}")
    content = (call.home / f"out/copy.{kind}").read_bytes()
    assert (written["path"], written["rows"], written["bytes"]) == (f"out/copy.{kind}", 3, len(content))
    assert written["sha256"] == hashlib.sha256(content).hexdigest()
    copy = await call("load_dataset", source=f"out/copy.{kind}")
    sql = "FROM data ORDER BY id"
    original = await call("dataset_query", dataset_id=people, sql=sql)
    assert (await call("dataset_query", dataset_id=copy["dataset_id"], sql=sql))["rows"] == original["rows"]


async def test_a_file_that_exists_is_replaced_only_on_request(call, people):
    await call("dataset_convert", dataset_id=people, format="csv", destination="x.csv")
    write(call.home / "x.csv", "mine")
    with pytest.raises(InvalidArgumentsError, match="overwrite=true"):
        await call("dataset_convert", dataset_id=people, format="csv", destination="x.csv")
    assert (call.home / "x.csv").read_text() == "mine"
    await call("dataset_convert", dataset_id=people, format="csv", destination="x.csv", overwrite=True)
    assert (call.home / "x.csv").read_text().startswith("id,name,born")
    assert [entry.name for entry in call.home.iterdir() if entry.name.startswith(".")] == []


async def test_a_lossy_conversion_needs_consent(call):
    write(call.home / "deep.json", '[{"id":1,"tags":["a","b"]}]')
    dataset = (await call("load_dataset", source="deep.json"))["dataset_id"]
    with pytest.raises(InvalidArgumentsError, match="tags"):
        await call("dataset_convert", dataset_id=dataset, format="csv")
    written = await call("dataset_convert", dataset_id=dataset, format="csv", allow_lossy=True)
    assert written["path"] == "deep.csv"


async def test_given_rows_are_saved_as_they_are(call):
    rows = [{"id": 1, "code": "007", "when": "2024-1-5"}, {"id": 2.5, "more": {"x": [1]}, "huge": 2**70}]
    written = await call("dataset_save", destination="rows.jsonl", rows=rows)
    assert written["rows"] == 2
    lines = [json.loads(line) for line in (call.home / "rows.jsonl").read_text().splitlines()]
    assert lines[0] == {"id": 1.0, "code": "007", "when": "2024-1-5", "more": None, "huge": None}
    assert lines[1] == {"id": 2.5, "code": None, "when": None, "more": {"x": [1]}, "huge": 2**70}


async def test_saving_needs_one_source_and_a_known_format(call, people):
    with pytest.raises(InvalidArgumentsError, match="either"):
        await call("dataset_save", destination="x.csv")
    with pytest.raises(InvalidArgumentsError, match="either"):
        await call("dataset_save", destination="x.csv", dataset_id=people, rows=[{"a": 1}])
    with pytest.raises(InvalidArgumentsError, match="pass format"):
        await call("dataset_save", destination="x.dat", dataset_id=people)
    assert (await call("dataset_save", destination="x.dat", dataset_id=people, format="json"))["rows"] == 3


async def test_datasets_survive_their_source_and_other_processes_see_them(call, people, tmp_path):
    (call.home / "people.csv").unlink()
    other = caller(tmp_path / "data")
    listed = await other("dataset_list")
    assert [one["dataset_id"] for one in listed["datasets"]] == [people]
    assert (listed["total_count"], listed["has_more"]) == (1, False)
    described = await other("dataset_describe", dataset_id=people, sample=1)
    assert described["sample"] == [[1, "Ada", "1815-12-10"]]
    born = described["columns"][2]
    assert (born["min"], born["max"], born["null_count"], born["distinct_about"]) == ("1815-12-10", "1930-05-11", 0, 3)


async def test_nested_columns_are_described_without_a_range(call):
    write(call.home / "deep.json", '[{"id":1,"tags":["a","b"],"at":{"x":1}},{"id":2}]')
    dataset = (await call("load_dataset", source="deep.json"))["dataset_id"]
    columns = (await call("dataset_describe", dataset_id=dataset))["columns"]
    assert [(column["null_count"], column["min"]) for column in columns] == [(0, "1"), (1, None), (1, None)]


async def test_a_deleted_dataset_is_gone(call, people, tmp_path):
    assert (await call("dataset_delete", dataset_id=people))["bytes_freed"] > 0
    assert list((tmp_path / "data/datasets").iterdir()) == []
    for name, more in (("dataset_delete", {}), ("dataset_describe", {}), ("dataset_query", {"sql": "FROM data"})):
        with pytest.raises(InvalidArgumentsError, match="there is no dataset"):
            await call(name, dataset_id=people, **more)


async def test_an_id_can_not_be_a_path(call, people):
    for wrong in ("../datasets/" + people, "", "ds_" + "0" * 23 + "/"):
        with pytest.raises(InvalidArgumentsError, match="there is no dataset"):
            await call("dataset_delete", dataset_id=wrong)


async def test_loading_the_same_at_once_makes_it_once(call):
    write(call.home / "people.csv", PEOPLE)
    answers = []

    async def load_it():
        answers.append(await call("load_dataset", source="people.csv"))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(load_it)
    assert len({answer["dataset_id"] for answer in answers}) == 1
    listed = await call("dataset_list")
    assert listed["total_count"] == 1
    sql = "SELECT count(*) FROM data"
    assert (await call("dataset_query", dataset_id=answers[0]["dataset_id"], sql=sql))["rows"] == [[3]]


async def test_one_of_several_who_delete_at_once_does_it(call, people):
    outcomes = []

    async def delete():
        try:
            outcomes.append((await call("dataset_delete", dataset_id=people))["dataset_id"])
        except InvalidArgumentsError:
            outcomes.append(None)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(delete)
    assert sorted(outcomes, key=str) == [None, None, None, people]


async def test_a_dataset_may_have_any_name(call):
    write(call.home / "people.csv", PEOPLE)
    name = """x"; DROP TABLE data; -- '"""
    dataset = (await call("load_dataset", source="people.csv", name=name))["dataset_id"]
    sql = 'SELECT count(*) FROM "' + name.replace('"', '""') + '"'
    assert (await call("dataset_query", dataset_id=dataset, sql=sql))["rows"] == [[3]]
    assert (await call("dataset_convert", dataset_id=dataset, format="csv"))["path"].endswith(".csv")


@pytest.mark.parametrize("destination", ["../datasets/x.csv", "{tmp}/x.csv", "link/x.csv", "/etc/x.csv"])
async def test_nothing_is_written_outside_of_the_roots(call, people, tmp_path, destination):
    (call.home / "link").symlink_to(tmp_path)
    before = sorted(tmp_path.rglob("*.csv"))
    for name, more in (("dataset_convert", {"format": "csv"}), ("dataset_save", {})):
        with pytest.raises(ForbiddenError):
            await call(name, dataset_id=people, destination=destination.format(tmp=tmp_path), **more)
    assert sorted(tmp_path.rglob("*.csv")) == before


async def test_a_root_of_the_configuration_is_open(tmp_path):
    call = caller(tmp_path / "data", roots=[str(tmp_path / "more")])
    write(tmp_path / "more/people.csv", PEOPLE)
    loaded = await call("load_dataset", source=str(tmp_path / "more/people.csv"))
    assert loaded["source"] == str(tmp_path / "more/people.csv")


async def test_the_list_has_pages(call):
    for number in range(3):
        write(call.home / f"{number}.csv", f"id\n{number}\n")
        await call("load_dataset", source=f"{number}.csv", name=f"n{number}")
    first = await call("dataset_list", limit=2)
    rest = await call("dataset_list", limit=2, offset=2)
    assert [one["name"] for one in first["datasets"] + rest["datasets"]] == ["n0", "n1", "n2"]
    assert (first["has_more"], rest["has_more"]) == (True, False)


async def test_what_a_dead_process_left_is_removed_after_a_day(call, people, tmp_path):
    datasets = tmp_path / "data/datasets"
    for name, age in ((".work-old", 90_000), (".trash-old", 90_000), (".work-young", 1000)):
        write(datasets / name / "x", "x")
        os.utime(datasets / name, (time.time() - age,) * 2)
    await call("dataset_query", dataset_id=people, sql="FROM data")
    assert {entry.name for entry in datasets.iterdir()} == {people, ".work-young"}


async def test_columns_with_odd_names_are_saved(call):
    rows = [{"a b": 1, "it's": 2, 'q"': 3, "ü": 4}]
    await call("dataset_save", destination="odd.jsonl", rows=rows)
    assert json.loads((call.home / "odd.jsonl").read_text()) == rows[0]


@pytest.mark.parametrize("rows", [[{}], [{"a": 1, "A": 2}], [{"": 1}]])
async def test_rows_that_make_no_table_are_the_callers_fault(call, rows):
    with pytest.raises(InvalidArgumentsError):
        await call("dataset_save", destination="x.jsonl", rows=rows)
    assert list(call.home.iterdir()) == []
