"""`make bench` in its quick sizes, and what its figures mean."""

import json
from pathlib import Path

import bench
import pytest
from bench_tables import tables
from one_step import Step, make_trainer, operations, time_steps
from turns import Side, fastest, ratio_counts


def test_quick_sizes_run_and_everything_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = bench.bench(bench.QUICK, tmp_path / "new" / "bench.json")
    assert json.loads((tmp_path / "new" / "bench.json").read_text()) == found
    assert {"processor", "cores", "torch", "trl"} <= set(found["machine"])
    [row] = found["training"]
    assert [len(row[f"{side}_steps_s"]) for side in ("stock", "kit")] == [bench.ROUNDS, 2 * bench.ROUNDS]
    assert row["ratio"] == pytest.approx(row["stock_step_s"] / row["kit_step_s"])
    assert row["max_logp_diff"] < 1e-4 and row["max_grad_rel_diff"] < 1e-4
    [answered] = found["evaluation"]
    if answered["kit_format"] == answered["stock_format"] == "float32":
        assert answered["same_completions"] == answered["n"]
    grown = [(row["changed"], row["to"]) for row in found["growth"]]
    assert grown == [("shots", 0), ("shots", 1), ("threads", 1)]
    assert tables(found, bench.QUICK.step) in capsys.readouterr().out


def test_a_ratio_counts_only_where_each_side_reached_its_fastest_time_twice() -> None:
    stock = fastest(
        [
            {"sampling": 9.0, "learning": 9.0},
            {"sampling": 3.0, "learning": 7.0},
            {"sampling": 3.2, "learning": 7.3},
        ]
    )
    assert (stock["seconds"], stock["learning"]) == (10.0, 7.0) and stock["spread"] == pytest.approx(0.05)
    lucky = fastest([{"seconds": 5.0}, {"seconds": 2.0}, {"seconds": 2.3}])
    assert ratio_counts(stock) and not ratio_counts(stock, lucky)


@pytest.mark.parametrize("side", ["stock", "kit"])
def test_operations_count_two_for_each_token_and_parameter(side: str, tmp_path: Path) -> None:
    step = Step(model="tiny-random", problems=2, group=2, tokens=3, rows=4 if side == "kit" else 2)
    trainer = make_trainer(side, step, 1, str(tmp_path))
    [timed] = time_steps(trainer)
    assert timed["sampling"] > 0 and timed["learning"] > 0
    first, second = sorted({tuple(ids) for ids in rendered(step)})
    common = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    frozen = (
        2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64 + 2 * 32) + 32
    )  # attention, MLP, norms of two layers
    lora = (
        2 * 32 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 64))
    )  # rank 32 on the seven linear layers of each
    read = len(first) + len(second) - common if side == "kit" else 2 * (len(first) + len(second))
    tokens, head = read + 12, 258 * 32 * 12  # 12 tokens are written; 258 entries in the vocabulary
    forward = 2 * ((frozen + lora) * tokens + head)
    counted = {"sampling": forward, "learning": 2 * forward + 2 * lora * tokens}
    assert operations(trainer, side == "kit") == counted


def rendered(step: Step) -> list[list[int]]:
    """Token ids of the step's prompts."""
    from rlvr_kit.engine.sampling import prompt_token_ids
    from rlvr_kit.models import load_tokenizer

    recipe, tokenizer = step.recipe(1), load_tokenizer(step.model)
    questions = recipe.training_problems()["question"][: step.problems]
    return prompt_token_ids(tokenizer, [recipe.template().render(tokenizer, q) for q in questions])


def fails(link: object) -> None:
    raise RuntimeError("not enough memory")


def test_a_side_that_dies_ends_the_measurement_with_the_reason() -> None:
    with pytest.raises(SystemExit, match="ended with 1"):
        Side(fails).turn()
