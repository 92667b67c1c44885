"""Figures of two models on the same problems: which problems flipped, and what a change is made of."""

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rlvr_kit.measure.plots import COLORS, empty_figure
from rlvr_kit.measure.statistics import compare, paired_bootstrap


def flips(base: pd.DataFrame, tuned: pd.DataFrame) -> Figure:
    """Draw every problem as a mark: solved by both models, newly solved, lost, or solved by neither."""
    result = compare(base, tuned)
    before, after = (side.sort_values("problem").correct.to_numpy(int) for side in (base, tuned))
    width = math.ceil(math.sqrt(3 * result.n))
    figure, ax = empty_figure(7.5, 3.4)
    marks = {
        f"both: {result.both}": (3, 14, "0.45", "o"),
        f"newly solved: {result.only_tuned}": (1, 60, COLORS[0], "^"),
        f"lost: {result.only_base}": (2, 60, COLORS[1], "x"),
        f"neither: {result.neither}": (0, 4, "0.6", "."),
    }
    for label, (outcome, size, color, marker) in marks.items():
        (where,) = np.nonzero(2 * before + after == outcome)
        ax.scatter(where % width, where // width, s=size, c=color, marker=marker, label=label)
    ax.set(title=f"Which problems flipped, n={result.n}", xlabel="a mark is a problem", xticks=[], yticks=[])
    ax.invert_yaxis()
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def gain_split(base: pd.DataFrame, tuned: pd.DataFrame) -> Figure:
    """Draw the change of strict accuracy and its two parts, which add up to it, in points with 95 % intervals.

    Mathematics: more problems with the right number anywhere (lenient). Format: the rest, right numbers that
    now stand where they belong (below zero: that no longer do).
    """
    base, tuned = base.sort_values("problem"), tuned.sort_values("problem")
    strict, lenient = compare(base, tuned), compare(base, tuned, "lenient_correct")
    form = [side.correct.to_numpy(float) - side.lenient_correct.to_numpy(float) for side in (base, tuned)]
    parts = {
        "mathematics": (lenient.difference, lenient.ci),
        "format": (strict.difference - lenient.difference, paired_bootstrap(*form)),
        "strict, in all": (strict.difference, strict.ci),
    }
    figure, ax = empty_figure(6.4, 2.5)
    for row, (gain, (low, high)) in enumerate(parts.values()):
        error = 100 * np.clip([[gain - low], [high - gain]], 0, None)
        ax.barh(row, 100 * gain, xerr=error, color=COLORS[row], capsize=4, height=0.6)
    ax.axvline(0, color="black", lw=0.8)
    ax.set(title=f"What the change is made of, n={strict.n}", xlabel="percentage points", ylim=(2.5, -0.5))
    ax.set_yticks(range(3), labels=list(parts))
    return figure
