"""Finished runs with each outcome, made of the committed samples, for the tests of several rooms."""

import shutil
from pathlib import Path

from rlvr_kit import Run, load_recipe
from rlvr_kit.measure.evaluation import summarize
from rlvr_kit.measure.statistics import wilson_interval
from rlvr_kit.paths import PROJECT

SAMPLES = PROJECT / "notebooks" / "samples"
OUTCOMES = ("gain", "no difference", "loss")


def make_run(folder: Path, kind: str) -> Run:
    """A finished run with this outcome; its policy is tiny, so that tests are quick."""
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
