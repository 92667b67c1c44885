"""The committed run for late-comers, made here of a smoke run: small, complete, and never written into."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from rlvr_kit import Run, evaluate_recipe, load_policy, load_recipe, load_tokenizer, train
from rlvr_kit.errors import InputError
from rlvr_kit.paths import PROJECT
from rlvr_kit.tutorial.known_good import KNOWN_GOOD, MODEL_FILES, make_known_good, trained_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = load_recipe("smoke", ["evaluation.n=4", "grpo.max_steps=2"])
    run = train(recipe, tmp_path_factory.mktemp("run"))
    for label, model in (("base", "tiny-random"), ("tuned", str(run.path / "model"))):
        evaluate_recipe(recipe, label=label, model=model, out=run)
    return run


@pytest.fixture
def known_good(run, monkeypatch):
    out = PROJECT / "build" / "known_good_of_a_test"
    yield make_known_good(run, out)
    shutil.rmtree(out)


def test_made_of_a_run_in_bfloat16_without_what_the_base_has(run, known_good):
    names = {str(file.relative_to(known_good)) for file in known_good.rglob("*") if file.is_file()}
    evals = {f"evals/{label}.{kind}" for label in ("base", "tuned") for kind in ("json", "parquet")}
    assert names == {f"model/{name}" for name in MODEL_FILES} | evals | {
        "recipe.yaml",
        "log.jsonl",
        "summary.json",
    }
    weights = load_file(known_good / "model" / "adapter_model.safetensors").values()
    assert {weight.dtype for weight in weights} == {torch.bfloat16}


def test_a_late_comer_gets_a_copy_that_loads_and_can_be_evaluated(run, known_good, tmp_path):
    before = {file: file.read_bytes() for file in known_good.rglob("*") if file.is_file()}
    late, which = trained_run(tmp_path / "late", "smoke", known_good)
    assert late.path == tmp_path / "late" / "known_good" and "known-good model" in which
    model, tokenizer = load_policy(str(late.path / "model")), load_tokenizer(str(late.path / "model"))
    asked = tokenizer("2 + 2", return_tensors="pt")
    whole = load_policy(str(run.path / "model"))
    assert torch.allclose(model(**asked).logits, whole(**asked).logits, atol=0.02)
    assert len(late.log()) == len(run.log())
    evaluate_recipe(late.recipe(), label="tuned", model=str(late.path / "model"), out=late)
    assert trained_run(tmp_path / "late", "smoke", known_good)[0].path == late.path  # the second notebook
    assert before == {file: file.read_bytes() for file in known_good.rglob("*") if file.is_file()}


def test_the_readers_own_run_comes_first(run, known_good):
    mine, which = trained_run(run.path, "smoke", known_good)
    assert mine.path == run.path and which == f"the model trained in {run.path}"


def test_none_for_another_base_model_or_where_none_is_committed(known_good, tmp_path):
    assert trained_run(tmp_path, "cpu", known_good) is None
    assert trained_run(tmp_path, "smoke", tmp_path / "nowhere") is None


def test_a_run_without_evaluations_is_refused(tmp_path):
    with pytest.raises(InputError, match="no evaluation 'base'"):
        make_known_good(Run(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not KNOWN_GOOD.exists(), reason="none is committed yet")
def test_the_committed_one_is_small():
    sizes = [file.stat().st_size for file in KNOWN_GOOD.rglob("*") if file.is_file()]
    assert sum(sizes) < 8e6
    assert trained_run("runs/nowhere", "smoke") is None
