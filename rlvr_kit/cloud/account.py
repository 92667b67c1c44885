"""The AWS account: who you are in it, which role a job gets, what you may use there and what it costs.

This module only reads from AWS. When AWS answers with an error, an AWSError of one line is raised.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from rlvr_kit.errors import AWSError, InputError, MachineError
from rlvr_kit.recipe import Recipe

if TYPE_CHECKING:
    from rich.table import Table
    from sagemaker.core.helper.session_helper import Session

#: The account number in a rehearsal. AWS's documentation uses it in examples, so no customer has it.
REHEARSAL_ACCOUNT = "123456789012"
POLICY = "rlvr_kit/recipes/iam_policy.json"
NO_ACCOUNT = "without an account, `submit --rehearse` runs the same job on this machine"
NO_CREDENTIALS = (
    "no AWS credentials: sign in (aws sso login, or aws configure) or work in SageMaker Studio; " + NO_ACCOUNT
)
#: What to do about an error, by a word in the message of AWS or of botocore.
ADVICE = {
    "AccessDenied": f"the permissions that the kit needs are in {POLICY}",
    "ExpiredToken": "sign in again (aws sso login), then repeat",
    "Throttling": "AWS asks for fewer calls: wait a minute, then repeat",
    "NoSuchBucket": "the bucket is gone: name another with sagemaker.bucket, or submit again",
    "ResourceLimitExceeded": "ask for a higher quota in Service Quotas, or choose another --instance-type",
    "config profile": "AWS_PROFILE must name one of the profiles that `aws configure list-profiles` shows",
}


class Fact(NamedTuple):
    """A number and its source. The value is None when it could not be found out.

    >>> Fact(1.5, "AWS Pricing API").show("${:g} an hour")
    '$1.5 an hour (AWS Pricing API)'
    """

    value: float | None
    basis: str

    def show(self, form: str) -> str:
        """Return the number in the format `form`, with its source in brackets."""
        return f"{'unknown' if self.value is None else form.format(self.value)} ({self.basis})"


def open_session(bucket: str | None = None, read_only: bool = False) -> "Session":
    """Open a session of the SageMaker SDK, without telemetry unless the user's SDK config asks for it.

    A `read_only` session creates no bucket and uploads nothing.

    Raises:
        MachineError: the SDK is not installed.
        AWSError: there are no credentials, no region or no such profile.
    """
    try:
        import boto3
        from sagemaker.core.config import load_sagemaker_config
        from sagemaker.core.helper.session_helper import Session
    except ImportError as error:
        raise MachineError(
            f"{error.name} is not installed: install the kit with its `aws` extra (pip install 'rlvr_kit[aws]')"
        ) from error

    class ReadOnlySession(Session):
        def default_bucket(self) -> str:  # the SDK's own method would create the bucket
            name = self._default_bucket_name_override
            return name or self.generate_default_sagemaker_bucket_name(self.boto_session)

        def upload_data(self, path: str, bucket: str, key_prefix: str, **options: Any) -> str:
            return f"s3://{bucket}/{key_prefix}"

    logging.getLogger("sagemaker").setLevel(logging.ERROR)  # the plan already says what its warnings say
    with explain_sdk_errors("the SageMaker SDK cannot use its own config file"), explain_aws_errors():
        boto_session = boto3.DEFAULT_SESSION or boto3.Session()
        if not boto_session.region_name:
            raise AWSError(f"no AWS region: export AWS_DEFAULT_REGION=<where your quota is>; {NO_ACCOUNT}")
        if boto_session.get_credentials() is None:
            raise AWSError(NO_CREDENTIALS)
        config = {"SchemaVersion": "1.0"} | load_sagemaker_config()
        modules = config.setdefault("SageMaker", {}).setdefault("PythonSDK", {}).setdefault("Modules", {})
        modules.setdefault("TelemetryOptOut", True)
        session_class = ReadOnlySession if read_only else Session
        return session_class(boto_session, default_bucket=bucket, sagemaker_config=config)


def cost_refusals(recipe: Recipe, region: str, max_cost: float | None, how_to_lower: str) -> list[str]:
    """Return why a plan's cost is refused, with what to do about it; nothing when it is below sagemaker.max_cost."""
    job = recipe.sagemaker
    if max_cost is None:
        return [
            f"its price is unknown, so it may cost more than sagemaker.max_cost = ${job.max_cost:.2f}: set "
            f"sagemaker.price_per_hour to the dollars that an hour of {job.instance_type} costs in {region} "
            "(aws.amazon.com/sagemaker/pricing)"
        ]
    if not max_cost <= job.max_cost:  # "not <=" also refuses a price that is not a number
        return [
            f"it may cost ${max_cost:.2f}, more than sagemaker.max_cost = ${job.max_cost:.2f}: lower {how_to_lower}, "
            "or raise sagemaker.max_cost if you want to spend that"
        ]
    return []


def plan_table(title: str, rows: Mapping[str, str]) -> "Table":
    """Return a plan in words as a table for rich."""
    from rich.table import Table

    table = Table(title=title, show_header=False)
    for name, text in rows.items():
        table.add_row(name, text)
    return table


@contextmanager
def explain_aws_errors() -> Iterator[None]:
    """Turn an error from AWS, from botocore or from the network into an AWSError of one line with advice."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except NoCredentialsError as error:
        raise AWSError(NO_CREDENTIALS) from error
    except (ClientError, BotoCoreError, Boto3Error) as error:
        message = " ".join(str(error).split())
        advice = [ADVICE[word] for word in ADVICE if word in message]
        raise AWSError("; ".join([f"AWS: {message}", *advice])) from error


@contextmanager
def explain_sdk_errors(what: str) -> Iterator[None]:
    """Turn a ValueError into an InputError that begins with `what`. Only calls of the SDK belong inside."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{what}: {' '.join(str(error).split())}") from error


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Give the process exactly the environment variables `values` inside the block, and then the old ones again."""
    before = dict(os.environ)
    try:
        _set_environment(values)
        yield
    finally:
        _set_environment(before)


def _set_environment(values: Mapping[str, str]) -> None:
    for name in set(os.environ) - set(values):
        del os.environ[name]
    os.environ.update(values)


def find_role(session: "Session", recipe: Recipe) -> tuple[str, str]:
    """Return the job's execution role, and what is known to be wrong with it, or "".

    Raises:
        InputError: the recipe names no role and you are not signed in as a role, or the role does not exist.
    """
    from sagemaker.core.helper.iam_role_resolver import RoleValidationError, resolve_and_validate_role

    name = recipe.sagemaker.role
    try:
        role = resolve_and_validate_role(name, "training", session, validate_role=False)
    except (RoleValidationError, ValueError) as error:
        reason = f"{name!r} does not exist" if name else "you are not signed in as a role"
        raise InputError(
            f"no role for the job ({reason}): set sagemaker.role to the ARN of a role that SageMaker may assume "
            f"and that has the permissions in {POLICY}"
        ) from error
    try:
        resolve_and_validate_role(role, "training", session)
    except RoleValidationError as error:
        lines = [line for line in str(error).splitlines() if not line.startswith("Required")]
        return role, " ".join(lines[: lines.index("")] if "" in lines else lines)
    except Exception:  # this check is only advice: AWS decides when the job is created
        pass
    return role, ""


def find_quota(session: "Session", recipe: Recipe, usage: str = "training job") -> Fact:
    """Return how many of the recipe's instances the account may use at a time. `usage`: training job or endpoint."""
    job, client = recipe.sagemaker, session.boto_session.client("service-quotas")
    spot = "spot " * (job.spot and usage == "training job")
    quota_name = f"{job.instance_type} for {spot}{usage} usage"
    try:  # a quota that was never changed is only in the second list
        for operation in ("list_service_quotas", "list_aws_default_service_quotas"):
            for page in client.get_paginator(operation).paginate(ServiceCode="sagemaker"):
                for quota in page["Quotas"]:
                    if quota["QuotaName"] == quota_name:
                        return Fact(quota["Value"], f"Service Quotas, {quota_name}")
    except Exception as error:  # only advice: AWS refuses the job when the quota is used up
        return Fact(None, f"Service Quotas could not be asked: {type(error).__name__}")
    return Fact(None, f"Service Quotas does not list {quota_name}")


def find_price(session: "Session", recipe: Recipe, usage: str = "Train") -> Fact:
    """Return the price of one of the recipe's instances, in US dollars per hour. `usage` is Train or Host."""
    job = recipe.sagemaker
    fields = {"instanceName": job.instance_type, "regionCode": session.boto_region_name}
    filters = [{"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in fields.items()]
    reason = "the Pricing API does not list it"
    try:
        client = session.boto_session.client("pricing", region_name="us-east-1")  # it answers for all regions
        pages = client.get_paginator("get_products").paginate(ServiceCode="AmazonSageMaker", Filters=filters)
        for product in (json.loads(text) for page in pages for text in page["PriceList"]):
            if product["product"]["attributes"]["usagetype"].endswith(f"{usage}:{job.instance_type}"):
                (term,) = product["terms"]["OnDemand"].values()
                (price,) = term["priceDimensions"].values()
                return Fact(float(price["pricePerUnit"]["USD"]), "AWS Pricing API, on demand")
    except Exception as error:  # most roles may not ask: then the recipe's own price is taken
        reason = f"the Pricing API could not be asked: {type(error).__name__}"
    source = "your" if job.price_per_hour is not None else "no"
    return Fact(job.price_per_hour, f"{reason}; {source} sagemaker.price_per_hour")
