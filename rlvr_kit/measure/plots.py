"""Figures from run folders and evaluations: the same functions in the notebooks, the report and the command line.

Bars are 95 % intervals. The colours are Okabe and Ito's. Every series has its own line style or marker too.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rlvr_kit.errors import InputError
from rlvr_kit.measure.statistics import wilson_interval
from rlvr_kit.run_folder import Run

#: One run, several, or several by name ({"mine": run}); without a name a run is called as its folder is.
Runs = Run | Sequence[Run] | Mapping[str, Run]
COLORS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#000000")
LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "x")

#: Title and unit of a column of the log; parts of the reward (rewards/...) are titled by their name.
TITLES = {
    "reward": ("Reward", "points per completion"),
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
    logged = [c for c in columns if any(c in log and (c != "clipped" or log[c].any()) for _, log in logs)]
    return _curves(logs, [_panel(column) for column in logged or columns], against)


def training_curves(runs: Runs, against: str = "step") -> Figure:
    """Draw the six panels to look at while a run trains, in two rows."""
    logs = _logs(runs)
    reward = ("Reward and its parts", "points per completion", {"total": "reward"} | _parts(logs))
    equal = {"completions cut off": "truncated", "groups all equal": "equal_groups"}
    wasted = ("Nothing to learn from", "% of completions / of groups", equal)
    single = map(_panel, ("heldout/strict", "heldout/format", "length", "entropy"))
    return _curves(logs, [reward, *single, wasted], against)


def shares(counts: Mapping[str, Mapping[str, tuple[float, int]]], title: str) -> Figure:
    """Draw shares of problems with their intervals, one row per name: ``{"base": {"seen": (k, n), ...}, ...}``."""
    names = list(dict.fromkeys(chain(*counts.values())))
    figure, ax = empty_figure(6.4, 1.3 + 0.45 * len(names))
    for i, (label, series) in enumerate(counts.items()):
        k, n = np.array(list(series.values()), float).T
        low, high = np.array([wilson_interval(*pair) for pair in series.values()]).T
        offset = 0.8 / max(4, len(counts)) * (i - (len(counts) - 1) / 2)
        y = np.array([names.index(name) for name in series]) + offset
        error = 100 * np.clip([k / n - low, high - k / n], 0, None)
        look = style(i) | {"linestyle": "none", "capsize": 3, "clip_on": False}
        ax.errorbar(100 * k / n, y, xerr=error, **look, label=label)
    ax.set(title=title, xlabel="% of problems", xlim=(0, None), ylim=(len(names) - 0.5, -0.5))
    ax.set_yticks(range(len(names)), labels=names)
    if len(counts) > 1:
        ax.legend()
    return figure


def shots_curve(results: Mapping[str, Mapping[int, dict[str, Any]]], published: bool = False) -> Figure:
    """Draw strict accuracy by number of exemplars, one line per model: ``{"base": {0: summary, 2: ...}, ...}``.

    `published` adds a panel with the AWS walkthrough's points: another model, another task and another harness.
    """
    figure, _ = empty_figure(9.0 if published else 6.4, 3.8, 1, 1 + published)
    for i, (name, each) in enumerate(results.items()):
        points = {k + 0.1 * i: (s["strict"], s["strict_ci"]) for k, s in each.items()}  # side by side
        _interval_line(figure.axes[0], points, style(i), name)
    figure.axes[0].set(title="Accuracy by number of exemplars", xticks=sorted({*chain(*results.values())}))
    if published:
        n, theirs = WALKTHROUGH["n"], figure.axes[1]
        points = {shots: (k / n, wilson_interval(k, n)) for shots, k in WALKTHROUGH["trained"].items()}
        _interval_line(theirs, points, {"color": "0.4", "marker": "*"}, f"trained, n={n}")
        theirs.axhline(WALKTHROUGH["base"], color="0.4", ls=":", label=f"base, n={n}")
        theirs.set(title="Published: another model and task", xticks=list(points))
    for ax in figure.axes:
        ax.set(xlabel="exemplars in the prompt", ylabel="% strict", ylim=(0, None))
        ax.legend()
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
    part = (f"Reward: {column.removeprefix('rewards/')}", "points per completion")
    return *TITLES.get(column, part), {"": column}


def empty_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, Any]:
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), layout="constrained")
    plt.close(figure)  # shown as the value of a cell, and not a second time by pyplot
    for ax in figure.axes:
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _curves(logs: list[tuple[str, pd.DataFrame]], panels: list[tuple], against: str) -> Figure:
    columns = math.ceil(len(panels) / (rows := math.ceil(len(panels) / 3)))
    figure, _ = empty_figure(3.5 * columns, 2.8 * rows, rows, columns)
    n = " or ".join(sorted({f"{log['heldout/n'].max():.0f}" for _, log in logs if "heldout/n" in log}))
    for ax, (title, unit, shown) in zip(figure.axes, panels, strict=False):
        for i, (run, log) in enumerate(logs):
            for j, (label, column) in enumerate(shown.items()):
                look = style(i if len(logs) > 1 else j)  # colour tells runs apart, or else columns
                if len(shown) > 1:  # later ones are wider and lie below: of two equal curves both are seen
                    look |= {
                        "linestyle": style(j)["linestyle"],
                        "linewidth": 1.5 + 0.7 * j,
                        "zorder": 3 - j / 10,
                    }
                label = ", ".join([run] * (len(logs) > 1) + [label] * (len(shown) > 1))
                if column in log:
                    _curve(ax, log.dropna(subset=[column]), column, against, look, label)
        ax.set(title=title, xlabel=AXES[against][0], ylabel=unit.replace("of problems", f"of {n} problems"))
        ax.set_ylim(bottom=0 if "%" in unit else None)
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        if not ax.has_data():
            ax.text(0.5, 0.5, "not logged", transform=ax.transAxes, ha="center", color="0.4")
        elif ax.get_legend_handles_labels()[1]:
            low, high = ax.get_ylim()
            ticks = [tick for tick in ax.get_yticks() if low <= tick <= high]
            ax.set(ylim=(low, 1.25 * high - 0.25 * low), yticks=ticks)  # room for the legend
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
    mean = y.rolling(max(3, min(10, len(y) // 5)), min_periods=1, center=True).mean()
    ax.plot(x, y, ".", color=look["color"], alpha=0.25)
    ax.plot(x, mean, **look | {"marker": "none"}, label=label or None)


def _interval_line(ax: Axes, points: Mapping[Any, tuple], look: dict, label: str) -> None:
    """Draw shares by x, ``{x: (share, (low, high))}``, in per cent."""
    y = np.array([share for share, _ in points.values()])
    low, high = np.array([ci for _, ci in points.values()], float).T
    error = 100 * np.clip([y - low, high - y], 0, None)
    ax.errorbar(list(points), 100 * y, error, **look, capsize=3, clip_on=False, label=label or None)
