"""The AWS account: who you are in it, what you may use there and what it costs. Nothing here writes."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from rlvr_kit.errors import InputError
from rlvr_kit.recipe import Recipe

if TYPE_CHECKING:
    from sagemaker.core.helper.session_helper import Session

POLICY = "rlvr_kit/recipes/iam_policy.json"
NO_ACCOUNT = "without an account, `submit --rehearse` runs the same job on this machine"
NO_CREDENTIALS = (
    "no AWS credentials: sign in (aws sso login, or aws configure) or work in SageMaker Studio; " + NO_ACCOUNT
)
ADVICE = {
    "AccessDenied": f"the permissions that the kit needs are in {POLICY}",
    "ExpiredToken": "sign in again (aws sso login), then repeat",
    "Throttling": "AWS asks for fewer calls: wait a minute, then repeat",
    "NoSuchBucket": "the bucket is gone: name another with sagemaker.bucket, or submit again",
    "ResourceLimitExceeded": "ask for a higher quota in Service Quotas, or choose another --instance-type",
}


class Fact(NamedTuple):
    """A number and where it comes from; None where nobody could say."""

    value: float | None
    basis: str

    def show(self, form: str) -> str:
        return f"{'unknown' if self.value is None else form.format(self.value)} ({self.basis})"


def open_session(bucket: str | None = None, dry: bool = False) -> "Session":
    """The SDK's session, without telemetry unless the user's SDK config asks for it; `dry` never writes."""
    import boto3
    from sagemaker.core.config import load_sagemaker_config
    from sagemaker.core.helper.session_helper import Session

    class DrySession(Session):
        def default_bucket(self) -> str:  # the SDK's own would create the bucket
            name = self._default_bucket_name_override
            return name or self.generate_default_sagemaker_bucket_name(self.boto_session)

        def upload_data(self, path: str, bucket: str, key_prefix: str, **options: Any) -> str:
            return f"s3://{bucket}/{key_prefix}"

    logging.getLogger("sagemaker").setLevel(logging.ERROR)  # its warnings are what the plan says, but longer
    boto = boto3.DEFAULT_SESSION or boto3.Session()
    if not boto.region_name:
        raise InputError(f"no AWS region: export AWS_DEFAULT_REGION=<where your quota is>; {NO_ACCOUNT}")
    with explained():
        if boto.get_credentials() is None:
            raise InputError(NO_CREDENTIALS)
        config = {"SchemaVersion": "1.0"} | load_sagemaker_config()
        modules = config.setdefault("SageMaker", {}).setdefault("PythonSDK", {}).setdefault("Modules", {})
        modules.setdefault("TelemetryOptOut", True)
        return (DrySession if dry else Session)(boto, default_bucket=bucket, sagemaker_config=config)


@contextmanager
def explained() -> Iterator[None]:
    """Turn what AWS and the network raise into one line that says what to do."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except NoCredentialsError as error:
        raise InputError(NO_CREDENTIALS) from error
    except ValueError as error:
        raise InputError(f"the SageMaker SDK refuses the recipe's settings: {str(error).strip()}") from error
    except (ClientError, BotoCoreError, Boto3Error) as error:
        told = " ".join(str(error).split())
        raise InputError(
            "; ".join([f"AWS: {told}", *(ADVICE[key] for key in ADVICE if key in told)])
        ) from error


def find_role(session: "Session", recipe: Recipe) -> tuple[str, str]:
    """The execution role, and what is known to be wrong with it ("" for nothing)."""
    from sagemaker.core.helper.iam_role_resolver import RoleValidationError, resolve_and_validate_role

    wanted = recipe.sagemaker.role
    try:
        role = resolve_and_validate_role(wanted, "training", session, validate_role=False)
    except (RoleValidationError, ValueError) as error:
        who = f"{wanted!r} is none" if wanted else "you are not signed in as one"
        raise InputError(
            f"no role for the job ({who}): set sagemaker.role to the ARN of a role that SageMaker may assume "
            f"and that has the permissions in {POLICY}"
        ) from error
    try:
        resolve_and_validate_role(role, "training", session)
    except RoleValidationError as error:
        told = [line for line in str(error).splitlines() if not line.startswith("Required")]
        return role, " ".join(told[: told.index("")])
    except Exception:  # advice only: the service itself has the last word when the job is created
        pass
    return role, ""


def find_quota(session: "Session", recipe: Recipe) -> Fact:
    """How many of the recipe's instances may train at once."""
    job, client = recipe.sagemaker, session.boto_session.client("service-quotas")
    wanted = f"{job.instance_type} for {'spot ' * job.spot}training job usage"
    try:  # a quota that was never changed is in the second list only
        for listing in ("list_service_quotas", "list_aws_default_service_quotas"):
            for page in client.get_paginator(listing).paginate(ServiceCode="sagemaker"):
                for quota in page["Quotas"]:
                    if quota["QuotaName"] == wanted:
                        return Fact(quota["Value"], f"Service Quotas, {wanted}")
    except Exception as error:  # advice only: AWS itself refuses when the quota is used up
        return Fact(None, f"Service Quotas could not be asked: {type(error).__name__}")
    return Fact(None, f"Service Quotas does not list {wanted}")


def find_price(session: "Session", recipe: Recipe) -> Fact:
    """US dollars an hour for one of the recipe's instances."""
    job = recipe.sagemaker
    fields = {"instanceName": job.instance_type, "regionCode": session.boto_region_name}
    filters = [{"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in fields.items()]
    reason = "the Pricing API does not list it"
    try:
        client = session.boto_session.client("pricing", region_name="us-east-1")  # there for all regions
        pages = client.get_paginator("get_products").paginate(ServiceCode="AmazonSageMaker", Filters=filters)
        for product in (json.loads(text) for page in pages for text in page["PriceList"]):
            if product["product"]["attributes"]["usagetype"].endswith(f"Train:{job.instance_type}"):
                (term,) = product["terms"]["OnDemand"].values()
                (price,) = term["priceDimensions"].values()
                return Fact(float(price["pricePerUnit"]["USD"]), "AWS Pricing API, on demand")
    except Exception as error:  # advice only, and most roles may not ask
        reason = f"the Pricing API could not be asked: {type(error).__name__}"
    yours = "your" if job.price_per_hour is not None else "no"
    return Fact(job.price_per_hour, f"{reason}; {yours} sagemaker.price_per_hour")
