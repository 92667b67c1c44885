"""Keep the best: the trained weights of the step with the best held-out strict accuracy.

Training can pass its best point: a few more updates may unlearn what earlier ones taught. So the weights are set aside
at each held-out measurement that is at least as good as all before it, and the model that is saved in the end is the
best of them, not the last. Step 0, the model before training, takes part: a run that only lost saves its base. The
held-out problems come from the training split, so the comparison on the test split stays honest.
"""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from rlvr_kit.run_folder import Run, atomic


def best_step(lines: list[dict[str, Any]]) -> int | None:
    """Return the step of the log's `lines` with the best held-out strict accuracy, the later one of equals.

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
    """Put the best weights back into `policy`; return their step, or None where nothing was measured."""
    step = best_step(run.lines())
    if step is not None and _file(run, step).exists():
        policy.load_state_dict(load_file(_file(run, step)), strict=False)
    return step


def forget_worse(run: Run, step: int) -> None:
    """Delete what was set aside before the best step that a checkpoint of `step` knows: nobody goes back there."""
    best = best_step([line for line in run.lines() if line["step"] <= step])
    for file in run.path.glob("checkpoints/best-*.safetensors"):
        if best is not None and int(file.stem.partition("-")[2]) < best:
            file.unlink(missing_ok=True)


def _file(run: Run, step: int) -> Path:
    return run.path / "checkpoints" / f"best-{step}.safetensors"
