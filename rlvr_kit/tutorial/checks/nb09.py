"""Checks of notebook 09: the exact McNemar test, and the sentence that a result is worth."""

from collections.abc import Callable
from math import comb
from typing import Any

from scipy.stats import chi2

from rlvr_kit.measure.statistics import mcnemar_exact
from rlvr_kit.measure.wording import outcome_of
from rlvr_kit.tutorial.exercises import Wrong, check, first_difference, run, shown

#: Problems lost, problems gained.
FLIPS = [(3, 12), (12, 3), (5, 5), (0, 6), (0, 0), (1, 0), (20, 41)]


def _tail(k: int, flips: int) -> float:
    """The chance of at most k heads in so many throws of a fair coin."""
    return sum(comb(flips, i) for i in range(k + 1)) / 2**flips


def _chi_square(lost: int, gained: int, correction: int) -> float:
    flips = lost + gained
    return float(chi2.sf(max(abs(lost - gained) - correction, 0) ** 2 / flips, 1)) if flips else 1.0


WRONG_P = {
    "this is one side only. Nobody knew beforehand which way it would go, so count both tails: twice as much":
        lambda lost, gained: _tail(min(lost, gained), lost + gained),
    "both tails overlap when lost and gained are equal, so the sum passes 1: take the smaller of it and 1":
        lambda lost, gained: 2 * _tail(min(lost, gained), lost + gained),
    "this is the chance of exactly this split. Count those that are more uneven as well":
        lambda lost, gained: min(1, 2 * comb(lost + gained, min(lost, gained)) / 2 ** (lost + gained)),
    "this is the chance of exactly this split, on one side. Count the more uneven ones, and both sides":
        lambda lost, gained: comb(lost + gained, min(lost, gained)) / 2 ** (lost + gained),
    "this is the longer tail: sum up to the smaller of the two numbers":
        lambda lost, gained: min(1, 2 * _tail(max(lost, gained), lost + gained)),
    "this sums up to the lost ones always. With more lost than gained that is the wrong end: take the "
    "smaller number":
        lambda lost, gained: min(1, 2 * _tail(lost, lost + gained)),
    "this sums up to the gained ones always. With more gained than lost that is the wrong end: take the "
    "smaller number":
        lambda lost, gained: min(1, 2 * _tail(gained, lost + gained)),
    "one term is missing: `range(k)` ends before k, and the split that was seen counts as well":
        lambda lost, gained: min(1, 2 * _tail(min(lost, gained) - 1, lost + gained)),
    "this is the chi-square approximation of McNemar's test. With so few flips it is too small: sum the "
    "coin's chances":
        lambda lost, gained: _chi_square(lost, gained, 0),
    "this is the chi-square approximation with a correction. The exact test needs no table, only the coin's "
    "chances":
        lambda lost, gained: _chi_square(lost, gained, 1),
    "this is the share of flips, and not yet a probability: how often would a fair coin be so uneven?":
        lambda lost, gained: min(lost, gained) / (lost + gained),
    "this is 1 - p: the chance of a split that is less uneven":
        lambda lost, gained: 1 - mcnemar_exact(lost, gained),
}  # fmt: skip


@check
def check_mcnemar(answer: Callable[..., Any]) -> str:
    """`p_value(lost, gained)` against the exact test."""
    difference = first_difference(answer, mcnemar_exact, FLIPS, WRONG_P)
    if difference:
        (lost, gained), got, expected = difference
        raise Wrong(
            f"with {lost} lost and {gained} gained the exact p is {expected:.4g}, and you have {shown(got)}. "
            "Sum the chances "
            f"of 0 to {min(lost, gained)} heads in {lost + gained} throws, and take twice that, but no more than 1"
        )
    return (
        "it is the exact test in all cases. Only the flips count: two models that solve the same 100 "
        "problems of 200 have "
        "p = 1, and so have two that solve nothing."
    )


OPENINGS = {"gain": "A gain:", "no difference": "No evidence of a difference:", "loss": "A loss:"}
TOO_MUCH = (
    "no effect",
    "no change",
    "the same",
    "equal",
    "identical",
    "did nothing",
    "does not work",
    "useless",
)
#: Lost and gained of 200 problems: the three outcomes, and two that look like one of them.
RESULTS = [(4, 60), (10, 12), (30, 8), (2, 7), (7, 2), (0, 0)]


@check
def check_conclusion(answer: Callable[..., Any]) -> str:
    """`conclusion(lost, gained, p)`: a sentence that begins with its outcome, and holds both counts."""
    said = {}
    for lost, gained in RESULTS:
        p = mcnemar_exact(lost, gained)
        said[lost, gained] = text = run(answer, lost, gained, p)
        if not isinstance(text, str):
            raise Wrong(
                f"a sentence is a text, and for {lost} lost and {gained} gained you return {shown(text)}"
            )
        if not text.startswith(tuple(OPENINGS.values())):
            raise Wrong(f"{text[:60]!r} does not begin with one of: {', '.join(OPENINGS.values())}")
    _refuse_wrong_outcomes({case: _outcome(text) for case, text in said.items()})
    for (lost, gained), text in said.items():
        rest = text.partition(":")[2]
        if missing := [number for number in (lost, gained) if str(number) not in rest]:
            raise Wrong(
                f"{text!r} does not say {missing[0]}: a claim stands beside the counts that it rests on"
            )
        claimed = [words for words in TOO_MUCH if words in rest.lower()]
        if _outcome(text) == "no difference" and claimed:
            raise Wrong(
                f"{claimed[0]!r} says more than was seen: the test may be too small to see a difference"
            )
    return (
        "each result gets the claim that its p-value allows. Seven gained and two lost are no evidence yet."
    )


def _outcome(text: str) -> str:
    return next(kind for kind, opening in OPENINGS.items() if text.startswith(opening))


def _refuse_wrong_outcomes(told: dict[tuple[int, int], str]) -> None:
    """Raise Wrong, with the likely cause, unless every result was given its outcome."""
    right = {(b, c): outcome_of(c - b, mcnemar_exact(b, c)) for b, c in told}
    if told == right:
        return
    by_sign = {(b, c): "gain" if c > b else "loss" if c < b else "no difference" for b, c in told}
    if all(told[case] == by_sign[case] for case in told if case != (0, 0)):
        raise Wrong(
            "you go by the sign alone. With 2 lost and 7 gained p is 0.18: a coin does that often enough"
        )
    if all(told[case] == ("no difference" if right[case] == "no difference" else "gain") for case in told):
        raise Wrong(
            "a small p alone is no gain: with 30 lost and 8 gained it is small too, and that is a loss"
        )
    if all(told[case] == {"gain": "loss", "loss": "gain"}.get(right[case], right[case]) for case in told):
        raise Wrong(
            "gain and loss have changed places: *gained* are the problems that only the tuned model solves"
        )
    if all((told[case] == "no difference") != (right[case] == "no difference") for case in told):
        raise Wrong("the rule is upside down: a small p speaks against chance, and so for a difference")
    if set(told.values()) == {"no difference"}:
        raise Wrong("you never see a difference: with 4 lost and 60 gained p is far below 0.05")
    b, c = next(case for case in told if told[case] != right[case])
    raise Wrong(
        f"{b} lost and {c} gained have p = {mcnemar_exact(b, c):.3g}: by the rule {OPENINGS[right[b, c]]!r}, "
        "and you say "
        f"{OPENINGS[told[b, c]]!r}"
    )
