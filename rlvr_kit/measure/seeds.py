"""What the runs of one variant say together: the mean over its seeds, and how far one seed may lie from it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rlvr_kit.measure.wording import outcome_of

Result = Mapping[str, Any]  # one run of a study: seed, gain (a share), p, stopped, ... (training/sweep.py)

#: What course.py measures in a run and what a study shows of it, over its seeds. Older studies do not have it.
COURSE = ("half_step", "half_minutes", "entropy", "completions")


def summarize_seeds(runs: Sequence[Result]) -> dict[str, Any]:
    """Return what the runs of one variant show: the mean gain, how far the seeds differ, and how many gained.

    All gains are shares of the test problems. ``sd`` is the standard deviation between seeds. ``interval`` is for the
    mean over seeds, and ``spread`` for one more run with another seed (Student's t, 95 % both); all three are None with
    fewer than two seeds. ``half_step``, ``half_minutes``, ``entropy`` and ``completions`` are medians over the runs
    (course.py); a run that did not gain never had half of its gain, and None says that most did not.

    >>> summarize_seeds([{"seed": 0, "gain": 0.2, "p": 0.0}, {"seed": 1, "gain": 0.4, "p": 0.0}])["worst"]
    0.2
    """
    if not runs:
        return {"seeds": 0}
    gains = np.array([run["gain"] for run in runs])
    outcomes = [outcome_of(run["gain"], run["p"]) for run in runs]
    summary = {
        "seeds": len(gains),
        "mean": float(gains.mean()),
        "sd": float(gains.std(ddof=1)) if len(gains) > 1 else None,
        "interval": student_interval(gains),
        "spread": student_interval(gains, of_one_more=True),
        "worst": float(gains.min()),
        "best": float(gains.max()),
        "gain": outcomes.count("gain"),
        "no difference": outcomes.count("no difference"),
        "loss": outcomes.count("loss"),
        "stopped": sum(bool(run.get("stopped")) for run in runs),
    }
    return summary | {key: _median([run[key] for run in runs if key in run]) for key in COURSE}


def student_interval(values: Sequence[float] | np.ndarray, of_one_more: bool = False) -> list[float] | None:
    """Return the 95 % interval of the mean of ``values``, or of one more value; None with fewer than two values.

    >>> [round(end, 2) for end in student_interval([1.0, 2.0, 3.0])]
    [-0.48, 4.48]
    """
    from scipy.stats import t  # takes a second to load

    k = len(values)
    if k < 2:
        return None
    error = float(np.std(values, ddof=1)) * np.sqrt((1 if of_one_more else 0) + 1 / k)
    mean, half = float(np.mean(values)), float(t.ppf(0.975, k - 1) * error)
    return [mean - half, mean + half]


def _median(values: Sequence[float | None]) -> float | None:
    """The median, where None counts as later than any number; None where it is one, or where there is no value."""
    if not values:
        return None
    median = float(np.median([np.inf if value is None else value for value in values]))
    return median if np.isfinite(median) else None


def seeds_table(study: Mapping[str, Any]) -> pd.DataFrame:
    """Return the variants of a sweep.json as rows, gains in percentage points of the test problems."""
    rows = []
    for name, each in study["variants"].items():
        if each["seeds"]:
            shown = {"variant": name, "seeds": each["seeds"], "mean gain": points(each["mean"])}
            shown |= {
                "95 % interval": between(each["interval"]),
                "one more run, 95 %": between(each.get("spread")),
            }
            shown |= {key: points(each[key]) for key in ("worst", "best")}
            shown |= {"runs that gained": each["gain"], "runs that lost": each["loss"]}
            shown |= {"steps to half": number(each.get("half_step"), 1)}
            shown |= {"minutes to half": number(each.get("half_minutes"), 1)}
            shown |= {"entropy at the end": number(each.get("entropy"), 2)}
            rows.append(shown | {"completions": number(each.get("completions"), 0)})
    return pd.DataFrame(rows)


def points(share: float) -> str:
    """Return a share as percentage points with its sign.

    >>> points(0.123)
    '+12.3'
    """
    return f"{100 * share:+.1f}"


def between(interval: Sequence[float] | None) -> str:
    """Return an interval of shares in percentage points; nothing where there is none.

    >>> between([-0.01, 0.2])
    '-1.0 to +20.0'
    """
    return "" if interval is None else f"{points(interval[0])} to {points(interval[1])}"


def number(value: float | None, digits: int) -> str:
    """Return a number with its digits; a dash where there is none.

    >>> number(2.345, 1), number(None, 1)
    ('2.3', '–')
    """
    return "–" if value is None else f"{value:.{digits}f}"
