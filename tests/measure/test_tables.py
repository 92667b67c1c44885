"""Tables of text: aligned left, escaped, with the question and not the whole prompt."""

import pandas as pd
import pytest
from matplotlib.patches import FancyArrowPatch

from rlvr_kit.measure.diagrams import group_advantages, one_turn, shared_beginnings
from rlvr_kit.measure.live_chart import step_table
from rlvr_kit.measure.tables import text_table
from rlvr_kit.run_folder import Run


def test_a_models_words_are_text_and_never_html():
    html = text_table(pd.DataFrame({"<b>": ["<script>alert(1)</script> <think>\n2"]})).to_html()
    assert "<script>" not in html and "<think>" not in html and "<b>" not in html
    assert "&lt;script&gt;" in html and "text-align: left" in html and "pre-wrap" in html


def test_an_index_is_shown_where_asked_for():
    rows = pd.DataFrame({"n": [1]}, index=["only <this>"])
    assert "only" not in text_table(rows).to_html()
    assert "only &lt;this&gt;" in text_table(rows, index=True).to_html()


def test_new_lines_are_marked_and_intervals_stay_whole():
    html = text_table(
        pd.DataFrame({"a": ["So.\n#### 7", "5% (2% to 13%) of 64"], "b": [None, 0.126]})
    ).to_html()
    assert "So. ⏎\n#### 7" in html and "5%\u00a0(2%\u00a0to\u00a013%) of 64" in html.replace(
        "&nbsp;", "\u00a0"
    )
    assert ">none<" in html and ">0.13<" in html


@pytest.mark.parametrize(
    "prompt",
    [
        [{"role": "system", "content": "Solve it."}, {"role": "user", "content": "What is 2+2?"}],
        "Solve it.\n\nQuestion: What is 1+1?\nAnswer: #### 2\n\nQuestion: What is 2+2?\nAnswer:",
    ],
    ids=["chat", "plain text"],
)
def test_step_table_shows_the_question_without_instruction_and_exemplars(prompt, tmp_path):
    (tmp_path / "completions").mkdir()
    row = {"step": 1, "prompt": prompt, "completion": "4", "format": 0.0, "advantage": 0.0}
    pd.DataFrame([row]).to_parquet(tmp_path / "completions" / "completions_00001.parquet")
    assert step_table(Run(tmp_path)).question.tolist() == ["What is 2+2?"]


def test_the_arrows_of_the_first_picture_end_at_the_boxes():
    figure = one_turn()
    figure.canvas.draw()
    arrows = [text.arrow_patch for text in figure.axes[0].texts if getattr(text, "arrow_patch", None)]
    assert len(arrows) == 5 and all(isinstance(arrow, FancyArrowPatch) for arrow in arrows)
    assert all(arrow.patchA is not None and arrow.patchB is not None for arrow in arrows)


def test_advantages_are_coloured_by_their_sign():
    _, right = group_advantages([0, 1.5], [-0.7, 0.7]).axes
    down, up = right.patches
    assert down.get_facecolor() != up.get_facecolor() and down.get_height() < 0 < up.get_height()


def test_sharing_computes_each_beginning_once():
    titles = [ax.get_title() for ax in shared_beginnings([("start", 10, 4), ("end", 5, 1)], 4).axes]
    assert titles == ["stock TRL: 60 token positions", "this kit: 30 token positions"]
