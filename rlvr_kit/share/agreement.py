"""Is it the same model? Answers to the same problems, compared letter by letter, and a sentence chosen by rule."""

import pandas as pd

#: Up to this share of differing answers is called rounding: greedy decoding near a tie falls on either side.
ROUNDING = 0.05


def agreement(reference: pd.DataFrame, ways: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One line for each of the ``ways``, whose rows answer the problems of ``reference``: equal and right answers."""
    return pd.DataFrame(
        {
            way: {
                "equal answers": int((rows.completion == reference.completion).sum()),
                "n": len(rows),
                "right, strict": int(rows.correct.sum()),
                "right, lenient": int(rows.lenient_correct.sum()),
            }
            for way, rows in {"the run's own": reference, **ways}.items()
        }
    ).T


def agreement_sentence(table: pd.DataFrame) -> str:
    """What the table of :func:`agreement` says about sameness, by rule.

    >>> agreement_sentence(agreement(rows, {"merged": rows}))  # doctest: +SKIP
    'All 48 answers are equal, letter by letter, in every way: it is the same model.'
    """
    differing, n = (table["n"] - table["equal answers"]).max(), int(table["n"].max())
    if differing == 0:
        return f"All {n} answers are equal, letter by letter, in every way: it is the same model."
    at_most = f"Up to {differing} of {n} answers differ"
    if differing <= ROUNDING * n:
        return f"{at_most}: near-ties, which rounding decides. It is the same model."
    return f"{at_most}: this is not the same model. Is it the right base, prompt and number format?"
