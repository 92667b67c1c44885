"""Options of TRL under which grpo_trainer.py would not compute what stock TRL computes: there it uses stock TRL."""

from typing import Any

import torch
from peft import PeftModel, PeftType

from rlvr_kit.engine.prompt_tree import unsupported_reason

#: Settings in a model's generation config that TRL overrides, or that do not change which tokens are sampled. Stock TRL
#: obeys every other setting of the model, and sampling.py does not know them.
HARMLESS_GENERATION_SETTINGS = {
    "do_sample", "temperature", "top_p", "top_k", "repetition_penalty", "eos_token_id", "pad_token_id",
    "bos_token_id", "max_length", "max_new_tokens", "use_cache", "output_attentions", "output_hidden_states",
    "_from_model_config", "transformers_version",
}  # fmt: skip


def fallback_reason(trainer: Any) -> str | None:
    """Return why ``trainer`` must leave sampling and loss to stock TRL, or None if it need not.

    The reason is written as the second half of a sentence.

    Example:
        >>> fallback_reason(trainer)  # doctest: +SKIP
        'grpo.repetition_penalty changes how tokens are sampled'
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    return (
        unsupported_reason(model.config)
        or _other_generator(trainer)
        or _other_sampling(trainer, model)
        or _other_forward_pass(trainer, model)
        or _other_adapter(model)
    )


def _other_generator(trainer: Any) -> str | None:
    if trainer.use_vllm:
        return "vLLM generates, and it shares the beginnings of prompts by itself"
    if trainer.use_transformers_continuous_batching:
        return "transformers' continuous batching generates"
    if trainer.rollout_func is not None or trainer.tools or trainer.environment_factories is not None:
        return "completions come from tools, an environment or a rollout function"
    return None


def _other_sampling(trainer: Any, model: Any) -> str | None:
    args = trainer.args
    used = {
        "repetition_penalty": trainer.repetition_penalty not in (None, 1.0),
        "min_p": trainer.min_p,
        "generation_kwargs": args.generation_kwargs,
        "cache_implementation": args.cache_implementation,
    }
    if names := [name for name, value in used.items() if value]:
        return f"grpo.{names[0]} changes how tokens are sampled"
    kept = set(model.generation_config.to_diff_dict()) - HARMLESS_GENERATION_SETTINGS
    if kept:
        return f"the model's generation config sets {', '.join(sorted(kept))}"
    return None


def _other_forward_pass(trainer: Any, model: Any) -> str | None:
    args = trainer.args
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return "weights are sharded over processes"
    if len(set(getattr(model, "hf_device_map", {"": 0}).values())) > 1:
        return "the model is spread over several devices"
    if getattr(trainer.accelerator, "parallelism_config", None) is not None:
        return "the model or its sequences are split over processes"
    used = {
        "cast_lm_head_to_fp32": args.cast_lm_head_to_fp32,
        "neftune_noise_alpha": args.neftune_noise_alpha,
        "use_liger_kernel": args.use_liger_kernel,
        "torch_compile": args.torch_compile,
    }
    if names := [name for name, value in used.items() if value]:
        return f"grpo.{names[0]} changes the forward pass"
    if trainer._is_vlm:
        return "the model reads images"
    # Rows that share the prompt's computation would share its dropout mask as well.
    if any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.modules()):
        return "dropout would differ between the rows of a group"
    if getattr(model.config, "attention_dropout", 0):
        return "attention dropout would differ between the rows of a group"
    return None


def _other_adapter(model: Any) -> str | None:
    if not isinstance(model, PeftModel):
        return None
    for config in model.peft_config.values():
        if config.peft_type != PeftType.LORA:
            return f"the adapter is {config.peft_type.value}, not LoRA"
        if getattr(config, "alora_invocation_tokens", None):
            return "an activated LoRA depends on the tokens before it"
    return None
