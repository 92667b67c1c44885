"""What deploying a run's model would be: the image, the model's archive, price, quota, and when it is deleted.

Planning reads from AWS; it creates and uploads nothing.
"""

import json
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rlvr_kit import __version__
from rlvr_kit.cloud.account import (
    POLICY,
    REHEARSAL_ACCOUNT,
    Fact,
    explain_aws_errors,
    explain_sdk_errors,
    find_price,
    find_quota,
    find_role,
    open_session,
)
from rlvr_kit.cloud.instances import gpus_of
from rlvr_kit.cloud.job_request import NAME
from rlvr_kit.errors import InputError
from rlvr_kit.recipe import Recipe
from rlvr_kit.run_folder import Run

if TYPE_CHECKING:
    from rich.table import Table
    from sagemaker.core.helper.session_helper import Session

#: vLLM would serve float32 weights in float16, and so give other answers: the format is said.
DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class EndpointPlan:
    """What `deployed` would do. rich prints it as a table."""

    run: Run
    recipe: Recipe  # with the instance type that was asked for
    name: str  # of the endpoint, its configuration and its model alike
    account: str
    region: str
    bucket: str
    role: str
    role_problem: str  # "" when none is known
    image: str
    environment: dict[str, str]  # of the container
    model_data: str  # s3:// of the archive with the model
    upload: bool  # whether the archive is made here; otherwise it is the training job's own
    minutes: float  # the endpoint is deleted after this
    price: Fact  # US dollars an hour
    quota: Fact  # instances of this type that the account's endpoints may use at the same time

    @property
    def max_cost(self) -> float | None:
        """US dollars until the deletion. Storage is not included."""
        return None if self.price.value is None else self.price.value * self.minutes / 60

    @property
    def tags(self) -> dict[str, str]:
        """Whose these resources are, as `clean_up` looks for it."""
        return {NAME: __version__, **self.recipe.sagemaker.tags}

    @property
    def refusals(self) -> list[str]:
        """Why this must not be deployed, each with what to do about it; empty when it may."""
        settings, reasons = self.recipe.sagemaker, [self.role_problem] if self.role_problem else []
        if gpus_of(settings.instance_type) == (0, 0.0):
            reasons.append(
                f"{settings.instance_type} has no GPU, which the image needs: choose an ml.g5 or ml.g6 type"
            )
        if self.quota.value is not None and self.quota.value < 1:
            reasons.append(f"the quota in {self.region} is 0 ({self.quota.basis}): ask for more there")
        if self.max_cost is None:
            reasons.append(
                f"its price is unknown: set sagemaker.price_per_hour to the dollars that an hour of "
                f"{settings.instance_type} costs in {self.region} (aws.amazon.com/sagemaker/pricing)"
            )
        elif not self.max_cost <= settings.max_cost:
            reasons.append(
                f"it may cost ${self.max_cost:.2f}, more than sagemaker.max_cost = ${settings.max_cost:.2f}: "
                "lower --minutes, or raise sagemaker.max_cost"
            )
        return reasons

    def in_words(self) -> dict[str, str]:
        """The plan in words, for a table."""
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
        from rich.table import Table

        table = Table(title=f"{self.run.path.name} as a SageMaker endpoint", show_header=False)
        for name, text in self.in_words().items():
            table.add_row(name, text)
        return table

    def to_dict(self) -> dict[str, Any]:
        """The plan for a program: JSON values only."""
        own = {key: value for key, value in vars(self).items() if key not in ("run", "recipe")}
        facts = {name: getattr(self, name)._asdict() for name in ("price", "quota")}
        return own | facts | {"run": str(self.run.path), "max_cost": self.max_cost, "refusals": self.refusals}


def plan_endpoint(
    run: Run, instance_type: str | None = None, minutes: float = 60, price: float | None = None
) -> EndpointPlan:
    """Work out the endpoint that the run's model would be. `price`: dollars an hour, where AWS may not be asked.

    Raises:
        AWSError: there is no region or are no credentials, or AWS refuses a call.
        InputError: the run has no trained model, there is no role, or the SDK refuses a setting.
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

    # Two people may plan in the same second, and each deletes what has the name of the plan.
    name = f"{NAME}-{datetime.now(UTC):%Y%m%d%H%M%S}-{secrets.token_hex(3)}"
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
                "HF_HUB_OFFLINE": "1",  # all that it needs is in the archive
                "OPTION_DTYPE": DTYPES.get(json.loads(config.read_text(encoding="utf-8")).get("dtype"), "auto"),
            },
            model_data=archive or f"s3://{bucket}/{folder}/{name}/model.tar.gz", upload=archive is None,
            minutes=minutes, price=find_price(session, recipe, "Host"), quota=find_quota(session, recipe, "endpoint"),
        )  # fmt: skip


def _job_archive(run: Run, session: "Session") -> str | None:
    """The archive of the job that the run was fetched from, where it is still there and its model can chat."""
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
