"""What several seeds say together: the spread between runs, as numbers, as a table and as a figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rlvr_kit.measure.wording import outcome_of

Result = Mapping[str, Any]  # one run of a study: seed, gain (a share), p, stopped, ...


def summarize_seeds(runs: Sequence[Result]) -> dict[str, Any]:
    """Return what the runs of one variant show: mean gain and its interval, worst, best, and how many gained.

    ``interval`` is for the mean over seeds (Student's t, 95 %), None with fewer than two of them. All gains are shares
    of the test problems.

    >>> summarize_seeds([{"seed": 0, "gain": 0.2, "p": 0.0}, {"seed": 1, "gain": 0.4, "p": 0.0}])["worst"]
    0.2
    """
    from scipy.stats import t

    if not runs:
        return {"seeds": 0}
    gains = np.array([run["gain"] for run in runs])
    outcomes = [outcome_of(run["gain"], run["p"]) for run in runs]
    mean, interval = float(gains.mean()), None
    if len(gains) > 1:
        half = float(t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / np.sqrt(len(gains)))
        interval = [mean - half, mean + half]
    return {
        "seeds": len(gains),
        "mean": mean,
        "interval": interval,
        "worst": float(gains.min()),
        "best": float(gains.max()),
        "gain": outcomes.count("gain"),
        "no difference": outcomes.count("no difference"),
        "loss": outcomes.count("loss"),
        "stopped": sum(bool(run.get("stopped")) for run in runs),
    }


def seeds_table(study: Mapping[str, Any]) -> pd.DataFrame:
    """The variants of a sweep.json as rows, gains in percentage points of the test problems."""
    rows = []
    for name, each in study["variants"].items():
        if each["seeds"]:
            between = (
                ""
                if each["interval"] is None
                else "{:+.1f} to {:+.1f}".format(*100 * np.array(each["interval"]))
            )
            shown = {
                "seeds": each["seeds"],
                "mean gain": f"{100 * each['mean']:+.1f}",
                "95 % interval": between,
            }
            shown |= {key: f"{100 * each[key]:+.1f}" for key in ("worst", "best")}
            counts = {
                "significant gain": "gain",
                "no difference seen": "no difference",
                "significant loss": "loss",
            }
            rows.append({"variant": name} | shown | {title: each[key] for title, key in counts.items()})
    return pd.DataFrame(rows)


def seeds_figure(study: Mapping[str, Any]) -> Figure:
    """Every run of a sweep.json as a dot, with the mean over seeds and its 95 % interval (Student's t)."""
    names = [name for name, each in study["variants"].items() if each["seeds"]]
    figure, ax = plt.subplots(figsize=(7.5, 1.4 + 0.45 * len(names)), layout="constrained")
    plt.close(figure)  # shown as the value of a cell, and not a second time by pyplot
    for row, name in enumerate(names):
        gains = [100 * run["gain"] for run in study["runs"] if run["variant"] == name]
        each = study["variants"][name]
        ax.plot(gains, [row + 0.14] * len(gains), "o", color="#0072B2", alpha=0.5, markersize=5)
        low, high = each["interval"] or [each["mean"]] * 2
        error = 100 * np.array([[each["mean"] - low], [high - each["mean"]]])
        ax.errorbar(100 * each["mean"], row - 0.14, xerr=error, color="#D55E00", fmt="D", capsize=4)
    ax.axvline(0, color="black", lw=0.8)
    problems = " or ".join(sorted({str(run["n"]) for run in study["runs"]}))
    ax.set(title="Gain on the test problems: each seed (dots), mean and 95 % interval (diamonds)",
           xlabel=f"percentage points of {problems} problems", ylim=(len(names) - 0.5, -0.5))  # fmt: skip
    ax.set_yticks(
        range(len(names)), labels=[f"{name} ({study['variants'][name]['seeds']})" for name in names]
    )
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    return figure
