"""The exercises of notebook 01: when two spellings are one number, and how many tokens an answer needs."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rlvr_kit.tasks.verifier import canonical_number
from rlvr_kit.tutorial.exercises import Wrong, check, first_difference, run, shown

SPELLINGS = ["1080", "1,080", "$1,080.00", "1080.", "-7", "0.50", "36/2", "7 apples", "twelve", "1,2,3"]
#: Two spellings, whether they are one number, and what is the matter where an answer says otherwise.
PAIRS: list[tuple[str, str, bool, str]] = [
    ("1080", "1080", True, "the very same spelling must count as the same number"),
    ("1080", "7", False, "1080 and 7 are two numbers"),
    ("1,080", "1080", True, "a comma before three digits only groups them: take it out before you compare"),
    ("$1,080.00", "1080", True, "a dollar sign and .00 change nothing about the number"),
    ("1080.", "1080", True, "a period at the end is the end of a sentence"),
    ("0.50", "0.5", True, "a zero at the end, behind the point, changes nothing"),
    ("-7", "7", False, "the minus is lost: -7 is not 7"),
    ("-7", "-7.0", True, "-7 and -7.0 are the same negative number"),
    ("10", "1", False, "only zeros behind the point may go: 10 is not 1"),
    ("1.5", "15", False, "the point may not be deleted: 1.5 is not 15"),
    ("0.50", "0", False, "the decimals are cut off (int does that): 0.50 is not 0"),
    ("36/2", "18", False, "36/2 is a sum and not a number; nothing that a model writes is ever worked out (eval)"),
    ("36/2", "36", False, "36/2 is not 36: something reads the first number and ignores what stands behind it"),
    ("36/2", "362", False, "36/2 is not 362: whatever is no digit gets deleted"),
    ("7 apples", "7", False, "'7 apples' is not one plain number: something looks for a number and ignores the rest"),
    ("1,2,3", "123", False, "every comma is deleted: 1,2,3 is a list, and 123 another answer"),
    ("1,2,3", "1", False, "1,2,3 is a list: something reads the first number and ignores the rest"),
    ("twelve", "7 apples", False, "two texts that are no numbers are not the same number: None == None is True"),
    ("twelve", "twelve", False, "'twelve' is no number in digits, so it is the same as nothing, not even itself"),
    ("36/2", "36/2", False, "36/2 is not one plain number, so it is the same number as nothing, not even itself"),
    ("18$", "18", False, "a dollar sign may stand before a number only, and here it is deleted anywhere"),
    ("1e3", "1000", False, "float and Decimal read more than plain numbers: 1e3"),
    ("inf", "inf", False, "float and Decimal read more than plain numbers: nan and inf"),
    ("9007199254740993", "9007199254740992", False, "float keeps 16 digits: these two differ in the last"),
    ("1000", "1001", False, "near is not the same: compare exactly, without a tolerance"),
    ("0.50", "0.501", False, "near is not the same: compare exactly, without rounding or a tolerance"),
]  # fmt: skip


def same_number(one: str, other: str) -> bool:
    """Whether both texts are one plain number, and the same.

    >>> same_number("$1,080.00", "1080"), same_number("twelve", "twelve")
    (True, False)
    """
    number = canonical_number(one)
    return number is not None and number == canonical_number(other)


_SAME_MISTAKES: dict[str, Any] = {
    "this compares the texts, letter by letter: '1,080' and '1080' are one number in two spellings": (
        lambda a, b: a == b
    ),
    "this says True for every pair": lambda a, b: True,
    "this says False for every pair": lambda a, b: False,
    "two spellings without a number both give None, and None == None is True: twelve is not 7 apples": (
        lambda a, b: canonical_number(a) == canonical_number(b)
    ),
    "it is turned round: True stands where False should": lambda a, b: not same_number(a, b),
    "this looks for the other text inside the first one": lambda a, b: b in a,
    "this looks for one text inside the other": lambda a, b: a in b or b in a,
    "the minus is lost (abs): -7 is not 7": lambda a, b: same_number(a.replace("-", ""), b.replace("-", "")),
    "whatever is no digit is deleted, the point, the minus and the words as well": (
        lambda a, b: re.sub(r"\D", "", a) == re.sub(r"\D", "", b)
    ),
}


@check
def check_same_number(answer: Callable[[str, str], bool]) -> str:
    """Pairs of the ten spellings and a few more, each with what is the matter when it is judged wrongly."""
    for one, other, due, why in PAIRS:
        for a, b in ((one, other), (other, one)):
            got = run(answer, a, b, like=True)
            if got != due:
                first_difference(answer, same_number, [p[:2] for p in PAIRS], _SAME_MISTAKES)
                raise Wrong(f"for {shown(a, b)} it says {got}: {why}")
    return (
        "both texts are brought to one exact form first, and what is not one plain number has no such form, so it "
        "equals nothing."
    )


LENGTHS: list[list[int]] = [
    [12, 15, 9, 20, 17, 14, 16, 13, 11, 18, 10, 19, 21, 22, 23, 24, 25, 26, 60, 27],
    [*range(1, 101)],
    [5, 5, 5, 5, 5, 5, 5, 5, 5, 40],
    [30, 8, 12],
    [9, 31, 12, 27, 18, 40, 22, 15, 36, 25, 53],
    [16] * 40 + [17] * 3,
    [3, 80, 7, 7, 31, 90, 14, 52, 66, 71, 28, 45, 2, 38, 11, 19, 23, 57, 61, 75, 83, 88, 94],
]


def smallest_limit(lengths: Sequence[int], share: float = 0.95) -> int:
    """The smallest limit into which at least `share` of `lengths` fit; a length that equals the limit fits.

    >>> smallest_limit([10, 20, 30, 40], share=0.75)
    30
    """
    return sorted(lengths)[math.ceil(share * len(lengths) - 1e-9) - 1]


_LIMIT_MISTAKES: dict[str, Any] = {
    "this is the longest length: all of them fit, and a smaller limit would do": max,
    "this is the mean, into which about half of them fit": lambda x: sum(x) / len(x),
    "this is the median, into which half of them fit": [np.median, lambda x: sorted(x)[len(x) // 2]],
    "np.percentile counts in per cent: 95, and not 0.95": lambda x: np.percentile(x, 0.95),
    "this is the shortest length, into which hardly any fit": min,
    "np.quantile goes between two lengths (it interpolates), so its value need not be a length, and fewer than 95 % "
    "may fit: use method='inverted_cdf', or sort": [
        lambda x: np.quantile(x, 0.95),
        lambda x: int(np.quantile(x, 0.95)),
        lambda x: round(np.quantile(x, 0.95)),
    ],
    "np.quantile goes between two lengths (it interpolates), and rounded up that is more than needed: use "
    "method='inverted_cdf', or sort": lambda x: math.ceil(np.quantile(x, 0.95)),
    "this is 95 % of the longest length, which says nothing about how many lengths fit": [
        lambda x: 0.95 * max(x),
        lambda x: int(0.95 * max(x)),
        lambda x: math.ceil(0.95 * max(x)),
    ],
    "95 % should fit, and this is the limit into which 5 % fit: the wrong end": [
        lambda x: sorted(x)[int(0.05 * len(x))],
        lambda x: sorted(x, reverse=True)[math.ceil(0.95 * len(x)) - 1],
        lambda x: sorted(x, reverse=True)[int(0.95 * len(x))],
        lambda x: np.quantile(x, 0.05),
    ],
    "the lengths are not sorted before the one at 95 % is taken": [
        lambda x: x[math.ceil(0.95 * len(x)) - 1],
        lambda x: x[int(0.95 * len(x))],
        lambda x: x[int(0.95 * len(x)) - 1],
    ],
    "this is one place too far: places are counted from 0, so it is ceil(0.95 n) - 1 (in np.quantile: "
    "method='inverted_cdf')": [
        lambda x: sorted(x)[int(0.95 * len(x))],
        lambda x: sorted(x)[min(math.ceil(0.95 * len(x)), len(x) - 1)],
        lambda x: sorted(x)[round(0.95 * len(x))],
    ],
    "int(0.95 n) cuts off where 0.95 n is no whole number, and then fewer than 95 % fit: round up": (
        lambda x: sorted(x)[int(0.95 * len(x)) - 1]
    ),
    "round(0.95 n) may round down, and then fewer than 95 % fit: round up (math.ceil)": (
        lambda x: sorted(x)[round(0.95 * len(x)) - 1]
    ),
    "one more than necessary: a length that equals the limit fits": lambda x: smallest_limit(x) + 1,
    "one too few: a limit must be as large as the length that shall fit": lambda x: smallest_limit(x) - 1,
    "mean and two standard deviations hold 95 % of a bell curve, and lengths are no bell curve: count them": [
        lambda x: np.mean(x) + 2 * np.std(x),
        lambda x: np.mean(x) + 1.96 * np.std(x),
        lambda x: math.ceil(np.mean(x) + 2 * np.std(x)),
        lambda x: int(np.mean(x) + 2 * np.std(x)),
    ],
    "this counts how many lengths should fit; what is asked for is the limit": [
        lambda x: 0.95 * len(x),
        lambda x: math.ceil(0.95 * len(x)),
        lambda x: int(0.95 * len(x)),
    ],
    "this is the next power of two: a habit, and not the smallest limit": (
        lambda x: 2 ** math.ceil(math.log2(smallest_limit(x)))
    ),
}


@check
def check_smallest_limit(answer: Callable[[list[int]], int]) -> str:
    """Several lists of lengths; where it differs, how many fit, and which limit would have done."""
    cases = [(lengths,) for lengths in LENGTHS]
    if found := first_difference(answer, smallest_limit, cases, _LIMIT_MISTAKES):
        (lengths,), got, due = found
        fit = sum(length <= got for length in lengths) / len(lengths)
        of = f"of the {len(lengths)} lengths {shown(lengths)}"
        if fit < 0.95:
            raise Wrong(f"too small: {of} only {fit:.1%} fit into {shown(got)}; {due} is needed for 95 %")
        raise Wrong(f"not the smallest: {fit:.1%} {of} fit into {shown(got)}, but {due} holds 95 % already")
    return "sorted by length, the one at place ceil(0.95 n) is the first into which 95 % fit, whole tokens and no more."
