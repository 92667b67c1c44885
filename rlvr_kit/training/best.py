"""Keep the best weights of a run: those of the step with the best held-out strict accuracy.

The last step is not always the best one: a few more updates may undo what earlier updates taught. So the trained
weights are written to a file at each held-out measurement that is at least as good as all earlier ones, and the model
that is saved at the end is the best of them. Step 0, the model before training, takes part: a run that only made the
model worse saves the base model. The held-out problems come from the training split, so the comparison on the test
split stays fair.
"""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from rlvr_kit.run_folder import Run, atomic


def best_step(lines: list[dict[str, Any]]) -> int | None:
    """Return the step with the best held-out strict accuracy in the log's `lines`; of equal ones, the later step.

    >>> best_step([{"step": 0, "heldout/strict": 0.1}, {"step": 5, "heldout/strict": 0.4}, {"step": 6}])
    5
    """
    measured = [(line["heldout/strict"], line["step"]) for line in lines if "heldout/strict" in line]
    return max(measured)[1] if measured else None


def set_aside(run: Run, policy: Any, step: int) -> None:
    """Write the policy's trained weights (with LoRA, the adapter alone) to ``checkpoints/best-<step>``.

    Raises:
        UserError: they cannot be written.
    """
    trained = {
        name: weight.detach().contiguous()
        for name, weight in policy.named_parameters()
        if weight.requires_grad
    }
    with atomic(_file(run, step)) as draft:
        save_file(trained, draft)


def restore_best(run: Run, policy: Any) -> int | None:
    """Load the best weights into `policy`. Return their step, or None when nothing was measured."""
    step = best_step(run.lines())
    if step is not None and _file(run, step).exists():
        policy.load_state_dict(load_file(_file(run, step)), strict=False)
    return step


def forget_worse(run: Run, step: int) -> None:
    """Delete the weights of steps before the best one up to `step`: no checkpoint needs them any more."""
    best = best_step([line for line in run.lines() if line["step"] <= step])
    for file in run.path.glob("checkpoints/best-*.safetensors"):
        if best is not None and int(file.stem.partition("-")[2]) < best:
            file.unlink(missing_ok=True)


def _file(run: Run, step: int) -> Path:
    return run.path / "checkpoints" / f"best-{step}.safetensors"
