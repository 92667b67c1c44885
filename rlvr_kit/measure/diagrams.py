"""Pictures that explain an idea and show no measurement. The notebooks draw each of them with one call."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlvr_kit.measure.plots import COLORS

_BOX = {"boxstyle": "round,pad=0.6", "facecolor": "#e8f1f8", "edgecolor": COLORS[0]}


def one_turn() -> Figure:
    """Draw one turn of reinforcement learning: from the question to the reward, and back into the policy."""
    figure, ax = plt.subplots(figsize=(9.5, 3.2), layout="constrained")
    plt.close(figure)  # shown as the value of a cell, and not a second time by pyplot
    words = ["question", "policy:\na language model", "verifier:\na program", "reward:\n0, 0.5 or 1.5"]
    boxes = [ax.text(x, 0, text, ha="center", va="center", bbox=_BOX) for x, text in enumerate(words)]
    for start, text in enumerate(["prompt", "completion", "verdict"]):
        _arrow(ax, boxes[start], boxes[start + 1], text, (start + 0.5, 0.2))
    _arrow(ax, boxes[3], boxes[1], "make what was rewarded more likely", (2, 1.02), bend=0.45)
    _arrow(ax, boxes[0], boxes[2], "gold: never shown to the policy", (1, -1.02), bend=0.45)
    ax.set(
        xlim=(-0.45, 3.45),
        ylim=(-1.25, 1.25),
        title="Reinforcement learning with verifiable rewards: one turn",
    )
    ax.axis("off")
    return figure


def group_advantages(rewards: Sequence[float], advantages: Sequence[float]) -> Figure:
    """Draw the rewards of one group beside their advantages, with a bar for each completion.

    >>> group_advantages([1.5, 0, 0.5], [1.1, -0.9, -0.2])  # doctest: +SKIP
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3), layout="constrained")
    plt.close(figure)
    names, mean, better = np.arange(1, len(rewards) + 1), float(np.mean(rewards)), np.asarray(advantages) > 0
    left.bar(names, rewards, color="#999999")
    left.axhline(mean, color="black", ls="--", label=f"the group's mean, {mean:.2f}")
    left.set(title="What each completion earned", xlabel="completion", ylabel="reward (points)", xticks=names)
    left.legend(frameon=False)
    right.bar(names, advantages, color=np.where(better, COLORS[0], COLORS[1]))
    right.axhline(0, color="black", lw=0.8)
    right.set(title="What GRPO makes of it: up (blue), down (orange)", xlabel="completion", xticks=names)
    right.set_ylabel("advantage\n(standard deviations)")
    return figure


def shared_beginnings(parts: Sequence[tuple[str, int, int]], completions: int) -> Figure:
    """Draw what is computed for a batch with and without sharing. A filled block is computed, white is reused.

    `parts` lists, from the beginning of the sequence to its end: name, tokens, and how many completions share it.

    >>> shared_beginnings([("question", 30, 8), ("completion", 40, 1)], completions=16)  # doctest: +SKIP
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    plt.close(figure)
    for ax, name in zip(axes, ("stock TRL", "this kit"), strict=True):
        left = computed = 0
        for label, tokens, sharing in parts:
            rows = np.arange(0, completions, sharing if name == "this kit" else 1)
            ax.barh(rows, tokens, left=left, label=label)
            left, computed = left + tokens, computed + tokens * len(rows)
        ax.set(title=f"{name}: {computed:,} token positions", xlabel="position in the sequence (tokens)")
    axes[0].set_ylabel("completion")
    axes[0].invert_yaxis()
    axes[1].legend(loc="lower left")
    return figure


def _arrow(ax: Axes, start: Any, end: Any, text: str, at: tuple[float, float], bend: float = 0.0) -> None:
    """Draw an arrow with a label from the edge of one text box to the edge of another."""
    style = {"arrowstyle": "-|>", "color": "black", "lw": 1.3, "connectionstyle": f"arc3,rad={bend}"}
    edges = {"patchA": start.get_bbox_patch(), "patchB": end.get_bbox_patch(), "shrinkA": 2, "shrinkB": 2}
    ax.annotate("", end.get_position(), start.get_position(), arrowprops=style | edges)
    ax.text(*at, text, ha="center", va="center", color=COLORS[1], fontsize=10)


def training_job() -> Figure:
    """Draw which folders a training job shares between this machine, S3 and the rented machine."""
    figure, ax = plt.subplots(figsize=(10, 3.6), layout="constrained")
    plt.close(figure)
    places = ["this machine", "S3: rlvr-kit/<job>/", "the rented machine: /opt/ml/"]
    rows = [
        ("submit(plan)", "input: code, data", "input/data", "->", "->"),
        ("follow(job)", "CloudWatch: log, metrics", "what training prints", "<-", "<-"),
        ("", "checkpoints", "checkpoints", "", "<->"),
        ("fetch(job)", "output/model.tar.gz", "model", "<-", "<-"),
    ]
    for x, place in enumerate(places):
        ax.text(x, 0.75, place, ha="center", fontweight="bold")
    for row, (*words, left, right) in enumerate(rows):
        boxes = [
            ax.text(x, -row, text, ha="center", va="center", bbox=_BOX if text else None)
            for x, text in enumerate(words)
        ]
        for start, end, arrow in zip(boxes, boxes[1:], (left, right), strict=False):
            if arrow:
                look = {"arrowstyle": arrow, "patchA": start.get_bbox_patch(), "patchB": end.get_bbox_patch()}
                ax.annotate("", end.get_position(), start.get_position(), arrowprops=look)
    ax.set(xlim=(-0.4, 2.45), ylim=(-3.5, 1.1))
    ax.axis("off")
    return figure
