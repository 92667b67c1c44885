"""The exercises of notebook 12: the weight of a token in the loss `grpo`, and Holm's correction."""

from collections.abc import Callable
from typing import Any

import numpy as np

from rlvr_kit.measure.variants import holm
from rlvr_kit.tutorial.exercises import Wrong, check, first_difference, shown

Array = np.ndarray

#: (advantages, lengths) of some completions.
BATCHES = [
    (np.array([1.0, -1.0]), np.array([4.0, 8.0])),
    (np.array([1.5, -0.5, -0.5, -0.5]), np.array([18.0, 12.0, 24.0, 6.0])),
    (np.array([0.0, 2.0, -2.0]), np.array([5.0, 5.0, 10.0])),
]
_WEIGHTS: dict[str, Any] = {
    "this is the loss dapo: one sum over all tokens of the batch. The loss grpo takes the mean of each completion "
    "first": lambda a, n: a / n.sum(),
    "each completion is averaged, but the completions are added up: divide by their number as well": lambda a, n: (
        a / n
    ),
    "this divides by the number of completions only, so a long completion counts more than a short one": lambda a, n: (
        a / len(n)
    ),
    "this is dr_grpo: every token is divided by the same constant. The loss grpo divides by the length of its own "
    "completion": lambda a, n: a / (len(n) * n.max()),
    "this multiplies by the length; the mean of a completion divides by it": lambda a, n: a * n / len(n),
    "this is the weight of a whole completion; one token has the share 1 / length of it": lambda a, n: (
        a / n * n
    ),
    "this divides by the mean length, the same for all: the loss grpo divides by the length of each completion": (
        lambda a, n: a / (n.mean() * len(n))
    ),
    "the sign is turned round: a better completion is pushed up (the loss has the minus)": lambda a, n: (
        -a / n / len(n)
    ),
    "the advantage is left out, so good and bad are pushed the same way": lambda a, n: 1 / n / len(n),
    "the number of completions is fixed in your function: it is len(lengths)": [
        lambda a, n, size=size: a / (size * n) for size in (2, 3, 4, 8)
    ],
    "// cuts the weights off to whole numbers: divide with /": lambda a, n: a // (n * len(n)),
    "the sign of the advantage is lost": lambda a, n: abs(a) / n / len(n),
}


def token_push(advantage: Array, lengths: Array) -> Array:
    """Return how much one token of each completion counts in the loss `grpo`, times its advantage.

    >>> token_push(np.array([1.0, -1.0]), np.array([4.0, 8.0]))
    array([ 0.125 , -0.0625])
    """
    return advantage / (lengths * len(lengths))


@check
def check_token_push(answer: Callable[[Array, Array], Array]) -> str:
    """Advantages and lengths of a few completions."""
    if found := first_difference(answer, token_push, BATCHES, _WEIGHTS):
        (advantage, lengths), got, due = found
        raise Wrong(
            f"for advantages {shown(advantage)} and lengths {shown(lengths)} this gives {shown(got)}, and it should be "
            f"{shown(due)}: the mean over the tokens of a completion, then the mean over completions"
        )
    return (
        "every completion has the same say, whatever its length, so a token of a long one counts less: the longer a "
        "wrong completion is, the more gently each of its tokens is pushed down."
    )


#: p values, the smallest first.
P_VALUES = [
    (np.array([0.01, 0.02, 0.03, 0.04, 0.05]),),
    (np.array([0.001, 0.03, 0.03, 0.4, 0.9]),),
    (np.array([0.3, 0.6, 0.9]),),
    (np.array([0.04]),),
]
_CORRECTIONS: dict[str, Any] = {
    "nothing is corrected": lambda p: p,
    "this is Bonferroni's correction, which multiplies all by m. Holm multiplies only the smallest by m, the next one "
    "by m - 1, and so on": lambda p: np.minimum(1, p * len(p)),
    "this multiplies all by m, and a probability cannot be above 1": lambda p: p * len(p),
    "the factors are right, but a corrected p value must not be below the one before it (np.maximum.accumulate)": (
        lambda p: np.minimum(1, p * np.arange(len(p), 0, -1))
    ),
    "the factors are right, but there is neither a cap at 1 nor the rule that none is below the one before it": (
        lambda p: p * np.arange(len(p), 0, -1)
    ),
    "all is right but for the cap: a probability cannot be above 1 (np.minimum)": (
        lambda p: np.maximum.accumulate(p * np.arange(len(p), 0, -1))
    ),
    "the factors run the wrong way: the smallest p value gets the largest factor": (
        lambda p: np.minimum(1, np.maximum.accumulate(p * np.arange(1, len(p) + 1)))
    ),
    "the factors are one too small: the smallest p value is multiplied by m, the last one by 1": (
        lambda p: np.minimum(1, np.maximum.accumulate(p * np.arange(len(p) - 1, -1, -1)))
    ),
    "no value may be below the one before it, so take the running maximum, and not the minimum": [
        lambda p: np.minimum(1, np.minimum.accumulate(p * np.arange(len(p), 0, -1))),
        lambda p: np.minimum.accumulate(np.minimum(1, p * np.arange(len(p), 0, -1))[::-1])[::-1],
    ],
    "each value is compared with the uncorrected product before it, and not with the value that came out there": (
        lambda p: np.minimum(1, np.maximum(f := p * np.arange(len(p), 0, -1), np.append(f[:1], f[:-1])))
    ),
    "a correction makes p values larger: multiply by the factors": (
        lambda p: np.minimum(1, np.maximum.accumulate(p / np.arange(len(p), 0, -1)))
    ),
    "this divides by the rank, as Benjamini and Hochberg's correction does. Holm's factors are m, m - 1, and so on": (
        lambda p: np.minimum(1, np.maximum.accumulate(p * len(p) / np.arange(1, len(p) + 1)))
    ),
    "this is Benjamini and Hochberg's correction: it limits the share of false findings, and not the chance of one": (
        lambda p: np.minimum(1, np.minimum.accumulate((p * len(p) / np.arange(1, len(p) + 1))[::-1])[::-1])
    ),
}


def corrected(p: Array) -> Array:
    """Return p values, given with the smallest first, corrected for their number by Holm's method.

    >>> corrected(np.array([0.01, 0.03]))
    array([0.02, 0.03])
    """
    return np.array(holm(p.tolist()))


@check
def check_corrected(answer: Callable[[Array], Array]) -> str:
    """Some lists of p values, one of them with a single value."""
    if found := first_difference(answer, corrected, P_VALUES, _CORRECTIONS):
        (p,), got, due = found
        raise Wrong(f"for {shown(p)} this gives {shown(got)}, and it should be {shown(due)}")
    return (
        "the smallest of m is multiplied by m, the next by m - 1, none falls below the one before it, and none is "
        "above 1: so the chance of even one finding by luck, in the whole list, stays at 5 %."
    )
