"""A study runs what is missing, in a fair order, and says what all its seeds say."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlvr_kit import UserError
from rlvr_kit.__main__ import app
from rlvr_kit.paths import PROJECT
from rlvr_kit.recipe import Recipe, load_recipe
from rlvr_kit.training.configs import checked_grpo, lora_config
from rlvr_kit.training.study import Study, finished_runs, load_study, recipe_key, result_file, write_sweep
from rlvr_kit.training.sweep import base_key, run_one, sweep

#: A model with random weights never earns a reward; the entropy bonus makes its weights move all the same.
SMALL = (
    "grpo.max_steps: 3, grpo.entropy_coef: 0.05, evaluation.n: 4, evaluation.heldout: 4, data.train_size: 8, "
    "evaluation.every_steps: 1, run.save_steps: 1"
)
STUDY = f"""
recipe: smoke
seeds: [0, 1]
variants:
  default: {{{SMALL}}}
  hot: {{{SMALL}, grpo.temperature: 1.2}}
"""


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY)
    return file


def kill_when(command: list[str], happened: Callable[[], bool]) -> None:
    """Start the command and kill it, with all that it has started, as soon as something has happened."""
    process = subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not happened():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_killed_study_goes_on_and_ends_as_if_it_had_not_been(study_file: Path, tmp_path: Path) -> None:
    study_file.write_text(STUDY.replace("[0, 1]", "[0]"))
    study, out = load_study(study_file), tmp_path / "out"
    command = [sys.executable, "-m", "rlvr_kit", "sweep", str(study_file), "--out", str(out)]
    log, first = out / "default" / "seed-0" / "log.jsonl", result_file(out, ("default", 0))
    kill_when(command, lambda: log.exists() and '"step": 1,' in log.read_text())
    kill_when(command, first.exists)
    ended = first.stat().st_mtime_ns
    done = sweep(study, out)
    assert first.stat().st_mtime_ns == ended  # what had finished was not run again
    run_one(study.recipe_of("default", 0), "default", tmp_path / "whole")
    whole = json.loads(result_file(tmp_path / "whole", ("default", 0)).read_text())
    measured = (
        "tuned",
        "tokens",
        "gain",
        "steps",
        "best_step",
        "heldout",
        "entropy",
        "completions",
        "recipe",
    )
    assert {key: done["runs"][0][key] for key in measured} == {key: whole[key] for key in measured}
    assert [(run["variant"], run["seed"]) for run in done["runs"]] == [("default", 0), ("hot", 0)]
    assert done["variants"]["hot"]["seeds"] == 1 and done["machines"][0]["cores"] >= 1
    assert json.loads((out / "sweep.json").read_text()) == json.loads(json.dumps(done))

    # The summary alone is enough to go on with: on another machine nothing is run again.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(out / "sweep.json", elsewhere)
    assert sweep(study, elsewhere) == json.loads(json.dumps(done))
    assert sorted(path.name for path in elsewhere.iterdir()) == ["sweep.json"]


def test_every_variant_gets_its_first_seed_before_any_its_second(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what sweep.json holds is not run again. Nothing is trained: only the order of the runs matters here."""
    study, begun = load_study(study_file), []

    def begin(recipe: Recipe, variant: str, out: Path) -> None:
        begun.append((variant, recipe.run.seed))
        file = result_file(out, begun[-1])
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(finished(study, begun[-1]) | {"sentence": ""}))

    monkeypatch.setattr("rlvr_kit.training.sweep.run_one", begin)
    monkeypatch.setattr(
        "rlvr_kit.training.sweep.ProcessPoolExecutor", lambda jobs, **_: ThreadPoolExecutor(jobs)
    )
    sweep(study, tmp_path / "out")
    assert begun == [("default", 0), ("hot", 0), ("default", 1), ("hot", 1)]

    begun.clear()
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(tmp_path / "out" / "sweep.json", tmp_path / "elsewhere")
    study_file.write_text(STUDY.replace("[0, 1]", "[0, 1, 2]"))
    study = load_study(study_file)
    sweep(study, tmp_path / "elsewhere")
    assert begun == [("default", 2), ("hot", 2)]


def test_a_study_made_on_two_machines_says_so_and_keeps_what_was_made(
    study_file: Path, tmp_path: Path
) -> None:
    study = load_study(study_file)
    cells = {cell: finished(study, cell, processor=f"Fast {i % 2}") for i, cell in enumerate(study.cells)}
    written = write_sweep(study, tmp_path / "out", cells)
    assert [machine["processor"] for machine in written["machines"]] == ["Fast 0", "Fast 1"]
    assert [run["machine"] for run in written["runs"]] == [0, 0, 1, 1]
    assert finished_runs(study, tmp_path / "out") == cells


def finished(study: Study, cell: tuple[str, int], **machine: str) -> dict:
    """The figures of a run that was never made."""
    key = recipe_key(study.recipe_of(*cell))
    run = {"variant": cell[0], "seed": cell[1], "gain": 0.1, "p": 0.5, "n": 4, "minutes": 1.0}
    return run | {"recipe": key, "machine": machine}


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        ("grpo.temperature: 1.2", "grpo.temperature: 1.1", "variant 'hot' with seed 0 of another recipe"),
        ("seeds: [0, 1]", "seeds: [1]", "variant 'default' with seed 0, which the study does not have"),
        ("  hot:", "  cold:", "variant 'hot' with seed 0, which the study does not have"),
    ],
)
def test_figures_of_another_study_are_not_taken_over(
    study_file: Path, tmp_path: Path, before: str, now: str, message: str
) -> None:
    study = load_study(study_file)
    write_sweep(study, tmp_path / "out", {cell: finished(study, cell) for cell in study.cells})
    study_file.write_text(STUDY.replace(before, now))
    with pytest.raises(UserError, match=f"{message}.*choose another output folder"):
        sweep(load_study(study_file), tmp_path / "out")


def test_a_summary_that_no_sweep_has_written_is_one_line(study_file: Path, tmp_path: Path) -> None:
    for text in ("[]", "{", '{"runs": [{"variant": "hot", "seed": 0}], "machine": {}}'):
        (tmp_path / "sweep.json").write_text(text)
        with pytest.raises(UserError, match="not what a sweep of this version writes"):
            sweep(load_study(study_file), tmp_path)


def test_what_a_key_leaves_at_its_default_does_not_make_another_recipe() -> None:
    plain = load_recipe("smoke")
    assert recipe_key(plain) == recipe_key(load_recipe("smoke", ["run.redraws=0", "run.threads=2"]))
    assert recipe_key(plain) != recipe_key(load_recipe("smoke", ["run.redraws=1"]))


def test_runs_share_the_base_models_measurement_if_it_is_the_same_one() -> None:
    plain = base_key(load_recipe("smoke"))
    assert plain == base_key(load_recipe("smoke", ["grpo.learning_rate=1e-3", "run.seed=1"]))
    for other in ("task=gsm8k", "data.max_steps=2", "prompt.shots=1", "evaluation.n=5"):
        assert plain != base_key(load_recipe("smoke", [other]))


def test_the_committed_studies_describe_recipes_that_work() -> None:
    for file in (PROJECT / "notebooks" / "samples" / "study").glob("*.yaml"):
        study = load_study(file)
        for variant in study.variants:
            recipe = study.recipe_of(variant, study.seeds[0])
            assert checked_grpo(recipe) and (lora_config(recipe) is None) == (recipe.lora is None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds: [0]", "recipe: Field required"),
        ("recipe: smoke\nseeds: []\nvariants: {a: {}}", "seeds: List should have at least 1"),
        ("recipe: smoke\nseeds: [0]\nvariants: {}", "variants: Dictionary should have at least 1"),
        ("recipe: smoke\nseeds: [0]\nvariants: {a/b: {}}", "a folder, which 'a/b' cannot be"),
        ("recipe: nothing\nseeds: [0]\nvariants: {a: {}}", "variant 'a': no recipe 'nothing'"),
        ("recipe: smoke\nseeds: [0]\nvariants: {a: {evaluation.nn: 3}}", "variant 'a': .*evaluation.nn"),
        ("[1, 2", "not a readable study file"),
    ],
)
def test_a_bad_study_file_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_study(tmp_path / "study.yaml")
    assert "\n" not in str(caught.value)


def test_a_variant_that_cannot_work_is_refused_before_anything_is_run(
    study_file: Path, tmp_path: Path
) -> None:
    study_file.write_text(STUDY.replace("grpo.temperature: 1.2", "grpo.num_generations: 3"))
    with pytest.raises(UserError, match="variant 'hot': .*whole groups"):
        sweep(load_study(study_file), tmp_path / "out")
    assert not (tmp_path / "out" / "default").exists()


def test_a_run_that_fails_names_its_variant_and_loses_no_other(study_file: Path, tmp_path: Path) -> None:
    study, out = load_study(study_file), tmp_path / "out"
    done = {cell: finished(study, cell) for cell in study.cells if cell != ("hot", 0)}
    write_sweep(study, out, done)
    (out / "hot" / "seed-0").mkdir(parents=True)
    (out / "hot" / "seed-0" / "log.jsonl").touch()  # of nobody knows which run
    with pytest.raises(
        UserError, match="variant 'hot', seed 0: .*holds another run.*the same command goes on"
    ):
        sweep(study, out)
    assert finished_runs(study, out) == done


def test_the_command_shows_table_verdicts_and_where_it_was_made(study_file: Path, tmp_path: Path) -> None:
    """Everything has been run elsewhere, so nothing is trained."""
    study_file.write_text(STUDY.replace("[0, 1]", "[0, 1, 2, 3]"))
    study, out = load_study(study_file), tmp_path / "out"
    made = {"processor": "Fast", "cores": 2, "torch": "2", "trl": "1"}
    cells = {cell: finished(study, cell, **made) for cell in study.cells}
    for (variant, seed), run in cells.items():
        run |= {"gain": 0.4 + 0.01 * seed - (variant == "hot") * (0.3 + 0.002 * seed**2)}
    write_sweep(study, out, cells)
    shown = CliRunner().invoke(app, ["sweep", str(study_file), "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    assert "+41.5" in shown.stdout and "Worse than default: hot (-30.7 points)." in shown.stdout
    assert "corrected for 1 comparisons" not in shown.stdout and "8 runs, 0.1 hours" in shown.stdout
    assert all((out / "figures" / name).exists() for name in ("seeds.png", "forest.png"))
