"""The plan of a recipe as a SageMaker training job: the request, its size, time, price, quota and role.

Planning reads from AWS, but creates and uploads nothing: the SDK makes the request with a read-only session.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlvr_kit.cloud.account import (
    REHEARSAL_ACCOUNT,
    Fact,
    cost_refusals,
    explain_aws_errors,
    explain_sdk_errors,
    find_price,
    find_quota,
    find_role,
    open_session,
    plan_table,
)
from rlvr_kit.cloud.instances import check_training
from rlvr_kit.cloud.job_request import channels, model_trainer, staged_source
from rlvr_kit.recipe import Recipe
from rlvr_kit.training.plan import DEFAULTS

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class JobPlan:
    """What `submit` would do. rich prints it as a table.

    The request that `submit` sends differs from `request` only in the time, which is part of names.
    """

    recipe: Recipe
    account: str
    region: str
    role: str
    role_problem: str  # "" when none is known
    training_problem: str  # why the recipe cannot work on these instances; "" when no reason is known
    training_check: str  # what was checked, in words
    request: dict[str, Any]
    upload: dict[str, int]  # bytes, by channel
    estimate: Fact  # minutes
    max_minutes: float  # the job is stopped after this
    price: Fact  # US dollars an hour for one instance
    quota: Fact  # instances of this type that the account may train on at the same time

    @property
    def max_cost(self) -> float | None:
        """US dollars: price x instances x (longest run + warm pool). Disk and storage are not included."""
        job = self.recipe.sagemaker
        hours = self.max_minutes / 60 + job.keep_alive / 3600
        return None if self.price.value is None else self.price.value * job.instance_count * hours

    @property
    def refusals(self) -> list[str]:
        """Why this must not be submitted, each reason with what to do about it; empty when it may be."""
        job = self.recipe.sagemaker
        reasons = [problem for problem in (self.role_problem, self.training_problem) if problem]
        if self.quota.value is not None and self.quota.value < job.instance_count:
            reasons.append(
                f"the quota in {self.region} is {self.quota.value:g} ({self.quota.basis}), the job needs "
                f"{job.instance_count}: ask for more there (it may take a day), or choose another --instance-type"
            )
        return reasons + cost_refusals(self.recipe, self.region, self.max_cost, "sagemaker.max_minutes")

    def in_words(self) -> dict[str, str]:
        """Return the plan in words, for a table."""
        job, max_cost = self.recipe.sagemaker, self.max_cost
        spot = ", managed spot (billed at the lower spot price)" if job.spot else ""
        pretended = ", pretended: this is a rehearsal" if self.account == REHEARSAL_ACCOUNT else ""
        return {
            "account, region": f"{self.account}, {self.region}{pretended}",
            "role": self.role,
            "instances": f"{job.instance_count} x {job.instance_type}, {job.volume_gb} GB disk{spot}",
            "training": self.training_check,
            "image": self.request["AlgorithmSpecification"]["TrainingImage"],
            "upload": ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in self.upload.items()),
            "estimate": self.estimate.show("{:.0f} min"),
            "stopped after": f"{self.max_minutes:.0f} min",
            "price": self.price.show("${:g} an hour") + pretended,
            "costs at most": "unknown without a price" if max_cost is None else f"${max_cost:.2f}",
            "quota": self.quota.show("{:g}") + pretended,
            "submit would": "refuse: " + "; ".join(self.refusals) if self.refusals else "start it",
        }

    def __rich__(self) -> "Table":
        return plan_table(f"Recipe {self.recipe.name} as a SageMaker training job", self.in_words())

    def to_dict(self) -> dict[str, Any]:
        """Return the plan for a program, as JSON values and with the whole request."""
        facts = {name: getattr(self, name)._asdict() for name in ("estimate", "price", "quota")}
        facts |= {"recipe": self.recipe.name, "max_cost": self.max_cost, "refusals": self.refusals}
        return vars(self) | facts


def plan_job(recipe: Recipe, instance_type: str | None = None) -> JobPlan:
    """Plan the job for `recipe`, on `instance_type` or else on the recipe's own.

    Raises:
        AWSError: there is no region, there are no credentials, or AWS refuses a call.
        InputError: there is no role for the job, a folder is missing, or the SDK refuses a setting.

    >>> plan_job(load_recipe("gpu"), "ml.g6.2xlarge").max_cost  # doctest: +SKIP
    """
    if instance_type:
        section = recipe.sagemaker.model_copy(update={"instance_type": instance_type})
        recipe = recipe.model_copy(update={"sagemaker": section})
    session = open_session(recipe.sagemaker.bucket, read_only=True)
    with explain_aws_errors(), staged_source(recipe) as source:
        role, role_problem = find_role(session, recipe)
        training_problem, training_check = check_training(recipe)
        estimate = Fact(None, "it cannot work") if training_problem else estimate_minutes(recipe)
        minutes = recipe.sagemaker.max_minutes or max(60.0, 3 * (estimate.value or 160.0))
        with explain_sdk_errors("the SageMaker SDK refuses the recipe's settings"):
            trainer = model_trainer(recipe, session, role, minutes, source)
            request = trainer._create_training_job_args(boto3=True)
        return JobPlan(
            recipe=recipe,
            account=session.account_id(),
            region=session.boto_region_name,
            role=role,
            role_problem=role_problem,
            training_problem=training_problem,
            training_check=training_check,
            request=request,
            upload={
                name: sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
                for name, folder in ({"source": source} | channels(recipe)).items()
            },
            estimate=estimate,
            max_minutes=minutes,
            price=find_price(session, recipe),
            quota=find_quota(session, recipe),
        )


def estimate_minutes(recipe: Recipe) -> Fact:
    """Estimate the minutes of a run by a rule of thumb.

    The rule: sampling one token takes 30 ms for any batch size, and learning takes as long as sampling.
    """
    settings, evaluation = DEFAULTS | recipe.grpo, recipe.evaluation
    steps, batches = int(settings["max_steps"]), -(-evaluation.heldout // evaluation.batch_size)
    if steps <= 0:
        return Fact(None, "the recipe sets no grpo.max_steps")
    passes = 2 * steps + (steps // evaluation.every_steps + 1) * batches
    rule = "a rule of thumb, not measured: full-length completions, 30 ms a token to sample, as much again to learn"
    return Fact(0.03 * passes * settings["max_completion_length"] / 60, rule)
