"""Finish a run: write model/ (the best step's weights), adapter/ (their LoRA matrices) and summary.json."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from rlvr_kit.bundled_model import quiet
from rlvr_kit.recipe import Recipe
from rlvr_kit.run_folder import Run, cannot_write
from rlvr_kit.training.best import best_step, restore_best


def save_model(recipe: Recipe, run: Run, policy: Any, tokenizer: Any) -> None:
    """Write model/: the weights of the best step (LoRA merged into them), the tokenizer and the prompt template.

    With LoRA, adapter/ is written as well. It holds only the trained matrices, a few tens of megabytes. The merged
    weights are float32, four bytes each (540 MB for 135 million), whatever format the base was trained in.

    Raises:
        UserError: it cannot be written. Nothing half-written is left, and the same call can be made again.
    """
    restore_best(run, policy)
    partial = run.path / "checkpoints" / ".model"
    shutil.rmtree(partial, ignore_errors=True)  # from a process that was killed
    try:
        with quiet():
            if recipe.lora is not None and not recipe.model.load_in_4bit:
                _save_adapter(recipe, policy, run.path / "adapter")
                policy = _merged(policy)
            policy.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        template = json.dumps(recipe.template().to_dict(), indent=2)
        (partial / "prompt.json").write_text(template, encoding="utf-8")
        partial.rename(run.path / "model")
    except (OSError, SafetensorError, RuntimeError) as error:
        problem = cannot_write(run.path / "model", error)  # before rmtree: it looks at how much space is free
        shutil.rmtree(partial, ignore_errors=True)
        raise problem from error
    for file in run.path.glob("checkpoints/best-*.safetensors"):
        file.unlink()


def _merged(policy: Any) -> Any:
    """The policy as one model: its LoRA matrices multiplied out and added to the weights, in float32 and on the CPU.

    The matrices are trained in float32. Added to a bfloat16 weight, which keeps 8 bits, most of a small update would be
    rounded away; training computes the two apart, so what it measured would be lost in the file.
    """
    return policy.to("cpu", torch.float32).merge_and_unload()


def _save_adapter(recipe: Recipe, policy: Any, folder: Path) -> None:
    """Write the LoRA matrices. They name their base model as the recipe does, not by its path on this machine."""
    config = policy.peft_config["default"]
    config.base_model_name_or_path, config.revision = recipe.model.name, recipe.model.revision
    policy.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # an empty template of a model card, which peft writes


def write_summary(recipe: Recipe, run: Run, stopped_by: str | None, peak_gib: float | None) -> None:
    """Write summary.json from the log. ``peak_gib`` is None when it is not known, because the process was killed."""
    lines = run.lines() if (run.path / "log.jsonl").exists() else []
    last = lines[-1] if lines else {}
    run.write_summary(
        {
            "recipe": recipe.name,
            "model": recipe.model.name,
            "data": recipe.task,
            "steps": last.get("step"),
            "best_step": best_step(lines),  # the step whose weights are in model/
            "completions": last.get("completions"),
            "training_minutes": round(last["seconds"] / 60, 2) if "seconds" in last else None,
            "peak_memory_gib": None if peak_gib is None else round(peak_gib, 2),
            "stopped_by": stopped_by,
        }
    )


def reason_to_end(recipe: Recipe, lines: list[dict[str, Any]]) -> str | None:
    """Return why a run ended before its last step, from the lines of its log; None when it did not."""
    last, limit = lines[-1] if lines else {}, recipe.run.max_minutes
    if limit and last.get("seconds", 0) > 60 * limit:
        return f"the time budget of {limit:g} minutes (run.max_minutes)"
    return last.get("stopped_early")
