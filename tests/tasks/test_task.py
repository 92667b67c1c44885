"""A task as one file: the kit's own, a user's, a folder; what is wrong with one is said in a line with its place."""

import json
import subprocess
import sys
import zipfile

import pytest

from rlvr_kit import Run, Task, UserError, load_recipe, load_task
from rlvr_kit.measure.evaluation import evaluate_recipe, refuse_leaks
from rlvr_kit.paths import PROJECT
from rlvr_kit.rewards.aws_lambda import write_zip
from rlvr_kit.tasks.hostile import refuse_broken
from rlvr_kit.training.train import train

#: A task as somebody else may write it: their own format, the rows beside the file, `datasets` at the top.
SOMEBODYS = """
import csv
from pathlib import Path

from datasets import Dataset

from rlvr_kit import Verdict

INSTRUCTION = "Say which colour the thing has.\\nExample:\\n<colour>red</colour>"
FILES = ["things.csv"]
THINGS = list(csv.DictReader(open(Path(__file__).with_name("things.csv"))))


def problems(split, n, seed):
    rows = [row for i, row in enumerate(THINGS) if (i % 3 == 0) == (split == "test")]
    return Dataset.from_list([
        {"question": f"A {row['colour']} {row['thing']} stands in room {row['room']}.", "gold": row["colour"],
         "answer": f"<colour>{row['colour']}</colour>"} for row in rows[:n]
    ])


def verify(completion, gold):
    text = completion.strip()
    format_ok = text.startswith("<colour>") and text.endswith("</colour>") and text.count("<colour>") == 1
    read = text.removeprefix("<colour>").removesuffix("</colour>") if format_ok else None
    return Verdict(format_ok, read == gold, gold in text, read, "right" if read == gold else "wrong")
"""


@pytest.fixture
def somebodys(tmp_path):
    rows = [f"{colour},{thing},{room}" for colour in ("red", "blue", "green", "black") for thing in ("cup", "box")
            for room in range(12)]  # fmt: skip
    (tmp_path / "things.csv").write_text("\n".join(["colour,thing,room", *rows]))
    (tmp_path / "colours.py").write_text(SOMEBODYS)
    return tmp_path / "colours.py"


@pytest.mark.parametrize("name", ["word_problems", "orders", "sql"])
def test_each_of_the_kits_tasks_gives_rows_whose_answers_verify(name):
    task = load_task(name)
    for split in ("train", "test"):
        rows = task.problems(split, 200, 3)
        assert len(rows) == 200 and rows.to_list() == task.problems(split, 200, 3).to_list()
        assert rows.select(range(50)).to_list() == task.problems(split, 50, 3).to_list()
        for row in rows:
            verdict = task.verify(row["answer"], row["gold"])
            assert verdict.correct and verdict.format_ok and verdict.lenient_correct, (row, verdict)
    refuse_leaks(task.problems("test", 500), task.problems("train", 1000)["question"])
    refuse_broken(task, rows)


def test_a_task_file_works_in_training_and_evaluation_with_nothing_else_changed(somebodys, tmp_path):
    recipe = load_recipe("smoke", [f"task={somebodys}", "data.train_size=null"])
    run = train(recipe, tmp_path / "run")
    prompt = json.loads((run.path / "model" / "prompt.json").read_text())
    assert prompt["instruction"].startswith("Say which colour")
    assert run.recipe() == recipe.resolved() and (run.path / "task.py").read_text() == SOMEBODYS
    assert set(run.completions().why) == {"wrong"}  # its verifier judged, not that of numbers
    measured = evaluate_recipe(recipe, label="tuned", model=str(run.path / "model"), out=run)
    assert measured.summary["n"] == 12 and set(measured.rows.why) == {"wrong"}
    assert set(measured.rows.gold) <= {"red", "blue", "green", "black"}

    somebodys.write_text(SOMEBODYS.replace("stands", "lies"))
    with pytest.raises(UserError, match="before that file changed"):
        train(load_recipe("smoke", [f"task={somebodys}", "data.train_size=null"]), tmp_path / "run")


def test_a_changed_verifier_judges_anew(somebodys, tmp_path):
    recipe = load_recipe("smoke", [f"task={somebodys}", "data.train_size=null"])
    first = evaluate_recipe(recipe, label="base", out=Run(tmp_path))
    assert not first.rows.correct.any()
    somebodys.write_text(
        SOMEBODYS.replace('"right" if', '"better" if').replace("(format_ok, read", "(True, True or read")
    )
    recipe = load_recipe("smoke", [f"task={somebodys}", "data.train_size=null"])
    again = evaluate_recipe(recipe, label="base", out=Run(tmp_path))
    assert again.rows.correct.all()


def test_a_task_file_judges_in_the_lambda_with_nothing_but_the_standard_library(somebodys, tmp_path):
    with zipfile.ZipFile(write_zip(tmp_path / "reward.zip", str(somebodys))) as archive:
        archive.extractall(tmp_path / "unzipped")
    sample = {"id": "a", "messages": [{"role": "assistant", "content": "<colour>red</colour>"}]}
    samples = [sample | {"reference_answer": gold} for gold in ("red", "blue")]
    code = (
        f"import sys, json; sys.path.insert(0, {str(tmp_path / 'unzipped')!r});"
        "from rlvr_kit.rewards.aws_lambda import lambda_handler;"
        "print(json.dumps([r['aggregate_reward_score'] for r in lambda_handler(json.load(sys.stdin))]))"
    )
    run = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(run, input=json.dumps(samples), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [1.5, 0.5]


def test_what_a_lambda_lacks_is_said(tmp_path, capsys):
    write_zip(tmp_path / "reward.zip", "orders")
    assert "orders imports pydantic: add a layer" in capsys.readouterr().err
    with pytest.raises(UserError, match="no task 'nope'"):
        write_zip(tmp_path / "other.zip", "nope")
    assert not (tmp_path / "other.zip").exists()


BESIDE = """
import helper_of_mine
from rlvr_kit import Verdict
FILES = ["word.txt"]
INSTRUCTION = "Say the word."
def problems(split, n, seed):
    return [{"question": f"{split} {i}", "gold": "w", "answer": "w"} for i in range(n)]
def verify(completion, gold):
    right = completion == helper_of_mine.WORD
    return Verdict(True, right, right, completion, "")
"""


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """A task that imports a file beside it, which imports another and reads a third; it is named from elsewhere."""
    folder = tmp_path / "a folder"
    (folder / "elsewhere").mkdir(parents=True)
    (folder / "my task.py").write_text(BESIDE)
    (folder / "helper_of_mine.py").write_text("from helper_of_helper import read\nWORD = read()\n")
    (folder / "helper_of_helper.py").write_text(
        "from pathlib import Path\ndef read(): return Path(__file__).with_name('word.txt').read_text()\n"
    )
    (folder / "word.txt").write_text("w")
    (folder / "elsewhere" / "link.py").symlink_to(folder / "my task.py")
    monkeypatch.chdir(folder / "elsewhere")
    yield folder
    for name in ("helper_of_mine", "helper_of_helper"):
        sys.modules.pop(name, None)
    sys.path[:] = [path for path in sys.path if path != str(folder)]


@pytest.mark.parametrize("name", ["../my task.py", "link.py", "{folder}/my task.py"])
def test_files_beside_a_task_are_found_wherever_it_is_named(beside, name):
    task = load_task(name.format(folder=beside))
    assert task.verify("w", "w").correct
    names = {file.name for file in task.travels}
    assert names == {"my task.py", "word.txt", "helper_of_mine.py", "helper_of_helper.py"}
    before = task.digest
    (beside / "word.txt").write_text("v")
    assert task.digest != before  # so that an evaluation is made anew


def test_files_beside_a_task_are_in_the_lambda(beside, tmp_path, capsys):
    with zipfile.ZipFile(write_zip(tmp_path / "reward.zip", "../my task.py")) as archive:
        archive.extractall(tmp_path / "unzipped")
    assert "layer" not in capsys.readouterr().err
    sample = {"messages": [{"role": "assistant", "content": "w"}], "reference_answer": "w"}
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'unzipped')!r});"
        "from rlvr_kit.rewards.aws_lambda import lambda_handler;"
        f"print(lambda_handler([{sample!r}])[0]['aggregate_reward_score'])"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.stdout == "1.5\n", done.stderr


def test_score_judges_with_the_verifier_that_is_named(somebodys):
    line = json.dumps({"completion": "<colour>red</colour>", "gold": "red"})
    command = [sys.executable, "-W", "ignore", "-m", "rlvr_kit", "score", "--task", str(somebodys)]
    done = subprocess.run(command, cwd=PROJECT, input=line, capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stdout)["why"] == "right", done.stderr


def test_a_folder_in_gsm8ks_schema_is_a_task(tmp_path):
    for split in ("train", "test"):
        lines = [{"question": f"{split} {i}?", "answer": f"It is {i}.\n#### {i}"} for i in range(5)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    task = load_task(str(tmp_path))
    assert (
        task.problems("train", None)["gold"] == ["0", "1", "2", "3", "4"]
        and len(task.problems("test", 2)) == 2
    )
    assert task.verify("It is 3.\n#### 3", "3").correct and task.whole


GOOD = """
from rlvr_kit import Verdict
INSTRUCTION = "Say the word."
def problems(split, n, seed):
    return [{"question": f"{split} {i}", "gold": "w", "answer": "w"} for i in range(n)]
def verify(completion, gold):
    return Verdict(True, completion == gold, completion == gold, completion, "")
"""


def written(tmp_path, text) -> Task:
    (tmp_path / "mine.py").write_text(text)
    return load_task(str(tmp_path / "mine.py"))


@pytest.mark.parametrize(
    "text, said",
    [
        ("import nothing_of_that_name", "mine.py, line 1: .*ModuleNotFoundError.*nothing_of_that_name"),
        ("x = 1\ny = x +", "mine.py, line 2: invalid syntax"),
        ("x = [1][3]", "mine.py, line 1: .*IndexError"),
        (GOOD.replace("INSTRUCTION", "INSTRUCTIONS"), "mine.py has no INSTRUCTION that is a text"),
        (GOOD.replace("def verify", "def judge"), "mine.py has no verify that is a function"),
        (
            GOOD.replace("def problems", "problems = 3\ndef rows"),
            "mine.py has no problems that is a function",
        ),
        ("import sys\nsys.exit(0)", "mine.py, line 2: .*SystemExit: 0"),
        ("raise ValueError('one\\ntwo')", "mine.py, line 1: .*ValueError: one two"),
        ("x = 1\0", "mine.py: source code string cannot contain null bytes"),
        (GOOD + "FILES = 'rows.csv'", "FILES is a list of names"),
        (GOOD + "FILES = ['rows.csv']", "FILES names rows.csv, and there is no such file"),
    ],
)
def test_a_file_that_is_no_task_is_named_with_its_line(tmp_path, text, said):
    with pytest.raises(UserError, match=said) as caught:
        written(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change, said",
    [
        (
            ('"gold": "w"', '"golds": "w"'),
            "mine.py: row 0 of problems.'train', 9, 0., .* has no text 'gold'",
        ),
        (('"gold": "w"', '"gold": "" if i == 3 else "w"'), "row 3 .* has no text 'gold'"),
        (('"gold": "w"', '"gold": 18'), "row 0 .* has no text 'gold'"),
        (("range(n)", "range(0)"), "gave no row"),
        (
            ('"question":', '"x": i if i else "a", "question":'),
            "make no table: give a column values of one kind",
        ),
        (("return [{", "raise SystemExit(3)\n    [{"), r"problems.* raised SystemExit in line 5 \(3\)"),
        (("return [{", "return n['x'] + [{"), r"problems\('train', 9, 0\) raised TypeError in line 5"),
    ],
)
def test_rows_that_cannot_be_used_are_named(tmp_path, change, said):
    with pytest.raises(UserError, match=said):
        written(tmp_path, GOOD.replace(*change)).problems("train", 9)


@pytest.mark.parametrize(
    "change, said",
    [
        (("Verdict(", "Verdict(1 / len(completion), "), "verify raised .*Error in line 7"),
        (("Verdict(True", "int(completion) or Verdict(True"), "verify raised ValueError in line 7"),
        (
            ("return Verdict(", "return ("),
            "returned .* not a Verdict",
        ),
        (
            ('completion, "")', 'completion, "unreadable gold: of no use")'),
            "training row 0, .*unreadable gold",
        ),
        (('"answer": "w"', '"answer": "v"'), "answer of training row 0, .*'train [0-9]+', does not verify"),
        (
            ("    return Verdict(", "    if not completion: exit(1)\n    return Verdict("),
            "verify raised SystemExit",
        ),
        (("Verdict(True", "Verdict(None"), "a Verdict with format_ok=None .* it must be True or False"),
        (
            ("completion == gold, completion, ", "False, len(completion), "),
            "with extracted=0 .* a text or None",
        ),
        (('completion, "")', "completion, None)"), "a Verdict with why=None .* it must be a text"),
    ],
)
def test_a_verifier_that_fails_is_named_before_anything_is_trained(tmp_path, change, said):
    written(tmp_path, GOOD.replace(*change))
    recipe = load_recipe("smoke", [f"task={tmp_path / 'mine.py'}"])
    with pytest.raises(UserError, match=said):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rows_beyond_those_asked_for_are_left_out(tmp_path):
    task = written(tmp_path, GOOD.replace("range(n)", "itertools.count()").replace("return [", "return (").replace(
        "i in itertools.count()]", "i in itertools.count())") + "import itertools\n")  # fmt: skip
    assert task.problems("train", 7)["question"] == [f"train {i}" for i in range(7)]


def test_a_file_that_changed_within_the_second_is_read_again(tmp_path):
    for word in ("u", "v", "w"):
        assert written(tmp_path, GOOD.replace("the word", word)).instruction == f"Say {word}."
    assert not (tmp_path / "__pycache__").exists()


def test_an_unknown_task_names_the_known_ones():
    with pytest.raises(UserError, match="no task 'order': the tasks are gsm8k, word_problems, orders, sql"):
        load_task("order")


def test_a_sum_and_a_difference_are_not_one_question():
    from datasets import Dataset

    asked = Dataset.from_list([{"question": "What is 7 + 3?"}])
    refuse_leaks(asked, ["What is 7 - 3?", "What is 73?"])
    with pytest.raises(UserError, match="also an exemplar or a training row"):
        refuse_leaks(asked, ["what is 7  + 3"])


def test_recipes_of_earlier_times_still_name_their_task():
    assert load_recipe("smoke", ["data.source=gsm8k"]).task == "gsm8k"
    for sample in ("collapsed", "cpu", "failed", "hacked", "truncated"):
        assert load_recipe(PROJECT / "notebooks" / "samples" / sample / "recipe.yaml").task == "word_problems"
