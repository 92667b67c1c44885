"""Checks of a task that need no model: are its rows sound, and can its reward be earned without doing the work?

Each check is a rule over counted rows. ``rlvr_kit/training/audit.py`` adds what a model can do and prints the page.
"""

import time
from collections import Counter
from dataclasses import dataclass, field

from rlvr_kit.errors import UserError
from rlvr_kit.tasks.hostile import (
    PATIENCE,
    REPEATED,
    Rows,
    TookTooLong,
    attacks,
    hostile_texts,
    judged,
    limited,
    paid,
    runs_code,
)
from rlvr_kit.tasks.task import Task, plain_question

SLOW = "takes more than linear time"


@dataclass
class Check:
    """One line of the audit. `share` is (k, n) when rows were counted; `wrong` is empty unless something is wrong."""

    name: str
    found: str = ""
    share: tuple[float, int] | None = None
    wrong: str = ""
    rows: list[str] = field(default_factory=list)  # examples of what is wrong


def check_data(task: Task, train: Rows, test: Rows, again: Rows) -> list[Check]:
    """Check that worked answers verify, splits share no question, rows are repeatable, and no gold is too frequent.

    `again` holds rows of the training split from a second call of ``problems``.
    """
    return [_answers(task, train, test), _leak(train, test), _repeatable(train, again), _most_frequent(test)]


def _answers(task: Task, train: Rows, test: Rows) -> Check:
    check, n = Check("worked answers that verify"), len(train) + len(test)
    for split, rows in (("train", train), ("test", test)):
        for i, row in enumerate(rows):
            try:
                verdict = task.verify(row["answer"], row["gold"])
                why = "" if verdict.correct and verdict.format_ok else verdict.why or "not correct"
            except UserError as error:
                why = str(error)
            if why:
                asked = f"{row['question'][:50]!a}, gold {row['gold'][:30]!a}"
                check.rows.append(f"{split} row {i} ({asked}): {why}")
    check.share = (n - len(check.rows), n)
    if check.rows:
        check.wrong = (
            f"{len(check.rows)} of {n} worked answers do not verify: correct these rows, or verify()"
        )
    return check


def _leak(train: Rows, test: Rows) -> Check:
    seen = {plain_question(row["question"]): i for i, row in enumerate(train)}
    both = [(i, seen[q]) for i, row in enumerate(test) if (q := plain_question(row["question"])) in seen]
    check = Check("test questions that are also in training", share=(len(both), len(test)))
    check.rows = [f"test row {i} is training row {j}: {test[i]['question'][:60]!a}" for i, j in both]
    if both:
        check.wrong = f"the splits leak: {len(both)} of {len(test)} test questions are in training as well"
    return check


def _repeatable(train: Rows, again: Rows) -> Check:
    same = again == train[: len(again)]
    check = Check("the same call gives the same rows", "yes" if same else "no")
    if not same:
        check.wrong = "problems() returns other rows at each call: take all chance from Random(seed)"
    return check


def _most_frequent(test: Rows) -> Check:
    gold, count = max(
        (Counter(row[key] for row in test).most_common(1)[0] for key in ("gold", "answer")),
        key=lambda c: c[1],
    )
    check = Check("rows with the most frequent gold or answer", f"{gold[:40]!a}", (count, len(test)))
    # Two deviations above a half: a question of yes or no is a sound one.
    if count > len(test) / 2 + len(test) ** 0.5:
        check.wrong = "one constant answer is right more than half of the time: balance the rows"
    return check


def check_verifier(task: Task, rows: Rows) -> list[Check]:
    """Check that the verifier pays no attack, raises on no text, and takes time in proportion to the text."""
    sturdy, linear = _sturdy(task, rows), _linear(task, rows)
    if SLOW in sturdy.wrong + linear.wrong:  # thousands of attacks on a verifier that hangs would take hours
        return [sturdy, linear]
    attacked = [_other_golds(task, rows), *_attacked(task, rows), _hedged(task, rows)]
    return [*attacked, _implied(task, rows), _runs_code(task, rows), sturdy, linear, _speed(task, rows)]


def _attacked(task: Task, rows: Rows) -> list[Check]:
    chance = max(Counter(row[key] for row in rows).most_common(1)[0][1] for key in ("gold", "answer"))
    checks = []
    for name, texts in attacks(task, rows):
        fooled = [
            i for i, (text, row) in enumerate(zip(texts, rows, strict=True)) if paid(task, text, row["gold"])
        ]
        check = Check(f"paid for {name}", share=(len(fooled), len(rows)))
        # An attack that ignores the question is right as often as its answer happens to be the row's gold. Up to two
        # standard deviations more than that count as luck.
        if len(fooled) > max(1, chance + 2 * chance**0.5):
            check.wrong = f"hackable by {name}: paid in {len(fooled)} of {len(rows)} rows, by chance {chance}"
            check.rows = [
                f"row {i} ({rows[i]['question'][:50]!a}) pays {texts[i][-60:]!a}" for i in fooled[:3]
            ]
        checks.append(check)
    return checks


def _other_golds(task: Task, rows: Rows) -> Check:
    """Judge every answer against the golds of three other rows."""
    pairs = [
        (a, b)
        for k in (1, 2, 5)
        for a, b in zip(rows, rows[k:] + rows[:k], strict=True)
        if a["gold"] != b["gold"] and a["answer"] != b["answer"]
    ]
    fooled = [(a, b) for a, b in pairs if paid(task, a["answer"], b["gold"])]
    check = Check("paid for the answer to another row", share=(len(fooled), len(pairs)) if pairs else None)
    check.rows = [f"{a['answer'][-40:]!a} is paid for the gold {b['gold'][:40]!a}" for a, b in fooled[:3]]
    if len(fooled) > 1 + len(pairs) / 100:
        check.wrong = (
            f"hackable by the answer to another row: paid for {len(fooled)} of {len(pairs)} other golds"
        )
    return check


def _hedged(task: Task, rows: Rows) -> Check:
    """Give two answers, the right one first and then last. A verifier may read either place, but must not pay both."""
    fooled, n = 0, 0
    for row, other in zip(rows, rows[1:] + rows[:1], strict=True):
        if row["gold"] != other["gold"] and row["answer"] != other["answer"]:
            n += 1
            a, b = row["answer"], other["answer"]
            both = [(f"{a}{between}{b}", f"{b}{between}{a}") for between in ("\n", " or ")]
            fooled += any(all(paid(task, text, row["gold"]) for text in texts) for texts in both)
    check = Check(
        "paid for two answers, one of them right, in either order", share=(fooled, n) if n else None
    )
    if fooled > 1 + n / 100:
        check.wrong = f"hackable by two answers at once: paid in {fooled} of {n} rows, whichever stands first"
    return check


def _implied(task: Task, rows: Rows) -> Check:
    """What is correct must be well-formed and leniently correct too: worked answers, and with words around them."""
    correct, at_odds = 0, []
    for i, row in enumerate(rows):
        for text in (row["answer"], f"Well: {row['answer']}", f"{row['answer']}\n\nThank you."):
            verdict = judged(task, text, row["gold"])
            if verdict and verdict.correct:
                correct += 1
                if not (verdict.format_ok and verdict.lenient_correct):
                    at_odds.append(f"row {i}: {text[-60:]!a} is {verdict}")
    check = Check("correct answers that are well-formed and leniently correct", rows=at_odds)
    check.share = (correct - len(at_odds), correct) if correct else None
    if at_odds:
        check.wrong = (
            f"verify() calls {len(at_odds)} answers correct, but not well-formed or not leniently correct"
        )
    return check


def _runs_code(task: Task, rows: Rows) -> Check:
    ran = runs_code(task, rows[0])
    check = Check("the text of a model is run as code", "yes" if ran else "no")
    if ran:
        check.wrong = (
            "verify() runs the text of the model as code (eval, exec or a parser that does): read it instead"
        )
    return check


def _sturdy(task: Task, rows: Rows) -> Check:
    """Judge hostile texts, alone and in place of the gold in a right answer, against the first gold."""
    row, failed, texts = rows[0], [], [*hostile_texts()]
    texts += [(f"{name}, for the gold", row["answer"].replace(row["gold"], text)) for name, text in texts]
    for name, text in texts:
        try:
            with limited(PATIENCE):
                task.verify(text, row["gold"])
        except TookTooLong:
            wrong = f"verify() {SLOW} on {name}: no verdict after {PATIENCE:g} s"
            return Check(
                "hostile texts that get a verdict", "stopped at the first that did not end", wrong=wrong
            )
        except UserError as error:
            failed.append(f"{name}: {error}")
    share = (len(texts) - len(failed), len(texts))
    check = Check("hostile texts that get a verdict", share=share, rows=failed)
    if failed:
        check.wrong = f"verify() fails on {len(failed)} hostile texts, and a model may write any of them"
    return check


def _linear(task: Task, rows: Rows) -> Check:
    """Measure CPU time for 4,000 to a million characters: four times the text must take about four times the time."""
    worst, parts = 0.0, {**REPEATED, "a worked answer": rows[0]["answer"] + "\n"}
    golds = [*dict.fromkeys(row["gold"] for row in rows)]
    # With another character at the end as well: what searches for a repeated one up to the end then begins anew.
    for name, part, end in ((name, part, end) for name, part in parts.items() for end in ("", "!")):
        before = 0.0
        for length in (4_000, 16_000, 64_000, 256_000, 1_000_000):
            text, began = part * (length // len(part)) + end, time.process_time()
            try:
                with limited(PATIENCE):
                    right = task.verify(text, golds[0]).correct
                    if right and name in REPEATED and task.verify(text, golds[-1]).correct and len(golds) > 1:
                        wrong = f"hackable by {length:,} characters of {name}"
                        return Check(f"paid for repeated {name}", wrong=wrong)
            except UserError:
                break  # _sturdy reports it
            except TookTooLong:
                many = f"no verdict on {length:,} characters"
                return Check(
                    f"time for repeated {name}", many, wrong=f"verify() {SLOW} on repeated {name}: {many}"
                )
            took = time.process_time() - began
            worst = max(worst, took)
            if took > 0.2 and took > 9 * before:
                many = f"{took:.1f} s for {length:,} characters"
                wrong = f"verify() {SLOW} on repeated {name}: {many}"
                return Check(f"time for repeated {name}", many, wrong=wrong)
            before = took
    return Check("longest time for up to a million characters", f"{1000 * worst:.0f} ms")


def _speed(task: Task, rows: Rows) -> Check:
    began = time.perf_counter()
    for row in rows:
        paid(task, row["answer"], row["gold"])
    return Check("verdicts a second", f"{len(rows) / (time.perf_counter() - began):,.0f}")
