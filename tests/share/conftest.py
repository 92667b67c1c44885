"""One small run and its exported folders for all tests of sharing."""

import pytest

from rlvr_kit.measure.evaluation import evaluate_recipe
from rlvr_kit.recipe import load_recipe
from rlvr_kit.run_folder import Run
from rlvr_kit.share.export import export
from rlvr_kit.training.train import train

#: The entropy bonus moves the weights of a random model, and a base without a seed of 0 shows a wrong base.
MOVES = ["grpo.entropy_coef=0.5", "grpo.learning_rate=0.02", "run.seed=3", "evaluation.n=12"]
MOVES += ["model.dtype=float32"]  # equal letters are expected of float32 alone


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Run:
    recipe = load_recipe("smoke", MOVES)
    run = train(recipe, tmp_path_factory.mktemp("shared") / "run")
    for label, model in (("base", "tiny-random"), ("tuned", str(run.path / "model"))):
        evaluate_recipe(recipe, label=label, model=model, out=run)
    return run


@pytest.fixture(scope="session")
def folders(run):
    """The run's model, exported in both ways."""
    return {kind: export(run, run.path / "shared" / kind, kind) for kind in ("merged", "adapter")}
