"""`make bench`: a GRPO step against stock TRL's, evaluation against plain generation, and how a step of the kit grows.

Both sides get the same model, problems, seed and batch, each in the number format in which it is faster here. They
alternate (A B B A B B …, the kit twice), and each side's fastest step counts. A ratio is marked where a side did not
reach its fastest time twice (turns.SPREAD). Everything goes into runs/bench.json, with the machine and the versions.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench_tables import tables
from one_step import Step, make_trainer, matrix_product_peak, now, operations, time_steps, train_side
from turns import Side, alternate, fastest, ratio_counts

from rlvr_kit.machine import describe_machine

FORMATS = ("float32", "bfloat16")
#: Exemplars: completions in one of stock TRL's loss passes. The kit takes all at once, since it computes what they
#: share once a pass; stock TRL with 8 exemplars would then need over 24 GB.
STOCK_ROWS = {0: 8, 2: 8, 8: 4}
ROUNDS = 3
#: Processes that want a core, on average over the last minute, from which on times are not to be quoted.
BUSY = 0.5


@dataclass(frozen=True)
class Sizes:
    """What is measured: the full sizes, or with ``--quick`` tiny ones, which only show that everything runs."""

    step: Step
    shots: tuple[int, ...]
    probe: Step  # the small step with which each side chooses its number format
    evaluated: dict[int, int]  # exemplars: problems
    growing: Step  # the step that `growth` changes, one thing at a time
    growth: dict[str, tuple[int, ...]]


FULL = Sizes(
    step=Step(),
    shots=(0, 2, 8),
    probe=Step(problems=1, tokens=8, rows=8),
    evaluated={0: 32, 8: 16},
    growing=Step(problems=2, rows=16),
    growth={"shots": (0, 2, 4, 8, 16), "group": (4, 8, 16, 32), "tokens": (16, 64, 256), "threads": (1, 2)},
)
SMALL = Step(model="tiny-random", problems=2, group=4, tokens=4, rows=8)
QUICK = Sizes(SMALL, (0,), SMALL, {0: 4}, SMALL, {"shots": (0, 1), "threads": (1,)})


def measure_each(link: Any) -> None:
    """For each (side, step) that is asked for: the faster of two such steps, and its number of operations."""
    while True:
        side, step = link.recv()
        with tempfile.TemporaryDirectory() as folder:
            trainer = make_trainer(side, step, 2, folder)
            link.send(fastest(time_steps(trainer)) | {"operations": operations(trainer, side == "kit")})


def best_formats(probe: Step, peaks: dict[str, float]) -> dict[str, dict[str, float]]:
    """Seconds of a small step of each side in each format; the faster one is the side's.

    bfloat16 is not tried where its matrix products are slower than those of float32: it would take minutes.
    """
    measuring = Side(measure_each)
    formats = [dtype for dtype in FORMATS if peaks[dtype] >= peaks["float32"]]
    tried = {
        side: {dtype: measuring.turn((side, replace(probe, dtype=dtype)))["seconds"] for dtype in formats}
        for side in ("stock", "kit")
    }
    measuring.end()
    return tried


def share_of_peak(step: dict[str, Any], phase: str, peak: float) -> float:
    """Operations of a phase's matrix products in a second, as a share of the machine's own largest products."""
    return step["operations"][phase] / step[phase] / peak


def train_rows(sizes: Sizes, formats: dict[str, str], peaks: dict[str, float]) -> list[dict[str, Any]]:
    """A step of each side, by number of exemplars."""
    rows = []
    for shots in sizes.shots:
        loss_rows = {"stock": min(STOCK_ROWS[shots], sizes.step.rows), "kit": sizes.step.rows}
        steps = {
            side: replace(sizes.step, shots=shots, dtype=formats[side], rows=loss_rows[side])
            for side in loss_rows
        }
        turns = {"stock": 1, "kit": 2}
        sides = {side: Side(train_side, side, step, ROUNDS * turns[side]) for side, step in steps.items()}
        timed = alternate(sides, ROUNDS, in_a_row=turns)
        told = {name: fastest(timed[name]) | side.told() for name, side in sides.items()}
        stock, kit = told["stock"], told["kit"]
        row = {"shots": shots, "prompt_tokens": kit["prompt_tokens"]}
        for name, side in told.items():
            seconds = [round(sum(step.values()), 3) for step in timed[name]]
            row |= {f"{name}_format": formats[name], f"{name}_step_s": side["seconds"]}
            row |= {f"{name}_steps_s": seconds, f"{name}_spread": side["spread"]}
            for phase in ("sampling", "learning"):
                row[f"{name}_{phase}_s"] = side[phase]
                row[f"{name}_{phase}_of_peak"] = share_of_peak(side, phase, peaks[formats[name]])
            row[f"{name}_peak_gib"] = side["peak_gib"]
        row |= {"ratio": stock["seconds"] / kit["seconds"], "ratio_counts": ratio_counts(stock, kit)}
        rows.append(row | {key: kit[key] for key in ("max_logp_diff", "max_grad_rel_diff")})
    return rows


def evaluate_side(link: Any, side: str, step: Step, count: int) -> None:
    """Answer `count` problems greedily at each turn; plain generation takes the better of two batch sizes."""
    import torch

    from rlvr_kit.engine.sampling import generate
    from rlvr_kit.models import load_policy, load_tokenizer
    from rlvr_kit.sampling_settings import SamplingSettings

    policy, tokenizer = load_policy(step.model, dtype=step.dtype).eval(), load_tokenizer(step.model)
    recipe = step.recipe(1)
    template, questions = recipe.template(), recipe.test_problems()["question"][:count]
    prompts = sorted((template.render(tokenizer, q) for q in questions), key=len, reverse=True)

    def plain(texts: list[str]) -> list[str]:
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        greedy = {"max_new_tokens": step.tokens, "do_sample": False, "top_p": None, "top_k": None}
        with torch.inference_mode():
            ids = policy.generate(**batch.to(policy.device), **greedy)
        return tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)

    def answers(size: int) -> list[str]:
        if side == "kit":
            sampling = SamplingSettings(max_new_tokens=step.tokens, batch_size=size)
            return [only.text for [only] in generate(policy, tokenizer, prompts, sampling)]
        return [text for i in range(0, count, size) for text in plain(prompts[i : i + size])]

    batch_sizes = [count] if side == "kit" else [count, count // 2]
    for _ in range(ROUNDS):
        link.recv()
        seconds = {}
        for size in batch_sizes:
            began = now()
            texts = answers(size)
            seconds[size] = now() - began
        batch_sizes = [min(seconds, key=seconds.__getitem__)]  # from the second turn on the better one alone
        link.send({"seconds": seconds[batch_sizes[0]]})
    link.send({"texts": texts, "batch_size": batch_sizes[0]})


def evaluation_rows(sizes: Sizes, formats: dict[str, str]) -> list[dict[str, Any]]:
    """Problems that each side answers in a second, by number of exemplars."""
    rows = []
    for shots, count in sizes.evaluated.items():
        steps = {side: replace(sizes.step, shots=shots, dtype=formats[side]) for side in formats}
        sides = {side: Side(evaluate_side, side, step, count) for side, step in steps.items()}
        timed = alternate(sides, ROUNDS)
        told = {name: fastest(timed[name]) | side.told() for name, side in sides.items()}
        row: dict[str, Any] = {"shots": shots, "n": count}
        for name, side in told.items():
            row |= {f"{name}_format": formats[name], f"{name}_problems_per_s": count / side["seconds"]}
            row |= {f"{name}_spread": side["spread"], f"{name}_batch_size": side["batch_size"]}
        stock, kit = told["stock"], told["kit"]
        same = sum(a == b for a, b in zip(stock["texts"], kit["texts"], strict=True))
        row |= {"ratio": stock["seconds"] / kit["seconds"], "ratio_counts": ratio_counts(stock, kit)}
        rows.append(row | {"same_completions": same})
    return rows


def growth_rows(sizes: Sizes, dtype: str, peak: float) -> list[dict[str, Any]]:
    """A step of the kit when one thing at a time changes: exemplars, group size, completion length, threads."""
    rows, measuring = [], Side(measure_each)
    for what, values in sizes.growth.items():
        for value in values:
            step = replace(sizes.growing, dtype=dtype, **{what: value})
            timed = measuring.turn(("kit", replace(step, rows=step.problems * step.group)))
            row = {"changed": what, "to": value, "step_s": timed["seconds"], "spread": timed["spread"]}
            for phase in ("sampling", "learning"):
                row |= {f"{phase}_s": timed[phase], f"{phase}_of_peak": share_of_peak(timed, phase, peak)}
            rows.append(row)
    measuring.end()
    return rows


def bench(sizes: Sizes, out: Path) -> dict[str, Any]:
    """Measure everything and print it; what is measured so far is always in `out`."""
    found: dict[str, Any] = {}

    def keep(**results: Any) -> None:
        found.update(results)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")

    load = os.getloadavg()[0]
    keep(machine=describe_machine() | {"load_at_start": load}, measured=time.strftime("%Y-%m-%d"))
    if load > BUSY:
        print(f"This machine is busy (load {load:.1f}): these are not times to quote.\n", flush=True)
    peaks = {dtype: matrix_product_peak(dtype) for dtype in FORMATS}
    tried = best_formats(sizes.probe, peaks)
    formats = {side: min(seconds, key=seconds.__getitem__) for side, seconds in tried.items()}
    keep(matrix_product_peak=peaks, seconds_of_a_small_step=tried, formats=formats)
    for dtype, peak in peaks.items():
        steps = [f"{side} {seconds[dtype]:.2f} s" for side, seconds in tried.items() if dtype in seconds]
        small = ", ".join(steps) or "not tried"
        print(f"{dtype}: products of up to {peak / 1e9:,.0f} GFLOP/s; a small step: {small}", flush=True)
    keep(training=train_rows(sizes, formats, peaks))
    keep(evaluation=evaluation_rows(sizes, formats))
    keep(growth=growth_rows(sizes, formats["kit"], peaks[formats["kit"]]))
    print(tables(found, sizes.step))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--out", type=Path, default=Path("runs/bench.json"))
    given = parser.parse_args()
    bench(QUICK if given.quick else FULL, given.out)
