"""A run's model as a folder that works elsewhere: weights, tokenizer, prompt, generation settings, licence and card.

    config.json model.safetensors          or  adapter_config.json adapter_model.safetensors
    tokenizer… chat_template.jinja         a model without a chat template gets one that writes the plain prompt
    generation_config.json prompt.json     greedy, and the messages that training used
    README.md LICENSE                      the card (card.py), and the base's licence where its text is known

The most common complaint about an exported model is that it "behaves untrained". The usual causes are another prompt
than in training, sampling settings that came with the base, and a merge in a number format that rounds the training
away. So the folder fixes all three, and the test of this module compares the answers.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig

from rlvr_kit.bundled_model import quiet
from rlvr_kit.errors import InputError
from rlvr_kit.models import load_policy, load_tokenizer
from rlvr_kit.recipe import Recipe
from rlvr_kit.run_folder import Run, cannot_write
from rlvr_kit.share.card import base_licence, model_card

Kind = Literal["merged", "adapter"]
Dtype = Literal["as-trained", "float32", "bfloat16", "float16"]

#: Writes chat messages as ``Template.render`` writes them for a model that has no chat template.
PLAIN_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'Question: ' + message['content'] + '\nAnswer:' }}"
    "{% else %}{{ ' ' + message['content'] + '\n\n' }}{% endif %}"
    "{% endfor %}"
)
LICENCES = {"apache-2.0": Path(__file__).parent / "apache-2.0.txt"}


def export(
    run: Run, out: str | Path, kind: Kind = "merged", dtype: Dtype = "as-trained", licence: str | None = None
) -> Path:
    """Write the run's trained model into the new folder ``out`` and return that folder.

    ``merged`` is a whole model; ``adapter`` is the LoRA matrices alone, which need their base. ``dtype`` is the number
    format of the weights: bfloat16 halves the file and rounds the weights, so some answers may change. ``licence``
    (a Hub identifier such as ``apache-2.0``) is needed only when the kit does not know the base's licence.

    Raises:
        UserError: the run has no trained model or no adapter, ``out`` is not empty, or it cannot be written.

    >>> export(Run("runs/x"), "runs/x/share")  # doctest: +SKIP
    """
    for value, choices in ((kind, get_args(Kind)), (dtype, get_args(Dtype))):
        if value not in choices:
            raise InputError(f"{value!r} is not one of {', '.join(choices)}")
    target, recipe = Path(out), run.recipe()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is not empty: choose another folder for the exported model")
    source, tokenizer = _source(run, kind), load_tokenizer(str(run.path / "model"))
    if getattr(tokenizer, "chat_template", None) is None:
        tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
    licence = licence or base_licence(recipe.model.name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as scratch, quiet():
            draft = Path(scratch) / "model"
            if kind == "merged":
                _write_merged(source, draft, dtype, recipe)
            else:
                _write_adapter(source, draft, dtype, recipe)
                ends = GenerationConfig(
                    eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
                )
                if (run.path / "model" / "generation_config.json").exists():
                    ends = GenerationConfig.from_pretrained(run.path / "model")
                _greedy(ends, recipe).save_pretrained(draft)
            tokenizer.save_pretrained(draft)
            shutil.copy(run.path / "model" / "prompt.json", draft)
            if licence in LICENCES:
                shutil.copy(LICENCES[licence], draft / "LICENSE")
            model_card(run, kind, licence).save(draft / "README.md")
            for file in draft.iterdir():
                file.chmod(0o644)  # safetensors lets only the owner read, and a server may be another user
            if target.exists():
                target.rmdir()
            draft.rename(target)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise cannot_write(target, error) from error
    return target


def _source(run: Run, kind: Kind) -> Path:
    """Return the folder of the run that holds the weights to export."""
    model, adapter, lora = run.path / "model", run.path / "adapter", run.recipe().lora
    if not (model / "prompt.json").exists():
        raise InputError(f"{run.path} holds no trained model: train it first, or resume its training")
    if kind == "merged" or (model / "adapter_config.json").exists():  # a 4-bit run has its adapter in model/
        return model
    if lora is None:
        raise InputError(f"{run.path} trained every weight, so it has no adapter: export it as merged")
    if not adapter.exists():
        raise InputError(f"{run.path} has no adapter (an older version trained it): export it as merged")
    return adapter


def _write_merged(source: Path, draft: Path, dtype: Dtype, recipe: Recipe) -> None:
    is_adapter = (source / "adapter_config.json").exists()
    kept = "auto" if is_adapter else json.loads((source / "config.json").read_text(encoding="utf-8"))["dtype"]
    policy: Any = load_policy(
        str(source), dtype=kept if dtype == "as-trained" else "float32", seed=recipe.run.seed
    )
    if is_adapter:
        policy = policy.merge_and_unload()
    if dtype != "as-trained":  # merged in float32 and rounded once, at the end
        policy = policy.to(getattr(torch, dtype))
    policy.config.use_cache = True  # training switches it off
    policy.generation_config = _greedy(policy.generation_config, recipe)
    policy.save_pretrained(draft)


def _write_adapter(source: Path, draft: Path, dtype: Dtype, recipe: Recipe) -> None:
    draft.mkdir()
    weights = load_file(source / "adapter_model.safetensors")
    if dtype != "as-trained":
        weights = {name: weight.to(getattr(torch, dtype)) for name, weight in weights.items()}
    save_file(weights, draft / "adapter_model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = recipe.model.name  # not its path on this machine
    (draft / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def _greedy(old: GenerationConfig, recipe: Recipe) -> GenerationConfig:
    """Return settings with which a plain ``generate`` answers as in the evaluation: greedily, with its token limit."""
    return GenerationConfig(
        do_sample=False, max_new_tokens=recipe.max_new_tokens, bos_token_id=old.bos_token_id,
        eos_token_id=old.eos_token_id, pad_token_id=old.pad_token_id,
    )  # fmt: skip
