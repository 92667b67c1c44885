"""``python -m rlvr_kit doctor | score | plan | train | evaluate | audit | new-task | export | push | submit | …``."""

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from rlvr_kit.cloud_commands import clean_up, deploy, submit
from rlvr_kit.command_options import AsJson, Out, Overrides, RecipeName
from rlvr_kit.errors import UserError
from rlvr_kit.evaluate_command import evaluate
from rlvr_kit.machine import IS_MAIN_PROCESS
from rlvr_kit.share_commands import export, push
from rlvr_kit.task_commands import audit, new_task

app = typer.Typer(
    help="Reinforcement learning with verifiable rewards: score, plan, train, measure.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
)  # fmt: skip


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Show what this machine can run; --json prints one line, and ends with 1 where the cpu recipe would not run."""
    from rlvr_kit.doctor import check_machine, report

    if as_json:
        found = report()
        print(json.dumps(found))
        raise typer.Exit(not found["ready"])
    for item, value, verdict in check_machine():
        Console().print(f"[bold]{item}[/]: {escape(f'{value}. {verdict}')}", highlight=False)


@app.command()
def score(
    file: Annotated[
        str, typer.Argument(help="JSON lines with `completion` and `gold` (or `answer`); - is stdin.")
    ] = "-",
    task: Annotated[
        str | None, typer.Option(help="The task whose verifier judges; by default numbers, as in GSM8K.")
    ] = None,
) -> None:
    """Judge completions with the verifier; verdicts on stdout, a summary on stderr."""
    from rlvr_kit.rewards.score import score_file

    raise typer.Exit(score_file(file, task))


@app.command()
def plan(
    recipe: RecipeName = "cpu",
    overrides: Overrides = [],  # noqa: B006
    gpu_memory: Annotated[
        float | None, typer.Option(help="Plan for a GPU with this many GiB, instead of this machine.")
    ] = None,
    measure: Annotated[bool, typer.Option(help="Time a training step on this machine.")] = True,
    as_json: AsJson = False,
) -> None:
    """Show what a recipe will need: batches, memory, time."""
    from rlvr_kit.recipe import load_recipe
    from rlvr_kit.training.plan import plan as make_plan

    settings = load_recipe(recipe, overrides)
    if measure and gpu_memory is None:
        from rlvr_kit.training.time_step import timed_plan

        result = timed_plan(settings)
    else:
        result = make_plan(settings, gpu_memory)
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
    else:
        Console().print(result)


@app.command()
def train(out: Out, recipe: RecipeName = "cpu", overrides: Overrides = []) -> None:  # noqa: B006
    """Train by a recipe. The same command resumes a run that was interrupted."""
    from rlvr_kit.recipe import load_recipe

    settings = load_recipe(recipe, overrides)  # before the seconds that the training libraries take to load
    from rlvr_kit.training.train import train as run_training

    run = run_training(settings, out)
    console = Console(stderr=True, quiet=not IS_MAIN_PROCESS, soft_wrap=True)
    console.print(f"trained: {run.path / 'model'}", highlight=False, markup=False)


app.command()(evaluate)


@app.command()
def sweep(
    study: Annotated[Path, typer.Argument(help="A study file: recipe, seeds, variants.")],
    out: Out,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time; each takes a recipe's whole memory.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Run every variant of a study with every seed. The same command resumes a study that was interrupted."""
    from rlvr_kit.measure.plots import save
    from rlvr_kit.measure.seeds import seeds_table
    from rlvr_kit.measure.study_plots import forest, seeds_figure
    from rlvr_kit.measure.variants import conclusions, variants_table, where_made
    from rlvr_kit.training.study import load_study
    from rlvr_kit.training.sweep import sweep as run_sweep

    result = run_sweep(load_study(study), out, jobs)
    figure = save(seeds_figure(result), out / "figures" / "seeds")
    said = [seeds_table(result).to_string(index=False)]
    if len(result["variants"]) > 1:
        figure = save(forest(result), out / "figures" / "forest")
        said += [variants_table(result).to_string(index=False), "\n".join(conclusions(result))]
    print(json.dumps(result, indent=2) if as_json else "\n\n".join([*said, where_made(result)]))
    print(f"{out / 'sweep.json'}; the figure: {figure.with_suffix('.png')}", file=sys.stderr)


for command in (audit, new_task, export, push, submit, deploy, clean_up):
    app.command()(command)


@app.command()
def notebooks(out: Out, recipe: RecipeName = "cpu", seed: int = 0) -> None:
    """Execute the whole series of notebooks and write its report."""
    from rlvr_kit.tutorial.execute import run_notebooks

    run_notebooks(recipe, out, seed)


def main() -> None:
    """Run the command line. An error that a person can put right is one line on stderr, without a traceback."""
    warnings.simplefilter("ignore", FutureWarning)  # meant for the libraries' own callers
    try:
        app()
    except UserError as error:
        # Of several processes rank 0 reports the error; the others wait for their launcher to end them.
        if not IS_MAIN_PROCESS:
            time.sleep(5)
        Console(stderr=True, soft_wrap=True).print(
            "error:", str(error), style="red", highlight=False, markup=False
        )
        sys.exit(getattr(error, "exit_code", 1))


if __name__ == "__main__":
    main()
