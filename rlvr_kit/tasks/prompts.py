"""Question + exemplars -> the prompt. Training, evaluation and serving all render the same ``Template``.

A chat model gets its own chat format, where each exemplar is a user turn and an assistant turn. A model without a
chat template gets plain text: ``Question: ...`` and ``Answer: ...``, with blank lines between.

The data is only text: a control token of the model (``<|im_end|>``, say) that a question spells out must not end the
turn. A space is put into it (``< |im_end|>``), so that the tokenizer reads ordinary characters.
"""

import random
import re
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from rlvr_kit.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

INSTRUCTION = (
    "Write the calculation, then on a new last line #### and the number.\n"
    "Example:\nShe has 3 + 4 = 7 pens.\n#### 7"
)


class Exemplar(BaseModel):
    """A worked example shown in the prompt: ``answer`` has no ``<<...>>`` annotations and ends ``#### N``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    question: str
    answer: str


class Template(BaseModel):
    """How a question becomes a prompt. Two templates are equal when they render every question alike.

    >>> Template(instruction="Solve.").messages("What is 2+2?")
    [{'role': 'system', 'content': 'Solve.'}, {'role': 'user', 'content': 'What is 2+2?'}]
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    instruction: str = INSTRUCTION
    exemplars: tuple[Exemplar, ...] = ()

    @property
    def stop(self) -> list[str]:
        """The strings that end a completion: without them a plain-text model goes on and invents the next question."""
        return ["\nQuestion:"]

    def messages(self, question: str) -> list[dict[str, str]]:
        """Return the prompt as chat messages: the instruction (system), the exemplars, the question (user)."""
        turns = [{"role": "system", "content": self.instruction}] if self.instruction else []
        for shot in self.exemplars:
            turns.append({"role": "user", "content": shot.question})
            turns.append({"role": "assistant", "content": shot.answer})
        return [*turns, {"role": "user", "content": question}]

    def prompt(self, tokenizer: Any, question: str) -> list[dict[str, str]] | str:
        """Return the prompt as TRL takes it: chat messages for a chat model, else plain text."""
        turns = [turn | {"content": as_text(tokenizer, turn["content"])} for turn in self.messages(question)]
        if getattr(tokenizer, "chat_template", None):
            return turns
        parts = [turns.pop(0)["content"]] if self.instruction else []
        parts += [
            f"Question: {user['content']}\nAnswer: {assistant['content']}"
            for user, assistant in zip(turns[:-1:2], turns[1::2], strict=True)
        ]
        return "\n\n".join([*parts, f"Question: {turns[-1]['content']}\nAnswer:"])

    def render(self, tokenizer: Any, question: str) -> str:
        """Return the text that the model continues: by its chat template, or plain text when it has none."""
        prompt = self.prompt(tokenizer, question)
        if isinstance(prompt, str):
            return prompt
        return str(tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True))

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and strings, for YAML and JSON; ``Template.from_dict`` reads them back."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Template":
        """Read what ``to_dict`` wrote. Raises UserError, which names the first key that cannot be used.

        >>> Template.from_dict({"instruction": "Solve."}) == Template(instruction="Solve.")
        True
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "it"
            raise InputError(f"this prompt template cannot be read: {where}: {first['msg']}") from None

    def difference(self, other: "Template") -> str | None:
        """Return None when both are equal, else one line that shows both: their scores cannot be compared.

        >>> Template(instruction="Solve.").difference(Template(instruction="Think."))
        "the system message 'Solve.' here is 'Think.' there"
        """
        if len(self.exemplars) != len(other.exemplars):
            return f"{len(self.exemplars)} exemplars here and {len(other.exemplars)} there"
        for mine, theirs in zip(self.messages(""), other.messages(""), strict=False):
            if mine != theirs:
                return f"the {mine['role']} message {mine['content']!r} here is {theirs['content']!r} there"
        return None


def as_text(tokenizer: Any, text: str) -> str:
    """Return ``text`` with a space put into each of the tokenizer's control tokens that it spells out.

    >>> as_text(tokenizer, "Stop at <|im_end|>, please.")  # doctest: +SKIP
    'Stop at < |im_end|>, please.'
    """
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    control = [token.content for token in added if token.special and len(token.content) > 1]
    while found := next((token for token in control if token in text), None):
        text = text.replace(found, f"{found[0]} {found[1:]}")
    return text


def choose_exemplars(train: "Dataset", shots: int, seed: int = 0) -> tuple[Exemplar, ...]:
    """Choose ``shots`` worked examples from ``train``. The caller keeps them out of training and evaluation.

    Raises UserError when ``train`` has fewer rows than that.
    """
    if not 0 <= shots <= len(train):
        raise InputError(f"asked for {shots} exemplars, but there are {len(train)} rows to choose from")
    rows = [train[i] for i in random.Random(seed).sample(range(len(train)), shots)]
    return tuple(Exemplar(question=r["question"], answer=re.sub(r"<<.*?>>", "", r["answer"])) for r in rows)
