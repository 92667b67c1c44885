"""Training: the run folder, going on after a stop or a kill, and errors that leave nothing half-written."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from rlvr_kit import UserError
from rlvr_kit.measure.evaluation import evaluate
from rlvr_kit.models import load_policy, load_tokenizer
from rlvr_kit.paths import PROJECT
from rlvr_kit.recipe import load_recipe
from rlvr_kit.run_folder import Run
from rlvr_kit.tasks.prompts import Template
from rlvr_kit.training import train as training
from rlvr_kit.training.resume import checkpoints
from rlvr_kit.training.train import train

#: A model with random weights never earns a reward; the entropy bonus makes its weights move all the same.
MOVES = "grpo.entropy_coef=0.05"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(load_recipe("smoke", [MOVES]), tmp_path_factory.mktemp("runs") / "whole")


def test_the_run_folder_is_complete(run: Run) -> None:
    assert run.recipe() == load_recipe("smoke", [MOVES]).resolved()
    log = run.log()
    assert log.step.tolist() == [0, 1, 2, 3, 4] and log.completions.tolist() == [0, 8, 16, 24, 32]
    assert log["heldout/n"].dropna().tolist() == [8, 8, 8]
    for key in ("reward", "rewards/format", "rewards/correct", "length", "truncated", "entropy", "equal_groups", "loss",
                "grad_norm", "learning_rate", "seconds"):  # fmt: skip
        assert log[key].iloc[1:].notna().all(), key
    written = run.completions()
    assert len(written) == 32 and {"prompt", "completion", "format", "correct", "extracted", "why"} <= set(
        written
    )
    assert run.summary()["steps"] == 4 and run.summary()["peak_memory_gib"] > 0


@pytest.mark.parametrize("reuse", ["num_iterations", "steps_per_generation"])
def test_completions_may_be_used_for_two_steps(reuse: str, tmp_path: Path) -> None:
    """At every second step nothing is sampled, so TRL logs neither reward nor length."""
    short = ["grpo.max_steps=6", "evaluation.heldout=4", "evaluation.every_steps=100"]
    log = train(load_recipe("smoke", [MOVES, f"grpo.{reuse}=2", *short]), tmp_path / "run").log()
    assert log.step.tolist() == list(range(7))
    assert log.loss[1:].notna().all() and log.entropy[1:].notna().all()
    assert log.reward[1:].notna().tolist() == log.length[1:].notna().tolist() == [True, False] * 3
    each = 8 if reuse == "num_iterations" else 16  # steps_per_generation samples for two steps at once
    assert log.completions.tolist() == [0, *(each * (1 + step // 2) for step in range(6))]


def test_what_is_drawn_again_is_counted_also_by_a_run_that_goes_on(tmp_path: Path) -> None:
    """A model with random weights earns nothing, so every group is drawn twice more."""

    def fail(run: Run) -> None:
        if run.lines()[-1]["step"] == 3:
            raise ZeroDivisionError

    recipe = load_recipe("smoke", [MOVES, "run.redraws=2"])
    whole, resumed = train(recipe, tmp_path / "whole"), tmp_path / "resumed"
    with pytest.raises(ZeroDivisionError):
        train(recipe, resumed, live=fail)
    assert whole.log().completions.tolist() == [0, 24, 48, 72, 96]
    pd.testing.assert_frame_equal(comparable(train(recipe, resumed)), comparable(whole))


def test_the_model_loads_in_transformers_and_is_what_the_last_heldout_line_measured(run: Run) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(run.path / "model")
    recipe = run.recipe()
    result = evaluate(
        model, load_tokenizer(str(run.path / "model")), recipe.heldout_problems(), recipe.template(),
        label="again", sampling=recipe.sampling, quiet=True,
    )  # fmt: skip
    last = run.log().iloc[-1]
    assert result.summary["truncated"] == last["heldout/truncated"]
    assert result.summary["lenient"] == last["heldout/lenient"]


def test_a_finished_run_is_left_alone(run: Run) -> None:
    before = (run.path / "log.jsonl").read_bytes()
    assert train(load_recipe("smoke", [MOVES]), run.path).path == run.path
    assert (run.path / "log.jsonl").read_bytes() == before


def test_a_folder_that_holds_another_run_is_refused_untouched(run: Run) -> None:
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="holds another run.*grpo"):
        train(load_recipe("smoke", ["grpo.learning_rate=1e-5"]), run.path)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def comparable(run: Run) -> pd.DataFrame:
    return run.log().drop(columns="seconds")


@pytest.mark.parametrize("kill_after", [1, 2, 3])
def test_killed_and_started_again_it_ends_like_an_uninterrupted_run(
    run: Run, tmp_path: Path, kill_after: int
) -> None:
    folder = tmp_path / "killed"
    command = [sys.executable, "-W", "ignore", "-m", "rlvr_kit", "train", "--recipe", "smoke", "--set", MOVES]
    command += ["--out", str(folder)]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if f'"step": {kill_after},' in line:
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    half = folder / "checkpoints" / ".partial" / "checkpoint-9"
    half.mkdir(parents=True, exist_ok=True)  # as if it had been killed while it was saving
    (half / "trainer_state.json").write_text("{")
    resumed = train(load_recipe("smoke", [MOVES]), folder)
    pd.testing.assert_frame_equal(comparable(resumed), comparable(run))
    ours, theirs = (load_file(r.path / "model" / "model.safetensors") for r in (resumed, run))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    start = load_policy("tiny-random").state_dict()
    assert any(not torch.equal(theirs[name], start[name]) for name in theirs)
    assert sorted(resumed.completions().step) == sorted(run.completions().step)


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(file.read_bytes()[:-1])])
def test_a_checkpoint_that_came_back_in_part_is_passed_over(run: Run, tmp_path: Path, damage: Any) -> None:
    folder = shutil.copytree(run.path, tmp_path / "fetched", ignore=shutil.ignore_patterns("model"))
    before, last = checkpoints(folder)
    damage(next(last.glob("*.safetensors")))
    assert checkpoints(folder) == [before]
    resumed = train(load_recipe("smoke", [MOVES]), folder)
    pd.testing.assert_frame_equal(comparable(resumed), comparable(run))
    assert checkpoints(folder) == [before, last]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_writes_a_checkpoint_and_says_how_to_go_on(
    run: Run, tmp_path: Path, number: int
) -> None:
    recipe = load_recipe("smoke", ["run.save_steps=1000"])

    def stop(seen: Run) -> None:
        if seen.log().step.iloc[-1] == 1:
            os.kill(os.getpid(), number)

    with pytest.raises(training.Interrupted, match="goes on from there") as caught:
        train(recipe, tmp_path / "stopped", live=stop)
    assert caught.value.exit_code == 128 + number
    assert len(checkpoints(tmp_path / "stopped")) == 1 and not (tmp_path / "stopped" / "model").exists()
    assert len(train(recipe, tmp_path / "stopped").log()) == 5


def test_a_time_budget_ends_the_run_in_good_order(tmp_path: Path) -> None:
    run = train(load_recipe("smoke", ["run.max_minutes=0.0001"]), tmp_path / "short")
    assert run.summary()["steps"] == 1 and "time budget" in run.summary()["stopped_by"]
    assert load_policy(str(run.path / "model")) is not None


def test_a_full_disk_is_one_clear_line_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    folder = tmp_path / "full"
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="No space left on device.*go on"):
        train(load_recipe("smoke"), folder)
    left = {path.name.partition("-")[0] for path in (folder / "checkpoints").iterdir()}
    assert left == {"best"} and not (folder / "model").exists()  # weights set aside whole, and no checkpoint
    monkeypatch.undo()
    assert len(train(load_recipe("smoke"), folder).log()) == 5


def test_a_test_question_in_the_training_rows_is_refused(tmp_path: Path) -> None:
    rows = [
        {"question": f"What is {i}+1?", "answer": f"It is {i}+1={i + 1}.\n#### {i + 1}"} for i in range(60)
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "test.jsonl").write_text(json.dumps(rows[50]) + "\n")
    recipe = load_recipe("smoke", [f"data.source={tmp_path}", "data.train_size=null"])
    with pytest.raises(UserError, match="tests nothing"):
        train(recipe, tmp_path / "leak")
    assert not (tmp_path / "leak").exists()


def test_what_cannot_work_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "load_policy", None)
    with pytest.raises(UserError, match="6 completions .* not whole groups of 4: make it 8"):
        train(load_recipe("smoke", ["grpo.per_device_train_batch_size=6"]), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_training_samples_up_to_the_stop_strings_of_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Template, "stop", list("abcdefghijklmnopqrstuvwxyz"))
    run = train(load_recipe("smoke", ["grpo.max_steps=1"]), tmp_path / "stops")
    texts = run.completions().completion
    assert texts.str.len().max() > 1 and not texts.str.contains("(?s)^.+[a-z]").any()


def test_training_says_nothing_that_a_reader_cannot_change(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rlvr_kit", "train", "--recipe", "smoke", "--set", "grpo.max_steps=1"]
    result = subprocess.run(
        [*command, "--out", str(tmp_path / "quiet")], cwd=PROJECT, capture_output=True, text=True
    )
    assert result.returncode == 0 and "Warning" not in result.stderr and "shards" not in result.stderr


def test_stock_trl_and_the_shared_prefix_write_the_same_kind_of_run(run: Run, tmp_path: Path) -> None:
    stock = train(load_recipe("smoke", [MOVES, "run.shared_prefix=false"]), tmp_path / "stock")
    assert set(stock.log().columns) == set(run.log().columns)
    assert stock.log().step.tolist() == run.log().step.tolist()


def test_other_rewards_can_be_given(tmp_path: Path) -> None:
    def longer(completions: list, **_: object) -> list[float]:
        return [float(len(c)) for c in completions]

    log = train(load_recipe("smoke", ["grpo.max_steps=1"]), tmp_path / "other", rewards=[longer]).log()
    assert [column for column in log if column.startswith("rewards/")] == ["rewards/longer"]
    assert log["reward"].iloc[-1] == log["rewards/longer"].iloc[-1] > 0
