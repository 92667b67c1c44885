"""What the kit's jobs left in an account, and that nothing of anyone else is touched."""

import boto3
import pytest

from rlvr_kit import UserError
from rlvr_kit.cloud.account import REHEARSAL_ACCOUNT as ACCOUNT
from rlvr_kit.cloud.clean_up import clean_up
from rlvr_kit.cloud.pretended_aws import ROLE

pytestmark = pytest.mark.usefixtures("quick")


def test_clean_up_lists_all_and_deletes_what_is_named(aws, job):
    name = job.training_job_name
    other = boto3.client("s3").put_object(Bucket=f"sagemaker-us-east-1-{ACCOUNT}", Key="theirs/x", Body=b"x")
    assert other
    folder = f"s3://sagemaker-us-east-1-{ACCOUNT}/rlvr-kit/{name}/"
    left = {item["id"]: item for item in clean_up()}
    assert set(left) == {f"training-job/{name}", f"log-stream/{name}/algo-1-1", folder}
    assert left[folder]["bytes"] > 10_000
    assert not [item for item in left.values() if item["deleted"]]
    with pytest.raises(UserError, match="nothing was deleted.*s3://elsewhere"):
        clean_up([folder, "s3://elsewhere/"])
    assert len(clean_up()) == 3
    clean_up([folder, f"training-job/{name}"])
    assert {item["id"] for item in clean_up()} == {f"training-job/{name}", f"log-stream/{name}/algo-1-1"}
    assert aws.stopping == {name}
    keys = boto3.client("s3").list_objects_v2(Bucket=f"sagemaker-us-east-1-{ACCOUNT}")["Contents"]
    assert [item["Key"] for item in keys] == ["theirs/x"]


def test_clean_up_in_a_bucket_of_your_own(aws):
    boto3.client("s3").create_bucket(Bucket="mine")
    boto3.client("s3").put_object(Bucket="mine", Key="rlvr-kit/rlvr-kit-1/x", Body=b"four")
    (item,) = clean_up(bucket="mine")
    assert (item["id"], item["bytes"]) == ("s3://mine/rlvr-kit/rlvr-kit-1/", 4)


def test_clean_up_in_an_empty_account(aws):
    assert clean_up() == []


def create_job(aws, name, tags=()):
    boto3.client("sagemaker").create_training_job(
        TrainingJobName=name, RoleArn=ROLE, Tags=list(tags), HyperParameters={},
        AlgorithmSpecification={"TrainingInputMode": "File"}, OutputDataConfig={"S3OutputPath": "s3://theirs/"},
        ResourceConfig={"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 60},
    )  # fmt: skip
    aws.set_status(name, "InProgress", "Training")
    aws.open_log(f"{name}/algo-1-1")("line")


def create_endpoint(name, tags=()):
    sagemaker = boto3.client("sagemaker")
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "image"})
    variant = {
        "VariantName": "a",
        "ModelName": name,
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
    }
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name, Tags=list(tags))


def test_clean_up_leaves_strangers_alone(aws):
    """Only a name that begins with the kit's prefix and has the kit's tag is the kit's."""
    tag = {"Key": "rlvr-kit", "Value": "0.1.0"}
    for name, tags in {
        "team-rlvr-kit-x": [tag],  # the prefix in the middle
        "rlvr-kit-of-the-team": [],  # the prefix without the tag
        "rlvr-kit-of-another-team": [{"Key": "team", "Value": "rlvr-kit"}],
        "rlvr-kit-20260101120000": [tag],
    }.items():
        create_job(aws, name, tags)
        create_endpoint(name, tags)
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=f"sagemaker-us-east-1-{ACCOUNT}")
    s3.put_object(Bucket=f"sagemaker-us-east-1-{ACCOUNT}", Key="rlvr-kit/data/x", Body=b"x")
    ours = {
        "training-job/rlvr-kit-20260101120000",
        "endpoint/rlvr-kit-20260101120000",
        "log-stream/rlvr-kit-20260101120000/algo-1-1",
    }
    assert {item["id"] for item in clean_up()} == ours
    with pytest.raises(UserError, match="nothing was deleted.*training-job/team-rlvr-kit-x"):
        clean_up(["training-job/team-rlvr-kit-x"])
    clean_up(ours)
    assert aws.stopping == {"rlvr-kit-20260101120000"}
    left = boto3.client("sagemaker").list_endpoints()["Endpoints"]
    assert "rlvr-kit-20260101120000" not in {endpoint["EndpointName"] for endpoint in left} and len(left) == 3
