"""The shared-prefix trainer computes what stock TRL computes: log-probabilities, loss and gradients."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from test_sampling import TOKENIZER, tiny
from trl import GRPOConfig, GRPOTrainer

from rlvr_kit.engine.grpo_trainer import SharedPrefixGRPOTrainer
from rlvr_kit.rewards.reward_functions import CorrectnessReward

PROMPTS = ["Solve. 3+4=", "Solve. 12 apples and 7 more?"]


def make_trainer(cls: type, folder: Path, kind: str = "llama", lora: bool = False, **options: Any) -> Any:
    from peft import LoraConfig

    config = GRPOConfig(
        output_dir=str(folder), per_device_train_batch_size=8, num_generations=4, max_completion_length=8,
        use_cpu=True, bf16=False, report_to="none", activation_checkpointing=False, disable_tqdm=True, **options,
    )  # fmt: skip
    peft_config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False) if lora else None
    torch.manual_seed(3)
    trainer = cls(
        model=tiny(kind), args=config, processing_class=TOKENIZER, reward_funcs=CorrectnessReward(),
        train_dataset=Dataset.from_dict({"prompt": PROMPTS * 8, "gold": ["7", "19"] * 8}), peft_config=peft_config,
    )  # fmt: skip
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return trainer


def batch(old_logps: bool = False) -> dict[str, Any]:
    """Two groups of four, prompts of different lengths padded on the left, completions of 1 to 8 tokens."""
    generator = torch.Generator().manual_seed(0)
    prompts = [TOKENIZER(p)["input_ids"] for p in PROMPTS for _ in range(4)]
    lengths = [8, 3, 1, 5, 7, 8, 2, 4]
    completions = [torch.randint(0, 256, (n,), generator=generator).tolist() for n in lengths]
    for row in (1, 4):
        completions[row][-1] = TOKENIZER.eos_token_id
    longest = max(map(len, prompts))
    pad = TOKENIZER.pad_token_id
    inputs = {
        "prompt_ids": torch.tensor([[pad] * (longest - len(p)) + p for p in prompts]),
        "prompt_mask": torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts]),
        "completion_ids": torch.tensor([c + [pad] * (8 - len(c)) for c in completions]),
        "completion_mask": torch.tensor([[1] * len(c) + [0] * (8 - len(c)) for c in completions]),
        "advantages": torch.tensor([1.0, -0.5, 0.7, -1.2, 0.0, 0.0, 0.0, 0.0]),
        "num_items_in_batch": torch.tensor(float(sum(lengths))),
    }
    if old_logps:
        inputs["old_per_token_logps"] = -5.0 + 0.3 * torch.randn(8, 8, generator=generator)
    return inputs


def loss_and_gradients(trainer: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    trainer.model.zero_grad()
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    grads = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
    return loss.detach(), grads


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo", "bnpo"])
@pytest.mark.parametrize("old_logps", [False, True], ids=["on-policy", "off-policy"])
def test_loss_and_gradients_are_stock_trls(
    tmp_path: Path, kind: str, lora: bool, loss_type: str, old_logps: bool
) -> None:
    inputs = batch(old_logps)
    results = [
        loss_and_gradients(make_trainer(cls, tmp_path, kind, lora, loss_type=loss_type), inputs)
        for cls in (GRPOTrainer, SharedPrefixGRPOTrainer)
    ]
    (loss, grads), (our_loss, our_grads) = results
    torch.testing.assert_close(our_loss, loss, rtol=1e-4, atol=1e-6)
    assert our_grads.keys() == grads.keys() and any(g.abs().max() > 1e-6 for g in grads.values())
    for name, grad in grads.items():
        assert (our_grads[name] - grad).norm() <= 1e-4 * grad.norm() + 1e-7, name


def test_groups_with_equal_rewards_are_not_computed_but_their_entropy_is_kept(tmp_path: Path) -> None:
    trainer = make_trainer(SharedPrefixGRPOTrainer, tmp_path)
    inputs = batch()
    computed = []
    trainer.model.model.layers[0].register_forward_pre_hook(
        lambda module, args: computed.append(args[0].shape[1])
    )
    trainer._compute_loss(trainer.model, inputs)
    teaching = inputs["completion_mask"][:4].sum().item()
    assert computed == [len(TOKENIZER(PROMPTS[0])["input_ids"]) - 1 + teaching]
    inputs["advantages"] = torch.zeros(8)
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    assert len(computed) == 1 and loss.item() == 0.0


@pytest.mark.parametrize("term", [{"beta": 0.1}, {"entropy_coef": 0.1}], ids=["kl", "entropy bonus"])
def test_terms_that_do_not_depend_on_the_advantage_are_computed_on_every_row(
    tmp_path: Path, term: dict
) -> None:
    inputs = batch() | {"ref_per_token_logps": torch.full((8, 8), -5.0)}
    ours = make_trainer(SharedPrefixGRPOTrainer, tmp_path, lora=True, **term)
    stock = make_trainer(GRPOTrainer, tmp_path, lora=True, **term)
    (loss, grads), (expected_loss, expected) = (loss_and_gradients(t, inputs) for t in (ours, stock))
    torch.testing.assert_close(loss, expected_loss, rtol=1e-4, atol=1e-6)
    for name, grad in expected.items():
        assert (grads[name] - grad).norm() <= 1e-4 * grad.norm() + 1e-7, name


@pytest.mark.parametrize("micro_batch", [4, 8], ids=["groups split", "one micro-batch"])
def test_training_moves_the_weights_and_logs_trls_metrics(tmp_path: Path, micro_batch: int) -> None:
    trainer = make_trainer(SharedPrefixGRPOTrainer, tmp_path, max_steps=2, logging_steps=1, learning_rate=0.1)
    trainer.args.per_device_train_batch_size = micro_batch
    trainer.reward_funcs = [lambda completions, **_: [float(len(c) % 3) for c in completions]]
    before = trainer.model.model.layers[0].mlp.up_proj.weight.clone()
    trainer.train()
    assert not torch.equal(before, trainer.model.model.layers[0].mlp.up_proj.weight)
    logged = trainer.state.log_history[0]
    assert logged["entropy"] > 0 and logged["grad_norm"] > 0 and 0 <= logged["frac_reward_zero_std"] <= 1


def test_a_loss_pass_holds_whole_groups_and_those_that_teach_come_first(tmp_path: Path) -> None:
    trainer = make_trainer(
        SharedPrefixGRPOTrainer, tmp_path, max_steps=1, gradient_accumulation_steps=2, logging_steps=1
    )
    trainer.train_dataset = Dataset.from_dict({"prompt": [f"{i}+1=" for i in range(16)], "gold": ["1"] * 16})
    trainer.reward_funcs = [lambda prompts, **_: [float(i % 2 and p < "3") for i, p in enumerate(prompts)]]
    trainer.train()
    passes = trainer._buffered_inputs
    prompts = [{tuple(ids) for ids in rows["prompt_ids"].tolist()} for rows in passes]
    assert [len(rows["prompt_ids"]) for rows in passes] == [8, 8]
    assert [len(each) for each in prompts] == [2, 2] and not prompts[0] & prompts[1]
    idle = [advantage == 0 for rows in passes for advantage in rows["advantages"].tolist()]
    assert idle == sorted(idle) and True in idle and False in idle


def test_a_completion_cut_before_a_stop_string_counts_as_ended(tmp_path: Path) -> None:
    trainer = make_trainer(SharedPrefixGRPOTrainer, tmp_path)
    prompts = [TOKENIZER(PROMPTS[0])["input_ids"]] * 40
    end = TOKENIZER.eos_token_id
    for trainer.stop in ([], [chr(i) for i in range(97, 123)]):
        torch.manual_seed(0)
        written, _ = trainer._generate_single_turn(prompts, None, {})
        cut_off = [ids for ids in written if ids[-1] != end]
        assert all(len(ids) <= 8 for ids in written) and all(len(ids) == 8 for ids in cut_off)
        assert (len(cut_off) < 30) == bool(trainer.stop)


def test_it_fallback_reason_from_a_model_type_it_is_unsupported_reason_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    size = dict(n_embd=16, n_layer=1, n_head=2, n_positions=128)
    ends = dict(bos_token_id=None, eos_token_id=TOKENIZER.eos_token_id, pad_token_id=TOKENIZER.pad_token_id)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(TOKENIZER), **size, **ends))
    config = GRPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=4, num_generations=4, max_completion_length=4,
        max_steps=1, use_cpu=True, bf16=False, report_to="none", disable_tqdm=True, activation_checkpointing=False,
    )  # fmt: skip
    trainer = SharedPrefixGRPOTrainer(
        model=model, args=config, processing_class=TOKENIZER, reward_funcs=CorrectnessReward(),
        train_dataset=Dataset.from_dict({"prompt": PROMPTS * 4, "gold": ["7", "19"] * 4}),
    )  # fmt: skip
    assert "gpt2" in trainer.fallback_reason
    trainer.train()
