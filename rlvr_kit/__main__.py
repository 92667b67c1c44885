"""``python -m rlvr_kit doctor | score | plan | train | evaluate | audit | new-task | export | push | submit | …``."""

import json
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from rlvr_kit.cloud_commands import clean_up, deploy, submit
from rlvr_kit.command_options import AsJson, Out, Overrides, RecipeName, folder
from rlvr_kit.errors import UserError
from rlvr_kit.machine import IS_MAIN_PROCESS
from rlvr_kit.share_commands import export, push
from rlvr_kit.task_commands import audit, new_task

app = typer.Typer(
    help="Reinforcement learning with verifiable rewards: score, plan, train, measure.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
)  # fmt: skip


@app.command()
def doctor() -> None:
    """What this machine can run."""
    from rlvr_kit.doctor import check_machine

    for item, value, verdict in check_machine():
        Console().print(f"[bold]{item}[/]: {escape(f'{value}. {verdict}')}", highlight=False)


@app.command()
def score(
    file: Annotated[
        str, typer.Argument(help="JSON lines with `completion` and `gold` (or `answer`); - is stdin.")
    ] = "-",
    task: Annotated[
        str | None, typer.Option(help="Whose verifier judges; as GSM8K's numbers if not given.")
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
        float | None, typer.Option(help="GiB of a GPU to plan for, instead of this machine.")
    ] = None,
    measure: Annotated[bool, typer.Option(help="Time a training step on this machine.")] = True,
    as_json: AsJson = False,
) -> None:
    """What a recipe will need: batches, memory, time."""
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
    """Train as a recipe says; the same command goes on with a run that was interrupted."""
    from rlvr_kit.recipe import load_recipe

    settings = load_recipe(recipe, overrides)  # before the seconds that the training libraries take to load
    from rlvr_kit.training.train import train as run_training

    run = run_training(settings, out)
    console = Console(stderr=True, quiet=not IS_MAIN_PROCESS, soft_wrap=True)
    console.print(f"trained: {run.path / 'model'}", highlight=False, markup=False)


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="bundled, a folder (RUN/model), or a Hub id.")] = "bundled",
    task: Annotated[
        str | None,
        typer.Option(
            "--task", "--data", help="A task's name, its .py file or a folder; else as the recipe says."
        ),
    ] = None,
    recipe: Annotated[
        str, typer.Option("--recipe", "-r", help="Where prompt, token limit and data settings come from.")
    ] = "cpu",
    overrides: Overrides = [],  # noqa: B006
    shots: Annotated[
        int | None, typer.Option(help="Exemplars in the prompt; as the recipe says if not given.")
    ] = None,
    n: Annotated[
        int | None, typer.Option("--n", help="Test problems; as the recipe says if not given.")
    ] = None,
    samples: Annotated[
        int, typer.Option(help="Completions a problem; more than one needs --temperature.")
    ] = 1,
    temperature: float = 0.0,
    max_new_tokens: Annotated[int | None, typer.Option(help="As the recipe says if not given.")] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(help="Ask a server, http://… (OpenAI-style) or sagemaker:NAME, for --model."),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time to the endpoint.")] = 4,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds that the endpoint may stay silent.")
    ] = 60.0,
    label: Annotated[
        str | None, typer.Option(help="Name in the run folder; base and tuned go onto its card.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Run folder that keeps the rows and resumes.", parser=folder),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model on the test split: strict and lenient accuracy, with n and 95 % intervals."""
    from rlvr_kit.recipe import load_recipe

    given = {"task": task, "evaluation.n": n}
    options = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    settings = load_recipe(recipe, [*overrides, *options])
    from rlvr_kit.measure.evaluation import evaluate_recipe, evaluation_label
    from rlvr_kit.run_folder import Run

    folder = out or Path("runs") / "evaluations"
    sampling = replace(
        settings.sampling, samples=samples, temperature=temperature,
        max_new_tokens=max_new_tokens or settings.max_new_tokens,
    )  # fmt: skip
    if endpoint and endpoint.startswith("sagemaker:"):
        model = endpoint.removeprefix("sagemaker:")
    name = label or evaluation_label(settings, model, settings.template(shots), sampling)
    if endpoint:
        from rlvr_kit.measure.endpoint import evaluate_endpoint
        from rlvr_kit.share_commands import endpoint_at

        result = evaluate_endpoint(
            settings, endpoint_at(endpoint, model, timeout), label=label or f"{name}-served", shots=shots,
            sampling=sampling, out=Run(folder), concurrency=concurrency,
        ).summary  # fmt: skip
    else:
        result = evaluate_recipe(
            settings, label=name, model=model, shots=shots, sampling=sampling, out=Run(folder)
        ).summary
    if as_json:
        print(json.dumps(result, indent=2))
        return
    if result.get("failed"):
        print(f"failed requests, which count as wrong: {result['failed']}; the column `error` says why")
    if others := result.get("answered_as"):
        print(f"asked for {result['model']}, the endpoint says that its model is {', '.join(others)}")
    print(
        f"{result['model']} on {result['n']:,} test problems of {settings.task}, {result['shots']} exemplars"
    )
    for share in ("strict", "lenient", "format", "truncated"):
        low, high = result[f"{share}_ci"]
        print(f"{share:10}{result[share]:6.1%}  (n={result['n']}, 95 % interval {low:.1%} to {high:.1%})")
    print(f"{result['seconds']} s; rows in {folder / 'evals' / result['label']}.parquet")


@app.command()
def sweep(
    study: Annotated[Path, typer.Argument(help="A study file: recipe, seeds, variants.")],
    out: Out,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time; each takes a recipe's whole memory.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Run every variant of a study with every seed; the same command goes on with a study that was interrupted."""
    from rlvr_kit.measure.plots import save
    from rlvr_kit.measure.seeds import seeds_figure, seeds_table
    from rlvr_kit.training.sweep import load_study
    from rlvr_kit.training.sweep import sweep as run_sweep

    result = run_sweep(load_study(study), out, jobs)
    figure = save(seeds_figure(result), out / "figures" / "seeds")
    print(json.dumps(result, indent=2) if as_json else seeds_table(result).to_string(index=False))
    print(f"{out / 'sweep.json'}; the figure: {figure.with_suffix('.png')}", file=sys.stderr)


for command in (audit, new_task, export, push, submit, deploy, clean_up):
    app.command()(command)


@app.command()
def notebooks(out: Out, recipe: RecipeName = "cpu", seed: int = 0) -> None:
    """Execute the whole series of notebooks and write its report."""
    from rlvr_kit.tutorial.execute import run_notebooks

    run_notebooks(recipe, out, seed)


def main() -> None:
    """Run the command line; what a person can put right is one line on stderr, never a traceback."""
    warnings.simplefilter("ignore", FutureWarning)  # what libraries say to each other
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
