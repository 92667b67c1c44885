"""The end of a run: model/ with the best step's weights, adapter/ with the LoRA part of them, and summary.json."""

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from rlvr_kit.bundled_model import quiet
from rlvr_kit.recipe import Recipe
from rlvr_kit.run_folder import Run, cannot_write
from rlvr_kit.training.best import best_step, restore_best


def save_model(recipe: Recipe, run: Run, policy: Any, tokenizer: Any) -> None:
    """Write model/: the best step's weights with LoRA merged into them, the tokenizer and the prompt template.

    Merged weights are in float32, whatever format the run computed in. With LoRA, adapter/ is written as well: the
    trained matrices alone, a few tens of megabytes.

    Raises:
        UserError: it cannot be written; nothing is left of it, and the same call can be made again.
    """
    restore_best(run, policy)
    partial = run.path / "checkpoints" / ".model"
    shutil.rmtree(partial, ignore_errors=True)  # what a killed process left
    try:
        with quiet():
            if recipe.lora is not None and not recipe.model.load_in_4bit:
                _save_adapter(recipe, policy, run.path / "adapter")
                policy = policy.float().merge_and_unload()  # bfloat16 would round most of the training away
            policy.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        template = json.dumps(recipe.template().to_dict(), indent=2)
        (partial / "prompt.json").write_text(template, encoding="utf-8")
        partial.rename(run.path / "model")
    except (OSError, SafetensorError, RuntimeError) as error:
        problem = cannot_write(
            run.path / "model", error
        )  # it looks at the free space, so before it grows again
        shutil.rmtree(partial, ignore_errors=True)
        raise problem from error
    for file in run.path.glob("checkpoints/best-*.safetensors"):
        file.unlink()


def _save_adapter(recipe: Recipe, policy: Any, folder: Path) -> None:
    """Write the LoRA matrices. They name their base as the recipe does, not by where it lies on this machine."""
    config = policy.peft_config["default"]
    config.base_model_name_or_path, config.revision = recipe.model.name, recipe.model.revision
    policy.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's form of a card, not filled in


def write_summary(recipe: Recipe, run: Run, stopped_by: str | None, peak_gib: float | None) -> None:
    """Write summary.json from the log. ``peak_gib``: None where the process that trained was killed before it said."""
    lines = run.lines() if (run.path / "log.jsonl").exists() else []
    last = lines[-1] if lines else {}
    run.write_summary(
        {
            "recipe": recipe.name,
            "model": recipe.model.name,
            "data": recipe.task,
            "steps": last.get("step"),
            "best_step": best_step(lines),  # whose weights model/ holds
            "completions": last.get("completions"),
            "training_minutes": round(last["seconds"] / 60, 2) if "seconds" in last else None,
            "peak_memory_gib": None if peak_gib is None else round(peak_gib, 2),
            "stopped_by": stopped_by,
        }
    )


def reason_to_end(recipe: Recipe, lines: list[dict[str, Any]]) -> str | None:
    """Why the run whose log these lines are was over before its last step, if it was."""
    last, limit = lines[-1] if lines else {}, recipe.run.max_minutes
    if limit and last.get("seconds", 0) > 60 * limit:
        return f"the time budget of {limit:g} minutes (run.max_minutes)"
    return last.get("stopped_early")
