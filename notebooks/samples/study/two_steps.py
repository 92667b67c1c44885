"""The word problems with a harder mix for training: half of those take two calculations. The test stays as it is."""

from typing import Literal

from datasets import Dataset

from rlvr_kit.tasks.word_problems import INSTRUCTION as INSTRUCTION
from rlvr_kit.tasks.word_problems import make_word_problems
from rlvr_kit.tasks.word_problems import verify as verify


def problems(split: Literal["train", "test"], n: int, seed: int) -> Dataset:
    """Return problems of one or two calculations for training, and the recipe's own one-step problems for the test."""
    return make_word_problems(split, n, seed, max_steps=2 if split == "train" else 1)
