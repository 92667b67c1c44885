"""Dynamic sampling: a group without signal is drawn again with another problem, within a budget, and counted."""

from pathlib import Path
from typing import Any

import pytest
import torch
from forced import MANY, make_trainer, weights

from rlvr_kit import UserError
from rlvr_kit.engine.grpo_trainer import SharedPrefixGRPOTrainer


class Paid:
    """Rewards that differ within the groups of the prompts named in `teach`, and are equal in all others."""

    __name__ = "paid"

    def __init__(self, teach: set[str]) -> None:
        self.teach, self.asked = teach, list[list[str]]()

    def __call__(self, prompts: list[str], **_: Any) -> list[float]:
        self.asked.append(prompts)
        return [float(i % 2) if prompt in self.teach else 1.0 for i, prompt in enumerate(prompts)]


def redrawing(folder: Path, redraws: int, teach: set[str], **options: Any) -> tuple[Any, Paid]:
    """A trainer of four groups of four a step, on 32 problems of which `teach` give a signal."""
    trainer = make_trainer(SharedPrefixGRPOTrainer, folder, gradient_accumulation_steps=2, **options)
    trainer.redraws, paid = redraws, Paid(teach)
    trainer.reward_funcs = [paid]
    torch.manual_seed(5)
    return trainer, paid


def test_the_groups_kept_are_those_with_signal(tmp_path: Path) -> None:
    teach = set(MANY[::2])
    trainer, paid = redrawing(tmp_path, 30, teach, max_steps=2)
    trainer.train()
    assert trainer.redrawn > 0 and trainer.redrawn % 4 == 0
    # TRL asks once more for the rewards of what is trained on: these are the last groups of each step.
    for asked in (paid.asked[-1], *[a for a, b in zip(paid.asked, paid.asked[1:], strict=False) if a == b]):
        assert set(asked) <= teach
    assert all(line["frac_reward_zero_std"] == 0.0 for line in trainer.state.log_history if "loss" in line)
    assert all((rows["advantages"] != 0).all() for rows in trainer._buffered_inputs)


def test_a_group_with_signal_is_not_drawn_again(tmp_path: Path) -> None:
    trainer, paid = redrawing(tmp_path, 30, set(MANY[::2]), max_steps=1)
    trainer.train()
    for before, after in zip(paid.asked, paid.asked[1:], strict=False):
        for old, new in zip(before, after, strict=True):
            assert old == new or old not in paid.teach


def test_the_budget_holds(tmp_path: Path) -> None:
    trainer, paid = redrawing(tmp_path, 3, set(), max_steps=2)
    trainer.train()
    assert trainer.redrawn == 2 * 3 * 16  # steps x rounds x completions
    assert len(paid.asked) == 2 * (1 + 3 + 1)  # the first draw, three rounds, and TRL's own question
    assert [line["frac_reward_zero_std"] for line in trainer.state.log_history if "loss" in line] == [
        1.0,
        1.0,
    ]


def test_nothing_changes_where_every_group_has_a_signal(tmp_path: Path) -> None:
    ends = []
    for redraws in (0, 3):
        trainer, _ = redrawing(tmp_path, redraws, set(MANY), max_steps=2)
        trainer.train()
        logged = [{k: v for k, v in line.items() if "time" not in k} for line in trainer.state.log_history]
        ends.append((weights(trainer), [line for line in logged if "loss" in line], trainer.redrawn))
    (before, logs, _), (after, same_logs, redrawn) = ends
    assert redrawn == 0 and logs == same_logs
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_run_that_goes_on_draws_the_same_problems(tmp_path: Path) -> None:
    asked = []
    for _ in range(2):
        trainer, paid = redrawing(tmp_path, 2, set(), max_steps=1)
        trainer.train()
        asked.append(paid.asked)
    assert asked[0] == asked[1] and asked[0][0] != asked[0][1]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"repetition_penalty": 1.1}, "stock TRL samples.*repetition_penalty"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, "it needs grpo.multi_objective_aggregation"),
    ],
)
def test_what_it_cannot_do_is_refused(tmp_path: Path, options: dict, reason: str) -> None:
    trainer, _ = redrawing(tmp_path, 1, set(MANY), **options)
    with pytest.raises(UserError, match=f"run.redraws is 1, but {reason}"):
        trainer.train()
