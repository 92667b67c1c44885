"""Variants against the default: paired by seed, corrected for their number, and said by rule."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t, ttest_rel

from rlvr_kit.measure.seeds import summarize_seeds
from rlvr_kit.measure.study_plots import forest
from rlvr_kit.measure.variants import (
    compare_variants,
    conclusions,
    holm,
    scatter,
    smallest_found,
    variants_table,
)

NOISE = np.random.default_rng(1).normal(0, 0.03, size=(4, 6))


def study(**gains: list[float]) -> dict:
    """A study whose first variant is the default; the gains are those of seeds 0, 1, ..."""
    runs = [
        {"variant": name, "seed": seed, "gain": gain, "p": 0.001, "n": 208}
        for name, each in gains.items()
        for seed, gain in enumerate(each)
    ]
    return {
        "variants": {name: summarize_seeds([run for run in runs if run["variant"] == name]) for name in gains},
        "runs": runs, "hours": 1.0, "machines": [],
    }  # fmt: skip


MADE = study(
    default=list(0.4 + NOISE[0]), worse=list(0.1 + NOISE[1]), same=list(0.4 + NOISE[2]), better=list(0.6 + NOISE[3]),
    few=[0.9, 0.9],
)  # fmt: skip


def test_with_one_variant_it_is_the_paired_t_test() -> None:
    gains = {"default": list(0.4 + NOISE[0]), "other": list(0.45 + NOISE[1])}
    [each] = compare_variants(study(**gains))
    expected = ttest_rel(gains["other"], gains["default"])
    low, high = expected.confidence_interval()
    assert each.p == pytest.approx(expected.pvalue)
    assert each.interval == pytest.approx([low, high])


def test_the_scatter_is_that_of_the_analysis_of_variance() -> None:
    gains = np.array([[0.40, 0.44, 0.36], [0.50, 0.52, 0.47], [0.30, 0.37, 0.24], [0.41, 0.43, 0.40]])
    rows, columns = gains.mean(1, keepdims=True), gains.mean(0, keepdims=True)
    residual = (
        gains - rows - columns + gains.mean()
    )  # variants and seeds taken out, as for a complete block design
    sigma, freedom = scatter(study(**dict(zip("abcd", gains.tolist(), strict=True))))
    assert freedom == 3 * 2
    assert sigma == pytest.approx(np.sqrt((residual**2).sum() / freedom))


def test_each_is_compared_by_the_scatter_of_all_and_corrected_for_their_number() -> None:
    found = {each.variant: each for each in compare_variants(MADE)}
    sigma, freedom = scatter(MADE)
    raw = {
        name: 2 * t.sf(abs(found[name].mean) / (sigma * np.sqrt(2 / 6)), freedom)
        for name in ("worse", "same", "better")
    }
    smallest, middle, largest = sorted(raw, key=raw.__getitem__)
    assert found[smallest].p == pytest.approx(3 * raw[smallest])
    assert found[middle].p == pytest.approx(max(3 * raw[smallest], 2 * raw[middle]))
    assert found[largest].p == pytest.approx(max(2 * raw[middle], raw[largest]))
    assert {name: each.verdict for name, each in found.items()} == {
        "worse": "worse", "same": "no difference seen with 6 seeds", "better": "better",
        "few": "too few seeds (2, at least 3 are needed)",
    }  # fmt: skip


def test_what_a_seed_does_to_every_variant_is_no_scatter() -> None:
    """Seeds that are easy or hard for all variants alike change neither the scatter nor a comparison."""
    seeds = np.array([0.0, 0.3, -0.3, 0.1, 0.0, -0.2])
    moved = study(**{name: list(0.4 + NOISE[i] + seeds) for i, name in enumerate("abcd")})
    still = study(**{name: list(0.4 + NOISE[i]) for i, name in enumerate("abcd")})
    assert scatter(moved) == pytest.approx(scatter(still))
    assert [each.p for each in compare_variants(moved)] == pytest.approx(
        [c.p for c in compare_variants(still)]
    )


def test_one_seed_says_nothing_of_the_scatter() -> None:
    [each] = compare_variants(study(default=[0.1], other=[0.2]))
    assert each.interval is None and each.p is None


def test_only_seeds_that_both_have_are_paired() -> None:
    [each] = compare_variants(study(default=[0.1, 0.2, 0.3], other=[0.2, 0.3, 0.5, 0.9, 0.9]))
    assert each.differences == pytest.approx({0: 0.1, 1: 0.1, 2: 0.2})


def test_differences_without_any_spread_prove_little() -> None:
    found = compare_variants(study(default=[0.1] * 3, equal=[0.1] * 3, above=[0.2] * 3))
    assert [each.p for each in found] == [1.0, 0.5]


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_only_raises_keeps_the_order_and_is_at_most_bonferroni(p: list[float]) -> None:
    corrected = holm(p)
    for mine, raw in zip(corrected, p, strict=True):
        assert raw <= mine <= min(1, len(p) * raw)
    assert [corrected[i] for i in np.argsort(p, kind="stable")] == sorted(corrected)


def test_holm_is_the_published_example() -> None:
    # Holm 1979 as in R: p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm")
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])


def test_luck_is_seldom_called_a_difference() -> None:
    """Twenty variants that are the default itself: in one study of twenty, at most, one of them gets a verdict."""
    random, wrong = np.random.default_rng(0), 0
    for _ in range(100):
        gains = {f"v{i}": list(random.normal(0.4, 0.05, 5)) for i in range(21)}
        wrong += any(each.verdict in ("better", "worse") for each in compare_variants(study(**gains)))
    assert wrong <= 11


def test_the_sentences_name_each_variant_once_and_where_it_belongs() -> None:
    better, worse, same, few, corrected = conclusions(MADE)
    assert "better (+" in better and "worse (-" in worse and "same." in same and "few" in few
    assert "3 comparisons (Holm)" in corrected
    assert conclusions(study(default=[0.1], other=[0.2])) == [
        "No variant has 3 seeds in common with default yet, so nothing can be concluded."
    ]


def test_the_table_and_the_figure_show_every_comparison() -> None:
    assert list(variants_table(MADE)["variant"]) == ["worse", "same", "better", "few"]
    (ax,) = forest(MADE).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "few (2)",
        "better (6)",
        "same (6)",
        "worse (6)",
    ]
    assert forest(study(default=[0.1])).axes


def test_a_difference_at_the_bound_is_found_about_every_second_time() -> None:
    random, found = np.random.default_rng(0), 0
    noise = study(**{f"v{i}": list(random.normal(0, 0.05, 5)) for i in range(30)})
    bounds = smallest_found(noise, (5, 10)).set_index("seeds")["smallest difference found, points"]
    assert bounds[10] < bounds[5]
    for _ in range(100):
        made = {f"v{i}": list(random.normal(0, 0.05, 5)) for i in range(29)}
        made["true"] = list(bounds[5] / 100 + random.normal(0, 0.05, 5))
        found += compare_variants(study(**made))[-1].verdict == "better"
    assert 30 < found < 70
