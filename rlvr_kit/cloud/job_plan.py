"""What a recipe would be as a SageMaker training job: the request, its size, time, price, quota and role.

Reads from AWS; writes and uploads nothing. `sagemaker.train.ModelTrainer` (SDK 3.27) makes the request as it
does when submitting, but over a session that keeps every upload to itself.
"""

import os
import re
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from rlvr_kit import __version__
from rlvr_kit.cloud.account import Fact, explained, find_price, find_quota, find_role, open_session
from rlvr_kit.paths import PROJECT
from rlvr_kit.recipe import Recipe
from rlvr_kit.training.plan import DEFAULTS

if TYPE_CHECKING:
    from rich.table import Table
    from sagemaker.core.helper.session_helper import Session
    from sagemaker.train import ModelTrainer

#: How every job's name begins and, in the bucket, the folder of all that belongs to the kit's jobs.
NAME = "rlvr-kit"
#: The job's log is for people: no progress bars and advice of pip's.
PIP = {"PIP_QUIET": "1", "PIP_ROOT_USER_ACTION": "ignore", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
#: Keys of log.jsonl that become CloudWatch metrics of the job, read off the lines that training prints.
JOB_METRICS = (
    *("reward", "reward_std", "rewards/format", "rewards/correct", "heldout/strict", "heldout/lenient"),
    *("heldout/format", "length", "truncated", "entropy", "equal_groups", "loss", "grad_norm", "kl"),
)


@dataclass(frozen=True)
class JobPlan:
    """What submitting would do; rich prints it as a table. `request` differs only by the time in names."""

    recipe: Recipe
    account: str
    region: str
    role: str
    role_problem: str  # "" when none is known
    request: dict[str, Any]
    upload: dict[str, int]  # bytes, by channel
    estimate: Fact  # minutes
    max_minutes: float  # the job is stopped after this
    price: Fact  # US dollars an hour for one instance
    quota: Fact  # instances of this type that the account may train on at once

    @property
    def max_cost(self) -> float | None:
        """US dollars: price x instances x (longest run + warm pool); disk and storage are not in it."""
        job = self.recipe.sagemaker
        hours = self.max_minutes / 60 + job.keep_alive / 3600
        return None if self.price.value is None else self.price.value * job.instance_count * hours

    @property
    def refusals(self) -> list[str]:
        """Why this must not be submitted, each with what to do about it; empty when it may."""
        job, found = self.recipe.sagemaker, [self.role_problem] if self.role_problem else []
        if self.quota.value is not None and self.quota.value < job.instance_count:
            found.append(
                f"the quota in {self.region} is {self.quota.value:g} ({self.quota.basis}), the job needs "
                f"{job.instance_count}: ask for more there (it may take a day), or choose another --instance-type"
            )
        if self.max_cost is None:
            found.append(
                f"its price is unknown, so nothing holds it below sagemaker.max_cost = ${job.max_cost:.2f}: set "
                f"sagemaker.price_per_hour to the dollars that an hour of {job.instance_type} costs in "
                f"{self.region} (aws.amazon.com/sagemaker/pricing)"
            )
        elif self.max_cost > job.max_cost:
            found.append(
                f"it may cost ${self.max_cost:.2f}, more than sagemaker.max_cost = ${job.max_cost:.2f}: "
                "lower sagemaker.max_minutes, or raise sagemaker.max_cost if you want to spend that"
            )
        return found

    def in_words(self) -> dict[str, str]:
        """The plan in words, for a table."""
        job, most = self.recipe.sagemaker, self.max_cost
        spot = ", managed spot (billed at the lower spot price)" if job.spot else ""
        pretended = ", pretended: this is a rehearsal" if self.role.endswith(":role/rehearsal") else ""
        return {
            "account, region": f"{self.account}, {self.region}{pretended}",
            "role": self.role,
            "machine": f"{job.instance_count} x {job.instance_type}, {job.volume_gb} GB disk{spot}",
            "image": self.request["AlgorithmSpecification"]["TrainingImage"],
            "upload": ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in self.upload.items()),
            "estimate": self.estimate.show("{:.0f} min"),
            "stopped after": f"{self.max_minutes:.0f} min",
            "price": self.price.show("${:g} an hour") + pretended,
            "costs at most": "unknown without a price" if most is None else f"${most:.2f}",
            "quota": self.quota.show("{:g}") + pretended,
            "submit would": "refuse: " + "; ".join(self.refusals) if self.refusals else "start it",
        }

    def __rich__(self) -> "Table":
        from rich.table import Table

        table = Table(title=f"Recipe {self.recipe.name} as a SageMaker training job", show_header=False)
        for name, text in self.in_words().items():
            table.add_row(name, text)
        return table

    def to_dict(self) -> dict[str, Any]:
        """The plan for a program: JSON values only, with the request as it is."""
        facts = {name: getattr(self, name)._asdict() for name in ("estimate", "price", "quota")}
        facts |= {"recipe": self.recipe.name, "max_cost": self.max_cost, "refusals": self.refusals}
        return vars(self) | facts


def plan_job(recipe: Recipe, instance_type: str | None = None) -> JobPlan:
    """Work out the job that `recipe` would be. Raises UserError without region, credentials or role."""
    if instance_type:
        section = recipe.sagemaker.model_copy(update={"instance_type": instance_type})
        recipe = recipe.model_copy(update={"sagemaker": section})
    session = open_session(recipe.sagemaker.bucket, dry=True)
    with explained(), staged_source(recipe) as source:
        role, problem = find_role(session, recipe)
        estimate = _estimate(recipe)
        minutes = recipe.sagemaker.max_minutes or max(60.0, 3 * (estimate.value or 160.0))
        trainer = model_trainer(recipe, session, role, minutes, source)
        return JobPlan(
            recipe=recipe,
            account=session.account_id(),
            region=session.boto_region_name,
            role=role,
            role_problem=problem,
            request=trainer._create_training_job_args(boto3=True),
            upload={
                name: sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
                for name, folder in ({"source": source} | channels(recipe)).items()
            },
            estimate=estimate,
            max_minutes=minutes,
            price=find_price(session, recipe),
            quota=find_quota(session, recipe),
        )


def model_trainer(
    recipe: Recipe, session: "Session", role: str, minutes: float, source: Path
) -> "ModelTrainer":
    """The SDK's trainer for this recipe: what is uploaded and asked for is decided here and nowhere else."""
    from sagemaker.core import image_uris
    from sagemaker.train import ModelTrainer, configs

    job, region = recipe.sagemaker, session.boto_region_name
    version = {"version": job.framework_version, "py_version": job.python_version, "image_scope": "training"}
    # Machines with disks of their own (most GPU ones) encrypt them in hardware and refuse a volume key.
    own_disk = re.match(r"ml\.(g[4-9]|p[4-9]|p3dn|trn|\w+d\.)", job.instance_type)
    limits = {"max_runtime_in_seconds": int(minutes * 60)}
    if job.spot:
        limits["max_wait_time_in_seconds"] = int((job.max_wait_minutes or 2 * minutes) * 60)
    with mock.patch.dict(os.environ, SAGEMAKER_VALIDATE_ROLE="false"):  # the plan has checked it and shows it
        trainer = ModelTrainer(
            sagemaker_session=session,
            role=role,
            base_job_name=NAME,
            training_image=image_uris.retrieve("pytorch", region, instance_type=job.instance_type, **version),
            source_code=configs.SourceCode(
                source_dir=str(source),
                requirements="requirements.txt",
                # exec: SageMaker's SIGTERM reaches the first process alone, and a shell would not hand it on.
                command="exec $SM_PYTHON_CMD -u -m rlvr_kit.cloud.container",
            ),
            compute=configs.Compute(
                instance_type=job.instance_type,
                instance_count=job.instance_count,
                volume_size_in_gb=job.volume_gb,
                volume_kms_key_id=None if own_disk else job.kms_key,
                keep_alive_period_in_seconds=job.keep_alive or None,
                enable_managed_spot_training=job.spot,
            ),
            networking=configs.Networking(
                subnets=job.subnets or None, security_group_ids=job.security_groups or None
            ),
            stopping_condition=configs.StoppingCondition(**limits),
            output_data_config=configs.OutputDataConfig(kms_key_id=job.kms_key),
            checkpoint_config=configs.CheckpointConfig(),
            input_data_config=[
                configs.InputData(channel_name=name, data_source=str(folder))
                for name, folder in channels(recipe).items()
            ],
            hyperparameters={"rlvr_kit": __version__, "recipe": recipe.name},
            environment=PIP,
            tags=[configs.Tag(key=k, value=value) for k, value in {NAME: __version__, **job.tags}.items()],
        )
    return trainer.with_metric_definitions(
        [configs.MetricDefinition(name=name, regex=metric_regex(name)) for name in JOB_METRICS]
    )


def metric_regex(name: str) -> str:
    """The pattern that finds `name` in a printed line of log.jsonl.

    >>> re.search(metric_regex("reward"), '{"step": 3, "rewards/format": 0.1, "reward": 0.25}').group(1)
    '0.25'
    """
    return rf'^\{{"step": .*"{re.escape(name)}": (-?[0-9][0-9.eE+-]*)'


@contextmanager
def staged_source(recipe: Recipe) -> Iterator[Path]:
    """A folder with what the job needs and nothing else: package, recipe as resolved, requirements.txt."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        tidy = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(PROJECT / "rlvr_kit", source / "rlvr_kit", ignore=tidy)
        for file in recipe.loaded_task.travels:  # a user's own task, which the container finds in task/
            (source / "task").mkdir(exist_ok=True)
            shutil.copy(file, source / "task")
        (source / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
        (source / "requirements.txt").write_text("\n".join(requirements(recipe)) + "\n")
        yield source


def requirements(recipe: Recipe) -> list[str]:
    """The project's own pins, less torch: the container brings the one that fits its CUDA."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    job = recipe.sagemaker
    wanted = {"sagemaker-mlflow": job.mlflow_arn, "deepspeed": job.sharding == "zero2"}
    wanted["bitsandbytes"] = recipe.model.load_in_4bit
    wanted["reasoning-gym"] = recipe.task.startswith("reasoning_gym:")
    optional = [pin for extra in project["optional-dependencies"].values() for pin in extra]
    pins = [pin for pin in project["dependencies"] if not re.match(r"torch\b", pin)]
    return pins + [pin for pin in optional if wanted.get(re.split("[=<>]", pin)[0])]


def channels(recipe: Recipe) -> dict[str, Path]:
    """Local folders that the job needs, by channel; GSM8K and the model come from the Hub otherwise."""
    named = {"data": recipe.task, "model": recipe.model.name}
    if recipe.task == "gsm8k":
        named["gsm8k"] = os.environ.get("RLVR_KIT_GSM8K") or "gsm8k"
    found = {channel: PROJECT / Path(name).expanduser() for channel, name in named.items()}
    return {channel: folder for channel, folder in found.items() if folder.is_dir()}


def _estimate(recipe: Recipe) -> Fact:
    """Minutes, by a rule of thumb: decoding a token takes 30 ms whatever the batch, learning as long again."""
    given, measure = DEFAULTS | recipe.grpo, recipe.evaluation
    steps, batches = int(given["max_steps"]), -(-measure.heldout // measure.batch_size)
    if steps <= 0:
        return Fact(None, "the recipe sets no grpo.max_steps")
    completions = 2 * steps + (steps // measure.every_steps + 1) * batches
    rule = "a rule of thumb, not measured: full-length completions, 30 ms a token to sample, as much again to learn"
    return Fact(0.03 * completions * given["max_completion_length"] / 60, rule)
