"""The commands that use an AWS account: ``submit``, ``deploy``, ``clean-up``."""

import json
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rlvr_kit.command_options import AsJson, Overrides, RecipeName, folder


def submit(
    recipe: RecipeName = "gpu",
    overrides: Overrides = [],  # noqa: B006
    instance_type: Annotated[
        str | None, typer.Option(help="Instead of the recipe's, e.g. ml.g6.2xlarge.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and upload nothing.")] = False,
    rehearse: Annotated[bool, typer.Option("--rehearse", help="Run it here, AWS pretended.")] = False,
    attach: Annotated[str | None, typer.Option(help="Come back to this job instead of submitting.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where the job's run folder goes.", parser=folder)
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
        if not jobs.has_ended(jobs.follow(job)):  # Ctrl-C; the log's last line has said what goes on
            raise typer.Exit(130)
        run = jobs.fetch(job, (out or Path("runs") / job.training_job_name).absolute())
    done = "rehearsed" if rehearse else "fetched"
    Console(stderr=True, soft_wrap=True).print(f"{done}: {run.path}", highlight=False, markup=False)


def deploy(
    run: Annotated[
        Path, typer.Argument(help="The run folder; that of a job once it was fetched.", parser=folder)
    ],
    instance_type: Annotated[str, typer.Option(help="One with a GPU.")] = "ml.g5.xlarge",
    minutes: Annotated[
        float, typer.Option(min=1, help="The endpoint is deleted after this, at the latest.")
    ] = 60.0,
    n: Annotated[
        int | None, typer.Option("--n", help="Test problems; as the recipe says if not given.")
    ] = None,
    price: Annotated[float | None, typer.Option(help="Dollars an hour, where AWS may not be asked.")] = None,
    hold: Annotated[
        bool, typer.Option("--hold", help="Keep it until its minutes are over, or Ctrl-C.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and create nothing.")] = False,
    rehearse: Annotated[bool, typer.Option("--rehearse", help="Serve it here, AWS pretended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Serve a run's model on SageMaker, measure it there, and delete all of it again."""
    from rlvr_kit.cloud.endpoint import deployed, plan_endpoint, sagemaker_endpoint
    from rlvr_kit.cloud.rehearsal import rehearsal
    from rlvr_kit.measure.endpoint import evaluate_endpoint
    from rlvr_kit.run_folder import Run

    began, console = time.monotonic(), Console(stderr=as_json, soft_wrap=True)
    with rehearsal() if rehearse else nullcontext():
        plan = plan_endpoint(Run(run), instance_type, minutes, price)
        console.print(plan)
        if not dry_run:
            measure = plan.recipe.evaluation.model_copy(update={"n": n or plan.recipe.evaluation.n})
            recipe = plan.recipe.model_copy(update={"evaluation": measure})
            with deployed(plan, console.out) as name:
                endpoint = sagemaker_endpoint(name)
                result = evaluate_endpoint(
                    recipe, endpoint, label="rehearsed" if rehearse else "deployed", out=Run(run)
                ).summary
                console.out(
                    f"strict {result['strict']:.1%}, n={result['n']}, failed requests {result['failed']}"
                )
                if hold:
                    console.out(
                        f"[sagemaker:{name} answers for at most {minutes:g} min; Ctrl-C deletes it now]"
                    )
                    with suppress(KeyboardInterrupt):
                        time.sleep(max(0.0, began + 60 * minutes - time.monotonic()))
    if as_json:
        print(json.dumps({"plan": plan.to_dict()} | ({} if dry_run else {"result": result}), indent=2))


def clean_up(
    delete: Annotated[list[str], typer.Option("--delete", help="An id of the list; may be repeated.")] = [],  # noqa: B006
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
