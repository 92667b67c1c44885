"""The SQL verifier under attack: nothing wrong is paid, nothing raises or hangs, nothing else is read or written."""

import json
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_kit.tasks.sql import TABLES, problems, run, verify

COUNT = json.dumps({"query": "SELECT count(*) FROM staff WHERE age > 50", "ordered": False})
NAMES = json.dumps({"query": "SELECT name FROM staff WHERE team = 'sales' ORDER BY age", "ordered": True})
GROUPS = json.dumps({"query": "SELECT team, count(*) FROM staff GROUP BY team", "ordered": False})

RIGHT = [
    (COUNT, "SELECT count(*) FROM staff WHERE age > 50"),
    (COUNT, "SELECT count(*) FROM staff WHERE age > 50;"),
    (COUNT, "  select COUNT(name) from STAFF where age >= 51  \n"),
    (COUNT, "SELECT sum(age > 50) FROM staff"),
    (COUNT, "SELECT count(*) AS people FROM (SELECT age AS a FROM staff) WHERE a > 50"),
    (COUNT, "SELECT count(*) FROM staff s WHERE s.age > 50 -- those above fifty"),
    (NAMES, "SELECT name FROM staff WHERE team LIKE 'sales' ORDER BY age ASC"),
    (GROUPS, "SELECT team, count(age) FROM staff GROUP BY 1 ORDER BY 2 DESC"),
]
LENIENT = [
    (COUNT, "```sql\nSELECT count(*) FROM staff WHERE age > 50\n```"),
    (COUNT, "SELECT count(*)\nFROM staff\nWHERE age > 50"),
    (COUNT, "The query is: SELECT count(*) FROM staff WHERE age > 50"),
    (COUNT, "SELECT count(*) FROM staff WHERE age > 50;\nThis counts them."),
]
WRONG = [
    (COUNT, "SELECT count(*) FROM staff"),
    (COUNT, "SELECT 40"),
    (COUNT, "SELECT age FROM staff"),
    (COUNT, "SELECT count(*), 1 FROM staff WHERE age > 50"),
    (COUNT, "SELECT '' || count(*) FROM staff WHERE age > 50"),  # a text is no number
    (COUNT, "SELECT count(*) FROM staff WHERE age > 50 UNION ALL SELECT count(*) FROM staff WHERE age > 50"),
    (NAMES, "SELECT name FROM staff WHERE team = 'sales' ORDER BY age DESC"),
    (NAMES, "SELECT name FROM staff WHERE team = 'sales' ORDER BY name"),
    (GROUPS, "SELECT count(*), team FROM staff GROUP BY team"),
    (GROUPS, "SELECT DISTINCT team, 10 FROM staff"),
]
FOUR = "(SELECT x||x||x||x AS x FROM "
DOUBLED = f"SELECT length(x) FROM {FOUR}{FOUR}{FOUR}"
REFUSED = [
    "", "count", "40", "SELECT", "SELECT ", "SELECT ;", "SELECTcount(*) FROM staff",
    "SELECT count(*) FROM staff WHERE age > 50; SELECT 1",
    "SELECT count(*) FROM staff WHERE age > 50; DROP TABLE staff",
    "DROP TABLE staff", "DELETE FROM staff", "INSERT INTO staff VALUES (1, 2, 3, 4, 5)", "UPDATE staff SET age = 51",
    "CREATE TABLE t (x)", "CREATE TEMP TABLE t AS SELECT 1", "PRAGMA user_version", "PRAGMA writable_schema = 1",
    "VACUUM INTO '{tmp}/out.db'", "ATTACH '{tmp}/out.db' AS a", "EXPLAIN SELECT 1", "BEGIN", "ANALYZE", "REINDEX",
    "SELECT * FROM sqlite_master", "SELECT sql FROM sqlite_schema", "SELECT * FROM pragma_table_info('staff')",
    "SELECT * FROM pragma_database_list", "SELECT * FROM json_each('[1]')", "SELECT * FROM books",
    "SELECT * FROM generate_series(1, 100000000)", "SELECT load_extension('x')", "SELECT readfile('/etc/passwd')",
    "SELECT writefile('{tmp}/x', 'y')", "SELECT random()", "SELECT randomblob(100)", "SELECT sqlite_version()",
    "SELECT CURRENT_TIMESTAMP", "SELECT printf('%.*c', 900000000, 'x')", "SELECT hex(zeroblob(900000000))",
    "SELECT zeroblob(900000000)", "SELECT replace('aaaa', 'a', 'bbbbbbbbbb')", "SELECT group_concat(name) FROM staff",
    "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT count(*) FROM r",
    "SELECT * FROM (WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT x FROM r)",
    "SELECT count(*) FROM staff a, staff b, staff c, staff d, staff e, staff f",
    "SELECT a.name FROM staff a, staff b, staff c, staff d ORDER BY a.name || b.name || c.name || d.name",
    "SELECT DISTINCT a.age + b.age * 1000 + c.age * 1000000 + d.age * 1e9 FROM staff a, staff b, staff c, staff d",
    "SELECT a.age FROM staff a, staff b", f"{DOUBLED} (SELECT name||name||name||name AS x FROM staff))))",
    "SELECT " + ",".join(["count(*)"] * 45) + " FROM staff", "SELECT " + "(" * 180 + "1" + ")" * 180,
    "SELECT " + "-" * 300 + "1", "SELECT " + "NOT " * 90 + "1", "SELECT 1" + " UNION SELECT 1" * 20,
    "SELECT CAST(x'ff' AS TEXT)", "SELECT 'a\0b'", "SELECT '\ud800'", "SELECT ?", "SELECT :a", "SELECT nope FROM staff",
    "SELECT count(*) FROM staff WHERE age > 50 " + " " * 1000 + "--", "SELECT 1e999 - 1e999, abs(-9223372036854775808)",
    "SELECT count(*) FROM staff WHERE age > 50\nSELECT 1", "SELECT count(*)\u2028FROM staff WHERE age > 50",
]  # fmt: skip


@pytest.mark.parametrize("gold, completion", RIGHT)
def test_what_a_query_does_counts_and_not_how_it_is_written(gold, completion):
    verdict = verify(completion, gold)
    assert verdict.format_ok and verdict.correct and verdict.lenient_correct, verdict.why


@pytest.mark.parametrize("gold, completion", LENIENT)
def test_a_query_in_another_form_is_right_only_leniently(gold, completion):
    verdict = verify(completion, gold)
    assert (verdict.format_ok, verdict.correct, verdict.lenient_correct) == (False, False, True), verdict.why


@pytest.mark.parametrize("gold, completion", WRONG)
def test_another_result_is_well_formed_and_wrong(gold, completion):
    verdict = verify(completion, gold)
    assert (verdict.format_ok, verdict.correct, verdict.lenient_correct) == (True, False, False), verdict.why


@pytest.mark.parametrize("completion", REFUSED, ids=lambda text: ascii(text)[:50])
@pytest.mark.parametrize("gold", [COUNT, NAMES])
def test_hostile_text_is_never_paid_ends_soon_and_leaves_nothing(gold, completion, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    began = time.process_time()
    verdict = verify(completion.replace("{tmp}", str(tmp_path)), gold)
    assert not verdict.format_ok and not verdict.correct, verdict
    assert verdict.why and len(verdict.why) < 150 and verdict.why.isascii()
    assert time.process_time() - began < 1.0
    assert os.listdir(tmp_path) == []


def test_patterns_end_soon():
    begin = f"SELECT count(*) FROM (SELECT x||x||x||x||x AS x FROM (SELECT '{'a' * 50}' AS x)) "
    began = time.process_time()
    verify(begin + "WHERE x LIKE '" + "%a" * 20 + "%b'", COUNT)
    assert time.process_time() - began < 1.0


def test_a_megabyte_of_anything_is_refused_at_once():
    for text in (
        "SELECT " + "1," * 500_000,
        "x" * 1_000_000,
        "SELECT " * 150_000,
        "```" * 300_000,
        "\n" * 1_000_000,
    ):
        began = time.process_time()
        assert not verify(text, COUNT).correct
        assert time.process_time() - began < 0.5


def test_no_row_survives_a_query_into_the_next():
    before = run("SELECT * FROM staff", "staff")
    verify("DELETE FROM staff", COUNT)
    assert run("SELECT * FROM staff", "staff") == before and len(before) == 40
    assert before != run("SELECT * FROM staff", "staff", 1)


@pytest.mark.parametrize(
    "gold", ["", "18", "{}", "null", "[" * 5000, '{"query": "SELECT 1", "ordered": false}',
             '{"query": "SELECT x FROM nowhere", "ordered": false}', '{"query": 3, "ordered": 1}'],
)  # fmt: skip
def test_an_unreadable_gold_matches_nothing_and_says_so(gold):
    verdict = verify("SELECT count(*) FROM staff", gold)
    assert not verdict.correct and verdict.why.startswith("unreadable gold")


QUERIES = st.text(alphabet="SELCTFROMstaffage*(),' ;=<>10", max_size=100).map("SELECT ".__add__)


@given(st.one_of(st.text(max_size=300), QUERIES))
def test_it_never_raises(text):
    verdict = verify(text, COUNT)
    assert verdict.format_ok or not verdict.correct


def test_the_test_split_has_tables_and_questions_that_training_never_shows():
    train, test = problems("train", 400, 0), problems("test", 400, 1)
    assert {row["kind"] for row in train} == {"seen"}
    assert {row["kind"] for row in test} == {"seen", "new question", "new table"}
    assert not {row["question"] for row in train} & {row["question"] for row in test}
    shown = " ".join(row["question"] for row in train)
    assert "houses" in TABLES and "houses" not in shown and "lowest" not in shown


def test_an_answer_says_nothing_about_other_questions():
    rows = problems("test", 60, 2)
    paid = sum(verify(a["answer"], b["gold"]).correct for a in rows for b in rows if a["gold"] != b["gold"])
    assert paid <= 0.002 * 60 * 59
