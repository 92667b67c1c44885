"""Watch a run: a chart that is redrawn in place while it trains, and what its policy wrote at a step."""

import time
from typing import Any

import pandas as pd

from rlvr_kit.errors import InputError, UserError
from rlvr_kit.measure.tables import text_table
from rlvr_kit.run_folder import Run
from rlvr_kit.tasks.verifier import completion_text


class LiveChart:
    """Redraws the training curves in place, under the cell that trains.

    Drawing takes about a second, so it happens at most every ``every_seconds``; the last picture stays.

    >>> train(recipe, "runs/x", live=LiveChart())  # doctest: +SKIP
    """

    def __init__(self, every_seconds: float = 20) -> None:
        self.every_seconds, self.drawn, self.chart, self.table = every_seconds, 0.0, None, None

    def __call__(self, run: Run, last: bool = False) -> None:
        """Show the run as it is now."""
        from IPython.display import display

        from rlvr_kit.measure.plots import training_curves

        if not last and time.monotonic() - self.drawn < self.every_seconds:
            return
        figure, written = training_curves(run), text_table(self._written(run))
        if self.chart is None:
            self.chart, self.table = display(figure, display_id=True), display(written, display_id=True)
        else:
            self.chart.update(figure)
            self.table.update(written)
        self.drawn = time.monotonic()

    @staticmethod
    def _written(run: Run) -> pd.DataFrame:
        try:
            return step_table(run, rows=4)
        except UserError:  # nothing was sampled yet
            return pd.DataFrame()


def step_table(run: Run, step: int | None = None, rows: int = 8) -> pd.DataFrame:
    """Return a table of what the policy wrote at a step (by default the last), with rewards, advantage and verdict.

    At most `rows` completions are shown, spread over the step's groups. Raises UserError when the run has no such step.

    >>> step_table(run, step=1, rows=4)  # doctest: +SKIP
    """
    written = run.completions()
    step = int(written.step.max()) if step is None else step
    chosen = written[written.step == step]
    if chosen.empty:
        raise InputError(
            f"{run.path} holds no completions of step {step}; it has steps up to {written.step.max()}"
        )
    spread = chosen.iloc[:: max(1, len(chosen) // rows)].head(rows)
    table = pd.DataFrame({
        "question": [_question(prompt) for prompt in spread.prompt],
        "completion": [completion_text(_plain(c)) for c in spread.completion],
    })  # fmt: skip
    others = [c for c in ("format", "correct", "advantage", "why") if c in spread]
    return table.join(spread[others].reset_index(drop=True)).round(2)


def _plain(messages: Any) -> Any:
    return messages if isinstance(messages, str) else list(messages)


def _question(prompt: Any) -> str:
    """Return the question alone, without the instruction and the exemplars before it in the prompt."""
    if isinstance(prompt, str):  # a model without a chat template gets plain text
        return prompt.rpartition("Question: ")[2].removesuffix("\nAnswer:")
    return str(list(prompt)[-1]["content"])
