"""Evaluate a model: problems x samples -> verdicts, and every share of them with its n and a 95 % Wilson interval.

The prompt is the template that training used, and the task's verifier judges, as in the reward. A model that the kit
trained keeps its template in ``prompt.json``, and an evaluation with another template is refused.
"""

import hashlib
import importlib.util
import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import pandas as pd
from tqdm.auto import tqdm

from rlvr_kit.errors import InputError
from rlvr_kit.machine import release_memory
from rlvr_kit.measure.checks import refuse_leaks, refuse_other_template, refuse_too_long
from rlvr_kit.measure.statistics import compare as compare
from rlvr_kit.measure.statistics import pass_at_k, wilson_interval
from rlvr_kit.run_folder import Run
from rlvr_kit.sampling_settings import GREEDY, SamplingSettings
from rlvr_kit.tasks.prompts import Template
from rlvr_kit.tasks.task import NUMBERS, Task, task_title

if TYPE_CHECKING:
    from datasets import Dataset

    from rlvr_kit.engine.sampling import Completion
    from rlvr_kit.recipe import Recipe

#: The columns of a problem that are kept with its completions; ``kind`` when the data has it.
COLUMNS = ("problem", "question", "gold", "kind", "prompt")


@dataclass(frozen=True)
class Evaluation:
    """``rows`` has one row per problem and sample; ``summary`` holds the settings and the shares of the rows."""

    rows: pd.DataFrame
    summary: dict[str, Any]


class EvaluationOptions(TypedDict, total=False):
    """The options of :func:`evaluate` that are rarely needed."""

    about: dict[str, Any]  # added to the summary, such as the names of the model and of the data
    any_shots: bool  # allow other exemplars than in training
    quiet: bool  # show no progress bar
    task: Task  # its verifier judges: a recipe's loaded_task, or the verifier of numbers if not given
    generate: Callable[..., Any]  # replaces engine.sampling.generate, and is called like it


def evaluate(
    model: Any, tokenizer: Any, problems: "Dataset", template: Template, *, label: str,
    sampling: SamplingSettings = GREEDY, out: Run | None = None, **options: Unpack[EvaluationOptions],
) -> Evaluation:  # fmt: skip
    """Let `model` solve `problems` (rows with question and gold) and judge what it writes.

    The stop strings are always those of the template, not those of `sampling`. With `out`, the rows are saved in its
    ``evals/`` as they arrive, and rows that the same weights, prompt and settings left there are not generated again.
    Raises UserError when an exemplar is one of the problems, when a prompt is longer than the model's context, or when
    the model was trained with another template.

    >>> evaluate(policy, tokenizer, problems, Template(), label="base").summary["strict"]  # doctest: +SKIP
    """
    generate = options.get("generate") or _local_generate()
    if not len(problems):
        raise InputError("there is no problem to evaluate on")
    refuse_leaks(problems, [exemplar.question for exemplar in template.exemplars])
    refuse_other_template(model.name_or_path, template, options.get("any_shots", False))
    sampling = replace(sampling, stop=tuple(template.stop))
    settings = {key: value for key, value in asdict(sampling).items() if key not in ("stop", "batch_size")}
    task = options.get("task") or NUMBERS
    settings["dtype"] = str(getattr(model, "dtype", "")).removeprefix("torch.")  # "" where a server writes
    made_by = _fingerprint(model, template, settings | ({"task": task.digest} if task.file else {}))
    rows = _rows_so_far(out, label, made_by, problems)
    done = {row["problem"] for row in rows}
    todo = [{"problem": i} | row for i, row in enumerate(problems.to_list()) if i not in done]
    if out and not todo and (out.path / "evals" / f"{label}.json").exists():
        known = Evaluation(*out.evaluation(label))
        if len(known.rows) == len(rows):
            return known
    for row in todo:
        row["prompt"] = template.render(tokenizer, row["question"])
    refuse_too_long(model, tokenizer, todo, sampling.max_new_tokens)
    began = time.perf_counter()
    with tqdm(
        total=len(problems), initial=len(done), desc=label, unit="problem", disable=options.get("quiet")
    ) as bar:

        def judge(batch: dict[int, list["Completion"]]) -> None:
            for where, completions in batch.items():
                row = {key: todo[where][key] for key in COLUMNS if key in todo[where]} | {"made_by": made_by}
                rows.extend(_judged(task, row, completions))
            if out:
                out.save_rows(label, _table(rows))
            bar.update(len(batch))
            bar.set_postfix(strict=f"{sum(row['correct'] for row in rows) / len(rows):.1%}")

        if todo:
            prompts = [row["prompt"] for row in todo]
            generate(model, tokenizer, prompts, sampling, on_batch=judge)
    told = {"label": label, "model": model.name_or_path, "shots": len(template.exemplars)} | options.get(
        "about", {}
    )
    if Path(told["model"]).is_absolute():  # the path on this machine is not stored, only RUN/model
        told["model"] = "/".join(Path(told["model"]).parts[-2:])
    result = Evaluation(_table(rows), told | settings | summarize(_table(rows)))
    result.summary["seconds"] = round(time.perf_counter() - began, 2)
    if out:
        out.save_evaluation(label, result.rows, result.summary)
    return result


def evaluate_recipe(
    recipe: "Recipe",
    *,
    label: str,
    model: str | None = None,
    shots: int | None = None,
    sampling: SamplingSettings | None = None,
    out: Run | None = None,
) -> Evaluation:
    """Evaluate `model` (by default the recipe's) on the recipe's test problems, with the recipe's prompt.

    `shots` sets another number of exemplars, `sampling` other settings than the recipe's; `out` keeps the rows.
    When vLLM is installed and there is a GPU, vLLM writes the completions. Raises UserError as :func:`evaluate` does.

    >>> evaluate_recipe(load_recipe("cpu"), label="tuned", model="runs/latest/model")  # doctest: +SKIP
    """
    import torch

    from rlvr_kit.measure.vllm_model import vllm_model
    from rlvr_kit.models import load_policy, load_tokenizer, resolve_model

    name, template = model or recipe.model.name, recipe.template(shots)
    refuse_other_template(resolve_model(name), template, shots is not None)
    problems = recipe.test_problems()
    options: EvaluationOptions = {
        "any_shots": shots is not None,
        "about": {"model": name, "data": recipe.task},
        "task": recipe.loaded_task,
    }
    if torch.cuda.is_available() and importlib.util.find_spec("vllm") is not None:
        policy, options["generate"] = vllm_model(resolve_model(name))
    else:
        # The format that the recipe's own model gets, whatever model this is: so base and trained model compare.
        policy = load_policy(name, dtype=recipe.resolved().model.dtype)
    result = evaluate(
        policy, load_tokenizer(name), problems, template, label=label, sampling=sampling or recipe.sampling, out=out,
        **options,
    )  # fmt: skip
    del policy, options
    release_memory()
    return result


def evaluation_label(recipe: "Recipe", model: str, template: Template, sampling: SamplingSettings) -> str:
    """Return a unique file name for an evaluation: model, data, exemplars, n, and a hash of all its settings.

    >>> evaluation_label(recipe, "runs/x/model", recipe.template(), GREEDY)  # doctest: +SKIP
    'x-model-word_problems-0shot-n256-3f9a1c'
    """
    folder = Path(model).expanduser()
    name = str(folder.resolve()) if folder.exists() else model
    settings = [name, recipe.task, recipe.data.model_dump(), recipe.evaluation.n]
    settings += [recipe.resolved().model.dtype, template.to_dict(), asdict(replace(sampling, batch_size=1))]
    made_of = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:6]
    words = ["-".join(Path(name).parts[-2:]), task_title(recipe.task), f"{len(template.exemplars)}shot"]
    return re.sub(r"[^\w.-]+", "_", "-".join([*words, f"n{recipe.evaluation.n}", made_of]))


def summarize(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the strict, lenient, format and truncated shares of `rows`; with several samples also pass@k and majority.

    The n of an interval is the number of problems, not of completions: completions of one problem are alike.

    >>> summarize(evaluation.rows)["strict_ci"]  # doctest: +SKIP
    """
    n, samples = rows.problem.nunique(), int(rows["sample"].max()) + 1
    columns = {
        "strict": "correct",
        "lenient": "lenient_correct",
        "format": "format_ok",
        "truncated": "truncated",
    }
    shares = {name: float(rows[column].mean()) for name, column in columns.items()}
    if "partial" in rows and rows.partial.notna().all():  # for tasks that measure parts of an answer
        shares["partial"] = float(rows.partial.astype(float).mean())
    passed = {}
    if samples > 1:
        solved = rows.groupby("problem").correct.sum()
        sizes = [2**i for i in range(samples.bit_length())]
        passed = {str(k): sum(pass_at_k(samples, int(c), k) for c in solved) / n for k in sizes}
        votes = (
            rows[rows.format_ok].groupby(["problem", "extracted"], sort=False).correct.agg(["size", "max"])
        )
        winners = votes.sort_values("size", ascending=False, kind="stable").groupby("problem")["max"].first()
        shares["majority"] = float(winners.sum()) / n
    summary: dict[str, Any] = {"n": n, "samples": samples} | shares
    summary |= {f"{name}_ci": list(wilson_interval(share * n, n)) for name, share in shares.items()}
    if "error" in rows:
        summary["failed"] = int((rows.error != "").sum())  # requests without an answer: they count as wrong
    if passed:
        summary["pass_at_k"] = passed
        summary["pass_at_k_ci"] = {k: list(wilson_interval(share * n, n)) for k, share in passed.items()}
    return summary


def _local_generate() -> Callable[..., Any]:
    from rlvr_kit.engine.sampling import generate  # here, because it loads torch

    return generate


def _judged(task: Task, row: dict[str, Any], completions: "list[Completion]") -> list[dict[str, Any]]:
    """`row` once for each completion, with the completion and its verdict."""
    return [
        {**row, "sample": j, "completion": said.text, "tokens": said.tokens, "truncated": said.truncated}
        | asdict(task.verify(said.text, row["gold"]))
        | ({"error": said.error} if hasattr(said, "error") else {})  # why an endpoint gave no answer
        for j, said in enumerate(completions)
    ]


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows).sort_values(["problem", "sample"], ignore_index=True)


def _fingerprint(model: Any, template: Template, settings: dict[str, Any]) -> str:
    """Return a hash of the prompt, the settings and about 64 weights of every tensor.

    The number format is one of the settings: the same weights write other completions in another format.
    """
    weights = [
        float(w.detach().flatten()[:: max(1, w.numel() // 64)].double().sum()) for w in model.parameters()
    ]
    made_by = [getattr(model, "saved", weights), template.to_dict(), settings]
    return hashlib.sha256(json.dumps(made_by).encode()).hexdigest()[:12]


def _rows_so_far(out: Run | None, label: str, made_by: str, problems: "Dataset") -> list[dict[str, Any]]:
    asked = dict(enumerate(problems["question"]))
    rows = [row for row in out.rows_so_far(label) if not row.get("error")] if out else []
    return [r for r in rows if r["made_by"] == made_by and r["question"] == asked.get(r["problem"])]
