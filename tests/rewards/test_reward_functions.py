"""The reward functions alone, and in a bare `trl.GRPOTrainer` with a tiny random model."""

import logging
import pickle

import pandas as pd
import pytest
from datasets import Dataset

from rlvr_kit import UserError, load_task
from rlvr_kit.rewards.reward_functions import CorrectnessReward, FormatReward
from rlvr_kit.tasks.verifier import completion_text

RIGHT, WRONG, UNMARKED = "9 * 2 = 18\n#### 18", "9 * 3 = 27\n#### 27", "The answer is 18."


def chat(text):
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize("shape", [str, chat], ids=["plain", "chat"])
def test_rewards_add_up_to_all_half_or_nothing(shape):
    completions = [shape(text) for text in (RIGHT, WRONG, UNMARKED)]
    columns = {"gold": ["18"] * 3, "question": ["q"] * 3, "answer": ["a"] * 3, "completion_ids": [[1]] * 3}
    assert FormatReward()(prompts=["p"] * 3, completions=completions, **columns) == [0.5, 0.5, 0.0]
    assert CorrectnessReward()(prompts=["p"] * 3, completions=completions, **columns) == [1.0, 0.0, 0.0]


def test_weights_and_names_survive_pickling():
    for reward, name in ((FormatReward(0.2), "format"), (CorrectnessReward(3.0), "correct")):
        again = pickle.loads(pickle.dumps(reward))
        assert again == reward and again.__name__ == name
    assert FormatReward(0.2)(completions=[RIGHT]) == [0.2]
    assert CorrectnessReward(3.0)(completions=[RIGHT], gold=["18"]) == [3.0]


@pytest.mark.parametrize(
    "completion, text",
    [
        ("18", "18"),
        (chat("18"), "18"),
        ([{"role": "assistant", "content": "17"}, {"role": "assistant", "content": "18"}], "18"),
        (
            [
                {
                    "role": "assistant",
                    "content": [{"type": "text", "text": "1"}, {"type": "text", "text": "8"}],
                }
            ],
            "18",
        ),
        ([{"role": "assistant", "content": None}], ""),
        ([{"role": "assistant", "tool_calls": []}], ""),
        ([], ""),
    ],
)
def test_the_text_of_a_completion(completion, text):
    assert completion_text(completion) == text


def test_an_unreadable_gold_is_skipped_with_a_warning_that_names_the_row(caplog):
    with caplog.at_level(logging.WARNING):
        rewards = CorrectnessReward()(
            prompts=["first?", "second?", "third?"], completions=[RIGHT] * 3, gold=["18", "eighteen", None]
        )
    assert rewards == [1.0, None, None]
    assert all(part in caplog.messages[0] for part in ("row 1", "'eighteen'", "second?"))
    assert "row 2" in caplog.messages[1]


def test_golds_that_a_table_holds_as_numbers_are_read():
    assert CorrectnessReward()(completions=[RIGHT, RIGHT], gold=[18, 18.0]) == [1.0, 1.0]


def test_a_dataset_without_golds_is_refused():
    with pytest.raises(UserError, match="'gold'"):
        CorrectnessReward()(completions=[RIGHT])


def test_the_log_shows_the_extracted_answer_and_why():
    logged = {}
    CorrectnessReward()(completions=[RIGHT, UNMARKED], gold=["18", "18"], log_extra=logged.__setitem__)
    assert logged["extracted"] == ["18", "18"]
    assert logged["why"] == ["right number: 18", "no marker: no line starts with ####"]


@pytest.mark.parametrize("conversational", [False, True], ids=["plain", "chat"])
def test_a_bare_grpo_trainer_takes_them_as_they_are(tmp_path, conversational):
    from trl import GRPOConfig, GRPOTrainer

    from rlvr_kit.models import load_policy, load_tokenizer

    tokenizer = load_tokenizer("tiny-random")
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    tokenizer.batch_decode = lambda ids, **_: [RIGHT, WRONG, UNMARKED, RIGHT]  # a random model writes noise
    prompt = [{"role": "user", "content": "9 * 2?"}] if conversational else "9 * 2?"
    trainer = GRPOTrainer(
        model=load_policy("tiny-random"),
        processing_class=tokenizer,
        reward_funcs=[FormatReward(), CorrectnessReward()],
        train_dataset=Dataset.from_list([{"prompt": prompt, "gold": "18", "question": "9 * 2?"}]),
        args=GRPOConfig(
            output_dir=str(tmp_path), per_device_train_batch_size=4, num_generations=4, max_steps=1,
            max_completion_length=4, logging_steps=1, log_completions=True, report_to=[], use_cpu=True,
            save_strategy="no",
        ),
    )  # fmt: skip
    trainer.train()

    step = trainer.state.log_history[0]
    assert step["rewards/format/mean"] == pytest.approx((0.5 + 0.5 + 0 + 0.5) / 4)
    assert step["rewards/correct/mean"] == pytest.approx((1 + 0 + 0 + 1) / 4)
    (table,) = [pd.read_parquet(file) for file in tmp_path.glob("completions/*.parquet")]
    assert table["format"].tolist() == [0.5, 0.5, 0, 0.5] and table["correct"].tolist() == [1, 0, 0, 1]
    assert table["extracted"].tolist() == ["18", "27", "18", "18"]
    assert table["why"][1] == "wrong number: 27, not 18"


def test_the_form_of_another_task_is_not_judged_without_its_gold():
    form = FormatReward(0.5, load_task("orders").verify)
    row = load_task("orders").problems("train", 1, 0)[0]
    assert form(completions=[row["answer"], "no"], gold=[row["gold"]] * 2) == [0.5, 0.0]
    with pytest.raises(UserError, match="needs a column 'gold'"):
        form(completions=[row["answer"]])
