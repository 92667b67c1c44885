"""Plan a run before it starts: what its batch sizes mean, what it needs, and whether it can work at all."""

import os
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from rlvr_kit.errors import InputError, MachineError
from rlvr_kit.machine import training_memory
from rlvr_kit.recipe import Recipe
from rlvr_kit.training.step_cost import memory_by_part, model_config, prompt_tokens

if TYPE_CHECKING:
    from rich.table import Table

#: TRL 1.16's defaults of the settings that the plan needs.
DEFAULTS = {
    "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "num_generations": 8,
    "num_iterations": 1, "max_completion_length": 512, "max_steps": -1, "num_train_epochs": 3,
    "learning_rate": 1e-6, "temperature": 1,
}  # fmt: skip


class PlanRefusal(InputError):
    """The recipe cannot work. The message names everything that is wrong and what to change."""


class MemoryRefusal(MachineError):
    """The recipe needs more memory than there is."""


@dataclass(frozen=True)
class Plan:
    """What a run will need; ``rich.print`` shows it as a table."""

    recipe: str
    prompts: int  # different prompts in a step, over all devices
    group: int  # completions of each prompt
    completions: int  # in a step, over all devices
    rows: int  # completions in one loss pass on one device
    steps: int
    total_completions: int  # in the whole run, without those that run.redraws may add
    tokens: dict[str, int]  # prompts: median, longest, shared; the limit of a completion; the model's context
    parameters: dict[str, int]  # all, trained
    memory: dict[str, float]  # GiB, by part and "at once" (the peak)
    available: float  # GiB of memory
    machine: str
    seconds: dict[str, float] | None  # measured for one step on this machine: sampling, learning
    minutes: float | None  # of the whole run, including the held-out measurements
    remark: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings, for JSON."""
        return asdict(self)

    def in_words(self) -> dict[str, str]:
        """Return the plan in words, for a table."""
        tokens, parameters, seconds = self.tokens, self.parameters, self.seconds
        text = {
            "a step": f"{self.prompts} prompts x {self.group} completions = {self.completions} completions, "
            f"in loss passes of {self.rows} (TRL's batch sizes count completions)",
            "the run": f"{self.steps:,} steps, {self.total_completions:,} completions",
            "prompts": "{median} tokens, longest {longest}; first {shared} common to all".format(**tokens),
            "context": "{longest} + {completion} for the completion, of {context:,} tokens".format(**tokens),
            "parameters": "{all:,}, all of them trained".format(**parameters)
            if parameters["all"] == parameters["trained"]
            else "{all:,}, and {trained:,} more in adapters, which alone are trained".format(**parameters),
        }  # fmt: skip
        text |= {f"memory: {part}": f"at most {gib:.2f} GiB" for part, gib in self.memory.items()}
        text |= {"memory there is": f"{self.available:.1f} GiB ({self.machine})", "time": "not measured"}
        if seconds:
            text["time"] = "{sampling:.1f} s to sample and {learning:.1f} s to learn a step".format(**seconds)
            text["time"] += f", about {self.minutes:.0f} min in all"
        return text | ({"note": self.remark} if self.remark else {})

    def __rich__(self) -> "Table":
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=f"Plan of recipe {escape(self.recipe)}", show_header=False)
        for name, text in self.in_words().items():
            table.add_row(name, escape(text))
        return table


def plan(
    recipe: Recipe,
    gpu_memory: float | None = None,
    devices: int | None = None,
) -> Plan:
    """Work out what ``recipe`` needs on this machine, or on a GPU with ``gpu_memory`` GiB.

    ``gpu_memory`` may be ``math.inf``: then memory is not checked. ``devices`` is the number of processes that train
    together; None means as many as torchrun or accelerate has started.

    Raises:
        PlanRefusal: the recipe cannot work; the message names everything that is wrong and what to change.
        MemoryRefusal: it would need more memory than there is.
        UserError: the data or the model is not on this machine and cannot be fetched.

    Example:
        >>> from rlvr_kit.recipe import load_recipe
        >>> plan(load_recipe("smoke")).prompts
        2
    """
    given = _checked_values(recipe)
    devices = devices or int(os.environ.get("WORLD_SIZE", 1))
    rows, group = int(given["per_device_train_batch_size"]), int(given["num_generations"])
    completions = rows * devices * int(given["gradient_accumulation_steps"])
    # With steps_per_generation TRL samples the completions of several steps together.
    waves = recipe.grpo.get("steps_per_generation")
    sampled = recipe.grpo.get("generation_batch_size") or (rows * devices * waves if waves else completions)
    _refuse_batches(recipe, given, sampled)
    problems = len(recipe.training_problems())  # after what can be said without the data
    if sampled > problems * group:
        _refuse(recipe, {
            f"a batch takes {sampled // group} prompts and there are {problems}: raise data.train_size": True
        })  # fmt: skip
    config, own = model_config(recipe)
    remark = None if own else "the model is not here: its sizes are the kit's own, prompt tokens a guess"
    tokens = prompt_tokens(recipe, guess=not own)
    tokens |= {"completion": int(given["max_completion_length"]), "context": config.max_position_embeddings}
    memory, parameters = memory_by_part(
        recipe, config, tokens, rows, sampled // devices, group, bool(gpu_memory)
    )
    available, machine = (gpu_memory, "a GPU of that size") if gpu_memory else training_memory()
    parts = ", ".join(f"{part} {gib:.1f}" for part, gib in memory.items() if part != "at once")
    _refuse_long_prompts(recipe, tokens)
    if memory["at once"] > available:
        raise MemoryRefusal(
            f"recipe {recipe.name} cannot work: it needs up to {memory['at once']:.1f} GiB ({parts}) and there are "
            f"{available:.1f} ({machine}): lower grpo.per_device_train_batch_size (and raise "
            "grpo.gradient_accumulation_steps), grpo.max_completion_length or evaluation.batch_size, or train with lora"
        )
    steps = _steps(given, problems * group, sampled, completions)
    return Plan(
        recipe.name, completions // group, group, completions, rows, steps, steps * completions, tokens,
        parameters, memory, available, machine, None, None, remark,
    )  # fmt: skip


def with_time(planned: Plan, recipe: Recipe, seconds: dict[str, float]) -> Plan:
    """Return the plan of ``recipe`` with the time of one step, ``sampling`` and ``learning``, and of the whole run."""
    minutes = _minutes(recipe, seconds, planned.steps, planned.completions)
    return replace(planned, seconds=seconds, minutes=minutes)


def _checked_values(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe's ``grpo`` section together with TRL's defaults, after checking every value."""
    from rlvr_kit.training.configs import checked_grpo  # late: it loads torch and TRL

    given = DEFAULTS | recipe.grpo
    for key in DEFAULTS:
        if not isinstance(given[key], int | float) or isinstance(given[key], bool):
            raise PlanRefusal(f"recipe {recipe.name}: grpo.{key} is {given[key]!r}, not a number")
    checked_grpo(recipe)
    return given


def _steps(given: dict[str, Any], available: int, sampled: int, completions: int) -> int:
    """Return the number of optimizer steps: the recipe's own number, or that of its epochs."""
    if given["max_steps"] >= 0:
        return int(given["max_steps"])
    batches = available // sampled * int(given["num_iterations"])
    return int(given["num_train_epochs"] * batches * sampled // completions)


def _minutes(recipe: Recipe, seconds: dict[str, float], steps: int, completions: int) -> float:
    """Return the minutes of the whole run, including its held-out measurements, from the seconds of one step."""
    measured = (steps // recipe.evaluation.every_steps + 1) * recipe.evaluation.heldout / completions
    sampled_steps = (
        steps / (DEFAULTS | recipe.grpo)["num_iterations"]
    )  # how often the same completions are used
    return (steps * seconds["learning"] + (sampled_steps + measured) * seconds["sampling"]) / 60


def _refuse_long_prompts(recipe: Recipe, tokens: dict[str, int]) -> None:
    """Raise PlanRefusal when a prompt and its completion do not fit into the model's context."""
    _refuse(recipe, {
        "a prompt of {longest} tokens and a completion of {completion} exceed the model's context of "
        "{context}: lower prompt.shots or grpo.max_completion_length".format(**tokens):
            tokens["longest"] + tokens["completion"] > tokens["context"],
        f"a test or held-out prompt of {tokens['evaluated']:,} tokens and a completion of {recipe.max_new_tokens:,} "
        f"exceed the model's context of {tokens['context']:,}: leave that question out, or lower "
        "evaluation.max_new_tokens": tokens["evaluated"] + recipe.max_new_tokens > tokens["context"],
    })  # fmt: skip


def _refuse_batches(recipe: Recipe, given: dict[str, Any], sampled: int) -> None:
    """Raise UserError when nothing could be learned from batches of ``sampled`` completions."""
    group = int(given["num_generations"])
    whole = -(-max(sampled, 1) // max(group, 1)) * group
    _refuse(recipe, {
        "grpo.num_generations is below 2, and completions are compared in their group: try 8": group < 2,
        f"{sampled} completions (grpo.per_device_train_batch_size x gradient_accumulation_steps x devices) "
        f"are not whole groups of {group}: make it {whole}, or change grpo.num_generations": sampled != whole,
        "grpo.learning_rate is not above 0, so nothing would be learned": given["learning_rate"] <= 0,
        "grpo.temperature is not above 0, so a group would be all equal": given["temperature"] <= 0,
        "grpo.max_steps is 0: say how many steps to train": given["max_steps"] == 0,
        "grpo.max_completion_length is below 1": given["max_completion_length"] < 1,
        "rewards.format and rewards.correct are 0, so all rewards would be equal":
            recipe.rewards.format == recipe.rewards.correct == 0,
    })  # fmt: skip


def _refuse(recipe: Recipe, wrong: dict[str, bool]) -> None:
    reasons = [reason for reason, is_so in wrong.items() if is_so]
    if reasons:
        raise PlanRefusal(f"recipe {recipe.name} cannot work: {'; '.join(reasons)}")
