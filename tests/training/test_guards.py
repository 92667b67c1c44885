"""Guards: what they say of real runs, where their thresholds lie, and that each one acts in real training."""

import json
import math
import re
from pathlib import Path

import pytest
import torch

from rlvr_kit import UserError
from rlvr_kit.models import load_policy, load_tokenizer
from rlvr_kit.paths import PROJECT
from rlvr_kit.recipe import load_recipe
from rlvr_kit.rewards.reward_functions import FormatReward
from rlvr_kit.run_folder import Run
from rlvr_kit.tasks.word_problems import make_word_problems
from rlvr_kit.training import guards
from rlvr_kit.training.resume import checkpoints
from rlvr_kit.training.train import train

SAMPLES = PROJECT / "notebooks" / "samples"


def replay(lines: list[dict]) -> dict[str, str]:
    """What the guards would have said, had they watched these lines come in; only a failure ends it."""
    said: dict[str, str] = {}
    seen: list[dict] = []
    for line in lines:
        found = guards.check([*seen, line])
        seen, said = [*seen, line | found], said | found
        if "stopped" in found:
            break
    return said


@pytest.mark.parametrize(
    "sample, said",
    [
        ("cpu", {}),
        (
            "hacked",
            {
                "warning/hacking": "step 9: .*format 47% → 100%, strict 19% → 3% .*n=64",
                "stopped_early": "step 9: .*fallen from 19% to 3% .*divide grpo.learning_rate",
            },
        ),
        ("truncated", {"stopped": "step 8: .*from the start, .*raise grpo.max_completion_length"}),
        (
            "collapsed",
            {
                "stopped_early": "step 4: .*fallen from 19% to 0%.*p < 0.001.*divide grpo.learning_rate",
                "stopped": "step 12: .*Earlier most did end, .*divide grpo.learning_rate",
            },
        ),
    ],
)
def test_real_runs(sample: str, said: dict[str, str]) -> None:
    found = replay(Run(SAMPLES / sample).lines())
    assert found.keys() == said.keys()
    for key, pattern in said.items():
        assert re.match(pattern, found[key]), found[key]
    recipe = Run(SAMPLES / sample).recipe()
    assert recipe.run.guards == ("stopped" not in found), "the recipe of a sample must be able to make it"


@pytest.mark.parametrize("sample", ["hacked", "failed"])
def test_recorded_warnings_are_worded_as_today(sample: str) -> None:
    lines = Run(SAMPLES / sample).lines()
    recorded = {key: line[key] for line in lines for key in line if key.startswith("warning/")}
    assert recorded and recorded.items() <= replay(lines).items()


def run_of(*parts: tuple[int, dict]) -> list[dict]:
    """Log lines: so many steps of each part, healthy where the part says nothing."""
    healthy = {
        "reward": 0.7, "loss": 0.01, "grad_norm": 0.4, "truncated": 0.1, "equal_groups": 0.25, "entropy": 0.4,
        "length": 16.0,
    }  # fmt: skip
    lines = [healthy | part for count, part in parts for _ in range(count)]
    return [{"step": 0}, *({"step": step} | line for step, line in enumerate(lines, start=1))]


CUT, EQUAL, NOTHING = {"truncated": 1.0}, {"equal_groups": 1.0}, {"equal_groups": 1.0, "reward": 0.0}


@pytest.mark.parametrize(
    "lines, said",
    [
        (run_of((40, {})), None),
        (run_of((7, CUT), (1, {}), (7, CUT)), None),
        (run_of((8, {"truncated": 0.85})), None),
        (run_of((8, CUT)), "step 8: .*max_completion_length"),
        (run_of((2, {}), (8, CUT)), "step 10: .*learning_rate"),
        (run_of((19, EQUAL), (1, {}), (19, EQUAL)), None),
        (run_of((20, EQUAL)), "step 20: .*mean reward 0.70.*Something is earned"),
        (run_of((3, {}), (20, NOTHING)), "step 23: .*mean reward 0.00.*Nothing is earned"),
        (run_of((1, {"loss": math.nan, "learning_rate": 2.0})), r"step 1: loss is NaN.*\(now 2\)"),
        (run_of((3, {}), (1, {"loss": None, "grad_norm": None})), "step 4: loss and grad_norm is NaN"),
        (run_of((1, {"grad_norm": math.inf})), "step 1: grad_norm is"),
        (run_of((1, {"reward": -math.inf})), "step 1: reward is .*reward function"),
        (run_of((1, {"reward": None})), "step 1: reward is .*reward function"),
    ],
)
def test_when_a_run_is_stopped(lines: list[dict], said: str | None) -> None:
    stopped = replay(lines).get("stopped")
    assert stopped is None if said is None else re.match(said, stopped or ""), stopped


@pytest.mark.parametrize(
    "entropy, steps, warned", [(0.02, 5, True), (0.02, 4, False), (0.05, 20, False), (None, 20, False)]
)
def test_when_entropy_has_collapsed(entropy: float | None, steps: int, warned: bool) -> None:
    assert ("warning/entropy" in replay(run_of((steps, {"entropy": entropy})))) == warned


@pytest.mark.parametrize(
    "formats, stricts, warned",  # (low, high) of each measurement's interval, the first before training
    [
        ([(0.3, 0.5), *[(0.9, 1.0)] * 3], [(0.1, 0.3), *[(0.2, 0.4)] * 3], True),
        ([(0.3, 0.5), *[(0.9, 1.0)] * 2], [(0.1, 0.3), *[(0.2, 0.4)] * 2], False),
        ([(0.3, 0.5), *[(0.9, 1.0)] * 3], [(0.1, 0.3), (0.2, 0.4), (0.2, 0.4), (0.4, 0.6)], False),
        ([(0.3, 0.5), *[(0.4, 0.6)] * 3], [(0.1, 0.3), *[(0.2, 0.4)] * 3], False),
    ],
)
def test_when_format_rises_alone(formats: list, stricts: list, warned: bool) -> None:
    lines = run_of((len(formats) - 1, {}))
    for line, form, strict in zip(lines, formats, stricts, strict=True):
        line |= {"heldout/format_ci": form, "heldout/strict_ci": strict, "heldout/n": 64}
        line |= {"heldout/format": sum(form) / 2, "heldout/strict": sum(strict) / 2}
    assert ("warning/hacking" in replay(lines)) == warned


@pytest.mark.parametrize(
    "solved, n, ends",
    [((12, 7), 64, False), ((12, 7, 3), 64, True), ((12, 4), 64, False), ((12, 3), 64, True), ((24, 11), 128, True),
     ((0, 0), 64, False), ((12, 30, 12), 64, False)],
)  # fmt: skip
def test_when_accuracy_has_fallen(solved: tuple, n: int, ends: bool) -> None:
    lines = run_of((len(solved) - 1, {}))
    for line, k in zip(lines, solved, strict=True):
        line |= {
            "heldout/strict": k / n,
            "heldout/n": n,
            "heldout/strict_ci": (0, 1),
            "heldout/format_ci": (0, 1),
        }
        line |= {"heldout/format": 0.5}
    assert ("stopped_early" in replay(lines)) == ends


def test_a_warning_is_given_once_and_a_stop_again_after_a_resume() -> None:
    quiet = run_of((6, {"entropy": 0.01}))
    found = guards.check(quiet[:6])
    assert "warning/entropy" in found and guards.check([*quiet[:5], quiet[5] | found, quiet[6]]) == {}
    cut = run_of((9, CUT))
    assert "stopped" in guards.check([*cut[:8], cut[8] | guards.check(cut[:9]), cut[9]])


# Real training of a tiny model.


def tiny(*overrides: str) -> object:
    return load_recipe("smoke", ["evaluation.heldout=4", "evaluation.every_steps=100", *overrides])


def stopped(folder: Path, said: str, recipe: object, **kwargs: object) -> Run:
    """Train until a guard stops it: one clear error, no model, and a run folder that can be read."""
    with pytest.raises(UserError, match=f"training stopped at step .*{said}.*run.guards=false"):
        train(recipe, folder, **kwargs)  # type: ignore[arg-type]
    run = Run(folder)
    assert not (folder / "model").exists() and len(run.completions()) > 0
    assert re.search(said, run.log().stopped.iloc[-1])
    assert run.log().step.tolist() == list(range(len(run.log())))
    return run


def test_stops_where_all_is_cut_off(tmp_path: Path) -> None:
    run = stopped(
        tmp_path / "cut",
        "raise grpo.max_completion_length",
        tiny("grpo.max_steps=30", "grpo.max_completion_length=1"),
    )
    assert (run.log().truncated.tail(guards.TRUNCATED_STEPS) == 1).all()
    assert len(checkpoints(run.path)) > 0
    with pytest.raises(UserError, match="max_completion_length"):
        train(run.recipe(), run.path)


def test_stops_where_all_rewards_are_equal(tmp_path: Path) -> None:
    def same(completions: list, **_: object) -> list[float]:
        return [1.0] * len(completions)

    recipe = tiny("grpo.max_steps=30", "grpo.max_completion_length=40")
    run = stopped(tmp_path / "same", "mean reward 1.00", recipe, rewards=[same])
    assert run.log().step.iloc[-1] == guards.EQUAL_STEPS


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_stops_at_a_reward_that_is_no_number(tmp_path: Path, value: float) -> None:
    def broken(completions: list, **_: object) -> list[float]:
        return [value] * len(completions)

    run = stopped(tmp_path / "nan", "reward is NaN", tiny("run.save_steps=1"), rewards=[broken])
    assert run.log().step.iloc[-1] == 1 and checkpoints(run.path) == []
    assert json.loads((run.path / "log.jsonl").read_text().splitlines()[-1])["reward"] is None


def digits(completions: list, **_: object) -> list[float]:
    return [float(sum(character.isdigit() for character in text)) for text in completions]


@pytest.mark.parametrize("shared_prefix", ["true", "false"])
def test_stops_when_updates_blow_up(tmp_path: Path, shared_prefix: str) -> None:
    much = ["grpo.learning_rate=1e30", "grpo.max_steps=12", "run.save_steps=100"]
    recipe = tiny(*much, f"run.shared_prefix={shared_prefix}")
    run = stopped(tmp_path / "blown", "grpo.learning_rate", recipe, rewards=[digits])
    assert checkpoints(run.path) == []


def half_trained(folder: Path, well_formed: float) -> Path:
    """A tiny model that answers with a well-formed 7, at this share of what it was taught, or else without one."""
    recipe = load_recipe("smoke")
    model, tokenizer = load_policy("tiny-random"), load_tokenizer("tiny-random")
    optimizer = torch.optim.Adam(model.parameters())
    questions = recipe.training_problems()["question"]
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.01 if step < 150 else 0.001
        prompt = recipe.template().render(tokenizer, questions[step % len(questions)])
        rows = [tokenizer(prompt + answer + "<|end|>")["input_ids"] for answer in ("a\n#### 7", "b no idea")]
        start = len(tokenizer(prompt)["input_ids"])
        for ids, weight in zip(rows, (well_formed, 1 - well_formed), strict=True):
            labels = torch.tensor([[-100] * start + ids[start:]])
            (weight * model(input_ids=torch.tensor([ids]), labels=labels).loss).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_warns_of_format_without_accuracy_and_of_collapse_and_trains_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = ["grpo.max_steps=12", "evaluation.every_steps=2", "evaluation.heldout=16", "lora=null"]
    size = ["grpo.num_generations=8", "grpo.per_device_train_batch_size=16"]
    fast = ["grpo.learning_rate=3e-3", "grpo.lr_scheduler_type=constant"]
    recipe = load_recipe(
        "smoke", [f"model.name={half_trained(tmp_path / 'half', 0.4)}", *steps, *size, *fast]
    )
    run = train(recipe, tmp_path / "hacked", rewards=[FormatReward()])
    assert (run.path / "model").exists() and run.log().step.iloc[-1] == 12
    said = capsys.readouterr().err
    for kind, text in [("hacking", "held-out format 0% → "), ("entropy", "entropy has collapsed")]:
        assert run.log()[f"warning/{kind}"].dropna().size == 1 and text in run.log()[f"warning/{kind}"].max()
        assert said.count(text) == 1


def test_ends_early_with_the_best_model_where_accuracy_falls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every answer is 7 and the model mostly says so, until it is paid for not saying it."""
    for split in ("train", "test"):
        questions = make_word_problems(split, 64, max_steps=1)["question"]
        rows = [{"question": question, "answer": "a\n#### 7"} for question in questions]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def without(completions: list, **_: object) -> list[float]:
        return [float("#" not in text) for text in completions]

    base = half_trained(tmp_path / "half", 0.8)
    steps = ["grpo.max_steps=40", "evaluation.every_steps=2", "evaluation.heldout=16", "lora=null"]
    size = ["grpo.num_generations=8", "grpo.per_device_train_batch_size=16", f"data.source={tmp_path}"]
    fast = [
        "grpo.learning_rate=3e-3",
        "grpo.lr_scheduler_type=constant",
        "evaluation.n=4",
        "data.train_size=32",
    ]
    run = train(
        load_recipe("smoke", [f"model.name={base}", *steps, *size, *fast]),
        tmp_path / "fallen",
        rewards=[without],
    )
    said, summary = run.log().stopped_early.dropna().item(), run.summary()
    assert "has fallen from 100%" in said and said in " ".join(capsys.readouterr().err.split())
    assert summary["steps"] < 40 and summary["stopped_by"] == said
    measured = run.log().dropna(subset=["heldout/strict"])
    best = measured[measured["heldout/strict"] == measured["heldout/strict"].max()].step.max()
    assert summary["best_step"] == best < summary["steps"]
    assert not list(run.path.glob("checkpoints/best-*"))
    kept, start = load_policy(str(run.path / "model")), load_policy(str(base))
    same = [torch.equal(a, b) for a, b in zip(kept.parameters(), start.parameters(), strict=True)]
    assert all(same) == (best == 0)
