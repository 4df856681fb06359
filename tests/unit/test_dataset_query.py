# SPDX-License-Identifier: AGPL-3.0-or-later
"""SQL over datasets: what it answers, and what it can't reach."""

from __future__ import annotations

import msgspec
import pytest
import trio
from dataset_calls import PEOPLE, caller, write

from actors.errors import ForbiddenError, InvalidArgumentsError
from actors.tools.execution import abandoned_threads


@pytest.fixture
async def call(tmp_path):
    return caller(tmp_path / "data")


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
        "ATTACH ':memory:' AS other",
        "USE memory",
        "INSTALL httpfs",
        "LOAD httpfs",
        "CALL pragma_version()",
        "CREATE SECRET (TYPE s3)",
        "EXPORT DATABASE 'x'",
        "EXPLAIN ANALYZE SELECT 1",
        "PREPARE x AS SELECT 1",
        "CHECKPOINT",
        "SELECT getenv('HOME')",
        "FROM query('COPY data TO $$x.csv$$')",
        "WITH x AS (DELETE FROM data RETURNING *) FROM x",
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
        "FROM '{outside}.parquet'",
        "FROM read_parquet('{outside}')",
        "FROM read_json('{outside}')",
        "FROM sniff_csv('{outside}')",
        "FROM parquet_metadata('{outside}')",
        "FROM query('FROM read_text($${outside}$$)')",
        "SELECT (SELECT content FROM read_text('{outside}'))",
        "FROM read_csv('s3://bucket/x.csv')",
        "FROM read_parquet('{other}')",
    ],
)
async def test_queries_reach_no_other_file_and_no_network(call, people, tmp_path, sql):
    write(tmp_path / "outside.txt", "secret")
    write(call.home / "other.csv", "id\n1\n")
    other = (await call("load_dataset", source="other.csv"))["dataset_id"]
    other = tmp_path / "data/datasets" / other / "data.parquet"
    sql = sql.format(outside=tmp_path / "outside.txt", inside=call.home, folder=tmp_path, other=other)
    with pytest.raises(ForbiddenError):
        await call("dataset_query", dataset_id=people, sql=sql)


async def test_queries_see_no_python_variables(call, people):
    with pytest.raises(InvalidArgumentsError, match="ctx"):
        await call("dataset_query", dataset_id=people, sql="FROM ctx")


async def test_a_cancelled_query_is_interrupted_and_leaves_no_thread(call, people, tmp_path):
    endless = "SELECT count(*) FROM range(10000000000) a(i), range(100000) b(j) WHERE sin(i) + cos(j) > 3"
    arguments = msgspec.json.encode({"dataset_id": people, "sql": endless})
    with trio.move_on_after(0.05) as scope:
        await call.result("dataset_query", arguments)
    assert scope.cancelled_caught
    with trio.fail_after(20):  # a busy machine takes longer to interrupt it than its caller waits
        while abandoned_threads():
            await trio.sleep(0.01)
    assert call.environment.limiter.borrowed_tokens == 0
    assert not list((tmp_path / "data/datasets").glob(".work*"))


async def test_an_answer_never_exceeds_the_result_limit(tmp_path):
    call = caller(tmp_path / "data", max_result_bytes=100_000)
    write(call.home / "n.csv", "id\n1\n")
    dataset = (await call("load_dataset", source="n.csv"))["dataset_id"]
    sql = "SELECT i, repeat('x', 1000) AS text FROM range(10000) t(i)"
    answer = await call("dataset_query", dataset_id=dataset, sql=sql, limit=10000)
    assert answer["truncated"]
    assert 10 < answer["row_count"] < 100
    with pytest.raises(InvalidArgumentsError, match="single row"):
        await call("dataset_query", dataset_id=dataset, sql="SELECT repeat('x', 1000000)")


async def test_many_queries_at_once_do_not_disturb_each_other(call, people):
    answers = {}

    async def query(number):
        sql = f"SELECT sum(i) FROM data, range({number}) r(i)"
        answers[number] = (await call("dataset_query", dataset_id=people, sql=sql))["rows"]

    async with trio.open_nursery() as nursery:
        for number in range(1, 9):
            nursery.start_soon(query, number)
    assert answers == {number: [[3 * sum(range(number))]] for number in range(1, 9)}
