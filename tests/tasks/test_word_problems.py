"""Word problems: right answers, splits that cannot meet, rows that do not move."""

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_kit import UserError
from rlvr_kit.tasks.verifier import gold_answer, verify
from rlvr_kit.tasks.word_problems import TEMPLATES, make_word_problems, split_of

COLUMNS = ["question", "answer", "gold", "steps", "kind"]
SPLITS = ("train", "test")
ANNOTATION = re.compile(r"(\d+)([-+*/])(\d+)=<<(\d+)([-+*/])(\d+)=(\d+)>>(\d+)")


def computed(left: int, sign: str, right: int) -> int:
    if sign == "/":
        assert left % right == 0, f"{left}/{right} is no whole number"
        return left // right
    return {"+": left + right, "-": left - right, "*": left * right}[sign]


@pytest.mark.parametrize("split", SPLITS)
def test_every_answer_follows_from_its_own_annotations(split: str) -> None:
    for row in make_word_problems(split, 4000, seed=3):
        steps = ANNOTATION.findall(row["answer"])
        assert len(steps) == row["steps"] == row["answer"].count("<<") == row["answer"].count("\n")
        for left, sign, right, *annotated, inside, after in steps:
            assert [left, sign, right] == annotated and inside == after
            assert computed(int(left), sign, int(right)) == int(inside)
        assert row["gold"] == steps[-1][-1] == gold_answer(row["answer"])
        assert int(row["gold"]) > 1
        assert not re.search(r"[{}|\[\]\\]", row["question"] + row["answer"]), "a placeholder was left"
        # every number in the solution comes from the question, from an earlier step, or is the 2 of "twice"
        known = set(re.findall(r"\d+", row["question"])) | ({"2"} if "twice" in row["question"] else set())
        for left, _, right, *_, result in steps:
            assert {left, right} <= known
            known.add(result)


def test_a_worked_solution_earns_full_marks() -> None:
    for row in make_word_problems("test", 300):
        assert verify(re.sub("<<.*?>>", "", row["answer"]), row["gold"]).correct


def test_rows_and_columns() -> None:
    rows = make_word_problems("test", 600, seed=2, max_steps=3)
    assert rows.column_names == COLUMNS and len(rows) == 600
    assert len(set(rows["question"])) == 600, "a problem occurs twice"
    assert set(rows["steps"]) == {1, 2, 3}
    assert max(len(question.split()) for question in rows["question"]) <= 35
    for sign in "+-*/":
        assert any(f"{sign}" in "".join(re.findall("<<.*?>>", answer)) for answer in rows["answer"])


@pytest.mark.parametrize("max_steps", [1, 2, 3])
def test_max_steps_limits_the_steps(max_steps: int) -> None:
    assert set(make_word_problems("train", 200, max_steps=max_steps)["steps"]) == set(range(1, max_steps + 1))


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6), n=st.integers(1, 40), more=st.integers(0, 40), split=st.sampled_from(SPLITS)
)
def test_row_i_does_not_depend_on_n(seed: int, n: int, more: int, split: str) -> None:
    few, many = make_word_problems(split, n, seed=seed), make_word_problems(split, n + more, seed=seed)
    assert few.to_list() == many.to_list()[:n]


def test_another_seed_gives_other_rows() -> None:
    assert make_word_problems("train", 50, 0).to_list() != make_word_problems("train", 50, 1).to_list()


@settings(max_examples=15, deadline=None)
@given(train_seed=st.integers(0, 10**6), test_seed=st.integers(0, 10**6), max_steps=st.integers(1, 3))
def test_train_and_test_never_share_a_question(train_seed: int, test_seed: int, max_steps: int) -> None:
    numbers = {}
    for split, seed in (("train", train_seed), ("test", test_seed)):
        questions = make_word_problems(split, 150, seed=seed, max_steps=max_steps)["question"]
        numbers[split] = {
            tuple(sorted(int(n) for n in re.findall(r"\d+", question))) for question in questions
        }
        assert {split_of(list(shown)) for shown in numbers[split]} == {split}
    assert not numbers["train"] & numbers["test"]  # stronger: not even their numbers, whatever the words


def test_kinds_say_what_training_never_has() -> None:
    train = make_word_problems("train", 3000)
    test = make_word_problems("test", 3000)
    shares = {kind: count / len(test) for kind, count in Counter(test["kind"]).items()}
    assert set(train["kind"]) == {"seen"}
    assert shares == pytest.approx({"seen": 0.70, "new template": 0.15, "new range": 0.15}, abs=0.05)

    def template_words(question: str) -> frozenset[str]:
        return frozenset(re.findall(r"\b[a-z]+\b", question))

    trained = {word for question in train["question"] for word in template_words(question)}
    for row in test:
        counts = {int(n) for n in re.findall(r"\d+", row["question"])}
        factors = set()
        for left, sign, right, *_, result in ANNOTATION.findall(row["answer"]):
            factors |= {"*": {int(left), int(right)}, "/": {int(right), int(result)}}.get(sign, set())
        if row["kind"] == "new range":
            assert max(counts) > 20 or max(factors) > 9
        if row["kind"] == "new template":
            assert template_words(row["question"]) - trained, "only words that training has too"
    largest = {"train": max(map(int, train["gold"])), "test": max(map(int, test["gold"]))}
    assert largest["train"] <= 100 < largest["test"]


def test_no_two_templates_are_the_same_question() -> None:
    questions = [template.question for kind in TEMPLATES.values() for steps in kind for template in steps]
    assert len(questions) == len(set(questions))
    for kind in TEMPLATES.values():
        for steps in kind:
            assert {sign for template in steps for _, sign, _ in template.calculations} == set("+-*/")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("validation", 5), "'validation'"),
        (("train", 0), "n=0"),
        (("train", -1), "n=-1"),
        (("train", 5, 0, 4), "max_steps=4"),
        (("train", 5, 0, 0), "max_steps=0"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_word_problems(*arguments)
