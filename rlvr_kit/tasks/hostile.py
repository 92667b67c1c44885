"""Hostile completions: texts that a policy in training may write, and that no verifier may pay, fail on or hang on."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rlvr_kit.errors import InputError
from rlvr_kit.tasks.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

#: Repeated many times, each of these is slow for some kind of verifier: a parser, a pattern, a number's reader.
REPEATED = {
    "letters": "a", "spaces": " ", "new lines": "\n", "marks": "#", "digits": "1", "quotes": '"', "commas": ",",
    "brackets": "[", "nested objects": '{"a":', "nested calls": "(", "angle brackets": "<a>", "minus signs": "-",
}  # fmt: skip
#: Seconds of processor time on one text after which a verifier is said to hang.
PATIENCE = 2.0
#: When somebody runs the text ``CODE`` as code, it leaves a mark: an entry of this name in ``sys.modules``.
CANARY = "rlvr_kit_ran_the_text_of_a_model"
CODE = f"__import__('sys').modules.setdefault('{CANARY}', 1)"


def hostile_texts(length: int = 10_000) -> Iterator[tuple[str, str]]:
    """Yield (name, text): nothing, characters that break things, and each of ``REPEATED`` up to `length` characters.

    >>> dict(hostile_texts(100))["100 characters of minus signs"][:5]
    '-----'
    """
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
    """Raise UserError when the task's verifier fails or hangs on one of `rows` or on a hostile text.

    A training calls it first, so that such a verifier does not end the run in the middle.
    """
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
    """Raised by `limited` inside a verifier. It is no Exception: a verifier's own ``except Exception`` lets it pass."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TookTooLong inside the block when it takes more than `seconds` of processor time.

    Only the main thread receives signals, and Windows does not have this signal: there nothing is limited.
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
