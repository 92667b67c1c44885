"""A study: every variant of a recipe with every seed, because one run proves nothing.

A study file, STUDY.yaml:

    recipe: cpu
    seeds: [0, 1, 2, 3, 4]
    variants:
      default: {}
      colder: {grpo.temperature: 0.5}

Each variant and seed is a run in a process of its own: trained, then compared with its base model on the test split.
Its folder is OUT/<variant>/seed-<seed>, and its figures end up in OUT/sweep.json. All variants get their first seed
before any gets its second, so that a study that is stopped early is still a fair one. The same call goes on with it.
"""

import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tqdm import tqdm

from rlvr_kit.errors import InputError, UserError
from rlvr_kit.machine import describe_machine, die_with_parent, share_of_cores, use_threads
from rlvr_kit.measure.seeds import summarize_seeds
from rlvr_kit.recipe import Recipe, load_recipe
from rlvr_kit.run_folder import Run, atomic
from rlvr_kit.training.resume import resolved_as_begun


class Study(BaseModel):
    """What to try: `variants` maps a name to the recipe's keys that differ, each run with every one of `seeds`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    recipe: str
    seeds: list[int] = Field(min_length=1)
    variants: dict[str, dict[str, Any]] = Field(min_length=1)

    def recipe_of(self, variant: str, seed: int) -> Recipe:
        """The recipe of one run of the study."""
        changes = [f"{key}={json.dumps(value)}" for key, value in self.variants[variant].items()]
        return load_recipe(self.recipe, [*changes, f"run.seed={seed}"])


def load_study(path: str | Path) -> Study:
    """Read a study file and every recipe that it describes.

    Raises:
        UserError: it is no study, or one of its recipes cannot work; the message names the variant.
    """
    try:
        study = Study.model_validate(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} is not a readable study file: {str(error).splitlines()[0]}") from None
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in error.errors())
        raise InputError(f"{path} is not a study (recipe, seeds, variants): {wrong}") from None
    for variant in study.variants:
        if Path(variant).name != variant:
            raise InputError(f"{path}: a variant's name becomes a folder, which {variant!r} cannot be")
        try:
            study.recipe_of(variant, study.seeds[0])
        except UserError as error:
            raise InputError(f"{path}, variant {variant!r}: {error}") from None
    return study


def sweep(study: Study, out: str | Path, jobs: int = 1) -> dict[str, Any]:
    """Run what is missing of a study, `jobs` runs at a time, and return what OUT/sweep.json then holds.

    Raises:
        UserError: a run failed for a reason that is not the policy's; the others are kept.

    >>> sweep(load_study("study.yaml"), "runs/study")["variants"]["default"]["mean"]  # doctest: +SKIP
    0.31
    """
    out = Path(out)
    todo = [(variant, seed) for seed in study.seeds for variant in study.variants]
    missing = [run for run in todo if not _result_file(out, *run).exists()]
    # Each run gets a fresh process: no state and no memory of the run before, and a crash ends one run only.
    threads = share_of_cores(jobs)
    spawn = multiprocessing.get_context("spawn")
    with (
        tqdm(total=len(todo), initial=len(todo) - len(missing), desc="study", unit="run") as bar,
        ProcessPoolExecutor(
            jobs, mp_context=spawn, max_tasks_per_child=1, initializer=die_with_parent
        ) as pool,
    ):
        results = {
            pool.submit(run_one, _with_threads(study.recipe_of(*run), threads), run[0], out): run for run in missing
        }  # fmt: skip
        for variant, seed in _finished(results):
            bar.update()
            result = json.loads(_result_file(out, variant, seed).read_text(encoding="utf-8"))
            bar.write(f"{variant}, seed {seed}: {result['sentence']}")
            _write(study, out)
    return _write(study, out)


def _with_threads(recipe: Recipe, threads: int) -> Recipe:
    """The recipe with its share of the cores, unless it says itself how many threads it wants."""
    run = recipe.run.model_copy(update={"threads": recipe.run.threads or threads})
    return recipe.model_copy(update={"run": run})


def run_one(recipe: Recipe, variant: str, out: Path) -> None:
    """Train and measure one run of a study; its last act is to write its result.json.

    What training prints goes to output.txt in the run's folder.
    """
    folder = _result_file(out, variant, recipe.run.seed).parent
    folder.mkdir(parents=True, exist_ok=True)
    recipe = resolved_as_begun(recipe, folder)  # so that no base measured in another number format is taken
    with (folder / "output.txt").open("a") as output, redirect_stdout(output), redirect_stderr(output):
        result = train_and_compare(recipe, folder, out / f"base-{_base_key(recipe)}")
    with atomic(folder / "result.json") as draft:
        draft.write_text(json.dumps({"variant": variant} | result, indent=2), encoding="utf-8")


def _base_key(recipe: Recipe) -> str:
    """Equal for recipes whose base models are measured alike, so that they share one measurement."""
    sections = recipe.model_dump(include={"model", "data", "prompt", "evaluation"})
    return sha256(json.dumps(sections, sort_keys=True).encode()).hexdigest()[:8]


def train_and_compare(recipe: Recipe, folder: Path, base_folder: Path) -> dict[str, Any]:
    """Train into `folder`, measure base and trained model on the test split, and return what came of it.

    A run that a guard has stopped without a model counts as one that changed nothing: `stopped` holds its reason.
    """
    from rlvr_kit.measure.evaluation import evaluate_recipe
    from rlvr_kit.measure.statistics import compare
    from rlvr_kit.training.train import train

    use_threads(recipe.run.threads)
    base = evaluate_recipe(recipe, label="base", out=Run(base_folder))
    stopped = None
    try:
        run = train(recipe, folder)
        tuned = evaluate_recipe(recipe, label="tuned", model=str(run.path / "model"), out=run)
        summary = run.summary()
    except UserError as error:
        if "training stopped at" not in str(error):  # a guard's word is a result, anything else is not
            raise
        stopped, tuned, summary = str(error), base, {}
    result = compare(base.rows, tuned.rows)
    values = {
        "seed": recipe.run.seed,
        "n": result.n,
        "base": base.summary["strict"],
        "tuned": tuned.summary["strict"],
        "format": tuned.summary["format"],
        "tokens": float(tuned.rows.tokens.mean()),
        "gain": result.difference,
        "ci": result.ci,
        "p": result.p,
        "sentence": stopped or result.sentence,
        "stopped": stopped,
    }
    return values | {
        key: summary.get(key) for key in ("steps", "best_step", "training_minutes", "peak_memory_gib")
    }


def _result_file(out: Path, variant: str, seed: int) -> Path:
    return out / variant / f"seed-{seed}" / "result.json"


def _finished(runs: dict[Future, tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """Each run when it has ended; one that failed ends the study, and names itself."""
    for future in as_completed(runs):
        variant, seed = runs[future]
        try:
            future.result()
        except (UserError, BrokenProcessPool) as error:
            for other in runs:
                other.cancel()
            raise InputError(
                f"variant {variant!r}, seed {seed}: {error}. What has finished is kept; the same command goes on"
            ) from error
        yield variant, seed


def _write(study: Study, out: Path) -> dict[str, Any]:
    """Write sweep.json from the runs that have finished."""
    files = [_result_file(out, variant, seed) for variant in study.variants for seed in study.seeds]
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]
    values = {
        "study": study.model_dump(mode="json"),
        "machine": describe_machine(),
        "hours": round(sum(run["training_minutes"] or 0 for run in runs) / 60, 2),
        "variants": {name: summarize_seeds([r for r in runs if r["variant"] == name]) for name in study.variants},
        "runs": runs,
    }  # fmt: skip
    with atomic(out / "sweep.json") as draft:
        draft.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return values
