"""Checks of notebook 07: the most that a job can cost, and what an interruption takes away."""

from collections.abc import Callable
from math import ceil
from typing import Any

from rlvr_kit.tutorial.exercises import Wrong, check, first_difference, shown

#: Price an hour, machines, longest run in minutes, warm pool in seconds.
JOBS = [(1.5, 1, 90, 3600), (2.0, 4, 30, 0), (10.0, 2, 45, 1800), (0.8, 3, 15, 3600)]


def most(price: float, machines: int, minutes: float, keep_alive: float) -> float:
    """The most that a job can cost."""
    return price * machines * (minutes / 60 + keep_alive / 3600)


WRONG_COSTS: dict[str, Any] = {
    "the warm pool is billed like training, and you left it out":
        lambda price, machines, minutes, keep_alive: price * machines * minutes / 60,
    "you left out the machines: each of them is billed":
        lambda price, machines, minutes, keep_alive: price * (minutes / 60 + keep_alive / 3600),
    "the warm pool keeps all machines, not one: multiply the whole sum":
        lambda price, machines, minutes, keep_alive: price * machines * minutes / 60 + price * keep_alive / 3600,
    "the price is for an hour and the longest run is in minutes: divide it by 60":
        lambda price, machines, minutes, keep_alive: price * machines * (minutes + keep_alive / 3600),
    "the warm pool is in seconds, and an hour has 3600 of them, not 60":
        lambda price, machines, minutes, keep_alive: price * machines * (minutes / 60 + keep_alive / 60),
    "the warm pool is in seconds and the price is for an hour: divide it by 3600":
        lambda price, machines, minutes, keep_alive: price * machines * (minutes / 60 + keep_alive),
    "the longest run is in minutes, so an hour of it is 60 and not 3600":
        lambda price, machines, minutes, keep_alive: price * machines * (minutes + keep_alive) / 3600,
    "a warm pool makes the job dearer, so it is added and not taken off":
        lambda price, machines, minutes, keep_alive: price * machines * (minutes / 60 - keep_alive / 3600),
    "the brackets are missing: price and machines multiply both times, and not the first one only":
        lambda price, machines, minutes, keep_alive: price * machines * minutes / 60 + keep_alive / 3600,
    "// cuts hours off: divide with /":
        lambda price, machines, minutes, keep_alive: price * machines * (minutes // 60 + keep_alive // 3600),
    "started hours are not rounded up: a part of an hour counts as a part": [
        lambda price, machines, minutes, keep_alive: price * machines * ceil(minutes / 60 + keep_alive / 3600),
        lambda price, machines, minutes, keep_alive: price * machines * (ceil(minutes / 60) + ceil(keep_alive / 3600)),
    ],
    "you leave out the price": lambda price, machines, minutes, keep_alive: most(1, machines, minutes, keep_alive),
}  # fmt: skip


@check
def check_most(answer: Callable[..., Any]) -> str:
    """`costs_at_most(price, machines, minutes, keep_alive)` in dollars."""
    difference = first_difference(answer, most, JOBS, WRONG_COSTS)
    if difference:
        (price, machines, minutes, keep_alive), got, expected = difference
        raise Wrong(
            f"{machines} machine(s) at ${price:.2f} an hour for {minutes} minutes with a warm pool of "
            f"{keep_alive} seconds "
            f"cost at most ${expected:.2f}, and you have {shown(got)}: how many hours is each machine billed for?"
        )
    return "every machine is billed for both times, in hours. After 90 minutes an hour of warm pool is 40 % of the sum."


#: Steps that were completed when the machine went away, steps between two checkpoints.
INTERRUPTIONS = [(47, 10), (50, 10), (7, 10), (1, 1), (29, 8)]
WRONG_LOSSES: dict[str, Any] = {
    "this is how many steps were missing to the next checkpoint. What is lost is what came after the last one":
        [lambda done, save_steps: -done % save_steps, lambda done, save_steps: save_steps - done % save_steps],
    "this is the worst case. It depends on how long ago the last checkpoint was written":
        [
            lambda done, save_steps: save_steps,
            lambda done, save_steps: save_steps - 1,
            lambda done, save_steps: min(done, save_steps),
            lambda done, save_steps: min(done, save_steps - 1),
        ],
    "this is the number of checkpoints that were written": lambda done, save_steps: done // save_steps,
    "this is where the last checkpoint is. How many steps were done after it?":
        lambda done, save_steps: done - done % save_steps,
    "nothing is saved in your answer, and all is repeated: the run goes on from its last checkpoint":
        lambda done, save_steps: done,
    "one too many: a step that was not completed was not logged, so it is not lost, but simply not done":
        lambda done, save_steps: done % save_steps + 1,
    "one too few: step 47 with a checkpoint at 40 repeats 41 to 47, and that are seven steps":
        [lambda done, save_steps: done % save_steps - 1, lambda done, save_steps: (done - 1) % save_steps],
    "this takes one interval off the completed steps; all whole intervals are saved":
        [lambda done, save_steps: done - save_steps, lambda done, save_steps: max(0, done - save_steps)],
    "the remainder is the wrong way round: it is that of the completed steps, divided by `save_steps`":
        lambda done, save_steps: save_steps % done,
    "with a checkpoint at the very step of the interruption nothing is lost, and you lose a whole interval there":
        lambda done, save_steps: done % save_steps or save_steps,
    "a part of a step cannot be repeated: whole steps are":
        lambda done, save_steps: done / save_steps,
    "nothing is ever lost in your answer: with 47 completed steps, saved every 10, the last checkpoint is "
    "that of step 40":
        lambda done, save_steps: 0,
}  # fmt: skip


@check
def check_lost(answer: Callable[..., Any]) -> str:
    """`steps_lost(done, save_steps)`: completed steps that the next machine has to repeat."""
    difference = first_difference(
        answer, lambda done, save_steps: done % save_steps, INTERRUPTIONS, WRONG_LOSSES
    )
    if difference:
        (done, save_steps), got, expected = difference
        raise Wrong(
            f"{done} steps were completed and every {save_steps} of them are saved: {expected} step(s) come "
            "after the last "
            f"checkpoint, and you have {shown(got)}. Write down the steps at which a checkpoint is made"
        )
    return (
        "only the steps after the last checkpoint are repeated, so `run.save_steps` is the most that an "
        "interruption can "
        "take. It costs disk and seconds to save more often."
    )
