"""The notebooks as they are in git (`-k static`), and each executed alone with a tiny model."""

import ast
import re
from itertools import cycle

import nbformat
import papermill
import pytest
from bs4 import BeautifulSoup
from nbconvert.preprocessors import ExecutePreprocessor
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from rlvr_kit.paths import PROJECT
from rlvr_kit.tutorial.exercises import NOT_DONE, RIGHT
from rlvr_kit.tutorial.report import build_report
from rlvr_kit.tutorial.workshop import student_copy

NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
PARAMETERS = ['RECIPE = "cpu"', 'RUN_DIR = "runs/tutorial"', "SEED = 0"]
UNWANTED = {
    "installs": r"^\s*[!%]\s*(pip|conda)\b",
    "logs in": r"notebook_login|huggingface_hub\.login|hf auth login|wandb\.login|getpass\(",
    "names a place on one machine": r"(?<![\w.])/(home|root|Users|tmp|work|content|mnt)/\w|\b[A-Z]:\\\\?\w",
}
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@each_notebook
def test_static_stripped(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not [cell.id for cell in code(notebook) if cell.outputs or cell.execution_count]
    assert not [cell.id for cell in notebook.cells if set(cell.metadata) - {"tags"}]
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata


@each_notebook
def test_static_small_and_mostly_prose(path):
    notebook = nbformat.read(path, as_version=4)
    prose = sum(len(cell.source) for cell in notebook.cells if cell.cell_type == "markdown")
    assert len(notebook.cells) <= 45
    assert not [cell.id for cell in code(notebook) if len(cell.source.splitlines()) > 15]
    assert prose > sum(len(cell.source) for cell in code(notebook))


@each_notebook
def test_static_opens_alike(path):
    first, second = nbformat.read(path, as_version=4).cells[:2]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    assert second.metadata.get("tags") == ["parameters"]
    lines = second.source.splitlines()
    assert [line.partition("  #")[0] for line in lines[:3]] == PARAMETERS
    explained = [line for line in lines[:3] if "#" in line]
    assert bool(explained) == path.stem.startswith("00")  # once is enough


@each_notebook
def test_static_papermill_reads_every_parameter(path, caplog):
    known = papermill.inspect_notebook(path)
    assert {"RECIPE", "RUN_DIR", "SEED"} <= known.keys()
    assert not caplog.records  # "Unable to parse line 5", where a comment holds an equals sign


@each_notebook
@pytest.mark.parametrize("rule", UNWANTED)
def test_static_runs_anywhere(path, rule):
    cells = nbformat.read(path, as_version=4).cells
    assert not [cell.id for cell in cells if re.search(UNWANTED[rule], cell.source, re.MULTILINE)]


@each_notebook
def test_static_formulas_are_drawn_in_the_report(path, figures):

    page = BeautifulSoup(build_report([path], figures, ""), "html.parser")
    assert not [
        math.get_text() for math in page.find_all("math") if "\\" in math.get_text()
    ]  # unknown commands
    assert not [code.get_text() for code in page.find_all("code") if re.fullmatch(r"\$.*\$", code.get_text())]


@each_notebook
def test_static_cell_ids_are_short_and_unique(path):
    ids = [cell.id for cell in nbformat.read(path, as_version=4).cells]
    assert len(set(ids)) == len(ids)
    assert not [name for name in ids if not re.fullmatch(r"[\w-]{1,20}", name)]


@each_notebook
def test_static_no_later_cell_needs_an_exercise(path):
    """So a notebook goes the same way whether its exercises are solved or not (see `test_executes`)."""
    cells = [cell.source for cell in code(nbformat.read(path, as_version=4))]
    exercises = [i for i, source in enumerate(cells) if "### BEGIN SOLUTION" in source]
    assert exercises
    for i in exercises:
        used = set().union(*(names(source, ast.Load) for source in cells[i + 2 :]))  # the next cell checks it
        assert not used & names(cells[i], ast.Store)


def names(source, context):
    """The names outside of functions that the code sets (`ast.Store`), or those that it reads anywhere (`ast.Load`)."""
    tree = ast.parse(re.sub(r"^%%.*", "", source))  # a cell that is written to a file, without its first line
    defined = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    functions = defined if context is ast.Store else []
    inside = {id(node) for each in functions for node in ast.walk(each)}
    named = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in inside]
    return {each.name for each in functions} | {node.id for node in named if isinstance(node.ctx, context)}


@each_notebook
def test_executes(path, tmp_path):
    """One half as papermill does it, from the project folder; the other as `jupyter nbconvert --execute` does it.

    Each exercise is there twice, solved and then as a student copy has it: empty.
    """
    parameters = {"RECIPE": "smoke", "RUN_DIR": str(tmp_path / "run"), "SEED": 1}
    notebook = with_empty_exercises(load_notebook_node(str(path)))
    if NOTEBOOKS.index(path) % 2:
        nbformat.write(notebook, tmp_path / f"source_{path.name}")
        done = papermill.execute_notebook(
            tmp_path / f"source_{path.name}",
            tmp_path / path.name,
            parameters,
            progress_bar=False,
            cwd=PROJECT,
        )
    else:
        done = execute(notebook, parameters, path.parent)
    assert all(cell.execution_count for cell in code(done) if cell.source)
    assert not [out for cell in code(done) for out in cell.outputs if out.output_type == "error"]
    said = marks(done)
    assert said and all(
        text.startswith(mark) for text, mark in zip(said, cycle([RIGHT, NOT_DONE]), strict=False)
    )


def execute(notebook, parameters, folder):
    """The notebook with these parameters, executed in `folder` as `jupyter nbconvert --execute` does it."""
    copy = parameterize_notebook(notebook, parameters)
    ExecutePreprocessor(kernel_name="python3").preprocess(copy, {"metadata": {"path": str(folder)}})
    return copy


def with_empty_exercises(notebook):
    """After each solved exercise and its check, the two once more as a student copy has them."""
    empty = student_copy(notebook).cells
    for cell in empty:
        cell.id = f"{cell.id}-empty"
    cells = []
    for i, cell in enumerate(notebook.cells):
        cells += [cell, *empty[i - 1 : i + 1]] if "check" in cell.metadata.get("tags", []) else [cell]
    notebook.cells = cells
    return notebook


def marks(done):
    """What each check cell of an executed notebook printed."""
    checks = [cell for cell in code(done) if "check" in cell.metadata.get("tags", [])]
    return ["".join(out.get("text", "") for out in cell.outputs) for cell in checks]
