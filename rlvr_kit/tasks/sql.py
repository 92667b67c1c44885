"""A question about a small table -> one SELECT, judged by running it. One row of ``problems("train", 1, 0)``:

    question  Table staff(name, team, city, age, salary). How many people of the team sales are younger than 40?
    answer    SELECT count(*) FROM staff WHERE team = 'sales' AND age < 40
    gold      {"query": "SELECT count(*) FROM staff WHERE team = 'sales' AND age < 40", "ordered": false}

This second kind of verifier judges what an answer does, not its text. The query runs on two databases whose rows the
question does not show, so that a guessed number is worth nothing. It is right when both results equal those of the
gold's query: the same rows, each as often, in any order unless the question asks for one. Column names do not matter.

The text of a model is hostile. It meets a database in memory that holds one table, on a connection that
- takes one statement (sqlite3 itself refuses a second) of at most 400 characters, which begins with SELECT;
- reads that table's columns and calls the functions in ``FUNCTIONS``, nothing else (an authorizer: no PRAGMA, ATTACH,
  recursion or writing, no other table, not even the schema);
- stops after 50,000 steps of SQLite's machine (a progress handler, so the limit is the same on every computer);
- makes no value longer than 1,000 bytes and no result of more than 200 rows.
"""

import json
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal

from rlvr_kit.errors import InputError
from rlvr_kit.tasks.generated import different, split_of
from rlvr_kit.tasks.verifier import Verdict

INSTRUCTION = """\
Write one SQLite query that answers the question. Answer with the query alone, on one line.
Example:
SELECT name FROM staff WHERE city = 'Rome' AND age > 50"""

MOST_CHARACTERS, MOST_STEPS, MOST_BYTES, MOST_ROWS = 400, 50_000, 1_000, 200
FUNCTIONS = (
    "count", "sum", "avg", "min", "max", "abs", "round", "length", "lower", "upper", "trim", "substr", "like",
)  # fmt: skip
#: The tables and their columns. A column holds names (), words of a list, or numbers of a range.
TABLES: dict[str, dict[str, tuple[str, ...] | range]] = {
    "staff": {
        "name": (), "team": ("sales", "design", "support", "legal"), "city": ("Rome", "Oslo", "Paris", "Berlin"),
        "age": range(20, 66), "salary": range(30, 91),
    },
    "books": {
        "title": (), "genre": ("crime", "travel", "poetry", "history"), "language": ("English", "French", "German"),
        "pages": range(60, 900), "price": range(5, 60),
    },
    "trips": {
        "driver": (), "car": ("van", "truck", "taxi"), "town": ("Lyon", "Ghent", "Turin", "Graz"),
        "distance": range(3, 400), "minutes": range(10, 500),
    },
    # Tables that only the test split asks about.
    "houses": {
        "street": (), "kind": ("flat", "villa", "cabin"), "district": ("north", "south", "harbour"),
        "size": range(20, 200), "rent": range(300, 3000),
    },
}  # fmt: skip
TEST_TABLES = ("houses",)
# {t} the table, {k} its first column, {c} {d} columns of words with a word {v} {w}, {x} {y} of numbers, {n} a number
SEEN = """
How many rows have the {c} {v}? | SELECT count(*) FROM {t} WHERE {c} = '{v}'
In how many rows is the {x} above {n}? | SELECT count(*) FROM {t} WHERE {x} > {n}
Which {k} has the highest {x}? | SELECT {k} FROM {t} ORDER BY {x} DESC LIMIT 1
What is the highest {x} where the {c} is {v}? | SELECT max({x}) FROM {t} WHERE {c} = '{v}'
What is the average {x} where the {d} is {w}? | SELECT avg({x}) FROM {t} WHERE {d} = '{w}'
List each {k} where the {d} is {w} and the {x} below {n}. | SELECT {k} FROM {t} WHERE {d} = '{w}' AND {x} < {n}
List each {k} where the {c} is {v}, ordered by {y}. | SELECT {k} FROM {t} WHERE {c} = '{v}' ORDER BY {y}
How many rows are there for each {c}? | SELECT {c}, count(*) FROM {t} GROUP BY {c}
What is the sum of the {x} for each {d}? | SELECT {d}, sum({x}) FROM {t} GROUP BY {d}
"""
TEST_ONLY = """
What is the lowest {y} where the {d} is {w}? | SELECT min({y}) FROM {t} WHERE {d} = '{w}'
How many rows have the {c} {v} or the {d} {w}? | SELECT count(*) FROM {t} WHERE {c} = '{v}' OR {d} = '{w}'
Which {k} has the lowest {y}? | SELECT {k} FROM {t} ORDER BY {y} LIMIT 1
"""
TEMPLATES = {
    kind: [tuple(part.strip() for part in line.split("|")) for line in text.strip().splitlines()]
    for kind, text in (("seen", SEEN), ("new question", TEST_ONLY))
}
TEST_KINDS = ("seen",) * 14 + ("new question",) * 3 + ("new table",) * 3


@lru_cache
def _rows_of(table: str, version: int) -> list[tuple[Any, ...]]:
    """Return the rows of one of the two hidden databases. No number occurs twice in a column: sorting has no ties."""
    rng, columns = random.Random(f"{table} {version}"), TABLES[table]
    drawn: list[list[Any]] = []
    for values in columns.values():
        if isinstance(values, range):
            drawn.append(rng.sample(values, 40))
        elif values:
            drawn.append([rng.choice(values) for _ in range(40)])
        else:
            drawn.append([f"No. {number}" for number in rng.sample(range(100, 1000), 40)])
    return list(zip(*drawn, strict=False))


def _database(table: str, version: int) -> sqlite3.Connection:
    """Return a connection that can only read: a database in memory which holds that one table."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.execute("PRAGMA temp_store = MEMORY")  # what it sorts stays in memory as well: no file, ever
    database.execute(f"CREATE TABLE {table} ({', '.join(TABLES[table])})")
    database.executemany(f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?)", _rows_of(table, version))
    for limit, most in (
        (sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES), (sqlite3.SQLITE_LIMIT_SQL_LENGTH, MOST_CHARACTERS * 4),
        (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 40), (sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, 5),
        (sqlite3.SQLITE_LIMIT_ATTACHED, 0), (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 50),
    ):  # fmt: skip
        database.setlimit(limit, most)

    def allow(action: int, first: str | None, second: str | None, *_: str | None) -> int:
        reads = action == sqlite3.SQLITE_READ and first == table
        calls = action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in FUNCTIONS
        return sqlite3.SQLITE_OK if action == sqlite3.SQLITE_SELECT or reads or calls else sqlite3.SQLITE_DENY

    ticks = iter(range(MOST_STEPS // 1000))
    database.set_progress_handler(lambda: next(ticks, None) is None, 1000)
    database.set_authorizer(allow)
    return database


def run(query: str, table: str, version: int = 0) -> list[tuple[Any, ...]]:
    """Run a query on one of the two databases and return its rows. Raises ValueError, with a reason, when it fails.

    >>> run("SELECT count(*) FROM staff", "staff")
    [(40,)]
    """
    if len(query) > MOST_CHARACTERS:
        raise ValueError(f"too long: {len(query):,} characters")
    if not query[:7].upper().startswith("SELECT ") or "\0" in query:
        raise ValueError("no query: it must begin with SELECT")
    database = _database(table, version)
    try:
        rows = database.execute(query).fetchmany(MOST_ROWS + 1)
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
        raise ValueError(f"not run: {ascii(str(error))[1:-1][:80]}") from None
    finally:
        database.close()
    if len(rows) > MOST_ROWS:
        raise ValueError(f"too many rows: more than {MOST_ROWS}")
    return [tuple(round(v, 6) if isinstance(v, float) else v for v in row) for row in rows]


@lru_cache(4096)
def _wanted(gold: str) -> tuple[str, bool, list[list[tuple[Any, ...]]]]:
    """Return the table, whether the order counts, and both results of a gold. Raises ValueError if it is unreadable."""
    try:
        asked = json.loads(gold)
        query, ordered = str(asked["query"]), bool(asked["ordered"])
        table = query.partition(" FROM ")[2].split()[0]
        return table, ordered, [run(query, table, version) for version in (0, 1)]
    except (KeyError, TypeError, IndexError, RecursionError) as error:
        raise ValueError(f"no query and order in {ascii(gold)[:60]} ({type(error).__name__})") from None


def verify(completion: str, gold: str) -> Verdict:
    """Judge one completion. Well-formed: one line with a query that runs. Correct: it also has the gold's results.

    `lenient_correct` also accepts a query inside code fences, over several lines, or with words before it. It never
    raises, and ends after a bounded number of steps, whatever the text is.

    >>> gold = '{"query": "SELECT count(*) FROM staff WHERE age > 50", "ordered": false}'
    >>> verify("SELECT sum(1) FROM staff WHERE NOT age <= 50", gold).why
    'right result'
    """
    try:
        table, ordered, wanted = _wanted(gold)
    except ValueError as error:
        return Verdict(False, False, False, None, f"unreadable gold: {error}")
    query = completion.strip().removesuffix(";").rstrip()
    try:
        if len(query.splitlines()) != 1:
            raise ValueError("not one line")
        correct = _same(query, table, ordered, wanted)
        why = "right result" if correct else "wrong result: it runs, but its rows differ from the gold's"
        return Verdict(True, correct, correct, query, why)
    except ValueError as error:
        why = str(error)
    try:
        lenient = _same(loose := _loosely(completion), table, ordered, wanted)
    except ValueError:
        lenient = False
    return Verdict(False, False, lenient, loose or None, why)


def _same(query: str, table: str, ordered: bool, wanted: list[list[tuple[Any, ...]]]) -> bool:
    """Whether the results equal the gold's on both databases. Raises ValueError when the query does not run."""
    results = [run(query, table, version) for version in (0, 1)]
    if ordered:
        return results == wanted
    return all(Counter(rows) == Counter(right) for rows, right in zip(results, wanted, strict=True))


def _loosely(text: str) -> str:
    """Find a query, from the first SELECT to a semicolon, fence or empty line, as one line; "" when there is none."""
    start = text[: 10 * MOST_CHARACTERS].upper().find("SELECT ")
    if start < 0:
        return ""
    found = text[start : start + 2 * MOST_CHARACTERS]
    for end in (";", "```", "\n\n"):
        found = found.partition(end)[0]
    return " ".join(found.split())


def _problem(rng: random.Random, kind: str) -> dict[str, str]:
    tables = TEST_TABLES if kind == "new table" else [name for name in TABLES if name not in TEST_TABLES]
    table = rng.choice([*tables])
    key, *columns = TABLES[table]
    words = [name for name in columns if not isinstance(TABLES[table][name], range)]
    numbers = [name for name in columns if name not in words]
    rng.shuffle(words)
    rng.shuffle(numbers)
    values = {"t": table, "k": key, "c": words[0], "d": words[1], "x": numbers[0], "y": numbers[1]}
    values |= {"v": rng.choice([*TABLES[table][words[0]]]), "w": rng.choice([*TABLES[table][words[1]]])}
    measured = [*map(int, TABLES[table][numbers[0]])]
    values["n"] = str(rng.choice(measured[len(measured) // 4 : -len(measured) // 4]))
    question, query = rng.choice(TEMPLATES["new question" if kind == "new question" else "seen"])
    query = query.format(**values)
    gold = json.dumps({"query": query, "ordered": "ORDER BY" in query})
    asked = f"Table {table}({', '.join(TABLES[table])}). {question.format(**values)}"
    return {"question": asked, "answer": query, "gold": gold, "kind": kind}


def _rows(split: str, seed: int) -> Iterator[dict[str, str]]:
    rng = random.Random(f"sql {split} {seed}")
    while True:
        row = _problem(rng, rng.choice(TEST_KINDS) if split == "test" else "seen")
        # A query whose result is empty, or equal on both databases, could be answered without reading the table.
        table, _, (one, other) = _wanted(row["gold"])
        if split_of(row["question"]) == split and one and other and one != other:
            yield row


def problems(split: Literal["train", "test"], n: int, seed: int) -> list[dict[str, str]]:
    """Return ``n`` different questions with their queries; row i depends on `split` and `seed`, not on `n`.

    Raises UserError for another split, or for `n` below 1.
    """
    if split not in ("train", "test") or n < 1:
        raise InputError(f"sql comes as split 'train' or 'test' and n >= 1, not {split!r} and n={n}")
    return different(_rows(split, seed), n)
