"""Sentences about a reader's run for notebooks, report and command line, chosen by rule from the run's numbers.

For two models on the same problems, an exact McNemar p below 0.05 is a "gain" or a "loss", by the sign of the
difference. Every other result is "no difference", which means that none was seen.
"""

import pandas as pd

from rlvr_kit.measure.signs import SIGNIFICANT, Outcome, heldout_change, signs
from rlvr_kit.measure.statistics import Comparison, compare, problems_needed
from rlvr_kit.recipe import Recipe
from rlvr_kit.run_folder import Run

#: The first words about a run. Tests search the notebooks for them, so that none describes another outcome.
TITLES: dict[Outcome, str] = {
    "gain": "This run gained.",
    "no difference": "This run shows no difference.",
    "loss": "This run lost.",
}
HELDOUT_TITLES: dict[Outcome, str] = {
    "gain": "Held-out accuracy rose.",
    "no difference": "No change of the held-out accuracy was seen.",
    "loss": "Held-out accuracy fell.",
}
#: The last line of `make run`, and the sentence under the report's headline.
NEXT_STEPS: dict[Outcome, str] = {
    "gain": "One run says nothing about the next seed: train with other seeds before you credit the recipe.",
    "no difference": "This does not show that there is none. Notebook 06 lists what the log shows and what to try.",
    "loss": "Training made this model worse: keep the base model. Notebook 06 lists causes and what to try.",
}


def outcome(comparison: Comparison) -> Outcome:
    """Return the outcome of a paired comparison, by the rule at the top of this module.

    >>> outcome(compare(base_rows, tuned_rows))  # doctest: +SKIP
    'gain'
    """
    return outcome_of(comparison.difference, comparison.p)


def outcome_of(difference: float, p: float) -> Outcome:
    """Return the outcome of a difference between two shares; `p` is its p-value.

    >>> outcome_of(0.3, 1e-6), outcome_of(-0.1, 0.02), outcome_of(0.01, 0.7)
    ('gain', 'loss', 'no difference')
    """
    if p >= SIGNIFICANT:
        return "no difference"
    return "gain" if difference > 0 else "loss"


def by_outcome(result: Outcome, *, gain: str, no_difference: str, loss: str) -> str:
    """Return the text for this outcome.

    >>> by_outcome("loss", gain="up", no_difference="level", loss="down")
    'down'
    """
    return {"gain": gain, "no difference": no_difference, "loss": loss}[result]


def story(run: Run) -> str:
    """Return Markdown about a run with evaluations `base` and `tuned`: what happened, why, and what to try next.

    Raises InputError when one of the two evaluations is missing.

    >>> Markdown(story(run))  # doctest: +SKIP
    """
    base, tuned = run.evaluation("base")[0], run.evaluation("tuned")[0]
    result, lenient = compare(base, tuned), compare(base, tuned, "lenient_correct")
    kind, recipe = outcome(result), run.recipe()
    log = run.log() if (run.path / "log.jsonl").exists() else pd.DataFrame()
    seen = [] if kind == "gain" else signs(log, recipe)
    why = [_lenient_too(kind, lenient, base, tuned), *_room_too(kind, run), *_saved_step(run)]
    if kind == "no difference":
        why.append(_what_could_be_missed(result, base))
    why += [sign.seen for sign in seen]
    if kind != "gain" and not seen:
        why.append(
            "The log shows none of the usual causes: the run may be too short, or its learning rate too low."
        )
    remedies = [sign.remedy for sign in seen if sign.remedy] + _always(kind, result, recipe)
    return "\n\n".join(
        [
            f"### {TITLES[kind]}",
            f"**What happened.** {result.sentence}",
            "**Why.** What the evaluations and the log show:",
            "\n".join(f"- {reason}" for reason in why),
            "**What to try next.**",
            "\n".join(f"- {remedy}" for remedy in remedies),
        ]
    )


def against_room(run: Run) -> dict[str, Comparison]:
    """Compare the tuned model with the base that had four times the room (`base-uncut`): strict, lenient, or nothing.

    Where the base was cut off often, this is the fairer comparison: a gain over the short base alone may be brevity.
    """
    if not (run.path / "evals" / "base-uncut.json").exists():
        return {}
    uncut, tuned = run.evaluation("base-uncut")[0], run.evaluation("tuned")[0]
    return {"strict": compare(uncut, tuned), "lenient": compare(uncut, tuned, "lenient_correct")}


def room_sentence(kind: Outcome, strict: Comparison) -> str:
    """Say what the comparison with the base that had room means for a run with this outcome."""
    told = f"Against the base with four times the room to answer: {strict.sentence[0].lower()}{strict.sentence[1:]}"
    if kind != "gain":
        return told
    if outcome(strict) == "gain":
        return f"{told} So the gain is not brevity alone."
    return f"{told} So what was gained may be brevity alone."


def diagnosis(run: Run) -> str:
    """Return Markdown about a run from its log alone: what the held-out curve did, and the signs of trouble.

    >>> Markdown(diagnosis(run))  # doctest: +SKIP
    """
    log = run.log()
    kind, sentence = heldout_change(log)
    lines = [f"**{HELDOUT_TITLES[kind]}** {sentence[0].upper()}{sentence[1:]}."]
    if kind == "gain":
        lines.append("The curve that counts went up, so the log is not searched for signs of trouble.")
    elif found := signs(log, run.recipe()):
        lines.append("Signs in the log, and what to try:")
        tries = [f" *Try:* {sign.remedy}" if sign.remedy else "" for sign in found]
        lines.append("\n".join(f"- {sign.seen}{tip}" for sign, tip in zip(found, tries, strict=True)))
    else:
        lines.append("The log shows none of the usual causes. Look at its length and at its learning rate.")
    return "\n\n".join(lines)


def _lenient_too(kind: Outcome, lenient: Comparison, base: pd.DataFrame, tuned: pd.DataFrame) -> str:
    """Say whether format alone explains the change: the lenient reading takes the right number anywhere."""
    form = f"Well-formed answers went from {base.format_ok.mean():.1%} to {tuned.format_ok.mean():.1%}"
    right = f"{base.lenient_correct.mean():.1%} to {tuned.lenient_correct.mean():.1%}"
    anywhere = f"{form}, and answers with the right number anywhere (lenient) from {right}"
    match kind, outcome(lenient):
        case "gain", "gain":
            return f"{anywhere}, a significant gain as well. So it is not format alone."
        case "gain", _:
            return f"{anywhere}, which is no significant gain. So what was gained is format."
        case "loss", "loss":
            return f"{anywhere}, a significant loss as well. So right numbers were lost, and not only their place."
        case "loss", _:
            return f"{anywhere}, which is no significant loss. So what was lost is the format."
    return f"{anywhere}."


def _room_too(kind: Outcome, run: Run) -> list[str]:
    strict = against_room(run).get("strict")
    return [room_sentence(kind, strict)] if strict else []


def _saved_step(run: Run) -> list[str]:
    """Say which step's policy was saved, when the run's summary names one."""
    step = run.summary().get("best_step") if (run.path / "summary.json").exists() else None
    if step is None:
        return []
    if step == 0:
        return [
            "The model that was saved is that of step 0, the base model itself: no held-out measurement beat it."
        ]
    return [f"The model that was saved is the policy of step {step}, the best one on the held-out problems."]


def _what_could_be_missed(result: Comparison, base: pd.DataFrame) -> str:
    start, n = float(base.correct.mean()), result.n
    gains = (gain for gain in range(1, int(100 * (1 - start))) if problems_needed(start, gain / 100) <= n)
    seen = next(gains, None)
    room = f"a gain of {seen} points four times out of five" if seen else "no gain, however large"
    return f"A test of {n} problems sees {room}; smaller gains mostly stay unseen."


def _always(kind: Outcome, result: Comparison, recipe: Recipe) -> list[str]:
    """Say what to try after every run with this outcome, whatever its log shows."""
    seeds = (
        "Other seeds (`SEED = 1`, `2`, …, each in a `RUN_DIR` of its own): one run is one throw of the dice"
    )
    if kind == "gain":
        others = f"{seeds}, and the interval above covers the luck of the problems only."
        return [others, f"Reading what was lost, {result.only_base} of the problems (notebook 09)."]
    steps = f"More steps (`grpo.max_steps`, here {recipe.grpo.get('max_steps', 'not set')})."
    if kind == "no difference":
        return [steps, f"More test problems (`evaluation.n`, here {result.n}).", f"{seeds}."]
    return [
        f"{seeds}. A recipe that was chosen on one seed can lose with the next.",
        "Until then, keep the base model.",
    ]
