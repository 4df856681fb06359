# SPDX-License-Identifier: AGPL-3.0-or-later
"""The dataset tools, through the same door as real calls, on real files."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import msgspec
import pytest
import trio

from actors.errors import ForbiddenError, InvalidArgumentsError
from actors.messages import ToolCall
from actors.settings import ToolsSettings
from actors.tools.execution import Environment, abandoned_threads
from actors.tools.loader import load

TOOLS = load(ToolsSettings(), "general").tools


class Caller:
    """Calls tools and decodes what they answer."""

    def __init__(self, data_dir: Path, **settings):
        self.environment = Environment(ToolsSettings(**settings), data_dir)
        self.home = self.environment.files.home
        self.home.mkdir(parents=True, exist_ok=True)
        self.items = []

    async def __call__(self, name, /, **arguments):
        call = ToolCall(name=name, arguments=msgspec.json.encode(arguments), call_id="c", progress=True)
        with trio.fail_after(30):
            result = await TOOLS[name].run(call, self.environment, self.items.append)
        return json.loads(result.value)


@pytest.fixture
async def call(tmp_path):
    return Caller(tmp_path / "data")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


PEOPLE = "id,name,born\n1,Ada,1815-12-10\n2,Grace,1906-12-09\n3,Edsger,1930-05-11\n"


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


async def test_pages_of_a_query_fit_together(call, people):
    sql = "SELECT id FROM data ORDER BY id DESC"
    first = await call("dataset_query", dataset_id=people, sql=sql, limit=2)
    rest = await call("dataset_query", dataset_id=people, sql=sql, limit=2, offset=2)
    assert (first["rows"], first["row_count"], first["truncated"]) == ([[3], [2]], 2, True)
    assert (rest["rows"], rest["truncated"]) == ([[1]], False)


async def test_several_datasets_join_by_name_and_id(call, people):
    write(call.home / "fields.csv", "person,field\n1,engines\n2,compilers\n")
    fields = (await call("load_dataset", source="fields.csv", name="the fields"))["dataset_id"]
    answer = await call(
        "dataset_query",
        dataset_id=[people, fields],
        sql=f"""SELECT p.name, f.field FROM people p JOIN "the fields" f ON f.person = p.id JOIN {people} q
            ON q.id = p.id ORDER BY 1""",
    )
    assert answer["rows"] == [["Ada", "engines"], ["Grace", "compilers"]]


async def test_every_sql_type_has_a_json_form(call, people):
    sql = """SELECT 170141183460469231731687303715884105727::HUGEINT AS big, 1.25::DECIMAL(5,2) AS money,
        'NaN'::FLOAT AS nan,
        ['Infinity'::DOUBLE, 2] AS list, TIMESTAMPTZ '2024-01-01 10:00:00+02' AS moment, MAP{'k': 1} AS map,
        NULL AS nothing, 'NaN is "text"' AS text, '\\xFF'::BLOB AS blob, DATE '2024-02-29' AS day; -- the end"""
    answer = await call("dataset_query", dataset_id=people, sql=sql)
    row = dict(zip([column["name"] for column in answer["columns"]], answer["rows"][0], strict=True))
    assert row["big"] == 2**127 - 1
    assert (row["money"], row["nan"], row["list"], row["map"]) == (1.25, None, [None, 2], {"k": 1})
    assert (row["nothing"], row["text"], row["day"]) == (None, 'NaN is "text"', "2024-02-29")
    assert row["moment"].startswith("2024-01-01")
    assert "FF" in row["blob"]


@pytest.mark.parametrize("sql", ["DESCRIBE data", "SUMMARIZE data", "FROM data", "WITH x AS (FROM data) FROM x"])
async def test_other_ways_to_read_work(call, people, sql):
    assert (await call("dataset_query", dataset_id=people, sql=sql))["row_count"] == 3


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO data VALUES (1)",
        "DROP VIEW data",
        "CREATE TABLE t AS FROM data",
        "SET memory_limit='100GB'",
        "COPY data TO 'x.csv'",
        "ATTACH 'x.db'",
        "INSTALL httpfs",
        "SELECT 1; SELECT 2",
        "PRAGMA enable_logging",
        "SELECT nothing FROM data",
        "SELEKT 1",
        "",
    ],
)
async def test_all_but_one_reading_statement_is_refused(call, people, sql):
    with pytest.raises(InvalidArgumentsError):
        await call("dataset_query", dataset_id=people, sql=sql)


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_text('{outside}')",
        "FROM read_csv('{outside}')",
        "FROM read_csv('{inside}/../../outside.txt')",
        "FROM glob('{folder}/*')",
        "FROM read_csv('http://127.0.0.1:1/x.csv')",
        "FROM read_blob('/proc/self/environ')",
    ],
)
async def test_queries_reach_no_other_file_and_no_network(call, people, tmp_path, sql):
    write(tmp_path / "outside.txt", "secret")
    sql = sql.format(outside=tmp_path / "outside.txt", inside=call.home, folder=tmp_path)
    with pytest.raises(ForbiddenError):
        await call("dataset_query", dataset_id=people, sql=sql)


async def test_queries_see_no_python_variables(call, people):
    with pytest.raises(InvalidArgumentsError, match="ctx"):
        await call("dataset_query", dataset_id=people, sql="FROM ctx")


async def test_a_cancelled_query_is_interrupted_and_leaves_no_thread(call, people, tmp_path):
    endless = "SELECT count(*) FROM range(10000000000) a(i), range(100000) b(j) WHERE sin(i) + cos(j) > 3"
    arguments = msgspec.json.encode({"dataset_id": people, "sql": endless})
    with trio.move_on_after(0.05) as scope:
        await TOOLS["dataset_query"].run(
            ToolCall(name="dataset_query", arguments=arguments, call_id="c"), call.environment
        )
    assert scope.cancelled_caught
    assert abandoned_threads() == 0
    assert call.environment.limiter.borrowed_tokens == 0
    assert not list((tmp_path / "data/datasets").glob(".work*"))


async def test_an_answer_never_exceeds_the_result_limit(tmp_path):
    call = Caller(tmp_path / "data", max_result_bytes=100_000)
    write(call.home / "n.csv", "id\n1\n")
    dataset = (await call("load_dataset", source="n.csv"))["dataset_id"]
    sql = "SELECT i, repeat('x', 1000) AS text FROM range(10000) t(i)"
    answer = await call("dataset_query", dataset_id=dataset, sql=sql, limit=10000)
    assert answer["truncated"]
    assert 10 < answer["row_count"] < 100
    with pytest.raises(InvalidArgumentsError, match="single row"):
        await call("dataset_query", dataset_id=dataset, sql="SELECT repeat('x', 1000000)")


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
    other = Caller(tmp_path / "data")
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
