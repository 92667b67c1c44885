from fractions import Fraction
from math import comb

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from rlvr_kit import UserError
from rlvr_kit.measure.statistics import (
    compare,
    mcnemar_exact,
    paired_bootstrap,
    pass_at_k,
    problems_needed,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_has_the_published_values(k, n, low, high):
    assert wilson_interval(k, n) == pytest.approx((low, high), abs=5e-5)


@given(n=st.integers(1, 2000), share=st.floats(0, 1), confidence=st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_wilson_agrees_with_scipy(n, share, confidence):
    k = round(share * n)
    theirs = binomtest(k, n).proportion_ci(confidence, method="wilson")
    assert wilson_interval(k, n, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_wilson_covers_what_it_says():
    rng = np.random.default_rng(0)
    shares, n = rng.uniform(0.02, 0.98, 20_000), 256
    ends = [wilson_interval(k, n) for k in range(n + 1)]
    covered = [ends[k][0] <= p <= ends[k][1] for p, k in zip(shares, rng.binomial(n, shares), strict=True)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.01)


@given(n=st.integers(1, 60), data=st.data())
def test_pass_at_k_is_one_minus_the_chance_of_drawing_only_wrong_ones(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    assert pass_at_k(n, c, k) == pytest.approx(float(1 - Fraction(comb(n - c, k), comb(n, k))), abs=1e-9)


def test_pass_at_k_is_unbiased():
    rng, p = np.random.default_rng(0), 0.15
    estimates = [pass_at_k(8, c, 4) for c in rng.binomial(8, p, 20_000)]
    assert np.mean(estimates) == pytest.approx(1 - (1 - p) ** 4, abs=0.01)


@given(b=st.integers(0, 80), c=st.integers(0, 80))
def test_mcnemar_is_the_exact_binomial_tail(b, c):
    tail = Fraction(2 * sum(comb(b + c, i) for i in range(min(b, c) + 1)), 2 ** (b + c))
    assert mcnemar_exact(b, c) == pytest.approx(min(1.0, float(tail)), abs=1e-9)


def paired_trial(rng, n, gained, lost):
    """Solved by base, solved by tuned: a share gained, a share lost, the rest alike."""
    draw, alike = rng.random(n), rng.random(n) < 0.5
    base = np.where(draw < gained + lost, draw >= gained, alike)
    return base, np.where(draw < gained + lost, draw < gained, alike)


def test_bootstrap_covers_what_it_says():
    rng, covered = np.random.default_rng(1), []
    for _ in range(3000):
        base, tuned = paired_trial(rng, 256, gained=0.3, lost=0.1)
        low, high = paired_bootstrap(base, tuned, draws=1000, seed=int(rng.integers(2**32)))
        covered.append(low <= 0.2 <= high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.01)


def test_bootstrap_agrees_with_resampling_row_by_row():
    rng = np.random.default_rng(2)
    base, tuned = rng.random(80), rng.random(80) + 0.1
    picked = rng.integers(80, size=(40_000, 80))
    expected = np.quantile((tuned - base)[picked].mean(axis=1), [0.025, 0.975])
    assert paired_bootstrap(base, tuned, draws=40_000) == pytest.approx(expected, abs=0.003)


def test_the_number_of_problems_needed_gives_the_power_promised():
    n = problems_needed(0.30, 0.12, discordant=0.4)
    rng = np.random.default_rng(3)
    flips = rng.multinomial(n, [0.26, 0.14, 0.6], size=4000)
    power = np.mean([mcnemar_exact(int(lost), int(won)) < 0.05 for won, lost, _ in flips])
    assert power == pytest.approx(
        0.8, abs=0.03
    )  # the exact test is a little stricter than the normal formula
    assert problems_needed(0.30, 0.12) > n > problems_needed(0.30, 0.24, discordant=0.4)


@pytest.mark.parametrize(
    "call",
    [
        lambda: wilson_interval(0, 0),
        lambda: wilson_interval(5, 4),
        lambda: pass_at_k(4, 5, 2),
        lambda: pass_at_k(4, 1, 5),
        lambda: problems_needed(0.9, 0.2),
        lambda: problems_needed(0.5, 0.0),
    ],
)
def test_impossible_numbers_are_refused(call):
    with pytest.raises(UserError):
        call()


def rows(solved):
    table = {"problem": range(len(solved)), "question": [f"q{i}" for i in range(len(solved))]}
    return pd.DataFrame(table | {"gold": "1", "correct": solved, "lenient_correct": solved})


@pytest.mark.parametrize(
    ("base", "tuned", "words"),
    [
        ([0] * 20 + [1] * 20, [0] * 20 + [1] * 20, "No evidence"),
        ([0] * 40, [0] * 35 + [1] * 5, "No evidence"),  # exact p = 0.0625
        ([0] * 40, [0] * 34 + [1] * 6, "A significant gain"),  # exact p = 0.03125
        ([1] * 40, [1] * 30 + [0] * 10, "A significant loss"),
    ],
)
def test_the_conclusion_follows_from_the_numbers(base, tuned, words):
    result = compare(rows(base), rows(tuned))
    assert result.sentence.startswith(words)
    assert result.both + result.only_base + result.only_tuned + result.neither == result.n == 40
    assert result.difference == pytest.approx((sum(tuned) - sum(base)) / 40)
    assert result.ci[0] <= result.difference <= result.ci[1]
    assert compare(rows(tuned), rows(base)).only_base == result.only_tuned


def test_a_conclusion_needs_the_same_problems():
    with pytest.raises(UserError, match="same problems"):
        compare(rows([0, 1, 1]), rows([0, 1]))
    with pytest.raises(UserError, match="same problems"):
        compare(rows([0, 1]), rows([0, 1]).assign(question="another"))
