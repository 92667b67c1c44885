"""Signs of trouble in a training log: each says in one sentence what the log shows, and what to try against it.

A held-out curve has shares but no rows, so its first and last points are compared with Fisher's exact test. That test
does not use that both points are of the same problems, so it is more cautious than the paired test of statistics.py.
"""

from typing import Literal, NamedTuple

import pandas as pd

from rlvr_kit.recipe import Recipe

Outcome = Literal["gain", "no difference", "loss"]

SIGNIFICANT = 0.05
FEW = 5  # steps at the beginning and at the end of a run whose means are compared


class Sign(NamedTuple):
    """What the log shows, and what to try against it ("" when the first sentence already says so)."""

    seen: str
    remedy: str


def heldout_change(log: pd.DataFrame, key: str = "strict") -> tuple[Outcome, str]:
    """Say how the held-out share `key` changed from the first to the last measurement: the outcome, and a sentence.

    >>> heldout_change(run.log())[1]  # doctest: +SKIP
    'held-out strict 18.8% -> 59.4% of 64 problems, Fisher p < 0.001'
    """
    from scipy.stats import fisher_exact  # takes a second to load, which scoring does not need

    measured = log.dropna(subset=[f"heldout/{key}"]) if f"heldout/{key}" in log else log.iloc[:0]
    if len(measured) < 2:
        return "no difference", f"held-out {key} was measured less than twice"
    n = int(measured["heldout/n"].iloc[0])
    first, last = measured[f"heldout/{key}"].iloc[[0, -1]]
    solved = [round(first * n), round(last * n)]
    p = float(fisher_exact([[k, n - k] for k in solved]).pvalue)
    shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    sentence = f"held-out {key} {first:.1%} -> {last:.1%} of {n} problems, Fisher {shown}"
    if p >= SIGNIFICANT:
        return "no difference", sentence
    return ("gain" if last > first else "loss"), sentence


def signs(log: pd.DataFrame, recipe: Recipe) -> list[Sign]:
    """Return the signs of trouble in a log, causes before symptoms; none for a log without training steps.

    >>> [sign.remedy for sign in signs(run.log(), run.recipe())]  # doctest: +SKIP
    """
    steps = log.dropna(subset=["reward"]) if "reward" in log else log.iloc[:0]
    if steps.empty:
        return []
    found = [_cut_off(steps), _nothing_paid(steps), _rarely_right(steps, recipe), _past_its_best(log, recipe)]
    found += [_form_only(log), _nothing_to_compare(steps)]
    said = [key for key in log if str(key).startswith(("stopped", "warning/"))]
    for text in (str(log[key].dropna().iloc[0]) for key in said if log[key].notna().any()):
        found.append(Sign(f"The kit's own guard said, at {text}.", ""))
    return [sign for sign in found if sign]


def _cut_off(steps: pd.DataFrame) -> Sign | None:
    first, last = steps["truncated"].head(FEW).mean(), steps["truncated"].tail(FEW).mean()
    if last < 0.5:
        return None
    return Sign(
        f"In the last {FEW} steps {last:.1%} of the completions were cut off ({first:.1%} in the first {FEW}), and "
        "a completion that is cut off has no answer line that could be paid.",
        "A higher `grpo.max_completion_length` if it was so from the start, otherwise a lower `grpo.learning_rate`.",
    )


def _nothing_paid(steps: pd.DataFrame) -> Sign | None:
    if steps["reward"].max() > 0:
        return None
    return Sign(
        "No completion earned anything, so every advantage was 0 and no update had a direction.",
        "Easier problems (`data.max_steps`), exemplars in the prompt (`prompt.shots`) or a better model.",
    )


def _rarely_right(steps: pd.DataFrame, recipe: Recipe) -> Sign | None:
    parts = [column.removeprefix("rewards/") for column in steps if column.startswith("rewards/")]
    if "correct" not in parts:
        seen = f"The reward has no part for a correct answer; it pays for: {', '.join(parts) or 'nothing named'}."
        return Sign(seen, "A reward that pays for what is wanted, as that of the recipe does.")
    right = steps["rewards/correct"] / (recipe.rewards.correct or 1)
    first, last = right.head(FEW).mean(), right.tail(FEW).mean()
    if last >= 0.1 or steps["reward"].tail(FEW).max() == 0:  # when nothing is paid, another sign says why
        return None
    return Sign(
        f"Of the sampled completions {first:.1%} were right in the first {FEW} steps and {last:.1%} in the last {FEW}. "
        "With so few, the format is nearly all that can be learned, and pushing wrong completions down can cost "
        "arithmetic that the model had.",
        f"A lower `grpo.temperature` (here {recipe.grpo.get('temperature', 1.0)}), since a small model's samples are "
        "worse than its greedy answers, and a lower `grpo.learning_rate`.",
    )


def _past_its_best(log: pd.DataFrame, recipe: Recipe) -> Sign | None:
    if "heldout/strict" not in log:
        return None
    measured = log.dropna(subset=["heldout/strict"]).reset_index(drop=True)
    best = int(measured["heldout/strict"].argmax())
    kind, _ = heldout_change(measured.iloc[best:])
    if kind != "loss":
        return None
    steps, shares = measured["step"], measured["heldout/strict"]
    return Sign(
        f"The held-out curve was highest at step {int(steps[best])} ({shares[best]:.1%}) and fell to "
        f"{shares.iloc[-1]:.1%} at step {int(steps.iloc[-1])}.",
        f"A lower `grpo.learning_rate` (here {recipe.grpo.get('learning_rate', 1e-6):g}), or fewer steps.",
    )


def _form_only(log: pd.DataFrame) -> Sign | None:
    (form, form_sentence), (goal, goal_sentence) = (heldout_change(log, key) for key in ("format", "strict"))
    if form != "gain" or goal == "gain":
        return None
    return Sign(
        f"The format was learned and the answers were not: {form_sentence}; {goal_sentence}.",
        "Reading completions (`step_table(run)`): which of them would you pay?",
    )


def _nothing_to_compare(steps: pd.DataFrame) -> Sign | None:
    equal = steps["equal_groups"].tail(FEW).mean()
    if equal < 0.5:
        return None
    return Sign(
        f"In the last {FEW} steps all rewards were equal in {equal:.1%} of the groups, and such groups teach nothing.",
        "More problems a step (`grpo.gradient_accumulation_steps`) or larger groups (`grpo.num_generations`).",
    )
