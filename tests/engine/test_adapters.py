"""A policy is decoded with all that its adapters have learned, and keeps its weights, also after an error."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from peft.tuners.lora import Linear
from test_sampling import PROMPTS, TOKENIZER, check_against_transformers, tiny
from transformers import AutoModelForCausalLM

from rlvr_kit.engine.adapters import ready_to_decode
from rlvr_kit.engine.decoding import reason_not_to_share
from rlvr_kit.engine.sampling import generate
from rlvr_kit.errors import InputError
from rlvr_kit.models import load_policy
from rlvr_kit.sampling_settings import SamplingSettings

EIGHT = SamplingSettings(max_new_tokens=8)


def adapted(**lora: Any) -> Any:
    config = LoraConfig(**({"r": 4, "target_modules": "all-linear", "init_lora_weights": False} | lora))
    return get_peft_model(tiny("llama"), config).eval()


def written(model: Any) -> list[list[int]]:
    return [completion.ids for [completion] in generate(model, TOKENIZER, PROMPTS, EIGHT)]


def test_lora_is_merged_for_decoding_and_the_weights_stay_as_they_were() -> None:
    model = adapted()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    ids = TOKENIZER(PROMPTS[1], return_tensors="pt")["input_ids"]
    expected = model(ids).logits
    with ready_to_decode(model) as policy:
        assert reason_not_to_share(policy) is None
        torch.testing.assert_close(policy(ids).logits, expected, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert torch.equal(model(ids).logits, expected)
    check_against_transformers(model)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained and all("lora_" in name for name in trained)


def test_merging_is_undone_when_it_fails_half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    logits, whole, calls = model(torch.tensor([[1, 2]])).logits, Linear.get_delta_weight, iter(range(100))

    def fails(layer: Linear, name: str) -> torch.Tensor:
        if next(calls) == 5:
            raise MemoryError
        return whole(layer, name)

    monkeypatch.setattr(Linear, "get_delta_weight", fails)
    with pytest.raises(MemoryError), ready_to_decode(model):
        pass
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert torch.equal(model(torch.tensor([[1, 2]])).logits, logits)


def test_an_adapter_folder_loaded_by_transformers_is_decoded_with_its_adapter(tmp_path: Path) -> None:
    """What a QLoRA run saves: the adapter alone, beside the name of the model that it belongs to."""
    tiny("llama").save_pretrained(tmp_path / "base")
    base = load_policy(str(tmp_path / "base"))
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter").eval()
    assert "Peft" not in type(loaded).__name__
    check_against_transformers(loaded)
    assert written(loaded) != written(load_policy(str(tmp_path / "base")))
    with ready_to_decode(loaded) as policy:
        assert reason_not_to_share(policy) is None


def test_several_active_adapters_all_count() -> None:
    model = adapted()
    model.add_adapter(
        "second", LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    )
    only_first = written(model)
    model.base_model.set_adapter(["default", "second"])
    check_against_transformers(model)
    assert written(model) != only_first


def test_a_disabled_adapter_does_not_count() -> None:
    model = adapted()
    with model.disable_adapter():
        base = written(model)
        check_against_transformers(model)
    assert base == written(tiny("llama")) != written(model)


def test_an_adapter_that_was_merged_in_place_counts_once() -> None:
    model = adapted()
    separate = written(model)
    model.merge_adapter()
    assert written(model) == separate
    model.unmerge_adapter()
    assert written(model) == separate


@pytest.mark.parametrize(
    "lora",
    [
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": "all-linear", "use_dora": True},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ],
    ids=["embedding", "DoRA", "saved module"],
)
def test_an_adapter_that_cannot_be_merged_is_sampled_from_all_the_same(lora: dict) -> None:
    model = adapted(**lora)
    for name, weight in model.named_parameters():
        if "modules_to_save" in name or "lora_B" in name or "embedding" in name:
            torch.nn.init.normal_(weight.data, std=0.5)
    check_against_transformers(model)
    with model.disable_adapter():
        base = written(model)
    assert written(model) != base


def test_prompt_tuning_is_refused_rather_than_decoded_without_its_prompt() -> None:
    model = get_peft_model(tiny("llama"), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    with pytest.raises(InputError, match="prompt tuning"):
        written(model)


def test_a_head_in_another_number_format_is_decoded_by_the_models_own_forward_pass() -> None:
    """As TRL's cast_lm_head_to_fp32 leaves it, on a model that is measured during training."""
    model = tiny("llama").to(torch.bfloat16)
    head = model.lm_head.float()
    head.forward = lambda hidden: torch.nn.functional.linear(hidden.float(), head.weight)
    assert "number format" in (reason_not_to_share(model) or "")
    check_against_transformers(model)
