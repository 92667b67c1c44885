"""Answers that stream, and the box that shows them; its buttons are clicked as a reader's browser does."""

import time

import pytest

from rlvr_kit.engine.sampling import generate
from rlvr_kit.models import load_policy, load_tokenizer
from rlvr_kit.sampling_settings import SamplingSettings
from rlvr_kit.share.try_it import question_box, stream_answer
from rlvr_kit.tasks.prompts import Template


@pytest.fixture(scope="module")
def model(folders):
    return load_policy(str(folders["merged"])), load_tokenizer(str(folders["merged"]))


def test_the_streamed_answer_is_the_evaluations(model):
    prompt = Template().render(model[1], "What is 1+1?")
    sampling = SamplingSettings(max_new_tokens=12)
    texts = list(stream_answer(*model, prompt, sampling))
    [[expected]] = generate(*model, [prompt], sampling)
    assert texts[-1] == expected.text and len(texts) > 1
    assert all(later.startswith(earlier) for earlier, later in zip(texts, texts[1:], strict=False))


def test_a_long_answer_can_be_stopped_and_ends_at_a_stop_string(model):
    prompt, seen = Template().render(model[1], "What is 1+1?"), []
    for text in stream_answer(*model, prompt, SamplingSettings(max_new_tokens=2000), lambda: len(seen) >= 3):
        seen.append(text)
    assert 3 <= len(seen) < 100
    answer = seen[-1]
    stop = answer[1]
    *_, last = stream_answer(*model, prompt, SamplingSettings(max_new_tokens=50, stop=(stop,)))
    assert last == answer[: answer.index(stop)]


def test_whoever_stops_listening_ends_the_writing(model):
    began = time.monotonic()
    for _ in stream_answer(*model, "1+1=", SamplingSettings(max_new_tokens=4000)):
        break
    assert time.monotonic() - began < 5


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def test_the_box_asks_each_model_judges_and_stops(model):
    policy, tokenizer = model
    box = question_box(
        {"one": policy, "two": policy}, tokenizer, Template(), SamplingSettings(max_new_tokens=8)
    )
    question, gold, buttons, answer, verdict, other, _ = box.children
    ask, stop = buttons.children
    question.value, gold.value = "What is 1+1?", "2"
    ask.click()
    wait_until(lambda: not ask.disabled)
    assert answer.value and answer.value == other.value and "####" in verdict.value
    long = question_box({"one": policy}, tokenizer, Template(), SamplingSettings(max_new_tokens=4000))
    long.children[0].value = "What is 1+1?"
    ask, stop = long.children[2].children
    ask.click()
    wait_until(lambda: long.children[3].value)
    stop.click()
    wait_until(lambda: not ask.disabled)
    assert long.children[4].value == "stopped"
