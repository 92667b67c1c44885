"""Trainers that learn from forced completions: stock TRL and the kit's get the same ones, so their weights compare."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from test_sampling import TOKENIZER, tiny
from trl import GRPOConfig, GRPOTrainer

import rlvr_kit.engine.trainer_sampling
from rlvr_kit.engine.grpo_trainer import SharedPrefixGRPOTrainer
from rlvr_kit.engine.sampling import Completion

PROMPTS = ["Solve. 3+4=", "Solve. 12 apples and 7 more?", "Solve. 9-2=", "2 pens cost 8. Five?"]
MANY = [f"{text} {i}" for i in range(0, 40, 5) for text in PROMPTS]  # every one different
LENGTHS = (8, 3, 1, 5, 7, 8, 2, 4)


def forced_ids(prompt: list[int], row: int, call: int) -> list[int]:
    """A completion of 1 to 8 tokens; some end with an end token, the others were cut off at the limit."""
    ids = [(sum(prompt) + 31 * row + 7 * call + 13 * i * i) % 256 for i in range(LENGTHS[(row + call) % 8])]
    return ids if len(ids) == 8 else [*ids[1:], TOKENIZER.eos_token_id]


class MixedReward:
    """Rewards that differ within every second group; at the second of three calls they are all equal."""

    __name__ = "mixed"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, prompts: list, completion_ids: list, **_: Any) -> list[float]:
        self.calls += 1
        if self.calls % 3 == 2:
            return [1.0] * len(prompts)
        groups = list(dict.fromkeys(prompts))
        return [
            float(sum(ids) % 3) if groups.index(prompt) % 2 else 0.5
            for prompt, ids in zip(prompts, completion_ids, strict=True)
        ]


def entropy(model: Any, prompt: list[int], ids: list[int], temperature: float) -> float:
    logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1] / temperature
    return torch.distributions.Categorical(logits=logits).entropy().mean().item()


def force(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the trainer "sample" :func:`forced_ids`. The kit's own sampling step is replaced at its innermost call."""
    calls = iter(range(1000))

    def single_turn(prompt_ids: list, *_: Any, **__: Any) -> tuple:
        call = next(calls)
        return [forced_ids(prompt, row, call) for row, prompt in enumerate(prompt_ids)], None

    @torch.no_grad()
    def decode(policy: Any, _: Any, prompts: list, owners: list[int], sampling: Any) -> list[Completion]:
        call = next(calls)
        completions = []
        for row, prompt in enumerate(list(prompts[owner]) for owner in owners):
            ids = forced_ids(prompt, row, call)
            mean = entropy(policy, prompt, ids, sampling.temperature)
            completions.append(Completion("", ids, ids[-1] != TOKENIZER.eos_token_id, mean))
        return completions

    if isinstance(trainer, SharedPrefixGRPOTrainer):
        monkeypatch.setattr(rlvr_kit.engine.trainer_sampling, "decode", decode)
    else:
        trainer._generate_single_turn = single_turn


def make_trainer(cls: type, folder: Path, kind: str = "llama", lora: Any = False, **options: Any) -> Any:
    """A trainer of a tiny model: every weight is trained, or LoRA (True, or the arguments of its config)."""
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM

    saved = folder / kind  # TRL loads the reference model from where the policy came from
    if not saved.exists():
        tiny(kind).save_pretrained(saved)
    extra = {key: options.pop(key) for key in ("eval_dataset", "peft_config", "callbacks") if key in options}
    common = dict(
        per_device_train_batch_size=8, num_generations=4, max_completion_length=8, learning_rate=1e-2,
        lr_scheduler_type="constant", weight_decay=0.1, adam_epsilon=1e-3, logging_steps=1, max_steps=3,
        save_strategy="no", use_cpu=True, bf16=False, report_to="none", activation_checkpointing=False,
        disable_tqdm=True,
    )  # fmt: skip
    config = GRPOConfig(output_dir=str(folder), **(common | options))
    if lora:
        given = {} if lora is True else lora
        extra["peft_config"] = LoraConfig(
            **({"r": 4, "target_modules": "all-linear", "init_lora_weights": False} | given)
        )
    torch.manual_seed(3)
    return cls(
        model=AutoModelForCausalLM.from_pretrained(saved), args=config, processing_class=TOKENIZER,
        reward_funcs=MixedReward(), train_dataset=Dataset.from_dict({"prompt": MANY}), **extra,
    )  # fmt: skip


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


def trained(
    cls: type, folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[torch.Tensor, torch.Tensor, list[dict[str, Any]]]:
    """Weights before and after training on forced completions, as one vector each, and the log."""
    trainer = make_trainer(cls, folder, **options)
    force(trainer, monkeypatch)
    before = weights(trainer)
    trainer.train()
    after = weights(trainer)
    if cls is not GRPOTrainer:
        assert trainer.fallback_reason is None
    vectors = [torch.cat([each[name].flatten() for name in before]) for each in (before, after)]
    return vectors[0], vectors[1], trainer.state.log_history
