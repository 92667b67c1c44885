"""Role, quota, price, credentials, and what AWS refuses; moto answers, no network."""

import json
import sys

import pytest
from moto import mock_aws

from rlvr_kit import AWSError, MachineError, UserError
from rlvr_kit.cloud.jobs import plan_job, submit
from rlvr_kit.cloud.pretended_aws import ROLE
from rlvr_kit.cloud.rehearsal import rehearsal
from rlvr_kit.recipe import load_recipe

pytestmark = pytest.mark.usefixtures("quick")


def error(code):
    return {"Error": {"Code": code, "Message": "because"}}


def test_price_is_asked_of_aws_first(aws, answer):
    def product(usage, price):
        dimensions = {"sku.rate": {"pricePerUnit": {"USD": price}}}
        terms = {"OnDemand": {"sku": {"priceDimensions": dimensions}}}
        return json.dumps({"product": {"attributes": {"usagetype": usage}}, "terms": terms})

    rows = [product("EUW1-Host:ml.g6.2xlarge", "9"), product("EUW1-Train:ml.g6.2xlarge", "1.2220000000")]
    answer("pricing.GetProducts", {"PriceList": rows})
    price = plan_job(load_recipe("smoke", ["sagemaker.price_per_hour=5"]), "ml.g6.2xlarge").price
    assert price == (1.222, "AWS Pricing API, on demand")


@pytest.mark.parametrize("call", ["pricing.GetProducts", "service-quotas.ListServiceQuotas"])
def test_what_may_not_be_asked_is_unknown(aws, answer, call):
    answer(call, error("AccessDeniedException"), 400)
    planned = plan_job(load_recipe("smoke"))
    fact = planned.price if "pricing" in call else planned.quota
    assert fact.value is None and "could not be asked" in fact.basis
    assert len(planned.refusals) == ("pricing" in call)  # AWS itself keeps to the quota, but to no price


def test_missing_permissions_are_named(aws, answer):
    denied = {"EvalActionName": "cloudwatch:PutMetricData", "EvalDecision": "implicitDeny"}
    answer("iam.SimulatePrincipalPolicy", {"EvaluationResults": [denied]})
    planned = plan_job(load_recipe("smoke"))
    with pytest.raises(UserError, match="rehearsal.*Missing permissions: cloudwatch:PutMetricData"):
        submit(planned)


def test_role_that_sagemaker_may_not_assume(aws, answer):
    answer("iam.GetRole", {"Role": {"Arn": ROLE, "AssumeRolePolicyDocument": '{"Statement": []}'}})
    assert "trust policy" in plan_job(load_recipe("smoke")).role_problem


def test_no_role():
    with mock_aws(), pytest.raises(UserError, match="no role.*set sagemaker.role"):
        plan_job(load_recipe("smoke"))


def test_no_region(monkeypatch):
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", "none")
    with pytest.raises(UserError, match="no AWS region: export AWS_DEFAULT_REGION"):
        plan_job(load_recipe("smoke"))


def test_profile_that_does_not_exist(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(
        AWSError, match="profile .nobody. could not be found; AWS_PROFILE must name"
    ) as raised:
        plan_job(load_recipe("smoke"))
    assert "\n" not in str(raised.value)


def test_no_credentials(monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "none")
    with pytest.raises(UserError, match="no AWS credentials.*--rehearse"):
        plan_job(load_recipe("smoke"))


@pytest.mark.parametrize(
    "call, code, message",
    [
        (
            "sagemaker.CreateTrainingJob",
            "ThrottlingException",
            "ThrottlingException. when calling the CreateTrainingJob.*wait a minute",
        ),
        ("sagemaker.CreateTrainingJob", "ResourceLimitExceeded", "higher quota in Service Quotas"),
        ("sagemaker.CreateTrainingJob", "AccessDeniedException", "iam_policy.json"),
        ("sts.GetCallerIdentity", "ExpiredToken", "sign in again"),
        ("s3.PutObject", "NoSuchBucket", "bucket is gone"),
    ],
)
def test_refused_by_aws_is_one_clear_line(aws, answer, call, code, message):
    planned = plan_job(load_recipe("smoke"))
    answer(call, error(code), 400)
    with pytest.raises(AWSError, match=message) as raised:
        submit(planned)
    assert "\n" not in str(raised.value)


def test_installation_without_the_aws_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(MachineError, match=r"boto3 is not installed: install the kit with its `aws` extra"):
        plan_job(load_recipe("smoke"))
    with pytest.raises(MachineError, match="a rehearsal needs boto3"), rehearsal():
        pass
