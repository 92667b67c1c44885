"""What an evaluation refuses to measure: leaked questions, another prompt than in training, and too long prompts."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_kit.errors import InputError, UserError
from rlvr_kit.tasks.prompts import Template
from rlvr_kit.tasks.task import plain_question

if TYPE_CHECKING:
    from datasets import Dataset


def refuse_leaks(problems: "Dataset", seen: Iterable[str]) -> None:
    """Raise UserError when a question that was `seen`, in the prompt or in training, is one of `problems`.

    Capitals, punctuation and spaces make no difference.
    """
    plain = {plain_question(question): i for i, question in enumerate(problems["question"])}
    for question in seen:
        if (i := plain.get(plain_question(question))) is not None:
            raise InputError(
                f"problem {i} is also an exemplar or a training row, so its answer tests nothing: {question}"
            )


def refuse_too_long(model: Any, tokenizer: Any, rows: list[dict[str, Any]], new_tokens: int) -> None:
    """Raise UserError when a prompt and `new_tokens` tokens after it are longer than the model's context."""
    context = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if not context or not rows:
        return
    ids = tokenizer([row["prompt"] for row in rows], add_special_tokens=False)["input_ids"]
    longest, row = max(zip(map(len, ids), rows, strict=True), key=lambda pair: pair[0])
    if longest + new_tokens > context:
        raise InputError(
            f"problem {row['problem']} has a prompt of {longest:,} tokens; with {new_tokens:,} new ones that is more "
            f"than the model's context of {context:,}: leave it out, or lower max_new_tokens"
        )


def refuse_other_template(model: str | Path, template: Template, any_shots: bool = False) -> None:
    """Raise UserError when a trained model's folder has a ``prompt.json`` that differs from `template`.

    The message shows both. `any_shots` allows other exemplars. A model without such a file is not checked.
    """
    if model and (Path(model) / "prompt.json").is_file():
        file = Path(model) / "prompt.json"
        try:
            trained = Template.from_dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, OSError, UserError) as error:
            advice = "restore it, or delete it to evaluate without a check of the prompt"
            raise InputError(f"{file} is damaged ({error}): {advice}") from None
        theirs = trained.model_copy(update={"exemplars": template.exemplars}) if any_shots else trained
        if difference := theirs.difference(template):
            raise InputError(
                f"{model} was trained with another prompt (here: training, there: now): {difference}"
            )
