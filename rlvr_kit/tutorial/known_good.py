"""A trained model for whoever comes late: a committed run whose adapter is small enough for git.

    notebooks/samples/known_good/   recipe.yaml, log.jsonl, summary.json, evals/, and model/ with the LoRA matrices

``python -m rlvr_kit.tutorial.known_good RUN`` makes that folder of a run with LoRA, and rounds its adapter to
bfloat16. What the base model has already (tokenizer, licence) is left out; a copy in the reader's folder gets it back.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from rlvr_kit.errors import InputError, UserError
from rlvr_kit.models import load_tokenizer
from rlvr_kit.paths import PROJECT, project_path
from rlvr_kit.recipe import load_recipe
from rlvr_kit.run_folder import Run

KNOWN_GOOD = PROJECT / "notebooks" / "samples" / "known_good"
MODEL_FILES = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "generation_config.json",
    "prompt.json",
    "README.md",
)
RUN_FILES = ("recipe.yaml", "log.jsonl", "summary.json", "evals/base.*", "evals/tuned.*")


def trained_run(run_dir: str | Path, recipe: str, known_good: Path = KNOWN_GOOD) -> tuple[Run, str] | None:
    """The reader's run where it has a model, else a copy of the known-good one in ``run_dir/known_good``, else None.

    The text says which one it is, to be shown. The known-good run is for recipes with the same base model only; with
    `smoke`, whose model is a random one, there is none.

    >>> run, which = trained_run("runs/tutorial", "cpu")  # doctest: +SKIP
    """
    own = Run(project_path(run_dir))
    if (own.path / "model").exists():
        return own, f"the model trained in {run_dir}"
    if not (known_good / "recipe.yaml").exists():
        return None
    base = load_recipe(known_good / "recipe.yaml").model.name
    if load_recipe(recipe).model.name != base:
        return None
    copy = own.path / "known_good"
    if not (copy / "model" / "tokenizer.json").exists():  # what is written last
        shutil.copytree(known_good, copy, dirs_exist_ok=True)
        load_tokenizer(base).save_pretrained(copy / "model")
    return Run(copy), f"the known-good model that comes with the kit ({known_good.relative_to(PROJECT)})"


def make_known_good(run: Run, out: Path = KNOWN_GOOD) -> Path:
    """Write the known-good run into `out`, in the place of the one there: its records, and its adapter in bfloat16.

    Raises UserError where the run has no adapter or no evaluations `base` and `tuned`.
    """
    from rlvr_kit.share.export import export

    for label in ("base", "tuned"):
        run.evaluation(label)
    with tempfile.TemporaryDirectory() as scratch:
        exported = export(run, Path(scratch) / "adapter", "adapter", "bfloat16")
        shutil.rmtree(out, ignore_errors=True)
        (out / "model").mkdir(parents=True)
        for name in MODEL_FILES:
            shutil.copy(exported / name, out / "model" / name)
    for pattern in RUN_FILES:
        for file in run.path.glob(pattern):
            (out / file.relative_to(run.path)).parent.mkdir(exist_ok=True)
            shutil.copy(file, out / file.relative_to(run.path))
    return out


def main(arguments: list[str]) -> None:
    """Make the known-good run of the run folder that the command line names."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise InputError("name one run folder: python -m rlvr_kit.tutorial.known_good runs/x")
    made = make_known_good(Run(arguments[0]))
    size = sum(file.stat().st_size for file in made.rglob("*") if file.is_file())
    print(f"written: {made} ({size / 1e6:.1f} MB)")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
