"""Figures from run folders and evaluations: the same functions in the notebooks, the report and the command line.

In curves, dots are the steps as logged, the line is their running mean, and bars are 95 % intervals. The colours are
Okabe and Ito's. Every series has its own line style or marker too, so that a print in grey can be read.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlvr_kit.errors import InputError
from rlvr_kit.measure.statistics import compare, paired_bootstrap, wilson_interval
from rlvr_kit.run_folder import Run

#: One run, several, or several by name ({"mine": run}); without a name a run is called as its folder is.
Runs = Run | Sequence[Run] | Mapping[str, Run]
COLORS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#000000")
LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "x")

#: Title and unit of a column of the log; parts of the reward (rewards/...) are titled by their name.
TITLES = {
    "reward": ("Reward", "a completion"),
    "heldout/strict": ("Held-out accuracy, strict", "% of problems"),
    "heldout/lenient": ("Held-out accuracy, lenient", "% of problems"),
    "heldout/format": ("Held out, well-formed", "% of problems"),
    "length": ("Completion length", "tokens, mean"),
    "truncated": ("Cut off at the token limit", "% of completions"),
    "entropy": ("Entropy", "nats a token"),
    "kl": ("KL from the base model", "nats a token"),
    "clipped": ("Clipped", "% of tokens"),
    "equal_groups": ("Groups whose rewards are all equal", "% of groups"),
}
CURVES = {
    "reward": ["reward"], "heldout": ["heldout/strict", "heldout/lenient", "heldout/format"],
    "length": ["length", "truncated"], "policy": ["entropy", "kl", "clipped"], "signal": ["equal_groups"],
}  # fmt: skip
AXES = {"step": ("step", 1), "seconds": ("minutes", 60), "completions": ("completions sampled", 1)}

#: Strict accuracy, per cent of 100 GSM8K problems, by exemplars, as published (AWS walkthrough, May 2026).
WALKTHROUGH: dict[str, Any] = {"base": 11, "trained": {0: 6, 2: 3, 4: 33, 8: 41}, "n": 100}


def style(i: int) -> dict[str, Any]:
    """Return colour, line style and marker of series `i`. The first 36 series all look different."""
    turn, j = divmod(i, len(COLORS))
    return {"color": COLORS[j], "linestyle": LINES[(j + turn) % 6], "marker": MARKERS[(j + turn) % 6]}


def curves(runs: Runs, what: str = "heldout", against: str = "step") -> Figure:
    """Draw one of CURVES against "step", "seconds" or "completions"; "reward" has a panel for each of its parts."""
    if what not in CURVES or against not in AXES:
        raise InputError(f"there is {', '.join(CURVES)} against {', '.join(AXES)}, not {what!r}, {against!r}")
    logs = _logs(runs)
    columns = CURVES[what] + (list(_parts(logs).values()) if what == "reward" else [])
    logged = [column for column in columns if any(column in log for _, log in logs)]
    return _curves(logs, [_panel(column) for column in logged or columns], against)


def training_curves(runs: Runs, against: str = "step") -> Figure:
    """Draw the six panels to look at while a run trains, in two rows."""
    logs = _logs(runs)
    reward = ("Reward and its parts", "a completion", {"total": "reward"} | _parts(logs))
    shown = {"completions cut off": "truncated", "groups all equal": "equal_groups"}
    wasted = ("Nothing to learn from", "%", shown)
    single = map(_panel, ("heldout/strict", "heldout/format", "length", "entropy"))
    return _curves(logs, [reward, *single, wasted], against)


def shares(counts: Mapping[str, Mapping[str, tuple[float, int]]], title: str) -> Figure:
    """Draw shares of problems with their intervals, one row per name: ``{"base": {"seen": (k, n), ...}, ...}``."""
    names = list(dict.fromkeys(name for series in counts.values() for name in series))
    figure, ax = empty_figure(6.4, 1.3 + 0.45 * len(names))
    for i, (label, series) in enumerate(counts.items()):
        k, n = np.array(list(series.values()), float).T
        low, high = np.array([wilson_interval(*pair) for pair in series.values()]).T
        offset = 0.8 / max(4, len(counts)) * (i - (len(counts) - 1) / 2)
        y = np.array([names.index(name) for name in series]) + offset
        error = 100 * np.clip([k / n - low, high - k / n], 0, None)
        look = style(i) | {"linestyle": "none"}
        ax.errorbar(100 * k / n, y, xerr=error, **look, capsize=3, clip_on=False, label=label)
    ax.set(title=title, xlabel="% of problems", ylim=(len(names) - 0.5, -0.5))
    ax.set_yticks(range(len(names)), labels=names)
    ax.set_xlim(left=0)
    if len(counts) > 1:
        ax.legend()
    return figure


def shots_curve(results: Mapping[str, Mapping[int, dict[str, Any]]], published: bool = False) -> Figure:
    """Draw strict accuracy by number of exemplars, one line per model: ``{"base": {0: summary, 2: ...}, ...}``.

    `published` adds the AWS walkthrough's points, labelled as theirs: another model and another harness.
    """
    figure, ax = empty_figure(9.0 if published else 6.4, 3.8)
    for i, (name, each) in enumerate(results.items()):
        _interval_line(ax, {k: (s["strict"], s["strict_ci"]) for k, s in each.items()}, style(i), name)
    if published:
        n = WALKTHROUGH["n"]
        theirs = {shots: (k / n, wilson_interval(k, n)) for shots, k in WALKTHROUGH["trained"].items()}
        grey = {"color": "0.5", "linestyle": ":", "marker": "*"}
        _interval_line(ax, theirs, grey, f"theirs: AWS walkthrough, trained, n={n}")
        ax.axhline(WALKTHROUGH["base"], color="0.5", lw=0.8, label=f"theirs: AWS walkthrough, base, n={n}")
    ax.set(title="Accuracy by number of exemplars", xlabel="exemplars in the prompt", ylabel="% strict")
    ax.set_ylim(bottom=0)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1)) if published else ax.legend()
    return figure


def pass_at_k_curve(summaries: Mapping[str, dict[str, Any]]) -> Figure:
    """Draw pass@k by k, one line per model, from summaries with several samples: ``{"base": summary, ...}``."""
    figure, ax = empty_figure(6.4, 3.8)
    for i, (name, s) in enumerate(summaries.items()):
        points = {int(k): (share, s["pass_at_k_ci"][k]) for k, share in s["pass_at_k"].items()}
        _interval_line(ax, points, style(i), f"{name}, n={s['n']}")
        ax.set_xscale("log", base=2)
        ax.set_xticks(list(points), labels=list(points))
    ax.set(title="At least one of k completions is right", xlabel="k", ylabel="% of problems (pass@k)")
    ax.set_ylim(bottom=0)
    ax.legend()
    return figure


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


def save(figure: Figure, path: str | Path) -> Path:
    """Write the figure as SVG and as PNG, whatever ending `path` has. Return the path of the SVG."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".png"), dpi=150)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    return path.with_suffix(".svg")


def _logs(runs: Runs) -> list[tuple[str, pd.DataFrame]]:
    if isinstance(runs, Mapping):
        return [(name, run.log()) for name, run in runs.items()]
    return [(run.path.name, run.log()) for run in ([runs] if isinstance(runs, Run) else runs)]


def _parts(logs: list[tuple[str, pd.DataFrame]]) -> dict[str, str]:
    return {c.removeprefix("rewards/"): c for _, log in logs for c in log.columns if c.startswith("rewards/")}


def _panel(column: str) -> tuple[str, str, dict[str, str]]:
    title, unit = TITLES.get(column, (f"Reward: {column.removeprefix('rewards/')}", "a completion"))
    return title, unit, {"": column}


def empty_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, Any]:
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), layout="constrained")
    plt.close(figure)  # shown as the value of a cell, and not a second time by pyplot
    for ax in figure.axes:
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _curves(logs: list[tuple[str, pd.DataFrame]], panels: list[tuple], against: str) -> Figure:
    rows = math.ceil(len(panels) / 3)
    columns = math.ceil(len(panels) / rows)
    figure, _ = empty_figure(4.2 * columns, 3.1 * rows, rows, columns)
    n = " or ".join(sorted({f"{log['heldout/n'].max():.0f}" for _, log in logs if "heldout/n" in log}))
    for ax, (title, unit, shown) in zip(figure.axes, panels, strict=False):
        for i, (run, log) in enumerate(logs):
            for j, (label, column) in enumerate(shown.items()):
                look = style(i if len(logs) > 1 else j)  # colour tells runs apart, or else columns
                if len(shown) > 1:
                    look["linestyle"] = style(j)["linestyle"]
                label = ", ".join([run] * (len(logs) > 1) + [label] * (len(shown) > 1))
                if column in log:
                    _curve(ax, log.dropna(subset=[column]), column, against, look, label)
        ax.set(title=title, xlabel=AXES[against][0], ylabel=unit.replace("of problems", f"of {n} problems"))
        ax.set_ylim(bottom=0 if "%" in unit else None)
        if not ax.has_data():
            ax.text(0.5, 0.5, "not logged", transform=ax.transAxes, ha="center", color="0.4")
        elif ax.get_legend_handles_labels()[1]:
            ax.legend(fontsize="small")
    for ax in figure.axes[len(panels) :]:
        ax.remove()
    return figure


def _curve(ax: Axes, log: pd.DataFrame, column: str, against: str, look: dict, label: str) -> None:
    x = log[against].fillna(0) / AXES[against][1]  # the base, step 0, comes before the clock
    if f"{column}_ci" in log:
        pairs = zip(log[column], log[f"{column}_ci"], strict=True)
        return _interval_line(ax, dict(zip(x, pairs, strict=True)), look, label)
    y = log[column] * (100 if column in ("truncated", "clipped", "equal_groups") else 1)
    mean = y.rolling(max(1, min(10, len(y) // 5)), min_periods=1, center=True).mean()
    ax.plot(x, y, ".", color=look["color"], alpha=0.25)
    ax.plot(x, mean, **look | {"marker": "none"}, label=label or None)


def _interval_line(ax: Axes, points: Mapping[Any, tuple], look: dict, label: str) -> None:
    """Draw shares by x, ``{x: (share, (low, high))}``, in per cent."""
    y = np.array([share for share, _ in points.values()])
    low, high = np.array([ci for _, ci in points.values()], float).T
    error = 100 * np.clip([y - low, high - y], 0, None)
    ax.errorbar(list(points), 100 * y, error, **look, capsize=3, label=label or None)
