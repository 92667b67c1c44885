import json
import sys
from importlib.machinery import ModuleSpec
from io import StringIO
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest
from datasets import Dataset

import rlvr_kit.engine.sampling
from rlvr_kit import UserError
from rlvr_kit.engine.sampling import Completion
from rlvr_kit.measure.checks import refuse_leaks
from rlvr_kit.measure.evaluation import evaluate, evaluate_recipe, summarize
from rlvr_kit.models import load_policy, load_tokenizer
from rlvr_kit.recipe import load_recipe
from rlvr_kit.rewards.reward_functions import CorrectnessReward, FormatReward
from rlvr_kit.rewards.score import score_lines
from rlvr_kit.run_folder import Run
from rlvr_kit.sampling_settings import SamplingSettings
from rlvr_kit.tasks.prompts import INSTRUCTION, Exemplar, Template
from rlvr_kit.tasks.word_problems import make_word_problems

PROBLEMS = Dataset.from_list(
    [{"question": f"What is {i} + 1?", "gold": str(i + 1), "kind": "seen"} for i in range(6)]
)
RIGHT, LENIENT, WRONG, SILENT = (
    "One more.\n#### {}",
    "The answer is {}.",
    "One more.\n#### 99",
    "I cannot say.",
)
SCRIPT = [RIGHT, RIGHT, LENIENT, WRONG, SILENT, RIGHT]


@pytest.fixture
def model():
    return load_policy("tiny-random")


@pytest.fixture
def scripted(monkeypatch):
    """A stand-in for generation: problem i is answered by SCRIPT[i]; returns what it was asked."""
    asked = []

    def generate(model, tokenizer, prompts, sampling, *, on_batch):
        for where, prompt in enumerate(prompts):
            i = int(prompt.rsplit("What is ", 1)[1].split()[0])
            asked.append(i)
            texts = [SCRIPT[(i + j) % 6].format(i + 1) for j in range(sampling.samples)]
            on_batch({where: [Completion(text, list(range(i + 1)), truncated=i == 3) for text in texts]})

    monkeypatch.setattr(rlvr_kit.engine.sampling, "generate", generate)
    return asked


def run(model, problems=PROBLEMS, template=Template(), **options):  # noqa: B008
    return evaluate(model, load_tokenizer("tiny-random"), problems, template, **({"label": "base"} | options))


def test_the_summary_counts_what_the_rows_say(model, scripted):
    result = run(model, about={"data": "plus one"})
    assert result.rows.problem.tolist() == [0, 1, 2, 3, 4, 5]
    assert result.rows.tokens.tolist() == [1, 2, 3, 4, 5, 6]
    expected = {
        "n": 6,
        "strict": 3 / 6,
        "lenient": 4 / 6,
        "format": 4 / 6,
        "truncated": 1 / 6,
        "data": "plus one",
    }
    assert expected.items() <= result.summary.items()
    assert result.summary["strict_ci"] == pytest.approx([0.1876, 0.8124], abs=1e-4)
    assert "pass_at_k" not in result.summary


def test_the_reward_the_scorer_and_the_evaluation_agree(model, scripted):
    rows = run(model).rows
    completions, gold = rows.completion.tolist(), rows.gold.tolist()
    assert CorrectnessReward(1.0)(completions=completions, gold=gold) == rows.correct.astype(float).tolist()
    assert FormatReward(0.5)(completions=completions) == (0.5 * rows.format_ok).tolist()
    lines = [json.dumps({"completion": c, "gold": g}) for c, g in zip(completions, gold, strict=True)]
    assert score_lines(lines, scored := StringIO(), StringIO()) == 0
    verdicts = pd.DataFrame(map(json.loads, scored.getvalue().splitlines()))
    for column in ("format_ok", "correct", "lenient_correct", "why"):
        assert verdicts[column].tolist() == rows[column].tolist()


def test_several_samples_give_pass_at_k_and_a_majority(model, scripted):
    summary = run(model, sampling=SamplingSettings(samples=4, temperature=1.0)).summary
    assert summary["samples"] == 4
    assert summary["pass_at_k"]["1"] == pytest.approx(summary["strict"])
    assert summary["pass_at_k"]["4"] == 1.0  # every four neighbours in the script hold a right one
    assert summary["majority"] == 5 / 6  # problem 2 has a wrong and a right answer: the first counts
    assert summary["strict_ci"] == pytest.approx([0.1876, 0.8124], abs=1e-4)  # of 6 problems, not 24 texts


def test_rows_judged_before_are_not_generated_again(model, scripted, tmp_path):
    first = run(model, PROBLEMS.select(range(4)), out=Run(tmp_path))
    second = run(model, out=Run(tmp_path))
    assert scripted == [0, 1, 2, 3, 4, 5]
    pd.testing.assert_frame_equal(second.rows[:4], first.rows)
    again = run(model, out=Run(tmp_path))
    assert len(scripted) == 6
    pd.testing.assert_frame_equal(again.rows, second.rows)
    assert again.summary == second.summary == Run(tmp_path).evaluation("base")[1]
    pd.testing.assert_frame_equal(Run(tmp_path).evaluation("base")[0], second.rows)
    assert run(model, PROBLEMS.select(range(4)), out=Run(tmp_path)).summary["n"] == 4


@pytest.mark.parametrize("change", ["weights", "instruction", "length", "question"])
def test_rows_of_another_model_prompt_setting_or_problem_are_not_reused(model, scripted, tmp_path, change):
    run(model, out=Run(tmp_path))
    options, problems = {"out": Run(tmp_path)}, PROBLEMS
    if change == "weights":
        model.model.layers[1].mlp.up_proj.weight.data += 1e-3
    elif change == "instruction":
        options["template"] = Template(instruction="Solve.")
    elif change == "length":
        options["sampling"] = SamplingSettings(max_new_tokens=7)
    else:
        problems = PROBLEMS.select(range(1, 6))
    run(model, problems, **options)
    assert len(scripted) == 6 + len(problems)


def test_an_interrupted_evaluation_goes_on_where_it_stopped(model, scripted, tmp_path, monkeypatch):
    whole = rlvr_kit.engine.sampling.generate

    def interrupted(model, tokenizer, prompts, sampling, **options):
        whole(model, tokenizer, prompts[:2], sampling, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(rlvr_kit.engine.sampling, "generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(model, out=Run(tmp_path))
    with pytest.raises(UserError, match="no evaluation 'base'"):
        Run(tmp_path).evaluation("base")
    monkeypatch.setattr(rlvr_kit.engine.sampling, "generate", whole)
    assert run(model, out=Run(tmp_path)).summary["n"] == 6
    assert scripted == [0, 1, 2, 3, 4, 5]


def test_evaluating_twice_gives_the_same_table(model):
    problems = make_word_problems("test", 8)
    tables = [run(model, problems, sampling=SamplingSettings(max_new_tokens=8)).rows for _ in range(2)]
    pd.testing.assert_frame_equal(*tables)
    assert tables[0].truncated.any()
    assert set(tables[0].kind) <= {"seen", "new template", "new range"}


def test_no_problem_is_an_error(model):
    with pytest.raises(UserError, match="no problem"):
        run(model, PROBLEMS.select([]))


def test_a_planted_leak_is_refused(model):
    leak = Exemplar(question="what is 3 +  1 ?", answer="One more.\n#### 4")
    with pytest.raises(UserError, match="problem 3 is also"):
        run(model, template=Template(exemplars=(leak,)))
    train = make_word_problems("train", 50)["question"]
    refuse_leaks(make_word_problems("test", 50), train)
    with pytest.raises(UserError, match="problem 0 is also"):
        refuse_leaks(PROBLEMS, [*train, PROBLEMS[0]["question"]])


def test_a_trained_model_is_evaluated_with_its_own_template(model, scripted, tmp_path):
    (tmp_path / "prompt.json").write_text(json.dumps(Template().to_dict()))
    model.name_or_path = str(tmp_path)
    assert run(model).summary["n"] == 6
    with pytest.raises(UserError, match="another prompt") as mismatch:
        run(model, template=Template(instruction="Answer in verse."), any_shots=True)
    assert repr(INSTRUCTION) in str(mismatch.value)
    assert "Answer in verse." in str(mismatch.value)
    shots = Template(exemplars=(Exemplar(question="What is 50 + 1?", answer="One more.\n#### 51"),))
    with pytest.raises(UserError, match="exemplars"):
        run(model, template=shots)
    assert run(model, template=shots, any_shots=True).summary["shots"] == 1


def test_a_recipe_names_all_that_an_evaluation_needs(tmp_path):
    recipe = load_recipe("smoke", ["evaluation.n=3"])
    result = evaluate_recipe(recipe, label="base", shots=2, out=Run(tmp_path))
    told = {"model": "tiny-random", "data": "word_problems", "shots": 2, "n": 3}
    assert told.items() <= Run(tmp_path).evaluation("base")[1].items()
    assert result.rows.tokens.max() <= recipe.max_new_tokens


def test_a_model_folder_of_another_prompt_is_refused_before_it_is_loaded(tmp_path):
    (tmp_path / "config.json").touch()
    (tmp_path / "prompt.json").write_text(json.dumps(Template(instruction="Rhyme.").to_dict()))
    with pytest.raises(UserError, match="Rhyme"):
        evaluate_recipe(load_recipe("smoke"), label="tuned", model=str(tmp_path))


def test_vllm_writes_where_it_is_installed(monkeypatch):
    """A stand-in module: it checks what vLLM would be asked, not vLLM itself."""
    said = SimpleNamespace(text="One.\n#### 1", token_ids=[5, 6], finish_reason="length")

    class LLM(SimpleNamespace):
        def generate(self, prompts, settings):
            assert settings.n == 1 and self.dtype == "float32"  # which vLLM alone would make float16
            assert settings.temperature == 0
            assert settings.max_tokens == 12
            return [SimpleNamespace(outputs=[said]) for _ in prompts]

    vllm = ModuleType("vllm")
    vllm.LLM, vllm.SamplingParams = LLM, SimpleNamespace
    vllm.__spec__ = ModuleSpec("vllm", None)
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    result = evaluate_recipe(load_recipe("smoke", ["model.dtype=float32"]), label="base")
    assert result.rows.completion.tolist() == [said.text] * 12
    assert result.summary["truncated"] == 1.0


def test_a_summary_is_of_rows_alone():
    table = pd.DataFrame({"problem": range(4), "sample": 0, "correct": [False, True, True, False]})
    table = table.assign(lenient_correct=True, format_ok=True, truncated=False)
    assert summarize(table)["strict"] == 0.5
    assert summarize(table)["lenient_ci"] == pytest.approx([0.5101, 1.0], abs=1e-4)


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"[1]", b'{"instruction": 5}'])
def test_a_damaged_prompt_of_a_model_is_named(model, content, tmp_path):
    (tmp_path / "prompt.json").write_bytes(content)
    model.name_or_path = str(tmp_path)
    with pytest.raises(UserError, match="prompt.json is damaged .*delete it") as caught:
        run(model)
    assert "\n" not in str(caught.value)


def test_rows_that_were_damaged_are_made_again(model, scripted, tmp_path):
    first = run(model, out=Run(tmp_path))
    (tmp_path / "evals" / "base.parquet").write_bytes(b"\x00" * 300)
    pd.testing.assert_frame_equal(run(model, out=Run(tmp_path)).rows, first.rows)
    assert len(scripted) == 12


def test_a_question_beyond_the_models_context_is_named(model, scripted):
    rows = PROBLEMS.to_list()
    rows[4]["question"] = "What is 4 + 1? " + "x" * 5000
    with pytest.raises(UserError, match="problem 4 has a prompt of 5,[0-9]+ tokens; .* context of 4,096"):
        run(model, Dataset.from_list(rows))
    assert scripted == []
