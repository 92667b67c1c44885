"""Completions that no verifier should pay, fail on, or take long over: what a policy in training may come to write."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rlvr_kit.errors import InputError
from rlvr_kit.tasks.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

#: Repeated to any length, they show what a verifier takes long over: a parser, a pattern, a number.
REPEATED = {
    "letters": "a", "spaces": " ", "new lines": "\n", "marks": "#", "digits": "1", "quotes": '"', "commas": ",",
    "brackets": "[", "nested objects": '{"a":', "nested calls": "(", "angle brackets": "<a>", "minus signs": "-",
}  # fmt: skip
#: Seconds after which a verifier that still reads one text is said to hang.
PATIENCE = 2.0
#: Text that leaves a mark where somebody runs it as code: a module of this name.
CANARY = "rlvr_kit_ran_the_text_of_a_model"
CODE = f"__import__('sys').modules.setdefault('{CANARY}', 1)"


def hostile_texts(length: int = 10_000) -> Iterator[tuple[str, str]]:
    """(name, text): nothing, characters that break things, and each of ``REPEATED`` up to `length` characters."""
    yield "empty", ""
    yield "blank", " \n\t\r\n "
    yield "control characters", "".join(map(chr, range(32))) + "\x7f\x85\u2028\u2029"
    yield "bidirectional characters", "\u202e18\u202c \u2066{}\u2069 \u200f\u200b\ufeff"
    yield "combining marks", "e" + "\u0301" * 100
    yield "numbers that are none", "nan inf -inf 1e999 0x10 \u0661\u0668 \u00bd"
    yield "braces", "{} {0} {x!r} %s %(a)s \\ \\u0000 \\x"
    for name, part in REPEATED.items():
        yield f"{length:,} characters of {name}", part * (length // len(part))


def refuse_broken(task: Task, rows: "Dataset") -> None:
    """Raise UserError, before anything is trained, when the task's verifier raises on an answer or a hostile text."""
    for i, row in enumerate(rows.select(range(min(8, len(rows)))).to_list()):
        if problem := task.gold_problem(row["gold"]):
            raise InputError(
                f"{task.name}: training row {i}, counted from 0, {row['question'][:60]!r}: {problem}"
            )
        task.verify(row["answer"], row["gold"])
    for name, text in hostile_texts():
        try:
            with limited(PATIENCE):
                task.verify(text, rows[0]["gold"])
        except TookTooLong:
            raise InputError(f"{task.name}: verify has no verdict on {name} after {PATIENCE:g} s") from None


class TookTooLong(BaseException):
    """Raised inside a verifier by `limited`; no Exception, so that its own ``except`` does not swallow it."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TookTooLong in what takes more of the processor's time.

    Signals reach the main thread alone, and Windows has not this one: there nothing is limited.
    """

    def stop(*_: Any) -> None:
        raise TookTooLong

    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGVTALRM"):
        yield
        return
    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
