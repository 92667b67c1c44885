"""What several seeds say together."""

import json

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from rlvr_kit.measure.seeds import seeds_table, summarize_seeds
from rlvr_kit.measure.study_plots import seeds_figure
from rlvr_kit.measure.variants import where_made
from rlvr_kit.measure.wording import outcome_of
from rlvr_kit.paths import PROJECT

GAINS = [0.30, 0.41, 0.25, 0.38]
RUNS = [{"variant": "default", "seed": i, "gain": gain, "p": 1e-6, "n": 208} for i, gain in enumerate(GAINS)]
LOST = {"variant": "hot", "seed": 0, "gain": -0.1, "p": 0.001, "n": 208}
STUDY = {
    "variants": {
        "default": summarize_seeds(RUNS),
        "hot": summarize_seeds([LOST]),
        "none": summarize_seeds([]),
    },
    "runs": [*RUNS, LOST],
}


@pytest.mark.parametrize(
    ("gain", "p", "expected"),
    [
        (0.1, 0.049, "gain"),
        (-0.1, 0.049, "loss"),
        (0.1, 0.05, "no difference"),
        (-0.4, 0.3, "no difference"),
        (0.0, 1.0, "no difference"),
    ],
)
def test_outcome_is_the_sign_of_what_is_significant(gain: float, p: float, expected: str) -> None:
    assert outcome_of(gain, p) == expected


def test_the_interval_over_seeds_is_students() -> None:
    summary = summarize_seeds(RUNS)
    low, high = ttest_1samp(GAINS, 0).confidence_interval(0.95)
    assert summary["interval"] == pytest.approx([low, high])
    assert (summary["worst"], summary["best"], summary["seeds"]) == (0.25, 0.41, 4)
    assert summary["sd"] == pytest.approx(np.std(GAINS, ddof=1))


def test_one_more_run_lies_in_the_spread_nineteen_times_of_twenty() -> None:
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(1000):
        *seen, new = random.normal(0.4, 0.05, size=6)
        low, high = summarize_seeds([{"gain": gain, "p": 0.0} for gain in seen])["spread"]
        inside += low <= new <= high
    assert 920 < inside < 975


def test_a_run_that_never_had_half_of_its_gain_counts_as_later_than_any() -> None:
    runs = [
        run | {"half_step": step, "entropy": 0.5}
        for run, step in zip(RUNS, [4.0, None, 6.0, 5.0], strict=True)
    ]
    assert summarize_seeds(runs)["half_step"] == 5.5 and summarize_seeds(runs)["entropy"] == 0.5
    assert summarize_seeds([run | {"half_step": None} for run in runs])["half_step"] is None
    assert summarize_seeds(RUNS)["half_step"] is None  # a study of an earlier version


def test_one_seed_has_no_interval_and_no_seed_no_mean() -> None:
    assert summarize_seeds([LOST])["interval"] is None
    assert summarize_seeds([]) == {"seeds": 0}


def test_runs_are_counted_by_outcome() -> None:
    mixed = [*RUNS, LOST, LOST | {"p": 0.9, "stopped": "training stopped at step 3"}]
    summary = summarize_seeds(mixed)
    assert (summary["gain"], summary["no difference"], summary["loss"], summary["stopped"]) == (4, 1, 1, 1)


def test_table_shows_points_and_leaves_out_what_has_not_run() -> None:
    table = seeds_table(STUDY).set_index("variant")
    assert list(table.index) == ["default", "hot"]
    assert table.loc["default", "mean gain"] == "+33.5" and table.loc["default", "worst"] == "+25.0"
    assert table.loc["hot", "95 % interval"] == "" and table.loc["hot", "runs that lost"] == 1


def test_figure_has_a_dot_for_each_run_and_a_diamond_for_each_mean() -> None:
    (ax,) = seeds_figure(STUDY).axes
    dots = [x for line in ax.lines if line.get_marker() == "o" for x in line.get_xdata()]
    assert sorted(dots) == pytest.approx(sorted(100 * run["gain"] for run in STUDY["runs"]))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["default (4)", "hot (1)"]


@pytest.mark.parametrize("name", ["cpu", "orders"])
def test_the_committed_studies_load(name: str) -> None:
    study = json.loads((PROJECT / "notebooks" / "samples" / "study" / f"{name}.json").read_text())
    study["variants"] = {key: summarize_seeds(study["runs"]) for key in study["variants"]}
    assert seeds_table(study).loc[0, "runs that gained"] == study["variants"]["default"]["seeds"]
    assert f"{len(study['runs'])} runs" in where_made(study) and seeds_figure(study).axes
