"""Intervals, paired tests, pass@k and a conclusion by rule, with scipy. All shares are between 0 and 1."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from rlvr_kit.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def wilson_interval(k: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson interval (1927) for the share `k` of `n`. `k` may be a fraction (a mean over samples).

    Raises UserError unless 0 <= k <= n and n >= 1.

    >>> [round(100 * end, 1) for end in wilson_interval(11, 100)]
    [6.3, 18.6]
    """
    if n < 1 or not 0 <= k <= n:
        raise InputError(f"an interval needs 0 <= k <= n and at least one problem, not k={k}, n={n}")
    z, p = ndtri(0.5 + confidence / 2), k / n
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    low, high = (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
    return (0.0 if k == 0 else float(low)), (1.0 if k == n else float(high))


def share_text(share: float, n: int) -> str:
    """Return a share of `n` problems in words, with its Wilson interval at 95 %.

    >>> share_text(0.4, 200)
    '40.0% (33.5% to 46.9%)'
    """
    low, high = wilson_interval(share * n, n)
    return f"{share:.1%} ({low:.1%} to {high:.1%})"


def pass_at_k(n: int, c: int, k: int) -> float:
    """Estimate the chance that one of `k` completions is right, when `c` of `n` were (Chen et al. 2021, eq. 1).

    Raises UserError unless 1 <= k <= n and 0 <= c <= n.

    >>> pass_at_k(4, 1, 2)
    0.5
    """
    if not (1 <= k <= n and 0 <= c <= n):
        raise InputError(f"pass@k needs 1 <= k <= n and 0 <= c <= n, not n={n}, c={c}, k={k}")
    if n - c < k:
        return 1.0
    return float(1 - np.prod(1 - k / np.arange(n - c + 1, n + 1)))


def mcnemar_exact(b: int, c: int) -> float:
    """Return the exact two-sided p of McNemar's test (1947): only one model solves `b` problems, only the other `c`.

    >>> mcnemar_exact(1, 5)
    0.21875
    """
    from scipy.stats import binomtest  # takes a second to load, which scoring does not need

    return float(binomtest(b, b + c, 0.5).pvalue) if b + c else 1.0


def fell_p(before: int, now: int, n: int) -> float:
    """Return the one-sided p that a share fell from `before` of `n` to `now` of `n` (Fisher's exact test, 1935).

    The test treats the two measurements as independent. Here both are of the same problems, so the true p is smaller:
    the test is cautious.

    >>> round(fell_p(12, 3, 64), 4)
    0.0126
    """
    from scipy.stats import fisher_exact  # takes a second to load, which scoring does not need

    return float(fisher_exact([[now, n - now], [before, n - before]], alternative="less").pvalue)


def paired_bootstrap(
    base: Sequence[float],
    tuned: Sequence[float],
    confidence: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile interval of mean(tuned) - mean(base); entry i of both is problem i (Efron 1979).

    Only how often each distinct difference occurs matters, so one multinomial draw makes all resamples at once. When
    every problem has the same difference (for example, none flipped), all resamples are equal and would claim
    certainty. The interval then allows for problems of another kind that this test may have missed: their share may
    be as high as Wilson's upper limit for 0 of n (1.8 % for 208 problems).

    >>> paired_bootstrap([0, 0, 1], [1, 1, 1], draws=100)[1]
    1.0
    >>> [round(end, 3) for end in paired_bootstrap([0] * 208, [0] * 208)]
    [-0.018, 0.018]
    """
    change = np.asarray(tuned, float) - np.asarray(base, float)
    values, counts = np.unique(change, return_counts=True)
    if len(values) == 1:
        # A missed problem could differ by 1 from the others when nothing flipped, and by up to 2 when everything did.
        reach = wilson_interval(0, len(change), confidence)[1] * (1 + abs(values[0]))
        return float(max(-1.0, values[0] - reach)), float(min(1.0, values[0] + reach))
    means = (
        np.random.default_rng(seed).multinomial(len(change), counts / len(change), draws)
        @ values
        / len(change)
    )
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def problems_needed(base: float, gain: float, discordant: float | None = None, power: float = 0.8) -> int:
    """Return how many problems McNemar's test at 5 % needs to detect `gain` with probability `power` (Connor 1987).

    `base` and `gain` are shares. `discordant` is the share of problems that flip; without it, the errors of the two
    models count as independent. Raises UserError when `base` or `base + gain` is not between 0 and 1, or `gain` is 0.

    >>> problems_needed(0.40, 0.05)
    1537
    """
    tuned = base + gain
    if not (gain and 0 <= base <= 1 and 0 <= tuned <= 1):
        raise InputError(
            f"base {base} and base + gain {tuned} must be shares between 0 and 1, and the gain not 0"
        )
    flips = max(abs(gain), base * (1 - tuned) + tuned * (1 - base) if discordant is None else discordant)
    spread = ndtri(0.975) * np.sqrt(flips) + ndtri(power) * np.sqrt(flips - gain**2)
    return int(np.ceil((spread / gain) ** 2))


@dataclass(frozen=True)
class Comparison:
    """Two models on the same ``n`` problems: how many both, one or neither solve, and the conclusion by rule."""

    n: int
    both: int
    only_base: int
    only_tuned: int
    neither: int
    difference: float  # of the two shares, tuned minus base
    ci: tuple[float, float]  # 95 %, paired bootstrap
    p: float  # exact McNemar
    sentence: str


def compare(base: "pd.DataFrame", tuned: "pd.DataFrame", by: str = "correct") -> Comparison:
    """Compare two evaluations of the same problems in pairs. An exact McNemar p below 0.05 is called significant.

    `base` and `tuned` have one row per problem, as in ``Evaluation.rows``; `by` is the column that counts.
    Raises UserError unless both sides answered the same questions, once each.

    >>> compare(base.rows, tuned.rows).sentence  # doctest: +SKIP
    'A significant gain: ...'
    """
    pairs = base.merge(tuned, on=["problem", "question", "gold"], suffixes=("", "_tuned"))
    if not len(base) == len(tuned) == len(pairs) == pairs.problem.nunique() > 0:
        sizes = f"{len(base)} rows against {len(tuned)}, {pairs.problem.nunique()} problems in common"
        raise InputError(
            f"a paired comparison needs the same problems on both sides, one row each, not {sizes}"
        )
    before, after = pairs[by].astype(bool), pairs[f"{by}_tuned"].astype(bool)
    n, both, lost, won = (
        int(x.sum()) for x in (before | True, before & after, before & ~after, after & ~before)
    )
    p, ci, gain = mcnemar_exact(lost, won), paired_bootstrap(before, after), (won - lost) / n
    verdict = (
        "No evidence of a difference" if p >= 0.05 else f"A significant {'gain' if gain > 0 else 'loss'}"
    )
    sentence = (
        f"{verdict}: {after.mean():.1%} against {before.mean():.1%} of the same {n} problems, "
        f"{100 * gain:+.1f} points (95 % interval {100 * ci[0]:+.1f} to {100 * ci[1]:+.1f}); "
        f"{won} newly solved, {lost} lost, exact McNemar p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}."
    )
    return Comparison(n, both, lost, won, n - both - lost - won, gain, ci, p, sentence)
