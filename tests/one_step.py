"""One GRPO step of stock TRL's trainer or of the kit's: timed, counted, and compared with the other's."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from os.path import commonprefix
from pathlib import Path
from typing import Any

from rlvr_kit.machine import peak_memory_gib, reuse_freed_memory, use_threads
from rlvr_kit.recipe import Recipe, load_recipe


@dataclass(frozen=True)
class Step:
    """What a training step consists of: ``problems`` x ``group`` completions of ``tokens`` tokens each."""

    model: str = "bundled"
    dtype: str = "float32"
    shots: int = 0  # exemplars in the prompt
    problems: int = 4
    group: int = 8
    tokens: int = 32
    rows: int = 32  # completions in one loss pass
    threads: int | None = None  # CPU threads; None: torch's own choice
    lora: bool = True  # else every weight is trained

    def recipe(self, steps: int) -> Recipe:
        """The `cpu` recipe with these sizes; `steps`: how many of them to train."""
        changes = {
            "model.name": self.model, "model.dtype": self.dtype, "data.max_steps": 3, "data.train_size": 64,
            "prompt.shots": self.shots, "grpo.max_steps": steps, "grpo.num_generations": self.group,
            "grpo.max_completion_length": self.tokens, "grpo.per_device_train_batch_size": self.rows,
            "grpo.gradient_accumulation_steps": self.problems * self.group // self.rows, "grpo.use_vllm": "false",
        }  # fmt: skip
        every_weight = [] if self.lora else ["lora=null"]
        return load_recipe("cpu", [*every_weight, *(f"{key}={value}" for key, value in changes.items())])


def policy_that_never_ends(name: str, dtype: str) -> tuple[Any, Any]:
    """Load a policy and its tokenizer, and give them an end token that the model cannot write.

    So every completion has its full length, and both sides sample equally many tokens.
    """
    from rlvr_kit.models import load_policy, load_tokenizer

    policy, tokenizer = load_policy(name, dtype=dtype), load_tokenizer(name)
    tokenizer.add_special_tokens({"eos_token": "<never>"})  # its number lies behind the model's vocabulary
    policy.generation_config.eos_token_id = policy.config.eos_token_id = tokenizer.eos_token_id
    return policy, tokenizer


def make_trainer(side: str, step: Step, steps: int, folder: str) -> Any:
    """Make the trainer of one side (``stock`` or ``kit``). It trains `steps` steps, all with the same prompts."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import GRPOTrainer

    from rlvr_kit.engine.grpo_trainer import SharedPrefixGRPOTrainer
    from rlvr_kit.training.configs import grpo_config, lora_config

    reuse_freed_memory()  # as the kit's own training does; here for both sides
    use_threads(step.threads)
    recipe = step.recipe(steps)
    if side == "stock" and step.dtype == "bfloat16":
        # TRL's default (autocast); on a CPU with bfloat16 units a step is then a tenth faster than without it.
        recipe = recipe.model_copy(update={"grpo": recipe.grpo | {"bf16": True}})
    policy, tokenizer = policy_that_never_ends(step.model, step.dtype)
    template, questions = recipe.template(), recipe.training_problems()["question"][: step.problems]
    trainer = {"stock": GRPOTrainer, "kit": SharedPrefixGRPOTrainer}[side](
        model=policy, args=grpo_config(recipe, Path(folder)), processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": [template.prompt(tokenizer, q) for q in questions]}),
        reward_funcs=lambda completions, **_: [float(i % 2) for i in range(len(completions))],  # no equal groups
        peft_config=lora_config(recipe),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    return trainer


def now() -> float:
    """Return the time in seconds. On a GPU, wait first until it has finished its work."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def time_steps(
    trainer: Any, wait: Callable[[], Any] = lambda: None, tell: Callable[[Any], Any] = lambda _: None
) -> list[dict[str, float]]:
    """Train, and return the seconds of each step: those of ``sampling`` and those of ``learning``.

    All loss passes of a step have the same shape, so only the first one is computed, and its time counts for each of
    them. `wait` is called before each step. `tell` is called after each step, with its seconds.
    """
    import torch
    from transformers import TrainerCallback

    passes, steps = trainer.args.gradient_accumulation_steps, []
    compute, prepare = trainer.training_step, trainer._prepare_inputs
    spent = {"sampling": 0.0, "pass": 0.0}

    def timed_prepare(batch: Any) -> Any:
        began = now()
        inputs = prepare(batch)
        spent["sampling"] = now() - began
        return inputs

    def timed_pass(*args: Any) -> Any:
        if trainer._step % passes:
            trainer._step += 1  # as TRL's own training_step counts
            return torch.zeros((), device=trainer.args.device)
        began = now()
        loss = compute(*args)
        spent["pass"] = now() - began - spent["sampling"]
        return loss

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            wait()
            self.began = now()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            update = now() - self.began - spent["sampling"] - spent["pass"]
            steps.append({"sampling": spent["sampling"], "learning": passes * spent["pass"] + update})
            tell(steps[-1])

    trainer._prepare_inputs, trainer.training_step = timed_prepare, timed_pass
    trainer.add_callback(Clock())
    trainer.train()
    return steps


def operations(trainer: Any, shared: bool) -> dict[str, float]:
    """Count the floating-point operations of a step's matrix products: two for each token and each parameter.

    Sampling counts one pass over the tokens. Learning counts two, forwards and backwards to the activations, and one
    more over the weights that are trained, for their gradients. The last layer counts for the tokens of completions
    only, and so do its gradients where it is trained.
    `shared`: tokens that several prompts share are counted once, as the kit computes them once.
    """
    model, passes = trainer.accelerator.unwrap_model(trainer.model), trainer._buffered_inputs
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    inside = [p for p in model.parameters() if p is not head and p is not embedding]
    layers, trained = sum(p.numel() for p in inside), sum(p.numel() for p in inside if p.requires_grad)
    prompts = [
        ids[mask.bool()].tolist()
        for batch in passes
        for ids, mask in zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)
    ]
    written = sum(int(batch["completion_mask"].sum()) for batch in passes)
    reading = sum(map(len, prompts))
    if shared:
        distinct, common = {tuple(p) for p in prompts}, len(commonprefix(prompts))
        reading = common + sum(len(prompt) - common for prompt in distinct)
    one_pass = 2.0 * (layers * (reading + written) + head.numel() * written)
    gradients = 2.0 * (trained * (reading + written) + head.requires_grad * head.numel() * written)
    return {"sampling": one_pass, "learning": 2 * one_pass + gradients}


def matrix_product_peak(dtype: str, size: int = 2048) -> float:
    """Return how many operations a second this machine reaches in the product of two large square matrices."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))
    times = []
    for _ in range(5):
        began = now()
        left @ right
        times.append(now() - began)
    return 2.0 * size**3 / min(times)


def logps_and_gradients(
    trainer: Any, cls: type, ids: Any, mask: Any, width: int, rows: int
) -> tuple[Any, Any]:
    """Compute the log-probabilities of the last `width` tokens, and the gradients of a weighted sum of them.

    `ids` and `mask` are (B, P + width); `rows` of them are taken at a time. `cls` is the trainer's class whose method
    is used. The weights of the sum are random but always the same.
    """
    import torch

    weights = torch.randn(len(ids), width, generator=torch.Generator().manual_seed(0)).to(ids.device)
    weights = weights * mask[:, -width:]
    trainer.model.zero_grad()
    logps = []
    for start in range(0, len(ids), rows):
        part = slice(start, start + rows)
        with trainer.accelerator.autocast():
            compute = cls._get_per_token_logps_and_entropies
            logps.append(compute(trainer, trainer.model, ids[part], mask[part], width)[0])
        (logps[-1] * weights[part]).sum().backward()
    gradients = [p.grad.float().flatten() for p in trainer.model.parameters() if p.grad is not None]
    return (torch.cat(logps).detach() * mask[:, -width:]).float(), torch.cat(gradients).clone()


def relative(a: Any, b: Any) -> float:
    """Return the distance between the vectors `a` and `b`, divided by the length of `b`."""
    return ((a - b).norm() / b.norm()).item()


def differences(trainer: Any) -> dict[str, float]:
    """Compare the kit's trainer with stock TRL on eight rows of its last step: log-probabilities and gradients.

    Both compute in float32, whatever format the step was in: two roundings to bfloat16 would hide a difference.
    """
    import torch
    from trl import GRPOTrainer

    trainer.model.float()
    batch = trainer._buffered_inputs[0]
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)[:8]
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)[:8]
    width = batch["completion_ids"].shape[1]
    ours, our_gradients = logps_and_gradients(trainer, type(trainer), ids, mask, width, 8)
    stock, gradients = logps_and_gradients(trainer, GRPOTrainer, ids, mask, width, 4)
    return {
        "max_logp_diff": (ours - stock).abs().max().item(),
        "max_grad_rel_diff": relative(our_gradients, gradients),
    }


def train_side(link: Any, side: str, step: Step, steps: int) -> None:
    """Train as one side in this process, one step at each turn, and at the end tell how much memory it took."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(side, step, steps, folder)
        time_steps(trainer, wait=link.recv, tell=link.send)
    prompt = trainer._buffered_inputs[0]["prompt_ids"].shape[1]
    told = {
        "prompt_tokens": prompt,
        "peak_gib": peak_memory_gib(),
        "operations": operations(trainer, side == "kit"),
    }
    link.send(told | (differences(trainer) if side == "kit" else {}))
