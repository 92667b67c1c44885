"""A recipe's ``grpo`` and ``lora`` sections as the objects that TRL and peft take."""

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from rlvr_kit.errors import InputError
from rlvr_kit.machine import pick_dtype
from rlvr_kit.recipe import Recipe

# TRL and peft still use names that transformers has given up; a reader can do nothing about it.
warnings.filterwarnings("ignore", r"`(is_)?gradient_checkpointing\w*` is deprecated", FutureWarning)


def grpo_config(recipe: Recipe, out: Path) -> Any:
    """The recipe's ``grpo`` section as a ``trl.GRPOConfig``; what the recipe leaves open is TRL's default.

    Raises:
        UserError: a key that GRPOConfig does not have, or a value that it refuses.
    """
    from trl import GRPOConfig

    on_gpu = torch.cuda.is_available()
    ours = {
        "output_dir": str(out),
        "seed": recipe.run.seed,
        "logging_steps": 1,
        "save_strategy": "no",  # RunKeeper saves, so that a half-written checkpoint is never taken for a whole one
        "report_to": "none",
        "logging_nan_inf_filter": False,  # a loss that is no number is shown, not replaced
        "log_completions": True,
        "num_completions_to_print": 0,  # they are kept in completions/, to be looked at when wanted
        "disable_tqdm": True,
        "bf16": on_gpu and pick_dtype(recipe.model.dtype) == torch.bfloat16,
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
        "use_vllm": on_gpu and not recipe.model.load_in_4bit and find_spec("vllm") is not None,
        "vllm_mode": "colocate",
        "ddp_find_unused_parameters": False,  # every weight takes part in every pass: grpo_trainer.py
    }
    unknown = [key for key in recipe.grpo if key not in GRPOConfig.__dataclass_fields__]
    if unknown:
        raise InputError(f"recipe {recipe.name}: trl.GRPOConfig has no {', '.join(unknown)} (section grpo)")
    try:
        return GRPOConfig(**(ours | recipe.grpo))
    except (ValueError, TypeError) as error:
        raise InputError(f"recipe {recipe.name}, section grpo: {error}") from None


def lora_config(recipe: Recipe) -> Any:
    """The recipe's ``lora`` section as a ``peft.LoraConfig``, or None when every weight is trained."""
    from peft import LoraConfig

    if recipe.lora is None:
        return None
    try:
        return LoraConfig(task_type="CAUSAL_LM", **recipe.lora)
    except (ValueError, TypeError) as error:
        raise InputError(f"recipe {recipe.name}, section lora: {error}") from None
