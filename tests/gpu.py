"""`make gpu`: what the kit does on this machine's GPU, for anyone who has one; each part also alone.

    python tests/gpu.py parity   log-probabilities and gradients against stock TRL's, in float32 and bfloat16
    python tests/gpu.py speed    a step against stock TRL's, and sampling against vLLM's where it is installed
    python tests/gpu.py memory   what the planner expects against what training used
    python tests/gpu.py train    the `cpu` recipe, and the bundled model on GSM8K where both can be had

What is missing is skipped, with the reason. gpu.json and gpu.md (a table for the README) go into runs/gpu. ``--tiny``
runs everything in tiny sizes on whatever this machine has: that it runs is all that this shows.
"""

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from bench_tables import cell, markdown, ratio
from gpu_parity import Row, parity, random_model
from one_step import Step, now, train_side
from turns import Side, alternate, fastest, ratio_counts

from rlvr_kit.bundled_model import bundled_model
from rlvr_kit.errors import UserError
from rlvr_kit.machine import describe_machine, peak_memory_gib
from rlvr_kit.recipe import load_recipe

#: Billions of parameters: model type, and hidden size, inner size, layers, heads, key-value heads, vocabulary.
SHAPES = {0.1: ("llama", 576, 1536, 30, 9, 3, 49152), 0.5: ("qwen2", 896, 4864, 24, 14, 2, 151936)}
ROUNDS = 3


def has_bundled() -> bool:
    """Whether the bundled model is here or can be fetched."""
    try:
        return bool(bundled_model())
    except UserError:
        return False


def models(folder: str, tiny: bool) -> Iterator[tuple[str, str]]:
    """The models to measure, as a title and a name. Time and memory are those of random weights of the same shape."""
    if tiny:
        yield "a tiny Llama", "tiny-random"
        return
    here = has_bundled()
    for billions, (kind, *sizes) in SHAPES.items():
        if here and kind == "llama":
            yield f"{billions}B, SmolLM2", "bundled"
        else:
            tokenizer = "bundled" if here else "tiny-random"
            yield f"{billions}B, a random {kind}", random_model(folder, kind, tuple(sizes), tokenizer)


def speed(tiny: bool, left: Callable[[], float]) -> Iterator[Row]:
    """A step of each side, in turns, in the GPU's own format; and vLLM's time to sample the same completions."""
    own = "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"
    tiny_step = Step(problems=2, group=4, tokens=4, rows=8, dtype=own)
    step = tiny_step if tiny else Step(problems=8, tokens=48, dtype=own)
    with tempfile.TemporaryDirectory() as folder:
        for title, name in models(folder, tiny):
            for shots, stock_rows in {0: 4}.items() if tiny else {0: 32, 8: 4}.items():
                row: Row = {"model": title, "exemplars": shots, "format": own}
                if left() < 60:
                    yield row | {"skipped": "no time was left; run this part alone"}
                    continue
                this = replace(step, model=name, shots=shots)
                try:
                    yield row | against_stock(this, stock_rows) | {"vLLM samples in, s": vllm_seconds(this)}
                except SystemExit as error:  # of a side, such as for want of memory
                    yield row | {"failed": str(error)}


def against_stock(step: Step, stock_rows: int) -> Row:
    """Seconds and peak memory of a step, by stock TRL (`stock_rows` completions in a loss pass) and by the kit."""
    steps = {"stock": replace(step, rows=stock_rows), "kit": step}
    sides = {side: Side(train_side, side, each, ROUNDS) for side, each in steps.items()}
    try:
        timed = alternate(sides, ROUNDS)
        stock, kit = (fastest(timed[side]) | sides[side].told() for side in ("stock", "kit"))
    finally:
        for side in sides.values():
            side.end()  # one that is left when the other has failed
    row = {"ratio": stock["seconds"] / kit["seconds"], "ratio_counts": ratio_counts(stock, kit)}
    return {
        "prompt, tokens": kit["prompt_tokens"], "stock TRL, s": stock["seconds"], "this kit, s": kit["seconds"],
        "of it sampling": kit["sampling"], "ratio": ratio(row),
        "peak of stock TRL, GiB": stock["peak_gib"], "peak of this kit, GiB": kit["peak_gib"],
    }  # fmt: skip


def vllm_seconds(step: Step) -> float | str:
    """Seconds in which vLLM samples the completions of a step; or why that is not measured."""
    if find_spec("vllm") is None:
        return "not installed"
    side = Side(vllm_side, step)
    try:
        return min(side.turn() for _ in range(ROUNDS))
    finally:
        side.end()  # it holds most of the GPU


def vllm_side(link: Any, step: Step) -> None:
    """Sample a step's completions with vLLM at each turn."""
    from rlvr_kit.measure.vllm_model import vllm_model
    from rlvr_kit.models import load_tokenizer, resolve_model
    from rlvr_kit.sampling_settings import SamplingSettings

    recipe, tokenizer = step.recipe(1), load_tokenizer(step.model)
    template, questions = recipe.template(), recipe.training_problems()["question"][: step.problems]
    prompts = [template.render(tokenizer, question) for question in questions]
    sampling = SamplingSettings(max_new_tokens=step.tokens, temperature=1.0, samples=step.group)
    _, generate = vllm_model(resolve_model(step.model))
    for _ in range(ROUNDS):
        link.recv()
        began = now()
        generate(None, tokenizer, prompts, sampling, on_batch=lambda _: None)
        link.send(now() - began)


def memory(tiny: bool, left: Callable[[], float]) -> Iterator[Row]:
    """The planner's "at once" against the peak of two steps: the `cpu` recipe, and the `gpu` recipe's sizes."""
    with tempfile.TemporaryDirectory() as folder:
        bases = ("smoke",) if tiny else ("cpu", "gpu")
        for (title, name), base in zip(models(folder, tiny), bases, strict=True):
            row: Row = {"model": title, "sizes of recipe": base}
            if left() < 90:
                yield row | {"skipped": "no time was left; run this part alone"}
                continue
            yield row | Side(memory_side, base, name).told()


def memory_side(link: Any, base: str, name: str) -> None:
    """Plan and train two steps of recipe `base` with model `name`, in this process."""
    from rlvr_kit.training.plan import plan
    from rlvr_kit.training.train import train

    recipe = load_recipe(base, [
        f"model.name={name}", "task=word_problems", "grpo.max_steps=2", "grpo.use_vllm=false",
        "evaluation.heldout=8", "evaluation.n=8",
    ])  # fmt: skip
    planned = plan(recipe).memory["at once"]
    reward = lambda completions, **_: [float(i % 2) for i in range(len(completions))]  # noqa: E731
    with tempfile.TemporaryDirectory() as folder:
        train(recipe, folder, rewards=[reward])
    used = peak_memory_gib()
    link.send({"planned, GiB": planned, "used, GiB": used, "ok": used <= planned})


def training(tiny: bool, left: Callable[[], float]) -> Iterator[Row]:
    """The `cpu` recipe, then the bundled model on GSM8K for the minutes that are left, each against its base."""
    from rlvr_kit.tasks.gsm8k import load_gsm8k
    from rlvr_kit.training.sweep import train_and_compare

    kept = ("n", "base", "tuned", "gain", "p", "steps", "training_minutes", "sentence")

    def trained(base: str, changes: list[str]) -> Row:
        with tempfile.TemporaryDirectory() as folder:
            recipe = load_recipe(base, [*changes, "run.seed=0"])
            result = train_and_compare(recipe, Path(folder) / "run", Path(folder) / "base")
        return {key: result[key] for key in kept}

    base = "smoke" if tiny else "cpu"
    row: Row = {"run": f"recipe {base}, seed 0"}
    if not (tiny or has_bundled()):
        yield row | {"skipped": "the bundled model is not here and cannot be fetched"}
        return
    yield row | trained(base, [])
    row, minutes = {"run": f"recipe {base} on GSM8K, seed 0"}, left() / 60 - 2  # two for the evaluations
    if tiny or minutes < 1:
        yield row | {"skipped": "it is for the full sizes" if tiny else "no time was left; raise --minutes"}
        return
    try:
        load_gsm8k("test")
        yield row | trained(base, [
            "task=gsm8k", "data.train_size=null", "grpo.max_steps=5000", "grpo.max_completion_length=160",
            "evaluation.max_new_tokens=160", "evaluation.every_steps=50", f"run.max_minutes={minutes:.1f}",
            "run.guards=false",
        ])  # fmt: skip
    except UserError as reason:
        yield row | {"skipped": str(reason)}


PARTS = {"parity": parity, "speed": speed, "memory": memory, "train": training}


def measured(part: str, tiny: bool, left: Callable[[], float]) -> list[Row]:
    """The rows of one part; an error is its last row, so that the other parts are still measured."""
    rows: list[Row] = []
    if not (torch.cuda.is_available() or tiny):
        return [{"skipped": "torch finds no GPU here"}]
    try:
        for row in PARTS[part](tiny, left):
            rows.append(row)
            print(f"{part}:", ", ".join(f"{key} {cell(value)}" for key, value in row.items()), flush=True)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        rows.append({"failed": f"{type(error).__name__}: {error}"})
    return rows


def main(parts: list[str], out: Path, tiny: bool = False, minutes: float = 10) -> int:
    """Measure the parts, write gpu.json and gpu.md into `out`, and return 1 if something failed, else 0."""
    ends = time.monotonic() + 60 * minutes
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    found: dict[str, Any] = {"machine": describe_machine() | {"gpu": gpu}, "tiny": tiny}
    tables = []
    for part in parts:
        rows = found[part] = measured(part, tiny, lambda: ends - time.monotonic())
        for reason in ("skipped", "failed"):
            tables += [f"{part}: {reason}: {row[reason]}" for row in rows if reason in row]
        whole = [row for row in rows if not {"skipped", "failed"} & set(row)]
        tables += [markdown(f"{part}, on {gpu}", whole)] if whole else []
    out.mkdir(parents=True, exist_ok=True)
    (out / "gpu.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    (out / "gpu.md").write_text("\n".join([*tables, ""]), encoding="utf-8")
    print("\n".join(tables))
    return int(any("failed" in row or row.get("ok") is False for part in parts for row in found[part]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; without one, all")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, on whatever this machine has")
    parser.add_argument("--minutes", type=float, default=10, help="to end in")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    given = parser.parse_args()
    if unknown := {*given.parts} - {*PARTS}:
        parser.error(f"there is no part {', '.join(sorted(unknown))}; the parts are {', '.join(PARTS)}")
    sys.exit(main(given.parts or [*PARTS], given.out, given.tiny, given.minutes))
