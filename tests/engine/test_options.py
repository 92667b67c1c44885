"""Options of TRL: trained on forced completions, weights and logged metrics are those of stock TRL, or it steps aside.

When TRL's release changes, run its own tests/test_grpo_trainer.py with the kit's trainer in the place of GRPOTrainer:
none that passes with GRPOTrainer may fail. These matter most (names of TRL), beside the tests here that cover the same:

    test_train_loss_types                                              loss-*
    test_train_multiple_iterations                                     iterations*, generation-for-two-steps*
    test_train_peft_config, test_train_peft_model                      lora*, dora, saved-head
    test_train_peft_with_gradient_checkpointing                        checkpointed*
    test_train_beta_non_zero, test_train_with_sync_ref_model           beta*
    test_train_with_bias_correction_kl                                 beta-bias-correction
    test_train_with_entropy_filter                                     entropy-quantile
    test_train_with_static_entropy, test_train_with_adaptive_entropy   entropy-bonus*, entropy-adaptive
    test_train_with_off_policy_mask, test_train_delta_clipping         off-policy-mask, delta
    test_train_sequence_importance_sampling, test_train_scale_rewards  sequence-level, scale-*
    test_train_normalize_then_sum_aggregation                          normalize-then-sum
    test_train_with_pad_to_multiple_of                                 padded
    test_train_with_mask_truncated_completions (and _all_masked)       mask-truncated*
and in test_grpo_trainer.py:
    test_train_with_eval, test_train_with_num_generations_eval,        test_evaluation_is_stock_trls_*
    test_evaluate_with_eval_dataset, test_train_eval_on_start
    test_train_with_additional_generation_kwargs,                      test_it_steps_aside_with_one_line
    test_train_with_generation_kwargs, test_train_with_cast_lm_head_to_fp32
    test_train_with_tools, test_train_with_malformed_tool_calls,       test_what_it_does_not_know_is_passed_on_to_trl
    test_train_with_environment_factory (and the others of environments)
    test_generate_prefers_rollout_func                                 test_it_steps_aside_for_a_rollout_function
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
    "mask-truncated-single-rows": {  # some passes hold masked completions alone
        "mask_truncated_completions": True, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
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


def test_in_bfloat16_it_is_as_close_to_stock_trl_as_rounding_allows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, stock, ours = (
        trained(cls, folder, monkeypatch, lora=True, bf16=bf16)[1]
        for cls, bf16 in ((GRPOTrainer, False), (GRPOTrainer, True), (SharedPrefixGRPOTrainer, True))
    )
    rounding = (stock - exact).norm()
    assert 0 < (ours - stock).norm() <= 1.5 * rounding


def _is_a_time(key: str) -> bool:
    return any(word in key for word in ("time", "per_second", "total_flos"))
