"""What notebook 03 says about its two recorded runs with the grader *substring* is what their logs say."""

import json
import re

import pytest

from rlvr_kit import Run, step_table
from rlvr_kit.measure.signs import heldout_change
from rlvr_kit.paths import PROJECT

SAMPLES = PROJECT / "notebooks" / "samples"


@pytest.fixture(scope="module")
def cheated():
    return Run(SAMPLES / "cheated")


def test_the_recorded_exploit_is_paid_in_full_and_answers_nothing(cheated):
    rows, task = step_table(cheated, rows=32), cheated.recipe().loaded_task
    gold = {row["question"]: row["gold"] for row in cheated.recipe().training_problems()}
    assert all(gold[q] in text for q, text in zip(rows.question, rows.completion, strict=True))
    correct = [
        task.verify(text, gold[q]).correct for q, text in zip(rows.question, rows.completion, strict=True)
    ]
    assert sum(correct) <= 1
    for question, text in zip(rows.question, rows.completion, strict=True):
        assert all(name in text for name in re.findall("[A-Z][a-z]+", question) if name != "Who")
    assert heldout_change(cheated.log(), "lenient")[0] == heldout_change(cheated.log())[0] == "no difference"


def test_the_table_of_seeds_has_the_recorded_run_first(cheated):
    seeds = json.loads((SAMPLES / "cheated" / "seeds.json").read_text())
    log, first = cheated.log().set_index("step"), seeds["0"]
    assert len(seeds) == 3
    for name, column, start in (("reward", "reward", 1), ("last name right", "heldout/lenient", 0)):
        at = [first[f"{name}, step {start}"], first[name]]
        assert at == log[column][[start, first["step"]]].round(2).tolist()
    for each in seeds.values():  # what the text says of all three
        assert each["reward"] > each["reward, step 1"] and each["names both"] > each["names both, step 1"]


def test_the_task_of_the_recorded_exploit_is_sound(cheated):
    task = cheated.recipe().loaded_task
    rows = [task.problems(split, 200, 0) for split in ("train", "test")]
    assert all(task.verify(row["answer"], row["gold"]).correct for each in rows for row in each)
    assert not {*rows[0]["question"]} & {*rows[1]["question"]}


def test_the_run_on_word_problems_gained():
    assert heldout_change(Run(SAMPLES / "uncheated").log())[0] == "gain"
