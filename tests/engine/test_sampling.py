"""Sampling through the prompt tree gives what plain generation gives, one row at a time."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from rlvr_kit.engine.sampling import decode, generate, pick_tokens, prompt_token_ids
from rlvr_kit.models import load_policy, load_tokenizer
from rlvr_kit.sampling_settings import SamplingSettings

TOKENIZER = load_tokenizer("tiny-random")


def tiny(kind: str) -> torch.nn.Module:
    shape = dict(
        vocab_size=len(TOKENIZER), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, eos_token_id=TOKENIZER.eos_token_id,
        pad_token_id=TOKENIZER.pad_token_id, bos_token_id=None, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    model = (
        LlamaForCausalLM(LlamaConfig(**shape)) if kind == "llama" else Qwen2ForCausalLM(Qwen2Config(**shape))
    )
    return model.eval()


PROMPTS = ["Solve. 3+4=", "Solve. 12 apples and 7 more?", "Solve. 1"]


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("prompts", [PROMPTS, ["no", "common beginning"], ["alone"], ["ab", "abc"]])
def test_greedy_completions_are_those_of_transformers(kind: str, prompts: list[str]) -> None:
    model = tiny(kind)
    ours = generate(model, TOKENIZER, prompts, SamplingSettings(max_new_tokens=12))
    for prompt, [completion] in zip(prompts, ours, strict=True):
        ids = TOKENIZER(prompt, return_tensors="pt")["input_ids"]
        theirs = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)[
            0, ids.shape[1] :
        ]
        assert completion.ids == theirs.tolist()
        assert completion.truncated == (completion.ids[-1] != TOKENIZER.eos_token_id)


def test_samples_follow_the_models_distribution() -> None:
    model, prompt = tiny("llama"), TOKENIZER(PROMPTS[0])["input_ids"]
    n = 4000
    noise = torch.Generator().manual_seed(1)
    rows = decode(
        model, TOKENIZER, [prompt], [0] * n, SamplingSettings(max_new_tokens=2, temperature=0.8), noise
    )
    probs = (model(torch.tensor([prompt])).logits[0, -1] / 0.8).softmax(-1)
    firsts = torch.bincount(torch.tensor([row.ids[0] for row in rows]), minlength=len(probs))
    chi2 = ((firsts - n * probs) ** 2 / (n * probs).clamp(min=1e-9))[n * probs > 5].sum().item()
    cells = int((n * probs > 5).sum())
    assert chi2 < cells + 5 * (2 * cells) ** 0.5  # mean and five standard deviations of a chi-squared
    # The second token too: it is drawn after the row's own first one.
    top = int(firsts.argmax())
    given_top = [row.ids[1] for row in rows if row.ids[0] == top and len(row.ids) == 2]
    second = (model(torch.tensor([[*prompt, top]])).logits[0, -1] / 0.8).softmax(-1)
    best = int(second.argmax())
    share, expected = given_top.count(best) / len(given_top), second[best].item()
    assert abs(share - expected) < 5 * (expected * (1 - expected) / len(given_top)) ** 0.5


def test_top_k_and_top_p_cut_the_tail() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(2000, 1)
    assert set(pick_tokens(logits, SamplingSettings(temperature=1.0, top_k=2))[0].tolist()) == {0, 1}
    assert set(pick_tokens(logits, SamplingSettings(temperature=1.0, top_p=0.75))[0].tolist()) == {0, 1}
    assert set(pick_tokens(logits, SamplingSettings(temperature=0.0))[0].tolist()) == {0}
    entropy = pick_tokens(logits, SamplingSettings(temperature=1.0))[1][0].item()
    assert entropy == pytest.approx(
        torch.distributions.Categorical(logits=logits[0]).entropy().item(), rel=1e-5
    )


def test_the_entropy_is_of_the_whole_distribution_whatever_is_sampled_from() -> None:
    """TRL logs the entropy before top-k and top-p, and a group that is not computed must log the same."""
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    whole = torch.distributions.Categorical(logits=logits / 0.7).entropy()
    for cut in ({}, {"top_k": 3}, {"top_p": 0.4}, {"top_k": 9, "top_p": 0.8}):
        entropies = pick_tokens(logits, SamplingSettings(temperature=0.7, **cut))[1]
        torch.testing.assert_close(entropies, whole, rtol=1e-5, atol=1e-6)


def test_a_completions_entropy_is_of_the_tokens_that_it_keeps() -> None:
    model, sampling = tiny("llama"), SamplingSettings(max_new_tokens=30, temperature=1.0, seed=4)
    [[free]] = generate(model, TOKENIZER, PROMPTS[:1], sampling)
    stop = next(char for char in free.text[2:] if char.isascii() and char not in free.text[:2])
    [[cut]] = generate(model, TOKENIZER, PROMPTS[:1], replace(sampling, stop=(stop,)))
    assert 0 < len(cut.ids) < len(free.ids)
    prompt = TOKENIZER(PROMPTS[0])["input_ids"]
    logits = model(torch.tensor([prompt + cut.ids])).logits[0, len(prompt) - 1 : -1]
    mean = torch.distributions.Categorical(logits=logits).entropy().mean().item()
    assert cut.entropy == pytest.approx(mean, rel=1e-4)


def test_a_tokenizer_without_chat_template_adds_its_special_tokens_as_in_training() -> None:
    from tokenizers.processors import TemplateProcessing
    from trl import GRPOTrainer

    tokenizer = load_tokenizer("tiny-random")
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="<|end|> $A", special_tokens=[("<|end|>", tokenizer.eos_token_id)]
    )
    plain = tokenizer(PROMPTS, add_special_tokens=False)["input_ids"]
    training, _, _ = GRPOTrainer._tokenize_prompts(SimpleNamespace(processing_class=tokenizer), PROMPTS)
    assert training == [[tokenizer.eos_token_id, *ids] for ids in plain]
    assert prompt_token_ids(tokenizer, PROMPTS) == training
    sampling, model = SamplingSettings(max_new_tokens=6), tiny("llama")
    with_first = generate(model, tokenizer, PROMPTS, sampling)
    assert with_first == [decode(model, tokenizer, [ids], [0], sampling) for ids in training]
    assert with_first != [decode(model, tokenizer, [ids], [0], sampling) for ids in plain]
    tokenizer.chat_template = "{{ messages }}"  # such a template writes the special tokens itself
    assert prompt_token_ids(tokenizer, PROMPTS) == plain


def test_a_long_stop_string_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = "\nAnother question follows:"
    script = iter(TOKENIZER(f"It is 7.{stop} what is 2 + 2?")["input_ids"])
    monkeypatch.setattr(
        "rlvr_kit.engine.sampling.pick_tokens", lambda *_: (torch.tensor([next(script)]), torch.zeros(1))
    )
    [[cut]] = generate(
        tiny("llama"), TOKENIZER, PROMPTS[:1], SamplingSettings(max_new_tokens=50, stop=(stop,))
    )
    assert cut.text == "It is 7." and not cut.truncated
    assert TOKENIZER.decode(list(script)) == " what is 2 + 2?"  # nothing was sampled after it


def test_a_stop_string_ends_a_completion_and_is_cut_from_text_and_ids() -> None:
    model = tiny("llama")
    [[free]] = generate(model, TOKENIZER, ["Solve. 3+4="], SamplingSettings(max_new_tokens=30))
    stop = next(char for char in free.text[2:] if char.isascii() and char not in free.text[:2])
    place = free.ids.index(TOKENIZER(stop)["input_ids"][0])
    [[cut]] = generate(model, TOKENIZER, ["Solve. 3+4="], SamplingSettings(max_new_tokens=30, stop=(stop,)))
    assert cut.text == free.text[: free.text.index(stop)]
    assert not cut.truncated
    assert cut.ids == free.ids[:place]


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 7))
def test_samples_of_one_seed_are_repeated_and_in_order(batch_size: int) -> None:
    model = load_policy("tiny-random")
    sampling = SamplingSettings(samples=2, temperature=1.0, max_new_tokens=5, batch_size=batch_size)
    first, again = (generate(model, TOKENIZER, PROMPTS, sampling) for _ in range(2))
    assert first == again
    assert [len(each) for each in first] == [2, 2, 2]


def test_batches_are_reported_as_they_come() -> None:
    seen: dict[int, list] = {}
    sampling = SamplingSettings(max_new_tokens=3, batch_size=2)
    all_of_them = generate(load_policy("tiny-random"), TOKENIZER, PROMPTS, sampling, on_batch=seen.update)
    assert [seen[i] for i in range(3)] == all_of_them


@pytest.mark.parametrize("kind", ["mistral", "gemma2", "qwen3", "gpt2"])
def test_other_architectures_are_decoded_by_their_own_forward_pass(kind: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = dict(
        vocab_size=len(TOKENIZER), hidden_size=32, intermediate_size=48, num_hidden_layers=2, head_dim=8,
        num_attention_heads=4, num_key_value_heads=2, eos_token_id=TOKENIZER.eos_token_id,
        pad_token_id=TOKENIZER.pad_token_id, bos_token_id=None, initializer_range=0.3,
    )  # fmt: skip
    if kind in ("mistral", "gemma2"):
        shape["sliding_window"] = 6  # shorter than the prompts, so that ignoring it would show
    if kind == "gpt2":
        shape.pop("intermediate_size"), shape.pop("num_key_value_heads"), shape.pop("head_dim")
    torch.manual_seed(0)
    check_against_transformers(AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape)).eval())


def check_against_transformers(model: torch.nn.Module) -> None:
    """Greedy completions of a batch, some ending before others, are those of one prompt at a time."""
    for prompt, [completion] in zip(
        PROMPTS, generate(model, TOKENIZER, PROMPTS, SamplingSettings(max_new_tokens=8)), strict=True
    ):
        ids = TOKENIZER(prompt, return_tensors="pt")["input_ids"]
        theirs = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False
        )
        assert completion.ids == theirs[0, ids.shape[1] :].tolist()
