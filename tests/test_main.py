"""The command line: what a person can put right is one line on stderr and a non-zero exit, nothing half-written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlvr_kit.__main__ import app
from rlvr_kit.paths import PROJECT


def rlvr(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "rlvr_kit", *map(str, arguments)]
    return subprocess.run(command, cwd=PROJECT, input=stdin, capture_output=True, text=True)


def folder_with(path: Path, train: str | None, test: str = "") -> Path:
    path.mkdir()
    if train is not None:
        (path / "train.jsonl").write_text(train)
    (path / "test.jsonl").write_text(test or '{"question": "q?", "answer": "a\\n#### 1"}\n')
    return path


GOOD = '{"question": "What is 1+1?", "answer": "It is 2.\\n#### 2"}\n'


@pytest.mark.parametrize(
    "case, said",
    [
        ("unknown recipe", "no recipe 'nope'"),
        ("unknown key", "evaluation.samples"),
        ("missing file", "train.jsonl"),
        ("broken line", "line 2"),
        ("bad gold", "####"),
        ("no model", "not a model folder"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(case: str, said: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = {
        "unknown recipe": ["--recipe", "nope"],
        "unknown key": ["--set", "evaluation.samples=3"],
        "missing file": ["--set", f"data.source={folder_with(tmp_path / 'a', None)}"],
        "broken line": ["--set", f"data.source={folder_with(tmp_path / 'b', GOOD + '{oops')}"],
        "bad gold": [
            "--set",
            f"data.source={folder_with(tmp_path / 'c', GOOD.replace('#### 2', '#### two'))}",
        ],
        "no model": ["--set", f"model.name={tmp_path}"],
    }[case]
    result = rlvr("train", "--recipe", "smoke", "--out", out, *arguments)
    assert result.returncode == 1
    assert said in result.stderr and "Traceback" not in result.stderr
    assert [line for line in result.stderr.splitlines() if line.startswith("error:")] == [
        result.stderr.splitlines()[-1]
    ]
    assert not out.exists()


def test_evaluate_prints_json_with_n_and_intervals(tmp_path: Path) -> None:
    arguments = [
        "--model",
        "tiny-random",
        "--recipe",
        "smoke",
        "--shots",
        2,
        "--n",
        6,
        "--json",
        "--out",
        tmp_path,
    ]
    result = rlvr("evaluate", *arguments)
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert (
        summary["n"] == 6
        and summary["shots"] == 2
        and len(summary["strict_ci"]) == 2
        and summary["seconds"] > 0
    )
    assert {"lenient", "format", "truncated"} <= set(summary)
    assert len(list((tmp_path / "evals").glob("*.parquet"))) == 1


def test_score_reads_stdin() -> None:
    result = rlvr("score", stdin='{"completion": "9 * 2 = 18\\n#### 18", "gold": "18"}\n')
    assert result.returncode == 0 and json.loads(result.stdout)["correct"] is True
    assert "n=1" in result.stderr


@pytest.mark.parametrize(
    "options, timed", [([], True), (["--no-measure"], False), (["--gpu-memory", "24"], False)]
)
def test_plan_times_a_step_on_this_machine_unless_told_otherwise(options: list, timed: bool) -> None:
    result = CliRunner().invoke(app, ["plan", "--recipe", "smoke", "--json", *options])
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    assert (made["minutes"] is not None and made["seconds"]["sampling"] > 0) == timed
    assert ("timing a training step" in result.stderr) == timed


def test_doctor_speaks_of_this_machine() -> None:
    result = rlvr("doctor")
    assert result.returncode == 0 and "memory" in result.stdout.lower()


def test_export_and_push_say_in_one_line_what_is_missing(tmp_path: Path) -> None:
    for arguments, said in (
        (["export", tmp_path / "none", "--out", tmp_path / "out"], "holds no recipe.yaml"),
        (["push", tmp_path, "me/model"], "is no exported model"),
    ):
        result = rlvr(*arguments)
        assert result.returncode == 1 and said in result.stderr and "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []
