"""The sentence about sameness follows the numbers."""

import pandas as pd
import pytest

from rlvr_kit.share.agreement import agreement, agreement_sentence


@pytest.mark.parametrize(
    "differing, said", [(0, "All 40 answers are equal"), (2, "rounding decides"), (3, "not the same")]
)
def test_the_sentence_is_chosen_by_rule(differing, said):
    rows = pd.DataFrame(
        {"completion": ["#### 1"] * 40, "correct": [True] * 40, "lenient_correct": [True] * 40}
    )
    other = rows.assign(completion=["#### 2"] * differing + ["#### 1"] * (40 - differing))
    table = agreement(rows, {"same": rows, "other": other})
    assert table.loc["other", "equal answers"] == 40 - differing
    assert table.loc["same", "right, strict"] == "100.0% (91.2% to 100.0%)"
    assert said in agreement_sentence(table)
