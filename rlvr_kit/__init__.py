"""Reinforcement learning with verifiable rewards, small enough to read.

The modules, in the order in which data flows: verifier, gsm8k, word_problems, prompts, rewards, scoring, recipe,
models, prompt_tree, decoding, generation, statistics, runs, evaluation, sizing, planning, token_logps, shared_prefix,
guards, callbacks, training, plots, live, doctor. As a SageMaker job: sagemaker_account, sagemaker_plan, sagemaker_jobs,
container, rehearsal, lambda_reward. The notebooks as a whole: headless, report. Importing the package loads none of
the heavy libraries.
"""

import os
from pathlib import Path

__version__ = "0.1.0"

#: The folder that holds ``notebooks/`` and ``runs/``; relative paths in notebooks are anchored here.
PROJECT = Path(__file__).resolve().parent.parent

#: Of the processes that torchrun or `accelerate launch` starts, the first speaks for all.
SPEAKS = os.environ.get("RANK", "0") == "0"


class UserError(Exception):
    """Something the person at the keyboard can put right: the message says what, where and how."""
