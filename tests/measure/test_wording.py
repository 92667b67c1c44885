"""What is said about a run follows from its numbers: the outcome, its story, and the signs of trouble in its log."""

import re

import numpy as np
import pytest
from outcome_runs import OUTCOMES, SAMPLES, make_run

from rlvr_kit import Run, compare
from rlvr_kit.measure.wording import HELDOUT_TITLES, NEXT_STEPS, TITLES, diagnosis, outcome, story


@pytest.mark.parametrize("kind", OUTCOMES)
def test_a_story_has_what_happened_why_and_what_to_try(kind, tmp_path):
    text = story(make_run(tmp_path, kind))
    assert text.startswith(f"### {TITLES[kind]}")
    happened, why, to_try = re.split(r"\*\*(?:What happened|Why|What to try next)\.\*\*", text)[1:]
    assert "exact McNemar" in happened
    assert why.count("\n- ") >= 1 and to_try.count("\n- ") >= 2
    assert "seed" in to_try


def test_a_gain_over_a_base_that_was_cut_off_is_held_against_the_base_with_room(tmp_path):
    run = make_run(tmp_path, "gain")
    assert "So the gain is not brevity alone." in story(run)
    run.save_evaluation("base-uncut", *run.evaluation("tuned"))
    assert "So what was gained may be brevity alone." in story(run)
    (run.path / "evals" / "base-uncut.json").unlink()
    assert "brevity" not in story(run)


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
