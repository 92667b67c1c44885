"""Find out whether a folder holds a run of this recipe, whether it is finished, and from where it goes on."""

import json
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from rlvr_kit.errors import InputError, UserError
from rlvr_kit.machine import IS_MAIN_PROCESS
from rlvr_kit.recipe import Recipe, load_recipe
from rlvr_kit.run_folder import Run
from rlvr_kit.training.finish import reason_to_end, write_summary


def resolved_as_begun(recipe: Recipe, folder: Path) -> Recipe:
    """Return the resolved recipe, with the number format of the folder's run, which may come from another machine."""
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
    """Return whether the run has its model. If a kill left it without a summary, the summary is written now."""
    if not (run.path / "model").exists():
        return False
    if IS_MAIN_PROCESS and not (run.path / "summary.json").exists():
        lines = run.lines() if (run.path / "log.jsonl").exists() else []
        write_summary(recipe, run, reason_to_end(recipe, lines), peak_gib=None)
    console = Console(stderr=True, quiet=not IS_MAIN_PROCESS, soft_wrap=True)
    console.print(f"{run.path} is a finished run of this recipe; nothing to do", markup=False)
    return True


def checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints of a run folder, the oldest first.

    SageMaker copies a job's checkpoints to S3 file by file, so after an interruption some files may be missing.
    A checkpoint is complete when it has every file that its files.json names, each with the size that is given there.
    """
    found = [path.parent for path in (folder / "checkpoints").glob("checkpoint-*/files.json")]
    return sorted(filter(_is_complete, found), key=lambda path: int(path.name.split("-")[1]))


def _is_complete(checkpoint: Path) -> bool:
    try:
        named = json.loads((checkpoint / "files.json").read_text(encoding="utf-8"))
        return named.items() <= file_sizes(checkpoint).items()
    except (ValueError, OSError, AttributeError):  # unreadable, or no JSON object
        return False


def file_sizes(folder: Path) -> dict[str, int]:
    """Return the size in bytes of each file in a folder, by its path relative to the folder."""
    return {
        str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()
    }
