"""Whether a folder holds a run of this recipe, whether that run is finished, and in what number format it began."""

from contextlib import suppress
from pathlib import Path

from rich.console import Console

from rlvr_kit.errors import InputError, UserError
from rlvr_kit.machine import IS_MAIN_PROCESS
from rlvr_kit.recipe import Recipe, load_recipe
from rlvr_kit.run_folder import Run
from rlvr_kit.training.finish import reason_to_end, write_summary


def resolved_as_begun(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe resolved, in the number format in which the folder's run began, perhaps on another machine."""
    if recipe.model.dtype == "auto" and (folder / "recipe.yaml").exists():
        with suppress(UserError):  # a recipe that cannot be read is refused by whoever needs it
            begun = load_recipe(folder / "recipe.yaml").model.dtype
            recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"dtype": begun})})
    return recipe.resolved()


def refuse_other_run(recipe: Recipe, folder: Path) -> None:
    """Raise UserError when the folder holds a run of another recipe."""
    kept = folder / "recipe.yaml"
    if kept.exists():
        try:
            before, now = load_recipe(kept).resolved().model_dump(), recipe.model_dump()
        except UserError as error:
            advice = "put that run's recipe back there, or choose another output folder"
            raise InputError(f"{error}; so it is not known which run this is: {advice}") from None
        if differing := [key for key in now if before[key] != now[key]]:
            raise InputError(
                f"{folder} holds another run (its recipe has another {', '.join(differing)}); choose another "
                "output folder, or give that run's own recipe to go on with it"
            )
        recipe.loaded_task.refuse_changed(folder / "task.py")
    elif (folder / "log.jsonl").exists() or (folder / "model").exists():
        raise InputError(f"{folder} holds another run (with no recipe.yaml); choose another output folder")


def is_finished(recipe: Recipe, run: Run) -> bool:
    """Whether the run has its model. A summary that a kill has prevented is written now."""
    if not (run.path / "model").exists():
        return False
    if IS_MAIN_PROCESS and not (run.path / "summary.json").exists():
        lines = run.lines() if (run.path / "log.jsonl").exists() else []
        write_summary(recipe, run, reason_to_end(recipe, lines), peak_gib=None)
    console = Console(stderr=True, quiet=not IS_MAIN_PROCESS, soft_wrap=True)
    console.print(f"{run.path} is a finished run of this recipe; nothing to do", markup=False)
    return True
