"""Which variants of a study are better or worse than its default, by a rule that allows for many comparisons.

The default is the study's first variant. Every other one is paired with it by seed: with the same seed both see the
same problems in the same order and start from the same weights. How far runs scatter for no reason is estimated from
all runs of the study together: a gain is taken as what its variant does, plus what its seed does, plus chance (the
analysis of variance of a randomized block design, such as in Montgomery, Design and Analysis of Experiments, chapter
4). Three seeds of one variant alone would say very little about the scatter. With a single variant beside the default
this is the paired t-test.

Holm's method corrects the p values for the number of comparisons, so that the chance of even one "better" or "worse"
in the whole table that is owed to luck alone is 5 % at most. All of it takes for granted that variants scatter alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rlvr_kit.measure.seeds import between, number, points
from rlvr_kit.measure.signs import SIGNIFICANT

#: Fewer pairs of runs than these are not compared at all.
FEWEST_SEEDS = 3


@dataclass(frozen=True)
class VariantComparison:
    """One variant against the default. Differences are of gains, as shares of the test problems."""

    variant: str
    differences: dict[int, float]  # by seed, of the seeds that both have
    interval: list[float] | None  # 95 % interval of the mean difference, for this comparison alone
    p: float | None  # corrected by Holm's method; None with fewer than FEWEST_SEEDS

    @property
    def seeds(self) -> int:
        """How many seeds both have been run with."""
        return len(self.differences)

    @property
    def mean(self) -> float:
        """The mean difference over the seeds."""
        return float(np.mean(list(self.differences.values())))

    @property
    def verdict(self) -> str:
        """Return "better", "worse", "no difference seen with k seeds", or that there are too few."""
        if self.p is None:
            return f"too few seeds ({self.seeds}, at least {FEWEST_SEEDS} are needed)"
        if self.p >= SIGNIFICANT:
            return f"no difference seen with {self.seeds} seeds"
        return "better" if self.mean > 0 else "worse"


def compare_variants(study: Mapping[str, Any]) -> list[VariantComparison]:
    """Return each variant of a sweep.json against the first one, as far as both have runs with the same seeds.

    >>> [c.verdict for c in compare_variants(json.load(open("sweep.json")))]  # doctest: +SKIP
    ['worse', 'no difference seen with 5 seeds']
    """
    gains: dict[str, dict[int, float]] = {name: {} for name in study["variants"]}
    for run in study["runs"]:
        gains[run["variant"]][run["seed"]] = run["gain"]
    default, *others = gains
    differences = {
        name: {
            seed: gain - gains[default][seed] for seed, gain in gains[name].items() if seed in gains[default]
        }
        for name in others
    }
    means = {
        name: (float(np.mean(list(each.values()))), len(each)) for name, each in differences.items() if each
    }
    scattered = scatter(study)
    tested = [name for name, (_, seeds) in means.items() if seeds >= FEWEST_SEEDS]
    corrected = dict(zip(tested, holm([_p_value(*means[name], *scattered) for name in tested]), strict=True))
    return [
        VariantComparison(name, differences[name], _interval(*means[name], *scattered), corrected.get(name))
        for name in means
    ]


def scatter(study: Mapping[str, Any]) -> tuple[float, int]:
    """Return the standard deviation of a run around what its variant and its seed explain, and its degrees of freedom.

    The gains of all runs are fitted by least squares with one number for each variant and one for each seed. The
    deviation is a share of the test problems. Without a degree of freedom, as with a single seed, it is NaN.

    >>> gains = {("a", 0): 0.1, ("a", 1): 0.3, ("b", 0): 0.2, ("b", 1): 0.6}
    >>> runs = [{"variant": variant, "seed": seed, "gain": gain} for (variant, seed), gain in gains.items()]
    >>> [round(value, 3) for value in scatter({"runs": runs})]
    [0.1, 1]
    """
    runs = study["runs"]
    kinds = [(key, value) for key in ("variant", "seed") for value in dict.fromkeys(run[key] for run in runs)]
    design = np.array([[float(run[key] == value) for key, value in kinds] for run in runs])
    gains = np.array([run["gain"] for run in runs])
    fitted, _, rank, _ = np.linalg.lstsq(design, gains, rcond=None)
    freedom = len(runs) - int(rank)
    squares = float(np.sum((gains - design @ fitted) ** 2))
    return (float(np.sqrt(squares / freedom)) if freedom else float("nan")), freedom


def holm(p: Sequence[float]) -> list[float]:
    """Return the p values corrected for their number by Holm's method (Scandinavian Journal of Statistics, 1979).

    The smallest of m is multiplied by m, the next one by m - 1, and so on; none becomes smaller than one before it.

    >>> holm([0.03, 0.01, 0.04])
    [0.06, 0.03, 0.06]
    """
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    factors = np.arange(len(p), 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(factors * np.array(p)[order])) if len(p) else []
    return [float(value) for value in corrected]


def _interval(mean: float, seeds: int, sigma: float, freedom: int) -> list[float] | None:
    """The 95 % interval of a mean difference over so many seeds; None where nothing is known of the scatter."""
    from scipy.stats import t  # takes a second to load

    if not freedom:
        return None
    half = float(t.ppf(0.975, freedom)) * sigma * np.sqrt(2 / seeds)
    return [mean - half, mean + half]


def _p_value(mean: float, seeds: int, sigma: float, freedom: int) -> float:
    """The p value of a true difference of zero: t = mean / (sigma sqrt(2 / seeds)), two-sided."""
    from scipy.stats import t

    if sigma < 1e-12:  # no scatter to test against: only that all seeds have one sign can be counted
        return 1.0 if abs(mean) < 1e-12 else 2 * 0.5**seeds
    return float(2 * t.sf(abs(mean) / (sigma * np.sqrt(2 / seeds)), freedom))


def variants_table(study: Mapping[str, Any]) -> pd.DataFrame:
    """Return the comparisons of a sweep.json as rows, differences in percentage points of the test problems."""
    default = next(iter(study["variants"]))
    rows = [
        {
            "variant": each.variant,
            "seeds": each.seeds,
            f"against {default}": points(each.mean),
            "95 % interval": between(each.interval),
            "p (Holm)": "–" if each.p is None else "< 0.001" if each.p < 0.001 else number(each.p, 3),
            "verdict": each.verdict,
        }
        for each in compare_variants(study)
    ]
    return pd.DataFrame(rows)


def conclusions(study: Mapping[str, Any]) -> list[str]:
    """Return what a sweep.json allows to say, in sentences, and no more than its corrected comparisons carry."""
    comparisons = compare_variants(study)
    tested = [each for each in comparisons if each.p is not None]
    default = next(iter(study["variants"]))
    if not tested:
        return [
            f"No variant has {FEWEST_SEEDS} seeds in common with {default} yet, so nothing can be concluded."
        ]
    said = []
    for verdict in ("better", "worse"):
        found = [f"{each.variant} ({points(each.mean)} points)" for each in tested if each.verdict == verdict]
        said.append(f"{verdict.capitalize()} than {default}: {', '.join(found) or 'none'}.")
    same = [each for each in tested if each.verdict not in ("better", "worse")]
    if same:
        k = int(np.median([each.seeds for each in tested]))
        hidden = smallest_found(study, [k]).iloc[0, 1]
        said.append(
            f"No difference seen: {', '.join(each.variant for each in same)}. This does not show that there is none: "
            f"with {k} seeds, a difference of less than about {hidden} points is more often missed than found."
        )
    if few := [each.variant for each in comparisons if each.p is None]:
        said.append(f"Not compared, with fewer than {FEWEST_SEEDS} seeds: {', '.join(few)}.")
    many = "1 comparison" if len(tested) == 1 else f"{len(tested)} comparisons"
    return [*said, f"The p values are corrected for {many} (Holm)."]


def smallest_found(study: Mapping[str, Any], seeds: Sequence[int] = (3, 5, 10, 20)) -> pd.DataFrame:
    """Return by numbers of seeds how large a difference must come out to be found, in points of the test problems.

    The bound is that of the smallest corrected p value, for a study with as many comparisons as this one and with its
    scatter. A true difference of that size is found about every second time.
    """
    from scipy.stats import t

    compared = max(1, sum(each.p is not None for each in compare_variants(study)))
    sigma, _ = scatter(study)
    bounds = [
        100 * t.ppf(1 - SIGNIFICANT / 2 / compared, compared * (k - 1)) * sigma * np.sqrt(2 / k)
        for k in seeds
    ]
    return pd.DataFrame({"seeds": list(seeds), "smallest difference found, points": np.round(bounds, 1)})


def where_made(study: Mapping[str, Any]) -> str:
    """Return on which machines and with which versions a study was made, and how long its runs took."""
    machines = study.get("machines") or [study["machine"]]
    named = [
        f"{each['processor']}, {each['cores']} cores, {each.get('dtype', 'float32')}, torch {each['torch']}, "
        f"trl {each['trl']}"
        for each in machines
    ]
    kinds = "one machine" if len(machines) == 1 else f"{len(machines)} machines or settings"
    return f"{len(study['runs'])} runs, {study['hours']:.1f} hours, made on {kinds}: {'; '.join(named)}."
