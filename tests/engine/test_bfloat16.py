"""In bfloat16, sampling and loss agree as closely as its eight significant bits allow; the bounds stand here."""

from pathlib import Path
from typing import Any

import pytest
import torch
from forced import make_trainer, trained
from peft import LoraConfig, get_peft_model
from test_sampling import PROMPTS, TOKENIZER, tiny
from trl import GRPOTrainer

from rlvr_kit.engine.adapters import ready_to_decode
from rlvr_kit.engine.decoding import SharedRows, move_weights, reason_not_to_share
from rlvr_kit.engine.grpo_trainer import SharedPrefixGRPOTrainer
from rlvr_kit.engine.lora_products import multiply_lora_as_the_base
from rlvr_kit.engine.prompt_tree import prompt_tree, use_tree_attention
from rlvr_kit.engine.sampling import generate
from rlvr_kit.engine.score_attention import score_attention
from rlvr_kit.engine.token_logps import branch_logps, token_logps
from rlvr_kit.models import load_policy
from rlvr_kit.sampling_settings import SamplingSettings

TEMPERATURE, TOKENS = 0.7, 12
#: How far the importance ratio of a token may be from 1 when the policy has not changed since it was sampled: on
#: average (root mean square), and at most.
RATIO_MEAN, RATIO_MOST = 0.1, 0.5
#: The least cosine between the gradient of the LoRA weights and the same gradient in float32: an angle of 11 degrees.
COSINE = 0.98


def adapted(kind: str, dtype: torch.dtype) -> Any:
    """A tiny policy with a LoRA adapter that matters; its frozen weights are the same numbers in both formats."""
    lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    torch.manual_seed(0)
    model = get_peft_model(tiny(kind).to(torch.bfloat16).to(dtype), lora).eval()
    use_tree_attention(model)
    multiply_lora_as_the_base(model)
    return model


def sampled(model: Any) -> tuple[list[list[int]], torch.Tensor]:
    """Four completions for each prompt, and the log-probabilities (12 x 12) with which their tokens were drawn."""
    prompts = TOKENIZER(PROMPTS)["input_ids"]
    owners, noise = [i for i in range(len(prompts)) for _ in range(4)], torch.Generator().manual_seed(0)
    tokens, logps = [], []
    with torch.inference_mode(), ready_to_decode(model) as policy:
        assert reason_not_to_share(policy) is None
        rows = SharedRows(policy, prompts, owners, TOKENS)
        for _ in range(TOKENS):
            each = (rows.logits.float() / TEMPERATURE).log_softmax(-1)
            tokens.append(torch.multinomial(each.exp(), 1, generator=noise)[:, 0])
            logps.append(each.gather(-1, tokens[-1][:, None])[:, 0])
            rows.write(tokens[-1])
    return torch.stack(tokens, dim=1).tolist(), torch.stack(logps, dim=1)


def learned(model: Any, completions: list[list[int]]) -> torch.Tensor:
    """The log-probabilities that the loss computes for the same tokens, with a gradient."""
    prompts = TOKENIZER(PROMPTS)["input_ids"]
    branches = [(i // 4, [prompts[i // 4][-1], *ids[:-1]]) for i, ids in enumerate(completions)]
    tree = prompt_tree([prompt[:-1] for prompt in prompts], branches)
    labels = torch.tensor(completions).flatten()
    return branch_logps(model, model, tree, labels, TEMPERATURE, entropy_gradient=False)[0].view(-1, TOKENS)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_the_importance_ratio_of_a_fresh_sample_is_one_within_the_stated_bounds(kind: str) -> None:
    model = adapted(kind, torch.bfloat16)
    completions, drawn = sampled(model)
    logps = learned(model, completions)
    assert logps.dtype == drawn.dtype == torch.float32
    off = (logps.detach() - drawn).exp() - 1
    assert off.square().mean().sqrt() < RATIO_MEAN and off.abs().max() < RATIO_MOST
    exact = learned(adapted(kind, torch.float32), completions)
    assert ((logps - exact).exp() - 1).square().mean().sqrt() < RATIO_MEAN


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_the_gradient_of_the_lora_weights_points_where_it_does_in_float32(kind: str) -> None:
    completions, _ = sampled(adapted(kind, torch.bfloat16))
    advantages = torch.linspace(-1, 1, len(completions))[:, None]
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        model = adapted(kind, dtype)
        (learned(model, completions) * advantages).mean().backward()
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        assert trained and all(weight.dtype == weight.grad.dtype == torch.float32 for weight in trained)
        gradients.append(torch.cat([weight.grad.flatten() for weight in trained]))
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > COSINE


def test_a_small_update_is_sampled_from_and_the_weights_are_not_copied() -> None:
    """Added into a bfloat16 weight it would be rounded away: 0.3 and the next number are 0.002 apart."""
    model = adapted("llama", torch.bfloat16)
    layer = model.base_model.model.model.layers[0].mlp.up_proj
    torch.nn.init.constant_(layer.lora_A["default"].weight, 1e-2)
    torch.nn.init.constant_(layer.lora_B["default"].weight, 1e-2)
    weights = layer.base_layer.weight.clone()
    _, before = sampled(model)
    held = layer.base_layer.weight.data_ptr()  # where the first sampling moved it (stacked_layers.py)
    assert torch.equal(layer.base_layer.weight, weights)
    with ready_to_decode(model) as policy:
        assert policy.model.layers[0].mlp.up_proj.base_layer.weight.data_ptr() == held
        assert not policy.model.layers[0].mlp.up_proj.disable_adapters
    torch.nn.init.zeros_(layer.lora_B["default"].weight)
    assert not torch.equal(sampled(model)[1], before)
    assert layer.base_layer.weight.data_ptr() == held


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weights_that_were_moved_before_training_are_not_moved_in_it(dtype: torch.dtype) -> None:
    model = adapted("llama", dtype)
    before = [weight.data_ptr() for weight in model.parameters()]
    move_weights(model)
    moved = [weight.data_ptr() for weight in model.parameters()]
    assert (moved != before) == (dtype == torch.bfloat16)
    sampled(model)
    assert [weight.data_ptr() for weight in model.parameters()] == moved


def test_large_logits_keep_their_distances_and_a_certain_token_has_no_slope() -> None:
    torch.manual_seed(0)
    weight = torch.randn(300, 64).to(torch.bfloat16)
    labels = torch.arange(64)
    hidden = 0.2 * weight[labels].float() + 0.1 * torch.randn(64, 64)  # logits of about 13
    hidden = hidden.to(torch.bfloat16)
    ours = hidden.clone().requires_grad_()
    logps, entropies = token_logps(ours, weight, labels, 0.7)
    logps.sum().backward()
    plain = hidden.double().requires_grad_()
    whole = (plain @ weight.double().t() / 0.7).log_softmax(-1)
    whole[labels, labels].sum().backward()
    exact = whole[labels, labels].float()
    assert (logps - exact).abs().max() < 0.01 and logps.dtype == entropies.dtype == torch.float32
    assert (ours.grad - plain.grad).norm() < 0.01 * plain.grad.norm()
    rounded = (hidden @ weight.t()).float().div(0.7).log_softmax(-1)[labels, labels]
    assert (logps - exact).norm() < 0.2 * (rounded - exact).norm()  # than a product that is rounded first


def test_greedy_decoding_takes_the_better_of_two_close_tokens_and_the_same_one_again() -> None:
    """Two rows of the head that differ in one last bit: rounded, their logits would be equal, and the first taken."""
    model = load_policy("tiny-random", dtype="bfloat16").eval()
    prompt = TOKENIZER(PROMPTS[0])["input_ids"]
    with torch.no_grad():
        hidden = model.model(torch.tensor([prompt])).last_hidden_state[0, -1].float()
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        model.lm_head.weight[5] = hidden.to(torch.bfloat16)
        model.lm_head.weight[9] = model.lm_head.weight[5]
        place = int(hidden.abs().argmin())
        model.lm_head.weight[9, place] += 0.03 * hidden[place].sign()
    assert (hidden.to(torch.bfloat16) @ model.lm_head.weight[[5, 9]].t()).unique().numel() == 1
    sampling = SamplingSettings(max_new_tokens=6)
    first, again = (generate(model, TOKENIZER, [PROMPTS[0]], sampling)[0][0].ids for _ in range(2))
    assert first[0] == 9 and first == again


def test_attention_with_its_scores_written_out_is_attention() -> None:
    torch.manual_seed(0)
    shapes = (3, 2, 6, 16), (3, 2, 9, 16), (3, 2, 9, 16)
    ours = [torch.randn(shape).to(torch.bfloat16).requires_grad_() for shape in shapes]
    plain = [each.detach().double().requires_grad_() for each in ours]
    mask = torch.zeros(3, 1, 6, 9).masked_fill_(torch.rand(3, 1, 6, 9) < 0.3, torch.finfo(torch.bfloat16).min)
    factors = torch.randn(3, 2, 6, 16)
    mixed = score_attention(*ours, mask.to(torch.bfloat16), 0.25)
    exact = torch.nn.functional.scaled_dot_product_attention(*plain, attn_mask=mask.double(), scale=0.25)
    (mixed * factors).sum().backward()
    (exact * factors).sum().backward()
    assert (mixed - exact).norm() < 0.01 * exact.norm()
    for mine, theirs in zip(ours, plain, strict=True):
        assert (mine.grad - theirs.grad).norm() < 0.01 * theirs.grad.norm()


def test_the_trainer_learns_what_stock_trl_learns_in_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the same frozen weights in both formats, it is as close to float32 as stock TRL is in bfloat16."""
    rounded = tiny("llama").to(torch.bfloat16)
    rounded.save_pretrained(tmp_path / "half" / "llama")
    rounded.float().save_pretrained(tmp_path / "whole" / "llama")
    (_, exact, _), (_, stock, _), (_, ours, _) = (
        trained(cls, tmp_path / folder, monkeypatch, lora=True)
        for cls, folder in ((GRPOTrainer, "whole"), (GRPOTrainer, "half"), (SharedPrefixGRPOTrainer, "half"))
    )
    assert 0 < (ours - exact).norm() <= 1.5 * (stock - exact).norm()
    for folder, fast in (("whole", False), ("half", True)):
        trainer = make_trainer(SharedPrefixGRPOTrainer, tmp_path / folder, lora=True)
        layers = [module for module in trainer.model.modules() if hasattr(module, "lora_A")]
        assert layers and {"forward" in vars(layer) for layer in layers} == {fast}
