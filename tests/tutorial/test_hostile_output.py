"""A model's completions are shown as text in every table of the notebooks and in the report: nothing in them runs."""

import ast
from types import SimpleNamespace
from typing import Any

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from rlvr_kit import Run, step_table
from rlvr_kit.paths import PROJECT
from rlvr_kit.tutorial.report import build_report

HOSTILE = [
    "<img src=x onerror=alert(1)> #### 2",
    "<think>Half of it.</think>\n#### 3",
    "<script>document.title = 'owned'</script> #### 1",
    "</td></table><iframe src='https://example.org'></iframe>",
    "[click](javascript:alert(1)) $<b>$ &lt;b&gt;",
]


def rows() -> pd.DataFrame:
    """What an evaluation keeps, with these completions."""
    table = pd.DataFrame(
        {"problem": range(len(HOSTILE)), "sample": 0, "question": HOSTILE, "completion": HOSTILE}
    )
    table = table.assign(
        gold="1", kind="seen", extracted=None, format_ok=False, correct=False, lenient_correct=True
    )
    return table.assign(truncated=False, why="no marker: <b>none</b>", prompt=HOSTILE, tokens=3, made_by="x")


def source(notebook: str, cell: str) -> str:
    cells = nbformat.read(PROJECT / "notebooks" / notebook, as_version=4).cells
    return next(each.source for each in cells if each.id == cell)


def shown(code: str, **names: Any) -> Any:
    """The value of the last line of a cell."""
    *lines, last = ast.parse(code).body
    exec(compile(ast.Module(lines, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def hostile_run(tmp_path: Any) -> Run:
    (tmp_path / "completions").mkdir()
    chat = [[{"role": "assistant", "content": text}] for text in HOSTILE]
    prompts = [[{"role": "user", "content": text}] for text in HOSTILE]
    table = pd.DataFrame({"step": 1, "prompt": prompts, "completion": chat, "format": 0.0, "why": HOSTILE})
    table.to_parquet(tmp_path / "completions" / "completions_00001.parquet")
    return Run(tmp_path)


def tables(tmp_path: Any) -> dict[str, Any]:
    """Every table in the notebooks that shows what a model wrote."""
    from rlvr_kit.measure.tables import text_table

    recipe = SimpleNamespace(model=SimpleNamespace(name="m"), task="word_problems")
    both = {"base": None, "tuned": None}
    _, judged, table = source("02_rewards.ipynb", "c33").partition(
        'wrote["rule"]'
    )  # after a model has answered
    return {
        "02": shown(judged + table, wrote=rows(), recipe=recipe, source="x", text_table=text_table),
        "04": shown(source("04_baseline.ipynb", "c14"), base=type("Base", (), {"rows": rows()})),
        "06": step_table(hostile_run(tmp_path)),
        "09": shown(source("09_compare.ipynb", "c23") + "\nshow(pairs)", base=rows(), tuned=rows(), both=both),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["02", "04", "06", "09"])
def test_tables_show_completions_as_text(name: str, tmp_path: Any) -> None:
    page = BeautifulSoup(tables(tmp_path)[name]._repr_html_(), "html.parser")
    for style in page.find_all("style"):
        style.decompose()
    assert not page.find_all(["script", "img", "iframe", "think", "b"])
    assert "<think>Half of it.</think>" in page.get_text() and "onerror=alert(1)" in page.get_text()


def test_styled_tables_escape_what_a_model_wrote() -> None:
    """A styled table (unlike a plain one) does not escape by itself."""
    for path in sorted((PROJECT / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code" and ".style" in cell.source and "completion" in cell.source:
                own = path.stem[:2] in ("00", "07")  # completions typed in the cell, and a count of tokens
                assert own or 'escape="html"' in cell.source, (path.name, cell.id)


def test_nothing_in_the_report_runs_even_where_a_notebook_forgot_to_escape(
    tmp_path: Any, figures: dict
) -> None:
    outputs = [
        new_output("display_data", {"text/html": f"<table><tr><td>{text}</td></tr></table>"})
        for text in HOSTILE
    ]
    outputs += [new_output("stream", name="stdout", text="\n".join(HOSTILE))]
    outputs += [new_output("display_data", {"text/markdown": text}) for text in HOSTILE]
    outputs += [new_output("display_data", {"text/html": rows().to_html()})]
    cells = [new_markdown_cell("# Hostile"), new_code_cell("show()", outputs=outputs)]
    nbformat.write(new_notebook(cells=cells), tmp_path / "hostile.ipynb")

    text = build_report(
        [tmp_path / "hostile.ipynb"], figures | {"subject": "<b><script>", "room": "<script>"}, "<script>"
    )
    page = BeautifulSoup(text, "html.parser")
    section = page.find("section", id="hostile")
    assert len(page.find_all("script")) == 1 and not section.find_all(
        ["script", "iframe", "object"]
    )  # one is the page's
    assert not [tag for tag in page.find_all(True) for name in tag.attrs if name.startswith("on")]
    assert not [tag for tag in page.find_all(href=True) if "javascript:" in tag["href"]]
    assert "<think>Half of it.</think>" in section.get_text()  # as text, from the stream and the plain table
