"""The plan of a run's model as an endpoint: image, the model's archive, price, quota, and the time of its deletion.

Planning reads from AWS; it creates and uploads nothing.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rlvr_kit import __version__
from rlvr_kit.cloud.account import (
    POLICY,
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
from rlvr_kit.cloud.instances import gpus_of
from rlvr_kit.cloud.job_request import NAME
from rlvr_kit.errors import InputError
from rlvr_kit.recipe import Recipe
from rlvr_kit.run_folder import Run

if TYPE_CHECKING:
    from rich.table import Table
    from sagemaker.core.helper.session_helper import Session

#: By default vLLM would serve float32 weights in float16 and answer differently, so the format is set.
DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class EndpointPlan:
    """What `deployed` would do. rich prints it as a table."""

    run: Run
    recipe: Recipe  # with the instance type that was asked for
    name: str  # of the endpoint, of its configuration and of its model
    account: str
    region: str
    bucket: str
    role: str
    role_problem: str  # "" when none is known
    image: str
    environment: dict[str, str]  # of the container
    model_data: str  # the s3:// address of the archive with the model
    upload: bool  # True: the archive is made and uploaded here; False: it is the training job's own
    minutes: float  # the endpoint is deleted after this
    price: Fact  # US dollars an hour
    quota: Fact  # instances of this type that the account's endpoints may use at the same time

    @property
    def max_cost(self) -> float | None:
        """US dollars until the deletion. Storage is not included."""
        return None if self.price.value is None else self.price.value * self.minutes / 60

    @property
    def tags(self) -> dict[str, str]:
        """The tags of all resources; `clean_up` finds the kit's resources by them."""
        return {NAME: __version__, **self.recipe.sagemaker.tags}

    @property
    def refusals(self) -> list[str]:
        """Why this must not be deployed, each reason with what to do about it; empty when it may be."""
        settings, reasons = self.recipe.sagemaker, [self.role_problem] if self.role_problem else []
        if gpus_of(settings.instance_type) == (0, 0.0):
            reasons.append(
                f"{settings.instance_type} has no GPU, which the image needs: choose an ml.g5 or ml.g6 type"
            )
        if self.quota.value is not None and self.quota.value < 1:
            reasons.append(f"the quota in {self.region} is 0 ({self.quota.basis}): ask for more there")
        return reasons + cost_refusals(self.recipe, self.region, self.max_cost, "--minutes")

    def in_words(self) -> dict[str, str]:
        """Return the plan in words, for a table."""
        pretended = ", pretended: this is a rehearsal" if self.account == REHEARSAL_ACCOUNT else ""
        source = "the exported model, uploaded for it" if self.upload else "the training job's own archive"
        cost = "unknown without a price" if self.max_cost is None else f"${self.max_cost:.2f}"
        return {
            "account, region": f"{self.account}, {self.region}{pretended}",
            "endpoint": self.name,
            "role": self.role,
            "permissions": POLICY,
            "instance": f"1 x {self.recipe.sagemaker.instance_type}",
            "image": self.image,
            "model": f"{self.model_data} ({source})",
            "deleted after": f"{self.minutes:g} min at the latest, by this process: leave it running",
            "price": self.price.show("${:g} an hour") + pretended,
            "costs at most": cost,
            "quota": self.quota.show("{:g}") + pretended,
            "deploy would": "refuse: " + "; ".join(self.refusals) if self.refusals else "start it",
        }

    def __rich__(self) -> "Table":
        return plan_table(f"{self.run.path.name} as a SageMaker endpoint", self.in_words())

    def to_dict(self) -> dict[str, Any]:
        """Return the plan for a program, as JSON values."""
        own = {key: value for key, value in vars(self).items() if key not in ("run", "recipe")}
        facts = {name: getattr(self, name)._asdict() for name in ("price", "quota")}
        return own | facts | {"run": str(self.run.path), "max_cost": self.max_cost, "refusals": self.refusals}


def plan_endpoint(
    run: Run, instance_type: str | None = None, minutes: float = 60, price: float | None = None
) -> EndpointPlan:
    """Plan the endpoint for the run's model. `price` is in dollars per hour, for roles that may not ask AWS for it.

    Raises:
        AWSError: there is no region, there are no credentials, or AWS refuses a call.
        InputError: the run has no trained model, there is no role, or the SDK refuses a setting.

    >>> plan_endpoint(Run("runs/gpu"), "ml.g5.xlarge").refusals  # doctest: +SKIP
    []
    """
    recipe = run.recipe()
    config = run.path / "model" / "config.json"
    if not config.exists():
        raise InputError(f"{run.path} holds no whole model (RUN/model/config.json): train it first")
    given = {"instance_type": instance_type, "price_per_hour": price}
    section = recipe.sagemaker.model_copy(
        update={k: value for k, value in given.items() if value is not None}
    )
    recipe = recipe.model_copy(update={"sagemaker": section})
    session = open_session(section.bucket, read_only=True)
    from sagemaker.core import image_uris

    name = f"{NAME}-{datetime.now(UTC):%Y%m%d%H%M%S}"
    with explain_aws_errors():
        role, role_problem = find_role(session, recipe)
        with explain_sdk_errors("the SageMaker SDK refuses the instance type or the region"):
            image = image_uris.retrieve(
                "djl-lmi", session.boto_region_name, instance_type=section.instance_type
            )
        bucket, prefix = session.default_bucket(), session.default_bucket_prefix
        folder = f"{prefix}/{NAME}" if prefix else NAME
        archive = _job_archive(run, session)
        return EndpointPlan(
            run=run, recipe=recipe, name=name, account=session.account_id(), region=session.boto_region_name,
            bucket=bucket, role=role, role_problem=role_problem, image=image,
            environment={
                "HF_MODEL_ID": "/opt/ml/model/model" if archive else "/opt/ml/model",
                "HF_HUB_OFFLINE": "1",  # everything that it needs is in the archive
                "OPTION_DTYPE": DTYPES.get(json.loads(config.read_text(encoding="utf-8")).get("dtype"), "auto"),
            },
            model_data=archive or f"s3://{bucket}/{folder}/{name}/model.tar.gz", upload=archive is None,
            minutes=minutes, price=find_price(session, recipe, "Host"), quota=find_quota(session, recipe, "endpoint"),
        )  # fmt: skip


def _job_archive(run: Run, session: "Session") -> str | None:
    """Return the archive of the job that made the run, if it still exists and its model has a chat template."""
    from botocore.exceptions import ClientError

    file = run.path / "job.json"
    if not file.exists() or not (run.path / "model" / "chat_template.jinja").exists():
        return None
    uri = str(json.loads(file.read_text(encoding="utf-8")).get("model_artifacts"))
    match = re.fullmatch(r"s3://([^/]+)/(.+)", uri)
    try:
        return (
            uri
            if match and session.boto_session.client("s3").head_object(Bucket=match[1], Key=match[2])
            else None
        )
    except ClientError:
        return None
