"""Any number of small word problems in GSM8K's own schema, for machines that cannot reach the Hub.

A row, as ``make_word_problems("train", 1)`` may return it:

    question  Tom has 3 apples and buys 4 more. How many apples does Tom have now?
    answer    He has 3+4=<<3+4=7>>7 apples.
              #### 7
    gold 7    steps 1    kind seen

A gain on the test split cannot be memory, for two reasons:

- The numbers in a question decide which split it belongs to, for every seed (``split_of``). So training never shows
  the set of numbers of a test question, in the same words or in others.
- Some templates and some ranges of numbers occur in the test split only; the column ``kind`` says which.
"""

import operator
import random
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from datasets import Dataset

from rlvr_kit.errors import InputError
from rlvr_kit.tasks import generated
from rlvr_kit.tasks.prompts import INSTRUCTION as INSTRUCTION
from rlvr_kit.tasks.verifier import verify as verify

HE = ("Tom", "Ben", "Sam", "Leo", "Max", "Omar", "Raj", "Luis", "Ken", "Paul", "Ali", "Hugo")
SHE = ("Anna", "Mia", "Sara", "Lucy", "Nora", "Emma", "Zoe", "Rosa", "Amy", "Kate", "Ines", "Lena")
THINGS = ("apples", "books", "marbles", "stickers", "pencils", "shells", "cards", "balloons", "stamps")

# A template is a question and the steps of its solution. Blank lines set apart one, two and three steps.
#   {N} {M}        two names; {he} {He} the pronoun of the first; {t} {one} a thing, plural and singular
#   {a} {b} {c}    counts; {m} {k} {j} {l} factors; {d} = m*k, {e} = m*k-b, {f} = m*k+c-b, so that m divides
#   [a+b]          a calculation, written 3+4=<<3+4=7>>7; x, y, z are the results of the first, second, third
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
{N} pays {d} dollars for {m} {t}. How many dollars does one {one} cost? | One {one} costs [d/m] dollars.

{N} has {a} {t}, buys {b} and gives {c} away. How many are left? | {He} has [a+b] {t}. | Then [x-c] are left.
{N} has {a} {t}, loses {b} and finds {c}. How many does {he} have? | {He} keeps [a-b]. | Now {he} has [x+c].
{N} has {a} {t} and buys {m} boxes of {k}. How many {t} now? | The boxes hold [m*k]. | {He} has [a+x] {t}.
{N} buys {m} bags of {k} {t} and gives {c} away. How many are left? | {He} buys [m*k]. | Then [x-c] are left.
{N} puts {d} {t} in {m} equal piles, then {a} more on each. How many in a pile? | First [d/m]. | Then [x+a].
{N} has {e} {t} and gets {b} more. How many bags of {m} is that? | {He} has [e+b] {t}. | That is [x/m] bags.
{N} has {a} {t}. {M} has twice as many. How many together? | {M} has [2*a] {t}. | Together they have [a+x].
{N} has {a} {t}, keeps {b} and sells the rest at {k} dollars each. How many dollars does {he} get? \
| {He} sells [a-b] {t}. | {He} gets [x*k] dollars.

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
{N} has {m} bags of {k} {t} and {j} bags of {l}. How many {t} are there in all? \
| The first bags hold [m*k] {t}. | The others hold [j*l]. | In all there are [x+y] {t}.
"""
TEST_ONLY = """
A bus carries {a} people and {b} more get on. How many people are on the bus? | There are [a+b] people.
A shop has {a} {t} and sells {b}. How many {t} does the shop still have? | The shop still has [a-b] {t}.
A hall has {m} rows of {k} chairs. How many chairs are in the hall? | The hall has [m*k] chairs.
A coach splits {d} children into teams of {m}. How many teams are there? | There are [d/m] teams.

A train has {a} riders. {b} get off and {c} get on. How many riders now? | First [a-b] stay. | Now [x+c] ride.
A farm has {m} barns of {k} cows and sells {c}. How many cows are left? | It has [m*k]. | Then [x-c] are left.
{N} has {a} dollars and earns {k} a day for {m} days. How many dollars now? | {He} earns [k*m]. | Now [a+x].
A class of {e} and {b} others form teams of {m}. How many teams? | There are [e+b]. | They form [x/m] teams.

A baker makes {m} trays of {k} rolls, then {a} more, and sells {c}. How many rolls are left? \
| The trays hold [m*k] rolls. | There are [x+a] rolls. | Then [y-c] are left.
A tank holds {f} fish. {b} fish are added, {c} are sold, the rest go {m} to a bowl. How many bowls? \
| There are [f+b] fish. | Then [x-c] are left. | They fill [y/m] bowls.
"""
# The ranges, both ends included: (counts, first factor m and j, second factor k and l, largest result).
RANGES = {"seen": ((2, 20), (2, 9), (2, 9), 100), "new range": ((21, 60), (2, 6), (11, 15), 300)}
TEST_KINDS = ("seen",) * 14 + ("new template",) * 3 + ("new range",) * 3
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


class _Template(NamedTuple):
    question: str
    solution: str
    shown: list[str]  # the letters whose numbers the question shows
    calculations: list[tuple[str, str, str]]  # ("a", "+", "b"), one a step


def _parse(line: str) -> _Template:
    question, *steps = (part.strip() for part in line.split("|"))
    shown = re.findall(r"\{([a-fj-m])\}", question)
    return _Template(question, "\n".join(steps), shown, re.findall(r"\[(\w)([-+*/])(\w)\]", line))


TEMPLATES = {
    name: [[_parse(line) for line in block.splitlines()] for block in text.strip().split("\n\n")]
    for name, text in (("seen", SEEN), ("new template", TEST_ONLY))
}


def split_of(numbers: list[int]) -> Literal["train", "test"]:
    """Return the split of every question that shows these numbers. About a quarter of all sets are for testing.

    >>> assert split_of([3, 4]) == split_of([4, 3])
    """
    return generated.split_of(repr(sorted(numbers)))


def _draw_numbers(rng: random.Random, template: _Template, kind: str) -> dict[str, int] | None:
    """Draw a number for each letter, with the results as x, y, z; None when a result is out of range or not whole."""
    counts, first, second, largest = RANGES["new range" if kind == "new range" else "seen"]
    value = {letter: rng.randint(*counts) for letter in "abc"}
    value |= {letter: rng.randint(*(first if letter in "mj" else second)) for letter in "mjkl"}
    value["d"] = value["m"] * value["k"]
    value |= {"e": value["d"] - value["b"], "f": value["d"] + value["c"] - value["b"]}
    for name, (left, sign, right) in zip("xyz", template.calculations, strict=False):
        result = OPERATIONS[sign](value.get(left, 2), value[right])  # the one digit in a template is a 2
        if not 2 <= result <= largest or result != int(result):
            return None
        value[name] = int(result)
    return value if all(value[letter] > 1 for letter in template.shown) else None


def _rows(split: Literal["train", "test"], seed: int, max_steps: int) -> Iterator[dict[str, str | int]]:
    rng = random.Random(f"{split} {seed} {max_steps}")
    while True:
        kind = rng.choice(TEST_KINDS) if split == "test" else "seen"
        steps = rng.randint(1, max_steps)
        template = rng.choice(TEMPLATES["new template" if kind == "new template" else "seen"][steps - 1])
        numbers = None
        while numbers is None or split_of([numbers[letter] for letter in template.shown]) != split:
            numbers = _draw_numbers(rng, template, kind)
        ours, others, he = rng.choice([(HE, SHE, "he"), (SHE, HE, "she")])
        words = {"N": rng.choice(ours), "M": rng.choice(others), "he": he, "He": he.capitalize()}
        words |= {"t": (things := rng.choice(THINGS)), "one": things.removesuffix("s")}
        words |= {letter: str(number) for letter, number in numbers.items()}
        answer = template.solution
        for name, (left, sign, right) in zip("xyz", template.calculations, strict=False):
            sum_, result = f"{words.get(left, left)}{sign}{words[right]}", words[name]
            answer = answer.replace(f"[{left}{sign}{right}]", f"{sum_}=<<{sum_}={result}>>{result}")
        answer, question = f"{answer}\n#### {result}".format(**words), template.question.format(**words)
        yield {"question": question, "answer": answer, "gold": result, "steps": steps, "kind": kind}


def make_word_problems(split: Literal["train", "test"], n: int, seed: int = 0, max_steps: int = 3) -> Dataset:
    """Make ``n`` different word problems of one to ``max_steps`` (at most 3) steps.

    Row i depends on ``split``, ``seed`` and ``max_steps``, not on ``n``. The columns are question, answer, gold,
    steps and kind. All training rows are "seen". About 70 % of the test rows are "seen", 15 % "new template" and 15 %
    "new range" (counts of 21 to 60 and factors of 11 to 15, while training stops at 20 and 9).
    Raises UserError for arguments out of range, and when there are not ``n`` different problems.

    >>> make_word_problems("train", 2, seed=1).column_names
    ['question', 'answer', 'gold', 'steps', 'kind']
    """
    if split not in ("train", "test"):
        raise InputError(f"word problems come as split 'train' or 'test', not {split!r}")
    if n < 1 or max_steps not in (1, 2, 3):
        raise InputError(f"word problems need n >= 1 and max_steps 1 to 3, not n={n}, max_steps={max_steps}")
    rows = generated.different(_rows(split, seed, max_steps), n)
    if len(rows) < n:
        raise InputError(f"{n:,} different {split} problems are too many here: {len(rows):,} were found")
    return Dataset.from_list(rows)


def problems(split: Literal["train", "test"], n: int, seed: int, max_steps: int = 3) -> Dataset:
    """Return the rows as a task does (task.py): see :func:`make_word_problems`."""
    return make_word_problems(split, n, seed, max_steps)
