"""Checks of notebook 08: a stopping rule that spares healthy runs, and a cause with its evidence."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from rlvr_kit.paths import project_path
from rlvr_kit.run_folder import Run
from rlvr_kit.tutorial.exercises import Wrong, check, run, shown


def _with_equal_groups(log: pd.DataFrame, steps: Iterable[int]) -> pd.DataFrame:
    """The log as if nothing had been paid and all groups had been equal in these steps."""
    hit = log.step.isin([*steps])
    changed = {"equal_groups": 1.0, "reward": 0.0, "truncated": 1.0, "grad_norm": 0.0, "loss": 0.0}
    return log.assign(**{name: log[name].mask(hit, value) for name, value in changed.items()})


def _first_ring(rule: Callable[[pd.DataFrame], Any], log: pd.DataFrame) -> int | None:
    """The first step after which the rule ends the run, given the log as it was then; None: it never does."""
    for step in log.step[log.step > 0]:
        ends = run(rule, log[log.step <= step])
        if not isinstance(ends, bool | np.bool_):
            raise Wrong(
                f"after step {step} your rule returns {shown(ends)}: return True (stop) or False (go on)"
            )
        if ends:
            return int(step)
    return None


@check
def check_stop(answer: Callable[[pd.DataFrame], Any]) -> str:
    """`should_stop(log)`, asked after each step of runs that are to be ended and of runs that are to be spared."""
    logs = {
        name: Run(project_path("notebooks/samples") / name).log()
        for name in ("cpu", "collapsed", "truncated")
    }
    healthy = logs["cpu"]
    spared = {
        "the healthy run": healthy,
        "a healthy run with a bad patch (nothing is paid in steps 9 to 12)":
            _with_equal_groups(healthy, range(9, 13)),
        "a healthy run that begins slowly (nothing is paid in its first four steps)":
            _with_equal_groups(healthy, range(1, 5)),
        "a healthy run in which nothing is paid in eight steps of nine (5 to 13, and something in step 9)":
            _with_equal_groups(healthy, [*range(5, 9), *range(10, 14)]).assign(
                equal_groups=lambda log: log.equal_groups.mask(log.step == 9, 0.75)
            ),
    }  # fmt: skip
    for name, log in spared.items():
        step = _first_ring(answer, log)
        if step is not None:
            raise Wrong(f"your rule ends {name} at step {step}. {_why_it_rang(log, step)}")
    rang: dict[str, int] = {}
    for patient, name in {"B": "collapsed", "D": "truncated"}.items():
        step = _first_ring(answer, logs[name])
        if step is None:
            raise Wrong(
                f"your rule never ends patient {patient}. {_why_it_slept(patient, answer, logs[name])}"
            )
        rang[patient] = step
    saved = {
        p: _minutes_saved(logs[name], rang[p]) for p, name in {"B": "collapsed", "D": "truncated"}.items()
    }
    return (
        "it spares four healthy runs, three of them with four bad steps in a row, and ends B after step "
        f"{rang['B']} and D "
        f"after step {rang['D']}, which would have saved {saved['B']:.1f} and {saved['D']:.1f} minutes."
    )


def _minutes_saved(log: pd.DataFrame, step: int) -> float:
    seconds = log.set_index("step").seconds
    return float(seconds.max() - seconds[step]) / 60


def _why_it_rang(log: pd.DataFrame, step: int) -> str:
    bad = int((log[log.step.between(step - 4, step)].equal_groups == 1).sum())
    if bad == step < 5:
        return (
            f"Only {step} step(s) are logged then, so `tail(5)` has fewer than five rows: ask how many there "
            "are before you "
            "judge them"
        )
    if bad == 0:
        return "Nothing is wrong with it there: groups differ, and completions are paid"
    return (
        f"Of the five steps up to then {bad} have nothing to learn from. Steps like that come and go, and a "
        "mean or a single "
        "dot lets them speak for all: ask whether *each* of the last five is bad"
    )


def _why_it_slept(patient: str, rule: Callable[[pd.DataFrame], Any], log: pd.DataFrame) -> str:
    longer = pd.concat(
        [log, *[log.tail(1).assign(step=log.step.max() + i) for i in range(1, 41)]], ignore_index=True
    )
    if (step := _first_ring(rule, longer)) is not None:
        late = step - int(log[(log.step > 0) & (log.equal_groups < 1)].step.max() if patient == "B" else 0)
        return (
            f"It would have rung after {late} steps without a signal, and the run has fewer: be less patient"
        )
    if patient == "D":
        return (
            "That run was bad from its first step, so nothing in it ever *fell*: look at what is there "
            "(equal groups, "
            "completions that were cut off, rewards), and not at how it has changed"
        )
    return (
        "From step 5 on all its groups are equal and no completion is paid: which column of the log says so?"
    )


_GOAL = {"heldout/strict", "heldout/lenient"}
_PAID = {"reward", "rewards/format", "heldout/format"}
_STOPPED = {*_GOAL, *_PAID, "rewards/correct", "equal_groups", "length"}
#: By patient: two kinds of columns of which one each is needed, and what is missing where only the other kind is there.
EVIDENCE: dict[str, tuple[tuple[set[str], str], tuple[set[str], str]]] = {
    "A": (
        (
            {*_PAID, "warning/hacking"},
            "that accuracy does not rise may have any cause. Show as well that what is *paid* goes up",
        ),
        (_GOAL, "that looks like a run that goes well. What should rise with it, and does not? The verifier knows"),
    ),
    "B": (
        (
            {"grad_norm", "length", "entropy"},
            "patient D has these signs too, from its first step on. Show what *jumped* in B before "
            "everything stood still",
        ),
        (
            {*_STOPPED, "truncated", "heldout/truncated"},
            "a jump alone does no harm: show what came of it, that nothing can be learned after it",
        ),
    ),
    "D": (
        (
            {"truncated", "heldout/truncated", "length"},
            "nothing is paid in patient B either, in the end. Show *why* no completion of D can earn anything",
        ),
        (
            _STOPPED - {"length"},
            "a healthy run may begin with many cut off, too. Show that here none of them earns anything",
        ),
    ),
}  # fmt: skip


@check
def check_evidence(answer: Any) -> str:
    """`evidence`: for three patients, two columns of the log that show the cause together."""
    if not isinstance(answer, dict) or {*answer} != {*EVIDENCE}:
        raise Wrong(
            f"write a pair of columns behind each of the letters {', '.join(EVIDENCE)}; you have {shown(answer)}"
        )
    for patient, name in {"A": "hacked", "B": "collapsed", "D": "truncated"}.items():
        log, pair = Run(project_path("notebooks/samples") / name).log(), answer[patient]
        if not isinstance(pair, tuple | list | set) or len({*map(str, pair)}) != 2:
            raise Wrong(f"{patient}: two different columns are asked for, and you have {shown(pair)}")
        if unknown := [column for column in pair if str(column) not in log]:
            raise Wrong(f"{patient}: its log has no column {unknown[0]!r}; it has {', '.join(log.columns)}")
        useful = set().union(*(columns for columns, _ in EVIDENCE[patient]))
        missing = [reason for columns, reason in EVIDENCE[patient] if not columns & {*pair}]
        if wrong := _idle(pair, useful) or "; and ".join(missing):
            raise Wrong(f"{patient}, {' and '.join(pair)}: {wrong}")
    return (
        "in each pair one column shows what happened and the other that it did harm; one alone fits other causes. "
        "For A a third thing is needed to rule out C: its log has no column rewards/correct."
    )


def _idle(pair: Iterable[str], useful: set[str]) -> str:
    """What is wrong with a column that is evidence for nothing here."""
    idle = [column for column in pair if column not in useful]
    clock = {"step", "seconds", "completions", "heldout/n", "learning_rate"}
    if idle and idle[0] in clock:
        return f"{idle[0]} is the same in every run that long, or was set beforehand: it is no sign"
    return (
        f"{idle[0]} says nothing about this cause: look at the panels in which this patient differs most"
        if idle
        else ""
    )
