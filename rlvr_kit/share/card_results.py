"""The measurements in a model card: the table before and after training, and what the model gets wrong.

Completions are the model's own words, so they stand in code blocks, where they are not rendered as Markdown or HTML.
"""

import re
from typing import Any

import pandas as pd

from rlvr_kit.errors import UserError
from rlvr_kit.measure.statistics import compare, share_text
from rlvr_kit.run_folder import Run

#: The rows and the summary of an evaluation, or None when it was not made.
Measured = tuple[pd.DataFrame, dict[str, Any]] | None
SHARES = {
    "strict": "correct, strict",
    "lenient": "correct, lenient",
    "format": "well-formed",
    "truncated": "cut off",
}


def measured(run: Run, label: str) -> Measured:
    """Return the run's evaluation of that name, or None when there is none."""
    try:
        return run.evaluation(label)
    except UserError:
        return None


def results(base: Measured, tuned: Measured) -> str:
    """Return Markdown with the shares before and after, their intervals, and the sentence of the paired test."""
    if not tuned:
        return (
            "This model was **not measured** on the test problems (the run folder holds no evaluation `tuned`), so "
            "nothing is claimed about it."
        )
    sides = {"before": base, "after": tuned} if base else {"after": tuned}
    summary = tuned[1]
    lines = [f"| n = {summary['n']} test problems | {' | '.join(sides)} |", "|---|" + "---|" * len(sides)]
    for share, words in SHARES.items():
        cells = [share_text(side[share], side["n"]) for _, side in sides.values()]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    how = "greedy" if summary["temperature"] == 0 else f"sampled at temperature {summary['temperature']:g}"
    notes = (
        f"In brackets: 95 % intervals (Wilson). Answers are {how}, with {summary['shots']} exemplars in the prompt and "
        f"at most {summary['max_new_tokens']} new tokens. *Strict* is right and well-formed, *lenient* is the right "
        "number anywhere. The test problems were not trained on."
    )
    told = [_comparison(base, tuned)] if base else ["The base model was not measured on these problems."]
    return "\n\n".join(["\n".join(lines), notes, *told])


def _comparison(base: Any, tuned: Any) -> str:
    try:
        return f"> {compare(base[0], tuned[0]).sentence}"
    except UserError as reason:
        return f"Before and after cannot be compared: {reason}."


def failures(base: Measured, tuned: Measured) -> str:
    """Return Markdown that counts the wrong test answers by kind and shows the first three of them."""
    if not tuned:
        return "Not known: the model was not measured."
    rows = tuned[0]
    wrong = rows[~rows.correct]
    if not len(wrong):
        return f"None of the {len(rows)} test answers was wrong. Other answers may be."
    lines = [
        f"Of {len(rows)} test answers {len(wrong)} are wrong: {int((wrong.format_ok & ~wrong.lenient_correct).sum())} "
        f"well-formed with a wrong number, {int((~wrong.format_ok).sum())} not well-formed "
        f"({int(wrong.lenient_correct.sum())} of the wrong ones hold the right number all the same, "
        f"{int(wrong.truncated.sum())} were cut off)."
    ]
    if "kind" in rows and rows.kind.notna().any():
        kinds = [f"{kind} {int(part.correct.sum())} of {len(part)}" for kind, part in rows.groupby("kind")]
        lines.append(f"Correct by kind of problem: {', '.join(kinds)}.")
    if base and len(base[0]) == len(rows):
        lost = int((base[0].correct & ~rows.correct).sum())
        lines.append(f"{lost} of the problems that the base solved are among the wrong ones.")
    examples = [_example(row) for row in wrong.head(3).to_dict("records")]
    return "\n\n".join([*lines, "The first of them:", *examples])


def _example(row: dict[str, Any]) -> str:
    text = f"{row['question']}\n\n{row['completion']}\n\n(verdict: {row['why']})"
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"
