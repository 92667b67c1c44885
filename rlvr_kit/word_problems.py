"""Endless small word problems in GSM8K's own schema, for machines with no way to the Hub.

A row, as ``make_word_problems("train", 1)`` may return it:

    question  Tom has 3 apples and buys 4 more. How many apples does Tom have now?
    answer    He has 3+4=<<3+4=7>>7 apples.
              #### 7
    gold      7
    steps     1
    kind      seen

Why a gain on the test split is not memory:

- The numbers shown in a question decide, for ever, which split it belongs to (``split_of``). Training never meets
  the numbers of a test question together, whatever the seeds, the names or the template.
- Some templates and some ranges of numbers are drawn for the test split only; the column ``kind`` tells which.
"""

import operator
import random
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from datasets import Dataset

from rlvr_kit import UserError

HE = ("Tom", "Ben", "Sam", "Leo", "Max", "Omar", "Raj", "Luis", "Ken", "Paul", "Ali", "Hugo")
SHE = ("Anna", "Mia", "Sara", "Lucy", "Nora", "Emma", "Zoe", "Rosa", "Amy", "Kate", "Ines", "Lena")
THINGS = "apples books marbles stickers pencils shells cards coins cookies stamps balloons buttons".split()

# One template a line: the question, then each step of the solution. In a template
#   {N} {M}        two names, {he} {He} the pronoun of the first; {t} {one} a thing, plural and singular
#   {a} {b} {c}    counts; {m} {k} {j} {l} factors; {d} = m*k, {e} = m*k-b and {f} = m*k+c-b, so that m divides them
#   [a+b]          a calculation, written 3+4=<<3+4=7>>7; x, y and z are the results of the first, second, third
SEEN = """
{N} has {a} {t} and buys {b} more. How many {t} does {N} have now? | {He} has [a+b] {t}.
There are {a} {t} on a table and {b} in a bag. How many {t} are there in total? | There are [a+b] {t}.
{N} reads {a} pages on Monday and {b} on Tuesday. How many pages does {he} read? | {He} reads [a+b] pages.
{N} has {a} {t} and gives {b} away. How many {t} does {he} have left? | {He} has [a-b] {t} left.
{N} has {a} {t} and {M} has {b}. How many more {t} does {N} have? | {N} has [a-b] more {t}.
{N} needs {a} {t} and has {b}. How many more {t} does {he} need? | {He} needs [a-b] more {t}.
{N} has {m} boxes with {k} {t} in each. How many {t} does {he} have? | {He} has [m*k] {t}.
One {one} costs {k} dollars. How many dollars do {m} {t} cost? | They cost [m*k] dollars.
{N} walks {k} miles a day for {m} days. How many miles does {he} walk? | {He} walks [k*m] miles.
{N} shares {d} {t} equally among {m} friends. How many {t} does each get? | Each friend gets [d/m] {t}.
{N} puts {d} {t} into bags of {m}. How many bags does {he} fill? | {He} fills [d/m] bags.
{N} pays {d} dollars for {m} {t}. How many dollars is one {one}? | One {one} is [d/m] dollars.

{N} has {a} {t}, buys {b} more and gives {c} away. How many {t} are left? | {He} has [a+b] {t}. | Then [x-c] are left.
{N} has {a} {t}, loses {b} and finds {c}. How many {t} does {he} have? | {He} keeps [a-b] {t}. | Then {he} has [x+c].
{N} has {a} {t} and buys {m} boxes of {k}. How many {t} now? | The boxes hold [m*k] {t}. | {He} has [a+x] {t}.
{N} buys {m} bags of {k} {t} and gives {c} away. How many {t} are left? | {He} buys [m*k] {t}. | Then [x-c] are left.
{N} puts {d} {t} into {m} equal piles and adds {a} to each. How many in a pile? | A pile has [d/m] {t}. | Now [x+a].
{N} has {e} {t} and gets {b} more. How many bags of {m} can {he} fill? | {He} has [e+b] {t}. | {He} fills [x/m] bags.
{N} has {a} {t}. {M} has twice as many. How many together? | {M} has [2*a] {t}. | Together they have [a+x] {t}.
{N} has {a} {t}, keeps {b} and sells the rest at {k} dollars each. How many dollars? | {He} sells [a-b]. | {He} gets [x*k].

{N} has {m} boxes of {k} {t}, buys {a} more and gives {c} away. How many {t} are left? \
| The boxes hold [m*k] {t}. | {He} then has [x+a]. | Then [y-c] are left.
{N} has {a} {t}. {M} has twice as many. They sell {c}. How many {t} are left? \
| {M} has [2*a] {t}. | Together they have [a+x]. | Then [y-c] are left.
{N} shares {d} {t} equally among {m} children. {M} gets a share, finds {a} more and loses {c}. \
How many {t} does {M} have? | A share is [d/m] {t}. | {M} then has [x+a]. | Then [y-c] are left.
{N} works {m} hours at {k} dollars an hour, then spends {b} and {c} dollars. How many dollars are left? \
| {He} earns [m*k] dollars. | Then [x-b] are left. | Then [y-c] are left.
{N} has {f} {t}, finds {b}, loses {c} and packs the rest in bags of {m}. How many bags? \
| {He} has [f+b] {t}. | Then [x-c] are left. | {He} packs [y/m] bags.
{N} has {m} bags of {k} {t} and {j} bags of {l}. How many {t} in all? \
| The first bags hold [m*k] {t}. | The others hold [j*l]. | In all [x+y] {t}.
"""
TEST_ONLY = """
A bus carries {a} people and {b} more get on. How many people are on the bus? | There are [a+b] people.
A shop has {a} {t} and sells {b}. How many {t} does the shop still have? | The shop still has [a-b] {t}.
A hall has {m} rows of {k} chairs. How many chairs are in the hall? | The hall has [m*k] chairs.
A coach splits {d} children into teams of {m}. How many teams are there? | There are [d/m] teams.

A train has {a} riders. {b} get off and {c} get on. How many riders now? | First [a-b] stay. | Now there are [x+c].
A farm has {m} barns with {k} cows each and sells {c} cows. How many cows are left? | It has [m*k] cows. | Then [x-c].
{N} has {a} dollars and saves {k} dollars a week for {m} weeks. How many dollars now? | {He} saves [k*m]. | Now [a+x].
A class of {e} children and {b} others form teams of {m}. How many teams? | There are [e+b] children. | So [x/m] teams.

A baker makes {m} trays of {k} rolls, then {a} more, and sells {c}. How many rolls are left? \
| The trays hold [m*k] rolls. | There are [x+a] rolls. | Then [y-c] are left.
A tank holds {f} fish. {b} fish are added, {c} are sold and the rest go {m} to a bowl. How many bowls? \
| There are [f+b] fish. | Then [x-c] are left. | They fill [y/m] bowls.
"""
# The ranges, both ends included: (counts, first factor m and j, second factor k and l, largest result)
RANGES = {"seen": ((2, 20), (2, 9), (2, 9), 100), "new range": ((21, 60), (2, 6), (11, 15), 300)}
TEST_KINDS = ("seen",) * 14 + ("new template",) * 3 + ("new range",) * 3
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
CALCULATION = re.compile(r"\[(\w)([-+*/])(\w)\]")


@dataclass(frozen=True, slots=True)
class _Template:
    question: str
    solution: str
    shown: tuple[str, ...]  # the letters whose numbers the question shows
    calculations: tuple[tuple[str, str, str], ...]


def _templates(text: str) -> dict[int, list[_Template]]:
    by_steps: dict[int, list[_Template]] = {1: [], 2: [], 3: []}
    for line in filter(None, text.strip().splitlines()):
        question, *lines = (part.strip() for part in line.split("|"))
        calculations = tuple(CALCULATION.findall("".join(lines)))
        shown = tuple(re.findall(r"\{([a-z])\}", question.replace("{t}", "")))
        by_steps[len(lines)].append(_Template(question, "\n".join(lines), shown, calculations))
    return by_steps


TEMPLATES = {"seen": _templates(SEEN), "new template": _templates(TEST_ONLY)}


def split_of(numbers: list[int]) -> Literal["train", "test"]:
    """The split that a question showing these numbers belongs to: a quarter of all number sets are test's.

    >>> split_of([3, 4]) == split_of([4, 3])
    True
    """
    return "test" if zlib.crc32(repr(sorted(numbers)).encode()) % 4 == 0 else "train"


def _draw_numbers(rng: random.Random, template: _Template, kind: str) -> dict[str, int] | None:
    """Numbers for one template, with the results as x, y, z; None where a result is no whole number in range."""
    counts, first, second, largest = RANGES["new range" if kind == "new range" else "seen"]
    value = {letter: rng.randint(*counts) for letter in "abc"}
    value |= {"m": rng.randint(*first), "k": rng.randint(*second)}
    value |= {"j": rng.randint(*first), "l": rng.randint(*second), "2": 2}
    value["d"] = value["m"] * value["k"]
    value["e"] = value["d"] - value["b"]
    value["f"] = value["e"] + value["c"]
    for name, (left, sign, right) in zip("xyz", template.calculations, strict=False):
        result = OPERATIONS[sign](value[left], value[right])
        if not 2 <= result <= largest or result != int(result):
            return None
        value[name] = int(result)
    return value if all(value[letter] > 1 for letter in template.shown) else None


def _rows(split: Literal["train", "test"], seed: int, max_steps: int) -> Iterator[dict[str, str | int]]:
    rng = random.Random(f"{split} {seed} {max_steps}")
    while True:
        kind = rng.choice(TEST_KINDS) if split == "test" else "seen"
        steps = rng.randint(1, max_steps)
        template = rng.choice(TEMPLATES["new template" if kind == "new template" else "seen"][steps])
        numbers = None
        while numbers is None or split_of([numbers[letter] for letter in template.shown]) != split:
            numbers = _draw_numbers(rng, template, kind)
        names, others, pronoun = rng.choice([(HE, SHE, "he"), (SHE, HE, "she")])
        thing = rng.choice(THINGS)
        words = {"N": rng.choice(names), "M": rng.choice(others), "he": pronoun, "He": pronoun.capitalize()}
        words |= {"t": thing, "one": thing[:-1]} | {name: str(number) for name, number in numbers.items()}
        gold = words["xyz"[steps - 1]]
        solution = template.solution
        for name, (left, sign, right) in zip("xyz", template.calculations, strict=False):
            sum_ = words.get(left, left) + sign + words.get(right, right)
            solution = solution.replace(
                f"[{left}{sign}{right}]", f"{sum_}=<<{sum_}={words[name]}>>{words[name]}", 1
            )
        yield {
            "question": template.question.format(**words),
            "answer": f"{solution.format(**words)}\n#### {gold}",
            "gold": gold,
            "steps": steps,
            "kind": kind,
        }


def make_word_problems(split: Literal["train", "test"], n: int, seed: int = 0, max_steps: int = 3) -> Dataset:
    """``n`` different word problems with one to ``max_steps`` (at most 3) steps each.

    Row i depends on ``split``, ``seed`` and ``max_steps``, never on ``n``. Columns: question, answer, gold, steps (how many
    calculations the answer has) and kind: "seen" everywhere in training; in the test split about 70 % "seen", 15 %
    "new template" and 15 % "new range" (counts of 21 to 60 and factors of 11 to 15, where training stays below 21 and 10).
    Raises UserError for arguments out of range, or when there are not ``n`` different problems.

    >>> make_word_problems("train", 2, seed=1).column_names
    ['question', 'answer', 'gold', 'steps', 'kind']
    """
    if split not in ("train", "test"):
        raise UserError(f"word problems have the splits 'train' and 'test', not {split!r}")
    if n < 0 or max_steps not in (1, 2, 3):
        raise UserError(
            f"word problems need n >= 0 and max_steps 1, 2 or 3, not n={n} and max_steps={max_steps}"
        )
    rows: dict[str, dict[str, str | int]] = {}
    for drawn, row in enumerate(_rows(split, seed, max_steps)):
        if len(rows) == n:
            break
        if drawn > 10 * n + 1000:
            raise UserError(
                f"there are only about {len(rows):,} different {split} problems here: ask for fewer than {n:,}"
            )
        rows.setdefault(str(row["question"]), row)
    columns = ("question", "answer", "gold", "steps", "kind")
    return Dataset.from_dict({name: [row[name] for row in rows.values()] for name in columns})
