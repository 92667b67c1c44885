import errno
import json
import os
import signal
import subprocess
import sys

import pandas as pd
import pytest

from rlvr_kit import InputError, MachineError, UserError
from rlvr_kit.paths import PROJECT, project_path
from rlvr_kit.run_folder import Run, atomic, only_writer

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


@pytest.mark.parametrize("label", ["../outside", "a/b", "a\\b", ""])
def test_a_label_that_is_no_file_name_is_refused(label, tmp_path):
    run = Run(tmp_path / "run")
    for use in (
        lambda: run.save_evaluation(label, pd.DataFrame({"problem": [0]}), {}),
        lambda: run.evaluation(label),
    ):
        with pytest.raises(UserError, match="cannot be the label"):
            use()
    assert not list(tmp_path.iterdir())


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


@pytest.mark.parametrize("path", ["", "  "])
def test_an_empty_path_is_not_the_project_folder(path):
    with pytest.raises(UserError, match="empty"):
        project_path(path)


DAMAGED = {
    "log.jsonl": (lambda run: run.log(), "no line yet"),
    "recipe.yaml": (lambda run: run.recipe(), "recipe.yaml"),
    "summary.json": (lambda run: run.summary(), "is damaged"),
    "evals/base.parquet": (lambda run: run.evaluation("base"), "is damaged"),
    "evals/base.json": (lambda run: run.evaluation("base"), "is damaged"),
    "completions/completions_00001.parquet": (lambda run: run.completions(), "is damaged"),
}


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 200, b"\xff\xfe\x00junk\n"], ids=["empty", "zeros", "binary"]
)
@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_named(name, content, tmp_path):
    run = Run(tmp_path)
    run.save_evaluation("base", ROWS, {"n": 2})
    (tmp_path / "completions").mkdir()
    (tmp_path / name).write_bytes(content)
    read, said = DAMAGED[name]
    with pytest.raises(UserError, match=said) as caught:
        read(run)
    assert (tmp_path / name).name in str(caught.value) and "\n" not in str(caught.value)


def test_what_an_evaluation_had_judged_is_made_again_when_it_is_damaged(tmp_path):
    run = Run(tmp_path)
    run.save_rows("base", ROWS)
    assert len(run.rows_so_far("base")) == 2
    (tmp_path / "evals" / "base.parquet").write_bytes(b"\x00" * 100)
    assert run.rows_so_far("base") == run.rows_so_far("never") == []


def test_a_log_with_binary_lines_keeps_the_others(tmp_path):
    run = Run(tmp_path)
    run.append_log({"step": 1, "reward": 0.1})
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(b'\xff\x00\n5\n{"no": "step"}\n}\n')
    run.append_log({"step": 2, "reward": 0.2})
    assert run.log().step.tolist() == [1, 2]
    run.forget_after(1)
    assert run.log().step.tolist() == [1]


def test_a_file_in_the_way_of_a_folder_is_said_once_and_plainly(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for write in (Run(tmp_path / "file").write_summary, Run(tmp_path / "file").append_log):
        with pytest.raises(InputError, match="could not write .*file"):
            write({"step": 1})
    with pytest.raises(InputError, match="could not write"), only_writer(tmp_path / "file" / "run"):
        pass


def test_a_full_disk_is_the_machines(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(MachineError, match="free some space"):
        Run(tmp_path).write_summary({})


def test_a_second_process_is_refused_until_the_first_has_ended_even_by_a_kill(tmp_path):
    folder = tmp_path / "run"
    held = (
        "import sys; from pathlib import Path; from rlvr_kit.run_folder import only_writer\n"
        "with only_writer(Path(sys.argv[1])): print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", held, str(folder)]
    first = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "held\n"
    with pytest.raises(InputError, match="another process is training in"), only_writer(folder):
        pass
    first.send_signal(signal.SIGKILL)
    first.wait()
    with only_writer(folder):
        (folder / "kept").touch()
    assert {path.name for path in folder.iterdir()} == {".lock", "kept"}


def test_a_folder_in_which_nothing_was_written_goes_again(tmp_path):
    with pytest.raises(ValueError), only_writer(tmp_path / "new" / "run"):
        raise ValueError
    assert not (tmp_path / "new" / "run").exists()
