"""The adapter to reasoning-gym, over a small package of that name: the real one is an optional extra."""

import json
import sys
from types import ModuleType

import pytest

from rlvr_kit import UserError, audit, load_recipe, load_task
from rlvr_kit.tasks.reasoning_gym import RUN_THE_TEXT


class Sums:
    """As chain_sum scores: in full, or 0.01 for any other answer."""

    def __init__(self, seed, size, terms=2):
        self.seed, self.terms = seed, terms

    def __getitem__(self, index):
        number = self.seed * 1000 + index
        return {
            "question": f"{number} + {self.terms} = ?",
            "answer": str(number + self.terms),
            "metadata": {},
        }

    def score_answer(self, answer, entry):
        if "boom" in answer:
            raise KeyError("a scorer may fail")
        return 1.0 if answer == entry["answer"] else 0.01


class Runs(Sums):
    def score_answer(self, answer, entry):
        return float(eval(answer) == entry["answer"])


@pytest.fixture(autouse=True)
def gym(monkeypatch):
    def create_dataset(name, seed, size, **settings):
        if name not in ("sums", "runs"):
            raise ValueError(f"Dataset '{name}' not registered")
        return (Sums if name == "sums" else Runs)(seed, size, **settings)

    module = ModuleType("reasoning_gym")
    module.create_dataset = create_dataset
    monkeypatch.setitem(sys.modules, "reasoning_gym", module)


def test_its_rows_verify_and_the_audit_passes_them():
    page = audit(load_recipe("smoke", ["task=reasoning_gym:sums"]), model=False, progress=lambda _: None)
    assert not page.wrong, page.verdict


def test_only_a_full_score_is_correct_and_a_part_of_it_is_a_metric():
    task = load_task("reasoning_gym:sums")
    row = task.problems("train", 1, 3)[0]
    answer = json.loads(row["gold"])["answer"]
    right = task.verify(f"I add.\n<answer> {answer} </answer>", row["gold"])
    assert (right.format_ok, right.correct, right.partial) == (True, True, 1.0)
    wrong = task.verify("<answer>7</answer>", row["gold"])
    assert (wrong.format_ok, wrong.correct, wrong.partial) == (True, False, 0.01)
    bare = task.verify(f"It is\nAnswer: {answer}", row["gold"])
    assert (bare.format_ok, bare.correct, bare.lenient_correct) == (False, False, True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<answer></answer>",
        "<answer>A",
        "A</answer>",
        "<answer>A</answer> more",
        "<answer>B</answer><answer>A</answer>",
        "<answer><answer>A</answer></answer>",
        "<answer>boom</answer>",
        "</answer>A<answer>",
        "<answer>A</answer>" * 99,
    ],
)
def test_anything_else_is_paid_nothing_and_raises_nothing(text):
    task = load_task("reasoning_gym:sums")
    row = task.problems("train", 1, 3)[0]
    verdict = task.verify(text.replace("A", json.loads(row["gold"])["answer"]), row["gold"])
    assert not verdict.correct


@pytest.mark.parametrize("name", ["countdown", "runs"])
def test_a_dataset_whose_scorer_runs_the_text_is_refused(name):
    with pytest.raises(UserError, match=f"reasoning_gym:{name} is refused"):
        load_task(f"reasoning_gym:{name}")
    assert {"countdown", "puzzle24", "n_queens"} <= RUN_THE_TEXT


def test_an_unknown_dataset_and_a_missing_package_are_named(monkeypatch):
    with pytest.raises(UserError, match="no dataset 'nope'"):
        load_task("reasoning_gym:nope")
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(UserError, match="pip install -e"):
        load_task("reasoning_gym:sums")


def test_other_settings_are_a_file_of_five_lines(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from rlvr_kit.tasks.reasoning_gym import gym_task\n"
        "task = gym_task('sums', terms=5)\n"
        "INSTRUCTION, problems, verify = task.INSTRUCTION, task.problems, task.verify\n"
    )
    rows = load_task(str(tmp_path / "mine.py")).problems("test", 5, 0)
    assert all(" + 5 = ?" in row["question"] for row in rows)
