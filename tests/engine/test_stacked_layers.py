"""One product for layers that read the same input: the same numbers, no second copy, and training goes on after it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from rlvr_kit.engine.stacked_layers import StackedLayers, stacked_weights
from rlvr_kit.models import load_policy


def layers(dtype: torch.dtype, adapted: list[str], bias: bool = False) -> list[Any]:
    """Three layers that read 16 numbers, and LoRA on those named."""
    torch.manual_seed(0)
    model = torch.nn.Module()
    for name, out in zip("qkv", (24, 8, 8), strict=True):
        setattr(model, name, torch.nn.Linear(16, out, bias=bias))
    model.to(dtype).requires_grad_(False)
    if adapted:
        lora = LoraConfig(r=4, lora_alpha=8, target_modules=adapted, init_lora_weights=False)
        model = get_peft_model(model, lora).base_model.model
    return [model.q, model.k, model.v]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "adapted", [[], ["q", "k", "v"], ["v"]], ids=["no LoRA", "LoRA on all", "LoRA on one"]
)
@pytest.mark.parametrize("bias", [False, True])
def test_the_outputs_are_those_of_the_layers(dtype: torch.dtype, adapted: list[str], bias: bool) -> None:
    each, x = layers(dtype, adapted, bias), torch.randn(5, 16)
    with torch.inference_mode():
        expected = torch.cat(
            [layer.float()(x.to(dtype).float()) for layer in layers(dtype, adapted, bias)], dim=1
        )
        got = StackedLayers(each)(x.to(dtype).t()).t()
    assert got.dtype == dtype
    assert (got.float() - expected).abs().max() < (1e-5 if dtype == torch.float32 else 0.02)


def test_weights_are_moved_once_and_keep_their_numbers() -> None:
    first, second = torch.randn(4, 3), torch.randn(2, 3)
    numbers = torch.cat([first, second])
    whole = stacked_weights([first, second], spare=2)
    assert whole.shape == (8, 3) and torch.equal(whole[:6], numbers)
    assert stacked_weights([first, second], spare=2).data_ptr() == whole.data_ptr() == first.data_ptr()
    assert stacked_weights([first, second], spare=1).data_ptr() == whole.data_ptr()
    assert stacked_weights([first, second], spare=3).data_ptr() != whole.data_ptr()  # no room for another row
    assert torch.equal(torch.cat([first, second]), numbers)
    assert (
        stacked_weights([second, first], spare=0)[:2].tolist() == numbers[4:].tolist()
    )  # another order: moved


def test_what_lies_behind_a_weight_in_memory_is_not_taken_for_room() -> None:
    """Weights may be parts of one file's memory: the rows behind one of them are then another weight."""
    memory = torch.randn(8, 3)
    weight, neighbour = memory[:4], memory[4:]
    kept = neighbour.clone()
    stacked_weights([weight], spare=2)[4:] = 0
    assert torch.equal(neighbour, kept)


def test_the_adapter_in_use_is_the_one_of_this_moment() -> None:
    """After an update of A and B the next sampling must not use the numbers of the step before."""
    each, x = layers(torch.bfloat16, ["q", "k", "v"]), torch.randn(16, 2, dtype=torch.bfloat16)
    before = StackedLayers(each)(x)
    with torch.no_grad():
        each[0].lora_A["default"].weight.mul_(2)
    after = StackedLayers(each)(x)
    assert not torch.equal(after[:24], before[:24]) and torch.equal(after[24:], before[24:])
    each[0].base_layer.weight.data.zero_()
    each[0].lora_B["default"].weight.data.zero_()
    assert StackedLayers(each)(x)[:24].abs().max() == 0


def test_weights_that_are_trained_stay_where_they_are() -> None:
    """An optimizer with flat buffers (DeepSpeed's) writes to the place where it found them."""
    each, x = layers(torch.bfloat16, []), torch.randn(16, 2, dtype=torch.bfloat16)
    held = [layer.requires_grad_(True).weight.data_ptr() for layer in each]
    StackedLayers(each)(x)
    assert [layer.weight.data_ptr() for layer in each] == held
    each = layers(torch.bfloat16, ["q"])
    each[1].weight.requires_grad_(True)  # beside LoRA on another layer: copied
    held, before = each[1].weight.data_ptr(), StackedLayers(each)(x)
    assert each[1].weight.data_ptr() == held
    each[1].weight.data.zero_()
    after = StackedLayers(each)(x)
    assert before[24:32].abs().max() > 0 and after[24:32].abs().max() == 0


def test_a_model_whose_weights_were_moved_trains_and_is_saved_whole(tmp_path: Path) -> None:
    model = load_policy("tiny-random", dtype="bfloat16")
    attention = model.model.layers[0].self_attn
    attention.requires_grad_(False)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with torch.inference_mode():
        StackedLayers([attention.q_proj, attention.k_proj, attention.v_proj])
    assert (
        attention.k_proj.weight.data_ptr() - attention.q_proj.weight.data_ptr()
        == attention.q_proj.weight.nbytes
    )
    attention.requires_grad_(True)
    model(input_ids=torch.tensor([[1, 2, 3]])).logits.sum().backward()
    assert attention.k_proj.weight.grad is not None
    model.save_pretrained(tmp_path)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto").state_dict()
    assert saved.keys() == before.keys() and all(torch.equal(saved[name], before[name]) for name in before)
