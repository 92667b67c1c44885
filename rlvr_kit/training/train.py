"""Recipe -> trained run folder: TRL's GRPOTrainer, a held-out curve, checkpoints, and resuming from them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset
from rich.console import Console
from safetensors import SafetensorError
from transformers import PrinterCallback

from rlvr_kit.bundled_model import quiet
from rlvr_kit.errors import InputError, UserError
from rlvr_kit.machine import IS_MAIN_PROCESS, peak_memory_gib, release_memory, reuse_freed_memory, use_threads
from rlvr_kit.measure.evaluation import refuse_leaks
from rlvr_kit.models import load_policy, load_tokenizer
from rlvr_kit.recipe import Recipe, RewardsSection
from rlvr_kit.rewards.reward_functions import CorrectnessReward, FormatReward
from rlvr_kit.run_folder import Run, atomic, checkpoints, file_sizes
from rlvr_kit.training.best import restore_best
from rlvr_kit.training.callbacks import RunKeeper, stop_signals, whole_policy
from rlvr_kit.training.configs import grpo_config, lora_config
from rlvr_kit.training.plan import plan


def _trainer_class(recipe: Recipe, folder: Path) -> type:
    """TRL's trainer, or the one that shares prefixes, with checkpoints that are whole or not there at all."""
    from trl import GRPOTrainer

    from rlvr_kit.engine.grpo_trainer import SharedPrefixGRPOTrainer

    base: Any = SharedPrefixGRPOTrainer if recipe.run.shared_prefix else GRPOTrainer

    class Trainer(base):
        def _get_output_dir(self, trial: Any) -> str:
            return str(folder / "checkpoints" / ".partial")

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """A run folder describes itself; a README in each checkpoint would say less."""

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            partial = Path(self._get_output_dir(trial))
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                whole = folder / "checkpoints" / f"checkpoint-{self.state.global_step}"
                (partial / whole.name / "files.json").write_text(json.dumps(file_sizes(partial / whole.name)))
                shutil.rmtree(whole, ignore_errors=True)
                (partial / whole.name).rename(whole)
                shutil.rmtree(partial)
                for old in checkpoints(folder)[:-2]:
                    shutil.rmtree(old)

    return Trainer


def _refuse_other_run(recipe: Recipe, folder: Path) -> None:
    """Raise UserError when the folder holds a run of another recipe."""
    kept = folder / "recipe.yaml"
    if kept.exists():
        before, now = yaml.safe_load(kept.read_text(encoding="utf-8")), yaml.safe_load(recipe.to_yaml())
        if differing := [key for key in now if before.get(key) != now[key]]:
            raise InputError(
                f"{folder} holds another run (its recipe has another {', '.join(differing)}); choose another "
                "output folder, or give that run's own recipe to go on with it"
            )
    elif (folder / "log.jsonl").exists() or (folder / "model").exists():
        raise InputError(f"{folder} holds another run (with no recipe.yaml); choose another output folder")


def _open_run(recipe: Recipe, folder: Path) -> tuple[Run, Path | None]:
    """Make the run folder, or find the checkpoint to go on from and forget what was logged after it."""
    with atomic(folder / "recipe.yaml") as draft:
        draft.write_text(recipe.to_yaml(), encoding="utf-8")
    shutil.rmtree(folder / "checkpoints" / ".partial", ignore_errors=True)
    run, last = Run(folder), next(reversed(checkpoints(folder)), None)
    run.forget_after(int(last.name.split("-")[1]) if last else -1)
    return run, last


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    rewards: list[Any] | None = None,
    live: Callable[[Run], None] | None = None,
) -> Run:
    """Train as the recipe says, into the run folder ``out``; go on where that folder's last checkpoint ended.

    ``rewards`` replaces the recipe's two reward functions (the notebook on reward hacking does that); ``live`` is
    called with the run after each line of its log.

    Raises:
        UserError: what cannot work, before anything is loaded; another run's folder; a full disk; a stop of guards.py.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was written, and the same call goes on from there.

    Example:
        >>> from rlvr_kit.recipe import load_recipe
        >>> run = train(load_recipe("smoke"), "runs/smoke")  # doctest: +SKIP
    """
    folder = Path(out)
    _refuse_other_run(recipe, folder)
    if (folder / "model").exists():
        Console(stderr=True, quiet=not IS_MAIN_PROCESS).print(
            f"{folder} is a finished run of this recipe; nothing to do"
        )
        return Run(folder)
    if IS_MAIN_PROCESS:  # of several processes one is enough to refuse
        # With other reward functions the recipe's weights are not used, and may be 0.
        plan(recipe.model_copy(update={"rewards": RewardsSection()}) if rewards else recipe)
    reuse_freed_memory()
    use_threads(recipe.run.threads)
    config, lora = grpo_config(recipe, folder), lora_config(recipe)
    problems, heldout, template = recipe.training_problems(), recipe.heldout_problems(), recipe.template()
    refuse_leaks(recipe.test_problems(), [*problems["question"], *(e.question for e in template.exemplars)])
    tokenizer = load_tokenizer(recipe.model.name, recipe.model.revision)
    policy = load_policy(
        recipe.model.name, revision=recipe.model.revision, dtype=recipe.model.dtype, seed=recipe.run.seed,
        in_4bit=recipe.model.load_in_4bit,
    )  # fmt: skip
    run, checkpoint = _open_run(recipe, folder)
    chat = bool(getattr(tokenizer, "chat_template", None))
    prompts = [template.messages(q) if chat else template.render(tokenizer, q) for q in problems["question"]]
    dataset = Dataset.from_dict({"prompt": prompts, "gold": problems["gold"]})
    before = float(run.log().seconds.iloc[-1]) if checkpoint else 0.0
    keeper = RunKeeper(recipe, run, heldout, before, live)
    trainer = _trainer_class(recipe, folder)(
        model=policy, args=config, processing_class=tokenizer, train_dataset=dataset, peft_config=lora,
        reward_funcs=rewards or [FormatReward(recipe.rewards.format), CorrectnessReward(recipe.rewards.correct)],
        callbacks=[keeper],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    keeper.trainer = trainer
    if hasattr(trainer, "stop"):  # sampling in training ends where evaluation ends
        trainer.stop = template.stop
    with stop_signals(keeper), quiet():
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(folder / "checkpoints" / ".partial", ignore_errors=True)
            raise InputError(
                f"training stopped, {folder} cannot be written: {error}; free some space, then go on"
            ) from None
        except (RuntimeError, IndexError):  # what it comes to when a sampler is given NaN
            if not keeper.blew_up():
                raise
    if keeper.fault:
        raise InputError(keeper.fault)
    if keeper.signal and trainer.state.global_step < trainer.state.max_steps:
        raise Interrupted(
            keeper.signal, f"stopped at step {trainer.state.global_step}; the same command goes on from there"
        )
    policy = whole_policy(recipe, trainer)
    if policy is not None:
        _finish(recipe, run, policy, tokenizer, keeper)
    # The trainer and its callback know each other, so its memory would stay until some later collection.
    trainer.accelerator.free_memory()
    del trainer, policy, keeper.trainer
    release_memory()
    return run


def _finish(recipe: Recipe, run: Run, policy: Any, tokenizer: Any, keeper: RunKeeper) -> None:
    """Write model/ (the best step's weights, LoRA merged into them, and the prompt template) and summary.json."""
    step = restore_best(run, policy)
    if recipe.lora is not None and not recipe.model.load_in_4bit:
        policy = policy.merge_and_unload()
    partial = run.path / "checkpoints" / ".model"
    try:
        with quiet():
            policy.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        (partial / "prompt.json").write_text(
            json.dumps(recipe.template().to_dict(), indent=2), encoding="utf-8"
        )
        partial.rename(run.path / "model")
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise InputError(
            f"the trained model cannot be saved in {run.path}: {error}; free some space, then go on"
        ) from None
    for file in run.path.glob("checkpoints/best-*.safetensors"):
        file.unlink()
    last = run.log().iloc[-1]
    run.write_summary(
        {
            "recipe": recipe.name,
            "model": recipe.model.name,
            "data": recipe.data.source,
            "steps": int(last.step),
            "best_step": step,  # whose weights model/ holds
            "completions": int(last.completions),
            "training_minutes": round(float(last.seconds) / 60, 2),
            "peak_memory_gib": round(peak_memory_gib(), 2),
            "stopped_by": keeper.stopped_by,
        }
    )


class Interrupted(UserError):
    """Training was asked to stop, and did, with a checkpoint; ``signal`` is the signal's number."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
