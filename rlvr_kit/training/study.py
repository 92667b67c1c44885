"""A study: a file that says what to try, and the figures of the runs that have finished.

A study file, STUDY.yaml:

    recipe: cpu
    seeds: [0, 1, 2, 3, 4]
    variants:
      default: {}
      colder: {grpo.temperature: 0.5}

Every variant is run with every seed (sweep.py). A run that has finished left its figures in
OUT/<variant>/seed-<seed>/result.json, and those of all runs together are in OUT/sweep.json. Either file is enough: a
folder that holds nothing but a sweep.json is a study that can be continued, on any machine.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlvr_kit.errors import InputError, UserError
from rlvr_kit.measure.seeds import summarize_seeds
from rlvr_kit.recipe import Recipe, load_recipe
from rlvr_kit.run_folder import atomic

Cell = tuple[str, int]  # one run of a study: the name of its variant, and its seed


class Study(BaseModel):
    """What to try: `variants` maps a name to the recipe's keys that differ, each run with every one of `seeds`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    recipe: str
    seeds: list[int] = Field(min_length=1)
    variants: dict[str, dict[str, Any]] = Field(min_length=1)

    def recipe_of(self, variant: str, seed: int) -> Recipe:
        """Return the recipe of one run of the study."""
        changes = [f"{key}={json.dumps(value)}" for key, value in self.variants[variant].items()]
        return load_recipe(self.recipe, [*changes, f"run.seed={seed}"])

    @property
    def cells(self) -> list[Cell]:
        """All runs, in the order in which they are made: each variant's first seed before any variant's second."""
        return [(variant, seed) for seed in self.seeds for variant in self.variants]


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


def recipe_key(recipe: Recipe) -> str:
    """Return eight characters that are equal for recipes that train and measure alike.

    What a recipe leaves at its default does not count, so a key that a later version of the kit adds changes nothing.
    The number of threads and the SageMaker section do not count either, nor the number format that ``dtype: auto``
    chooses on a machine: each run of a study says its own.
    """
    prompt = recipe.prompt.model_copy(update={"instruction": recipe.template(shots=0).instruction})
    values = recipe.model_copy(update={"prompt": prompt}).model_dump(
        mode="json", exclude_defaults=True, exclude={"sagemaker": True, "run": {"threads"}}
    )
    return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def result_file(out: Path, cell: Cell) -> Path:
    """Return where a run of the study in the folder `out` leaves its figures."""
    variant, seed = cell
    return out / variant / f"seed-{seed}" / "result.json"


def finished_runs(study: Study, out: Path) -> dict[Cell, dict[str, Any]]:
    """Return the figures of the runs that have finished, from OUT/sweep.json and from the folders of the runs.

    Raises:
        UserError: they are those of another study, or of a recipe that has changed since.
    """
    found: dict[Cell, dict[str, Any]] = {}
    summary = out / "sweep.json"
    if summary.exists():
        try:
            values = json.loads(summary.read_text(encoding="utf-8"))
            for run in values["runs"]:
                found[run["variant"], run["seed"]] = run | {"machine": values["machines"][run["machine"]]}
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            raise InputError(f"{summary} is not what a sweep of this version writes: move it away") from None
    for cell in study.cells:
        if result_file(out, cell).exists():
            found[cell] = json.loads(result_file(out, cell).read_text(encoding="utf-8"))
    for (variant, seed), run in found.items():
        name = f"{out} holds a run of variant {variant!r} with seed {seed}"
        if (variant, seed) not in study.cells:
            raise InputError(
                f"{name}, which the study does not have: add it, or choose another output folder"
            )
        if run.get("recipe") != recipe_key(study.recipe_of(variant, seed)):
            raise InputError(f"{name} of another recipe than the study's now: choose another output folder")
    return found


def write_sweep(study: Study, out: Path, finished: Mapping[Cell, Mapping[str, Any]]) -> dict[str, Any]:
    """Write OUT/sweep.json from the runs that have finished, and return it.

    ``machines`` lists the machines, with the versions of their libraries, and each run names one by its place there.
    """
    cells = [(variant, seed) for variant in study.variants for seed in study.seeds]
    runs = [dict(finished[cell]) for cell in cells if cell in finished]
    machines = [json.loads(text) for text in dict.fromkeys(json.dumps(run["machine"]) for run in runs)]
    runs = [run | {"machine": machines.index(run["machine"])} for run in runs]
    values = {
        "study": study.model_dump(mode="json"),
        "machines": machines,
        "hours": round(sum(run["minutes"] for run in runs) / 60, 2),
        "variants": {name: summarize_seeds([r for r in runs if r["variant"] == name]) for name in study.variants},
        "runs": runs,
    }  # fmt: skip
    with atomic(out / "sweep.json") as draft:
        draft.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return values
