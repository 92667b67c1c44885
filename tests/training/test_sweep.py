"""A study runs what is missing, in a fair order, and says what all its seeds say."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlvr_kit import UserError
from rlvr_kit.paths import PROJECT
from rlvr_kit.training.study import load_study
from rlvr_kit.training.sweep import sweep

STUDY = """
recipe: smoke
seeds: [0, 1]
variants:
  default: {grpo.max_steps: 2, evaluation.n: 4, evaluation.heldout: 4, data.train_size: 8}
  hot: {grpo.max_steps: 2, evaluation.n: 4, evaluation.heldout: 4, data.train_size: 8, grpo.temperature: 1.2}
"""


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY)
    return file


def test_a_killed_study_goes_on_and_ends_as_if_it_had_not_been(study_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rlvr_kit", "sweep", str(study_file), "--out", str(tmp_path / "out")]
    killed = subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    first = tmp_path / "out" / "default" / "seed-0" / "result.json"
    while not first.exists():
        assert killed.poll() is None
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    finished = first.stat().st_mtime_ns
    done = sweep(load_study(study_file), tmp_path / "out")
    assert first.stat().st_mtime_ns == finished  # what had finished was not run again
    assert [(run["variant"], run["seed"]) for run in done["runs"]] == [
        ("default", 0), ("default", 1), ("hot", 0), ("hot", 1),
    ]  # fmt: skip
    assert done["variants"]["hot"]["seeds"] == 2 and done["machines"][0]["cores"] >= 1
    assert json.loads((tmp_path / "out" / "sweep.json").read_text()) == json.loads(json.dumps(done))
    begun = {f"{run['variant']} {run['seed']}": 0.0 for run in done["runs"]}
    for name in begun:
        variant, seed = name.split()
        begun[name] = (tmp_path / "out" / variant / f"seed-{seed}" / "recipe.yaml").stat().st_mtime
    assert max(begun["default 0"], begun["hot 0"]) <= min(begun["default 1"], begun["hot 1"])


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


def test_a_run_that_cannot_work_names_its_variant(study_file: Path, tmp_path: Path) -> None:
    study_file.write_text(STUDY.replace("grpo.temperature: 1.2", "grpo.num_generations: 3"))
    with pytest.raises(UserError, match="variant 'hot', seed 0: .*whole groups.*the same command goes on"):
        sweep(load_study(study_file), tmp_path / "out")
    assert (tmp_path / "out" / "default" / "seed-0" / "result.json").exists()
