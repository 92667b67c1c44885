"""`make check-learning SEED=n`: train the default recipe with one seed; fail unless the gain is significant.

CI draws the seed from the commit, so that nobody can choose one that works.
"""

import sys
import tempfile
from pathlib import Path

from rlvr_kit import load_recipe
from rlvr_kit.measure.wording import outcome_of
from rlvr_kit.training.sweep import train_and_compare


def main(seed: int) -> int:
    recipe = load_recipe("cpu", [f"run.seed={seed}"])
    with tempfile.TemporaryDirectory() as folder:
        result = train_and_compare(recipe, Path(folder) / "run", Path(folder) / "base")
    print(
        f"seed {seed}: {result['sentence']} (step {result['best_step']}, {result['training_minutes']} minutes)"
    )
    return int(outcome_of(result["gain"], result["p"]) != "gain")


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
