"""Options of TRL: trained on forced completions, weights and logged metrics are those of stock TRL, or it steps aside.

A change of TRL's release is checked with its own tests as well: tests/test_grpo_trainer.py of huggingface/trl, with the
kit's trainer in place of GRPOTrainer. Those that found defects here, beside the test that holds each of them now:
TRL_TESTS_HERE
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from forced import trained
from trl import GRPOTrainer

from rlvr_kit.engine.grpo_trainer import SharedPrefixGRPOTrainer

TWO_PASSES = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}

EXACT: dict[str, dict[str, Any]] = {
    "full": {},
    "full-qwen2": {"kind": "qwen2"},
    "lora": {"lora": True},
    "lora-two-passes": {"lora": True} | TWO_PASSES,
    "dora": {"lora": {"use_dora": True}},
    "saved-head": {"lora": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}},
    "two-passes": TWO_PASSES,
    "split-groups": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
    **{f"loss-{name}": {"loss_type": name} | TWO_PASSES
       for name in ("grpo", "bnpo", "dr_grpo", "luspo", "cispo", "sapo", "vespo")},
    "beta": {"beta": 0.1},
    "beta-lora": {"beta": 0.1, "lora": True} | TWO_PASSES,
    "beta-sync": {"beta": 0.1, "sync_ref_model": True, "ref_model_sync_steps": 1},
    "beta-bias-correction": {"beta": 0.1, "use_bias_correction_kl": True, "num_iterations": 2},
    "iterations": {"num_iterations": 2},
    "iterations-two-passes": {"num_iterations": 2} | TWO_PASSES,
    "generation-for-two-steps": {"steps_per_generation": 2},
    "generation-for-two-steps-lora-beta": {"steps_per_generation": 4, "lora": True, "beta": 0.1} | TWO_PASSES,
    "two-generations-a-step": {"steps_per_generation": 1} | TWO_PASSES,
    "off-policy-mask": {"num_iterations": 2, "off_policy_mask_threshold": 0.01},
    "delta": {"num_iterations": 2, "delta": 1.5, "epsilon_high": 0.3},
    "entropy-quantile": {"top_entropy_quantile": 0.4} | TWO_PASSES,
    "entropy-bonus": {"entropy_coef": 0.1} | TWO_PASSES,
    "entropy-bonus-lora": {"entropy_coef": 0.1, "lora": True},
    "entropy-adaptive": {"use_adaptive_entropy": True, "entropy_target": 9.0, "entropy_coef_delta": 0.05},
    "mask-truncated": {"mask_truncated_completions": True} | TWO_PASSES,
    "sequence-level": {"importance_sampling_level": "sequence", "num_iterations": 2},
    "scale-batch": {"scale_rewards": "batch"} | TWO_PASSES,
    "scale-none": {"scale_rewards": "none"},
    "normalize-then-sum": {"multi_objective_aggregation": "normalize_then_sum"},
    "cool-top-k-top-p": {"temperature": 0.7, "top_k": 5, "top_p": 0.8, "lora": True} | TWO_PASSES,
    "padded": {"pad_to_multiple_of": 16},
    "checkpointed": {"gradient_checkpointing": True},
    "checkpointed-reentrant": {
        "gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("options")


@pytest.mark.parametrize("name", EXACT)
def test_weights_and_metrics_are_stock_trls(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (before, stock, stock_log), (start, ours, our_log) = (
        trained(cls, folder, monkeypatch, **EXACT[name]) for cls in (GRPOTrainer, SharedPrefixGRPOTrainer)
    )
    assert torch.equal(before, start)
    assert (stock - before).norm() > 1e-3
    assert (ours - stock).norm() <= 1e-4 * (stock - before).norm()
    assert len(our_log) == len(stock_log)
    for theirs, mine in zip(stock_log, our_log, strict=True):
        metrics = {key: value for key, value in theirs.items() if not _is_a_time(key)}
        assert metrics == pytest.approx({key: mine[key] for key in metrics}, rel=2e-4, abs=2e-6)
        assert mine.keys() == theirs.keys()


def _is_a_time(key: str) -> bool:
    return any(word in key for word in ("time", "per_second", "total_flos"))
