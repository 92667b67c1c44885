"""`make bench`: a GRPO step against stock TRL's, and evaluation against plain transformers generation, side by side.

Each side runs in a process of its own, so that its peak memory is its own: same model, problems, seed, batch and
completion length. `runs/bench.json` has a row for each number of exemplars, `runs/bench-evaluation.json` likewise.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

STEPS = {
    0: 3,
    2: 1,
    8: 1,
}  # exemplars in the prompt: steps that are timed, the first one with all that it warms up
COMPLETIONS, TOKENS = 32, 48  # completions in a step; tokens of each
#: Completions in one loss pass: stock TRL one group at a time, since all 32 with 8 exemplars take over 24 GB; the kit
#: all at once, since it computes what they share once a pass.
ROWS = {"stock": 8, "kit": 32}
#: Exemplars: problems, batch size of the kit, batch sizes that plain generation may choose from.
EVALUATED = {0: (96, 96, (32, 96)), 8: (32, 32, (8, 32))}


def recipe_with(shots: int, rows: int) -> Any:
    from rlvr_kit.recipe import load_recipe

    batch = [
        f"grpo.per_device_train_batch_size={rows}",
        f"grpo.gradient_accumulation_steps={COMPLETIONS // rows}",
    ]
    length = [
        "data.max_steps=3",
        f"prompt.shots={shots}",
        f"grpo.max_completion_length={TOKENS}",
        f"grpo.max_steps={STEPS[shots]}",
    ]
    return load_recipe("cpu", [*batch, *length])


def policy_that_never_ends() -> tuple[Any, Any]:
    """The bundled model; its end token is one that it never writes, so that both sides sample equally many."""
    from rlvr_kit.models import load_policy, load_tokenizer

    policy, tokenizer = load_policy("bundled"), load_tokenizer("bundled")
    tokenizer.eos_token = "<jupyter_script>"
    policy.generation_config.eos_token_id = policy.config.eos_token_id = tokenizer.eos_token_id
    return policy, tokenizer


def make_trainer(side: str, shots: int) -> Any:
    from datasets import Dataset
    from trl import GRPOTrainer

    from rlvr_kit.engine.grpo_trainer import SharedPrefixGRPOTrainer
    from rlvr_kit.training.configs import grpo_config, lora_config

    recipe = recipe_with(shots, ROWS[side])
    policy, tokenizer = policy_that_never_ends()
    template, questions = recipe.template(), recipe.training_problems()["question"][:64]
    return {"stock": GRPOTrainer, "kit": SharedPrefixGRPOTrainer}[side](
        model=policy, args=grpo_config(recipe, Path("runs/bench")), processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": [template.messages(q) for q in questions]}),
        reward_funcs=lambda completions, **_: [float(i % 2) for i in range(len(completions))],  # no equal groups
        peft_config=lora_config(recipe),
    )  # fmt: skip


def train_side(side: str, shots: int) -> dict[str, Any]:
    """Seconds of a step (sampling, learning) and peak memory; for the kit also how far it is from stock TRL."""
    from transformers import TrainerCallback

    from rlvr_kit.machine import peak_memory_gib

    trainer = make_trainer(side, shots)
    trainer._save_checkpoint = lambda *_: None
    sample, sampling, steps = trainer._generate_single_turn, [], []

    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        result = sample(*args, **kwargs)
        sampling.append(time.perf_counter() - began)
        return result

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            steps.append(time.perf_counter() - self.began)

    trainer._generate_single_turn = timed
    trainer.add_callback(Clock())
    trainer.train()
    prompt = trainer._buffered_inputs[0]["prompt_ids"].shape[1]
    result = {"step": median(steps), "sampling": median(sampling), "prompt": prompt}
    return result | {"peak": peak_memory_gib()} | (differences(trainer) if side == "kit" else {})


def differences(trainer: Any) -> dict[str, float]:
    """Largest difference of the kit's log-probabilities from stock TRL's, and of the gradients, on eight rows."""
    import torch
    from trl import GRPOTrainer

    batch, results = trainer._buffered_inputs[0], []
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)[:8]
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)[:8]
    weights = torch.randn(8, TOKENS, generator=torch.Generator().manual_seed(0))
    for cls, rows in ((type(trainer), 8), (GRPOTrainer, 4)):
        trainer.model.zero_grad()
        logps = []
        for start in range(0, 8, rows):
            part = slice(start, start + rows)
            compute = cls._get_per_token_logps_and_entropies
            logps.append(compute(trainer, trainer.model, ids[part], mask[part], TOKENS)[0])
            (logps[-1] * weights[part]).sum().backward()
        grads = [p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]
        results.append((torch.cat(logps).detach(), torch.cat(grads).clone()))
    (ours, our_grads), (stock, grads) = results
    relative = (our_grads - grads).norm() / grads.norm()
    return {"logp_diff": (ours - stock).abs().max().item(), "grad_diff": relative.item()}


def evaluate_side(side: str, shots: int) -> dict[str, Any]:
    """Problems a second, greedy; of plain generation at its best batch size, prompts sorted by length."""
    import torch

    from rlvr_kit.engine.sampling import generate
    from rlvr_kit.models import load_policy, load_tokenizer
    from rlvr_kit.sampling_settings import SamplingSettings

    recipe, (count, batch_size, plain_sizes) = recipe_with(shots, 8), EVALUATED[shots]
    policy, tokenizer = load_policy("bundled").eval(), load_tokenizer("bundled")
    template, questions = recipe.template(), recipe.test_problems()["question"][:count]
    prompts = sorted((template.render(tokenizer, q) for q in questions), key=len, reverse=True)
    tokenizer.padding_side, found = "left", {}

    def plain(texts: list[str]) -> list[list[int]]:
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            ids = policy.generate(**batch, max_new_tokens=TOKENS, do_sample=False, top_p=None, top_k=None)
        return ids[:, batch["input_ids"].shape[1] :].tolist()

    for size in (batch_size,) if side == "kit" else plain_sizes:
        began = time.perf_counter()
        if side == "kit":
            sampling = SamplingSettings(max_new_tokens=TOKENS, batch_size=size)
            done = [c.text for [c] in generate(policy, tokenizer, prompts, sampling)]
        else:
            ids = [row for i in range(0, len(prompts), size) for row in plain(prompts[i : i + size])]
            done = tokenizer.batch_decode(ids, skip_special_tokens=True)
        found[size] = len(prompts) / (time.perf_counter() - began)
    best = max(found, key=lambda size: found[size])
    return {"rate": found[best], "batch": best, "texts": done}


def side_by_side(job: str, shots: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run both sides, each in a process of its own."""
    results = []
    for side in ("stock", "kit"):
        print(f"{job}, {shots}-shot, {side} ...", file=sys.stderr, flush=True)
        command = [sys.executable, __file__, "--job", job, "--side", side, "--shots", str(shots)]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        results.append(json.loads(output.splitlines()[-1]))
    return results[0], results[1]


def main() -> None:
    """Print both tables and write them."""
    from rich.console import Console
    from rich.table import Table

    training, evaluation = [], []
    for shots in STEPS:
        stock, kit = side_by_side("train", shots)
        training.append({
            "shots": shots, "prompt_tokens": kit["prompt"],
            "stock_step_s": stock["step"], "stock_sampling_s": stock["sampling"],
            "kit_step_s": kit["step"], "kit_sampling_s": kit["sampling"], "ratio": stock["step"] / kit["step"],
            "stock_peak_gib": stock["peak"], "kit_peak_gib": kit["peak"],
            "max_logp_diff": kit["logp_diff"], "max_grad_rel_diff": kit["grad_diff"],
        })  # fmt: skip
    for shots in EVALUATED:
        stock, kit = side_by_side("evaluate", shots)
        same = sum(a == b for a, b in zip(stock["texts"], kit["texts"], strict=True))
        evaluation.append({
            "shots": shots, "n": EVALUATED[shots][0], "stock_problems_per_s": stock["rate"],
            "stock_batch_size": stock["batch"], "kit_problems_per_s": kit["rate"],
            "ratio": kit["rate"] / stock["rate"], "same_completions": same,
        })  # fmt: skip
    Path("runs").mkdir(exist_ok=True)
    for title, name, rows in (
        (f"A GRPO step: {COMPLETIONS} completions of {TOKENS} tokens", "bench", training),
        (f"Evaluation: greedy, at most {TOKENS} tokens", "bench-evaluation", evaluation),
    ):
        table = Table(*rows[0], title=title)
        for row in rows:
            table.add_row(*(f"{value:.3g}" for value in row.values()))
        Console(width=200).print(table)
        Path("runs", f"{name}.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--job", choices=["train", "evaluate"])
    parser.add_argument("--side", choices=["stock", "kit"])
    parser.add_argument("--shots", type=int)
    given = parser.parse_args()
    if given.job is None:
        main()
    else:
        measure = train_side if given.job == "train" else evaluate_side
        print(json.dumps(measure(given.side, given.shots)))
