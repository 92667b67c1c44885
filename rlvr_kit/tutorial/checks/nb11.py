"""Checks of notebook 11: whether two models are the same, and what a fair comparison of endpoints holds equal."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from rlvr_kit.tutorial.exercises import Wrong, check, first_difference, shown


def _rows(completions: list[str], correct: list[bool], problems: list[int] | None = None) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "problem": problems or range(len(completions)),
            "completion": completions,
            "correct": correct,
            "extracted": [text.split()[-1] for text in completions],
        }
    )


ONE = _rows(
    ["3 + 4 = 7\n#### 7", "6 * 2 = 12\n#### 12", "9 - 4 = 6\n#### 6", "so\n#### 8"],
    [True, True, False, False],
)
#: Reference, other: the same; the same in another order; equal scores; equal numbers in other words; answers to
#: other problems; other letters in the same order of size; blanks at the end.
PAIRS = [
    (ONE, ONE),
    (ONE, ONE.iloc[[2, 0, 3, 1]].reset_index(drop=True)),
    (ONE, _rows(["3 + 4\n#### 6", ONE.completion[1], "9 - 4\n#### 5", "so\n#### 8"], [False, True, True, False])),
    (ONE, ONE.assign(completion=[*ONE.completion[:2], "It is\n#### 6", "well\n#### 8"])),
    (ONE, ONE.assign(completion=[*ONE.completion[::-1]], extracted=[*ONE.extracted[::-1]], correct=False)),
    (ONE, ONE.assign(completion=[ONE.completion[0], "2 * 6 = 12\n#### 12", ONE.completion[2], "So\n#### 8"])),
    (ONE, ONE.assign(completion=ONE.completion + " ")),
]  # fmt: skip


def share_of_equal(reference: pd.DataFrame, other: pd.DataFrame, column: str = "completion") -> float:
    """The share of problems with equal entries in a column, the rows paired by their problem."""
    both = reference.merge(other, on="problem")
    return float((both[f"{column}_x"] == both[f"{column}_y"]).mean())


def _changed(rows: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    return rows.assign(completion=rows.completion.map(change))


def _by_row(reference: pd.DataFrame, other: pd.DataFrame, column: str = "completion") -> float:
    return float((reference[column] == other[column]).mean())


WRONG_SHARES: dict[str, Any] = {
    "you compare row by row, and the same answers in another order are the same: pair the rows by their `problem`":
        _by_row,
    "you compare which answers are right. Two models can be right on the same problems with other words: "
    "compare letters":
        lambda reference, other: share_of_equal(reference, other, "correct"),
    "you compare which rows are right, row by row: pair them by their `problem`, and compare the letters":
        lambda reference, other: _by_row(reference, other, "correct"),
    "you compare the numbers that were extracted. Equal numbers can stand in different texts: compare the "
    "whole letters":
        lambda reference, other: share_of_equal(reference, other, "extracted"),
    "this is whether the scores are equal. Two models can be right equally often on different problems":
        lambda reference, other: float(reference.correct.mean() == other.correct.mean()),
    "this is the difference of the scores. Two models can be right equally often on different problems":
        [
            lambda reference, other: other.correct.mean() - reference.correct.mean(),
            lambda reference, other: abs(other.correct.mean() - reference.correct.mean()),
            lambda reference, other: 1 - abs(other.correct.mean() - reference.correct.mean()),
        ],
    "sorting by completion tears answers and problems apart: pair the rows by their `problem`":
        lambda reference, other: float(np.mean(np.sort(reference.completion) == np.sort(other.completion))),
    "large and small letters are different letters: 'So' is not 'so'":
        lambda reference, other: share_of_equal(_changed(reference, str.lower), _changed(other, str.lower)),
    "a blank more or less at the end is another text, and you take it off":
        lambda reference, other: share_of_equal(_changed(reference, str.strip), _changed(other, str.strip)),
    "you compare which words there are, and their order counts as well":
        [
            lambda reference, other, words=words: share_of_equal(_changed(reference, words), _changed(other, words))
            for words in (lambda text: " ".join(sorted(text.split())), lambda text: " ".join(sorted({*text.split()})))
        ],
    "this is how many are equal. A share is asked for: divide by the number of problems":
        lambda reference, other: round(share_of_equal(reference, other) * len(reference)),
    "this is per cent; a share lies between 0 and 1":
        lambda reference, other: 100 * share_of_equal(reference, other),
    "this is the share of answers that differ, and the share of equal ones was asked for":
        lambda reference, other: 1 - share_of_equal(reference, other),
    "this says whether all are equal. How many are not says more: near-ties differ in the same model, too":
        lambda reference, other: float(share_of_equal(reference, other) == 1),
    "you ask whether a text occurs anywhere in the other model's answers; it has to be the answer to the "
    "same problem":
        lambda reference, other: float(reference.completion.isin(other.completion).mean()),
}  # fmt: skip


@check
def check_same(answer: Callable[..., Any]) -> str:
    """`share_equal(reference, other)` on pairs of tables that are equal in one way and not in another."""
    difference = first_difference(answer, share_of_equal, PAIRS, WRONG_SHARES)
    if difference:
        (reference, other), got, expected = difference
        raise Wrong(
            f"for the answers {shown([*reference.completion])} and {shown([*other.completion])}, which are "
            "the problems "
            f"{shown([*other.problem])}, the share is {expected:.2f}, and you have {shown(got)}"
        )
    return "it finds the same answers in another order, and is not taken in by equal scores or equal numbers."


#: What has to be equal so that a difference in the score is one of what is served, and what goes wrong otherwise.
EQUAL = {
    "problems": "other problems are easier or harder, and cannot be compared in pairs",
    "prompt": "another instruction is the first reason why a served model behaves untrained",
    "token limit": "a smaller limit cuts answers off before their last line",
    "temperature": "samples are mostly worse than greedy answers, and vary from one try to the next",
    "stop strings": "a text that runs on may end with another number than the answer",
    "verifier": "a more generous judge makes any model look better",
}
MAY_DIFFER = {
    "server software": "it is part of what is compared: name it beside the score",
    "machine": "it makes answers faster or slower, and that is another question",
    "number format": "it is part of what is served: that it may change answers is why you measure",
    "questions at a time": "it changes how long the measurement takes; where it changes answers, that is the "
    "server's fault",
}


@check
def check_fair(answer: Any) -> str:
    """`hold_equal`: which of the ten things a fair comparison of two endpoints holds equal."""
    if isinstance(answer, str) or not isinstance(answer, set | list | tuple):
        raise Wrong(
            f"write the names down in braces, such as {{'problems', 'machine'}}; you have {shown(answer)}"
        )
    found = {*map(str, answer)}
    if unknown := sorted(found - {*EQUAL, *MAY_DIFFER}):
        raise Wrong(f"{unknown[0]!r} is not on the list, which has: {', '.join([*EQUAL, *MAY_DIFFER])}")
    if found == {*EQUAL, *MAY_DIFFER}:
        raise Wrong("if everything is equal there is nothing left to compare: what is it that is served?")
    if missed := [name for name in EQUAL if name not in found]:
        raise Wrong(f"the {missed[0]} must be equal as well: {EQUAL[missed[0]]}")
    if extra := [name for name in MAY_DIFFER if name in found]:
        raise Wrong(f"the {extra[0]} may differ: {MAY_DIFFER[extra[0]]}")
    return "what is asked and how it is judged is equal, so that a difference belongs to what is served."
