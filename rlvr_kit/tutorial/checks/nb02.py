"""The exercises of notebook 02: the verifier's next rule with its test, and a pattern that takes linear time."""

import re
from collections.abc import Callable
from time import process_time
from typing import Any

from rlvr_kit.tasks.hostile import TookTooLong, limited
from rlvr_kit.tasks.verifier import canonical_number
from rlvr_kit.tutorial.exercises import NotDone, Wrong, check, run, shown

Test = tuple[str, str, bool, str]
#: The tests of the notebook up to the exercise; the last one fails with `whole_text`.
TESTS: list[Test] = [
    ("16 - 3 - 4 = 9, and 9 * 2 = 18.\n#### 18", "18", True, "right, and as asked"),
    ("16 - 3 = 13, and 13 * 2 = 26.\n#### 26", "18", False, "wrong"),
    ("9 * 13 = 117, so\n#### 117", "17", False, "the gold is inside another number"),
    ("She has 16 eggs at $2.\n#### 32", "16", False, "the question repeated, gold and all"),
    (" ".join(str(i) for i in range(25)), "18", False, "counting past it"),
    ("540 * 2 = 1080\n#### 1,080", "1080", True, "right, written as people write it"),
    ("I am not sure.", "18", False, "no answer at all"),
    ("It is one of these.\n#### 18 or 19 or 20", "18", False, "hedging: several candidates"),
    ("So she has\n#### 36/2", "36", False, "a sum that is not worked out"),
    ("It got colder.\n#### -5", "5", False, "the wrong sign"),
    ("About that.\n#### 17.9999999999999999", "18", False, "not 18, except to a float"),
    ("#### 18", "18", False, "no reasoning: a bare guess"),
    ("The answer is #### 18", "18", False, "not a line of its own"),
    ("Half.\n##### 18", "18", False, "five marks"),
    ("One of these.\n#### 17\n#### 18", "18", False, "two answers, one of them right"),
    ("Half.\n#### 18\nNo, wait: 19.", "18", False, "a second thought after the answer"),
]
INVENTED: Test = ("It is 5.\nQuestion: What is 9*2?\n#### 18", "18", False, "answers a question of its own")
#: What the next rule must do besides, and what is the matter where it does not.
BEYOND: list[tuple[str, str, bool, str]] = [
    (
        "9 * 2 = 18\n#### 18\nQuestion: What is 4 + 4?\n#### 8", "18", True,
        "an answer that was given before the invented question still counts. The rule cuts; it does not punish",
    ),
    (
        "9 * 2 = 18\n#### 18\nQuestion: What is 4 + 4?\n#### 8", "8", False,
        "8 answers the invented question: the part behind it is read, instead of the part before it",
    ),
    (
        "One.\n#### 1\nQuestion: two?\n#### 2\nQuestion: three?\n#### 3", "1", True,
        "there can be several invented questions: cut at the first one, not at the last",
    ),
    (
        "That is a question of doubling: 9 * 2 = 18.\n#### 18", "18", True,
        "the word 'question' in a sentence invents nothing: only a line that opens with 'Question:' does",
    ),
    (
        "The Question: how many eggs? 9 * 2 = 18.\n#### 18", "18", True,
        "'Question:' within a line may be the model's way to think: only a line that opens with it is a new question",
    ),
    (
        "Easy.\nQuestions like this need care: 9 * 2 = 18.\n#### 18", "18", True,
        "'Questions' opens an ordinary sentence here: the colon belongs to the sign, 'Question:'",
    ),
    ("So half of it.\nNo Question: 3.\n#### 18", "18", True, "a line must open with 'Question:' to be a new question"),
    ("First 9.\n\nThen 9 * 2 = 18.\n#### 18", "18", True, "a blank line is no invented question"),
    ("9 * 2 = 18\n#### 18\nSo it is 18.", "18", False, "text after the answer, without a question, is still refused"),
]  # fmt: skip


def whole_text(completion: str, gold: str) -> bool:
    """The grader of the notebook before the exercise: one marker line, the last line, after some reasoning."""
    lines = completion.strip().splitlines()
    markers = [line for line in lines if re.match("####(?!#)", line)]
    if len(markers) != 1 or lines[-1] != markers[0] or not re.search("[a-zA-Z0-9]", " ".join(lines[:-1])):
        return False
    return canonical_number(lines[-1][4:]) == canonical_number(gold)


@check
def check_next_rule(rule: Callable[[str, str], bool], test: Test) -> str:
    """First the learner's test, which must fail before the rule; then every old test; then what the rule is for."""
    _check_test(test)
    for completion, gold, pay, reason in TESTS:
        if run(rule, completion, gold, like=True) != pay:
            raise Wrong(
                f"a regression: {shown(completion)} with the gold {gold} {_should(pay)} ({reason}), and whole_text had "
                f"that right. Call whole_text for everything that the new rule does not change"
            )
    if run(rule, *INVENTED[:2], like=True):
        raise Wrong(
            f"the test that failed before still fails: {shown(INVENTED[0])} is paid for {INVENTED[1]}, although the "
            "model answers a question that it made up. Everything from the line 'Question:' on must count as not said"
        )
    for completion, gold, pay, reason in BEYOND:
        if run(rule, completion, gold, like=True) != pay:
            raise Wrong(f"{shown(completion)} with the gold {gold} {_should(pay)}: {reason}")
    if run(rule, *test[:2], like=True) != test[2]:
        raise Wrong(f"your own test fails with your own rule: {shown(test[0])} {_should(test[2])}")
    return (
        "your test failed before the rule and passes with it, no old test fails, and the rule cuts the text at the "
        "invented question instead of refusing what was said before it."
    )


def _should(pay: bool) -> str:
    return "should be paid" if pay else "should not be paid"


def _check_test(test: Any) -> None:
    """The test must be one row like the others, new, right, and failing with the grader that is to be mended."""
    form = "(completion, gold, whether it should be paid, reason)"
    if not isinstance(test, tuple | list) or len(test) != 4:
        raise Wrong(f"new_test should be one row like the others, {form}, and it is {shown(test)}")
    if any(part is ... for part in test):
        raise NotDone
    completion, gold, pay, reason = test
    if not (isinstance(completion, str) and isinstance(gold, str) and isinstance(pay, bool)):
        raise Wrong(f"in new_test, completion and gold are texts and the third part is True or False: {form}")
    if not str(reason).strip():
        raise Wrong("new_test has no reason. In a year the reason is all that tells a rule from an accident")
    if any(completion == old[0] for old in (*TESTS, INVENTED)):
        raise Wrong("new_test is an old test: write a completion of your own")
    said = re.split(r"(?m)^\s*Question:", completion)
    if len(said) == 1:
        raise Wrong(
            "new_test has no line that opens with 'Question:', so it does not test the new rule. It needs a completion "
            "that goes on after an answer, or before one, with a question of its own"
        )
    if whole_text(said[0], gold) != pay:
        raise Wrong(
            f"new_test wants the wrong thing: what stands before the invented question, {shown(said[0])}, "
            f"{_should(not pay)} for the gold {gold}"
        )
    if whole_text(completion, gold) == pay:
        raise Wrong(
            "new_test passes before the rule is there (whole_text has it right already), so it cannot show that the "
            "rule works. A test comes first and fails first"
        )


#: What the careless pattern of the notebook, ####\s*([0-9]+,?)+\.?$, accepts; below what it refuses, and why.
ACCEPTED = [
    "#### 18", "####18", "####   7", "#### 1,080", "#### 1,2,3", "#### 18.", "#### 18,", "#### 1,080,.", "So.\n#### 9",
    "####\n18", "#### 18\n", "#### " + "12345" * 8,
]  # fmt: skip
REFUSED: list[tuple[str, str]] = [
    ("#### ", "a marker without a number: at least one digit must stand there"),
    ("####", "a marker without a number: at least one digit must stand there"),
    ("18", "there is no marker"),
    ("#### \u0661\u0668", "\\d takes the digits of every script, and [0-9] only these ten"),
    ("## 18", "there are two marks instead of four"),
    ("#### x18", "letters stand between the marker and the number"),
    ("#### 18 or 19", "something stands behind the number: is the $ at the end gone?"),
    ("#### 18!", "any sign may stand behind the number: an unescaped period takes all of them, so write \\."),
    ("#### ,5", "a comma comes before the first digit"),
    ("#### 1,,2", "two commas in a row"),
    ("#### .", "a period alone is no number"),
    ("#### 18..", "two periods"),
    ("#### 1.8", "a point between digits"),
]


@check
def check_pattern(pattern: str | re.Pattern[str]) -> str:
    """The same texts as the careless pattern, and its time for long ones."""
    try:
        found = re.compile(pattern)
        found.search("")
    except (re.error, TypeError) as error:  # a pattern of bytes is one as well, and finds nothing in a text
        raise Wrong(f"this is no regular expression for texts: {error}") from None
    for text, reason in REFUSED:
        if found.search(text):
            raise Wrong(f"too loose: it accepts {shown(text)} ({reason}), and the careless pattern does not")
    if missed := [text for text in ACCEPTED if not found.search(text)]:
        raise Wrong(
            f"too strict: the careless pattern accepts {shown(missed[0])}, and this one refuses it. (Digits may end "
            "in a comma, and text may stand before the marks.) The task is to change the time and nothing else"
        )
    for digits in (26, 20_000):
        for end in ("!", ",!", ".!"):
            _check_time(found, "#### " + "1" * digits + end, f"{digits:,} digits and {end!r}")
            _check_time(
                found, "#### " + "1," * (digits // 2) + end, f"{digits:,} digits and commas and {end!r}"
            )
    _check_time(found, "#" * 20_000 + "!", "20,000 marks")
    _check_time(found, "####" + " " * 20_000 + "!", "20,000 spaces")
    return (
        "each digit and each comma can be matched in one way only, so a text that does not fit is given up at once; "
        "and the same texts are accepted."
    )


def _check_time(pattern: re.Pattern[str], text: str, what: str) -> None:
    began = process_time()
    try:
        with limited(0.4):
            pattern.search(text)
    except TookTooLong:
        pass
    if process_time() - began < 0.2:
        return
    if len(text) < 1000:
        raise Wrong(
            f"the time still explodes: no answer in 0.4 seconds for {what}. A repeated part in a repeated part, "
            "(x+,?)+, can divide the same digits in very many ways: let every round of the outer one open with a comma"
        )
    raise Wrong(
        f"better, but not linear: 0.2 seconds and more for {what}. Two neighbouring parts can match the same "
        "characters, so every place to cut between them is tried: say exactly where one ends (at a comma, for example)"
    )
