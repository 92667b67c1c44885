"""Which variants of a study are better or worse than its default, by a rule that allows for many comparisons.

The default is the study's first variant. Every other one is paired with it by seed: with the same seed both see the
same problems in the same order and start from the same weights. A paired t-test over the seeds gives a p value. Holm's
method corrects the p values for the number of comparisons, so that the chance of even one "better" or "worse" in the
whole table that is owed to luck alone is 5 % at most.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rlvr_kit.measure.seeds import between, number, points, student_interval
from rlvr_kit.measure.signs import SIGNIFICANT

#: Fewer pairs of runs than these are not compared at all.
FEWEST_SEEDS = 3


@dataclass(frozen=True)
class VariantComparison:
    """One variant against the default. Differences are of gains, as shares of the test problems."""

    variant: str
    differences: dict[int, float]  # by seed, of the seeds that both have
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
    def interval(self) -> list[float] | None:
        """Student's 95 % interval of the mean difference, for this comparison alone; None with one seed."""
        return student_interval(list(self.differences.values()))

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
    tested = [name for name in others if len(differences[name]) >= FEWEST_SEEDS]
    corrected = dict(
        zip(tested, holm([_paired_p(list(differences[n].values())) for n in tested]), strict=True)
    )
    return [VariantComparison(n, differences[n], corrected.get(n)) for n in others if differences[n]]


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


def _paired_p(differences: Sequence[float]) -> float:
    """The p value of the differences' mean being zero: the paired t-test's."""
    from scipy.stats import ttest_1samp  # takes a second to load

    if np.ptp(differences) < 1e-12:  # no spread to test against: only that all have one sign can be counted
        return 1.0 if abs(differences[0]) < 1e-12 else 2 * 0.5 ** len(differences)
    return float(ttest_1samp(differences, 0.0).pvalue)


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

    The bound is that of the smallest corrected p value, with the median over the variants of the standard deviation
    between the seeds' differences. A true difference of that size is found about every second time.
    """
    from scipy.stats import t

    tested = [list(each.differences.values()) for each in compare_variants(study) if each.p is not None]
    spread = float(np.median([np.std(each, ddof=1) for each in tested])) if tested else float("nan")
    bounds = [
        100 * t.ppf(1 - SIGNIFICANT / 2 / max(1, len(tested)), k - 1) * spread / np.sqrt(k) for k in seeds
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
