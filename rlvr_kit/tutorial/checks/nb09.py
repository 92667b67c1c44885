"""Checks of notebook 09: the exact McNemar test, and the sentence that a result is worth."""

import re
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
#: Words that claim more than was seen, by the outcome that they stand behind, and what is the matter with them.
TOO_MUCH = {
    "no difference": (
        r"\bno (effect|change|influence|impact)|(?<!on )(?<!of )the same|\bequal|identical|\balike|useless"
        r"|(did|does) nothing|(did|does)(n't| not) (help|work|change)|(made|makes?) no difference",
        "the test may be too small to see a difference",
    ),
    "gain": (
        r"\bprov(es?|ed|en)\b|\bproof|\bcertain|guarante|\balways|\bworks\b",
        "one comparison makes a gain likely, for this model and these problems, and proves nothing about a method",
    ),
    "loss": (r"(?<!not )work(s|ed)|\bsuccess", "more was lost than gained"),
}
#: What stands before such words where they are not claimed, as in "this does not show that …".
DENIED = (
    r"(not|n't|never|no)( \w+){0,2} (show|prov|mean|say|evidence|proof|impl|claim|conclu)[^.;:!]*$"
    r"|\b(not a|not|no|(may|might|could|whether)( \w+){0,3}) $"
)
#: Lost and gained of 200 problems, with their p: the three outcomes, and some that look like one of them.
RESULTS = [
    *(
        (b, c, mcnemar_exact(b, c))
        for b, c in [(4, 60), (10, 12), (30, 8), (2, 7), (7, 2), (0, 0), (3, 12), (4, 12)]
    ),
    (6, 17, 0.05),
]
Told = dict[tuple[int, int, float], str]


@check
def check_conclusion(answer: Callable[..., Any]) -> str:
    """`conclusion(lost, gained, p)`: a sentence that begins with its outcome, and holds both counts."""
    said = {case: run(answer, *case, like="") for case in RESULTS}
    for text in said.values():
        if not text.startswith(tuple(OPENINGS.values())):
            raise Wrong(f"{text[:60]!r} does not begin with one of: {', '.join(OPENINGS.values())}")
    _refuse_wrong_outcomes({case: _outcome(text) for case, text in said.items()})
    for (lost, gained, _), text in said.items():
        rest = text.partition(":")[2]
        if missing := [number for number in (lost, gained) if str(number) not in rest]:
            raise Wrong(
                f"{text!r} does not say {missing[0]}: a claim stands beside the counts that it rests on"
            )
        _refuse_exchanged(rest.lower(), {"lost": lost, "gained": gained})
        words, why = TOO_MUCH[_outcome(text)]
        for claim in re.finditer(words, rest.lower()):
            if not re.search(DENIED, rest.lower()[: claim.start()]):
                raise Wrong(f"{claim[0]!r} says more than was seen: {why}")
    return (
        "each result gets the claim that its p-value allows. Seven gained and two lost are no evidence yet."
    )


def _refuse_exchanged(text: str, counts: dict[str, int]) -> None:
    """Raise Wrong where the text calls the gained ones lost, however it is read: `4 lost`, or `lost: 4`."""
    before = [
        (word, int(n))
        for n, word in re.findall(r"(?<!of )\b(\d+) (?:problems )?(?:were |newly )?(lost|gained)", text)
    ]
    behind = [(word, int(n)) for word, n in re.findall(r"(lost|gained)[ :=]+(\d+)", text)]
    readings = [reading for reading in (before, behind) if reading]
    if readings and not any(all(counts[word] == n for word, n in reading) for reading in readings):
        raise Wrong(
            f"{text.strip()!r}, where {counts['lost']} were lost and {counts['gained']} gained: have the counts "
            "changed places?"
        )


def _outcome(text: str) -> str:
    return next(kind for kind, opening in OPENINGS.items() if text.startswith(opening))


def _refuse_wrong_outcomes(told: Told) -> None:
    """Raise Wrong, with the likely cause, unless every result was given its outcome."""
    right = {(b, c, p): outcome_of(c - b, p) for b, c, p in told}
    if told == right:
        return
    by_sign = {(b, c, p): "gain" if c > b else "loss" for b, c, p in told if b != c}
    if all(told[case] == by_sign[case] for case in by_sign):
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
    case = next(case for case in told if told[case] != right[case])
    raise Wrong(
        f"for {case[0]} lost, {case[1]} gained and p = {case[2]:.3g} you say {OPENINGS[told[case]]!r}. By the rule (a "
        f"difference where p is below 0.05) it is {OPENINGS[right[case]]!r}"
    )
