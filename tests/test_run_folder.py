import errno
import json
import os

import pandas as pd
import pytest

from rlvr_kit import UserError
from rlvr_kit.paths import PROJECT, project_path
from rlvr_kit.run_folder import Run, atomic

ROWS = pd.DataFrame({"problem": [0, 1], "sample": [0, 0], "extracted": ["3", None], "correct": [True, False]})


def test_relative_paths_belong_to_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert project_path("runs/x") == PROJECT / "runs" / "x"
    assert project_path(tmp_path) == tmp_path


def test_a_log_is_read_as_it_was_written(tmp_path):
    run = Run(tmp_path / "new" / "run")
    run.append_log({"step": 0, "heldout/strict": 0.05, "heldout/strict_ci": [0.02, 0.1]})
    run.append_log({"step": 1, "reward": 0.5, "kl": float("nan"), "grad_norm": float("inf")})
    log = run.log()
    assert list(log.step) == [0, 1]
    assert log["heldout/strict_ci"][0] == [0.02, 0.1]
    assert log.reward.isna().tolist() == [True, False]
    assert [json.loads(line) for line in (run.path / "log.jsonl").open()][1]["grad_norm"] is None


def test_a_resumed_run_overwrites_the_steps_it_repeats(tmp_path):
    run = Run(tmp_path)
    for step, reward in [(1, 0.1), (2, 0.2), (3, 0.3), (2, 0.9), (3, 1.0)]:
        run.append_log({"step": step, "reward": reward})
    run.append_log({"step": 3, "heldout/strict": 0.4})
    assert run.log().reward.tolist() == [0.1, 0.9, 1.0]
    assert run.log()["heldout/strict"].tolist()[2] == 0.4


def test_the_half_line_of_a_killed_run_costs_no_other_line(tmp_path):
    run = Run(tmp_path)
    run.append_log({"step": 1, "reward": 0.1})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 2, "rew')
    assert run.log().step.tolist() == [1]
    run.append_log({"step": 2, "reward": 0.2})
    assert run.log().reward.tolist() == [0.1, 0.2]


def test_an_evaluation_is_read_as_it_was_written(tmp_path):
    run = Run(tmp_path)
    run.save_evaluation("base", ROWS, {"n": 2, "strict": 0.5})
    rows, summary = run.evaluation("base")
    pd.testing.assert_frame_equal(rows, ROWS)
    assert summary == {"n": 2, "strict": 0.5}
    run.save_rows("base", ROWS[:1])  # under way again: no summary claims it is complete
    with pytest.raises(UserError, match="no evaluation 'base'"):
        run.evaluation("base")


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    run = Run(tmp_path)
    run.write_summary({"strict": 0.4})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"summary\.json: No space left on device"):
        run.write_summary({"strict": 0.9})
    assert run.summary() == {"strict": 0.4}
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]


def test_an_interrupted_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic(tmp_path / "a.txt") as draft:
        draft.write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_completions_come_in_the_order_of_the_steps(tmp_path):
    (tmp_path / "completions").mkdir()
    for step in (2, 10, 1):
        table = pd.DataFrame({"step": [step], "completion": [f"at {step}"]})
        table.to_parquet(tmp_path / "completions" / f"completions_{step:05d}.parquet")
    assert Run(tmp_path).completions().step.tolist() == [1, 2, 10]


@pytest.mark.parametrize(
    "read", ["log", "completions", "summary", "recipe", lambda run: run.evaluation("tuned")]
)
def test_what_is_not_there_is_named(tmp_path, read):
    run = Run(tmp_path)
    run.save_evaluation("base", ROWS, {})
    with pytest.raises(UserError, match=r"holds no .*"):
        read(run) if callable(read) else getattr(run, read)()


def test_an_empty_log_says_so(tmp_path):
    (tmp_path / "log.jsonl").touch()
    with pytest.raises(UserError, match="no line yet"):
        Run(tmp_path).log()
