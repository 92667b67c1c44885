"""SageMaker's instance types: their GPUs, and whether a recipe can work on the type that it names."""

import math

from rlvr_kit.errors import UserError
from rlvr_kit.recipe import Recipe
from rlvr_kit.training.plan import MemoryRefusal, PlanRefusal, plan

#: GiB of one GPU that a program can use, by instance family: its stated memory less what the driver reserves.
GPU_MEMORY = {
    "g4dn": 14.5, "g5": 22, "g6": 22, "g6e": 44, "p3": 15.5, "p3dn": 31, "p4d": 39, "p4de": 79, "p5": 79,
    "p5e": 139, "p5en": 139,
}  # fmt: skip
#: Number of GPUs by instance size, for families that begin with g and with p.
G_SIZES = {"12xlarge": 4, "24xlarge": 4, "48xlarge": 8}  # all other sizes: one
P_SIZES = {"2xlarge": 1, "4xlarge": 1, "8xlarge": 4, "16xlarge": 8, "24xlarge": 8, "48xlarge": 8}
CPU_FAMILIES = ("c", "m", "r", "t")


def gpus_of(instance_type: str) -> tuple[int, float] | None:
    """Return the number of GPUs and the GiB of each, (0, 0.0) for CPU instances, None for unknown types.

    >>> gpus_of("ml.g5.12xlarge")
    (4, 22)
    """
    _, family, size, *_ = [*instance_type.split("."), "", ""]
    if family in GPU_MEMORY:
        count = G_SIZES.get(size, 1) if family.startswith("g") else P_SIZES.get(size)
        return None if count is None else (count, GPU_MEMORY[family])
    is_cpu = family[:1] in CPU_FAMILIES and family[1:2].isdigit()
    return (0, 0.0) if is_cpu else None


def check_training(recipe: Recipe) -> tuple[str, str]:
    """Ask the planner of `plan` and `train` whether the recipe can work on the job's instances.

    The container asks the same, but there the answer costs money.

    Returns:
        Why the recipe cannot work ("" when no reason is known), and what was checked, in words.

    >>> check_training(load_recipe("gpu", ["sagemaker.instance_type=ml.g6.2xlarge"]))[0]  # doctest: +SKIP
    ''
    """
    job, gpus = recipe.sagemaker, gpus_of(recipe.sagemaker.instance_type)
    if gpus is None:
        return "", f"not checked: the kit does not know how many GPUs {job.instance_type} has"
    count, memory = gpus
    if count == 0 and job.instance_count > 1:
        return cpu_hosts_refusal(job.instance_count), "refused"
    processes = max(1, count * job.instance_count)
    where = f"{processes} x {memory:g} GiB of GPU memory" if count else "a CPU; its memory is not checked"
    try:
        planned = plan(recipe, memory if count else math.inf, devices=processes)
    except (PlanRefusal, MemoryRefusal) as error:
        return str(error), f"refused, for {where}"
    except UserError as error:  # for example a model that only the job can fetch
        return "", f"batch sizes fit {where}; the rest is not checked here: {error}"
    return "", f"{planned.completions} completions a step on {where}"


def cpu_hosts_refusal(hosts: int) -> str:
    """Say why a job on several CPU instances is refused."""
    return (
        f"each of {hosts} CPU instances would train the whole recipe by itself, and all of them would write into the "
        "same checkpoints: set sagemaker.instance_count to 1"
    )
