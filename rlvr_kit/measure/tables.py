"""Tables of text for a notebook: left-aligned, with all line breaks, and safe: a model's text is never run as HTML."""

from typing import Any

import pandas as pd


def text_table(rows: pd.DataFrame, *, index: bool = False, precision: int = 2) -> Any:
    """Return `rows` as a table for the last line of a cell or for ``display``. The index is shown only with `index`.

    >>> text_table(step_table(run, step=1))  # doctest: +SKIP
    """
    look = {"text-align": "left", "white-space": "pre-wrap", "vertical-align": "top"}
    style = rows.style.format(escape="html", precision=precision, na_rep="none")
    style = style.format_index(escape="html", axis=1).format_index(escape="html", axis=0)
    style = style.set_properties(**look).set_table_styles([{"selector": "th", "props": "text-align: left"}])
    return style if index else style.hide(axis="index")
