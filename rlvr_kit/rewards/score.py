"""Score completions from any source: JSON lines go in, and the same lines come out with their verdicts."""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import redirect_stdout
from typing import TextIO

from rlvr_kit.errors import InputError, UserError
from rlvr_kit.measure.statistics import wilson_interval
from rlvr_kit.tasks.task import NUMBERS, Task, load_task


def score_lines(lines: Iterable[str], out: TextIO, err: TextIO, task: Task = NUMBERS) -> int:
    """Judge rows with ``completion`` and ``gold`` (or ``answer``: a number or a solution that ends ``#### N``).

    The verifier is that of `task`, by default the one for numbers. Each row goes to `out` with the fields of its
    `Verdict` added. The shares go to `err`, with n and 95 % intervals. A row that cannot be judged is reported there
    by its line number, and the other rows are still judged. Returns the exit code: 1 if there was such a row, or
    nothing to judge.

    >>> import io, sys
    >>> score_lines(['{"completion": "9 * 2 = 18\\\\n#### 18", "gold": 18}'], sys.stdout, io.StringIO())
    ... # doctest: +ELLIPSIS
    {"completion": "9 * 2 = 18\\n#### 18", "gold": 18, "format_ok": true, "correct": true, ...}
    0
    """
    bad, total = 0, Counter[str]()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            completion, gold = _fields(row, task)
            verdict = task.verify(completion, gold)
        except (ValueError, RecursionError, UserError) as problem:
            print(f"line {number}: {problem}", file=err)
            bad += 1
            continue
        row["format_ok"], row["correct"] = verdict.format_ok, verdict.correct
        row["lenient_correct"] = verdict.lenient_correct
        row["extracted"], row["why"] = verdict.extracted, verdict.why
        if verdict.partial is not None:
            row["partial"] = verdict.partial
        out.write(json.dumps(row) + "\n")
        total["judged"] += 1
        for share in ("correct", "lenient_correct", "format_ok"):
            total[share] += row[share]
    n = total.pop("judged", 0)
    for share, k in total.items():
        low, high = wilson_interval(k, n)
        print(f"{share:16}{k / n:6.1%}  (n={n}, 95 % interval {low:.1%} to {high:.1%})", file=err)
    if bad or not n:
        print(f"{n} rows judged, {bad} could not be", file=err)
    return int(bad > 0 or n == 0)


def score_file(name: str, task: str | None = None) -> int:
    """Run `score_lines` on a file, or on stdin for ``-``. Verdicts go to stdout, the summary to stderr.

    `task` names the task whose verifier judges. Bytes that are not UTF-8 are kept, as lone surrogates.
    Raises UserError when the file cannot be opened or the task cannot be loaded.

    >>> score_file("completions.jsonl", "orders")  # doctest: +SKIP
    0
    """
    source = sys.stdin.fileno() if name == "-" else name
    try:
        lines = open(source, encoding="utf-8-sig", errors="surrogateescape", closefd=name != "-")  # noqa: SIM115
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from None
    out = sys.stdout
    with lines, redirect_stdout(sys.stderr):  # what a task's file prints is no verdict
        return score_lines(lines, out, sys.stderr, load_task(task) if task else NUMBERS)


def _fields(row: object, task: Task) -> tuple[str, str]:
    """Return the completion and the gold of one row. Raises UserError that says what is wrong with the row."""
    if not isinstance(row, dict) or not isinstance(row.get("completion"), str):
        raise InputError("the line must be a JSON object with a text 'completion'")
    gold = row.get("gold", row.get("answer"))
    if isinstance(gold, bool) or not isinstance(gold, str | int | float):
        raise InputError("the row needs a 'gold' or an 'answer' that is a number or a text")
    text = task.read_gold(str(gold))
    if problem := task.gold_problem(text):
        raise InputError(problem)
    return row["completion"], text
