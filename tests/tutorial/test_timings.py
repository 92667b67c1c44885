"""The page of timings and agendas, generated from a run."""

import json
import re

import nbformat
import pytest

from rlvr_kit.errors import InputError
from rlvr_kit.paths import PROJECT
from rlvr_kit.tutorial import timings
from rlvr_kit.tutorial.timings import AGENDAS, PAGE, main, measure, sections_of, timings_page


def measured(training_minutes=6.0, recipe="cpu"):
    """As after `make run`: the notebooks as they are, with the seconds of cells made up."""
    found = measure(sorted((PROJECT / "notebooks").glob("*.ipynb")), recipe)
    for notebook in found["notebooks"]:
        notebook["seconds"] = 60 * training_minutes if notebook["name"].startswith("06") else 30.0
    return found


def rows(page, agenda):
    """Clock (minutes) and text of each row of an agenda."""
    table = page.split(f"### {agenda}\n")[1].split("###")[0]
    found = re.findall(r"\| (\d+):(\d\d) \| (.*?) \|", table)
    return [(60 * int(hours) + int(minutes), text) for hours, minutes, text in found]


def test_cells_are_measured_from_the_executed_copies(tmp_path):
    cells = [
        nbformat.v4.new_markdown_cell("two words\n\n## 1. Part one\nmore"),
        nbformat.v4.new_code_cell("1\ncheck_answer(x)"),
        nbformat.v4.new_code_cell("3"),
    ]
    for cell, seconds in zip(cells[1:], (2.5, 4.0), strict=True):
        cell.metadata.papermill = {"duration": seconds}
    cells[1].metadata.tags = ["check"]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "00_x.ipynb")
    [found] = measure([tmp_path / "00_x.ipynb"], "cpu")["notebooks"]
    assert found == {
        "name": "00_x", "seconds": 6.5, "longest": 4.0,
        "sections": [
            {"title": "", "words": 2, "lines": 0, "exercises": []},
            {"title": "1. Part one", "words": 5, "lines": 3, "exercises": ["answer"]},
        ],
    }  # fmt: skip


@pytest.mark.parametrize("agenda", AGENDAS)
def test_every_section_and_exercise_of_an_agenda_is_one_of_its_notebook(agenda):
    notebooks = {notebook["name"][:2]: notebook for notebook in measured()["notebooks"]}
    for part in filter(None, AGENDAS[agenda][1]):
        covered = sections_of(part, notebooks[part.notebook])
        assert len(covered) == 1 + len(part.sections or covered[1:])  # each name stands for one section
        assert set(part.exercises or ()) <= {name for each in covered for name in each["exercises"]}


@pytest.mark.parametrize("agenda", AGENDAS)
def test_every_agenda_fits_and_ends_with_a_comparison_of_a_trained_model(agenda):
    table = rows(timings_page(measured()), agenda)
    texts = [text for _, text in table]
    assert "questions" in texts[-1] and table[-1][0] <= AGENDAS[agenda][0]
    assert texts[0].startswith("**start 06_train")
    used = [text[:2] for text in texts]
    assert used.index("06") < used.index("09")


def test_a_slow_machine_waits_for_its_training_and_is_told_when_it_is_too_long():
    table = rows(timings_page(measured(training_minutes=80)), "90 minutes")
    clock = dict((text[:8], minutes) for minutes, text in table)
    assert clock["wait for"] < 80 and clock["06_train"] >= 85
    assert "too long on this machine" in table[-1][1]


def test_page_of_another_recipe_says_that_it_is_no_plan():
    assert "no plan yet" in timings_page(measured(recipe="smoke"))
    assert "no plan yet" not in timings_page(measured())


def test_command_writes_the_page_from_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(timings, "PAGE", tmp_path / "timings.md")
    for wrong in ([], ["--help"], ["a", "b"]):
        with pytest.raises(InputError, match="name one run folder"):
            main(wrong)
    with pytest.raises(InputError, match=r"no timings\.json"):
        main([str(tmp_path)])
    (tmp_path / "timings.json").write_text(json.dumps(measured()))
    main([str(tmp_path)])
    assert (tmp_path / "timings.md").read_text() == timings_page(measured())


def test_committed_page_is_as_the_code_writes_it():
    page = PAGE.read_text()
    assert page.startswith("# How long the notebooks take\n\nWritten by `make timings`")
    named = re.findall(r"^\| (\d\d_\w+) \|", page, re.MULTILINE)
    assert named == [path.stem for path in sorted((PROJECT / "notebooks").glob("*.ipynb"))]
    assert [name in page for name in AGENDAS] == [True] * len(AGENDAS)


def test_the_instructors_page_names_commands_that_exist_and_types_no_times():
    text = (PROJECT / "notebooks" / "INSTRUCTOR.md").read_text()
    targets = re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert (
        {"workshop", "wheelhouse", "timings"}
        <= set(re.findall(r"(?m)(?:^|`)make ([a-z-]+)", text))
        <= set(targets)
    )
    assert not re.search(r"\b(?!90\b)\d+ (minutes|seconds)\b", text)
    for name in re.findall(r"`(samples/\w+|tests/[\w/.]+)`", text):
        assert (
            (PROJECT / name).exists()
            or (PROJECT / "notebooks" / name).exists()
            or name == "samples/known_good"
        )
