"""Short business messages -> one line of JSON, judged field by field.

A row, as ``problems("train", 1, 0)`` may return it:

    question  Mail of Monday. Hi, Anna here. Please send two dozen red mugs to Paris by the day after tomorrow. ...
    answer    {"name": "Anna", "item": "mug", "count": 24, "city": "Paris", "day": "Wednesday"}
    gold      the same line            kind seen

A right answer writes the item in the singular, reads numbers in digits, words and dozens, works out a day that is given
relative to the day of the mail, and ignores what does not belong to the order (other people, other numbers, other
cities, colors).

A question belongs to the same split for every seed (generated.py). In the test split about 70 % of the messages are
made of names, things, cities and sentences that training uses too ("seen"), 15 % have words ("new words") and 15 % have
sentences ("new sentence") that training never shows; the column ``kind`` says which.
"""

import json
import random
from collections.abc import Iterator
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlvr_kit.errors import InputError
from rlvr_kit.tasks.generated import different, split_of
from rlvr_kit.tasks.verifier import Verdict

Day = Literal["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
DAYS = get_args(Day)
Text = Field(min_length=1, max_length=40)


class Order(BaseModel):
    """The only shape that an answer may have: no other keys, and ``"3"``, ``3.0`` or ``true`` are not counts."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str = Text
    item: str = Text
    count: int = Field(ge=1, le=10_000)
    city: str = Text
    day: Day


FIELDS = tuple(Order.model_fields)
MOST_CHARACTERS = 400  # an order takes about 100
INSTRUCTION = """\
Write the order as one line of JSON: name of the customer, item in the singular, count as a number, city, and \
the day of the week on which it is due.
Example:
Mail of Tuesday. Igor needs a dozen gray desks in Bonn tomorrow, please.
{"name": "Igor", "item": "desk", "count": 12, "city": "Bonn", "day": "Wednesday"}"""

# What messages are made of: the words of both splits, then those that only the test split uses.
WORDS = {
    "name": (
        "Anna Ben Carla David Emma Felix Grace Henry Ines Jack Karen Leo Maria Nick Olga Paul Rita Sam Tina Victor",
        "Walter Yara Hugo Lena Omar Diana Frank Sophie",
    ),
    "item": (
        "mug lamp chair table plate bottle jacket shirt towel pillow basket candle folder pen clock mirror bag blanket",
        "spoon helmet carpet umbrella bucket vase ladder ribbon",
    ),
    "color": ("red blue green black white yellow brown", "orange purple pink"),
    "city": (
        "Paris London Berlin Madrid Rome Vienna Prague Oslo Dublin Lisbon Athens Warsaw Milan",
        "Boston Chicago Toronto Sydney Tokyo Denver",
    ),
}
SENTENCES = (
    "Hi, {name} here. Please send {count} {color} {items} to {city} by {due}.",
    "{name} would like {count} {color} {items}, delivered to {city} {on_due}.",
    "New order from {name}: {count} {color} {items}, to be shipped to {city}, needed {on_due}.",
    "Could you get {count} {color} {items} to {city} for {name} {on_due}?",
    "Hello, my name is {name}. I need {count} {color} {items} in {city} {on_due}.",
    "We are out of {color} {items} in {city}! Can {name} have {count} by {due}?",
    "{name} from our shop in {city} called and wants {count} {color} {items} by {due}.",
    "The {items} should be {color} again, {count} of them, and reach {name} in {city} {on_due}.",
)
TEST_SENTENCES = (
    "Until {due} we must bring {count} {color} {items} to {name}, who is waiting in {city}.",
    "Dear team, {city} is asking for {count} {items} in {color}. Mark them for {name}, they are due {on_due}.",
    "For {name}: {items}, {color}, {count} pieces. They have to arrive in {city} {on_due}.",
)
DISTRACTORS = (
    "Last time it took {n} days.", "{other} sends greetings.", "The bill goes to {elsewhere}, as always.",
    "My room number is {n}.", "Please do not send any {things}.", "{other} paid for the last {n}.",
)  # fmt: skip
TEST_DISTRACTORS = ("We have been customers for {n} years.", "The {things} from {elsewhere} were fine.")
NUMBERS = (
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
#: How each count may be written in a message.
COUNTS = {n: [str(n)] for n in range(2, 100)}
for _count, _text in enumerate(NUMBERS.split(), 2):
    COUNTS[_count].append(_text)
for _count, _text in ((6, "half a dozen"), (12, "a dozen"), (24, "two dozen"), (36, "three dozen")):
    COUNTS[_count].append(_text)
RELATIVE = ("today", "tomorrow", "the day after tomorrow")
TEST_KINDS = ("seen",) * 14 + ("new words",) * 3 + ("new sentence",) * 3


def _message(rng: random.Random, kind: str) -> tuple[str, dict[str, Any]]:
    """Return a message and the order in it."""

    def word(field: str, new: bool = False) -> str:
        return rng.choice([w for w in WORDS[field][new].split() if w != order.get(field)])

    new = kind == "new sentence"
    order: dict[str, Any] = {}
    for field in WORDS:  # the color is in the message only: the answer does not ask for it
        order[field] = word(field, kind == "new words")
    order["count"] = rng.choice([*COUNTS]) if rng.random() < 0.4 else rng.randint(2, 20)
    sent, ahead = rng.randrange(7), rng.randrange(7)  # the day of the mail, and how many days later it is due
    order["day"] = due = DAYS[(sent + ahead) % 7]
    on_due = f"on {due}"
    if ahead < len(RELATIVE) and rng.random() < 0.15:
        due = on_due = RELATIVE[ahead]
    shown = order | {"count": rng.choice(COUNTS[order["count"]]), "due": due, "on_due": on_due}
    text = rng.choice(TEST_SENTENCES if new else SENTENCES).format(items=order["item"] + "s", **shown)
    others = {"other": word("name"), "elsewhere": word("city"), "things": word("item") + "s"}
    others["n"] = str(rng.randint(2, 60))
    if rng.random() < 0.8:
        text += " " + rng.choice(TEST_DISTRACTORS if new else DISTRACTORS).format(**others)
    return f"Mail of {DAYS[sent]}. {text}", {field: order[field] for field in FIELDS}


def _rows(split: str, seed: int) -> Iterator[dict[str, str]]:
    rng = random.Random(f"orders {split} {seed}")
    while True:
        kind = rng.choice(TEST_KINDS) if split == "test" else "seen"
        question, order = _message(rng, kind)
        if split_of(question) == split:
            line = json.dumps(order)
            yield {"question": question, "answer": line, "gold": line, "kind": kind}


def problems(split: Literal["train", "test"], n: int, seed: int) -> list[dict[str, str]]:
    """Return ``n`` different messages with their orders; row i depends on `split` and `seed`, not on `n`.

    Raises UserError for another split, or for `n` below 1.
    """
    if split not in ("train", "test") or n < 1:
        raise InputError(f"orders come as split 'train' or 'test' and n >= 1, not {split!r} and n={n}")
    return different(_rows(split, seed), n)


def verify(completion: str, gold: str) -> Verdict:
    """Judge one completion. Well-formed: one line that is a valid `Order`. Correct: every field equals the gold's.

    `lenient_correct` also accepts code fences or prose around the object, and other capitals or spaces in its values.
    `partial` is the share of the fields that are right. It never raises, and takes linear time, whatever the text is.

    >>> gold = problems("train", 1, 0)[0]["gold"]
    >>> verify(gold, gold).why, verify('{"name": "Ben"}', gold).why
    ('right order', 'item: Field required')
    """
    try:
        target = _order(gold)
    except ValueError as error:
        return Verdict(False, False, False, None, f"unreadable gold: {error}")
    try:
        order, why = _order(completion.strip()), ""
    except ValueError as error:
        order, why = None, str(error)
    wanted = target.model_dump()
    read = order.model_dump() if order else _loosely(completion)
    same = [field for field in FIELDS if _plain(read.get(field)) == _plain(wanted[field])]
    correct = order == target
    if order:
        wrong = [f"{key} {read[key]!a}, not {wanted[key]!a}" for key in FIELDS if read[key] != wanted[key]]
        why = f"wrong {'; '.join(wrong)}" if wrong else "right order"
    extracted = json.dumps({field: read.get(field) for field in FIELDS}) if read else None
    return Verdict(order is not None, correct, same == [*FIELDS], extracted, why, len(same) / len(FIELDS))


def _order(line: str) -> Order:
    """Read the order in a line. Raises ValueError, with a short reason, when the line is anything else."""
    if len(line) > MOST_CHARACTERS:
        raise ValueError(f"too long: {len(line):,} characters")
    if len(line.splitlines()) != 1:
        raise ValueError("not one line")
    try:
        return Order.model_validate(json.loads(line, object_pairs_hook=_unique, parse_constant=_refuse))
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{ascii('.'.join(map(str, first['loc'])))[1:-1] or 'it'}: {first['msg']}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a key twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


def _loosely(text: str) -> dict[str, Any]:
    """Read the object between the first and the last brace of a text; empty when there is none."""
    start, end = text.find("{"), text.rfind("}") + 1
    if start < 0 or not 0 < end - start <= MOST_CHARACTERS:
        return {}
    try:
        found = json.loads(text[start:end], object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return {}
    return {key: found[key] for key in FIELDS if isinstance(found.get(key), str | int)}


def _plain(value: Any) -> str:
    return str(value).strip().casefold()
