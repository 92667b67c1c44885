"""What happens at each step of training: a line in the run folder, the held-out curve, checkpoints, stopping."""

import json
import math
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import get_peft_model
from rich.console import Console
from tqdm.auto import tqdm
from transformers import TrainerCallback

from rlvr_kit.machine import IS_MAIN_PROCESS, handle_signals
from rlvr_kit.measure.evaluation import evaluate
from rlvr_kit.models import load_policy
from rlvr_kit.recipe import Recipe
from rlvr_kit.run_folder import Run
from rlvr_kit.training import best, guards
from rlvr_kit.training.finish import reason_to_end

#: TRL's name of a metric -> ours in log.jsonl.
LOGGED = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "reward": "reward",
    "reward_std": "reward_std",
    "entropy": "entropy",
    "kl": "kl",
    "frac_reward_zero_std": "equal_groups",
    "completions/mean_length": "length",
    "completions/clipped_ratio": "truncated",
    "clip_ratio/region_mean": "clipped",
}


def whole_policy(recipe: Recipe, trainer: Any) -> Any:
    """Return the whole policy in rank 0, and None in the other processes, which must call this as well.

    With FSDP each process holds a part of every weight; rank 0 then gets a copy that is put together from all parts.
    """
    first, model = trainer.accelerator.is_main_process, trainer.model
    if not trainer.is_fsdp_enabled:
        return trainer.accelerator.unwrap_model(model) if first else None
    weights = trainer.accelerator.get_state_dict(model)
    if not first:
        return None
    policy = load_policy(recipe.model.name, revision=recipe.model.revision, dtype=recipe.model.dtype)
    if recipe.lora is not None:
        policy = get_peft_model(policy, model.peft_config["default"])
    policy.load_state_dict(weights)
    return policy


class RunKeeper(TrainerCallback):
    """Writes the run folder while TRL trains: log lines, the held-out curve, when to save. Shows the progress."""

    def __init__(self, recipe: Recipe, run: Run, live: Callable[[Run], None] | None) -> None:
        self.recipe, self.run, self.live = recipe, run, live
        self.heldout = recipe.heldout_problems()
        self.started = time.monotonic()
        self.trainer: Any = None
        self.bar: Any = None
        self.stopped_by: str | None = None
        self.fault: str | None = None  # what a guard stopped the run for
        self.signal: int | None = None
        self.begun = self.stepped = self.logged = (
            False  # how far training came: its start, a step, a step's end
        )

    def measure(self) -> dict[str, Any]:
        """Strict, lenient and format shares on the held-out problems, greedy, as log.jsonl names them."""
        policy = whole_policy(self.recipe, self.trainer)
        if policy is None:
            return {}
        summary = evaluate(
            policy, self.trainer.processing_class, self.heldout, self.recipe.template(), label="held-out",
            sampling=self.recipe.sampling, quiet=True, task=self.recipe.loaded_task,
        ).summary  # fmt: skip
        keys = ("n", "strict", "strict_ci", "lenient", "lenient_ci", "format", "format_ci", "truncated")
        measured = {f"heldout/{key}": summary[key] for key in keys}
        step = self.trainer.state.global_step
        earlier = self.run.lines() if (self.run.path / "log.jsonl").exists() else []
        if best.best_step([*earlier, {"step": step} | measured]) == step:
            best.set_aside(self.run, policy, step)
        return measured

    def write(self, line: dict[str, Any]) -> None:
        """Append one line to log.jsonl; print it where there is no progress bar, for the metrics of a SageMaker job."""
        line["seconds"] = round(time.monotonic() - self.started, 2)
        self.run.append_log(line)
        if not sys.stdout.isatty() and "ipykernel" not in sys.modules:
            print(json.dumps(line), flush=True)
        if self.live:
            self.live(self.run)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.begun = True
        if (
            state.global_step
        ):  # going on from a checkpoint: the clock goes on as well, and the run may be over
            lines = self.run.lines() if (self.run.path / "log.jsonl").exists() else []
            self.started = time.monotonic() - (lines[-1]["seconds"] if lines else 0.0)
            self.stopped_by = reason_to_end(self.recipe, lines)
            control.should_training_stop = state.global_step >= state.max_steps or bool(self.stopped_by)
        if state.is_world_process_zero:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="GRPO", unit="step")
        measured = self.measure() if state.global_step == 0 else {}
        if measured:
            self.write({"step": 0, "completions": 0} | measured)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.stepped = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" not in logs:  # TRL's closing line of totals
            return
        self.logged = True
        step = state.global_step
        line = {"step": step, "completions": step * self.completions_per_step}
        line |= {ours: logs[theirs] for theirs, ours in LOGGED.items() if theirs in logs}
        line |= {key[: -len("/mean")]: v for key, v in logs.items() if re.fullmatch("rewards/.*/mean", key)}
        spoilt = guards.not_finite(line)  # TRL's metrics are the same in every process, and so is this
        due = step % self.recipe.evaluation.every_steps == 0 or step == state.max_steps
        measured = self.measure() if due and not spoilt else {}
        if state.is_world_process_zero:
            self.report(line | measured)
            self.bar.update(1)
            # A step that learns again from earlier completions (grpo.num_iterations) has no reward of its own.
            self.bar.set_postfix({key: line[key] for key in ("reward", "length") if key in line})
            self.stopped_by = self.stopped_by or reason_to_end(self.recipe, self.run.lines())
        # One process may have received a signal and another not, so they ask each other and stop together.
        asked = torch.tensor(
            [[self.signal or 0, bool(self.stopped_by), bool(self.fault)]],
            device=self.trainer.accelerator.device,
        )
        number, stop, fault = self.trainer.accelerator.gather(asked).amax(dim=0).tolist()
        self.signal = self.signal or number or None
        self.fault = self.fault or ("training stopped: rank 0 reports the error" if fault else None)
        if number or stop or fault:
            control.should_training_stop = True
        if number or stop or fault or step % self.recipe.run.save_steps == 0:
            control.should_save = not spoilt  # weights that are not numbers are no use to go on from

    def report(self, line: dict[str, Any]) -> None:
        """Write the line with what the guards found in it. A warning is shown as well; a fault ends the run."""
        found = guards.check([*self.run.lines(), line]) if self.recipe.run.guards else {}
        if "stopped_early" in found:
            self.stopped_by = found["stopped_early"]
        if "stopped" in found:
            kept = f"{self.run.path} keeps the log; with run.guards=false another run would go on"
            self.fault = f"training stopped at {found['stopped']}. {kept}"
        for text in (text for key, text in found.items() if key != "stopped"):
            console = Console(stderr=True, soft_wrap=True)
            console.print("warning:", text, style="yellow", highlight=False, markup=False)
        self.write(line | found)

    def blew_up(self) -> bool:
        """Return whether, after an error in training, the policy's logits are NaN or infinite; the log then says so."""
        policy = self.trainer.accelerator.unwrap_model(self.trainer.model_wrapped)
        with torch.no_grad():
            logits = policy(torch.tensor([[0]], device=policy.device)).logits
        if logits.isfinite().all():
            return False
        step, rate = self.trainer.state.global_step + 1, self.trainer.args.learning_rate
        line = {"step": step, "logits": math.nan, "learning_rate": rate}
        if self.trainer.accelerator.is_main_process:
            self.report(line)
        self.fault = self.fault or f"training stopped at step {step}: {guards.not_finite(line)}"
        return True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            best.forget_worse(self.run, state.global_step)

    def close_bar(self) -> None:
        """End the progress bar's line."""
        if self.bar is not None:
            self.bar.close()

    @property
    def completions_per_step(self) -> int:
        """How many completions, over all processes, one optimizer step learns from."""
        args = self.trainer.args
        return args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size


@contextmanager
def stop_signals(keeper: RunKeeper) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a checkpoint at the end of the step; a second Ctrl-C stops at once."""

    def ask(number: int, frame: Any) -> None:
        if keeper.signal == signal.SIGINT == number:
            raise KeyboardInterrupt
        keeper.signal = number
        Console(stderr=True, quiet=not IS_MAIN_PROCESS).print("\nstopping after this step, with a checkpoint")

    with handle_signals(ask, signal.SIGINT, signal.SIGTERM):
        yield
