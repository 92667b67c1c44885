"""The verifier's verdicts as TRL reward functions; nothing here reads an answer by itself.

TRL calls each function once a batch, with the dataset's columns by keyword, and adds up what they return. A
well-formed completion earns 0.5 and a correct one 1.0 more; correct implies well-formed, so: 0, 0.5 or 1.5.
"""

import logging
from dataclasses import dataclass
from typing import Any

from rlvr_kit.errors import InputError
from rlvr_kit.tasks.verifier import canonical_number, completion_text, verify

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FormatReward:
    """Pays `weight` for a well-formed completion, right or wrong: the gold is never looked at.

    >>> FormatReward()(completions=["9 * 2 = 18\\n#### 18", "18"])
    [0.5, 0.0]
    """

    weight: float = 0.5
    __name__ = "format"

    def __call__(self, prompts: list | None = None, *, completions: list, **kwargs: Any) -> list:
        return [self.weight * verify(completion_text(c), "0").format_ok for c in completions]


@dataclass(frozen=True)
class CorrectnessReward:
    """Pays `weight` for a well-formed completion whose number equals the gold.

    A gold that is not a number gives None (TRL leaves the row out) and a warning. Through TRL's `log_extra`
    the extracted answer and the verdict's reason stand beside the text in the saved completions.

    >>> CorrectnessReward()(completions=["9 * 2 = 18\\n#### 18", "Half.\\n#### 9"], gold=["18", "18"])
    [1.0, 0.0]
    """

    weight: float = 1.0
    __name__ = "correct"

    def __call__(
        self, prompts: list | None = None, *, completions: list, gold: list | None = None, **kwargs: Any
    ) -> list:
        if gold is None:
            raise InputError("the correctness reward needs a column 'gold' in the dataset")
        verdicts = [verify(completion_text(c), str(g)) for c, g in zip(completions, gold, strict=True)]
        if log_extra := kwargs.get("log_extra"):
            log_extra("extracted", [v.extracted for v in verdicts])
            log_extra("why", [v.why for v in verdicts])
        rewards: list[float | None] = [self.weight * v.correct for v in verdicts]
        for row, g in enumerate(gold):
            if canonical_number(str(g)) is None:
                rewards[row] = None
                asked = f" to {str(prompts[row])[-80:]!r}" if prompts else ""
                logger.warning("no reward for row %d of the batch: gold %r%s is no number", row, g, asked)
        return rewards
