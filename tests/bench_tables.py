"""What bench.py and gpu.py measured, as Markdown tables for the terminal and the README."""

from typing import Any

from one_step import Step
from turns import SPREAD


def cell(value: Any) -> str:
    """A number with three digits, or all of those before the point; anything else as it is."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def markdown(title: str, rows: list[dict[str, Any]]) -> str:
    """Rows with the same keys as a Markdown table."""
    lines = [[*rows[0]], ["---"] * len(rows[0]), *([*map(cell, row.values())] for row in rows)]
    return "\n".join([title, "", *(f"| {' | '.join(line)} |" for line in lines), ""])


def ratio(row: dict[str, Any]) -> str:
    """The row's ratio, or that it is worthless."""
    return f"{row['ratio']:.1f}" if row["ratio_counts"] else f"worthless ({row['ratio']:.1f})"


def tables(found: dict[str, Any], step: Step) -> str:
    """What was measured, as Markdown."""

    def percent(share: float) -> str:
        return f"{100 * share:.0f} %"

    names = {"stock": "stock TRL", "kit": "this kit"}
    times, phases = [], []
    for row in found["training"]:
        line = {"exemplars": row["shots"], "prompt, tokens": row["prompt_tokens"]}
        line |= {f"{who}, s ({row[f'{side}_format']})": row[f"{side}_step_s"] for side, who in names.items()}
        line |= {"ratio": ratio(row)}
        times.append(line | {f"peak of {who}, GiB": row[f"{side}_peak_gib"] for side, who in names.items()})
        for side, who in names.items():
            line = {"exemplars": row["shots"], "side": who}
            for phase in ("sampling", "learning"):
                share = percent(row[f"{side}_{phase}_of_peak"])
                line |= {f"{phase}, s": row[f"{side}_{phase}_s"], f"{phase}, of peak": share}
            phases.append(line | {"spread": percent(row[f"{side}_spread"])})
    evaluated = [
        {"exemplars": row["shots"], "problems": row["n"]}
        | {f"{who}, a second": row[f"{side}_problems_per_s"] for side, who in names.items()}
        | {"ratio": ratio(row), "same completions": row["same_completions"]}
        for row in found["evaluation"]
    ]
    grown = [
        {"changed": row["changed"], "to": row["to"], "step, s": row["step_s"], "spread": percent(row["spread"])}
        | {f"{phase}, of peak": percent(row[f"{phase}_of_peak"]) for phase in ("sampling", "learning")}
        for row in found["growth"]
    ]  # fmt: skip
    completions = f"{step.problems * step.group} completions of {step.tokens} tokens"
    rule = f"A ratio is worthless where a side's second fastest time is over {SPREAD:.0%} above its fastest."
    return "\n".join([
        markdown(f"A GRPO step of {completions}. {rule}", times),
        markdown("Operations of its matrix products, as a share of the largest ones here", phases),
        markdown(f"Greedy evaluation, at most {step.tokens} tokens", evaluated),
        markdown("How a step of the kit grows", grown),
    ])  # fmt: skip
