"""Run a study: every variant of a recipe with every seed, because one run proves nothing.

Each variant and seed is a run in a process of its own: trained, then compared with its base model on the test split.
Its folder is OUT/<variant>/seed-<seed>, and its figures end up in OUT/sweep.json (study.py). All variants get their
first seed before any gets its second, so that a study that is stopped early is still a fair one. The same call
continues it. The weights of a finished run are deleted; its log, completions and verdicts are kept.
"""

import json
import multiprocessing
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from rlvr_kit.errors import InputError, UserError
from rlvr_kit.machine import describe_machine, die_with_parent, share_of_cores, use_threads
from rlvr_kit.measure.course import course_of
from rlvr_kit.recipe import Recipe
from rlvr_kit.run_folder import Run, atomic
from rlvr_kit.training.resume import resolved_as_begun
from rlvr_kit.training.study import Cell, Study, finished_runs, recipe_key, result_file, write_sweep


def sweep(study: Study, out: str | Path, jobs: int = 1) -> dict[str, Any]:
    """Run what is missing of a study, `jobs` runs at a time, and return what OUT/sweep.json then holds.

    Runs whose figures OUT/sweep.json already holds count as finished, wherever they were made.

    Raises:
        UserError: the folder holds another study; or a variant's recipe cannot work, which is found before anything is
            run; or a run failed for another reason than a stop by guards.py. All runs that have finished are kept.

    >>> sweep(load_study("study.yaml"), "runs/study")["variants"]["default"]["mean"]  # doctest: +SKIP
    0.31
    """
    out = Path(out)
    finished = finished_runs(study, out)
    missing = [cell for cell in study.cells if cell not in finished]
    # Each run gets a fresh process: no state and no memory of the run before, and a crash ends one run only.
    threads = share_of_cores(jobs)
    spawn = multiprocessing.get_context("spawn")
    with (
        tqdm(total=len(study.cells), initial=len(finished), desc="study", unit="run") as bar,
        ProcessPoolExecutor(
            jobs, mp_context=spawn, max_tasks_per_child=1, initializer=die_with_parent
        ) as pool,
    ):
        if missing:
            pool.submit(
                check_variants, study, list(dict.fromkeys(variant for variant, _ in missing))
            ).result()
        results = {
            pool.submit(run_one, _with_threads(study.recipe_of(*cell), threads), cell[0], out): cell
            for cell in missing
        }
        for cell in _in_order_of_end(results):
            finished[cell] = json.loads(result_file(out, cell).read_text(encoding="utf-8"))
            bar.write(f"{cell[0]}, seed {cell[1]}: {finished[cell]['sentence']}")
            bar.set_postfix_str(f"about {_minutes_left(study, finished, jobs):.0f} minutes remain")
            bar.update()
            write_sweep(study, out, finished)
    return write_sweep(study, out, finished)


def check_variants(study: Study, variants: Sequence[str]) -> None:
    """Plan a run of each of these variants, so that hours are not lost to one that could never have worked.

    Raises:
        UserError: the first recipe that cannot work here; the message names its variant.
    """
    from rlvr_kit.training.plan import plan  # late: it loads torch and TRL

    for variant in variants:
        try:
            plan(study.recipe_of(variant, study.seeds[0]))
        except UserError as error:
            raise InputError(f"variant {variant!r}: {error}") from None


def _minutes_left(study: Study, finished: dict[Cell, dict[str, Any]], jobs: int) -> float:
    """Return the minutes that the missing runs will take, if each takes as long as the median of the finished ones."""
    return median(run["minutes"] for run in finished.values()) * (len(study.cells) - len(finished)) / jobs


def _with_threads(recipe: Recipe, threads: int) -> Recipe:
    """Return the recipe with this number of threads, unless the recipe sets its own."""
    run = recipe.run.model_copy(update={"threads": recipe.run.threads or threads})
    return recipe.model_copy(update={"run": run})


def run_one(recipe: Recipe, variant: str, out: Path) -> None:
    """Train and measure one run of a study, and write its result.json at the very end.

    Everything that training prints goes to output.txt in the run's folder.
    """
    file = result_file(out, (variant, recipe.run.seed))
    folder, started = file.parent, time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    key, recipe = recipe_key(recipe), resolved_as_begun(recipe, folder)
    with (folder / "output.txt").open("a") as output, redirect_stdout(output), redirect_stderr(output):
        result = train_and_compare(recipe, folder, out / f"base-{base_key(recipe)}")
    made = {
        "recipe": key,
        "machine": describe_machine() | {"threads": recipe.run.threads, "dtype": recipe.model.dtype},
        "minutes": round((time.monotonic() - started) / 60, 2),
    }
    with atomic(file) as draft:
        draft.write_text(json.dumps({"variant": variant} | result | made, indent=2), encoding="utf-8")
    for weights in (
        "model",
        "adapter",
        "checkpoints",
    ):  # a gigabyte a run, and a study needs only the figures
        shutil.rmtree(folder / weights, ignore_errors=True)


def base_key(recipe: Recipe) -> str:
    """Return a key that is equal for recipes whose base model is measured alike: these share one measurement."""
    from rlvr_kit.models import evaluation_dtype  # late: it loads torch

    sections = recipe.model_dump(include={"task", "model", "data", "prompt", "evaluation"})
    sections["model"]["dtype"] = evaluation_dtype(recipe.model.dtype)
    return sha256(json.dumps(sections, sort_keys=True).encode()).hexdigest()[:8]


def train_and_compare(recipe: Recipe, folder: Path, base_folder: Path) -> dict[str, Any]:
    """Train into `folder`, measure the base and the trained model on the test split, and return the figures.

    A run that a guard has stopped without a model counts as a gain of 0, and `stopped` holds the reason.
    """
    from rlvr_kit.measure.evaluation import evaluate_recipe
    from rlvr_kit.measure.statistics import compare
    from rlvr_kit.training.train import train

    use_threads(recipe.run.threads)
    base = evaluate_recipe(recipe, label="base", out=Run(base_folder))
    stopped, run = None, Run(folder)
    try:
        train(recipe, folder)
        tuned = evaluate_recipe(recipe, label="tuned", model=str(run.path / "model"), out=run)
        summary = run.summary()
    except UserError as error:
        if "training stopped at" not in str(error):  # a stop by a guard is a result; other errors are not
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
    values |= {key: summary.get(key) for key in ("steps", "best_step", "training_minutes", "peak_memory_gib")}
    return values | course_of(run.lines())


def _in_order_of_end(runs: dict[Future, Cell]) -> Iterator[Cell]:
    """Yield each run when it has ended. A run that failed ends the study, with an error that names the run."""
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
