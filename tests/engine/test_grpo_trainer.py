"""What the fast trainer does in its own way: leaving work out, evaluating, stop strings, stepping aside."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from forced import PROMPTS, MixedReward, force, make_trainer
from test_sampling import TOKENIZER
from trl import GRPOTrainer

import rlvr_kit.engine.grpo_trainer
from rlvr_kit.engine.grpo_trainer import SharedPrefixGRPOTrainer
from rlvr_kit.engine.sampling import Completion
from rlvr_kit.engine.token_logps import branch_logps
from rlvr_kit.models import load_tokenizer

END = TOKENIZER.eos_token_id


def test_groups_without_signal_are_not_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(SharedPrefixGRPOTrainer, tmp_path, max_steps=2)
    force(trainer, monkeypatch)
    computed: list[tuple[int, int]] = []

    def count(model: Any, unwrapped: Any, tree: Any, *args: Any, **kwargs: Any) -> tuple:
        rows = trainer._buffered_inputs[0]
        computed.append((len(tree.branches), int((rows["advantages"] != 0).sum())))
        return branch_logps(model, unwrapped, tree, *args, **kwargs)

    monkeypatch.setattr(rlvr_kit.engine.grpo_trainer, "branch_logps", count)
    trainer.train()
    # At the second step no group has a signal: one row stays, so that every weight has a gradient of zeros.
    assert computed == [(4, 4), (1, 0)]
    assert all(p.grad is None or not p.grad.any() for p in trainer.model.parameters())
    stock = make_trainer(GRPOTrainer, tmp_path, max_steps=2)
    force(stock, monkeypatch)
    stock.train()
    # The entropy that is logged is that of all completions, also of those that were left out.
    ours, theirs = (
        [line["entropy"] for line in each.state.log_history if "entropy" in line] for each in (trainer, stock)
    )
    assert len(ours) == 2 and ours == pytest.approx(theirs, rel=2e-4)


def test_a_loss_pass_holds_whole_groups_and_those_with_signal_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(SharedPrefixGRPOTrainer, tmp_path, max_steps=1, gradient_accumulation_steps=2)
    force(trainer, monkeypatch)
    trainer.train()
    passes = trainer._buffered_inputs
    prompts = [{tuple(ids) for ids in rows["prompt_ids"].tolist()} for rows in passes]
    assert [len(rows["prompt_ids"]) for rows in passes] == [8, 8]
    assert [len(each) for each in prompts] == [2, 2] and not prompts[0] & prompts[1]
    idle = [advantage == 0 for rows in passes for advantage in rows["advantages"].tolist()]
    assert idle == sorted(idle) and True in idle and False in idle


def test_old_and_reference_log_probabilities_are_computed_in_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"steps_per_generation": 4, "beta": 0.1, "max_steps": 1}
    trainer = make_trainer(SharedPrefixGRPOTrainer, tmp_path, lora=True, **options)
    force(trainer, monkeypatch)
    rows = []

    def count(model: Any, unwrapped: Any, tree: Any, *args: Any, **kwargs: Any) -> tuple:
        rows.append(len(tree.branches))
        return branch_logps(model, unwrapped, tree, *args, **kwargs)

    monkeypatch.setattr(rlvr_kit.engine.grpo_trainer, "branch_logps", count)
    trainer.train()
    assert (
        rows == [8] * 9
    )  # four batches of old ones, four of the reference, and one loss pass of 8 completions


@pytest.mark.parametrize("options", [{}, {"beta": 0.1, "lora": True}], ids=["plain", "beta"])
def test_evaluation_is_stock_trls_and_does_not_turn_into_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict
) -> None:
    logs = []
    for cls in (GRPOTrainer, SharedPrefixGRPOTrainer):
        trainer = make_trainer(
            cls, tmp_path, eval_dataset=Dataset.from_dict({"prompt": PROMPTS}), eval_strategy="steps",
            eval_steps=1, eval_on_start=True, max_steps=2, per_device_eval_batch_size=8, **options,
        )  # fmt: skip
        force(trainer, monkeypatch)
        trainer.model.eval()
        before = trainer.evaluate()
        assert not trainer.model.training
        trainer.train()
        logs.append([before, *trainer.state.log_history])
    stock, ours = logs
    assert sum("eval_loss" in line for line in ours) == 4
    for theirs, mine in zip(stock, ours, strict=True):
        assert mine.keys() == theirs.keys()
        wanted = {key: value for key, value in theirs.items() if "time" not in key and "second" not in key}
        assert wanted == pytest.approx({key: mine[key] for key in wanted}, rel=2e-4, abs=2e-6)


def test_sampling_leaves_the_mode_as_it_was(tmp_path: Path) -> None:
    trainer = make_trainer(SharedPrefixGRPOTrainer, tmp_path)
    for training in (True, False):
        trainer.model.train(training)
        trainer._generate_single_turn([TOKENIZER(PROMPTS[0])["input_ids"]], None, {}, 4)
        assert trainer.model.training == training


def test_a_completion_cut_before_a_stop_string_counts_as_ended(tmp_path: Path) -> None:
    trainer = make_trainer(SharedPrefixGRPOTrainer, tmp_path)
    prompts = [TOKENIZER(PROMPTS[0])["input_ids"]] * 40
    for trainer.stop in ([], [chr(i) for i in range(97, 123)]):
        torch.manual_seed(0)
        written, _ = trainer._generate_single_turn(prompts, None, {})
        cut_off = [ids for ids in written if ids[-1] != END]
        assert all(len(ids) <= 9 for ids in written) and all(len(ids) == 8 for ids in cut_off)
        assert (len(cut_off) < 30) == bool(trainer.stop)


def test_an_end_token_that_was_not_sampled_is_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model with two end tokens, as Qwen-Instruct: neither gets another; a completion cut at a stop string does."""
    second_end = 200
    completions = [
        Completion("", [70, 71, END], truncated=False),
        Completion("", [70, 72, second_end], truncated=False),
        Completion("", [70, 73], truncated=False),  # cut before a stop string
        Completion("", [70, 74, 75, 76, 77, 78, 79, 80], truncated=True),
    ]
    trainer = make_trainer(SharedPrefixGRPOTrainer, tmp_path, per_device_train_batch_size=4)
    trainer.eos_token_ids, trainer.stop = [END, second_end], ["\nQuestion:"]
    monkeypatch.setattr(rlvr_kit.engine.grpo_trainer, "decode", lambda *_: completions)
    trainer.model.train()
    inputs = trainer._generate_and_score_completions([{"prompt": PROMPTS[0]}] * 4)
    kept = inputs["completion_mask"].bool()
    written = [ids[mask].tolist() for ids, mask in zip(inputs["completion_ids"], kept, strict=True)]
    assert written == [[70, 71, END], [70, 72, second_end], [70, 73, END], completions[3].ids]
    trained = (inputs["completion_mask"] * inputs["tool_mask"]).sum(dim=1)
    assert trained.tolist() == [3, 3, 2, 8] and inputs["num_items_in_batch"] == 16
    assert trainer._metrics["train"]["completions/clipped_ratio"] == [0.25]


def _prompt_tuning() -> dict[str, Any]:
    from peft import PromptTuningConfig

    return {"peft_config": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)}


ASIDE: dict[str, tuple[dict[str, Any], str]] = {
    "repetition penalty": ({"repetition_penalty": 1.1}, "grpo.repetition_penalty"),
    "min_p": ({"min_p": 0.1}, "grpo.min_p"),
    "generation kwargs": ({"generation_kwargs": {"no_repeat_ngram_size": 2}}, "grpo.generation_kwargs"),
    "cast head": ({"cast_lm_head_to_fp32": True}, "grpo.cast_lm_head_to_fp32"),
    "noise": ({"neftune_noise_alpha": 5}, "grpo.neftune_noise_alpha"),
    "LoRA dropout": ({"lora": {"lora_dropout": 0.1}}, "dropout"),
    "prompt tuning": (_prompt_tuning(), "PROMPT_TUNING"),
}


@pytest.mark.parametrize("name", ASIDE)
def test_it_steps_aside_with_one_line(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options, reason = ASIDE[name]
    caplog.set_level(logging.WARNING, logger="rlvr_kit.engine.grpo_trainer")
    weights = []
    for cls in (GRPOTrainer, SharedPrefixGRPOTrainer):
        trainer = make_trainer(cls, tmp_path, **({"max_steps": 2} | options))
        trainer.train()
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert reason in trainer.fallback_reason
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("rlvr_kit")]
    assert len(lines) == 1 and reason in lines[0]
    assert torch.equal(*weights)  # the same random numbers too: all of it is stock TRL's


@pytest.mark.parametrize("change", ["attention dropout", "generation config", "rotary positions", "gpt2"])
def test_it_steps_aside_from_models_that_it_does_not_know(change: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(make_trainer(GRPOTrainer, tmp_path).model.name_or_path)
    if change == "attention dropout":
        model.config.attention_dropout = 0.1
    elif change == "generation config":
        model.generation_config.no_repeat_ngram_size = 2
    elif change == "rotary positions":
        model.config.rope_parameters["rope_type"] = "dynamic"
    else:
        shape = dict(n_embd=16, n_layer=1, n_head=2, vocab_size=len(TOKENIZER), bos_token_id=None)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **shape))
    trainer = SharedPrefixGRPOTrainer(
        model=model, args=make_trainer(GRPOTrainer, tmp_path).args, processing_class=TOKENIZER,
        reward_funcs=MixedReward(), train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
    )  # fmt: skip
    words = {"generation config": "no_repeat_ngram_size", "rotary positions": "dynamic"}
    assert words.get(change, change) in trainer.fallback_reason


def test_what_it_does_not_know_is_passed_on_to_trl(tmp_path: Path) -> None:
    """TRL names the fourth argument when it calls from the loop of tools, and has a fifth."""
    trainer = make_trainer(SharedPrefixGRPOTrainer, tmp_path, min_p=0.01)
    ids = [TOKENIZER(PROMPTS[0])["input_ids"]] * 2
    written, _ = trainer._generate_single_turn(ids, None, {}, num_generations=2, has_tool_images=False)
    assert len(written) == 2
    quick = make_trainer(SharedPrefixGRPOTrainer, tmp_path)
    assert len(quick._generate_single_turn(ids, None, {}, num_generations=2, has_tool_images=False)[0]) == 2


def test_tools_are_called_by_trl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trl.chat_template_utils import qwen3_chat_template

    def multiply(a: int, b: int) -> int:
        """Multiply two integers.

        Args:
            a: The first integer.
            b: The second integer.

        Returns:
            The product.
        """
        calls.append((a, b))
        return a * b

    calls: list[tuple[int, int]] = []
    tokenizer = load_tokenizer("tiny-random")
    tokenizer.chat_template = qwen3_chat_template
    known = make_trainer(GRPOTrainer, tmp_path, max_steps=1, max_completion_length=200)
    question = [{"role": "user", "content": "3 x 4?"}]
    trainer = SharedPrefixGRPOTrainer(
        model=known.model, args=known.args, processing_class=tokenizer, tools=[multiply],
        reward_funcs=lambda completions, **_: [float(i) for i in range(len(completions))],
        train_dataset=Dataset.from_dict({"prompt": [question] * 8}),
    )  # fmt: skip
    call = '<tool_call>\n{"name": "multiply", "arguments": {"a": 3, "b": 4}}\n</tool_call>'
    said = [[*tokenizer(text)["input_ids"], END] for text in (call, "It is 12.")]

    def generate(input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        ids = torch.tensor(said[1 if calls else 0]).expand(len(input_ids), -1)
        return torch.cat([input_ids, ids], dim=1)

    monkeypatch.setattr(trainer.model, "generate", generate)
    assert "tools" in trainer.fallback_reason
    trainer.train()
    assert calls == [(3, 4)] * 8 and trainer.state.global_step == 1


def test_it_steps_aside_for_a_rollout_function(tmp_path: Path) -> None:
    def rollout(prompts: list, trainer: Any) -> dict[str, list]:
        ids = [TOKENIZER(prompt)["input_ids"] for prompt in prompts]
        written = [[65 + i, 66, END] for i in range(len(prompts))]
        return {"prompt_ids": ids, "completion_ids": written, "logprobs": [[0.0] * 3 for _ in written]}

    known = make_trainer(GRPOTrainer, tmp_path)
    trainer = SharedPrefixGRPOTrainer(
        model=known.model, args=known.args, processing_class=TOKENIZER, reward_funcs=MixedReward(),
        train_dataset=Dataset.from_dict({"prompt": PROMPTS * 8}), rollout_func=rollout,
    )  # fmt: skip
    assert "rollout function" in trainer.fallback_reason
    trainer.train()
    assert trainer.state.global_step == 3
