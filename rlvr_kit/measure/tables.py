"""Tables of text for a notebook: aligned left, line breaks marked by ⏎, and a model's text is never run as HTML."""

import re
from typing import Any

import pandas as pd

_SHARE = re.compile(r"\S+ \([\d.]+ ?%? to [\d.]+ ?%?\)")


def text_table(rows: pd.DataFrame, *, index: bool = False, precision: int = 2) -> Any:
    """Return `rows` as a table for the last line of a cell or for ``display``. The index is shown only with `index`.

    A new line in a text is shown as ⏎ and a line break. A share with its interval is never broken.

    >>> text_table(step_table(run, step=1))  # doctest: +SKIP
    """
    look = {"text-align": "left", "white-space": "pre-wrap", "vertical-align": "top"}
    style = rows.map(_shown).style.format(escape="html", precision=precision, na_rep="none")
    style = style.format_index(escape="html", axis=1).format_index(escape="html", axis=0)
    style = style.set_properties(**look).set_table_styles([{"selector": "th", "props": "text-align: left"}])
    return style if index else style.hide(axis="index")


def _shown(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    return _SHARE.sub(lambda found: found[0].replace(" ", "\u00a0"), cell.replace("\n", " ⏎\n"))
