"""The exercises of notebook 04: the Wilson interval, and a fair stop."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from scipy import stats

from rlvr_kit.measure.statistics import wilson_interval
from rlvr_kit.tutorial.exercises import Wrong, check, first_difference, run, shown

Interval = tuple[float, float]
COUNTS = [(0, 20), (2, 10), (40, 100), (10, 10), (95, 208), (1, 7)]


#: The parts of Wilson's formula, right first; then what is wrong with each other value.
_Z = {
    1.96: "",
    2.0: "z is rounded to 2; for 95 % it is 1.96",
    1.645: "z is 1.645, which makes a 90 % interval; for 95 % it is 1.96",
    2.576: "z is 2.576, which makes a 99 % interval; for 95 % it is 1.96",
    1.0: "z is 1, which makes a 68 % interval; for 95 % it is 1.96",
    0.95: "z is 0.95, the level itself; it should be the point of the bell curve that leaves 2.5 % above it, 1.96",
}
_SHIFT = {  # a factor, and a power of n below it
    (0.5, 1): "",
    (0.0, 1): "the middle is not moved by z² / 2n",
    (1.0, 1): "the middle is moved by z² / n; it should be z² / 2n",
    (0.5, -1): "z**2 / 2 * n multiplies by n: put 2 * n in brackets",
}
_WIDER = {
    2: "",
    None: "z² / 4n² is missing under the root",
    1: "z² / 4n stands under the root; it should be z² / 4n²",
    -2: "z**2 / 4 * n**2 multiplies by n²: put 4 * n**2 in brackets",
}
_DIVIDED = {
    "both": "",
    "none": "the division by 1 + z² / n is missing",
    "brackets": "1 + z² / n stands without brackets, so it divides by 1 and adds the rest",
    "middle": "only the middle is divided by 1 + z² / n; the half width must be divided as well",
}
_ROOT = {0.5: "", 1.0: "the square root is missing"}
_WALD = (
    "this is Wald's interval: look at k = 0, where both its ends are 0, as if that were certain. Wilson's also adds "
    "z² / 2n, widens the root by z² / 4n², and divides by 1 + z² / n"
)


def _part(
    z: float, shift: tuple[float, int], wider: int | None, divided: str, root: float
) -> Callable[[int, int], Interval]:
    """Wilson's interval with these values in it, right or wrong ones."""

    def interval(k: int, n: int) -> Interval:
        p = k / n
        half = z * (p * (1 - p) / n + (z**2 / (4 * n**wider) if wider else 0)) ** root
        by = 1 + z**2 / n
        middle = p + shift[0] * z**2 / n ** shift[1]
        if divided == "brackets":
            middle += z**2 / n
        middle /= by if divided in ("both", "middle") else 1
        half /= by if divided == "both" else 1
        return middle - half, middle + half

    return interval


def _wilson_mistakes() -> dict[str, Any]:
    """Every combination of parts that has a mistake in it; with and without cutting the ends off at 0 and 1."""
    mistakes: dict[str, Any] = {}
    values: list[dict[Any, str]] = [_Z, _SHIFT, _WIDER, _DIVIDED, _ROOT]
    for parts in product(*values):
        reasons = [names[part] for names, part in zip(values, parts, strict=True)]
        if parts[1:] == ((0.0, 1), None, "none", 0.5):
            reasons = [_WALD, reasons[0]]
        if any(reasons):
            wrong = _part(*parts)
            mistakes["; and ".join(filter(None, reasons))] = [wrong, _cut_off(wrong)]
    right = _part(1.96, (0.5, 1), 2, "both", 0.5)
    wald = _part(1.96, (0.0, 1), None, "none", 0.5)
    adjusted: list[Callable[..., Interval]] = [
        lambda k, n: wald(k + 1.96**2 / 2, n + 1.96**2),
        lambda k, n: wald(k + 2, n + 4),
    ]
    return mistakes | {
        "this is the interval of Agresti and Coull: its middle is Wilson's, and at k = 0 it is wider": (
            adjusted + [_cut_off(interval) for interval in adjusted]
        ),
        "k // n cuts the share off to 0 or 1: divide with /": lambda k, n: right(n * (k // n), n),
        "this is the exact interval of Clopper and Pearson; it is wider than Wilson's, which was asked for": (
            lambda k, n: [*stats.binomtest(k, n).proportion_ci(0.95)]
        ),
        "this is Wilson's interval with a correction for continuity, which is wider; the plain one was asked for": (
            lambda k, n: [*stats.binomtest(k, n).proportion_ci(0.95, "wilsoncc")]
        ),
        "the half width is not multiplied by z": lambda k, n: _half(k, n, 1 / 1.96),
        "the half width stands there twice": lambda k, n: _half(k, n, 2),
        "the ends are in per cent; they should be shares between 0 and 1": lambda k, n: (
            100 * np.array(right(k, n))
        ),
        "the two ends stand in the wrong order: the lower end first": lambda k, n: right(k, n)[::-1],
        "these are the middle and the half width; asked for are the two ends": (
            lambda k, n: (sum(right(k, n)) / 2, (right(k, n)[1] - right(k, n)[0]) / 2)
        ),
        "these are the share k / n and something else; asked for are the two ends": (
            lambda k, n: (k / n, right(k, n)[1])
        ),
        "k and n are in the wrong order: the share is k / n": lambda k, n: right(n, k),
        "the result is complex, as the root is of a negative number: is p = k / n?": lambda k, n: _rooted(
            k, k * (1 - k), n
        ),
        "the result is complex, as the root is of a negative number: it is p (1 - p), and not p (p - 1)": (
            lambda k, n: _rooted(k / n, k / n * (k / n - 1), n)
        ),
        "this is right and then rounded: do not round, whoever shows it can": [
            lambda k, n, digits=digits: np.round(right(k, n), digits) for digits in (1, 2, 3)
        ],
    }


def _rooted(p: float, varies: float, n: int) -> tuple[complex, ...]:
    """Wilson's interval with these values for p and p (1 - p); complex where the root is of a negative number."""
    z = 1.96
    half = z * complex(varies / n + z**2 / (4 * n**2)) ** 0.5
    return tuple((p + z**2 / (2 * n) + side * half) / (1 + z**2 / n) for side in (-1, 1))


def _half(k: int, n: int, factor: float) -> Interval:
    low, high = wilson_interval(k, n)
    return (low + high) / 2 - factor * (high - low) / 2, (low + high) / 2 + factor * (high - low) / 2


def _cut_off(interval: Callable[..., Interval]) -> Callable[..., Interval]:
    return lambda k, n: (max(0.0, interval(k, n)[0]), min(1.0, interval(k, n)[1]))


@check
def check_wilson(answer: Callable[[int, int], Interval]) -> str:
    """Six counts, 0 and all among them."""
    if found := first_difference(answer, wilson_interval, COUNTS, _wilson_mistakes()):
        (k, n), due, got = found[0], found[2], np.asarray(found[1], dtype=float)
        hint = (
            " The lower end may not be below 0, nor the upper one above 1."
            if got[0] < -1e-6 or got[1] > 1 + 1e-6
            else ""
        )
        if k == 0 and abs(got[1] - got[0]) < 1e-9:
            raise Wrong(
                "at k = 0 both ends are the same, as if that were certain, as in Wald's interval: look at the root"
            )
        middle = "the middle" if abs(sum(got) - sum(due)) > 1e-3 else "the half width"
        raise Wrong(
            f"for k={k}, n={n} it gives {shown(list(got))}, and it should be {shown(list(due))}: look at {middle}."
            f"{hint}"
        )
    return "all six counts get the ends of the Wilson interval. It has a width even where nothing is right."


STOP = "\nQuestion:"
#: Completions, what a fair stop leaves of them, and what is the matter where it leaves something else.
STOPS: list[tuple[str, str, str]] = [
    (
        "9 * 2 = 18\n#### 18\nQuestion: What is 4 + 4?\nAnswer: 8\n#### 8", "9 * 2 = 18\n#### 18",
        "it must end right before the invented question, so that no grader reads the answer to that",
    ),
    ("9 * 2 = 18\n#### 18", "9 * 2 = 18\n#### 18", "a text without an invented question must stay as it is, whole"),
    (
        "First 9.\n\nThen 9 * 2 = 18.\n#### 18", "First 9.\n\nThen 9 * 2 = 18.\n#### 18",
        "it cuts at a blank line, and some models set their answer apart by one: their answer is lost",
    ),
    (
        "So 1.\n#### 1\nQuestion: b?\n#### 2\nQuestion: c?\n#### 3", "So 1.\n#### 1",
        "a model may invent several questions: cut at the first one",
    ),
    (
        "The question is how many: 18.\n#### 18", "The question is how many: 18.\n#### 18",
        "the word 'question' in a sentence ends nothing: look for a line that opens with 'Question:'",
    ),
    (
        "A good Question: 18 or 19?\n#### 18", "A good Question: 18 or 19?\n#### 18",
        "'Question:' within a line ends nothing: the new line before it belongs to the stop string",
    ),
    (
        "One of these.\n#### 17\n#### 18", "One of these.\n#### 17\n#### 18",
        "it stops after the first marker line. That repairs an answer with two numbers, and a stop may not judge",
    ),
    (
        "So.\n#### 18\nI hope that helps!", "So.\n#### 18\nI hope that helps!",
        "it cuts off what follows the marker line. Whether text may stand there is for the grader to say",
    ),
    (
        "9 * 2\nAnswer: 18\n#### 18", "9 * 2\nAnswer: 18\n#### 18",
        "'Answer:' is no new question: the model may well announce its own answer",
    ),
    (
        "Easy.\nQuestions like this need care: 18.\n#### 18", "Easy.\nQuestions like this need care: 18.\n#### 18",
        "'Questions' opens an ordinary sentence here: the colon belongs to the stop string",
    ),
    ("It is 18. I am sure.", "It is 18. I am sure.", "it cuts at a period, a space or a number: sentences must stay"),
    ("So " * 300 + "\n#### 18", "So " * 300 + "\n#### 18", "it cuts at a length; the token limit does that already"),
]  # fmt: skip


def stopped(text: str) -> str:
    r"""The text up to the first question that the model invents, as the kit stops generation.

    >>> stopped("#### 18\nQuestion: What is 4 + 4?\n#### 8")
    '#### 18'
    """
    return text.split(STOP)[0]


@check
def check_stopped(answer: Callable[[str], str]) -> str:
    """What is left of twelve completions; blanks at the ends make no difference."""
    results = [run(answer, text, like="") for text, _, _ in STOPS]
    if all(got.strip() == text.strip() for got, (text, _, _) in zip(results, STOPS, strict=True)):
        raise Wrong("the text comes back as it was, the invented question with it: nothing is stopped")
    if results[1] == STOPS[1][0][:-1]:
        raise Wrong(
            "where there is no invented question, find gives -1, and text[:-1] loses the last character"
        )
    if "####" not in results[1]:
        raise Wrong(f"the answer itself is cut away: of {shown(STOPS[1][0])} this leaves {shown(results[1])}")
    for got, (text, _, _) in zip(results, STOPS, strict=True):
        if not text.strip().startswith(got.strip()):
            raise Wrong(
                f"{shown(got)} is not the beginning of {shown(text)}: a stop ends a text and changes nothing in it"
            )
    for got, (text, due, reason) in zip(results, STOPS, strict=True):
        if got.strip() != due.strip():
            raise Wrong(f"of {shown(text)} it leaves {shown(got)}: {reason}")
    return (
        "it ends where an invented question begins and changes nothing else. It is fair because it treats base and "
        "tuned model alike, and repairs neither."
    )
