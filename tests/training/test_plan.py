"""What a plan counts, against real models, tokenizers and TRL; and what it refuses."""

import io
import json

import pytest
import torch
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM

from rlvr_kit import UserError
from rlvr_kit.engine.prompt_tree import additive, branch_attention, prompt_tree, use_tree_attention
from rlvr_kit.models import load_policy, load_tokenizer
from rlvr_kit.recipe import load_recipe
from rlvr_kit.training.plan import DEFAULTS, plan, with_time
from rlvr_kit.training.time_step import timed_plan


def smoke(*overrides):
    return load_recipe("smoke", list(overrides))


@pytest.fixture
def folder_model(tmp_path):
    """A model folder of the given sizes with a tokenizer and no weights."""

    def make(**sizes):
        tokenizer = load_tokenizer("tiny-random")
        tokenizer.save_pretrained(tmp_path)
        config = LlamaConfig(vocab_size=len(tokenizer), **sizes)
        config.save_pretrained(tmp_path)
        return tmp_path, config

    return make


@pytest.mark.parametrize(
    "overrides, prompts, completions, steps, total",
    [
        ([], 2, 8, 4, 32),
        (["grpo.gradient_accumulation_steps=3"], 6, 24, 4, 96),
        (["grpo.per_device_train_batch_size=2", "grpo.gradient_accumulation_steps=2"], 1, 4, 4, 16),
        # No number of steps: TRL trains for epochs, here 2 epochs of 64 problems, 2 a step.
        (["grpo.max_steps=-1", "grpo.num_train_epochs=2"], 2, 8, 64, 512),
        # Four steps learn from one batch of 32 completions: 8 new prompts every fourth step.
        (["grpo.max_steps=-1", "grpo.num_train_epochs=1", "grpo.steps_per_generation=4"], 2, 8, 32, 256),
        (["grpo.max_steps=-1", "grpo.num_train_epochs=1", "grpo.num_iterations=2"], 2, 8, 64, 512),
    ],
)
def test_batch_numbers_in_prompts_and_completions(overrides, prompts, completions, steps, total):
    made = plan(smoke(*overrides))
    counted = (made.prompts, made.completions, made.steps, made.total_completions)
    assert counted == (prompts, completions, steps, total)


@pytest.mark.parametrize(
    "overrides, said",
    [
        (["grpo.num_generations=1"], "num_generations is below 2"),
        (["grpo.num_generations=0"], "num_generations is below 2"),
        (["grpo.per_device_train_batch_size=6"], "6 completions .* not whole groups of 4: make it 8"),
        (["grpo.per_device_train_batch_size=0"], "0 completions .* make it 4"),
        (["data.train_size=1"], "takes 2 prompts and there are 1: raise data.train_size"),
        (["grpo.learning_rate=0"], "learning_rate is not above 0"),
        (["grpo.temperature=0"], "temperature is not above 0"),
        (["grpo.max_steps=0"], "max_steps is 0"),
        (["grpo.max_completion_length=0"], "max_completion_length is below 1"),
        (["grpo.num_generations=four"], "grpo.num_generations is 'four', not a number"),
        (["rewards.format=0", "rewards.correct=0"], "all rewards would be equal"),
        (["grpo.max_completion_length=4000"], "context of 4096: lower prompt.shots or grpo.max_completion"),
    ],
)
def test_refuses_what_cannot_work(overrides, said):
    with pytest.raises(UserError, match=said):
        plan(smoke(*overrides))


def test_says_all_that_is_wrong_at_once():
    with pytest.raises(UserError, match="recipe smoke .*learning_rate.*; .*max_steps"):
        plan(smoke("grpo.learning_rate=0", "grpo.max_steps=0"))


def test_refuses_more_memory_than_there_is(folder_model):
    folder, _ = folder_model(num_hidden_layers=8, hidden_size=1024, intermediate_size=4096)
    recipe = smoke(f"model.name={folder}")
    need = plan(recipe, gpu_memory=24).memory["at once"]
    assert plan(recipe, gpu_memory=need * 1.01).available == need * 1.01
    with pytest.raises(
        UserError, match=rf"up to {need:.1f} GiB \(weights .* lower grpo.per_device_train_batch"
    ):
        plan(recipe, gpu_memory=need * 0.99)


def test_needs_no_weights(folder_model):
    folder, config = folder_model(num_hidden_layers=2, hidden_size=64, intermediate_size=128)
    assert not list(folder.glob("*.safetensors"))
    made = plan(smoke(f"model.name={folder}", "lora=null"))
    counted = LlamaForCausalLM(config).num_parameters()
    assert made.parameters == {"all": counted, "trained": counted}


def test_counts_lora_as_peft_does():
    from peft import get_peft_model

    from rlvr_kit.training.configs import lora_config

    model = get_peft_model(load_policy("tiny-random"), lora_config(smoke()))
    assert plan(smoke()).parameters["trained"] == model.num_parameters(only_trainable=True)


@pytest.mark.parametrize(
    "name, parameters",  # as the model cards give them
    [("Qwen/Qwen2.5-0.5B-Instruct", 494_032_768), ("Qwen/Qwen2.5-1.5B-Instruct", 1_543_714_304)],
)
def test_knows_the_sizes_of_the_gpu_recipes_models(name, parameters):
    recipe = smoke(f"model.name={name}", "lora=null")
    made = plan(recipe, gpu_memory=80)
    assert made.parameters["all"] == parameters
    assert made.memory["weights"] == pytest.approx(parameters * 2 / 2**30)  # bfloat16


def test_an_unknown_model_is_one_line():
    with pytest.raises(UserError, match="nobody/nothing"):
        plan(smoke("model.name=nobody/nothing"))


@pytest.mark.parametrize("shots", [0, 2])
def test_prompt_lengths_are_those_of_the_rendered_prompts(shots):
    recipe, tokenizer = smoke(f"prompt.shots={shots}"), load_tokenizer("tiny-random")
    texts = [recipe.template().render(tokenizer, q) for q in recipe.training_problems()["question"]]
    tokens = plan(recipe).tokens
    assert tokens["longest"] == max(len(tokenizer(text)["input_ids"]) for text in texts)
    assert len({text[: tokens["shared"]] for text in texts}) == 1  # one token a byte, all of them ASCII
    assert len({text[: tokens["shared"] + 1] for text in texts}) > 1


def kept_for_backward(model, positions, **inputs):
    """Bytes that autograd keeps in one forward pass over so many tokens, parameters apart."""
    storages, weights = {}, {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ids = torch.zeros(1, positions, dtype=torch.long)
        output = model(**{"input_ids": ids} | inputs).last_hidden_state
    return sum(storages.values()), output


def test_activations_are_those_that_autograd_keeps(folder_model):
    folder, config = folder_model(
        num_hidden_layers=4, hidden_size=128, intermediate_size=384, num_attention_heads=4
    )
    recipe = smoke(f"model.name={folder}", "lora=null", "grpo.activation_checkpointing=false")
    tokens = plan(recipe).tokens
    shared, own = tokens["shared"], tokens["longest"] - tokens["shared"]
    prompts = [[1] * shared + [2 + i] * own for i in range(2)]
    tree = prompt_tree(prompts, [(i // 4, [4] * tokens["completion"]) for i in range(8)])
    model = LlamaForCausalLM(config).model
    use_tree_attention(model)
    group = config.num_attention_heads // config.num_key_value_heads
    kept, _ = kept_for_backward(
        model, tree.ids.shape[1], input_ids=tree.ids, position_ids=tree.positions,
        attention_mask=additive(tree.mask, torch.float32), branches=branch_attention(tree, group, torch.float32),
    )  # fmt: skip
    assert plan(recipe).memory["activations"] == pytest.approx(kept / 2**30, rel=0.2)


@pytest.mark.parametrize(
    "less, more",
    [
        ([], ["run.shared_prefix=false"]),
        (["grpo.activation_checkpointing=true"], ["grpo.activation_checkpointing=false"]),
        ([], ["grpo.per_device_train_batch_size=16"]),
        ([], ["grpo.max_completion_length=64"]),
    ],
)
def test_activations_grow_with_what_they_hold(less, more):
    assert plan(smoke(*less)).memory["activations"] < plan(smoke(*more)).memory["activations"]


def test_the_whole_model_takes_more_to_train_than_an_adapter():
    adapter, whole = plan(smoke()).memory, plan(smoke("lora=null")).memory
    assert whole["optimizer"] == 2 * whole["gradients"] > 2 * adapter["gradients"]


def test_a_reference_model_is_counted_when_there_is_a_penalty():
    recipe = smoke("lora=null", "grpo.beta=0.1")
    memory = plan(recipe).memory
    assert memory["reference model"] == memory["weights"]


def test_a_measured_step_gives_a_time_and_leaves_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    made = timed_plan(smoke())
    assert made.seconds["sampling"] > 0 and made.seconds["learning"] > 0
    assert made.minutes >= made.steps * sum(made.seconds.values()) / 60
    assert not list(tmp_path.iterdir())
    said = capfd.readouterr()
    assert said.out == "" and "timing a training step" in said.err  # stdout is for --json


def test_reused_completions_are_sampled_once():
    def minutes(*reuse):
        recipe = smoke("grpo.max_steps=100", "evaluation.every_steps=1000", *reuse)
        return with_time(plan(recipe), recipe, {"sampling": 60.0, "learning": 6.0}).minutes

    once = minutes()
    assert once - minutes("grpo.num_iterations=2") == pytest.approx(50)
    waves = ["grpo.steps_per_generation=2", "data.train_size=64"]  # twice the completions, half as often
    assert minutes(*waves) == pytest.approx(once)


def test_a_model_that_is_not_here_is_planned_and_not_timed(capfd):
    made = timed_plan(smoke("model.name=Qwen/Qwen2.5-0.5B-Instruct"))
    assert made.seconds is None and made.minutes is None and made.in_words()["time"] == "not measured"
    assert "timing" not in capfd.readouterr().err
    assert "not here" in made.in_words()["note"]


def test_weights_that_are_not_here_are_no_reason_to_fail(folder_model):
    folder, _ = folder_model(num_hidden_layers=1, hidden_size=32, intermediate_size=64, num_attention_heads=2)
    made = timed_plan(smoke(f"model.name={folder}"))
    assert made.in_words()["time"] == "not measured" and "cannot be loaded" in made.in_words()["note"]


def test_reads_as_a_table_and_as_json():
    made = plan(smoke())
    assert json.loads(json.dumps(made.to_dict()))["total_completions"] == 32
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(made)
    text = console.export_text()
    assert "2 prompts x 4 completions = 8 completions" in text and "not measured" in text


def test_defaults_are_trls():
    from trl import GRPOConfig

    fields = GRPOConfig.__dataclass_fields__
    assert {key: fields[key].default for key in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize(
    "overrides",
    [
        ["grpo.gradient_accumulation_steps=2"],
        ["grpo.steps_per_generation=4"],
        ["grpo.num_iterations=2", "grpo.generation_batch_size=16"],
        ["data.train_size=65"],
    ],
)
def test_an_epoch_has_as_many_steps_as_in_trl(overrides, tmp_path):
    from datasets import Dataset
    from trl import GRPOTrainer

    from rlvr_kit.training.configs import grpo_config

    recipe = smoke("grpo.max_steps=-1", "grpo.num_train_epochs=1", *overrides)
    problems = recipe.training_problems()
    trainer = GRPOTrainer(
        load_policy("tiny-random"),
        lambda completions, **kwargs: [0.0] * len(completions),
        grpo_config(recipe, tmp_path),
        Dataset.from_dict({"prompt": problems["question"]}),
        processing_class=load_tokenizer("tiny-random"),
    )
    passes = len(trainer.get_train_dataloader())
    assert plan(recipe).steps == passes // trainer.args.gradient_accumulation_steps


def with_test_question(tmp_path, characters):
    """The smoke recipe on a folder of short questions, one of which, in the test split, is long."""
    for split in ("train", "test"):
        rows = [{"question": f"{split} {i}+1?", "answer": f"So.\n#### {i + 1}"} for i in range(60)]
        if split == "test":
            rows[3]["question"] += "x" * characters
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [f"data.source={tmp_path}", "data.train_size=null"]


def test_refuses_a_test_question_beyond_the_context(tmp_path):
    with pytest.raises(UserError, match="a test or held-out prompt of 5,[0-9]+ tokens .* context of 4,096"):
        plan(smoke(*with_test_question(tmp_path, 5000)))


def test_a_long_test_question_counts_in_the_memory(tmp_path):
    data = with_test_question(tmp_path, 3500)
    without = plan(smoke(*data, "evaluation.n=3")).memory.get("evaluation", 0)  # it is the fourth question
    batches = [plan(smoke(*data, f"evaluation.batch_size={n}")).memory["evaluation"] for n in (32, 64)]
    assert without < batches[0] / 4 and batches[0] < batches[1]


def test_a_name_with_brackets_is_no_markup(tmp_path):
    (tmp_path / "a[bold]b[").mkdir()
    file = tmp_path / "a[bold]b[" / "x[" / "y].yaml"
    file.parent.mkdir()
    file.write_text(smoke().model_copy(update={"name": "x[/y]"}).to_yaml())
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(plan(load_recipe(file)))
    assert "Plan of recipe x[/y]" in console.export_text()
