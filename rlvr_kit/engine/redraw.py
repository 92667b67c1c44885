"""Dynamic sampling (DAPO, arXiv 2503.14476, section 3.2): a group without signal is drawn again with another problem.

A group whose rewards are all equal has advantage 0 and teaches nothing. Here such a group is replaced: another problem
of the training set is drawn, completions are sampled for it, and so on until every group has a signal or until
``redraws`` rounds are over. What then still has none stays in the batch, as without dynamic sampling. TRL 1.16 has no
such option. Departure from the paper, which goes on until the batch is full: there is a budget, so that a policy that
has learned everything, or nothing, does not draw for ever.
"""

import random
from typing import Any

from trl.data_utils import is_conversational

from rlvr_kit.engine.sampling import Completion
from rlvr_kit.errors import InputError

Row = dict[
    str, Any
]  # a row of the training set: its prompt, and the columns that the reward functions are given


def draw_with_signal(trainer: Any, rows: list[Row]) -> tuple[list[Row], list[Completion]]:
    """Return the rows of this process and a sampled completion for each, after at most ``redraws`` more rounds.

    ``trainer`` is the kit's (trainer_sampling.py). ``rows`` has one row for each completion, the rows of a group one
    after the other, as TRL gives them. Which problems come in depends on the seed and the step alone, and is the same
    in every process. ``trainer.redrawn`` counts the completions that all processes sampled after the first round.

    Raises:
        UserError: an option of TRL under which it is not known here which groups have a signal.
    """
    if reason := _cannot_redraw(trainer):
        raise InputError(f"run.redraws is {trainer.redraws}, but {reason}")
    size = trainer.num_generations
    first = trainer.accelerator.process_index * len(rows)
    group_of = [(first + i) // size for i in range(len(rows))]  # a group may lie in two processes
    idle = list(range(trainer.accelerator.num_processes * len(rows) // size))
    rows, found = list(rows), dict[int, Completion]()
    for attempt in range(1 + trainer.redraws):
        if attempt:
            fresh = _other_problems(trainer, idle, attempt)
            rows = [fresh.get(group, row) for group, row in zip(group_of, rows, strict=True)]
            trainer.redrawn += size * len(idle)
        places = [i for i, group in enumerate(group_of) if group in idle]
        if places:
            found |= zip(places, trainer.sample([rows[i]["prompt"] for i in places]), strict=True)
        completions = [found[i] for i in range(len(rows))]
        idle = _groups_without_signal(trainer, rows, completions)
        if not idle:
            break
    return rows, completions


def _cannot_redraw(trainer: Any) -> str | None:
    """Why dynamic sampling is not possible with the trainer's options, as the end of a sentence; None if it is."""
    if trainer.fallback_reason:
        return f"stock TRL samples, which has no dynamic sampling: {trainer.fallback_reason}"
    if trainer.multi_objective_aggregation != "sum_then_normalize":
        return "it needs grpo.multi_objective_aggregation: sum_then_normalize"
    if any(getattr(trainer._tokenizer, key, None) for key in ("response_template", "response_schema")):
        return "the model's tokenizer takes completions apart before they are rewarded"
    return None


def _other_problems(trainer: Any, groups: list[int], attempt: int) -> dict[int, Row]:
    """Another row of the training set for each of the groups."""
    # A generator of its own: a run that goes on from a checkpoint draws the same, and so does every process.
    draw = random.Random(f"{trainer.args.seed} {trainer.state.global_step} {attempt}")
    data: Any = trainer.train_dataset
    return {group: data[draw.randrange(len(data))] for group in groups}


def _groups_without_signal(trainer: Any, rows: list[Row], completions: list[Completion]) -> list[int]:
    """The numbers of the groups, over all processes, whose completions all earned the same."""
    ids = [trainer.written(completion) for completion in completions]
    texts: list[Any] = trainer.processing_class.batch_decode(ids, skip_special_tokens=True)
    if is_conversational(rows[0]):
        texts = [[{"role": "assistant", "content": text}] for text in texts]
    rewards = trainer._calculate_rewards(rows, [row["prompt"] for row in rows], texts, ids)
    # What reward functions log about completions belongs to those that are trained on; TRL asks them again for these.
    trainer._pending_extra_logs.clear()
    trainer._pending_metrics.clear()
    unjudged = rewards.isnan().all(dim=1)
    total = (rewards * trainer.reward_weights.to(rewards.device)).nansum(dim=1)
    low, high = total.masked_fill(unjudged, float("inf")), total.masked_fill(unjudged, float("-inf"))
    spread = high.view(-1, trainer.num_generations).amax(1) - low.view(-1, trainer.num_generations).amin(1)
    return (spread < 1e-6).nonzero().flatten().tolist()
