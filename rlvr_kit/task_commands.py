"""The commands for a task of your own, before anything is trained: ``audit``, ``new-task``."""

import json
import sys
from contextlib import redirect_stdout
from typing import Annotated

import typer
from rich.console import Console

from rlvr_kit.command_options import AsJson, Overrides, RecipeName


def audit(
    task: Annotated[str, typer.Argument(help="A task's name or its .py file.")],
    recipe: RecipeName = "cpu",
    overrides: Overrides = [],  # noqa: B006
    model: Annotated[bool, typer.Option(help="Ask the recipe's model too: a minute or two.")] = True,
    as_json: AsJson = False,
) -> None:
    """Check a task: can it be learned, can its reward be cheated? Exit code 1 when its data or verifier is wrong."""
    from rlvr_kit.recipe import load_recipe
    from rlvr_kit.training.audit import audit as make_audit

    settings = load_recipe(recipe, [f"task={json.dumps(task)}", *overrides])
    with redirect_stdout(sys.stderr):  # what the task's file prints is no part of the page
        page = make_audit(settings, model=model, progress=Console(stderr=True).print)
    if as_json:
        print(json.dumps(page.to_dict(), indent=2))
    else:
        Console().print(page)
    raise typer.Exit(1 if page.wrong else 0)


def new_task(file: Annotated[str, typer.Argument(help="The Python file to write.")]) -> None:
    """Write a commented task file that passes the audit, as a start for your own."""
    from rlvr_kit.training.audit import new_task as write_task

    print(write_task(file))
