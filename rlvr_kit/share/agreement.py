"""Is it the same model? Compare answers to the same problems letter by letter, and say by rule what that shows."""

import pandas as pd

from rlvr_kit.measure.statistics import share_text

#: Up to this share of different answers counts as rounding: near a tie, greedy decoding may take either token.
ROUNDING = 0.05


def agreement(reference: pd.DataFrame, ways: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Count the equal answers of each of the ``ways``, whose rows answer the problems of ``reference``.

    Beside them stand the shares of right answers as text, with their intervals at 95 %.

    >>> agreement(rows, {"merged": rows}).loc["merged", "equal answers"]  # doctest: +SKIP
    48
    """
    return pd.DataFrame(
        {
            way: {
                "equal answers": int((rows.completion == reference.completion).sum()),
                "n": len(rows),
                "right, strict": share_text(rows.correct.mean(), len(rows)),
                "right, lenient": share_text(rows.lenient_correct.mean(), len(rows)),
            }
            for way, rows in {"the run's own": reference, **ways}.items()
        }
    ).T


def agreement_sentence(table: pd.DataFrame) -> str:
    """Say by rule whether the table of :func:`agreement` shows the same model.

    >>> agreement_sentence(agreement(rows, {"merged": rows}))  # doctest: +SKIP
    'All 48 answers are equal, letter by letter, in every way: it is the same model.'
    """
    differing, n = (table["n"] - table["equal answers"]).max(), int(table["n"].max())
    if differing == 0:
        return f"All {n} answers are equal, letter by letter, in every way: it is the same model."
    at_most = f"Up to {differing} of {n} answers differ"
    if differing <= ROUNDING * n:
        return f"{at_most}: rounding decides near-ties. It is the same model."
    return f"{at_most}: this is not the same model. Check its base, its prompt and its number format."
