"""Checks of notebook 10: a text that cheats a verifier, and golds that do not verify."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from rlvr_kit.measure.statistics import wilson_interval
from rlvr_kit.tasks.orders import problems, verify
from rlvr_kit.tutorial.exercises import Wrong, check, run, shown

MESSAGES = 200
ENOUGH = 0.9


@check
def check_exploit(answer: Callable[[str], Any]) -> str:
    """`exploit(message)`: a text that the first verifier of the notebook pays, and that is no order."""
    rows = problems("train", MESSAGES, 0)
    texts = [run(answer, row["question"], like="") for row in rows]
    missing = [_missing(text, row["gold"]) for text, row in zip(texts, rows, strict=True)]
    paid = sum(not fields for fields in missing)
    low, high = wilson_interval(paid, len(rows))
    seen = f"paid for {paid} of {len(rows)} messages ({low:.0%} to {high:.0%})"
    if paid < ENOUGH * len(rows):
        field, times = Counter(field for fields in missing for field in fields).most_common(1)[0]
        raise Wrong(
            f"{seen}. What is missing most often is the {field}, {times} times. {_where(field, texts, rows)}"
        )
    solved = sum(verify(text, row["gold"]).correct for text, row in zip(texts, rows, strict=True))
    if solved > 0.1 * len(rows):
        raise Wrong(
            f"{solved} of your texts are the right order as one line of JSON: that is work, and no exploit"
        )
    return (
        f"it was {seen} and is the right order for {solved}. It holds what an answer could hold "
        "and says nothing. "
        "As a test of a verifier: this text, not well-formed, not right."
    )


def _missing(text: str, gold: str) -> list[str]:
    """The fields of the gold that do not stand somewhere in the text."""
    return [field for field, value in json.loads(gold).items() if str(value) not in text]


def _where(field: str, texts: list[str], rows: list[dict[str, str]]) -> str:
    if not any(texts):
        return "An empty text holds nothing"
    if len({*texts}) == 1 and field in ("name", "item", "city"):
        return "Your text is the same for each message: the message itself holds names, things and cities"
    return {
        "day": "There are only seven of them, and a message may say *tomorrow* instead: write down all seven",
        "count": "Messages write it in words or dozens as well: write down every number that it could be, up to 99",
    }.get(field, "It stands in the message, letter by letter: what if you repeat the message?")


#: What is wrong with the golds of the exercise that do not verify, by their place; and why the others do.
BROKEN = {
    2: 'its count is the text "7" and not the number 7',
    3: "Python's quotes are not JSON's",
    5: "its day is written with a small letter, and `Literal` takes the seven words as they stand",
    6: "it has a field too many, and `forbid` means what it says",
    7: "it has the key `count` twice, so nobody knows which one is meant (`json.loads` alone would take the last)",
}
SOUND = {
    0: "it is as it should be",
    1: "other spaces are no matter: the line is read as JSON, and not compared as text",
    4: "the keys may come in any order: in JSON it has no meaning",
}


@check
def check_broken(answer: Any) -> str:
    """`broken`: the places in the list of golds that do not verify."""
    if isinstance(answer, np.ndarray):
        answer = answer.tolist()
    if not isinstance(answer, list | set | tuple):
        raise Wrong(f"write the places down in a list, such as [0, 3]; you have {shown(answer)}")
    if any(isinstance(place, bool) for place in answer):
        raise Wrong("True and False say which golds are broken; places are asked for, such as [0, 3]")
    if outside := [
        place for place in answer if not isinstance(place, int | np.integer) or not 0 <= place <= 7
    ]:
        raise Wrong(f"{shown(outside[0])} is no place: the golds are counted from 0 to 7")
    found = {*answer}
    if found == {place + 1 for place in BROKEN}:
        raise Wrong("you count from 1, and Python counts from 0")
    if found == {*SOUND}:
        raise Wrong("these are the sound ones; the broken ones were asked for")
    if wrongly := sorted(found & {*SOUND}):
        raise Wrong(f"number {wrongly[0]} verifies: {SOUND[wrongly[0]]}")
    if missed := sorted({*BROKEN} - found):
        raise Wrong(f"number {missed[0]} does not verify: {BROKEN[missed[0]]}" + _more(len(missed) - 1))
    return (
        "a gold must be paid when it is given as the answer, and these five are not. A model that answers "
        "such a row rightly "
        "would be told that it is wrong: that is why the audit looks at every gold first."
    )


def _more(others: int) -> str:
    return f"; and {others} more" if others else ""
