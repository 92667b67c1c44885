"""Reinforcement learning with verifiable rewards (RLVR), small enough to read.

The rooms, in the order in which data flows. A room imports only from those above it (`make check` holds it to that):

    errors, paths, machine   what can go wrong, where files lie, what this computer has
    models, bundled_model    tokenizer and policy
    tasks/                   what is asked and how an answer is judged: one file a task, prompts, verifier
    sampling_settings        how completions are sampled: temperature, limit, stop strings, ...
    recipe, run_folder       the YAML file that describes a run, and the folder that a run leaves
    engine/                  one GRPO step, fast and exact: prompt_tree, decoding, adapters, sampling, token_logps,
                             trainer_sampling, grpo_trainer, redraw, fallback
    measure/                 evaluation, checks, statistics, course, seeds, variants, signs, wording, plots,
                             paired_plots, study_plots, diagrams, tables, live_chart
    rewards/                 the verdict as TRL reward functions, as the command `score`, as an AWS Lambda
    training/                audit (of a task), plan, step_cost, train, best, finish, callbacks, guards,
                             study, sweep
    share/                   export with a card, try it, serve it on this machine, put it on the Hub
    cloud/                   SageMaker: account, job_plan, job_request, jobs, clean_up, container, rehearsal,
                             endpoint_plan, endpoint
    tutorial/                executing the notebooks, report, timings; exercises and checks, a workshop's copies

What notebooks and scripts need is exported here. Nothing is imported before it is asked for, so that
``import rlvr_kit`` and the verifier load neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rlvr_kit.errors import AWSError, InputError, MachineError, UserError

__version__ = "0.1.0"

if TYPE_CHECKING:
    from rlvr_kit.engine.sampling import generate
    from rlvr_kit.measure.evaluation import evaluate, evaluate_recipe
    from rlvr_kit.measure.live_chart import LiveChart, step_table
    from rlvr_kit.measure.statistics import compare, wilson_interval
    from rlvr_kit.models import load_policy, load_tokenizer
    from rlvr_kit.paths import project_path
    from rlvr_kit.recipe import Recipe, load_recipe
    from rlvr_kit.run_folder import Run
    from rlvr_kit.sampling_settings import SamplingSettings
    from rlvr_kit.tasks.task import Task, load_task
    from rlvr_kit.tasks.verifier import Verdict, verify
    from rlvr_kit.training.audit import audit, new_task
    from rlvr_kit.training.plan import plan
    from rlvr_kit.training.train import train

_HOME = {
    "audit": "training.audit",
    "new_task": "training.audit",
    "Task": "tasks.task",
    "load_task": "tasks.task",
    "load_policy": "models",
    "load_tokenizer": "models",
    "project_path": "paths",
    "Verdict": "tasks.verifier",
    "verify": "tasks.verifier",
    "Recipe": "recipe",
    "load_recipe": "recipe",
    "Run": "run_folder",
    "SamplingSettings": "sampling_settings",
    "generate": "engine.sampling",
    "evaluate": "measure.evaluation",
    "evaluate_recipe": "measure.evaluation",
    "compare": "measure.statistics",
    "wilson_interval": "measure.statistics",
    "LiveChart": "measure.live_chart",
    "step_table": "measure.live_chart",
    "plan": "training.plan",
    "train": "training.train",
}

__all__ = [
    "AWSError", "InputError", "LiveChart", "MachineError", "Recipe", "Run", "SamplingSettings", "Task", "UserError",
    "Verdict", "audit", "compare", "evaluate", "evaluate_recipe", "generate", "load_policy", "load_recipe", "load_task",
    "load_tokenizer", "new_task", "plan", "project_path", "step_table", "train", "verify", "wilson_interval",
]  # fmt: skip


def __getattr__(name: str) -> Any:  # PEP 562: called for names that are not here yet
    if name not in _HOME:
        raise AttributeError(f"module 'rlvr_kit' has no attribute {name!r}")
    return getattr(import_module(f"rlvr_kit.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
