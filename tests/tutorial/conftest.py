import pytest


@pytest.fixture
def figures() -> dict:
    """What a report needs of headline.json."""
    shares = {"n": 9, "strict": 0, "lenient": 0, "format": 0, "truncated": 0}
    notebooks = [{"name": "x", "peak_memory_gib": 1}]
    return {
        "minutes": 1, "notebooks": notebooks, "best_step": None, "mcnemar_p": 1, "base": shares, "tuned": shares,
    }  # fmt: skip
