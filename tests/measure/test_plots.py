import numpy as np
import pandas as pd
import pytest

from rlvr_kit import UserError
from rlvr_kit.measure.evaluation import summarize
from rlvr_kit.measure.paired_plots import flips, gain_split
from rlvr_kit.measure.plots import (
    AXES,
    CURVES,
    curves,
    pass_at_k_curve,
    save,
    shares,
    shots_curve,
    training_curves,
)
from rlvr_kit.measure.statistics import compare, wilson_interval
from rlvr_kit.run_folder import Run


@pytest.fixture
def runs(tmp_path):
    """Two runs of 20 steps, held-out every 5; the second logs KL as well."""
    made = []
    for slope, name in enumerate(["plain", "with kl"]):
        run = Run(tmp_path / name)
        for step in range(21):
            line = {"step": step}
            if step:
                line |= {
                    "seconds": 6.0 * step,
                    "completions": 32 * step,
                    "reward": 0.1 + 0.02 * step * (slope + 1),
                }
                line |= {"rewards/format": 0.1, "rewards/correct": 0.02 * step, "length": 40.0 - step}
                line |= {"truncated": 0.5, "entropy": 1.0, "equal_groups": 0.25, "loss": float("nan")}
                line |= {"kl": 0.01 * step} if slope else {}
            if step % 5 == 0:
                for key in ("strict", "lenient", "format"):
                    line |= {f"heldout/{key}": step / 64, f"heldout/{key}_ci": wilson_interval(step, 64)}
                line["heldout/n"] = 64
            run.append_log(line)
        made.append(run)
    return made


def rows(solved, lenient=None, samples=1):
    table = [
        {
            "problem": i,
            "question": f"q{i}",
            "gold": "1",
            "sample": j,
            "correct": bool(c),
            "lenient_correct": bool(right),
        }
        for i, (c, right) in enumerate(zip(solved, lenient or solved, strict=True))
        for j in range(samples)
    ]
    return pd.DataFrame(table).assign(format_ok=True, truncated=False, extracted="1")


def texts(figure):
    return [text for ax in figure.axes for text in (ax.get_title(), ax.get_xlabel(), ax.get_ylabel())]


@pytest.mark.parametrize("what", CURVES)
@pytest.mark.parametrize("against", AXES)
@pytest.mark.parametrize("count", [1, 2])
def test_every_curve_is_titled_labelled_and_drawn(runs, what, against, count):
    figure = curves(runs[:count] if count > 1 else runs[0], what, against)
    assert all(texts(figure))
    assert all(ax.has_data() for ax in figure.axes)
    assert {ax.get_xlabel() for ax in figure.axes} == {AXES[against][0]}


def test_a_curve_shows_the_numbers_of_the_log(runs):
    dots, mean = curves(runs[0], "length").axes[0].lines
    np.testing.assert_allclose(dots.get_ydata(), 40.0 - np.arange(1, 21))
    np.testing.assert_allclose(mean.get_ydata()[5:15], dots.get_ydata()[5:15], atol=0.5)
    np.testing.assert_allclose(curves(runs[0], "length", "seconds").axes[0].lines[0].get_xdata()[-1], 2.0)
    np.testing.assert_allclose(curves(runs[0], "signal").axes[0].lines[0].get_ydata(), 25.0)


def test_held_out_points_carry_their_intervals_and_their_n(runs):
    panel = curves(runs[0], "heldout").axes[0]
    (segments,) = [bars.get_segments() for bars in panel.collections]
    ends = [sorted(segment[:, 1] / 100) for segment in segments]
    np.testing.assert_allclose(ends, [wilson_interval(k, 64) for k in (0, 5, 10, 15, 20)], atol=1e-9)
    assert panel.get_ylabel() == "% of 64 problems"


def test_overlaid_runs_differ_in_more_than_colour(runs):
    for panel in curves(runs, "length").axes:
        means = [line for line in panel.lines if line.get_linestyle() != "None"]
        assert len({line.get_linestyle() for line in means}) == len({line.get_color() for line in means}) == 2
        assert [text.get_text() for text in panel.get_legend().get_texts()] == ["plain", "with kl"]


def test_only_what_was_logged_gets_a_panel(runs):
    assert [ax.get_title() for ax in curves(runs[0], "policy").axes] == ["Entropy"]
    assert [ax.get_title() for ax in curves(runs, "policy").axes] == ["Entropy", "KL from the base model"]
    assert len(curves(runs[0], "reward").axes) == 3


def test_a_share_of_clipped_tokens_that_is_always_zero_is_not_drawn(runs):
    run = Run(runs[0].path.parent / "unclipped")
    for line in runs[0].lines():
        run.append_log(line | {"clipped": 0.0})
    assert [ax.get_title() for ax in curves(run, "policy").axes] == ["Entropy"]


def test_where_the_format_is_all_that_is_paid_both_curves_are_seen(runs):
    run = Run(runs[0].path.parent / "format alone")
    for line in runs[0].lines():
        run.append_log(line | {"rewards/format": line.get("reward")})
    lines = [line for line in training_curves(run).axes[0].lines if line.get_linestyle() != "None"]
    total, form = lines[:2]
    assert total.get_linewidth() < form.get_linewidth() and total.get_zorder() > form.get_zorder()


def test_the_live_chart_is_drawn_from_the_first_line_on(tmp_path, runs):
    run = Run(tmp_path / "new")
    run.append_log({"step": 0, "heldout/strict": 0.0, "heldout/strict_ci": [0, 0.06], "heldout/n": 64})
    figure = training_curves(run)
    assert [ax.has_data() for ax in figure.axes] == [False, True, False, False, False, False]
    assert [len(ax.texts) for ax in figure.axes] == [1, 0, 1, 1, 1, 1]  # "not logged"
    assert len(training_curves(runs[0]).axes) == 6


def test_runs_may_be_given_names(runs):
    labels = [
        text.get_text()
        for text in curves({"A": runs[0], "B": runs[1]}, "length").axes[0].get_legend().get_texts()
    ]
    assert labels == ["A", "B"]


def test_unknown_figures_are_named(runs):
    with pytest.raises(UserError, match="reward, heldout"):
        curves(runs[0], "loss")


def test_the_walkthroughs_points_have_a_panel_of_their_own():
    summary = summarize(rows([0, 1, 1, 0]))
    ours, theirs = shots_curve({"base": {0: summary, 2: summary}}, published=True).axes
    assert [len(ax.get_legend().get_texts()) for ax in (ours, theirs)] == [1, 2]
    assert (
        theirs.get_title().startswith("Published")
        and "n=100" in theirs.get_legend().get_texts()[0].get_text()
    )
    assert len(shots_curve({"base": {0: summary}}).axes) == 1


def test_pass_at_k_and_shares_are_drawn_in_per_cent():
    summary = summarize(rows([0, 1, 1, 0], samples=4))
    line = pass_at_k_curve({"base": summary}).axes[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), [50.0, 50.0, 50.0])
    panel = shares(
        {"base": {"seen": (1, 4), "new": (0, 8)}, "tuned": {"seen": (2, 4), "new": (8, 8)}}, "Transfer"
    ).axes[0]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["seen", "new"]
    np.testing.assert_allclose(panel.lines[0].get_xdata(), [25.0, 0.0])


def test_flips_count_both_ways():
    figure = flips(rows([1, 1, 0, 0, 0]), rows([1, 0, 1, 1, 0]))
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["both: 1", "newly solved: 2", "lost: 1", "neither: 1"]
    assert [len(marks.get_offsets()) for marks in figure.axes[0].collections] == [1, 2, 1, 1]


def test_the_parts_of_the_gain_add_up():
    base, tuned = rows([0, 0, 0, 1], [1, 0, 0, 1]), rows([1, 1, 0, 1], [1, 1, 0, 1])
    mathematics, form, total = (bar.get_width() for bar in gain_split(base, tuned).axes[0].patches)
    assert (mathematics, form, total) == pytest.approx((25.0, 25.0, 50.0))


def test_a_figure_is_saved_as_svg_and_png(runs, tmp_path):
    path = save(training_curves(runs), tmp_path / "figures" / "run.png")
    assert path.read_text().startswith("<?xml")
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_more_than_six_series_are_all_drawn_and_differ(runs):
    many = []
    for i in range(8):
        run = Run(runs[0].path.parent / f"run {i}")
        for line in runs[0].lines():
            run.append_log(line)
        many.append(run)
    for what in CURVES:
        for panel in curves(many, what).axes:
            assert len(panel.get_legend().get_texts()) == 8
    assert len(training_curves(many).axes) == 6
    summary = summarize(rows([0, 1, 1, 0], samples=4))
    for figure in (
        shots_curve({f"model {i}": {0: summary, 2: summary} for i in range(8)}),
        pass_at_k_curve({f"model {i}": summary for i in range(8)}),
        shares({f"model {i}": {"seen": (1, 4)} for i in range(8)}, "Eight"),
    ):
        lines = [bars.lines[0] for bars in figure.axes[0].containers]
        assert len({(line.get_color(), line.get_marker()) for line in lines}) == 8


def test_where_nothing_flipped_the_interval_has_a_width():
    result = compare(rows([1, 0] * 50), rows([1, 0] * 50))
    assert result.difference == 0 and result.ci == pytest.approx((-0.037, 0.037), abs=1e-3)
    assert "+0.0 to +0.0" not in result.sentence
    low, high = compare(rows([0] * 100), rows([1] * 100)).ci
    assert low == pytest.approx(1 - 2 * 0.037, abs=1e-3) and high == 1.0
