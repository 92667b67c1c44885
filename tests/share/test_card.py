"""The card says what was measured and no more, and its metadata is what the Hub reads."""

import json
import re

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard

from rlvr_kit.paths import PROJECT
from rlvr_kit.run_folder import Run
from rlvr_kit.share.card import base_licence, model_card

SAMPLE = Run(PROJECT / "notebooks/samples/cpu")


def test_the_figures_are_those_of_the_run():
    card = model_card(SAMPLE, "merged", "apache-2.0")
    base, tuned = (SAMPLE.evaluation(label)[1] for label in ("base", "tuned"))
    for share in ("strict", "lenient", "format", "truncated"):
        assert f"| {base[share]:.1%} (" in card.text and f"| {tuned[share]:.1%} (" in card.text
    assert f"n = {tuned['n']}" in card.text and "McNemar" in card.text
    wrong = SAMPLE.evaluation("tuned")[0].query("not correct")
    assert f"{len(wrong)} are wrong" in card.text
    assert wrong.iloc[0].completion in card.text
    assert f"seed {SAMPLE.recipe().run.seed}" in card.text


def test_the_metadata_is_the_hubs_own():
    card = ModelCard(str(model_card(SAMPLE, "adapter", "apache-2.0")))
    data = card.data
    assert data.license == "apache-2.0" and data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert data.library_name == "peft" and data.base_model_relation == "adapter"
    assert all(isinstance(result, EvalResult) for result in data.eval_results)
    tuned = SAMPLE.evaluation("tuned")[1]
    assert [result.metric_value for result in data.eval_results] == [
        round(tuned[s], 4) for s in ("strict", "lenient")
    ]
    header = yaml.safe_load(str(card).split("---")[1])
    assert header["model-index"][0]["results"]


def test_what_was_not_measured_is_called_so(run, tmp_path):
    for name in ("recipe.yaml", "summary.json"):
        (tmp_path / name).write_bytes((run.path / name).read_bytes())
    card = model_card(Run(tmp_path), "merged", "unknown")
    assert "**not measured**" in card.text and "licence of the base is not known" in card.text
    assert not card.data.eval_results and "%" not in card.text.split("## How it was trained")[0]


def test_a_hostile_completion_stays_in_its_block(run, tmp_path):
    rows, summary = run.evaluation("tuned")
    other = Run(tmp_path)
    (tmp_path / "recipe.yaml").write_bytes((run.path / "recipe.yaml").read_bytes())
    evil = "```\n<script>x</script>\n````\n# heading"
    other.save_evaluation("tuned", rows.assign(completion=evil, correct=False), summary)
    text = model_card(other, "merged", "mit").text
    inside = re.findall(r"^(`{5})text\n(.*?)\n\1$", text, re.DOTALL | re.MULTILINE)
    assert len(inside) == 3 and all(evil in block for _, block in inside)
    assert "<script>" not in re.sub(r"^(`{5})text\n.*?\n\1$", "", text, flags=re.DOTALL | re.MULTILINE)


def test_nothing_of_an_account_or_machine_is_shared(run, tmp_path):
    recipe = yaml.safe_load((run.path / "recipe.yaml").read_text())
    recipe["sagemaker"] |= {
        "role": "arn:secret",
        "bucket": "secret-bucket",
        "secrets": {"HF_TOKEN": "secret/name"},
    }
    recipe["data"]["source"] = "/somewhere/private/problems"
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    text = str(model_card(Run(tmp_path), "merged", "mit"))
    assert "secret" not in text and "private" not in text and "learning_rate" in text


@pytest.mark.parametrize(
    "task, asked", [("gsm8k", "Ann has 3 pens"), ("my_task.py", "a question like those")]
)
def test_a_card_asks_what_its_model_was_trained_for(tmp_path, task, asked):
    (tmp_path / "recipe.yaml").write_text(f"name: mine\ntask: {task}\n")
    assert asked in str(model_card(Run(tmp_path), "merged", "mit"))


@pytest.mark.parametrize("licence", ["cc-by-4.0", None])
def test_the_licence_of_a_folder_is_that_of_its_card(licence, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({}))
    if licence:
        (tmp_path / "README.md").write_text(f"---\nlicense: {licence}\n---\n# A model\n")
    assert base_licence(str(tmp_path)) == (licence or "unknown")


@pytest.mark.parametrize("kind", ["merged", "adapter"])
def test_the_code_on_the_card_runs_as_it_stands(kind, run, folders, monkeypatch, capsys):
    text = ModelCard.load(folders[kind] / "README.md").text
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    asked = run.evaluation("tuned")[0].iloc[0]
    monkeypatch.chdir(folders[kind])
    exec(code.replace("Ann has 3 pens and buys 4. How many does she have?", asked.question), {})
    said = capsys.readouterr().out
    if kind == "merged":  # the adapter's base is another one: a random model's seed is not on the card
        assert said == asked.completion + "\n"
    assert said
