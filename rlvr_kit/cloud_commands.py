"""The commands that use an AWS account: ``submit``, ``deploy``, ``clean-up``."""

import json
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rlvr_kit.command_options import AsJson, Overrides, RecipeName, folder, options_of


def submit(
    recipe: RecipeName = "gpu",
    overrides: Overrides = [],  # noqa: B006
    instance_type: Annotated[
        str | None, typer.Option(help="Use this instead of the recipe's, e.g. ml.g6.2xlarge.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and upload nothing.")] = False,
    rehearse: Annotated[bool, typer.Option("--rehearse", help="Run it here, with a simulated AWS.")] = False,
    attach: Annotated[str | None, typer.Option(help="Follow this job instead of submitting one.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for what the job made.", parser=folder)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a recipe as a SageMaker training job and fetch what it made. Ctrl-C leaves the job running."""
    from rlvr_kit.cloud import jobs
    from rlvr_kit.cloud.rehearsal import rehearsal

    with rehearsal() if rehearse else nullcontext():
        if attach:
            job = jobs.attach(attach)
        else:
            from rlvr_kit.recipe import load_recipe

            planned = jobs.plan_job(load_recipe(recipe, overrides), instance_type)
            Console().print_json(data=planned.to_dict()) if as_json else Console().print(planned)
            if dry_run:
                return
            job = jobs.submit(planned)
        if not jobs.has_ended(jobs.follow(job)):  # Ctrl-C: the last line has said that the job continues
            raise typer.Exit(130)
        run = jobs.fetch(job, (out or Path("runs") / job.training_job_name).absolute())
    done = "rehearsed" if rehearse else "fetched"
    Console(stderr=True, soft_wrap=True).print(f"{done}: {run.path}", highlight=False, markup=False)


@dataclass(frozen=True)
class Deploy:
    """The argument and the options of the command, in the order in which its help shows them."""

    run: Annotated[
        Path, typer.Argument(help="The run folder; for a job, the one that was fetched.", parser=folder)
    ]
    instance_type: Annotated[str, typer.Option(help="One with a GPU.")] = "ml.g5.xlarge"
    minutes: Annotated[
        float, typer.Option(min=1, help="The endpoint is deleted after this, at the latest.")
    ] = 60.0
    n: Annotated[int | None, typer.Option("--n", help="Test problems; by default the recipe's.")] = None
    price: Annotated[
        float | None, typer.Option(help="Dollars an hour, if your role may not ask AWS for it.")
    ] = None
    hold: Annotated[bool, typer.Option("--hold", help="Keep it until its minutes are over, or Ctrl-C.")] = (
        False
    )
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and create nothing.")] = False
    rehearse: Annotated[bool, typer.Option("--rehearse", help="Serve it here, with a simulated AWS.")] = False
    as_json: AsJson = False


@options_of
def deploy(given: Deploy) -> None:
    """Serve a run's model on SageMaker, measure it there, and delete everything again."""
    from rlvr_kit.cloud.endpoint import deployed, plan_endpoint, sagemaker_endpoint
    from rlvr_kit.cloud.rehearsal import rehearsal
    from rlvr_kit.measure.endpoint import evaluate_endpoint
    from rlvr_kit.run_folder import Run

    began, console, run = time.monotonic(), Console(stderr=given.as_json, soft_wrap=True), Run(given.run)
    with rehearsal() if given.rehearse else nullcontext():
        plan = plan_endpoint(run, given.instance_type, given.minutes, given.price)
        console.print(plan)
        if not given.dry_run:
            measure = plan.recipe.evaluation.model_copy(update={"n": given.n or plan.recipe.evaluation.n})
            recipe = plan.recipe.model_copy(update={"evaluation": measure})
            label = "rehearsed" if given.rehearse else "deployed"
            with deployed(plan, console.out) as name:
                result = evaluate_endpoint(recipe, sagemaker_endpoint(name), label=label, out=run).summary
                shares = f"strict {result['strict']:.1%}, n={result['n']}, failed requests {result['failed']}"
                console.out(shares)
                if given.hold:
                    console.out(
                        f"[sagemaker:{name} answers for at most {given.minutes:g} min; Ctrl-C deletes it now]"
                    )
                    with suppress(KeyboardInterrupt):
                        time.sleep(max(0.0, began + 60 * given.minutes - time.monotonic()))
            console.out(f"[{plan.name}: deleted]")
    if given.as_json:
        print(json.dumps({"plan": plan.to_dict()} | ({} if given.dry_run else {"result": result}), indent=2))


def clean_up(
    delete: Annotated[list[str], typer.Option("--delete", help="An id from the list; can be repeated.")] = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """List what the kit's jobs and endpoints left in the AWS account; delete only what --delete names."""
    from rlvr_kit.cloud.clean_up import clean_up as list_and_delete

    found = list_and_delete(delete)
    if as_json:
        print(json.dumps(found, indent=2))
    for item in () if as_json else found:
        print(
            f"{item['id']}  ({item['what']}, {item['bytes']:,} bytes{', deleted' if item['deleted'] else ''})"
        )
