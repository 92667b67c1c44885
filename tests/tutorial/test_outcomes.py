"""06, 08 and 09 on a run that gained, one that changed nothing and one that lost: each tells its own story only."""

import re
import shutil

import nbformat
import numpy as np
import papermill
import pytest

from rlvr_kit import Run, compare, load_policy, load_recipe, load_tokenizer
from rlvr_kit.measure.evaluation import summarize
from rlvr_kit.measure.statistics import wilson_interval
from rlvr_kit.measure.wording import HELDOUT_TITLES, NEXT_STEPS, TITLES, diagnosis, outcome, story
from rlvr_kit.paths import PROJECT

SAMPLES = PROJECT / "notebooks" / "samples"
OUTCOMES = ("gain", "no difference", "loss")


def make_run(folder, kind):
    """A finished run with this outcome, made of the committed samples; its policy is tiny, so that tests are quick."""
    source = SAMPLES / ("failed" if kind == "loss" else "cpu")
    run = Run(folder / kind.replace(" ", "_"))
    shutil.copytree(source / "evals", run.path / "evals")
    shutil.copytree(SAMPLES / "failed" / "completions", run.path / "completions")
    run.write_summary({"peak_memory_gib": 1.0})
    for line in Run(source).lines():
        if kind == "no difference" and "heldout/strict" in line:
            line |= {"heldout/strict": 12 / 64, "heldout/strict_ci": wilson_interval(12, 64)}
        run.append_log(line)
    if kind == "no difference":
        rows, summary = run.evaluation("base")
        tuned = rows.copy()
        for flip in (tuned.index[tuned.correct][:3], tuned.index[~tuned.correct][:4]):
            tuned.loc[flip, "correct"] = ~tuned.loc[flip, "correct"]
        tuned["lenient_correct"] |= tuned["correct"]
        run.save_evaluation("tuned", tuned, summary | summarize(tuned))
    recipe = load_recipe(source / "recipe.yaml", ["model.name=tiny-random"])
    (run.path / "recipe.yaml").write_text(recipe.to_yaml())
    return run


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
    assert "The answer is **recipe tuned on one seed**" in text  # the failed run is one of the patients


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


@pytest.mark.parametrize("kind", OUTCOMES)
def test_a_story_has_what_happened_why_and_what_to_try(kind, tmp_path):
    text = story(make_run(tmp_path, kind))
    assert text.startswith(f"### {TITLES[kind]}")
    happened, why, to_try = re.split(r"\*\*(?:What happened|Why|What to try next)\.\*\*", text)[1:]
    assert "exact McNemar" in happened
    assert why.count("\n- ") >= 1 and to_try.count("\n- ") >= 2
    assert "seed" in to_try


def test_the_failed_run_is_explained_from_its_log(tmp_path):
    text = story(make_run(tmp_path, "loss"))
    assert "Of the sampled completions 3.8% were right in the first 5 steps" in text
    assert "The held-out curve was highest at step 0 (18.8%) and fell to 3.1% at step 30" in text
    assert "A lower `grpo.temperature` (here 1.0)" in text


@pytest.mark.parametrize(
    "sample,sign",
    {
        "hacked": "The reward has no part for a correct answer; it pays for: format",
        "collapsed": "97.5% of the completions were cut off (60.0% in the first 5)",
        "truncated": "No completion earned anything",
    }.items(),
)
def test_each_patient_shows_its_sign(sample, sign):
    assert sign in diagnosis(Run(SAMPLES / sample))


def test_a_healthy_log_is_given_no_cause_of_trouble():
    text = diagnosis(Run(SAMPLES / "cpu"))
    assert text.startswith(f"**{HELDOUT_TITLES['gain']}**") and "*Try:*" not in text


@pytest.mark.parametrize(
    "lost,gained,expected", [(0, 6, "gain"), (0, 5, "no difference"), (6, 0, "loss"), (0, 0, "no difference")]
)
def test_outcome_is_mcnemars(lost, gained, expected):
    base = Run(SAMPLES / "cpu").evaluation("base")[0].head(40).assign(correct=np.arange(40) < 20)
    tuned = base.assign(correct=(np.arange(40) >= lost) & (np.arange(40) < 20 + gained))
    assert outcome(compare(base, tuned)) == expected
    assert NEXT_STEPS[expected]
