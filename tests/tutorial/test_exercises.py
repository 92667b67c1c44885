"""Every exercise: its solution passes, its empty copy is marked so, and each known mistake is called by its name."""

import ast

import nbformat
import pytest
from right_answers import RIGHT_ANSWERS
from wrong_00_05 import WRONG as WRONG_00_05
from wrong_06_11 import WRONG as WRONG_06_11
from wrong_12 import WRONG as WRONG_12

from rlvr_kit.errors import InputError
from rlvr_kit.paths import PROJECT
from rlvr_kit.tutorial.exercises import (
    NOT_DONE,
    RIGHT,
    WRONG,
    Wrong,
    check,
    first_difference,
    predict,
    reveal,
    run,
)
from rlvr_kit.tutorial.workshop import STUB, make_workshop, replace_solution, student_copy

NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))


def tagged(cell, tag):
    return tag in cell.metadata.get("tags", [])


def exercises():
    """(notebook, name of the check, source of the exercise, source of the check), of all notebooks."""
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        for cell, after in zip(cells, cells[1:], strict=False):
            if tagged(cell, "exercise"):
                assert tagged(after, "check"), f"{path.stem}: no check follows {cell.id}"
                calls = [n for n in ast.walk(ast.parse(after.source)) if isinstance(n, ast.Call)]
                [name] = {c.func.id for c in calls if getattr(c.func, "id", "").startswith("check_")}
                yield path.stem, name.removeprefix("check_"), cell.source, after.source


EXERCISES = {(notebook, name): (source, after) for notebook, name, source, after in exercises()}
KNOWN_MISTAKES = [*WRONG_00_05, *WRONG_06_11, *WRONG_12]


def mark(capsys, code, after):
    """What the check says about an exercise with this code; the two cells run by themselves."""
    names = {"__name__": "__main__"}
    exec(compile(code, "<exercise>", "exec"), names)
    capsys.readouterr()  # what the exercise itself prints
    exec(compile(after, "<check>", "exec"), names)
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("exercise", EXERCISES, ids="-".join)
def test_solution_passes_and_empty_exercise_is_not_done(exercise, capsys):
    source, after = EXERCISES[exercise]
    assert mark(capsys, source, after).startswith(RIGHT)
    assert mark(capsys, replace_solution(source), after).startswith(NOT_DONE)


@pytest.mark.parametrize("notebook,name,code,words", KNOWN_MISTAKES)
def test_mistake_is_called_by_its_name(notebook, name, code, words, capsys):
    source, after = EXERCISES[notebook, name]
    said = mark(capsys, replace_solution(source, code), after)
    assert said.startswith(WRONG)
    assert words.lower() in said.lower()


@pytest.mark.parametrize("notebook,name,code", RIGHT_ANSWERS)
def test_other_right_answers_pass(notebook, name, code, capsys):
    source, after = EXERCISES[notebook, name]
    assert mark(capsys, replace_solution(source, code), after).startswith(RIGHT)


@pytest.mark.parametrize("exercise", EXERCISES, ids="-".join)
def test_every_exercise_has_known_mistakes(exercise):
    assert sum(row[:2] == exercise for row in KNOWN_MISTAKES) >= 3


@pytest.mark.parametrize("exercise", EXERCISES, ids="-".join)
def test_static_no_name_is_lost_without_the_solution(exercise):
    def names(source):
        nodes = ast.parse(source).body
        return {n for node in nodes for n in _bound(node)}

    def _bound(node):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            return [node.name]
        return [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]

    source, _ = EXERCISES[exercise]
    assert names(replace_solution(source)) == names(source)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_static_every_notebook_has_two_or_three_exercises(path):
    here = [name for notebook, name in EXERCISES if notebook == path.stem]
    assert len(here) == 1 if path.stem.startswith("00") else 2 <= len(here) <= 3


@pytest.mark.parametrize("number", ["01", "02", "03", "04", "05"])
def test_static_a_prediction_is_asked_for_before_it_is_answered(number):
    [path] = (PROJECT / "notebooks").glob(f"{number}_*.ipynb")
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells]
    asked, answered = (
        [i for i, text in enumerate(cells) if f"{name}(" in text] for name in ("= predict", "reveal")
    )
    assert asked and len(asked) <= len(answered) and min(asked) < min(answered)


@check
def check_double(answer):
    found = first_difference(
        answer, lambda x: 2 * x, [(0,), (2,), (5,)], {"that is the square": lambda x: x * x}
    )
    if found:
        raise Wrong(f"the double of {found[0][0]} is {found[2]}, not {found[1]}")
    return "twice 5 is 10"


@pytest.mark.parametrize(
    "answer, said",
    [
        (lambda x: x + x, f"{RIGHT} twice 5 is 10"),
        (lambda x: x * x, f"{WRONG} that is the square"),
        (lambda x: 2 * x + 1, f"{WRONG} the double of 0 is 0, not 1"),
        (lambda x: None, "returns nothing (None)"),
        (lambda x: 1 / x, "for 0 your function stops with ZeroDivisionError"),
        (lambda x: ..., NOT_DONE),
        (..., NOT_DONE),
        (7, "this should be a function, and it is 7"),
    ],
)
def test_check_prints_one_of_three_marks(answer, said, capsys):
    assert check_double(answer) is None
    assert said in capsys.readouterr().out


def test_an_answer_that_does_not_end_is_stopped(monkeypatch):
    def endless(x):
        while True:
            x += 1

    monkeypatch.setattr("rlvr_kit.tutorial.exercises.PATIENCE", 0.2)
    with pytest.raises(Wrong, match="no answer after 0.2 seconds"):
        run(endless, 1)


def test_an_answer_cannot_change_the_inputs_of_the_check():
    given = [3, 1, 2]
    assert run(lambda xs: xs.sort() or xs, given) == [1, 2, 3] and given == [3, 1, 2]


def test_prediction_is_answered():
    question = ("Up or down?", ["up", "down"])
    assert reveal(predict(*question), "up", "it rose.").data == "> The answer is **up**. It rose."
    assert "You said *down*. It is **up**" in reveal(predict(*question, "down"), "up", "it rose.").data
    assert "You were right: **up**" in reveal(predict(*question, "up"), "up", "it rose.").data
    with pytest.raises(InputError, match="'left' is none of the choices: up, down"):
        predict(*question, "left")
    with pytest.raises(InputError, match="none of the choices"):
        reveal(predict(*question), "left", "")


@pytest.mark.parametrize(
    "source", ["x = 7", "### BEGIN SOLUTION\nx = 7", "### END SOLUTION\n### BEGIN SOLUTION"]
)
def test_exercise_without_its_markers_is_refused(source):
    with pytest.raises(InputError, match="one solution between its two markers"):
        replace_solution(source)


def test_workshop_has_both_copies_and_the_zip(tmp_path):
    import zipfile

    out = make_workshop(tmp_path / "workshop")
    names = [path.name for path in NOTEBOOKS]
    assert sorted(path.name for path in (out / "student").iterdir()) == names
    assert zipfile.ZipFile(out / "student.zip").namelist() == [f"student/{name}" for name in names]
    for path in NOTEBOOKS:
        assert (out / "solutions" / path.name).read_bytes() == path.read_bytes()
        student = nbformat.read(out / "student" / path.name, as_version=4)
        nbformat.validate(student)
        whole = student_copy(nbformat.read(path, as_version=4))
        assert student == whole and "### BEGIN" not in (out / "student" / path.name).read_text()
        solved = nbformat.read(path, as_version=4).cells
        changed = [b for a, b in zip(solved, student.cells, strict=True) if a != b]
        assert all(tagged(cell, "exercise") and STUB in cell.source for cell in changed)
        assert len(changed) == sum(tagged(cell, "exercise") for cell in solved)
