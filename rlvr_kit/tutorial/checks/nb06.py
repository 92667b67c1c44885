"""Checks of notebook 06: the batch arithmetic of a step, and a verdict on a log."""

import math
from collections.abc import Callable
from typing import Any

import pandas as pd

from rlvr_kit.paths import project_path
from rlvr_kit.recipe import load_recipe
from rlvr_kit.run_folder import Run
from rlvr_kit.tutorial.exercises import Wrong, check, first_difference, run, shown

#: Completions in a pass, passes, processes, group size.
BATCHES = [(16, 4, 1, 8), (8, 1, 2, 4), (4, 6, 1, 8), (4, 8, 2, 16)]
WRONG_BATCHES = {
    "you count completions. A group of them belongs to one problem, so divide by the size of a group":
        lambda batch, passes, processes, group: batch * passes * processes,
    "`per_device_train_batch_size` counts completions, not problems: neither multiply by the group nor leave "
    "it out":
        lambda batch, passes, processes, group: batch * passes * processes * group,
    "you left out gradient accumulation: the optimizer waits until so many passes have added up their gradients":
        lambda batch, passes, processes, group: batch * processes // group,
    "you left out the processes: each of them has a batch of its own":
        lambda batch, passes, processes, group: batch * passes // group,
    "the processes work on different completions, so they multiply the batch and do not share it out":
        lambda batch, passes, processes, group: batch * passes / processes // group,
    "the passes add up before the optimizer moves: multiply by them":
        lambda batch, passes, processes, group: batch * processes // (group * passes),
    "you round too early: a group may be spread over several passes, so multiply first and divide at the end":
        lambda batch, passes, processes, group: batch // group * passes * processes,
    "this is one pass on one device. A step is all passes on all devices":
        lambda batch, passes, processes, group: batch // group,
    "this is upside down: completions are divided by the size of a group":
        lambda batch, passes, processes, group: group / (batch * passes * processes),
}  # fmt: skip


def planned_problems(batch: int, passes: int, processes: int, group: int) -> int:
    """Problems in a step, as `plan` works them out for the recipe `smoke` with these settings."""
    from rlvr_kit.training.plan import plan

    given = {
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": passes,
        "num_generations": group,
    }
    settings = [f"grpo.{key}={value}" for key, value in given.items()]
    return plan(load_recipe("smoke", settings), gpu_memory=math.inf, devices=processes).prompts


@check
def check_problems(answer: Callable[..., Any]) -> str:
    """`problems_in_a_step(batch, passes, processes, group)` against `plan`."""

    def whole(*case: int) -> Any:  # whether a mistake divides with / or with // is no matter
        got = answer(*case)
        return math.floor(got) if isinstance(got, float) else got

    run(answer, *BATCHES[0])
    difference = first_difference(whole, planned_problems, BATCHES, WRONG_BATCHES)
    if difference:
        case, got, expected = difference
        batch, passes, processes, group = case
        raise Wrong(
            f"for {passes} passes of {batch} completions on {processes} device(s) in groups of {group} you have "
            f"{shown(got)}, and `plan` has {expected}: how many completions are that, and how many groups?"
        )
    return f"in all {len(BATCHES)} cases `plan` has the same number: completions of all passes and devices, by groups."


VERDICTS = ("cut off", "equal groups", "can learn")


def verdict(log: pd.DataFrame, few: int = 5, half: float = 0.5) -> str:
    """What the last steps of a log say, by the rule of the exercise."""
    last = log.dropna(subset=["reward"]).tail(few)
    return _said(last.truncated.mean() >= half, last.equal_groups.mean() >= half)


def _said(cut: bool, equal: bool) -> str:
    return VERDICTS[0] if cut else VERDICTS[1] if equal else VERDICTS[2]


def _made_up(truncated: list[float], equal_groups: list[float], loss: float = 0.0) -> pd.DataFrame:
    """A log with these shares from step 1 on, a held-out measurement every fourth step, one of them before step 1."""
    steps = pd.DataFrame({"truncated": truncated, "equal_groups": equal_groups})
    steps = steps.assign(reward=0.3, loss=loss, grad_norm=0.4, step=range(1, len(steps) + 1))
    log = pd.concat([pd.DataFrame({"step": [0]}), steps], ignore_index=True)
    return log.assign(**{"heldout/strict": log.step.mod(4).map({0: 0.3})})


def logs() -> dict[str, pd.DataFrame]:
    """The logs that a verdict is tried on: the committed runs, and some that hold one difficulty each."""
    samples = project_path("notebooks/samples")
    real = {
        f"the committed run `{name}`": Run(samples / name).log() for name in ("cpu", "truncated", "collapsed")
    }
    return real | {
        "a run that recovered (9 of 10 cut off at first, none at the end)":
            _made_up([0.9] * 8 + [0.0] * 5, [0.9] * 8 + [0.2] * 5),
        "a run that stalls (groups differ at first, and hardly any at the end)":
            _made_up([0.1] * 13, [0.1] * 8 + [0.9] * 5),
        "a run whose last step alone is bad": _made_up([0.0] * 9 + [1.0], [0.2] * 9 + [1.0]),
        "a run with one bad step shortly before its end": _made_up([0.0] * 7 + [1.0, 0.0, 0.0], [0.2] * 10),
        "a long run with a bad beginning": _made_up([0.9] * 5 + [0.0] * 30, [0.1] * 35),
        "a run in which most are cut off, and a few get through in every group": _made_up([0.8] * 9, [0.1] * 9),
        "a run with a measurement after its last step":
            _made_up([0.0] * 5 + [1.0] * 2 + [0.4] * 4, [0.2] * 11).reindex(range(13)).fillna({"step": 11}),
        "a run with one good step among its last five": _made_up([0.0] * 5 + [1.0, 1.0, 0.2, 1.0, 1.0], [0.1] * 10),
        "a run whose last six steps are worse than its last five":
            _made_up([0.0] * 3 + [1.0, 0.7, 0.7, 0.7, 0.1, 0.1], [0.1] * 9),
        "a run with exactly half cut off": _made_up([0.5, 1.0] + [0.375] * 4, [0.1] * 6),
        "a run with exactly half of its groups equal": _made_up([0.1] * 6, [0.5] * 6, loss=0.1),
    }  # fmt: skip


def _tail(log: pd.DataFrame, few: int = 5) -> pd.DataFrame:
    return log.dropna(subset=["reward"]).tail(few)


WRONG_VERDICTS: dict[str, Any] = {
    "you take the mean of the whole run, so a bad beginning is held against a run that has recovered: the "
    "last five "
    "steps say how it stands":
        lambda log: verdict(log, few=len(log)),
    "these are the first five steps; how a run stands is in the last five (`tail`)":
        lambda log: verdict(log.dropna(subset=["reward"]).head(5)),
    "one step is a few completions, and a single dot says little: take the mean of five":
        lambda log: verdict(log, few=1),
    "you ask for equal groups first. Where everything is cut off nothing is paid, so the groups are equal "
    "*because* of "
    "that: ask for the cause first":
        lambda log: VERDICTS[1] if _tail(log).equal_groups.mean() >= 0.5
        else VERDICTS[0] if _tail(log).truncated.mean() >= 0.5 else VERDICTS[2],
    "half or more: a share of exactly 0.5 counts, so compare with >= and not with >":
        [
            lambda log: verdict(log, half=0.5001),
            lambda log: _said(_tail(log).truncated.mean() > 0.5, _tail(log).equal_groups.mean() >= 0.5),
        ],
    "you look at cut-off completions only; a group can be equal for another reason":
        lambda log: _said(_tail(log).truncated.mean() >= 0.5, False),
    "you look at equal groups only, and do not ask why they are equal":
        lambda log: _said(False, _tail(log).equal_groups.mean() >= 0.5),
    "one bad step among the last five is enough for you (`max`): the exercise asks for their mean":
        lambda log: _said(_tail(log).truncated.max() >= 0.5, _tail(log).equal_groups.max() >= 0.5),
    "you ask whether every one of the last five steps is bad (`min`); the exercise asks for their mean":
        lambda log: _said(_tail(log).truncated.min() >= 0.5, _tail(log).equal_groups.min() >= 0.5),
    "you ask whether most of the five steps are bad; the exercise asks for their mean":
        lambda log: _said(_tail(log).truncated.median() >= 0.5, _tail(log).equal_groups.median() >= 0.5),
    "a row without a reward is a measurement and no training step: drop such rows (dropna, by `reward`) and take five":
        lambda log: _said(log.tail(5).truncated.mean() >= 0.5, log.tail(5).equal_groups.mean() >= 0.5),
    "dropna() drops each row with any gap, and most steps have no held-out numbers: name the column, `reward`":
        lambda log: verdict(log.dropna()),
    "the exercise asks for the last five steps, and these are more or fewer":
        [lambda log, few=few: verdict(log, few) for few in (2, 3, 4, 6, 8, 10)],
    "a loss of 0 is no illness: with one update for each batch it is near 0 in a run that learns as well":
        lambda log: VERDICTS[2] if log.loss.tail(5).abs().mean() > 1e-3 else VERDICTS[1],
}  # fmt: skip


@check
def check_verdict(answer: Callable[[pd.DataFrame], Any]) -> str:
    """`verdict(log)` on committed logs and on some that were made up for it."""
    tried = logs()
    results = {name: run(answer, log, like="") for name, log in tried.items()}
    for name, result in results.items():
        if result not in VERDICTS:
            raise Wrong(f"for {name} you return {shown(result)}; it should be one of: {', '.join(VERDICTS)}")
    if len({*results.values()}) == 1:
        if run(answer, _made_up([90.0] * 6, [0.0] * 6)) == VERDICTS[0]:
            raise Wrong("the log keeps shares from 0 to 1, so half is 0.5 and not 50")
        raise Wrong(f"whatever the log, you say *{results.popitem()[1]}*: does your function look at it?")
    first_difference(answer, verdict, [(log,) for log in tried.values()], WRONG_VERDICTS)
    for name, log in tried.items():
        if results[name] != verdict(log):
            last = _tail(log)
            raise Wrong(
                f"{name} is *{verdict(log)}*, and you say *{results[name]}*. In its last five steps "
                f"{last.truncated.mean():.0%} are cut off and {last.equal_groups.mean():.0%} of the groups are equal"
            )
    return f"all {len(tried)} logs get the verdict of the rule, the run that recovered and the one that stalls as well."
