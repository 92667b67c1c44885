"""Figures of a study: every run of it, and each variant against the default."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rlvr_kit.measure.plots import COLORS, empty_figure
from rlvr_kit.measure.variants import compare_variants

#: How a verdict looks: colour, marker, and whether the marker is filled.
LOOKS = {
    "better": (COLORS[0], "^", True),
    "worse": (COLORS[1], "v", True),
    "no difference": ("0.35", "o", False),
}


def seeds_figure(study: Mapping[str, Any]) -> Figure:
    """Draw every run of a sweep.json as a dot, with the mean over seeds and its 95 % interval (Student's t)."""
    names = [name for name, each in study["variants"].items() if each["seeds"]]
    figure, ax = empty_figure(7.5, 1.4 + 0.45 * len(names))
    for row, name in enumerate(names):
        gains = [100 * run["gain"] for run in study["runs"] if run["variant"] == name]
        each = study["variants"][name]
        ax.plot(gains, [row + 0.14] * len(gains), "o", color=COLORS[0], alpha=0.5, markersize=5)
        low, high = each["interval"] or [each["mean"]] * 2
        error = 100 * np.array([[each["mean"] - low], [high - each["mean"]]])
        ax.errorbar(100 * each["mean"], row - 0.14, xerr=error, color=COLORS[1], fmt="D", capsize=4)
    ax.axvline(0, color="black", lw=0.8)
    # Above the whole figure: long names leave too little width for it above the axes.
    figure.suptitle("Gain on the test problems: each seed (dots), mean and 95 % interval (diamonds)")
    ax.set(xlabel=f"percentage points of {_problems(study)} problems", ylim=(len(names) - 0.5, -0.5))
    ax.set_yticks(
        range(len(names)), labels=[f"{name} ({study['variants'][name]['seeds']})" for name in names]
    )
    return figure


def forest(study: Mapping[str, Any]) -> Figure:
    """Draw each variant of a sweep.json against the default, the best first: mean difference and 95 % interval.

    Small dots are the seeds. Colour and marker are the verdict after Holm's correction (variants.py), which may be "no
    difference seen" where an interval just misses zero: the interval is for one comparison alone.
    """
    rows = sorted(compare_variants(study), key=lambda each: -each.mean)
    figure, ax = empty_figure(8.0, 2.0 + 0.3 * max(1, len(rows)))
    for row, each in enumerate(rows):
        color, marker, filled = LOOKS.get(each.verdict, LOOKS["no difference"])
        ax.plot(
            100 * np.array(list(each.differences.values())),
            [row + 0.22] * each.seeds,
            ".",
            color=color,
            alpha=0.5,
        )
        low, high = each.interval or [each.mean] * 2
        error = 100 * np.array([[each.mean - low], [high - each.mean]])
        ax.errorbar(100 * each.mean, row, xerr=error, color=color, fmt=marker, capsize=3, markersize=7,
                    markerfacecolor=color if filled else "white")  # fmt: skip
    default = next(iter(study["variants"]))
    ax.axvline(0, color="black", lw=0.8)
    figure.suptitle(f"Each variant against {default}, paired by seed: mean difference and 95 % interval")
    ax.set(xlabel=f"difference of the gains, percentage points of {_problems(study)} problems",
           ylim=(max(1, len(rows)) - 0.5, -0.5))  # fmt: skip
    ax.set_yticks(range(len(rows)), labels=[f"{each.variant} ({each.seeds})" for each in rows])
    figure.legend(handles=[_look(verdict) for verdict in LOOKS], title="after Holm's correction",
                  loc="outside lower center", ncols=len(LOOKS))  # fmt: skip
    return figure


def _look(verdict: str) -> Line2D:
    """The mark of a verdict, for the legend."""
    color, marker, filled = LOOKS[verdict]
    label = {"no difference": "no difference seen, or too few seeds"}.get(verdict, verdict)
    face = color if filled else "white"
    return Line2D([], [], color=color, marker=marker, linestyle="none", markerfacecolor=face, label=label)


def _problems(study: Mapping[str, Any]) -> str:
    return " or ".join(sorted({str(run["n"]) for run in study["runs"]}))
