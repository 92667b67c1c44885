"""The judge of orders under attack, and the messages: what is asked can be answered, and the splits are apart."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_kit.tasks.generated import split_of
from rlvr_kit.tasks.orders import COUNTS, INSTRUCTION, WORDS, problems, verify

ORDER = {"name": "Anna", "item": "mug", "count": 1, "city": "Rome", "day": "Monday"}
GOLD = json.dumps(ORDER)


def line(**changed) -> str:
    return json.dumps(ORDER | changed)


def raw(old: str, new: str) -> str:
    assert old in GOLD
    return GOLD.replace(old, new)


RIGHT = [GOLD, f"\n  {GOLD} \n", json.dumps(ORDER, separators=(",", ":")), json.dumps(dict(reversed(ORDER.items()))),
         raw("Anna", "\\u0041nna")]  # fmt: skip
#: Valid orders that are not this one: (completion, what `why` names, share of right fields).
WRONG = [
    (line(count=2), "count 2, not 1", 4 / 5),
    (line(name="Ben"), "name 'Ben', not 'Anna'", 4 / 5),
    (line(name="anna"), "name 'anna', not 'Anna'", 1.0),
    (line(item="mugs"), "item", 4 / 5),
    (line(item=" mug"), "item", 1.0),
    (line(item="mug\u200b"), "item 'mug\\u200b'", 4 / 5),
    (line(city="Romе"), "city", 4 / 5),  # the last letter is Cyrillic
    (line(day="Tuesday", count=3), "count 3, not 1; day", 3 / 5),
    (INSTRUCTION.splitlines()[-1], "name 'Igor'", 0.0),  # the exemplar copied
]
#: Not one line with one valid order: (completion, what `why` says, whether the lenient reading takes it).
MALFORMED = [
    ("", "not one line", False),
    ("null", "it: ", False),
    ("[]", "it: ", False),
    (f"[{GOLD}]", "it: ", True),
    (json.dumps(GOLD), "it: ", False),
    ("{}", "name: Field required", False),
    (line(count="1"), "count: Input should be a valid integer", True),
    (line(count=1.0), "count: Input should be a valid integer", False),
    (line(count=True), "count: Input should be a valid integer", False),
    (line(count=None), "count", False),
    (line(count=[1]), "count", False),
    (line(count=0), "count", False),
    (line(count=10**30), "count", False),
    (raw('"count": 1', '"count": 1e0'), "count", False),
    (raw('"count": 1', '"count": 01'), "not JSON", False),
    (raw('"count": 1', '"count": 0x1'), "not JSON", False),
    (raw('"count": 1', '"count": NaN'), "NaN is not a JSON number", False),
    (raw('"count": 1', '"count": Infinity'), "Infinity is not a JSON number", False),
    (raw('"count": 1', '"count": 1, "count": 1'), "a key twice", False),
    (raw('"count": 1', '"count": 2, "count": 1'), "a key twice", False),
    (raw('"count": 1', '"count": 1, "count": 2'), "a key twice", False),
    (raw('"count": 1', '"count": ' + "9" * 5000), "too long", False),
    (raw('"count": 1', '"count": ' + "9" * 250), "count", False),
    (line(note="x"), "note: Extra inputs", True),
    (line(**{"": 1}), "Extra inputs", True),
    (line(**{"\u202e": 1}), "Extra inputs", True),
    (json.dumps({key: value for key, value in ORDER.items() if key != "day"}), "day: Field required", False),
    (json.dumps({"order": ORDER}), "name: Field required", False),
    (line(name=""), "name", False),
    (line(name="A" * 60), "name", False),
    (line(name={"first": "Anna"}), "name", False),
    (line(day="monday"), "day", True),
    (line(day="Mon"), "day", False),
    (line(day=1), "day", False),
    (raw('"Anna"', "'Anna'"), "not JSON", False),
    (raw("}", ",}"), "not JSON", False),
    (raw("}", ""), "not JSON", False),
    (GOLD + GOLD, "not JSON: Extra data", False),
    (f"{GOLD}\n{GOLD}", "not one line", False),
    (f"{GOLD}\u2028{GOLD}", "not one line", False),
    (f"{GOLD} {line(count=2)}", "not JSON: Extra data", False),
    (f"```json\n{GOLD}\n```", "not one line", True),
    (f"```{GOLD}```", "not JSON", True),
    (f"The order is: {GOLD}", "not JSON", True),
    (f"{GOLD} I hope this helps.", "not JSON: Extra data", True),
    (json.dumps(ORDER, indent=1), "not one line", True),
    ("\ufeff" + GOLD, "not JSON", True),
    (GOLD + "\0", "not JSON", True),
    (raw("Anna", "An\nna"), "not one line", False),
    (raw("Anna", "An\tna"), "not JSON", False),
    (raw("Anna", "\\ud800"), "name", False),
    (raw("Anna", "\ud800"), "name", False),
    ("Anna mug red 1 Rome Monday", "not JSON", False),
    ('{"a":' * 60 + "1" + "}" * 60, "name: Field required", False),
]


@pytest.mark.parametrize("completion", RIGHT)
def test_the_order_in_any_spelling_of_json_is_paid(completion):
    verdict = verify(completion, GOLD)
    assert (verdict.format_ok, verdict.correct, verdict.lenient_correct) == (True, True, True), verdict.why
    assert verdict.why == "right order" and verdict.partial == 1.0 and json.loads(verdict.extracted) == ORDER


@pytest.mark.parametrize("completion, why, partial", WRONG)
def test_another_order_is_paid_for_its_form_alone(completion, why, partial):
    verdict = verify(completion, GOLD)
    assert (verdict.format_ok, verdict.correct) == (True, False)
    assert why in verdict.why and verdict.partial == pytest.approx(partial)
    assert verdict.lenient_correct == (partial == 1.0)


@pytest.mark.parametrize("completion, why, lenient", MALFORMED)
def test_what_is_no_order_is_paid_nothing(completion, why, lenient):
    verdict = verify(completion, GOLD)
    assert (verdict.format_ok, verdict.correct) == (False, False)
    assert why in verdict.why and verdict.lenient_correct == lenient
    assert verdict.why.isascii() and len(verdict.why) < 200


@pytest.mark.parametrize("part", ["{", "[", '{"a":', '"', "1", " x", "\nx", "{}", GOLD, "\\", '{"count":'])
def test_a_megabyte_of_anything_is_refused_at_once(part):
    text = part * (1_000_000 // len(part))
    began = time.process_time()
    for completion in (text, text + "}", "{" + text + "}", GOLD + text):
        assert not verify(completion, GOLD).correct
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("gold", ["", "18", "{}", line(count="1"), f"```{GOLD}```"])
def test_an_unreadable_gold_matches_nothing_and_says_so(gold):
    verdict = verify(gold, gold)
    assert not verdict.correct and verdict.why.startswith("unreadable gold")


@given(st.one_of(st.text(max_size=200), st.text(alphabet='{}[]":, \\n1etrufalsnco', max_size=200)))
def test_it_never_raises(text):
    assert not verify(text, GOLD).correct


@given(st.sampled_from(problems("test", 200, 0)), st.sampled_from(problems("train", 200, 0)))
def test_the_order_of_another_message_is_not_paid(one, other):
    assert verify(one["answer"], one["gold"]).correct
    assert verify(other["answer"], one["gold"]).correct == (one["gold"] == other["gold"])


def test_a_message_holds_all_that_its_order_says():
    days = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    for row in problems("test", 500, 5) + problems("train", 500, 5):
        order, text = json.loads(row["gold"]), row["question"]
        assert all(order[key] in text for key in ("name", "city", "item")), row
        assert any(f" {written}" in text for written in COUNTS[order["count"]]), row
        sent = days.index(text.split()[2].rstrip("."))
        words = text.split(". ", 1)[1]
        relative = {"the day after tomorrow": 2, "tomorrow": 1, "today": 0}
        ahead = next((n for word, n in relative.items() if word in words), None)
        assert order["day"] == days[(sent + ahead) % 7] if ahead is not None else order["day"] in words, row


def test_the_test_split_has_words_and_sentences_that_training_never_shows():
    train, test = problems("train", 2000, 0), problems("test", 500, 1)
    assert {row["kind"] for row in train} == {"seen"}
    assert {row["kind"] for row in test} == {"seen", "new words", "new sentence"}
    assert all(split_of(row["question"]) == "train" for row in train)
    shown = " ".join(row["question"] for row in train)
    for _, new in WORDS.values():
        assert not [word for word in new.split() if f"{word} " in shown or f"{word}s " in shown]
    assert "Dear team" not in shown and any("Dear team" in row["question"] for row in test)


def test_different_seeds_give_different_messages_and_the_same_seed_the_same():
    assert problems("train", 50, 0) == problems("train", 80, 0)[:50] != problems("train", 50, 1)
