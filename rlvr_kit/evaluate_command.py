"""The command ``evaluate``: a local or a served model on a recipe's test problems."""

import json
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlvr_kit.command_options import AsJson, Overrides, folder, options_of

if TYPE_CHECKING:
    from rlvr_kit.measure.endpoint import Endpoint


@dataclass(frozen=True)
class Evaluate:
    """The options of the command, in the order in which its help shows them."""

    model: Annotated[str, typer.Option(help="bundled, a folder (RUN/model), or a Hub id.")] = "bundled"
    task: Annotated[
        str | None,
        typer.Option(
            "--task", "--data", help="A task's name, its .py file or a folder; by default the recipe's."
        ),
    ] = None
    recipe: Annotated[
        str, typer.Option("--recipe", "-r", help="Where prompt, token limit and data settings come from.")
    ] = "cpu"
    overrides: Overrides = ()  # type: ignore[assignment]  # a dataclass takes no list
    shots: Annotated[int | None, typer.Option(help="Exemplars in the prompt; by default the recipe's.")] = (
        None
    )
    n: Annotated[int | None, typer.Option("--n", help="Test problems; by default the recipe's.")] = None
    samples: Annotated[
        int, typer.Option(help="Completions a problem; more than one needs --temperature.")
    ] = 1
    temperature: Annotated[float, typer.Option(help="0 is greedy decoding.")] = 0.0
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Tokens of an answer; by default the recipe's.")
    ] = None
    endpoint: Annotated[
        str | None,
        typer.Option(help="Ask a server for --model: http://… (OpenAI-style) or sagemaker:NAME."),
    ] = None
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time to the endpoint.")] = 4
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one request to the endpoint.")] = 60.0
    label: Annotated[
        str | None, typer.Option(help="Name in the run folder; base and tuned go onto its model card.")
    ] = None
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Run folder that keeps the rows, to resume from.", parser=folder),
    ] = None
    as_json: AsJson = False


@options_of
def evaluate(given: Evaluate) -> None:
    """Measure a model on the test split: strict and lenient accuracy, with n and 95 % intervals."""
    from rlvr_kit.recipe import load_recipe

    named = {"task": given.task, "evaluation.n": given.n}
    options = [f"{key}={json.dumps(value)}" for key, value in named.items() if value is not None]
    recipe = load_recipe(given.recipe, [*given.overrides, *options])
    from rlvr_kit.measure.evaluation import evaluate_recipe, evaluation_label
    from rlvr_kit.run_folder import Run

    out = Run(given.out or Path("runs") / "evaluations")
    sampling = replace(
        recipe.sampling, samples=given.samples, temperature=given.temperature,
        max_new_tokens=given.max_new_tokens or recipe.max_new_tokens,
    )  # fmt: skip
    label = given.label or evaluation_label(recipe, given.model, recipe.template(given.shots), sampling)
    if given.endpoint:
        from rlvr_kit.measure.endpoint import evaluate_endpoint

        result = evaluate_endpoint(
            recipe, endpoint_at(given.endpoint, given.model, given.timeout),
            label=given.label or f"{label}-served", shots=given.shots, sampling=sampling, out=out,
            concurrency=given.concurrency,
        ).summary  # fmt: skip
    else:
        with redirect_stdout(sys.stderr):  # what the task's file prints is no part of the result
            result = evaluate_recipe(
                recipe, label=label, model=given.model, shots=given.shots, sampling=sampling, out=out
            ).summary
    if given.as_json:
        print(json.dumps(result, indent=2))
        return
    if result.get("failed"):
        print(f"{result['failed']} requests failed and count as wrong; the column `error` says why")
    print(f"{given.model} on {result['n']:,} test problems of {recipe.task}, {result['shots']} exemplars")
    for share in ("strict", "lenient", "format", "truncated"):
        low, high = result[f"{share}_ci"]
        print(f"{share:10}{result[share]:6.1%}  (n={result['n']}, 95 % interval {low:.1%} to {high:.1%})")
    print(f"{result['seconds']} s; rows in {out.path / 'evals' / result['label']}.parquet")


def endpoint_at(address: str, model: str, timeout: float) -> "Endpoint":
    """Connect to the endpoint that --endpoint names; `timeout` is in seconds per request, for http:// alone."""
    if address.startswith("sagemaker:"):
        from rlvr_kit.cloud.endpoint import sagemaker_endpoint

        return sagemaker_endpoint(address.removeprefix("sagemaker:"))
    from rlvr_kit.measure.endpoint import openai_endpoint

    return openai_endpoint(address, model, timeout)
