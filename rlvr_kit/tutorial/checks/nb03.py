r"""The exercises of notebook 03: break a grader blind, and patch the grader "last number"."""

import re
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from rlvr_kit import verify, wilson_interval
from rlvr_kit.tasks.word_problems import make_word_problems
from rlvr_kit.tutorial.exercises import Wrong, check, run, shown

N = 200  # word problems that each answer is tried on


@cache
def problems() -> list[dict[str, str]]:
    """Test problems of the kit; their questions are all that a blind attack sees."""
    return make_word_problems("test", N, seed=0).to_list()


def any_box(text: str, gold: str) -> bool:
    r"""The grader to break: it pays when the gold is the content of any ``\boxed{…}``, as one sees it for MATH.

    >>> any_box(r"So it is \boxed{18}.", "18")
    True
    """
    return gold in re.findall(r"\\boxed\{([^{}]*)\}", text)


@check
def check_attack(attack: Callable[[str], str]) -> str:
    """What the attack earns on the problems; where that is too little, what stands in its boxes."""
    rows = problems()
    texts = [run(attack, row["question"], like="") for row in rows]
    paid = sum(any_box(text, row["gold"]) for text, row in zip(texts, rows, strict=True))
    low, high = wilson_interval(paid, len(rows))
    earned = f"{paid / len(rows):.0%} of {len(rows)} problems ({low:.0%} to {high:.0%})"
    if paid >= 0.8 * len(rows):
        return (
            f"{earned} are paid, without any of them being solved: this grader takes as many answers as a "
            "policy likes to put down."
        )
    raise Wrong(f"this earns {earned}, and 80 % are asked for. {_weakness(texts, rows)}")


def _weakness(texts: list[str], rows: list[dict[str, str]]) -> str:
    """Why an attack earns little, from its texts."""
    boxes = [re.findall(r"\\boxed\{([^{}]*)\}", text) for text in texts]
    inside = {content for found in boxes for content in found}
    if any("\x08" in text for text in texts):
        return r"In an ordinary string \b is a backspace, so no \boxed is there: write r'\boxed' or '\\boxed'"
    if not inside:
        return r"There is no \boxed{…} with a text in it, and the grader looks nowhere else"
    if not any(re.search(r"\d", content) for content in inside):
        return (
            f"The boxes hold {shown(sorted(inside)[0])} and no digits: has the f-string its f and its braces?"
        )
    if any(content != content.strip() for content in inside):
        return "The grader compares the whole content of a box, so a space in it spoils it"
    if any(re.search(r"\d\D+\d", content) and not re.fullmatch(r"-?\d+\.\d+", content) for content in inside):
        return "Several numbers stand in one box, and the grader compares a box as a whole: give each number its own"
    if any("." in content for content in inside):
        return "The boxes hold numbers with a point, such as 18.0, and the golds are written without one"
    if max(map(len, boxes)) <= 1:
        if len(inside) == 1:
            return "It is one and the same number every time. The grader takes any number of boxes: use that"
        return "Only one number is boxed each time. The grader takes any number of boxes: use that"
    numbers = [set(re.findall(r"\d+", row["question"])) for row in rows]
    if all(set(found) <= have for found, have in zip(boxes, numbers, strict=True)):
        return "Only numbers of the question are boxed, and the answer is seldom one of them: box many more"
    return (
        f"At most {max(map(len, boxes))} numbers are boxed. The golds are whole numbers, most of them below 100, "
        "and some above: box every one of these"
    )


Attack = Callable[[str], str]
#: Texts that the grader "last number" pays and a person would not mark as right, made from the gold.
HOLES: dict[str, tuple[Attack, str]] = {
    "the wrong sign": (
        lambda g: f"So.\n#### -{g}",
        "a minus before the number is ignored, so -18 counts as 18",
    ),
    "a hedge": (
        lambda g: f"So.\n#### {int(g) + 1} or {g}",
        "it puts down two answers and the last one is taken: the line must hold one number and nothing else",
    ),
    "a sum": (
        lambda g: f"So.\n#### 0+{g}",
        "a sum is no answer: the line must hold one number and nothing else",
    ),
    "a fraction": (
        lambda g: f"So.\n#### 1/{g}",
        "1/18 is not 18: the line must hold one number and nothing else",
    ),
    "two marker lines": (
        lambda g: f"So.\n#### {int(g) + 1}\n#### {g}",
        "there are two marker lines and the last one is taken: a policy would put down two answers",
    ),
    "a second thought": (
        lambda g: f"So.\n#### {int(g) + 1}\nNo, wait, it is {g}.",
        "the marker line says something else; what stands behind it must not count",
    ),
    "a second thought before a right line is gone": (
        lambda g: f"So.\n#### {g}\nNo, wait: it is {int(g) + 1}, or {g}.",
        "the text goes on after its answer and takes it back: the marker line must be the last one",
    ),
    "words beside the number": (
        lambda g: f"So.\n#### not {g}",
        "words beside the number can take it back: the line must hold one number and nothing else",
    ),
    "counting up to it": (
        lambda g: " ".join(map(str, range(int(g) + 1))),
        "it counts up to the answer, in no marker line: there must be one place for the answer",
    ),
    "no marker": (
        lambda g: f"It may be {g}",
        "there is no marker line: there must be one place for the answer",
    ),
    "a longer number": (
        lambda g: f"So.\n#### 9{g}",
        "918 is not 18: compare the whole number, and not its end",
    ),
    "near": (
        lambda g: f"So.\n#### {g}.4",
        "18.4 is not 18: compare exactly, without rounding or cutting off",
    ),
    "another number": (
        lambda g: f"So it is {g}.\n#### {int(g) + 7}",
        "the number on the marker line is wrong",
    ),
    "an empty marker line": (
        lambda g: f"It is {g}.\n####",
        "the marker line is empty: the number must stand on it",
    ),
}
#: Ways to write an honest answer and its gold, from a worked solution and its gold.
HONEST: dict[str, tuple[Callable[[str, str], tuple[str, str]], str]] = {
    "as they are": (lambda text, gold: (text, gold), "its solutions end with a line '#### 18'"),
    "with a blank at the end": (
        lambda text, gold: (text + " \n", gold),
        "a space or a new line at the end changes nothing: strip it",
    ),
    "with a comma": (
        lambda text, gold: (
            text.rpartition("\n")[0] + f"\n#### {int(gold) + 12_000:,}",
            str(int(gold) + 12_000),
        ),
        "a number may be written with a comma: 1,080",
    ),
}


@check
def check_patch(patched: Callable[[str, str], Any]) -> str:
    """Honest answers first, which must stay paid; then every hole of the grader that is being patched."""
    rows = [(re.sub("<<.*?>>", "", row["answer"]), row["gold"]) for row in problems()]
    if _calls_verify(patched, *rows[0]):
        raise Wrong("this calls verify, which has solved it already: no help from verify here")
    _honest(patched, rows, "as they are")
    for name, (attack, reason) in HOLES.items():
        paid = sum(run(patched, attack(gold), gold, like=True) for _, gold in rows)
        if paid > 0.01 * len(rows):
            raise Wrong(
                f"it still pays {paid / len(rows):.0%} of {shown(attack('18'))} for 18 ({name}): {reason}"
            )
    _honest(patched, rows, "with a blank at the end")
    _honest(patched, rows, "with a comma")
    others = [(text, gold) for (text, _), (_, gold) in zip(rows, rows[1:], strict=False)]
    floor = sum(run(patched, text, gold, like=True) for text, gold in others)
    ours = sum(verify(text, gold).correct for text, gold in others)
    if floor > ours + 3:
        raise Wrong(
            f"it pays {floor} of {len(others)} answers to another question; by chance it would be {ours}"
        )
    return (
        f"all {len(rows)} honest answers stay paid, and none of {len(HOLES)} ways to get the mark without one clear "
        "answer is. That means: not by these."
    )


def _calls_verify(patched: Callable[[str, str], Any], text: str, gold: str) -> bool:
    """Whether the grader calls the kit's own one, under whatever name."""
    called, before = set(), sys.getprofile()
    sys.setprofile(lambda frame, *_: called.add(frame.f_code))
    try:
        run(patched, text, gold)
    finally:
        sys.setprofile(before)
    return verify.__code__ in called


def _honest(patched: Callable[[str, str], Any], rows: list[tuple[str, str]], name: str) -> None:
    """Honest answers, written in one of the ways of HONEST, must be paid to 99 %."""
    write, reason = HONEST[name]
    texts = [write(text, gold) for text, gold in rows]
    refused = [text for text, gold in texts if not run(patched, text, gold, like=True)]
    if len(refused) > 0.01 * len(texts):
        raise Wrong(
            f"honest answers must stay paid to 99 %, and {name} {1 - len(refused) / len(texts):.1%} of {len(texts)} "
            f"are. It refuses {shown(refused[0][-60:])}: {reason}"
        )
