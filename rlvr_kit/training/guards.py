"""Stop a run that cannot learn any more, and warn of a run that learns the wrong thing.

A guard is a function that reads the lines of log.jsonl so far. When it finds its sign of trouble, it returns one or two
sentences about it; otherwise it returns None. ``callbacks.RunKeeper`` calls :func:`check` after every step, unless the
recipe says ``run.guards: false``.
"""

import math
from typing import Any

import pandas as pd

from rlvr_kit.measure.signs import heldout_change
from rlvr_kit.measure.statistics import fell_p

Line = dict[str, Any]  # one line of log.jsonl

#: At this share of cut-off completions nearly all are cut off: 29 of 32.
TRUNCATED_SHARE = 0.9
#: So many steps in a row. A base model that writes too much starts with 72 % cut off, and has 34 % two steps later (cpu
#: recipe), so eight steps are more than a slow start. A run of a few steps, such as `smoke`, is never stopped by this.
TRUNCATED_STEPS = 8
#: So many steps in a row without any signal. On hard problems the first reward may take ten steps, and a good run has
#: single steps without signal (the cpu recipe has only 8 groups a step). Twenty in a row are neither of the two.
EQUAL_STEPS = 20
#: Entropy of a whole completion in nats: entropy a token x tokens. At 0.5 the policy is as undecided as between
#: e^0.5 = 1.6 equally likely completions, so a group is mostly copies. Ten good runs of the cpu recipe stay above 2.5.
ENTROPY_NATS = 0.5
#: The entropy is averaged over so many steps, because that of single steps varies a lot.
ENTROPY_STEPS = 5
#: The chance of a false alarm at one measurement; a run has about five of them.
FELL_P = 0.025
#: So many measurements in a row. The format is learned first and accuracy later, so a good run (cpu, 64 problems)
#: looks like a hacked one at its first measurement.
HACKED_MEASUREMENTS = 3


def check(lines: list[Line]) -> Line:
    """Return what the guards find in the newest of the log's ``lines``: sentences by key, an empty dictionary mostly.

    ``stopped``: the run has failed. ``stopped_early``: the run ends and keeps the best model so far.
    ``warning/...``: the run continues. What an earlier line already says is not repeated.

    >>> check([{"step": 7, "loss": float("nan"), "learning_rate": 1.0}])["stopped"][:31]
    'step 7: loss is NaN or infinite'
    """
    found = {
        "stopped": not_finite(lines[-1]) or all_truncated(lines) or all_equal(lines),
        "stopped_early": accuracy_fell(lines),
        "warning/entropy": entropy_collapsed(lines),
        "warning/hacking": format_without_accuracy(lines),
    }
    step, said = lines[-1]["step"], {key for line in lines[:-1] for key in line} - {"stopped"}
    return {key: f"step {step}: {text}" for key, text in found.items() if text and key not in said}


def not_finite(line: Line) -> str | None:
    """Find NaN or infinity (null in the file) in reward, loss, gradient or logits: the weights are spoilt."""
    values = {key: line[key] for key in ("reward", "loss", "grad_norm", "logits") if key in line}
    wrong = [key for key, value in values.items() if value is None or not math.isfinite(value)]
    if not wrong:
        return None
    if "reward" in wrong:
        return (
            "reward is NaN or infinite, so no advantage can be computed. Every reward function must return a finite "
            "number for each completion, or None for one that it cannot judge, and not for all of them"
        )
    rate = line.get("learning_rate", math.nan)
    return (
        f"{' and '.join(wrong)} is NaN or infinite, so the weights are spoilt. The likely cause is updates that are "
        f"too large: divide grpo.learning_rate (now {rate:g}) by ten, or lower grpo.max_grad_norm"
    )


def all_truncated(lines: list[Line]) -> str | None:
    """Find that nearly every completion was cut off at the token limit, for several steps in a row."""
    trained = [line for line in lines if "truncated" in line]
    last = trained[-TRUNCATED_STEPS:]
    if len(last) < TRUNCATED_STEPS or any(line["truncated"] < TRUNCATED_SHARE for line in last):
        return None
    seen = (
        f"at least {TRUNCATED_SHARE:.0%} of the completions of the last {TRUNCATED_STEPS} steps were cut off, after "
        f"{last[-1]['length']:.0f} tokens on average, and what is cut off has no answer line to be paid for. "
    )
    if any(line["truncated"] < 0.5 for line in trained):
        return (
            f"{seen}Earlier most did end, so the likely cause is an update that threw the policy out of what it "
            "could write: divide grpo.learning_rate by three to ten, or add grpo.warmup_steps"
        )
    return (
        f"{seen}So it was from the start, and the likely cause is a limit below what an answer needs: raise "
        "grpo.max_completion_length, or show the format in examples (prompt.shots)"
    )


def all_equal(lines: list[Line]) -> str | None:
    """Find that all rewards of each group were equal, for many steps in a row: nothing can be learned."""
    last = [line for line in lines if "equal_groups" in line][-EQUAL_STEPS:]
    if len(last) < EQUAL_STEPS or any(line["equal_groups"] < 1 for line in last):
        return None
    mean = sum(line["reward"] for line in last) / len(last)
    seen = (
        f"for {EQUAL_STEPS} steps all rewards of each group were equal (mean reward {mean:.2f}), and without a "
        "difference there is nothing to learn from. "
    )
    if mean > 0:
        return (
            f"{seen}Something is earned, so the likely cause is that all that is paid for has been reached, or the "
            "policy writes one thing only: read completions/, then take harder problems (data.max_steps), "
            "a higher grpo.temperature or a reward that tells more apart"
        )
    return (
        f"{seen}Nothing is earned, so the likely cause is problems that are too hard or a format that is never hit: "
        "easier problems (data.max_steps), examples (prompt.shots), larger groups (grpo.num_generations)"
    )


def entropy_collapsed(lines: list[Line]) -> str | None:
    """Find that the policy always writes nearly the same, so that the completions of a group are copies."""
    last = [line for line in lines if line.get("entropy") is not None and "length" in line][-ENTROPY_STEPS:]
    nats = [line["entropy"] * line["length"] for line in last]
    if len(nats) < ENTROPY_STEPS or sum(nats) / len(nats) >= ENTROPY_NATS:
        return None
    return (
        f"entropy has collapsed: {sum(nats) / len(nats):.2f} nats a completion over the last {ENTROPY_STEPS} steps, "
        "so the completions of a group are nearly all alike. If accuracy is still low, the policy decided too "
        "early: lower grpo.learning_rate, raise grpo.temperature or add grpo.entropy_coef"
    )


def format_without_accuracy(lines: list[Line]) -> str | None:
    """Find that the held-out format has risen and strict accuracy has not, by Fisher's exact test."""
    start, *later = [line for line in lines if "heldout/strict" in line] or [{}]
    last = later[-HACKED_MEASUREMENTS:]
    if len(last) < HACKED_MEASUREMENTS or "heldout/strict" not in lines[-1]:
        return None
    if not all(_rose(start, line, "format") and not _rose(start, line, "strict") for line in last):
        return None
    first, now = (
        {key: f"{line[f'heldout/{key}']:.0%}" for key in ("format", "strict")} for line in (start, last[-1])
    )
    return (
        f"format rises and accuracy does not: held-out format {first['format']} → {now['format']}, strict "
        f"{first['strict']} → {now['strict']} (n={start['heldout/n']}), at {HACKED_MEASUREMENTS} measurements in a row "
        "not significantly above the first (Fisher's exact test). It may be paid for something else than solving: read "
        "completions/, and compare the rewards section with what is wanted"
    )


def accuracy_fell(lines: list[Line]) -> str | None:
    """Find that held-out strict accuracy is significantly below its start: training makes the model worse."""
    measured = [line for line in lines if "heldout/strict" in line]
    if len(measured) < 2 or "heldout/strict" not in lines[-1]:
        return None
    first, now, n = measured[0]["heldout/strict"], lines[-1]["heldout/strict"], lines[-1]["heldout/n"]
    p = fell_p(round(first * n), round(now * n), n)
    if p >= FELL_P:
        return None
    shown = "< 0.001" if p < 0.001 else f"= {p:.3f}"
    return (
        f"held-out strict accuracy has fallen from {first:.0%} to {now:.0%} (n={n}, Fisher's exact test, one-sided "
        f"p {shown}), so training unlearns what the model could do. The likely cause is updates that are too large, or "
        "samples that are hardly ever right, so that only wrong answers are pushed away: divide grpo.learning_rate by "
        "two or three, lower grpo.temperature (0.7), or take more problems a step. The model that is saved is the one "
        "of the best measurement"
    )


def _rose(start: Line, now: Line, key: str) -> bool:
    """Whether a held-out share is significantly above the first one, by the rule by which notebooks say so."""
    return heldout_change(pd.DataFrame([start, now]), key)[0] == "gain"
