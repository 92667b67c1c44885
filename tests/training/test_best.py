"""The model that a run saves is the one of its best held-out measurement."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from rlvr_kit import Run, load_policy
from rlvr_kit.training.best import best_step, forget_worse, restore_best, set_aside


def line(step: int, strict: float | None = None) -> dict:
    return {"step": step} if strict is None else {"step": step, "heldout/strict": strict}


@pytest.mark.parametrize(
    "lines, expected",
    [
        ([line(0, 0.1), line(5, 0.4), line(10, 0.3)], 5),
        ([line(0, 0.1), line(5, 0.4), line(10, 0.4), line(11)], 10),  # of equals the later one
        ([line(0, 0.2), line(5, 0.1)], 0),  # nothing was better than the base
        ([line(1), line(2)], None),
        ([], None),
    ],
)
def test_best_step(lines: list, expected: int | None) -> None:
    assert best_step(lines) == expected


@pytest.mark.parametrize("lora", [True, False])
def test_the_best_weights_come_back(lora: bool, tmp_path: Path) -> None:
    policy, run = load_policy("tiny-random"), Run(tmp_path)
    if lora:
        policy = get_peft_model(policy, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    weights = {name: weight.clone() for name, weight in policy.state_dict().items()}
    run.append_log(line(2, 0.5))
    set_aside(run, policy, 2)
    run.append_log(line(4, 0.1))
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(weight.requires_grad * 1.0)
    assert restore_best(run, policy) == 2
    assert all(torch.equal(weight, weights[name]) for name, weight in policy.state_dict().items())


def test_what_a_checkpoint_can_go_back_to_is_kept(tmp_path: Path) -> None:
    policy, run = load_policy("tiny-random"), Run(tmp_path)
    for step, strict in ((0, 0.1), (2, 0.2), (4, 0.3)):
        run.append_log(line(step, strict))
        set_aside(run, policy, step)
    forget_worse(run, 2)  # the newest checkpoint is of step 2: a run that goes on from it forgets step 4
    assert sorted(file.stem for file in tmp_path.glob("checkpoints/*")) == ["best-2", "best-4"]
