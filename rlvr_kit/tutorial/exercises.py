"""Exercises that correct themselves, and predictions that get an answer.

An exercise is a cell tagged ``exercise``. It sets the name that it is about to ``...`` ("nothing here yet"), and
the learner's part stands between ``### BEGIN SOLUTION`` and ``### END SOLUTION``, nbgrader's markers. The next cell,
tagged ``check``, calls a check of ``rlvr_kit.tutorial.checks``, which says what is right or wrong with the answer:

    ✔ Right, because …      ✘ Not yet: …      ☐ Not done yet: …

A check compares with a reference on several inputs first. Only where the two differ does it look for the cause, among
the mistakes that people make. It never raises, so the rest of the notebook runs whatever the learner wrote.
"""

import copy
import functools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from IPython.display import Markdown, display
from ipywidgets import RadioButtons

from rlvr_kit.errors import InputError
from rlvr_kit.tasks.hostile import TookTooLong, limited

RIGHT, WRONG, NOT_DONE = "✔ Right, because", "✘ Not yet:", "☐ Not done yet:"
#: Seconds of the processor's time after which an answer is said not to end.
PATIENCE = 5.0


class Wrong(Exception):
    """An answer is wrong; the message is what a teacher would say about it."""


class NotDone(Exception):
    """The answer is still the three dots of the empty exercise."""


def check(judge: Callable[..., str]) -> Callable[..., None]:
    """Make a check of `judge`, which returns the reason why an answer is right or raises Wrong; it prints the mark.

    >>> @check
    ... def check_sum(answer):
    ...     if answer != 7:
    ...         raise Wrong(f"3 + 4 is not {answer}")
    ...     return "3 + 4 is 7"
    >>> check_sum(7)
    ✔ Right, because 3 + 4 is 7
    """

    @functools.wraps(judge)
    def shown(*answers: Any) -> None:
        try:
            if any(answer is ... for answer in answers):
                raise NotDone
            text = f"{RIGHT} {judge(*answers)}"
        except NotDone:
            text = f"{NOT_DONE} write your code in the cell above, then run that cell and this one again"
        except Wrong as reason:
            text = f"{WRONG} {reason}"
        print("\n".join(textwrap.fill(line, 110, break_long_words=False) for line in text.splitlines()))

    return shown


def run(answer: Callable[..., Any], *inputs: Any) -> Any:
    """What the learner's function returns for copies of `inputs`.

    Raises NotDone where it returns ``...``; Wrong, with the inputs, where it returns nothing, fails, or does not end.
    """
    if not callable(answer):
        raise Wrong(f"this should be a function, and it is {shown(answer)}: run the cell above once more")
    try:
        with limited(PATIENCE):
            result = answer(*copy.deepcopy(inputs))
    except TookTooLong:
        raise Wrong(f"for {shown(*inputs)} your function has no answer after {PATIENCE:g} seconds") from None
    except (Wrong, NotDone):  # said by a check that looks into the answer itself
        raise
    except Exception as error:
        hint = (
            " (to the power of is ** in Python)"
            if "^" in str(error)
            else _HINTS.get(type(error).__name__, "")
        )
        problem = f"{type(error).__name__}: {error}"
        raise Wrong(f"for {shown(*inputs)} your function stops with {problem}{hint}") from None
    if result is ...:
        raise NotDone
    if result is None:
        raise Wrong(
            f"for {shown(*inputs)} your function returns nothing (None): does its `return` come last?"
        )
    return result


_HINTS = {
    "NameError": " (a name that is not defined here: is it spelled as in the first line of the function?)",
    "ZeroDivisionError": " (a division by zero: what should come out in that case?)",
    "IndexError": " (it asks for a place that is not there: is the list empty, or the index one too far?)",
    "ValueError": " (what should come out where a text is none that can be read, or a part is not found?)",
    "TypeError": " (often: a text where a number should be, or None)",
    "AttributeError": " (often: something was not found and is None, or a list is taken for an array)",
}


def same(one: Any, other: Any) -> bool:
    """Whether two answers are equal, numbers up to a thousandth, arrays and tensors in their shape as well."""
    if isinstance(one, str) or isinstance(other, str):
        return isinstance(one, str) and isinstance(other, str) and one == other
    try:
        a, b = (np.asarray(value, dtype=float) for value in (one, other))
    except (TypeError, ValueError, RuntimeError):
        return bool(one == other)
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-3, atol=1e-6, equal_nan=True)


def first_difference(
    answer: Callable[..., Any],
    reference: Callable[..., Any],
    cases: Sequence[tuple[Any, ...]],
    mistakes: Mapping[str, Callable[..., Any] | list[Callable[..., Any]]] = {},
) -> tuple[tuple[Any, ...], Any, Any] | None:
    """The first case (a tuple of inputs) for which `answer` differs from `reference`, with both results; else None.

    `mistakes` are functions with a mistake, one or a list, by what a teacher says about it. Where one of them gives the
    results of `answer` in all cases, it raises Wrong with that sentence.
    """
    results = [run(answer, *case) for case in cases]
    expected = [reference(*copy.deepcopy(case)) for case in cases]
    differ = [i for i in range(len(cases)) if not same(results[i], expected[i])]
    if not differ:
        return None
    for reason, known in mistakes.items():
        for mistaken in known if isinstance(known, list) else [known]:
            if all(same(_or_none(mistaken, case), got) for case, got in zip(cases, results, strict=True)):
                raise Wrong(reason)
    if all(same(got, results[0]) for got in results) and not all(same(due, expected[0]) for due in expected):
        raise Wrong(
            f"whatever your function is given, it returns {shown(results[0])}: does it use its input?"
        )
    return cases[differ[0]], results[differ[0]], expected[differ[0]]


def _or_none(mistaken: Callable[..., Any], case: tuple[Any, ...]) -> Any:
    """What a mistaken function returns; None, which no answer equals, where it fails."""
    try:
        return mistaken(*copy.deepcopy(case))
    except Exception:
        return None


def shown(*values: Any) -> str:
    """Values as a sentence shows them: short, arrays and tensors as lists with few digits."""
    return ", ".join(textwrap.shorten(_plain(value), 70, placeholder=" …") for value in values)


def _plain(value: Any) -> str:
    if callable(getattr(value, "tolist", None)):
        value = value.tolist()
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return f"[{', '.join(map(_plain, value))}]"
    return repr(value)


def predict(question: str, choices: list[str], chosen: str | None = None) -> RadioButtons:
    """Show `question` with a button for each choice, before the cell that answers it; `chosen` chooses without a click.

    >>> guess = predict("Which of the two is larger?", ["the first", "the second"])  # doctest: +SKIP
    """
    if chosen is not None and chosen not in choices:
        raise InputError(f"{chosen!r} is none of the choices: {', '.join(choices)}")
    display(Markdown(f"**Answer before you read on:** {question} *{' / '.join(choices)}*"))
    buttons = RadioButtons(options=choices, value=chosen, layout={"width": "max-content"})
    display(buttons)
    return buttons


def reveal(guess: RadioButtons, answer: str, because: str) -> Markdown:
    """What came out beside what was predicted, as the last line of a cell. `answer` is one of the choices.

    >>> reveal(guess, "the second", "it was measured with more problems.")  # doctest: +SKIP
    """
    if answer not in guess.options:
        raise InputError(f"{answer!r} is none of the choices: {', '.join(guess.options)}")
    if guess.value is None:
        said = "The answer is"
    else:
        said = "You were right:" if guess.value == answer else f"You said *{guess.value}*. It is"
    return Markdown(f"> {said} **{answer}**. {because[:1].upper()}{because[1:]}")
