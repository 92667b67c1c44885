"""A run goes on in the number format in which it began, on whatever machine, and no comparison mixes two formats."""

from pathlib import Path

import pytest

from rlvr_kit.errors import UserError
from rlvr_kit.measure.evaluation import evaluate
from rlvr_kit.models import load_policy, load_tokenizer
from rlvr_kit.recipe import load_recipe
from rlvr_kit.run_folder import Run
from rlvr_kit.training.resume import checkpoints, refuse_other_run, resolved_as_begun
from rlvr_kit.training.study import load_study
from rlvr_kit.training.sweep import sweep

SMALL = ["grpo.max_steps=1", "evaluation.n=2", "evaluation.heldout=2", "data.train_size=8"]


def test_a_run_goes_on_in_the_format_in_which_it_began(tmp_path: Path) -> None:
    auto, begun = load_recipe("smoke"), load_recipe("smoke", ["model.dtype=bfloat16"])
    assert auto.model.dtype == "auto" and resolved_as_begun(auto, tmp_path).model.dtype == "float32"
    (tmp_path / "recipe.yaml").write_text(begun.resolved().to_yaml())
    assert resolved_as_begun(auto, tmp_path) == begun.resolved()
    refuse_other_run(resolved_as_begun(auto, tmp_path), tmp_path)
    other = resolved_as_begun(load_recipe("smoke", ["model.dtype=float32"]), tmp_path)
    with pytest.raises(UserError, match="another model"):
        refuse_other_run(other, tmp_path)


def test_what_was_evaluated_in_one_format_is_not_taken_for_the_other(tmp_path: Path) -> None:
    recipe, tokenizer = load_recipe("smoke", SMALL), load_tokenizer("tiny-random")
    told = [
        evaluate(
            load_policy("tiny-random", dtype=dtype), tokenizer, recipe.test_problems(), recipe.template(),
            label="base", sampling=recipe.sampling, out=Run(tmp_path), quiet=True,
        )
        for dtype in ("float32", "bfloat16")
    ]  # fmt: skip
    assert [each.summary["dtype"] for each in told] == ["float32", "bfloat16"]
    first, second = (set(each.rows.made_by) for each in told)
    assert not first & second


def test_a_study_of_both_formats_reads_base_and_trained_models_alike(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    changes = ", ".join(change.replace("=", ": ") for change in SMALL)
    study.write_text(
        "recipe: smoke\nseeds: [0]\nvariants:\n"
        f"  auto: {{{changes}}}\n  half: {{{changes}, model.dtype: bfloat16}}\n"
    )
    sweep(load_study(study), tmp_path / "out")
    (base,) = (tmp_path / "out").glob("base-*")  # one measurement serves both
    assert Run(base).evaluation("base")[1]["dtype"] == "float32"
    for variant, dtype in (("auto", "float32"), ("half", "bfloat16")):
        run = Run(tmp_path / "out" / variant / "seed-0")
        assert (run.recipe().model.dtype, run.evaluation("tuned")[1]["dtype"]) == (dtype, "float32")


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"[1]"])
def test_a_checkpoint_whose_list_of_files_is_damaged_is_none(content, tmp_path):
    folder = tmp_path / "checkpoints" / "checkpoint-3"
    folder.mkdir(parents=True)
    (folder / "files.json").write_bytes(content)
    assert checkpoints(tmp_path) == []
