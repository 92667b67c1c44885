"""An exported model is the model that was trained: merged, as an adapter on its base, and in plain transformers."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlvr_kit import UserError
from rlvr_kit.measure.evaluation import evaluate
from rlvr_kit.models import load_policy, load_tokenizer
from rlvr_kit.recipe import load_recipe
from rlvr_kit.run_folder import Run
from rlvr_kit.share.export import export
from rlvr_kit.share.plain import plain_generate
from rlvr_kit.tasks.prompts import Exemplar, Template
from rlvr_kit.training.train import train


def answers(run, policy, tokenizer, **options):
    recipe = run.recipe()
    result = evaluate(
        policy, tokenizer, recipe.test_problems(), recipe.template(),
        label="x", sampling=recipe.sampling, quiet=True, **options,
    )  # fmt: skip
    return result.rows


def test_merged_adapter_and_plain_transformers_give_the_answers_of_the_run(run, folders):
    seed, merged = run.recipe().run.seed, str(folders["merged"])
    trained = answers(run, load_policy(str(run.path / "model")), load_tokenizer(str(run.path / "model")))
    plain = AutoModelForCausalLM.from_pretrained(merged), AutoTokenizer.from_pretrained(merged)
    ways = {
        "merged": answers(run, load_policy(merged), load_tokenizer(merged)),
        "adapter": answers(
            run, load_policy(str(folders["adapter"]), seed=seed), load_tokenizer(str(folders["adapter"]))
        ),
        "plain": answers(run, *plain, generate=plain_generate),
    }
    for way, rows in ways.items():
        assert rows.completion.tolist() == trained.completion.tolist(), way
        assert rows.prompt.tolist() == trained.prompt.tolist(), way
        assert rows[["correct", "truncated"]].equals(trained[["correct", "truncated"]]), way
    base = answers(run, load_policy("tiny-random", seed=seed), load_tokenizer("tiny-random"))
    assert base.completion.tolist() != trained.completion.tolist()  # else the test would prove nothing
    assert base.prompt.tolist() == trained.prompt.tolist()


def test_the_adapter_fits_its_base_in_plain_peft(run, folders):
    base = load_policy("tiny-random", seed=run.recipe().run.seed)
    policy = PeftModel.from_pretrained(base, str(folders["adapter"])).merge_and_unload()
    ids = torch.arange(40)[None]
    merged = load_policy(str(folders["merged"]))
    torch.testing.assert_close(policy(ids).logits, merged(ids).logits, rtol=1e-4, atol=1e-5)


def test_the_settings_hold_no_surprise(run, folders):
    for folder in folders.values():
        settings = json.loads((folder / "generation_config.json").read_text())
        assert settings["do_sample"] is False and "temperature" not in settings and "top_p" not in settings
        assert settings["max_new_tokens"] == run.recipe().max_new_tokens
        assert settings["eos_token_id"] == load_tokenizer(str(folder)).eos_token_id
        assert Template.from_dict(json.loads((folder / "prompt.json").read_text())) == run.recipe().template()
    assert json.loads((folders["merged"] / "config.json").read_text())["use_cache"] is True


def test_others_may_read_it(folders):
    assert not [
        file
        for folder in folders.values()
        for file in folder.iterdir()
        if file.stat().st_mode & 0o044 != 0o044
    ]


def test_nothing_names_this_machine(run, folders):
    for folder in folders.values():
        for file in folder.rglob("*"):
            if file.is_file():
                assert str(run.path).encode() not in file.read_bytes(), file
    assert (
        json.loads((folders["adapter"] / "adapter_config.json").read_text())["base_model_name_or_path"]
        == "tiny-random"
    )


@pytest.mark.parametrize("exemplars", [(), (Exemplar(question="1+1?", answer="It is 2.\n#### 2"),)])
@pytest.mark.parametrize("instruction", ["", "Solve it."])
def test_a_plain_model_gets_a_chat_template_that_writes_its_prompt(folders, instruction, exemplars):
    template = Template(instruction=instruction, exemplars=exemplars)
    plain, exported = load_tokenizer("tiny-random"), load_tokenizer(str(folders["merged"]))
    assert plain.chat_template is None
    assert template.render(exported, "What is 2+2?") == template.render(plain, "What is 2+2?")


def test_a_number_format_halves_the_file(run, tmp_path):
    whole = export(run, tmp_path / "whole") / "model.safetensors"
    half = export(run, tmp_path / "half", dtype="bfloat16") / "model.safetensors"
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    assert load_policy(str(half.parent), dtype="bfloat16").dtype == torch.bfloat16
    assert json.loads((half.parent / "config.json").read_text())["dtype"] == "bfloat16"


def test_refusals_leave_nothing(run, folders, tmp_path):
    with pytest.raises(UserError, match="is not empty"):
        export(run, folders["merged"])
    with pytest.raises(UserError, match="recipe.yaml"):
        export(Run(tmp_path), tmp_path / "out")
    half = tmp_path / "half"
    half.mkdir()
    shutil.copy(run.path / "recipe.yaml", half)
    with pytest.raises(UserError, match="no trained model"):
        export(Run(half), tmp_path / "out")
    with pytest.raises(UserError, match="'gguf' is not one of merged, adapter"):
        export(run, tmp_path / "out", kind="gguf")
    whole = train(load_recipe("smoke", ["lora=null", "grpo.max_steps=1"]), tmp_path / "whole")
    with pytest.raises(UserError, match="every weight"):
        export(whole, tmp_path / "out", kind="adapter")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half", "whole"]


def test_an_adapter_whose_base_is_gone_says_so(folders, tmp_path):
    copy = shutil.copytree(folders["adapter"], tmp_path / "adapter")
    file = copy / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": "./gone"}))
    with pytest.raises(UserError, match="base that it names does not load.*./gone"):
        load_policy(str(copy))
