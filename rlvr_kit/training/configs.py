"""A recipe's ``grpo`` and ``lora`` sections as the objects that TRL and peft take."""

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError

from rlvr_kit.errors import InputError
from rlvr_kit.number_format import pick_dtype
from rlvr_kit.recipe import Recipe

#: Settings whose values TRL reads only when the first loss is computed, and the values that it knows.
CHOICES: dict[str, tuple[Any, ...]] = {
    "loss_type": ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"),
    "importance_sampling_level": ("token", "sequence"),
    "scale_rewards": (True, False, "group", "batch", "none"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
}
#: Settings that count something, of which there must be one at least (plan.py checks the sizes of a batch).
COUNTS = (
    "num_iterations",
    "steps_per_generation",
    "generation_batch_size",
    "logging_steps",
    "ref_model_sync_steps",
)
#: Settings that are a section of their own or the path of a file; the other sections cannot be in a file.
FILES = ("accelerator_config", "deepspeed", "fsdp_config")
#: Settings that may be below zero: -1 is "no limit", and a negative entropy bonus holds the entropy down.
SIGNED = (
    "max_steps",
    "local_rank",
    "entropy_coef",
    "entropy_coef_min",
    "entropy_coef_max",
    "entropy_coef_delta",
)

# TRL and peft still use names that transformers has given up; a reader can do nothing about it.
warnings.filterwarnings("ignore", r"`(is_)?gradient_checkpointing\w*` is deprecated", FutureWarning)


def checked_grpo(recipe: Recipe) -> dict[str, Any]:
    """The recipe's ``grpo`` section, each value checked against the type that ``trl.GRPOConfig`` gives its setting.

    Much of it would otherwise only fail deep in the first training step.

    Raises:
        UserError: a setting that GRPOConfig does not have, or a value that cannot be meant; all of them in one line.
    """
    from trl import GRPOConfig

    unknown = [key for key in recipe.grpo if key not in GRPOConfig.__dataclass_fields__]
    if unknown:
        raise InputError(f"recipe {recipe.name}: trl.GRPOConfig has no {', '.join(unknown)} (section grpo)")
    types, read, wrong = get_type_hints(GRPOConfig), {}, []
    for key, value in recipe.grpo.items():
        least = 1 if key in COUNTS else 0
        try:
            read[key] = value if key in CHOICES else TypeAdapter(types.get(key, Any)).validate_python(value)
        except ValidationError as error:
            wrong.append(f"grpo.{key} is {value!r}: {error.errors()[0]['msg'].lower()}")
            continue
        takes_section = "dict" in str(types.get(key)) and key not in FILES
        is_number = isinstance(read[key], int | float) and not isinstance(read[key], bool)
        if key in CHOICES and value not in CHOICES[key]:
            wrong.append(f"grpo.{key} is {value!r}, not one of {', '.join(map(str, CHOICES[key]))}")
        elif takes_section and isinstance(value, str):
            wrong.append(f"grpo.{key} is {value!r}, not a section of its own (name: value)")
        elif is_number and key not in SIGNED and read[key] < least:
            wrong.append(f"grpo.{key} is {value!r}, which is below {least}")
    if wrong:
        raise InputError(f"recipe {recipe.name}: {'; '.join(wrong)}")
    return read


def grpo_config(recipe: Recipe, out: Path) -> Any:
    """The recipe's ``grpo`` section as a ``trl.GRPOConfig``; what the recipe leaves open is TRL's default.

    Raises:
        UserError: a key that GRPOConfig does not have, or a value that it refuses.
    """
    from trl import GRPOConfig

    given = checked_grpo(recipe)
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
    try:
        return GRPOConfig(**(ours | given))
    except Exception as error:  # the checks of three libraries, each with errors of its own
        raise InputError(f"recipe {recipe.name}, section grpo: {_one_line(error)}") from None


def lora_config(recipe: Recipe) -> Any:
    """The recipe's ``lora`` section as a ``peft.LoraConfig``, or None when every weight is trained."""
    from peft import LoraConfig

    if recipe.lora is None:
        return None
    try:
        return LoraConfig(task_type="CAUSAL_LM", **recipe.lora)
    except Exception as error:
        raise InputError(f"recipe {recipe.name}, section lora: {_one_line(error)}") from None


def add_adapter(recipe: Recipe, model: Any) -> Any:
    """``model`` with the recipe's LoRA adapter, or as it is when every weight is trained.

    Raises:
        UserError: peft refuses a value of the ``lora`` section (it looks at most of them only here).
    """
    from peft import get_peft_model

    config = lora_config(recipe)
    if config is None:
        return model
    try:
        return get_peft_model(model, config)
    except Exception as error:
        raise InputError(f"recipe {recipe.name}, section lora: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
