"""Train a recipe into a run folder: TRL's GRPOTrainer with a held-out curve, and checkpoints to continue from."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors import SafetensorError
from transformers import PrinterCallback

from rlvr_kit.bundled_model import quiet
from rlvr_kit.errors import InputError, Interrupted, MachineError, UserError
from rlvr_kit.machine import IS_MAIN_PROCESS, peak_memory_gib, release_memory, reuse_freed_memory, use_threads
from rlvr_kit.measure.checks import refuse_leaks
from rlvr_kit.models import load_policy, load_tokenizer
from rlvr_kit.recipe import Recipe, RewardsSection
from rlvr_kit.rewards.reward_functions import CorrectnessReward, FormatReward
from rlvr_kit.run_folder import Run, atomic, cannot_write, only_writer
from rlvr_kit.tasks.hostile import refuse_broken
from rlvr_kit.training.callbacks import RunKeeper, stop_signals, whole_policy
from rlvr_kit.training.configs import grpo_config, lora_config
from rlvr_kit.training.finish import save_model, write_summary
from rlvr_kit.training.plan import plan
from rlvr_kit.training.resume import checkpoints, file_sizes, is_finished, refuse_other_run, resolved_as_begun


def _trainer_class(recipe: Recipe, folder: Path) -> type:
    """Return the kit's trainer class or TRL's own, changed so that only complete checkpoints appear in the folder."""
    from trl import GRPOTrainer

    from rlvr_kit.engine.grpo_trainer import SharedPrefixGRPOTrainer

    base: Any = SharedPrefixGRPOTrainer if recipe.run.shared_prefix else GRPOTrainer

    class Trainer(base):
        def _get_output_dir(self, trial: Any) -> str:
            return str(folder / "checkpoints" / ".partial")

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """Write no README into checkpoints: the run folder has a recipe and a summary."""

        def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
            # transformers checks this flag only after a step, so it would train one step too many after a checkpoint.
            if not self.control.should_training_stop:
                super()._run_epoch(*args, **kwargs)

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            partial = Path(self._get_output_dir(trial))
            complete = folder / "checkpoints" / f"checkpoint-{self.state.global_step}"
            try:
                super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    draft = partial / complete.name
                    (draft / "files.json").write_text(json.dumps(file_sizes(draft)))
                    shutil.rmtree(complete, ignore_errors=True)
                    draft.rename(complete)
                    shutil.rmtree(partial)
                    for old in checkpoints(folder)[:-2]:
                        shutil.rmtree(old)
            except (OSError, SafetensorError, RuntimeError) as error:  # torch.save raises a RuntimeError
                problem = cannot_write(complete, error)
                shutil.rmtree(partial, ignore_errors=True)
                raise problem from error

    return Trainer


@contextmanager
def _opened(recipe: Recipe, run: Run, checkpoint: Path | None) -> Iterator[None]:
    """Write recipe.yaml and delete log lines after the checkpoint; undo this if not even one step is trained."""
    if IS_MAIN_PROCESS:
        with atomic(run.path / "recipe.yaml") as draft:
            draft.write_text(recipe.to_yaml(), encoding="utf-8")
        if recipe.loaded_task.file:
            with atomic(run.path / "task.py") as draft:  # the run keeps what was asked and how it was judged
                shutil.copy(recipe.loaded_task.file, draft)
        shutil.rmtree(run.path / "checkpoints" / ".partial", ignore_errors=True)
        run.forget_after(int(checkpoint.name.split("-")[1]) if checkpoint else -1)
    try:
        yield
    except BaseException:
        lines = run.lines() if (run.path / "log.jsonl").exists() else []
        if IS_MAIN_PROCESS and checkpoint is None and not any(line["step"] for line in lines):
            for name in ("recipe.yaml", "task.py", "log.jsonl"):
                (run.path / name).unlink(missing_ok=True)
            for name in ("completions", "checkpoints"):
                shutil.rmtree(run.path / name, ignore_errors=True)
        raise


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    rewards: list[Any] | None = None,
    live: Callable[[Run], None] | None = None,
) -> Run:
    """Train as the recipe says, into the run folder ``out``. A run that was interrupted continues.

    It continues from the last checkpoint of the folder. ``rewards`` replaces the recipe's two reward functions (the
    notebook on reward hacking does that). ``live`` is called with the run after each line of the log.

    Raises:
        UserError: the recipe cannot work (said before anything is loaded); the folder holds another run, or another
            process trains in it; the disk is full; or guards.py has stopped the run.
        Interrupted: Ctrl-C or SIGTERM. A checkpoint was written, and the same call continues from there.

    Example:
        >>> from rlvr_kit.recipe import load_recipe
        >>> run = train(load_recipe("smoke"), "runs/smoke")  # doctest: +SKIP
    """
    if not str(out).strip():
        raise InputError("the output folder has an empty name: give it one, such as runs/first")
    run, recipe = Run(out), resolved_as_begun(recipe, Path(out))
    refuse_other_run(recipe, run.path)
    if is_finished(recipe, run):
        return run
    if IS_MAIN_PROCESS:  # of several processes only one needs to refuse
        # With other reward functions the recipe's reward weights are not used, so even 0 is allowed.
        plan(recipe.model_copy(update={"rewards": RewardsSection()}) if rewards else recipe)
    with only_writer(run.path) if IS_MAIN_PROCESS else nullcontext():
        refuse_other_run(recipe, run.path)  # another process may have trained here in the meantime
        if not is_finished(recipe, run):
            _train(recipe, run, rewards, live)
    release_memory()
    return run


def _train(recipe: Recipe, run: Run, rewards: list[Any] | None, live: Callable[[Run], None] | None) -> None:
    """Load the model, train from the last checkpoint on, and save. The caller holds the lock of the folder."""
    release_memory()  # what an evaluation in the same process left: the peak would come on top of it
    reuse_freed_memory()
    use_threads(recipe.run.threads)
    problems, template, task = recipe.training_problems(), recipe.template(), recipe.loaded_task
    refuse_leaks(recipe.test_problems(), [*problems["question"], *(e.question for e in template.exemplars)])
    refuse_broken(task, problems)
    tokenizer = load_tokenizer(recipe.model.name, recipe.model.revision)
    policy = load_policy(
        recipe.model.name, revision=recipe.model.revision, dtype=recipe.model.dtype, seed=recipe.run.seed,
        in_4bit=recipe.model.load_in_4bit,
    )  # fmt: skip
    prompts = [template.prompt(tokenizer, question) for question in problems["question"]]
    dataset = Dataset.from_dict({"prompt": prompts, "gold": problems["gold"]})
    checkpoint = next(reversed(checkpoints(run.path)), None)
    keeper = RunKeeper(recipe, run, live)
    weights = recipe.rewards
    ours = [FormatReward(weights.format, task.verify), CorrectnessReward(weights.correct, task.verify)]
    config, lora = grpo_config(recipe, run.path), lora_config(recipe)
    try:
        trainer = _trainer_class(recipe, run.path)(
            model=policy, args=config, processing_class=tokenizer, train_dataset=dataset, peft_config=lora,
            reward_funcs=rewards or ours, callbacks=[keeper],
        )  # fmt: skip
    except Exception as error:  # no code of the caller runs here, so a value of the recipe is wrong
        raise InputError(f"recipe {recipe.name} is refused by TRL: {' '.join(str(error).split())}") from error
    trainer.remove_callback(PrinterCallback)
    keeper.trainer = trainer
    if hasattr(trainer, "stop"):  # a completion ends at the same strings in training and in evaluation
        trainer.stop, trainer.redraws = template.stop, recipe.run.redraws
    with _opened(recipe, run, checkpoint), stop_signals(keeper), quiet():
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except Exception as error:
            explained = _explained(error, keeper, checkpoint, own_code=rewards is None and live is None)
            if explained is error:
                raise
            if explained is not None:
                raise explained from error
        finally:
            keeper.close_bar()  # so that the last line is the error
        if keeper.fault:
            raise InputError(keeper.fault)
    if keeper.signal and trainer.state.global_step < trainer.state.max_steps:
        raise Interrupted(
            keeper.signal, f"stopped at step {trainer.state.global_step}; the same command goes on from there"
        )
    whole = whole_policy(recipe, trainer)
    if whole is not None:
        save_model(recipe, run, whole, tokenizer)
        write_summary(recipe, run, keeper.stopped_by, peak_memory_gib())
    # Trainer and callback refer to each other, so Python would free their memory only at some later time.
    trainer.accelerator.free_memory()
    del keeper.trainer


def _explained(
    error: Exception, keeper: RunKeeper, checkpoint: Path | None, own_code: bool
) -> Exception | None:
    """Return the error to raise after an error in TRL's training; None when a guard has already given the reason.

    `own_code` is true when all the code that ran belongs to the kit. Otherwise an error in a reward function or in a
    callback of the caller is raised unchanged.
    """
    recipe, reason = keeper.recipe, " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UserError):
        return error
    if checkpoint and not keeper.stepped:
        advice = "delete that folder, and the same command goes on from the checkpoint before it, or from the start"
        return InputError(f"{checkpoint} is damaged ({reason}): {advice}")
    if isinstance(error, OSError | SafetensorError):
        problem = cannot_write(keeper.run.path, error)
        if isinstance(problem, MachineError) or str(keeper.run.path) in str(getattr(error, "filename", "")):
            return problem
        return MachineError(f"training ended: {reason}. The same command goes on from the last checkpoint")
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "t allocate memory" in reason:
        return MachineError(
            f"memory ran out ({reason}): lower grpo.per_device_train_batch_size, and raise "
            "grpo.gradient_accumulation_steps by as much"
        )
    if isinstance(error, RuntimeError | IndexError) and keeper.blew_up():  # what a sampler raises for NaN
        return None
    if not keeper.begun or (own_code and not keeper.logged):
        return InputError(f"recipe {recipe.name} cannot be trained: {type(error).__name__}: {reason}")
    return error
