"""Recipes: each is read, resolved, written back, and built into the pinned libraries' config objects."""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from rlvr_kit import UserError
from rlvr_kit.recipe import EXEMPLAR_POOL, RECIPES, load_recipe

NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))


def test_the_recipes_are_those_that_are_documented() -> None:
    assert NAMES == ["cpu", "gpu", "gpu-qlora", "multi-gpu", "orders", "smoke", "walkthrough"]


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_survives_being_written_and_read(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    (tmp_path / "kept.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "kept.yaml") == recipe


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_builds_its_config_objects(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlvr_kit.training.configs import grpo_config, lora_config

    # A processor refuses bf16 and paged optimizers; what is left of the object is built as on a GPU.
    recipe = load_recipe(name)
    grpo = {k: v for k, v in recipe.grpo.items() if k not in ("bf16", "optim")}
    config = grpo_config(recipe.model_copy(update={"grpo": grpo}), tmp_path)
    completions = config.per_device_train_batch_size * config.gradient_accumulation_steps
    assert completions % config.num_generations == 0
    for key, value in grpo.items():
        assert getattr(config, key) == value or key == "lr_scheduler_type"
    assert lora_config(recipe).r == recipe.lora["r"]


@pytest.mark.parametrize(
    "override, where",
    [
        ("grpo.learning_rate=1e-5", lambda r: r.grpo["learning_rate"] == 1e-5),
        ("data.train_size=32", lambda r: r.data.train_size == 32),
        ("lora=null", lambda r: r.lora is None),
        ("model.name=some/folder", lambda r: r.model.name == "some/folder"),
    ],
)
def test_an_override_changes_that_key_alone(override: str, where) -> None:
    changed = load_recipe("smoke", [override])
    assert where(changed)
    section = override.split("=")[0].split(".")[0]
    before = load_recipe("smoke").model_dump(exclude={section})
    assert changed.model_dump(exclude={section}) == before


@pytest.mark.parametrize(
    "text, said",
    [
        ("model: {nme: x}", "model.nme"),
        ("colour: red", "colour"),
        ("evaluation: {n: 0}", "evaluation.n"),
        ("model: [", "YAML"),
        ("just text", "no sections"),
    ],
)
def test_a_bad_recipe_is_named_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        load_recipe(tmp_path / "bad.yaml")
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="cpu, gpu"):
        load_recipe("cup")


@pytest.mark.parametrize("override", ["grpo.learning_rate", "=3", "name.x=1"])
def test_a_malformed_override_is_refused(override: str) -> None:
    with pytest.raises(UserError):
        load_recipe("smoke", [override])


def test_an_unknown_grpo_key_is_named(tmp_path: Path) -> None:
    from rlvr_kit.training.configs import grpo_config

    with pytest.raises(UserError, match="max_prompt_length"):
        grpo_config(load_recipe("smoke", ["grpo.max_prompt_length=64"]), tmp_path)


def test_training_heldout_and_exemplar_rows_are_apart() -> None:
    recipe = load_recipe("smoke", ["prompt.shots=4"])
    trained = set(recipe.training_problems()["question"])
    heldout = set(recipe.heldout_problems()["question"])
    shown = {exemplar.question for exemplar in recipe.template().exemplars}
    tested = set(recipe.test_problems()["question"])
    assert (
        len(trained) == recipe.data.train_size
        and len(heldout) == recipe.evaluation.heldout
        and len(shown) == 4
    )
    assert (
        not trained & heldout and not shown & (trained | heldout) and not tested & (trained | heldout | shown)
    )


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    rows = '{"question": "1+1?", "answer": "It is 2.\\n#### 2"}\n{"question": "1+2?", "answer": "It is 3.\\n#### 3"}\n'
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(rows.replace("?", f" ({split})?"))
    recipe = load_recipe("smoke", [f"data.source={tmp_path}", "data.train_size=null"])
    with pytest.raises(UserError, match=f"{EXEMPLAR_POOL} are kept"):
        recipe.training_problems()


@pytest.mark.parametrize("name, generates", [("gpu", True), ("gpu-qlora", False)])
def test_vllm_generates_where_it_is_installed(
    name: str, generates: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    import trl

    from rlvr_kit.training.configs import grpo_config

    made = {}
    vllm = ModuleType("vllm")
    vllm.__spec__ = ModuleSpec("vllm", None)
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    fields = {"__dataclass_fields__": trl.GRPOConfig.__dataclass_fields__}
    record = fields | {
        "__init__": lambda self, **given: made.update(given)
    }  # the real one would look for a GPU
    monkeypatch.setattr(trl, "GRPOConfig", type("GRPOConfig", (), record))
    grpo_config(load_recipe(name), tmp_path)
    assert (made["use_vllm"], made["vllm_mode"]) == (generates, "colocate")


def test_a_changed_copy_of_a_recipe_has_its_own_problems() -> None:
    recipe = load_recipe("smoke")
    before = recipe.training_problems()["question"]
    other = recipe.model_copy(update={"data": recipe.data.model_copy(update={"seed": 7})})
    assert other.training_problems()["question"] != before == recipe.training_problems()["question"]
    held = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"heldout": 3})})
    assert len(held.heldout_problems()) == 3 and len(held.training_problems()) == len(before)


@pytest.mark.parametrize(
    "text, said",
    [
        ("grpo: {max_steps: 3}\ngrpo: {beta: 0.1}", "grpo stands there twice"),
        ("grpo:\n  beta: 0.1\n  beta: 0.2", "beta stands there twice"),
        ("", "no sections"),
        ("\x00\x01", "not a readable YAML file"),
    ],
)
def test_a_file_that_does_not_say_what_it_seems_to_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        load_recipe(tmp_path / "bad.yaml")
    assert "\n" not in str(caught.value) and "bad.yaml" in str(caught.value)


@pytest.mark.parametrize(
    "override, said",
    [
        ("grpo.max_steps=[1", "not a YAML value"),
        ("grpo.learning_rate=.nan", "not a finite number"),
        ("lora.lora_alpha=.inf", "not a finite number"),
        ("rewards.correct=.inf", "rewards.correct"),
        ("run.seed=-1", "run.seed"),
        ("run.seed=4294967296", "run.seed"),
    ],
)
def test_a_value_that_cannot_be_meant_is_one_line(override: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        load_recipe("smoke", [override])
    assert "\n" not in str(caught.value)
