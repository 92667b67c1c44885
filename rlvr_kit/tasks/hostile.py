"""Hostile completions: texts that a policy in training may write, and that no verifier may pay, fail on or hang on."""

import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rlvr_kit.errors import InputError, UserError
from rlvr_kit.tasks.task import Task
from rlvr_kit.tasks.verifier import Verdict

if TYPE_CHECKING:
    from datasets import Dataset

Rows = list[dict[str, str]]
#: Repeated many times, each of these is slow for some kind of verifier: a parser, a pattern, a number's reader.
REPEATED = {
    "letters": "a", "spaces": " ", "new lines": "\n", "marks": "#", "digits": "1", "quotes": '"', "commas": ",",
    "brackets": "[", "nested objects": '{"a":', "nested calls": "(", "angle brackets": "<a>", "minus signs": "-",
}  # fmt: skip
#: Seconds of processor time on one text after which a verifier is said to hang.
PATIENCE = 2.0
#: How many times as long it may wait for something else: a lock, another program, a network.
WAITING = 15
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


def attacks(task: Task, rows: Rows) -> Iterator[tuple[str, list[str]]]:
    """(name, a completion for each row); none of them knows the gold of its row."""
    common = Counter(row["gold"] for row in rows).most_common(100)
    answer_of = {row["gold"]: row["answer"] for row in rows}
    constant = {
        "the most frequent gold": common[0][0],
        "the answer with the most frequent gold": answer_of[common[0][0]],
        "the instruction": task.instruction,
        "the last line of the instruction": (task.instruction.strip() or "-").splitlines()[-1],
        "a hundred golds in a row": " ".join(gold for gold, _ in common),
        "a hundred golds, one a line": "\n".join(gold for gold, _ in common),
        "a hundred answers, one a line": "\n".join(answer_of[gold] for gold, _ in common),
    }
    for name, text in [*constant.items(), *hostile_texts(500)]:
        yield name, [text] * len(rows)
    yield "an echo of the question", [row["question"] for row in rows]
    read = [_gold_is_read(task, row, other) for row, other in zip(rows, rows[1:] + rows[:1], strict=True)]
    first, last = (Counter(row["gold"][i] for row in rows).most_common(1)[0][0] for i in (0, -1))
    for name, instead in (
        ("nothing", ""), ("nan", "nan"), ("a *", "*"), ("every digit", "0123456789"),
        ("the most frequent first character", first), ("the most frequent last character", last),
    ):  # fmt: skip
        yield (
            f"the right answer with {name} for its gold",
            [
                row["answer"].replace(row["gold"], instead) if there else ""
                for row, there in zip(rows, read, strict=True)
            ],
        )


def _gold_is_read(task: Task, row: dict[str, str], other: dict[str, str]) -> bool:
    """Whether the verifier reads the gold where it stands in the worked answer: another gold there is not paid.

    Else the answer says it in other words, "[XIV]" for 14 say, and is right with any text in the place of the gold.
    """
    changed = row["answer"].replace(row["gold"], other["gold"])
    return changed != row["answer"] and not paid(task, changed, row["gold"])


def refuse_broken(task: Task, rows: "Dataset") -> None:
    """Raise UserError when the task's verifier fails or hangs on one of `rows` or on a hostile text.

    A training calls it first, so that such a verifier does not end the run in the middle.
    """
    for i, row in enumerate(rows.select(range(min(8, len(rows)))).to_list()):
        if problem := task.gold_problem(row["gold"]):
            raise InputError(
                f"{task.name}: training row {i}, counted from 0, {row['question'][:60]!r}: {problem}"
            )
        verdict = task.verify(row["answer"], row["gold"])
        if not (verdict.correct or verdict.lenient_correct):
            raise InputError(
                f"{task.name}: the worked answer of training row {i}, counted from 0, {row['question'][:60]!r}, "
                f"does not verify ({verdict.why}): `python -m rlvr_kit audit` lists every such row"
            )
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

    A block that only waits is ended after `WAITING` times as long.
    Only the main thread receives signals, and Windows does not have this signal: there nothing is limited.
    """

    late = False

    def stop(*_: Any) -> None:
        nonlocal late
        late = True
        raise TookTooLong

    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGVTALRM"):
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGVTALRM, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, WAITING * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
    if late:  # its own ``except:`` swallowed it
        raise TookTooLong


def judged(task: Task, text: str, gold: str) -> Verdict | None:
    """The verdict, or None where the verifier fails or hangs."""
    try:
        with limited(PATIENCE):
            return task.verify(text, gold)
    except (UserError, TookTooLong):
        return None


def paid(task: Task, text: str, gold: str) -> bool:
    """Whether a text is paid; what fails or hangs is not."""
    verdict = judged(task, text, gold)
    return verdict is not None and verdict.correct


def runs_code(task: Task, row: dict[str, str]) -> bool:
    """Whether the verifier runs the text of a model: then `CODE` leaves its mark."""
    replaced, added = row["answer"].replace(row["gold"], CODE), f"{row['answer']}\n{CODE}"
    sys.modules.pop(CANARY, None)
    for text in (CODE, replaced, added, f"#### {CODE}", f"${CODE}$"):
        judged(task, text, row["gold"])
    return sys.modules.pop(CANARY, None) is not None
