"""The verifier's verdicts as TRL reward functions. Nothing here reads an answer by itself.

TRL calls a reward function once a batch, with the dataset's columns by keyword, and adds up what the functions return
(`trl.GRPOConfig.reward_weights` may weigh them again). A well-formed completion earns 0.5, a correct one 1.0 more; correct
implies well-formed, so the sum is 0, 0.5 or 1.5.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from rlvr_kit import UserError
from rlvr_kit.verifier import canonical_number, verify

logger = logging.getLogger(__name__)

#: Plain text, or the chat messages of one assistant turn.
Completion = str | list[dict[str, Any]]


def completion_text(completion: Completion) -> str:
    """The text of a completion, plain or chat: that of its last message.

    >>> completion_text([{"role": "assistant", "content": "#### 18"}])
    '#### 18'
    """
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else None
    if isinstance(content, list):  # a multimodal turn: [{"type": "text", "text": "..."}]
        return "".join(part.get("text") or "" for part in content)
    return content or ""


class FormatReward:
    """Pays `weight` for a well-formed completion, right or wrong; the gold is not looked at.

    >>> FormatReward()(completions=["9 * 2 = 18\\n#### 18", "18"])
    [0.5, 0.0]
    """

    def __init__(self, weight: float = 0.5):
        self.weight = weight
        self.__name__ = "format"

    def __call__(
        self, prompts: Any = None, *, completions: Sequence[Completion], **kwargs: Any
    ) -> list[float | None]:
        return [self.weight * verify(completion_text(c), "0").format_ok for c in completions]


class CorrectnessReward:
    """Pays `weight` for a well-formed completion whose number equals the gold.

    A gold that is not a number gives None (TRL leaves the row out) and a warning. With TRL's `log_extra` the
    extracted answer and the reason go into the saved completions table.

    >>> CorrectnessReward()(completions=["9 * 2 = 18\\n#### 18", "Half.\\n#### 9"], gold=["18", "18"])
    [1.0, 0.0]

    Raises:
        UserError: the dataset has no ``gold`` column.
    """

    def __init__(self, weight: float = 1.0):
        self.weight = weight
        self.__name__ = "correct"

    def __call__(
        self,
        prompts: Any = None,
        *,
        completions: Sequence[Completion],
        gold: Sequence[str] | None = None,
        log_extra: Callable[[str, list], None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        if gold is None:
            raise UserError(
                "the correctness reward needs a column 'gold': load the data with rlvr_kit, or add one"
            )
        verdicts = [verify(completion_text(c), g) for c, g in zip(completions, gold, strict=True)]
        if log_extra is not None:
            log_extra("extracted", [v.extracted for v in verdicts])
            log_extra("why", [v.why for v in verdicts])
        readable = [canonical_number(g) is not None for g in gold]
        for row, ok in enumerate(readable):
            if not ok:
                prompt = f", prompt {str(prompts[row])[:80]!r}" if prompts else ""
                logger.warning(
                    "row %d of the batch has gold %r, not a number: no reward%s", row, gold[row], prompt
                )
        return [self.weight * v.correct if ok else None for v, ok in zip(verdicts, readable, strict=True)]
