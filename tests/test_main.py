"""The command line: what a person can put right is one line on stderr and a non-zero exit, nothing half-written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlvr_kit import UserError
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
    told = rlvr("doctor", "--json")
    assert json.loads(told.stdout)["ready"] is (told.returncode == 0)


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    """A recipe whose data and number of test problems are its own."""
    rows = [{"question": f"What is {i}+1?", "answer": f"So.\n#### {i + 1}"} for i in range(120)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    folder_with(tmp_path / "sums", lines, lines.replace("What", "Test: what"))
    text = f"model: {{name: tiny-random}}\ndata: {{source: {tmp_path / 'sums'}}}\nevaluation: {{n: 5}}\n"
    (tmp_path / "own.yaml").write_text(text + "grpo: {max_completion_length: 4}\n")
    return tmp_path / "own.yaml"


def evaluated(recipe_file: Path, *options: object) -> str:
    command = ["evaluate", "--recipe", recipe_file, "--out", recipe_file.parent / "out", *options]
    result = CliRunner().invoke(app, [str(word) for word in command])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_evaluate_measures_what_the_recipe_says_and_names_it(recipe_file: Path) -> None:
    said = evaluated(recipe_file, "--model", "tiny-random")
    assert f"tiny-random on 5 test problems of {recipe_file.parent / 'sums'}, 0 exemplars" in said
    summary = json.loads(
        evaluated(recipe_file, "--model", "tiny-random", "--n", 3, "--data", "word_problems", "--json")
    )
    assert (summary["n"], summary["data"]) == (3, "word_problems")


def test_no_evaluation_overwrites_another(recipe_file: Path) -> None:
    from rlvr_kit.models import load_policy, load_tokenizer

    models = [recipe_file.parent / run / "model" for run in ("first", "second")]
    for seed, folder in enumerate(models):
        load_policy("tiny-random", seed=seed).save_pretrained(folder)
        load_tokenizer("tiny-random").save_pretrained(folder)
    ways = [["--model", folder, *more] for folder in models for more in (
        [], ["--n", 3], ["--shots", 1], ["--max-new-tokens", 3], ["--temperature", 0.5, "--samples", 2])]  # fmt: skip
    for options in ways:
        evaluated(recipe_file, *options)
    assert len(list((recipe_file.parent / "out" / "evals").glob("*.parquet"))) == len(ways) == 10
    evaluated(recipe_file, *ways[0])  # the same again is the same
    assert len(list((recipe_file.parent / "out" / "evals").glob("*.json"))) == 10


@pytest.mark.parametrize("command", ["train", "evaluate", "notebooks"])
def test_an_empty_out_is_not_the_current_folder(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--recipe", "smoke", "--out", ""])
    assert result.exit_code == 1 and "--out is empty" in str(result.exception)


@pytest.mark.parametrize("command", ["train", "notebooks"])
def test_an_out_that_is_a_file_is_one_line(command: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = CliRunner().invoke(app, [command, "--recipe", "smoke", "--out", str(tmp_path / "file")])
    assert isinstance(result.exception, UserError) and "could not write" in str(result.exception)
    assert (tmp_path / "file").read_text() == "in the way"
