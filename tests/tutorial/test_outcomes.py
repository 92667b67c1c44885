"""06, 08 and 09 on a run that gained, one that changed nothing and one that lost: each tells its own story only."""

import shutil

import nbformat
import papermill
import pytest
from outcome_runs import OUTCOMES, make_run

from rlvr_kit import load_policy, load_tokenizer
from rlvr_kit.measure.wording import HELDOUT_TITLES, TITLES
from rlvr_kit.paths import PROJECT


@pytest.fixture(scope="module", params=OUTCOMES)
def run_of(request, tmp_path_factory):
    """(outcome, a run that has it)"""
    return request.param, make_run(tmp_path_factory.mktemp("runs"), request.param)


def shown(notebook):
    """Everything that the executed cells show, as one text."""
    texts = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            texts += [output.get("text", ""), data.get("text/markdown", ""), data.get("text/html", "")]
    return "\n".join(texts)


def execute(name, run, folder):
    [notebook] = (PROJECT / "notebooks").glob(f"{name}_*.ipynb")
    parameters = {"RECIPE": str(run.path / "recipe.yaml"), "RUN_DIR": str(run.path)}
    copy = folder / notebook.name
    return shown(papermill.execute_notebook(notebook, copy, parameters, progress_bar=False, cwd=PROJECT))


def told(text, titles):
    return {kind for kind, title in titles.items() if title in text}


def test_06_shows_a_finished_run_and_tells_its_outcome(run_of, tmp_path):
    kind, run = run_of
    before = {name: run.evaluation(name)[1] for name in ("base", "tuned")}
    load_policy("tiny-random").save_pretrained(run.path / "model")
    load_tokenizer("tiny-random").save_pretrained(run.path / "model")
    try:
        text = execute("06", run, tmp_path)
    finally:
        shutil.rmtree(run.path / "model")
    assert told(text, TITLES) == {kind}
    assert {name: run.evaluation(name)[1] for name in before} == before  # read, not measured again


def test_08_diagnoses_the_readers_run_by_its_curve_and_its_test(run_of, tmp_path):
    kind, run = run_of
    text = execute("08", run, tmp_path)
    assert told(text, TITLES) == {kind}
    own = text[text.index("Shown as your run") :]
    assert told(own, HELDOUT_TITLES) == {kind}
    assert "**too few right samples: temperature and rate too high**" in text  # the failed run is a patient


def test_09_concludes_by_the_rule(run_of, tmp_path):
    kind, run = run_of
    text = execute("09", run, tmp_path)
    assert told(text, TITLES) == {kind}
    endings = {
        "gain": "what was unlearned",
        "no difference": "what a coin would do",
        "loss": "did the number change",
    }
    assert told(text, endings) == {kind}


def test_no_notebook_names_an_outcome_in_its_prose():
    """Sentences about the reader's run stand in outputs, where a rule has chosen them."""
    for path in (PROJECT / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            assert not told(cell.source, TITLES) | told(cell.source, HELDOUT_TITLES), (path.name, cell.id)
