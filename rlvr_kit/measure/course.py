"""The course of one run in a few numbers, from the lines of its log: how soon it learned, and what was left to vary."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

#: Steps over which the entropy at the end is averaged, because single ones jump.
LAST_STEPS = 5


def course_of(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the lines of a run's log.jsonl say about its course.

    ``heldout``: step and strict accuracy of each held-out measurement. ``half_step`` and ``half_minutes``: when the
    held-out accuracy had half of the gain that it had at the last measurement, read off straight lines between the
    measurements; None where it had not gained. ``entropy``: nats a token, mean of the last five steps. ``completions``:
    how many were sampled in all.

    >>> course_of([{"step": 0, "heldout/strict": 0.1, "seconds": 0}, {"step": 8, "heldout/strict": 0.5, "seconds": 60,
    ...            "completions": 64}])["half_step"]
    4.0
    """
    measured = [line for line in lines if line.get("heldout/strict") is not None]
    entropies = [line["entropy"] for line in lines if line.get("entropy") is not None][-LAST_STEPS:]
    half = _half_way(measured)
    return {
        "heldout": [[line["step"], line["heldout/strict"]] for line in measured],
        "half_step": half and round(half[0], 1),
        "half_minutes": half and round(half[1] / 60, 2),
        "entropy": round(float(np.mean(entropies)), 4) if entropies else None,
        "completions": lines[-1].get("completions") if lines else None,
    }


def _half_way(measured: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """Step and seconds at which the accuracy first had half of its final gain; None where it did not gain."""
    if len(measured) < 2 or measured[-1]["heldout/strict"] <= measured[0]["heldout/strict"]:
        return None
    target = (measured[0]["heldout/strict"] + measured[-1]["heldout/strict"]) / 2
    reached = next(i for i, line in enumerate(measured) if line["heldout/strict"] >= target)
    before, after = measured[reached - 1], measured[reached]
    share = (target - before["heldout/strict"]) / (after["heldout/strict"] - before["heldout/strict"])
    step, seconds = (before[key] + share * (after[key] - before[key]) for key in ("step", "seconds"))
    return float(step), float(seconds)
