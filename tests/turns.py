"""Two sides that are timed in turns, each in a process of its own, and what their times are worth.

Each side's peak memory is then its own, and a neighbour on the machine slows down both of them (A B A B …).
"""

import multiprocessing
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

#: New processes are forked from one that has imported these and done nothing else, so each starts at once.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["trl.trainer.grpo_trainer", "rlvr_kit.training.configs", "rlvr_kit.measure.evaluation"]
)

#: A ratio counts where each side's second fastest step was at most this much slower than its fastest.
SPREAD = 0.10


class Side:
    """A process that works when it is given a turn.

    `job` is the function that runs in it. Its first argument is the link to this process: it waits with ``recv`` for
    its turn, and answers with ``send``. The other arguments are `args`.
    """

    def __init__(self, job: Callable[..., None], *args: Any) -> None:
        self.link, theirs = PROCESSES.Pipe()
        self.process = PROCESSES.Process(target=_alone, args=(job, theirs, *args), daemon=True)
        self.process.start()
        theirs.close()

    def turn(self, what: Any = None) -> Any:
        """Let it work once, on `what` where the job takes something, and return what it then tells."""
        with suppress(OSError):  # where it has ended, `told` says how
            self.link.send(what)
        return self.told()

    def told(self) -> Any:
        """Wait for what it tells. Raises SystemExit where it has ended without a word."""
        try:
            return self.link.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            reason = "was killed: is there enough memory?" if code == -9 else f"ended with {code}, see above"
            raise SystemExit(f"{self.process.name} {reason}") from None

    def end(self) -> None:
        """End the process, if it has not ended by itself, so that its memory is free."""
        self.process.kill()
        self.process.join()


def _alone(job: Callable[..., None], *args: Any) -> None:
    try:
        job(*args)
    except (EOFError, BrokenPipeError):  # of its link, whose other end has gone
        sys.exit("the process that asked for this measurement has ended")


def alternate(
    sides: dict[str, Side], rounds: int, in_a_row: dict[str, int] | None = None
) -> dict[str, list[Any]]:
    """Let the sides take turns, A B A B …, and return what each told after each of its turns.

    With ``in_a_row={"B": 2}`` it is A B B A B B …: a short turn suffers more from a neighbour on the machine.
    """
    told: dict[str, list[Any]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            told[name] += [side.turn() for _ in range((in_a_row or {}).get(name, 1))]
    return told


def fastest(steps: list[dict[str, float]]) -> dict[str, float]:
    """Return the fastest step with its total ``seconds`` and the ``spread``.

    The spread says how much longer the second fastest step took, as a share: 0.1 is ten per cent.
    """
    by_time = sorted(steps, key=lambda step: sum(step.values()))
    first, second = (sum(step.values()) for step in by_time[:2])
    return by_time[0] | {"seconds": first, "spread": second / first - 1}


def ratio_counts(*sides: dict[str, float]) -> bool:
    """Return whether each side reached its fastest time twice. A fastest time that came only once may be luck."""
    return all(side["spread"] <= SPREAD for side in sides)
