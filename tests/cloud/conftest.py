"""A pretended account for the tests of this folder; moto answers, no network."""

import functools
from copy import deepcopy
from types import SimpleNamespace
from unittest import mock

import boto3
import botocore.session
import pytest

from rlvr_kit.cloud.jobs import plan_job, submit
from rlvr_kit.cloud.rehearsal import rehearsal
from rlvr_kit.recipe import load_recipe

#: The IAM action of a call where it is not `service:Call`.
ACTIONS = {
    "s3:HeadBucket": "s3:ListBucket",
    "s3:ListObjects": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:ListBuckets": "s3:ListAllMyBuckets",
    "s3:HeadObject": "s3:GetObject",
    "s3:DeleteObjects": "s3:DeleteObject",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:UploadPart": "s3:PutObject",
    "s3:CompleteMultipartUpload": "s3:PutObject",
    "monitoring:PutMetricData": "cloudwatch:PutMetricData",
}


def _record(calls):
    """Note every call that the user's session makes, as an IAM action."""
    names = {"service-quotas": "servicequotas", "api.pricing": "pricing", "api.sagemaker": "sagemaker"}
    names["runtime.sagemaker"] = "sagemaker"

    def note(model, **_):
        metadata = model.service_model.metadata
        service = names.get(metadata["endpointPrefix"], metadata["endpointPrefix"])
        calls.add(ACTIONS.get(call := f"{service}:{model.name}", call))

    boto3.DEFAULT_SESSION.events.register("before-parameter-build", note)


@pytest.fixture(scope="session")
def record():
    """A function that notes in a set every call that the user's session makes, as an IAM action."""
    return _record


@pytest.fixture(scope="module")
def quick():
    """Spare the tests what the SDK and botocore do anew each time: check their settings, read their files."""
    loader = mock.patch("botocore.session.create_loader", functools.cache(botocore.session.create_loader))
    with mock.patch("jsonschema.validate"), loader:
        yield


@pytest.fixture
def aws(monkeypatch):
    """A pretended account in which jobs are accepted, but not run."""
    monkeypatch.delenv("RLVR_KIT_GSM8K", raising=False)
    with rehearsal(run_jobs=False) as account:
        yield account


@pytest.fixture
def job(aws):
    """A job that was submitted, and a log line of it."""
    job = submit(plan_job(load_recipe("smoke")))
    aws.open_log(f"{job.training_job_name}/algo-1-1")('{"step": 1, "reward": 0.5}')
    return job


@pytest.fixture
def answer(aws):
    """A function that lets AWS answer `call` (service.Operation) with `response`, or with the error that it is."""

    def register(call, response, status=200):
        reply = {"ResponseMetadata": {"HTTPStatusCode": status}} | response
        boto3.DEFAULT_SESSION.events.register_first(
            f"before-call.{call}", lambda **_: (SimpleNamespace(status_code=status), deepcopy(reply))
        )

    return register
