"""What happens at each step of training: a line in the run folder, the held-out curve, checkpoints, stopping."""

import json
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from datasets import Dataset
from rich.console import Console
from tqdm.auto import tqdm
from transformers import TrainerCallback

from rlvr_kit.evaluation import evaluate
from rlvr_kit.recipe import Recipe
from rlvr_kit.runs import Run

#: TRL's name of a metric -> ours in log.jsonl.
METRICS = {
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


class RunKeeper(TrainerCallback):
    """Writes the run folder while TRL trains: log lines, the held-out curve, checkpoints; shows the progress."""

    def __init__(
        self,
        recipe: Recipe,
        run: Run,
        heldout: Dataset,
        seconds_before: float,
        live: Callable[[Run], None] | None,
    ) -> None:
        self.recipe, self.run, self.heldout, self.live = recipe, run, heldout, live
        self.started = time.monotonic() - seconds_before
        self.trainer: Any = None
        self.bar: Any = None
        self.stopped_by: str | None = None
        self.signal: int | None = None

    def measure(self) -> dict[str, Any]:
        """Strict, lenient and format shares on the held-out problems, greedy, as log.jsonl names them."""
        policy = self.trainer.accelerator.unwrap_model(self.trainer.model_wrapped)
        summary = evaluate(
            policy, self.trainer.processing_class, self.heldout, self.recipe.template(), label="held-out",
            max_new_tokens=self.recipe.max_new_tokens, batch_size=self.recipe.evaluation.batch_size, quiet=True,
        ).summary  # fmt: skip
        keys = ("n", "strict", "strict_ci", "lenient", "lenient_ci", "format", "format_ci", "truncated")
        return {f"heldout/{key}": summary[key] for key in keys}

    def write(self, line: dict[str, Any]) -> None:
        """Append one line to log.jsonl; where nobody watches a bar, print it, since a job's metrics are read there."""
        line["seconds"] = round(time.monotonic() - self.started, 2)
        self.run.append_log(line)
        if not sys.stdout.isatty() and "ipykernel" not in sys.modules:
            print(json.dumps(line), flush=True)
        if self.live:
            self.live(self.run)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="GRPO", unit="step")
            if state.global_step == 0:
                self.write({"step": 0, "completions": 0} | self.measure())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" not in logs:  # TRL's closing line of totals
            return
        step = state.global_step
        if state.is_world_process_zero:
            line = {"step": step, "completions": step * self.completions_per_step}
            line |= {ours: logs[theirs] for theirs, ours in METRICS.items() if theirs in logs}
            line |= {
                key[: -len("/mean")]: v for key, v in logs.items() if re.fullmatch("rewards/.*/mean", key)
            }
            if step % self.recipe.evaluation.every_steps == 0 or step == state.max_steps:
                line |= self.measure()
            self.write(line)
            self.bar.update(1)
            shown = {"reward": f"{line['reward']:.2f}", "length": f"{line['length']:.0f}"}
            self.bar.set_postfix(shown)
        limit = self.recipe.run.max_minutes
        if limit and time.monotonic() - self.started > 60 * limit:
            self.stopped_by = f"the time budget of {limit:g} minutes (run.max_minutes)"
        # One process may have heard the signal and another not: they stop together or not at all.
        stop = torch.tensor(
            float(bool(self.stopped_by or self.signal)), device=self.trainer.accelerator.device
        )
        if self.trainer.accelerator.reduce(stop, reduction="sum") > 0:
            control.should_training_stop = control.should_save = True
        if step % self.recipe.run.save_steps == 0:
            control.should_save = True

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
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
        Console(stderr=True).print("\nstopping after this step, with a checkpoint")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
