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
from numbers import Number
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
        except Exception as error:  # an answer of a kind that nobody thought of
            problem = f"{type(error).__name__}: {error}"
            text = (
                f"{WRONG} the check cannot read your answer ({problem}): is it of the kind that is asked for?"
            )
        print("\n".join(textwrap.fill(line, 110, break_long_words=False) for line in text.splitlines()))

    return shown


def run(answer: Callable[..., Any], *inputs: Any, like: Any = None) -> Any:
    """What the learner's function returns for copies of `inputs`.

    Raises NotDone where it returns ``...``; Wrong, with the inputs, where it returns nothing, fails, does not end, or
    returns something of another kind than `like`.
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
    except (Exception, SystemExit) as error:
        problem = f"{type(error).__name__}: {error}"
        hint = next((hint for sign, hint in _HINTS.items() if sign in problem), "")
        raise Wrong(f"for {shown(*inputs)} your function stops with {problem}{hint}") from None
    if result is ...:
        raise NotDone
    if result is None:
        raise Wrong(
            f"for {shown(*inputs)} your function returns nothing (None): does its `return` come last?"
        )
    if like is not None:
        _ask_for(like, result, inputs)
    return result


_HINTS = {
    "^": " (to the power of is ** in Python)",
    "positional argument": " (your function gets what stands behind 'for', and nothing else)",
    "identically-labeled": " (pandas compares rows with equal labels only: pair them with merge, or sort_index first)",
    "must match the size": " (the shapes do not fit: a value for each row must stay a column, of shape (rows, 1))",
    "SystemExit": " (exit() ends the whole program: use return)",
    "InvalidOperation": " (Decimal cannot read that text: what should come out then?)",
    "NameError": " (a name that is not defined here: is it spelled as in the first line of the function?)",
    "ZeroDivisionError": " (a division by zero: what should come out in that case?)",
    "IndexError": " (it asks for a place that is not there: is the list empty, or the index one too far?)",
    "ValueError": " (what should come out where a text is none that can be read, or a part is not found?)",
    "TypeError": " (often: a text where a number should be, or None)",
    "AttributeError": " (often: something was not found and is None, or a list is taken for an array)",
}


def numbers(value: Any) -> np.ndarray | None:
    """A number, or numbers in a list, an array or a tensor, as an array of complex ones; None for anything else."""
    if isinstance(value, str):
        return None
    try:
        array = np.asarray(value)
        plain = array.dtype.kind in "biufc" or all(isinstance(each, Number) for each in array.flat)
        return array.astype(complex) if plain else None
    except Exception:  # lists of unequal lengths, numbers without end, tensors that want a slope
        return None


def same(one: Any, other: Any) -> bool:
    """Whether two texts are equal, or two answers in numbers, up to a thousandth and in their shape as well."""
    a, b = numbers(one), numbers(other)
    if a is None or b is None:
        return isinstance(one, str) and isinstance(other, str) and one == other
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-3, atol=1e-6, equal_nan=True)


def kind(value: Any) -> str:
    """What sort of thing an answer is, in words.

    >>> kind("7"), kind(7), kind([1, 2]), kind(True), kind({7})
    ('a text', 'one number', '2 numbers', 'True or False', 'a thing of type set')
    """
    if isinstance(value, str):
        return "a text"
    array = numbers(value)
    if array is None:
        return f"a thing of type {type(value).__name__}"
    if np.isnan(array).any():
        return "with nan in it, which is no number"
    if array.imag.any():
        return "complex: something takes the root of a negative number"
    truth = np.asarray(value).dtype == bool
    if not array.ndim:
        return "True or False" if truth else "one number"
    return " by ".join(map(str, array.shape)) + (" times True or False" if truth else " numbers")


def _ask_for(like: Any, got: Any, inputs: tuple[Any, ...]) -> None:
    """Raise Wrong where an answer is of another kind than `like`."""
    if kind(got) != kind(like):
        raise Wrong(f"for {shown(*inputs)} this returns {shown(got)} ({kind(got)}); asked for: {kind(like)}")


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
    first = differ[0]
    _ask_for(expected[first], results[first], cases[first])
    if all(same(got, results[0]) for got in results) and not all(same(due, expected[0]) for due in expected):
        raise Wrong(
            f"whatever your function is given, it returns {shown(results[0])}: does it use its input?"
        )
    if not same(run(answer, *cases[first]), results[first]):
        raise Wrong(
            f"for {shown(*cases[first])} it returns another result each time: work it out, and do not draw it"
        )
    return cases[first], results[first], expected[first]


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
    if hasattr(value, "columns"):
        return f"a table of {len(value)} rows"
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
