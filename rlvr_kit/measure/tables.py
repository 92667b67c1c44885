"""Tables of text for a notebook: left-aligned, with every line break, and with a model's words never run as HTML."""

from typing import Any

import pandas as pd


def text_table(rows: pd.DataFrame, *, index: bool = False, precision: int = 2) -> Any:
    """`rows` as a table to read, for the last line of a cell or for ``display``; the index only where asked for.

    >>> text_table(step_table(run, step=1))  # doctest: +SKIP
    """
    look = {"text-align": "left", "white-space": "pre-wrap", "vertical-align": "top"}
    style = rows.style.format(escape="html", precision=precision, na_rep="none")
    style = style.format_index(escape="html", axis=1).format_index(escape="html", axis=0)
    style = style.set_properties(**look).set_table_styles([{"selector": "th", "props": "text-align: left"}])
    return style if index else style.hide(axis="index")
