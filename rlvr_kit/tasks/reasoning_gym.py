"""``task: reasoning_gym:<dataset>``: the generated puzzles of the package reasoning-gym (Stojanovski et al. 2025).

    pip install -e '.[reasoning]'
    python -m rlvr_kit audit reasoning_gym:leg_counting

An answer stands in one pair of tags at the end, ``<answer>22</answer>``, and is correct when the dataset gives it a
full score. A lower score is kept as `partial`, a metric that is never paid: some datasets give 0.01 to any wrong
answer, which as a reward would be noise. To use other settings than a dataset's own, write a task file of a few lines:

    from types import SimpleNamespace
    from rlvr_kit.tasks.reasoning_gym import gym_task

    task = gym_task("chain_sum", max_terms=3, max_digits=2)
    INSTRUCTION, problems, verify = task.INSTRUCTION, task.problems, task.verify
"""

import inspect
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, Literal

from rlvr_kit.errors import InputError, MachineError
from rlvr_kit.tasks.generated import different, split_of
from rlvr_kit.tasks.verifier import Verdict

INSTRUCTION = (
    "Solve the problem. Think first, and end with the answer in a pair of tags.\n"
    "Example:\nTwo dogs have 2 x 4 legs.\n<answer>8</answer>"
)
#: The scorers of these run the text of the model as code, by eval or sympy's parser, or expand any power of ten.
RUN_THE_TEXT = frozenset({
    "binary_matrix", "coin_flip", "composite", "countdown", "intermediate_integration", "n_queens",
    "polynomial_multiplication", "puzzle24", "simple_integration", "spiral_matrix", "string_insertion",
})  # fmt: skip
CALLS_THAT_RUN = re.compile(r"\b(eval|exec|parse_expr|sympify|Fraction)\(")
MOST_CHARACTERS = 10_000


def gym_task(dataset: str, **settings: Any) -> SimpleNamespace:
    """Make a task of a dataset of reasoning-gym; `settings` replace the dataset's own.

    Raises UserError when the package is missing, the dataset is unknown, or its scorer runs the text of the model.

    >>> len(gym_task("chain_sum", max_terms=3).problems("train", 8, 0))  # doctest: +SKIP
    8
    """
    try:
        import reasoning_gym
    except ImportError as error:
        raise MachineError("reasoning_gym tasks need a package: pip install -e '.[reasoning]'") from error
    if dataset in RUN_THE_TEXT:
        raise InputError(f"reasoning_gym:{dataset} is refused: its scorer runs the text of the model as code")

    @lru_cache(64)
    def make(seed: int) -> Any:
        return reasoning_gym.create_dataset(dataset, seed=seed, size=1_000_000, **settings)

    try:
        scorer = type(make(0)).score_answer
    except (ValueError, TypeError, AssertionError) as error:
        raise InputError(f"reasoning_gym has no dataset {dataset!r} with these settings: {error}") from None
    if CALLS_THAT_RUN.search(inspect.getsource(scorer)):
        raise InputError(f"reasoning_gym:{dataset} is refused: its scorer runs the text of the model as code")

    @lru_cache(4096)
    def entry(seed: int, index: int) -> dict[str, Any]:
        return dict(make(seed)[index])

    def rows(split: str, n: int, seed: int) -> Iterator[dict[str, str]]:
        for index in range(20 * n + 1000):
            made = entry(seed, index)
            question, answer = str(made["question"]), str(made["answer"])
            if answer.strip() and split_of(question) == split:
                gold = json.dumps({"answer": answer, "seed": seed, "index": index})
                yield {"question": question, "gold": gold, "answer": f"<answer>{answer}</answer>"}

    def problems(split: Literal["train", "test"], n: int, seed: int) -> list[dict[str, str]]:
        return different(rows(split, n, seed), n)

    def verify(completion: str, gold: str) -> Verdict:
        try:
            place = json.loads(gold)
            wanted = entry(int(place["seed"]), int(place["index"]))
        except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
            return Verdict(False, False, False, None, f"unreadable gold: {type(error).__name__}")
        text = completion.strip()
        said = _between_tags(text)
        if said is None:
            last = text[-MOST_CHARACTERS:].rpartition("\n")[2].removeprefix("Answer:").strip()
            lenient = bool(last) and _score(make(0), last, wanted) >= 1.0
            return Verdict(False, False, lenient, last[:200] or None, "not one <answer> at the end", 0.0)
        score = _score(make(0), said, wanted)
        why = "full score" if score >= 1.0 else f"score {score:.2f}, not 1"
        return Verdict(True, score >= 1.0, score >= 1.0, said[:200], why, score)

    return SimpleNamespace(INSTRUCTION=INSTRUCTION, problems=problems, verify=verify)


def _between_tags(text: str) -> str | None:
    """Return what stands in the one pair of tags that ends the text; None unless there is exactly one such pair."""
    before, tag, rest = text.partition("<answer>")
    if not tag or not rest.endswith("</answer>") or text.count("<answer>") + text.count("</answer>") != 2:
        return None
    said = rest.removesuffix("</answer>").strip()
    return said if 0 < len(said) <= MOST_CHARACTERS else None


def _score(data: Any, said: str, wanted: dict[str, Any]) -> float:
    """Return the dataset's own score, between 0 and 1, or 0 for a text on which its scorer raises."""
    try:
        return min(1.0, max(0.0, float(data.score_answer(answer=said, entry=wanted))))
    except Exception:  # the scorer is not ours, and the text is anything
        return 0.0
