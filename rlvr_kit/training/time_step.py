"""How long a training step takes on this machine: a few real steps are timed, and nothing of them is kept."""

import contextlib
import io
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape

from rlvr_kit.errors import UserError
from rlvr_kit.machine import release_memory
from rlvr_kit.recipe import Recipe
from rlvr_kit.training.plan import Plan, plan
from rlvr_kit.training.train import train


def timed_plan(recipe: Recipe) -> Plan:
    """As :func:`plan`, with the time of a step on this machine and so of the whole run.

    >>> timed_plan(load_recipe("smoke")).minutes < 10  # doctest: +SKIP
    True
    """
    planned = plan(recipe)
    if planned.remark:  # the model is not here
        return planned
    Console(stderr=True).print(f"timing a training step of recipe {escape(recipe.name)} on this machine …")
    try:
        return plan(recipe, seconds=time_step(recipe))
    except UserError as error:  # such as weights that are not here, though their sizes are
        return replace(planned, remark=str(error))


def time_step(recipe: Recipe) -> dict[str, float]:
    """Seconds of one training step on this machine, ``sampling`` and ``learning``; nothing of it is kept.

    Loads the model and trains on real prompts, with rewards that make every group count. Real steps leave out
    groups whose rewards are equal, so they take as long or less. On a GPU a first step warms up, uncounted.
    """
    few = recipe.evaluation.model_copy(update={"heldout": 1, "every_steps": 1000})
    # Every step samples what it learns from, whether or not the recipe reuses completions: plan.py counts how often.
    once = {"max_steps": 3, "num_iterations": 1, "steps_per_generation": None, "generation_batch_size": None}
    short = recipe.model_copy(update={"grpo": recipe.grpo | once, "evaluation": few})
    moments: list[float] = []  # step 0 logged, step 1 scored, step 1 logged, step 2 scored, step 2 logged

    def score(completions: list, **kwargs: Any) -> list[float]:
        moments.append(time.perf_counter())
        return [float(i % 2) for i in range(len(completions))]

    def stop(run: Any) -> None:
        moments.append(time.perf_counter())
        if len(moments) == (5 if torch.cuda.is_available() else 3):
            raise _Enough

    unseen = io.StringIO()  # the progress bar and the log lines of a run that nobody asked for
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(unseen),
        contextlib.redirect_stderr(unseen),
        contextlib.suppress(_Enough),
    ):
        train(short, Path(folder) / "probe", rewards=[score], live=stop)
    release_memory()
    before, scored, after = moments[-3:]
    return {"sampling": scored - before, "learning": after - scored}


class _Enough(Exception):
    pass
