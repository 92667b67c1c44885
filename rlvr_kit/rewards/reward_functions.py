"""A task's verdicts as TRL reward functions. Only the verifier reads answers; these functions pay for its verdicts.

TRL calls each function once per batch, with the dataset's columns by keyword, and adds up the results. A well-formed
completion earns 0.5 and a correct one 1.0 more. Correct implies well-formed, so the sum is 0, 0.5 or 1.5. The default
`verify` judges numbers, as in GSM8K; another one is, for example, ``load_task("orders").verify``.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rlvr_kit.errors import InputError
from rlvr_kit.tasks.verifier import Verdict, completion_text
from rlvr_kit.tasks.verifier import verify as verify_number

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FormatReward:
    """Pays `weight` for a well-formed completion, whether its answer is right or wrong.

    Takes a batch of `completions` (texts or chat messages) and returns a list of floats, one for each completion.
    A `verify` for anything else than numbers needs the gold.

    >>> FormatReward()(completions=["9 * 2 = 18\\n#### 18", "18"])
    [0.5, 0.0]
    """

    weight: float = 0.5
    verify: Callable[[str, str], Verdict] = verify_number
    __name__ = "format"

    def __call__(
        self, prompts: list | None = None, *, completions: list, gold: list | None = None, **kwargs: Any
    ) -> list:
        if gold is None and self.verify is not verify_number:
            raise InputError("the format reward of this task needs a column 'gold' in the dataset")
        golds = gold or ["0"] * len(completions)  # for numbers, the format does not depend on the gold
        return [
            self.weight * self.verify(completion_text(c), str(g)).format_ok
            for c, g in zip(completions, golds, strict=True)
        ]


@dataclass(frozen=True)
class CorrectnessReward:
    """Pays `weight` for a well-formed completion whose answer is right.

    It takes and returns what FormatReward does, and needs the column `gold`; without it, it raises UserError. A gold
    that the verifier cannot read gives None (TRL leaves the row out) and a warning. Through TRL's `log_extra` the
    extracted answer and the verdict's reason are saved with the completions.

    >>> CorrectnessReward()(completions=["9 * 2 = 18\\n#### 18", "Half.\\n#### 9"], gold=["18", "18"])
    [1.0, 0.0]
    """

    weight: float = 1.0
    verify: Callable[[str, str], Verdict] = verify_number
    __name__ = "correct"

    def __call__(
        self, prompts: list | None = None, *, completions: list, gold: list | None = None, **kwargs: Any
    ) -> list:
        if gold is None:
            raise InputError("the correctness reward needs a column 'gold' in the dataset")
        verdicts = [self.verify(completion_text(c), str(g)) for c, g in zip(completions, gold, strict=True)]
        if log_extra := kwargs.get("log_extra"):
            log_extra("extracted", [v.extracted for v in verdicts])
            log_extra("why", [v.why for v in verdicts])
        rewards: list[float | None] = [self.weight * v.correct for v in verdicts]
        for row, verdict in enumerate(verdicts):
            if verdict.why.startswith("unreadable gold"):
                rewards[row] = None
                asked = f" to {str(prompts[row])[-80:]!r}" if prompts else ""
                logger.warning("no reward for row %d of the batch%s: %s", row, asked, verdict.why)
        return rewards
