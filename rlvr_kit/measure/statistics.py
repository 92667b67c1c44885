"""How sure can we be? Intervals, paired tests, pass@k and a conclusion by rule: thin over scipy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from rlvr_kit.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def wilson_interval(k: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval for a share, `k` of `n` (Wilson 1927). `k` need not be whole (a mean over samples).

    >>> [round(100 * end, 1) for end in wilson_interval(11, 100)]
    [6.3, 18.6]
    """
    if n < 1 or not 0 <= k <= n:
        raise InputError(f"an interval needs 0 <= k <= n and at least one problem, not k={k}, n={n}")
    z, p = ndtri(0.5 + confidence / 2), k / n
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    low, high = (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
    return (0.0 if k == 0 else float(low)), (1.0 if k == n else float(high))


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that one of `k` completions is right, `c` of `n` drawn being right (Chen et al. 2021, eq. 1).

    >>> pass_at_k(4, 1, 2)
    0.5
    """
    if not (1 <= k <= n and 0 <= c <= n):
        raise InputError(f"pass@k needs 1 <= k <= n and 0 <= c <= n, not n={n}, c={c}, k={k}")
    if n - c < k:
        return 1.0
    return float(1 - np.prod(1 - k / np.arange(n - c + 1, n + 1)))


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided p for `b` problems that only one model solves and `c` only the other (McNemar 1947).

    >>> mcnemar_exact(1, 5)
    0.21875
    """
    from scipy.stats import binomtest  # takes a second to load, which scoring does not need

    return float(binomtest(b, b + c, 0.5).pvalue) if b + c else 1.0


def fell_p(before: int, now: int, n: int) -> float:
    """One-sided p that a share fell, from `before` of `n` to `now` of `n` (Fisher's exact test, 1935).

    It treats the two measurements as independent. On the same problems, as here, they are not, and the true p is
    smaller: the test is on the safe side.

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
    """Percentile interval of mean(tuned) - mean(base), problem i being entry i of both (Efron 1979).

    Only how often each distinct difference occurs matters, so a multinomial draws all resamples in one pass. Where
    every problem has the same difference (none flipped, say) all resamples are equal, which would claim certainty.
    Then the interval covers what so many problems cannot rule out: that up to Wilson's upper limit of 0 in n would
    differ from the others (0.0 to 1.8 % of 208 problems).

    >>> paired_bootstrap([0, 0, 1], [1, 1, 1], draws=100)[1]
    1.0
    >>> [round(end, 3) for end in paired_bootstrap([0] * 208, [0] * 208)]
    [-0.018, 0.018]
    """
    change = np.asarray(tuned, float) - np.asarray(base, float)
    values, counts = np.unique(change, return_counts=True)
    if len(values) == 1:
        # One that differs from the others differs by 1 when nothing flipped, and by 2 at most when everything did.
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
    """Problems for McNemar's test at 5 % to see `gain` (both shares) with probability `power` (Connor 1987).

    `discordant` is the share of problems that flip; without it, as if the two models erred independently.

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
    """Two models on the same ``n`` problems: what both, one or neither solve, and what follows by rule."""

    n: int
    both: int
    only_base: int
    only_tuned: int
    neither: int
    difference: float
    ci: tuple[float, float]
    p: float
    sentence: str


def compare(base: "pd.DataFrame", tuned: "pd.DataFrame", by: str = "correct") -> Comparison:
    """Paired comparison of two evaluations' rows, one a problem; significant is an exact McNemar p < 0.05.

    Raises UserError unless both sides asked the same questions, once each.
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
