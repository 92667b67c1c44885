"""The exercise of notebook 00: the advantages of a group."""

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np

from rlvr_kit.tutorial.exercises import Wrong, check, first_difference, numbers, run, shown

Array = np.ndarray
GROUPS = [[0, 1.5, 0.5, 0, 0.5, 0, 0, 0], [1.5, 0, 0.5], [0, 0, 0, 1.5], [-2.0, 3.0, 0.5, 4.0]]

_CENTRES: dict[str, Callable[[Array], Array]] = {
    "": lambda r: r - r.mean(),
    "the group's mean is not subtracted, so no completion is compared with its siblings": lambda r: r,
    "this subtracts the median; GRPO compares with the mean": lambda r: r - np.median(r),
    "this subtracts the smallest reward, so nothing is ever pushed down": lambda r: r - r.min(),
    "this subtracts the largest reward, so nothing is ever pushed up": lambda r: r - r.max(),
    "this subtracts a fixed number; GRPO compares with the mean of the group": lambda r: r - 0.5,
    "this divides the sum by n - 1 for the mean; n - 1 belongs into the standard deviation only": (
        lambda r: r - r.sum() / (len(r) - 1)
    ),
    "this subtracts the reward of the first completion; GRPO compares with the mean of the group": lambda r: (
        r - r[0]
    ),
    "this subtracts the sum of the rewards instead of their mean": lambda r: r - r.sum(),
    "this compares with the mean of the others, as RLOO does; GRPO's mean includes the completion itself": (
        lambda r: (r - r.mean()) * len(r) / (len(r) - 1)
    ),
}
_SCALES: dict[str, Callable[[Array], float]] = {
    "": lambda r: r.std(ddof=1),
    "this is the population standard deviation; TRL divides by n - 1 in it (numpy: ddof=1)": lambda r: (
        r.std()
    ),
    "it is not divided by the standard deviation (Dr. GRPO leaves the division out; GRPO does not)": lambda r: (
        1.0
    ),
    "this divides by the variance; the standard deviation is its square root": lambda r: r.var(ddof=1),
    "this divides by the variance, and by the one with n; take the square root, and n - 1": lambda r: r.var(),
    "this divides by the range (largest minus smallest), not by the standard deviation": np.ptp,
    "this divides by the largest reward, not by the standard deviation": np.max,
    "this divides by the mean, not by the standard deviation": np.mean,
    "this divides by the sum, not by the standard deviation": np.sum,
    "this divides by the number of completions, not by the standard deviation": len,
    "this divides by the number of completions less one; that belongs under the root of the standard deviation": (
        lambda r: len(r) - 1
    ),
    "this divides by the square root of n times the standard deviation": lambda r: (
        len(r) ** 0.5 * r.std(ddof=1)
    ),
    "this divides by the mean distance from the mean, not by the standard deviation": (
        lambda r: float(np.abs(r - r.mean()).mean())
    ),
    "this divides by the standard deviation and 1; what keeps 0 away must be small": lambda r: (
        r.std(ddof=1) + 1
    ),
    "this divides by the square root of the standard deviation, which is a square root already": (
        lambda r: r.std(ddof=1) ** 0.5
    ),
    "this divides by n times the standard deviation: the group's size is in it already": lambda r: (
        len(r) * r.std(ddof=1)
    ),
    "the sum of squares under the root is not divided by n - 1": lambda r: float(
        ((r - r.mean()) ** 2).sum() ** 0.5
    ),
    "this multiplies by the standard deviation instead of dividing": lambda r: 1 / r.std(ddof=1),
}
_SIGNS: dict[str, Callable[[Array], Array]] = {
    "": lambda a: a,
    "the sign is turned round: whoever earned more than the mean must get a positive advantage": lambda a: -a,
    "the sign is lost (abs): worse than the mean is negative": np.abs,
    "negative advantages are cut off at 0: worse than the mean must be pushed down": lambda a: np.maximum(
        a, 0
    ),
    "this is squared: the sign is lost": lambda a: a**2,
}


def advantages(rewards: Array) -> Array:
    """The advantages of one group of rewards, in standard deviations; zeros where all rewards are equal.

    >>> advantages(np.array([0.0, 1.5])).round(2)
    array([-0.71,  0.71])
    """
    spread = rewards.std(ddof=1)
    return (rewards - rewards.mean()) / spread if spread else np.zeros(len(rewards))


@check
def check_advantages(answer: Callable[[Array], Array]) -> str:
    """One group at a time; then a group whose rewards are all equal."""
    cases = [(np.array(group, dtype=float),) for group in GROUPS]
    if found := first_difference(answer, advantages, cases, dict(_mistakes())):
        (group,), got, due = found
        total = float(np.sum(got))
        why = "" if abs(total) < 1e-3 else f" Advantages of a group add up to 0; these add up to {total:.3g}."
        raise Wrong(f"for {shown(group)} this gives {shown(got)}, and it should be {shown(due)}.{why}")
    equal = np.full(4, 1.5)
    with np.errstate(all="ignore"):
        got = numbers(result := run(answer, equal))
    if got is None or got.shape != equal.shape:
        raise Wrong(
            f"where all four earn the same there should be four zeros, and this returns {shown(result)}"
        )
    if not np.isfinite(got).all():
        raise Wrong(
            f"all is well until everyone earns the same: then the standard deviation is 0, you divide by it and get "
            f"{shown(result)}. Such a group should get zeros"
        )
    if np.abs(got).max() > 1e-3:
        raise Wrong(f"where everyone earns 1.5, nobody is better than the others: zeros, not {shown(result)}")
    return (
        "each reward is measured from its group's mean, in standard deviations with n - 1, as TRL does it; and a group "
        "of equals gets zeros: it teaches nothing."
    )


def _mistakes() -> Iterator[tuple[str, Callable[[Array], Array]]]:
    """Every combination of a centre, a scale and a sign, with what is wrong in it; the one that is right left out."""
    for (sign, turned), (scale, divided), (centre, centred) in product(
        _SIGNS.items(), _SCALES.items(), _CENTRES.items()
    ):
        if reasons := [reason for reason in (centre, scale, sign) if reason]:

            def wrong(r: Array, turned=turned, divided=divided, centred=centred) -> Array:  # type: ignore[no-untyped-def]
                return turned(centred(r) / divided(r))

            yield "; and ".join(reasons), wrong
    yield (
        "this only says better or worse; an advantage also says by how much",
        lambda r: np.sign(r - r.mean()),
    )
    yield "this only says better or not; an advantage also says by how much", lambda r: r > r.mean()
    yield (
        "this is softmax, which makes shares of the rewards: none is below 0",
        lambda r: np.exp(r) / np.exp(r).sum(),
    )
