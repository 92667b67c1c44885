"""The course of a run, from its log."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_kit.measure.course import course_of


def line(step: int, strict: float | None = None, **values: float) -> dict:
    return {"step": step, "seconds": 6.0 * step, "completions": 64 * step, "heldout/strict": strict} | values


def test_half_of_the_gain_is_read_off_between_two_measurements() -> None:
    lines = [
        line(0, 0.1),
        *(line(i, entropy=0.1 * i) for i in range(1, 5)),
        line(5, 0.4, entropy=0.5),
        line(10, 0.9),
    ]
    course = course_of(lines)
    assert (course["half_step"], course["half_minutes"]) == (
        6.0,
        0.6,
    )  # 0.5 lies a fifth of the way from 0.4 to 0.9
    assert course["heldout"] == [[0, 0.1], [5, 0.4], [10, 0.9]]
    assert course["entropy"] == pytest.approx(0.3) and course["completions"] == 640


@pytest.mark.parametrize(
    "lines", [[], [line(0, 0.3)], [line(0, 0.3), line(5, 0.3)], [line(0, 0.3), line(5, 0.9), line(9, 0.1)]]
)
def test_without_a_gain_there_is_no_half(lines: list) -> None:
    assert course_of(lines)["half_step"] is None and course_of(lines)["half_minutes"] is None


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_half_the_gain_comes_within_the_run_and_not_before_it(shares: list[float]) -> None:
    course = course_of([line(5 * i, share) for i, share in enumerate(shares)])
    assert (course["half_step"] is None) == (shares[-1] <= shares[0])
    if course["half_step"] is not None:
        assert 0 <= course["half_step"] <= 5 * (len(shares) - 1)
