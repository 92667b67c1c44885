"""Problems x samples -> verdicts, and what they add up to: every share with its n and a 95 % Wilson interval.

The prompt is the template that training used, the judge is the task's verifier, as in the reward. A model trained
by the kit keeps its template in ``prompt.json``: evaluating it with another one is refused.
"""

import hashlib
import importlib.util
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pandas as pd
from tqdm.auto import tqdm

from rlvr_kit.errors import InputError
from rlvr_kit.measure.statistics import compare as compare
from rlvr_kit.measure.statistics import pass_at_k, wilson_interval
from rlvr_kit.run_folder import Run
from rlvr_kit.tasks.prompts import Template
from rlvr_kit.tasks.task import NUMBERS, Task, plain_question

if TYPE_CHECKING:
    from datasets import Dataset

    from rlvr_kit.engine.sampling import Completion
    from rlvr_kit.recipe import Recipe


#: What is kept of a problem beside its completions; ``kind`` where the data has it.
COLUMNS = ("problem", "question", "gold", "kind", "prompt")


@dataclass(frozen=True)
class Evaluation:
    """``rows``: one per problem and sample. ``summary``: the settings, and what the rows add up to."""

    rows: pd.DataFrame
    summary: dict[str, Any]


def evaluate(
    model: Any, tokenizer: Any, problems: "Dataset", template: Template, *, label: str, samples: int = 1,
    max_new_tokens: int = 256, temperature: float = 0.0, batch_size: int = 32, seed: int = 0,
    out: Run | None = None, any_shots: bool = False, quiet: bool = False, about: dict[str, Any] | None = None,
    task: Task | None = None,
) -> Evaluation:  # fmt: skip
    """Let `model` solve `problems` (rows of question and gold), greedily or in `samples` tries; judge them.

    With `out` the rows are kept in its ``evals/`` as they come, and rows already there from the same weights,
    prompt and settings are not generated again. `any_shots` allows other exemplars than in training.
    `quiet` shows no progress bar; `about` goes into the summary (the names of model and data, say).
    `task` judges: a recipe's ``loaded_task``; without one, answers are numbers as GSM8K's.
    Raises UserError when an exemplar is one of the problems, or the template is not that of a trained model.

    >>> evaluate(policy, tokenizer, problems, Template(), label="base").summary["strict"]  # doctest: +SKIP
    """
    from rlvr_kit.engine.sampling import generate  # here, because it loads torch

    generate = getattr(model, "serve", generate)
    if not len(problems):
        raise InputError("there is no problem to evaluate on")
    refuse_leaks(problems, [exemplar.question for exemplar in template.exemplars])
    refuse_other_template(model.name_or_path, template, any_shots)
    settings: dict[str, Any] = {
        "samples": samples,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "seed": seed,
    }
    task = task or NUMBERS
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
    began = time.perf_counter()
    with tqdm(total=len(problems), initial=len(done), desc=label, unit="problem", disable=quiet) as bar:

        def judge(batch: dict[int, list["Completion"]]) -> None:
            for where, completions in batch.items():
                row = {key: todo[where][key] for key in COLUMNS if key in todo[where]}
                for j, text in enumerate(completions):
                    said = {
                        "sample": j,
                        "completion": text.text,
                        "tokens": text.tokens,
                        "truncated": text.truncated,
                    }
                    rows.append(
                        row | said | asdict(task.verify(text.text, row["gold"])) | {"made_by": made_by}
                    )
            if out:
                out.save_rows(label, _table(rows))
            bar.update(len(batch))
            bar.set_postfix(strict=f"{sum(row['correct'] for row in rows) / len(rows):.1%}")

        if todo:
            prompts = [row["prompt"] for row in todo]
            options = settings | {"stop": template.stop, "batch_size": batch_size, "on_batch": judge}
            generate(model, tokenizer, prompts, **options)
    told = {"label": label, "model": model.name_or_path, "shots": len(template.exemplars)} | (about or {})
    if Path(told["model"]).is_absolute():  # where it lay on this machine is nobody's business
        told["model"] = "/".join(Path(told["model"]).parts[-2:])
    result = Evaluation(_table(rows), told | settings | summarize(_table(rows)))
    result.summary["seconds"] = round(time.perf_counter() - began, 1)
    if out:
        out.save_evaluation(label, result.rows, result.summary)
    return result


def evaluate_recipe(
    recipe: "Recipe", *, label: str, model: str | None = None, shots: int | None = None, **settings: Any
) -> Evaluation:
    """Evaluate `model`, or else the recipe's own, on the recipe's test problems, with the recipe's prompt.

    `shots` sets another number of exemplars; `settings` go to :func:`evaluate`. With vLLM and a GPU at hand,
    vLLM writes the completions.

    >>> evaluate_recipe(load_recipe("cpu"), label="tuned", model="runs/latest/model")  # doctest: +SKIP
    """
    import torch

    from rlvr_kit.models import load_policy, load_tokenizer, resolve_model

    name, template = model or recipe.model.name, recipe.template(shots)
    refuse_other_template(resolve_model(name), template, shots is not None)
    problems = recipe.test_problems()
    faster = torch.cuda.is_available() and importlib.util.find_spec("vllm") is not None
    policy = _vllm(resolve_model(name)) if faster else load_policy(name, dtype=recipe.model.dtype)
    given: dict[str, Any] = {
        "max_new_tokens": recipe.max_new_tokens,
        "batch_size": recipe.evaluation.batch_size,
    }
    given |= {"any_shots": shots is not None, "about": {"model": name, "data": recipe.task}}
    given["task"] = recipe.loaded_task
    return evaluate(policy, load_tokenizer(name), problems, template, label=label, **(given | settings))


def _vllm(name: str) -> Any:
    """A model served by vLLM, which batches and shares prompt beginnings by itself."""
    from vllm import LLM, SamplingParams

    from rlvr_kit.engine.sampling import Completion

    engine = LLM(model=name, enable_prefix_caching=True)

    def serve(_: Any, tokenizer: Any, prompts: list[str], **options: Any) -> None:
        ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
        settings = {key: options[key] for key in ("temperature", "seed", "stop")}
        settings |= {"n": options["samples"], "max_tokens": options["max_new_tokens"]}
        answers = engine.generate(
            [{"prompt_token_ids": prompt} for prompt in ids], SamplingParams(**settings)
        )
        for i, answer in enumerate(answers):
            texts = [
                Completion(o.text, list(o.token_ids), o.finish_reason == "length") for o in answer.outputs
            ]
            options["on_batch"]({i: texts})

    saved = [name, *(file.stat().st_mtime for file in sorted(Path(name).glob("*.safetensors")))]
    return SimpleNamespace(name_or_path=name, saved=saved, parameters=list, serve=serve)


def summarize(rows: pd.DataFrame) -> dict[str, Any]:
    """Strict, lenient, format and truncated shares; with several samples pass@k and the majority's too.

    An interval counts problems, not completions: those of one problem rise and fall together.
    """
    n, samples = rows.problem.nunique(), int(rows["sample"].max()) + 1
    columns = {
        "strict": "correct",
        "lenient": "lenient_correct",
        "format": "format_ok",
        "truncated": "truncated",
    }
    shares = {name: float(rows[column].mean()) for name, column in columns.items()}
    if "partial" in rows and rows.partial.notna().all():  # of the answer, where a task can say it
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
    if passed:
        summary["pass_at_k"] = passed
        summary["pass_at_k_ci"] = {k: list(wilson_interval(share * n, n)) for k, share in passed.items()}
    return summary


def refuse_leaks(problems: "Dataset", seen: Iterable[str]) -> None:
    """Raise UserError when a question `seen` in the prompt or in training is one of `problems`."""
    plain = {plain_question(question): i for i, question in enumerate(problems["question"])}
    for question in seen:
        if (i := plain.get(plain_question(question))) is not None:
            raise InputError(
                f"problem {i} is also an exemplar or a training row, so it can test nothing: {question}"
            )


def refuse_other_template(model: str | Path, template: Template, any_shots: bool = False) -> None:
    """Raise UserError, showing both, when the ``prompt.json`` of a trained model folder is not `template`."""
    if model and (Path(model) / "prompt.json").is_file():
        trained = Template.from_dict(json.loads((Path(model) / "prompt.json").read_text(encoding="utf-8")))
        theirs = trained.model_copy(update={"exemplars": template.exemplars}) if any_shots else trained
        if difference := theirs.difference(template):
            raise InputError(f"{model} has another prompt (here: that of its training): {difference}")


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows).sort_values(["problem", "sample"], ignore_index=True)


def _fingerprint(model: Any, template: Template, settings: dict[str, Any]) -> str:
    """Equal only for equal prompts, settings and weights (some entries of every tensor speak for all)."""
    weights = [
        float(w.detach().flatten()[:: max(1, w.numel() // 64)].double().sum()) for w in model.parameters()
    ]
    made_by = [getattr(model, "saved", weights), template.to_dict(), settings]
    return hashlib.sha256(json.dumps(made_by).encode()).hexdigest()[:12]


def _rows_so_far(out: Run | None, label: str, made_by: str, problems: "Dataset") -> list[dict[str, Any]]:
    if out is None or not (file := out.path / "evals" / f"{label}.parquet").exists():
        return []
    asked = dict(enumerate(problems["question"]))
    rows = pd.read_parquet(file).to_dict("records")
    return [r for r in rows if r["made_by"] == made_by and r["question"] == asked.get(r["problem"])]
